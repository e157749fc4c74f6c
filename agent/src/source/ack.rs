//! What a sender is told: the verdict on a frame, and the reply, byte for byte.
//!
//! ```text
//! frame ── judge ──► Accept  ── positive ──► Message.reply ── append ──► Durable ── accept ──► Reply
//!                │                                             └ refused by the store ── store_failed ──► Reply or none
//!                ├─► Refuse  ── reply ──► Reply or none           (and the frame goes to quarantine)
//!                └─► Ignore                                        nothing stored, nothing sent
//! ```
//!
//! I1: only a [`Reply`] can be written to a sender. A positive one comes from [`accept`] alone, which consumes the committer's `Durable`
//! and gives the bytes stored with the record, on the duplicate path too. `Accepted::positive` computes those bytes beforehand but makes no
//! `Reply`.
//!
//! **Which reply.** MSH-15 and MSH-16 both empty: original mode, AA/AE/AR. MSH-15 AL, SU or ER: enhanced mode, its accept acknowledgement
//! CA/CE/CR always, on success only, on error only; the application acknowledgement of MSH-16 is the hub's business and never sent here.
//! MSH-15 NE, or empty while MSH-16 says something: original mode, filtered by MSH-16 (NE and NE: nothing at all). Unknown values count as
//! empty.
//!
//! | | stored | store failed (`nak`) | header not acceptable (oversize) | content (no MSH-10) |
//! |---|---|---|---|---|
//! | original | AA | AR 207 | AR | AE |
//! | enhanced | CA | CE 207 | CR | CE |
//!
//! Without any header there is nothing to go by: AR with an empty MSA-2. A batch (FHS, BHS) is stored whole and answered once, in original
//! mode, with the batch's control id.
//!
//! **What it says.** The reply's MSH is built anew with the sender's delimiters; whole fields change places (5, 6 become 3, 4 and the
//! reverse); MSA-2 is MSH-10 as received. No other content is repeated, and none in MSA-3 or ERR (I7). A reply is always shorter than
//! `REPLY_BYTES_MAX`: absurdly long fields are left out, MSA-2 never is; what cannot be echoed is refused.

#[cfg(test)]
mod corpus;
mod reply;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use std::fmt;

use super::frame::{END, START};
use super::msh::{self, Header, Kind};
use crate::limits::CONTROL_ID_ECHO_BYTES_MAX;
use crate::record::{MessageIdentity, Payload};
use crate::spool::Durable;

/// What the caller adds to a reply.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// MSH-7, with offset: `20260101120000+0000`.
    pub time: String,
    /// MSH-10 of the reply: new, unique, at most 20 letters and digits.
    pub control_id: String,
}

/// Bytes for the sender, framing included; empty where nothing is due. `Debug` shows the length (I7).
#[derive(Clone, PartialEq, Eq)]
pub struct Reply(Payload);

impl Reply {
    /// What to write, in one piece.
    pub fn bytes(&self) -> &Bytes {
        self.0.expose()
    }
    #[cfg(test)]
    pub(super) fn for_tests(stored: Payload) -> Self {
        Self(stored)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply{:?}", self.0)
    }
}

/// The only way to a positive reply (I1): the record, or the first copy of it, is on disk, and these are the bytes stored with it.
#[allow(clippy::needless_pass_by_value)] // consumes the proof
pub fn accept(durable: Durable) -> Reply {
    Reply(durable.reply().clone())
}

/// What the feed's configuration says about odd messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Messages without MSH-10 are stored (without an identity) and answered with an empty MSA-2.
    pub allow_missing_control_id: bool,
}

/// What becomes of a frame.
#[derive(Debug)]
pub enum Verdict<'a> {
    Accept(Accepted<'a>),
    Refuse(Refused<'a>),
    Ignore(Ignored),
}

/// Frames that are neither stored nor answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// An acknowledgement; one is never acknowledged.
    Acknowledgement,
    /// A commit acknowledgement block of MLLP release 2 (06 or 15).
    CommitBlock,
}

/// What is wrong with a message, or with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NoHeader,
    NoControlId,
    /// MSH-10 is longer than what a reply can repeat, or holds framing bytes.
    ControlIdUnusable,
    OverLimit,
    StoreFailed,
}

impl Fault {
    /// The name under which the frame is found in quarantine and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoHeader => "no_header",
            Self::NoControlId => "no_control_id",
            Self::ControlIdUnusable => "control_id_unusable",
            Self::OverLimit => "over_limit",
            Self::StoreFailed => "store_failed",
        }
    }
    /// HL7 table 0357, and its text for the sender's people.
    fn condition(self) -> (&'static str, &'static str) {
        match self {
            Self::NoHeader => ("100", "Segment sequence error"),
            Self::NoControlId => ("101", "Required field missing"),
            Self::ControlIdUnusable => ("102", "Data type error"),
            Self::OverLimit => ("104", "Value too long"),
            Self::StoreFailed => ("207", "Application internal error"),
        }
    }
    /// Whether the fault is in MSH-10.
    fn is_about_control_id(self) -> bool {
        matches!(self, Self::NoControlId | Self::ControlIdUnusable)
    }
}

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
}

/// How a sender wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Manner {
    scheme: Scheme,
    when: When,
    /// MSH-15 or MSH-16 held something that table 0155 does not have.
    unknown: bool,
}

impl Manner {
    fn of(header: &Header<'_>) -> Self {
        let (accept, application) = (When::read(header.component(15, 1)), When::read(header.component(16, 1)));
        let unknown = accept.is_err() || application.is_err();
        let (scheme, when) = match (accept.ok().flatten(), application.ok().flatten()) {
            (None, None) => (Scheme::Original, When::Always),
            (Some(When::Never) | None, application) => (Scheme::Original, application.unwrap_or(When::Always)),
            (Some(accept), _) => (Scheme::Enhanced, accept),
        };
        Self { scheme, when, unknown }
    }

    fn code_for_success(self) -> Option<&'static str> {
        let code = if self.scheme == Scheme::Original { "AA" } else { "CA" };
        matches!(self.when, When::Always | When::OnSuccess).then_some(code)
    }

    fn code_for(self, fault: Fault) -> Option<&'static str> {
        let code = match (self.scheme, fault) {
            (Scheme::Original, Fault::NoHeader | Fault::OverLimit | Fault::StoreFailed) => "AR",
            (Scheme::Original, Fault::NoControlId | Fault::ControlIdUnusable) => "AE",
            (Scheme::Enhanced, Fault::NoHeader | Fault::OverLimit) => "CR",
            (Scheme::Enhanced, Fault::NoControlId | Fault::ControlIdUnusable | Fault::StoreFailed) => "CE",
        };
        matches!(self.when, When::Always | When::OnError).then_some(code)
    }
}

/// A message to be stored.
pub struct Accepted<'a> {
    frame: &'a Bytes,
    header: Header<'a>,
    manner: Manner,
}

/// A message that is not stored, for good.
pub struct Refused<'a> {
    header: Option<Header<'a>>,
    manner: Manner,
    fault: Fault,
}

impl fmt::Debug for Accepted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("manner", &self.manner).finish_non_exhaustive()
    }
}

impl fmt::Debug for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("manner", &self.manner).field("fault", &self.fault).finish_non_exhaustive()
    }
}

/// Looks at a complete frame.
pub fn judge(frame: &Bytes, policy: Policy) -> Verdict<'_> {
    if matches!(frame[..], [0x06 | 0x15]) {
        return Verdict::Ignore(Ignored::CommitBlock);
    }
    let Some(header) = msh::scan(frame) else {
        return Verdict::Refuse(Refused::new(None, Fault::NoHeader));
    };
    if header.is_acknowledgement() {
        return Verdict::Ignore(Ignored::Acknowledgement);
    }
    let control_id = header.field(10);
    if control_id.is_empty() && !policy.allow_missing_control_id {
        return Verdict::Refuse(Refused::new(Some(header), Fault::NoControlId));
    }
    if !can_echo(control_id) {
        return Verdict::Refuse(Refused::new(Some(header), Fault::ControlIdUnusable));
    }
    let manner = Manner::of(&header);
    Verdict::Accept(Accepted { frame, header, manner })
}

/// Looks at the first bytes of a frame that was over the limit.
pub fn judge_oversize(head: &[u8]) -> Refused<'_> {
    Refused::new(msh::scan_head(head), Fault::OverLimit)
}

/// Whether MSH-10 can be repeated in MSA-2.
fn can_echo(control_id: &[u8]) -> bool {
    control_id.len() <= CONTROL_ID_ECHO_BYTES_MAX && is_frameable(control_id)
}

/// Whether a field can stand in a reply: it holds neither framing bytes nor a segment end.
fn is_frameable(field: &[u8]) -> bool {
    !field.iter().any(|b| matches!(*b, START | END | b'\r'))
}

impl Accepted<'_> {
    /// The sender's identity of the message, as slices of its frame.
    pub fn identity(&self) -> Option<MessageIdentity> {
        let field = |n| self.frame.slice_ref(self.header.field(n));
        let control_id = field(10);
        (!control_id.is_empty()).then(|| MessageIdentity { application: field(3), facility: field(4), control_id })
    }

    /// The positive reply, to be stored with the record; empty where the sender wants none. Not yet a [`Reply`].
    pub fn positive(&self, stamp: &Stamp) -> Payload {
        let code = self.manner.code_for_success();
        Payload::new(code.map(|code| reply::build(Some(&self.header), code, None, stamp)).unwrap_or_default())
    }

    /// The reply after the store failed, for a feed that says so to its senders (`on_store_failure = "nak"`).
    pub fn store_failed(&self, stamp: &Stamp) -> Option<Reply> {
        self.negative(Fault::StoreFailed, stamp)
    }

    /// The reply to a message that the store does not take at its size.
    pub fn too_large(&self, stamp: &Stamp) -> Option<Reply> {
        self.negative(Fault::OverLimit, stamp)
    }

    /// MSH-15 or MSH-16 held something that table 0155 does not have and was read as empty.
    pub fn has_unknown_manner(&self) -> bool {
        self.manner.unknown
    }

    /// Several messages in one frame, stored and answered as one.
    pub fn is_batch(&self) -> bool {
        self.header.kind == Kind::Batch
    }

    fn negative(&self, fault: Fault, stamp: &Stamp) -> Option<Reply> {
        let code = self.manner.code_for(fault)?;
        Some(Reply(Payload::new(reply::build(Some(&self.header), code, Some(fault), stamp))))
    }
}

impl<'a> Refused<'a> {
    fn new(header: Option<Header<'a>>, fault: Fault) -> Self {
        let original = Manner { scheme: Scheme::Original, when: When::Always, unknown: false };
        let manner = header.as_ref().map_or(original, Manner::of);
        Self { header, manner, fault }
    }

    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// The negative reply, where the sender wants one.
    pub fn reply(&self, stamp: &Stamp) -> Option<Reply> {
        let code = self.manner.code_for(self.fault)?;
        Some(Reply(Payload::new(reply::build(self.header.as_ref(), code, Some(self.fault), stamp))))
    }
}

/// A time as HL7 writes it, in UTC with its offset; one out of range is shown as 1970.
pub fn dtm_utc(unix_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y%m%d%H%M%S+0000").to_string()
}
