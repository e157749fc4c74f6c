//! How a sender wants to be answered: the table of HL7.md section 2 as a pure function.
//!
//! MSH-15 and MSH-16 both empty: original mode, AA/AE/AR. MSH-15 AL, SU or ER: enhanced mode, its accept acknowledgement CA/CE/CR always, on
//! success only, on error only. MSH-15 NE, or empty while MSH-16 says something: original mode, filtered by MSH-16 (NE and NE: nothing at
//! all). A value outside table 0155 counts as empty and is told as an oddity.
//!
//! What enhanced mode adds, the application acknowledgement asked for by MSH-16, is the hub's business and comes much later if ever. What
//! the sender gets in its place is the feed's `app_ack`:
//!
//! | `app_ack` | MSH-15 AL/SU/ER and MSH-16 AL/SU/ER, stored | not stored |
//! |---|---|---|
//! | `none` | CA by MSH-15 | CE/CR by MSH-15 |
//! | `same_channel` | CA by MSH-15, then AA by MSH-16 | CE/CR by MSH-15: no application saw it |
//! | `aa_only` | AA where either of the two wants an answer | AE/AR where either does |
//!
//! With MSH-16 NE or empty the three do not differ: a cabinet that asks for CA gets CA.

use super::fault::{Class, Fault};
use crate::config::settings::AppAck;
use crate::source::msh::Header;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Original,
    Enhanced,
}

/// HL7 table 0155.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    Never,
    OnError,
    OnSuccess,
}

impl When {
    /// `Ok(None)` for an empty field or HL7's null, `Err` for a value that the table does not have.
    fn read(value: &[u8]) -> Result<Option<Self>, ()> {
        match value.trim_ascii() {
            b"" | b"\"\"" => Ok(None),
            b"AL" => Ok(Some(Self::Always)),
            b"NE" => Ok(Some(Self::Never)),
            b"ER" => Ok(Some(Self::OnError)),
            b"SU" => Ok(Some(Self::OnSuccess)),
            _ => Err(()),
        }
    }

    fn on_success(self) -> bool {
        matches!(self, Self::Always | Self::OnSuccess)
    }

    fn on_error(self) -> bool {
        matches!(self, Self::Always | Self::OnError)
    }
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    scheme: Scheme,
    on_success: bool,
    on_error: bool,
    /// Success is also told as AA, behind CA.
    and_application: bool,
    /// MSH-15 or MSH-16 held something that table 0155 does not have.
    pub(super) unknown: bool,
}

impl Manner {
    /// Where nothing is known of the sender's wishes.
    pub(super) const ORIGINAL: Self =
        Self { scheme: Scheme::Original, on_success: true, on_error: true, and_application: false, unknown: false };

    pub(super) fn of(header: &Header<'_>, app_ack: AppAck) -> Self {
        let (accept, application) = (When::read(header.component(15, 1)), When::read(header.component(16, 1)));
        let unknown = accept.is_err() || application.is_err();
        let (accept, application) = (accept.ok().flatten(), application.ok().flatten());
        let Some(accept) = accept.filter(|when| *when != When::Never) else {
            // MSH-15 NE or empty: one answer, by MSH-16
            let when = application.unwrap_or(When::Always);
            return Self { on_success: when.on_success(), on_error: when.on_error(), unknown, ..Self::ORIGINAL };
        };
        let enhanced = Self {
            scheme: Scheme::Enhanced,
            on_success: accept.on_success(),
            on_error: accept.on_error(),
            and_application: false,
            unknown,
        };
        match (app_ack, application.filter(|when| *when != When::Never)) {
            (AppAck::None, _) | (_, None) => enhanced,
            (AppAck::SameChannel, Some(application)) => Self { and_application: application.on_success(), ..enhanced },
            (AppAck::AaOnly, Some(application)) => Self {
                scheme: Scheme::Original,
                on_success: accept.on_success() || application.on_success(),
                on_error: accept.on_error() || application.on_error(),
                ..enhanced
            },
        }
    }

    /// MSA-1 after the message was stored: none, one, or the two of `same_channel`.
    pub(super) fn codes_for_success(self) -> impl Iterator<Item = &'static str> {
        let code = if self.scheme == Scheme::Original { "AA" } else { "CA" };
        self.on_success.then_some(code).into_iter().chain(self.and_application.then_some("AA"))
    }

    /// MSA-1 when it was not.
    pub(super) fn code_for(self, fault: Fault) -> Option<&'static str> {
        let code = match (self.scheme, fault.class()) {
            (Scheme::Original, Class::Header | Class::Store) => "AR",
            (Scheme::Original, Class::Content) => "AE",
            (Scheme::Enhanced, Class::Header) => "CR",
            (Scheme::Enhanced, Class::Content | Class::Store) => "CE",
        };
        self.on_error.then_some(code)
    }
}
