//! How audit records hang together: a digest over each, which names the one before it. Pure.
//!
//! ```text
//!   prev(1) = SHA-256("siteward audit\n" gateway "\n" chain "\n")          chain: the incarnation in which the log was begun
//!   digest(n) = SHA-256(record n as JSON, without `digest`, members by name, nothing between them)      prev(n + 1) = digest(n)
//! ```
//!
//! So anybody can check a record with what every machine has: `jq -cjS 'del(.digest)' | sha256sum`. Members that a later version adds are
//! under the digest too, since it is made of what came and not of what this version knows. Texts hold no control characters: only so all
//! writers of JSON agree.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::contract::{Audit, AuditStage};
use crate::limits::{AUDIT_REASON_BYTES_MAX, AUDIT_SUBJECT_BYTES_MAX, AUDIT_WHO_BYTES_MAX};
use crate::record::{Digest, Incarnation, Name};

/// A text as it is kept: one line, within bounds.
pub fn kept(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}

/// The same, where a cut must not hide anything: it ends with how much was cut and the digest of the whole.
pub fn kept_whole(text: &str, bytes_max: usize) -> String {
    let whole = kept(text, usize::MAX);
    if whole.len() <= bytes_max {
        return whole;
    }
    let digest = Digest(Sha256::digest(whole.as_bytes()).into());
    let begin = kept(&whole, bytes_max - 120);
    format!("{begin} … and {} bytes more; SHA-256 of all: {digest}", whole.len() - begin.len())
}

/// What a record says, before it has its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub who: String,
    pub what: String,
    pub subject: String,
    pub reason: String,
    pub stage: AuditStage,
    pub of: Option<u64>,
    pub time: String,
    pub clock_suspect: bool,
}

impl Draft {
    /// Now. Whatever is too long, or no text, is cut here.
    pub fn new(stage: AuditStage, who: &str, what: &str, subject: &str, reason: &str) -> Self {
        let now = crate::clock::now();
        let who = kept(who, AUDIT_WHO_BYTES_MAX);
        Self {
            who: if who.trim().is_empty() { "unknown".to_owned() } else { who },
            what: what.to_owned(),
            subject: kept_whole(subject, AUDIT_SUBJECT_BYTES_MAX),
            reason: kept_whole(reason, AUDIT_REASON_BYTES_MAX),
            stage,
            of: None,
            time: crate::clock::rfc3339(now.unix_ms),
            clock_suspect: now.suspect,
        }
    }
}

/// What stands before the first record.
pub fn genesis(gateway: &Name, chain: Incarnation) -> Digest {
    Digest(Sha256::digest(format!("siteward audit\n{gateway}\n{chain}\n")).into())
}

/// The digest of a record: of what it says without its own.
fn digest_of(record: &Value) -> Option<Digest> {
    let mut record = record.clone();
    record.as_object_mut()?.remove("digest");
    // Members stand by name: the map of this program is sorted (a test holds that).
    Some(Digest(Sha256::digest(record.to_string()).into()))
}

/// A record in its place, as the line that is kept and published.
pub fn seal(gateway: &Name, chain: Incarnation, n: u64, prev: Digest, draft: Draft) -> (String, Digest) {
    let Draft { who, what, subject, reason, stage, of, time, clock_suspect } = draft;
    let gateway = gateway.clone();
    let nothing = Digest([0; 32]);
    let audit = Audit { schema: 1, gateway, who, what, subject, reason, time, clock_suspect, chain, n, stage, of, prev, digest: nothing };
    let mut record = serde_json::to_value(&audit).expect("plain values");
    let digest = digest_of(&record).expect("a struct is an object");
    record["digest"] = Value::String(digest.to_string());
    (record.to_string(), digest)
}

/// Why something is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not what the contract says, or of a version before there was a chain.
    NoRecord,
    /// Its digest is not that of what it says.
    Altered,
}

/// A record whose digest is its own.
pub fn read(value: &Value) -> Result<Audit, Fault> {
    let audit: Audit = serde_json::from_value(value.clone()).map_err(|_| Fault::NoRecord)?;
    if digest_of(value) == Some(audit.digest) { Ok(audit) } else { Err(Fault::Altered) }
}

/// The same, of a line.
pub fn read_line(line: &[u8]) -> Result<Audit, Fault> {
    read(&serde_json::from_slice(line).map_err(|_| Fault::NoRecord)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn gateway() -> Name {
        Name::new("st-marys-gw1").unwrap()
    }

    fn draft(reason: &str) -> Draft {
        Draft::new(AuditStage::Fact, "kim (uid 1000)", "pause_feed", "or-usage", reason)
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_any_change_is_seen() {
        let chain = Incarnation([7; 16]);
        let (line, digest) = seal(&gateway(), chain, 1, genesis(&gateway(), chain), draft("cable \"moved\" at the Krankenhaus für Kinder"));
        let read = read_line(line.as_bytes()).unwrap();
        assert_eq!((read.n, read.digest, read.prev), (1, digest, genesis(&gateway(), chain)));
        assert_eq!(read_line(line.replace("cable", "kable").as_bytes()), Err(Fault::Altered));
        assert_eq!(read_line(line.replacen('{', "{\"added\":1,", 1).as_bytes()), Err(Fault::Altered), "what we do not know counts too");
        assert_eq!(read_line(&line.as_bytes()[..line.len() - 1]), Err(Fault::NoRecord));
        assert_eq!(read_line(b"{}"), Err(Fault::NoRecord));
    }

    #[test]
    fn a_record_does_not_depend_on_how_its_members_are_ordered_or_spaced() {
        let (line, _) = seal(&gateway(), Incarnation([7; 16]), 1, Digest([1; 32]), draft("x"));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value.to_string(), line, "members stand by name");
        assert!(read(&serde_json::from_str(&serde_json::to_string_pretty(&value).unwrap()).unwrap()).is_ok());
    }

    #[test]
    fn texts_are_one_line_and_bounded() {
        let draft = Draft::new(AuditStage::Fact, " \n", "x", &"ä".repeat(AUDIT_SUBJECT_BYTES_MAX), "a\u{7f}\nb");
        assert_eq!((draft.who.as_str(), draft.reason.as_str()), ("unknown", "ab"));
        assert!(draft.subject.len() <= AUDIT_SUBJECT_BYTES_MAX);
        assert!(draft.subject.contains("bytes more; SHA-256 of all: "), "a cut is said: {}", draft.subject);
        let other = Draft::new(AuditStage::Fact, "kim", "x", &format!("{}ö", "ä".repeat(AUDIT_SUBJECT_BYTES_MAX - 1)), "");
        assert!(draft.subject != other.subject, "what differs behind the cut differs");
        let fits = "x".repeat(AUDIT_SUBJECT_BYTES_MAX);
        assert_eq!(Draft::new(AuditStage::Fact, "kim", "x", &fits, "").subject, fits);
    }

    #[test]
    fn another_gateway_and_another_log_begin_elsewhere() {
        let other = Name::new("st-marys-gw2").unwrap();
        let (a, b) = (Incarnation([7; 16]), Incarnation([8; 16]));
        assert!(genesis(&gateway(), a) != genesis(&other, a) && genesis(&gateway(), a) != genesis(&gateway(), b));
    }
}
