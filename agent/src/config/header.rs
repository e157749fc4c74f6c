//! `[document]` and `[rollout]` of a configuration document: which revision it is, for whom, from when to when, by whom and why, and how it is
//! tried.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use toml::de::DeValue;

use super::fault::{FaultList, Place};
use super::reader::{At, Field, Section, choice, duration, text, texts, whole};
use super::validate::{ranged, within};
use crate::limits::{GROUPS_MAX, REMARK_CHARS_MAX, TRIAL_DEFAULT, TRIAL_RANGE};
use crate::record::Name;

/// The schema this version reads.
pub const SCHEMA_VERSION: u64 = 1;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// From 1; strictly growing per gateway.
    pub revision: u64,
    pub selector: Selector,
    pub not_before: Option<Timestamp>,
    pub expires: Option<Timestamp>,
    pub min_agent_version: Option<Version>,
    pub author: String,
    pub approver: Option<String>,
    pub reason: String,
    pub ticket: Option<String>,
    /// How long the document has to prove itself.
    pub trial: Duration,
    pub confirm: ConfirmBy,
}

/// Whom a document is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    Gateway(Name),
    /// Every gateway that has one of these labels.
    Groups(Vec<Name>),
}

/// What a trial waits for at a touched MLLP feed that had a peer within the hour before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmBy {
    /// A peer accepted again.
    PeersReturn,
    /// The listener being bound.
    Bound,
}

/// `major.minor.patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64, pub u64, pub u64);

impl Version {
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| {
            let is_plain = !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
            if is_plain { part.parse::<u64>().ok() } else { None }
        });
        let version = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }

    /// Of this program.
    pub fn ours() -> Self {
        Self::parse(env!("CARGO_PKG_VERSION")).expect("Cargo.toml gives three numbers")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Reads both sections. `None` where one of the keys that every document needs is faulty or missing; unknown keys alone do not make it so, as
/// they may belong to a later version that `min_agent_version` asks for.
pub(super) fn read(root: &mut Section<'_, '_>, f: &mut FaultList) -> Option<Header> {
    let is_missing = root.has("document").is_none();
    let mut s = root.section(f, "document");
    if is_missing {
        f.add(&s.place, "is missing; begin the document with [document], schema_version and revision");
        s.finish(f);
        return None;
    }
    let at = s.place.clone();
    s.read(f, "schema_version", whole);
    let revision = s.read(f, "revision", whole).required(f, &at, "revision", "number the document, higher than the one before");
    let gateway = s.read(f, "gateway", text);
    let groups = s.read(f, "groups", texts);
    let selector = selector(&gateway, &groups, &at, f);
    let not_before = s.read(f, "not_before", timestamp);
    let expires = s.read(f, "expires", timestamp);
    let min_agent_version = s.read(f, "min_agent_version", |value| {
        Version::parse(&text(value)?).ok_or_else(|| "is not a version; write three numbers, like \"0.1.0\"".to_owned())
    });
    let author = s.read(f, "author", remark).required(f, &at, "author", "say who wrote the document; it is kept in the gateway's history");
    let approver = s.read(f, "approver", remark);
    let reason = s.read(f, "reason", remark).required(f, &at, "reason", "say why; it is kept in the gateway's history");
    let ticket = s.read(f, "ticket", remark);
    s.finish(f);
    let (trial, confirm) = rollout(root.section(f, "rollout"), f);
    if let Some(at) = revision.as_ref().filter(|at| at.value == 0) {
        f.add(&at.place, "is 0, which is the local file; begin with 1");
        return None;
    }
    if let (Some(from), Some(to)) = (not_before.given(), expires.given())
        && from.value >= to.value
    {
        f.add(&to.place, "is not after not_before; the document could never be taken");
        return None;
    }
    Some(Header {
        revision: revision?.value,
        selector: selector?,
        not_before: optional(not_before)?,
        expires: optional(expires)?,
        min_agent_version: optional(min_agent_version)?,
        author: author?.value,
        approver: optional(approver)?,
        reason: reason?.value,
        ticket: optional(ticket)?,
        trial: trial?,
        confirm: confirm?,
    })
}

fn rollout(mut s: Section<'_, '_>, f: &mut FaultList) -> (Option<Duration>, Option<ConfirmBy>) {
    let at = s.place.clone();
    let trial = s.read(f, "trial", duration).or(TRIAL_DEFAULT, &at, "trial");
    let trial = ranged(trial.as_ref(), within(TRIAL_RANGE), "\"10s\" to \"24h\"", f);
    let words = [("peers_return", ConfirmBy::PeersReturn), ("bound", ConfirmBy::Bound)];
    let confirm = s.read(f, "confirm", choice(&words)).or(ConfirmBy::PeersReturn, &at, "confirm");
    s.finish(f);
    (trial, confirm.map(|at| at.value))
}

/// The inner `None`: not given. The outer: faulty.
#[allow(clippy::option_option)] // three states, read in one place
fn optional<T>(field: Field<T>) -> Option<Option<T>> {
    match field {
        Field::Absent => Some(None),
        Field::Bad => None,
        Field::Given(at) => Some(Some(at.value)),
    }
}

fn selector(gateway: &Field<String>, groups: &Field<Vec<String>>, section: &Place, f: &mut FaultList) -> Option<Selector> {
    match (gateway, groups) {
        (Field::Given(_), Field::Given(groups)) => f.refuse(&groups.place, "stands beside document.gateway; keep one of the two"),
        (Field::Given(at), _) => match Name::new(&at.value) {
            Ok(name) => Some(Selector::Gateway(name)),
            Err(_) => f.refuse(&at.place, "is not a name; use 1 to 63 of a-z, 0-9 and -"),
        },
        (_, Field::Given(at)) => self::groups(at, f).map(Selector::Groups),
        (Field::Absent, Field::Absent) => f.refuse(
            &section.missing("gateway"),
            "is missing; say whom the document is for: gateway = \"st-marys-gw1\", or groups = [\"us-east\"]",
        ),
        (Field::Bad, _) | (_, Field::Bad) => None,
    }
}

/// Labels of gateways, in the bootstrap as in a document.
pub(super) fn groups(at: &At<Vec<String>>, f: &mut FaultList) -> Option<Vec<Name>> {
    if at.value.is_empty() || at.value.len() > GROUPS_MAX {
        return f.refuse(&at.place, format!("must list 1 to {GROUPS_MAX} groups, like [\"us-east\"]"));
    }
    let mut names = Vec::with_capacity(at.value.len());
    for (index, text) in at.value.iter().enumerate() {
        match Name::new(text) {
            Ok(name) => names.push(name),
            Err(_) => f.add(&at.place, format!("entry {} is not a name; use 1 to 63 of a-z, 0-9 and -", index + 1)),
        }
    }
    (names.len() == at.value.len()).then_some(names)
}

/// Text that is kept and shown.
pub(super) fn remark(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    if text.chars().count() > REMARK_CHARS_MAX { Err(format!("is longer than {REMARK_CHARS_MAX} characters")) } else { Ok(text) }
}

/// With its zone, as text or as TOML's own date and time.
fn timestamp(value: &DeValue<'_>) -> Result<Timestamp, String> {
    let text = match value {
        DeValue::Datetime(at) => at.to_string(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    text.parse().map_err(|_| "is not a time with its zone; write one like \"2027-01-31T00:00:00Z\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_numbers_and_compare_as_numbers() {
        assert_eq!(Version::parse("0.10.0"), Some(Version(0, 10, 0)));
        assert!(Version::parse("0.10.0") > Version::parse("0.9.12"));
        for bad in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "1..3", "1.2.-3", "1.2.3-rc1", "1.2.99999999999"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
        assert_eq!(Version::ours().to_string(), env!("CARGO_PKG_VERSION"));
    }
}
