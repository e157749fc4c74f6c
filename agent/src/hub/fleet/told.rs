//! What gateways say of themselves, read into bounded, clean values. Payloads come from outside: too large, not of the contract or with a code
//! that is none, and all of it is refused with a reason; texts are cut, and what a terminal could take for a command is left out of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::contract::{ConditionTold, GatewayState, OnlineState, SpoolTold, WindowTold};
use crate::limits::{
    CONDITIONS_TOLD_MAX, FLEET_CODE_BYTES_MAX, FLEET_PAYLOAD_BYTES_MAX, FLEET_TEXT_CHARS_MAX, MAINTENANCE_TIME_MAX, MAINTENANCE_TOLD_MAX,
};
use crate::status::condition::Severity;

/// A retained status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub online: bool,
    pub version: String,
    /// Times are milliseconds since 1970, by the gateway's clock.
    pub since_ms: Option<i64>,
    pub at_ms: Option<i64>,
    pub spool: Option<Spool>,
    /// The worst first.
    pub conditions: Vec<Told>,
    pub conditions_left_out: u64,
    /// Of the gateway as a whole.
    pub maintenance: Vec<Window>,
}

/// A maintenance window: nobody is to be alerted that the gateway is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Milliseconds since 1970; `None`: it holds when it is told.
    pub from_ms: Option<i64>,
    pub until_ms: i64,
    pub reason: String,
}

/// What waits at a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spool {
    pub queued: u64,
    pub oldest_ms: Option<i64>,
    pub bytes: u64,
    pub max_bytes: u64,
    pub time_to_full_s: Option<u64>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub severity: Severity,
    pub code: String,
    pub subject: String,
    pub text: String,
    pub since_ms: Option<i64>,
    /// Nobody is to be alerted of it, yet or for a while.
    pub quiet: bool,
}

/// A reported state, as far as the fleet shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    pub revision: u64,
    pub tried: Option<Tried>,
    pub at_ms: Option<i64>,
    pub clock_suspect: bool,
}

/// The newest document there is something to say about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub revision: Option<u64>,
    pub state: String,
    pub code: Option<String>,
    pub reason: Option<String>,
}

/// Text of somebody else's: short, one line, without control characters and without what turns the direction of writing.
pub fn clean(text: &str) -> String {
    let shown = |c: &char| {
        !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().filter(shown).take(FLEET_TEXT_CHARS_MAX).collect()
}

/// Milliseconds since 1970; `None` for what is no time.
fn ms(text: Option<&str>) -> Option<i64> {
    text?.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// A word of ours: codes and states are compared, counted and made into labels.
fn word(what: &str, text: String) -> Result<String, String> {
    let good =
        (1..=FLEET_CODE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if good { Ok(text) } else { Err(format!("{what} is not of lower-case letters, digits and `_`, 1 to {FLEET_CODE_BYTES_MAX} of them")) }
}

fn parse<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
    if payload.len() > FLEET_PAYLOAD_BYTES_MAX {
        return Err(format!("the payload has more than {FLEET_PAYLOAD_BYTES_MAX} bytes"));
    }
    serde_json::from_slice(payload)
        .map_err(|e| format!("the payload is not as the contract says (line {}, column {})", e.line(), e.column()))
}

impl Status {
    pub fn read(payload: &[u8]) -> Result<Self, String> {
        let GatewayState { state, version, since, at, spool, mut conditions, conditions_left_out, maintenance } = parse(payload)?;
        let beyond = conditions.len().saturating_sub(CONDITIONS_TOLD_MAX);
        conditions.truncate(CONDITIONS_TOLD_MAX);
        let mut conditions = conditions.into_iter().map(Told::read).collect::<Result<Vec<_>, _>>()?;
        conditions.sort_by(|a, b| (b.severity, &a.code, &a.subject).cmp(&(a.severity, &b.code, &b.subject)));
        conditions.dedup_by(|a, b| (&a.code, &a.subject) == (&b.code, &b.subject));
        Ok(Self {
            online: state == OnlineState::Online,
            version: clean(&version),
            since_ms: ms(since.as_deref()),
            at_ms: ms(at.as_deref()),
            spool: spool.map(Spool::from),
            conditions,
            conditions_left_out: conditions_left_out.saturating_add(beyond as u64),
            maintenance: maintenance.into_iter().take(MAINTENANCE_TOLD_MAX).filter_map(Window::read).collect(),
        })
    }
}

impl Window {
    /// One whose times cannot be read silences nothing.
    fn read(told: WindowTold) -> Option<Self> {
        let from_ms = told.from.map(|from| ms(Some(&from)).ok_or(())).transpose().ok()?;
        Some(Self { from_ms, until_ms: ms(Some(&told.until))?, reason: clean(&told.reason) })
    }

    /// As it is by our clock: `heard_ms` when it came, `at_ms` when it was written by the gateway's. `None` for either: as it stands. It is never
    /// longer than a gateway would take.
    #[must_use]
    pub fn here(&self, heard_ms: i64, at_ms: Option<i64>) -> Self {
        let ahead = at_ms.map_or(0, |at| heard_ms.saturating_sub(at));
        let from_ms = self.from_ms.map_or(heard_ms, |from| from.saturating_add(ahead));
        let longest = from_ms.saturating_add(MAINTENANCE_TIME_MAX.as_millis() as i64);
        Self { from_ms: Some(from_ms), until_ms: self.until_ms.saturating_add(ahead).min(longest), reason: self.reason.clone() }
    }

    pub fn holds(&self, now_ms: i64) -> bool {
        self.from_ms.is_none_or(|from| from <= now_ms) && now_ms < self.until_ms
    }
}

impl Told {
    fn read(told: ConditionTold) -> Result<Self, String> {
        let ConditionTold { code, severity, subject, text, since, quiet } = told;
        let severity = match severity.as_str() {
            "error" => Severity::Error,
            "warning" => Severity::Warning,
            _ => return Err("the severity of a condition is neither error nor warning".into()),
        };
        let code = word("the code of a condition", code)?;
        Ok(Self { severity, code, subject: clean(&subject), text: clean(&text), since_ms: ms(Some(&since)), quiet })
    }
}

impl From<SpoolTold> for Spool {
    fn from(told: SpoolTold) -> Self {
        let SpoolTold { queued, oldest, bytes, max_bytes, time_to_full_s } = told;
        Self { queued, oldest_ms: ms(oldest.as_deref()), bytes, max_bytes, time_to_full_s }
    }
}

#[derive(Deserialize)]
struct ReportedIn {
    running: RunningIn,
    tried: Option<TriedIn>,
    time: String,
    clock_suspect: bool,
}

#[derive(Deserialize)]
struct RunningIn {
    revision: u64,
}

#[derive(Deserialize)]
struct TriedIn {
    revision: Option<u64>,
    state: String,
    code: Option<String>,
    reason: Option<String>,
}

impl Reported {
    pub fn read(payload: &[u8]) -> Result<Self, String> {
        let ReportedIn { running, tried, time, clock_suspect } = parse(payload)?;
        let tried = tried.map(|tried| {
            let TriedIn { revision, state, code, reason } = tried;
            let (state, code) =
                (word("the state of a document", state)?, code.map(|code| word("the code of a refusal", code)).transpose()?);
            Ok::<_, String>(Tried { revision, state, code, reason: reason.map(|reason| clean(&reason)) })
        });
        Ok(Self { revision: running.revision, tried: tried.transpose()?, at_ms: ms(Some(&time)), clock_suspect })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_left_out_of_texts() {
        assert_eq!(clean("a\u{1b}[2J\u{7}\r\nb\u{202e}c\u{9b}d"), "a[2Jbcd");
        assert_eq!(clean(&"x".repeat(10_000)).len(), FLEET_TEXT_CHARS_MAX);
        let payload = br#"{"state":"online","version":"1\u001b]0;x\u0007","since":"soon","conditions":
            [{"code":"spool_full","severity":"error","subject":"a\nb","text":"\u001b[31mred","since":"2026-11-02T11:15:00Z"}]}"#;
        let status = Status::read(payload).unwrap();
        assert_eq!((status.version.as_str(), status.since_ms), ("1]0;x", None));
        assert_eq!((status.conditions[0].subject.as_str(), status.conditions[0].text.as_str()), ("ab", "[31mred"));
    }

    #[test]
    fn what_is_not_of_the_contract_is_refused_with_a_reason_and_without_content() {
        let refused = |payload: &[u8]| Status::read(payload).unwrap_err();
        assert!(refused(b"\xff\xfe").contains("line 1, column"));
        assert!(refused(b"{\"state\":\"secret\",\"version\":\"1\"}").contains("not as the contract says"));
        assert!(!refused(b"{\"state\":\"secret\",\"version\":\"1\"}").contains("secret"));
        assert!(refused(&vec![b' '; FLEET_PAYLOAD_BYTES_MAX + 1]).contains("more than"));
        let with = |code: &str, severity: &str| {
            format!(
                r#"{{"state":"online","version":"1","conditions":[{{"code":"{code}","severity":"{severity}","subject":"","text":"","since":""}}]}}"#
            )
        };
        assert!(refused(with("x\\\",y=\\\"", "error").as_bytes()).contains("the code of a condition"));
        assert!(refused(with("ok", "fatal").as_bytes()).contains("neither error nor warning"));
        assert!(Status::read(with("ok", "error").as_bytes()).is_ok());
        assert!(Reported::read(b"{}").is_err());
    }

    #[test]
    fn conditions_stand_once_each_the_worst_first_and_bounded() {
        let one = |code: &str, severity: &str| format!(r#"{{"code":"{code}","severity":"{severity}","subject":"","text":"","since":""}}"#);
        let list: Vec<String> = (0..100).map(|n| one(&format!("c{}", n % 60), if n % 2 == 0 { "warning" } else { "error" })).collect();
        let payload = format!(r#"{{"state":"online","version":"1","conditions":[{}]}}"#, list.join(","));
        let status = Status::read(payload.as_bytes()).unwrap();
        assert_eq!((status.conditions.len(), status.conditions_left_out), (CONDITIONS_TOLD_MAX, 100 - CONDITIONS_TOLD_MAX as u64));
        assert_eq!(status.conditions[0].severity, Severity::Error);
    }
}
