//! An alert as one line of syslog (RFC 5424). Pure.
//!
//! ```text
//! <27>1 2026-11-23T09:00:00.000Z st-marys-gw1 siteward - listener_down [siteward@32473 site="st-marys" gateway="st-marys-gw1" state="raised"
//!     severity="error" feed="or-usage" since="…" runbook="RUNBOOK.md#listener_down" dropped="0"] BOM raised: port 2575 is in use
//! ```
//!
//! Facility daemon; an error is `err`, a warning `warning`, an end `notice`. MSGID is the condition's code, stable for filters. The text is the condition's
//! own, which holds nothing of any message (I7). Control characters are taken out, so that a line is one line; what is too long is cut, and what
//! goes first is the text. 32473 is the number that RFC 5612 keeps for whoever has none.

use std::fmt::Write as _;

use crate::clock::{self, WallTime};
use crate::limits::SYSLOG_LINE_BYTES_MAX;
use crate::record::Name;
use crate::status::condition::{Code, Severity};

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub code: Code,
    pub subject: String,
    /// It is one of the configured feeds.
    pub is_feed: bool,
    pub over: bool,
    pub text: String,
    /// RFC 3339; empty where it is not known any more.
    pub since: String,
    pub at: WallTime,
}

const DAEMON: u8 = 3 << 3;
const SD_ID: &str = "siteward@32473";

fn priority(alert: &Alert) -> u8 {
    DAEMON
        | match (alert.over, alert.code.severity()) {
            (true, _) => 5,
            (false, Severity::Error) => 3,
            (false, Severity::Warning) => 4,
        }
}

/// A parameter's value: quotes, backslashes and brackets escaped, no control characters, not longer than this.
fn value(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()).take(chars_max) {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// `runbook`: where it is, without the section. `dropped`: lines that were given up since the last one that went.
pub fn line(site: &Name, gateway: &Name, runbook: &str, alert: &Alert, dropped: u64) -> String {
    let code = alert.code;
    let mut line = format!("<{}>1 {} {gateway} siteward - {} ", priority(alert), clock::rfc3339(alert.at.unix_ms), code.as_str());
    if alert.at.suspect {
        line.push_str("[timeQuality tzKnown=\"1\" isSynced=\"0\"]");
    }
    let state = if alert.over { "over" } else { "raised" };
    write!(line, "[{SD_ID} site=\"{site}\" gateway=\"{gateway}\" state=\"{state}\" severity=\"{}\"", code.severity().as_str())
        .expect("a String takes everything");
    let name = if alert.is_feed { "feed" } else { "subject" };
    for (name, text) in [(name, &alert.subject), ("since", &alert.since), ("runbook", &format!("{runbook}#{}", code.as_str()))] {
        if !text.is_empty() {
            write!(line, " {name}=\"{}\"", value(text, 200)).expect("a String takes everything");
        }
    }
    if dropped > 0 {
        write!(line, " dropped=\"{dropped}\"").expect("a String takes everything");
    }
    let before = if dropped > 0 { format!("({dropped} lines before this one were dropped) ") } else { String::new() };
    let text: String = alert.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    write!(line, "] \u{feff}{before}{state}: {text}").expect("a String takes everything");
    let end = line.floor_char_boundary(SYSLOG_LINE_BYTES_MAX);
    line.truncate(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::RELEASED_AT_MS;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn alert(code: Code, subject: &str, text: &str) -> Alert {
        let at = WallTime { unix_ms: RELEASED_AT_MS, suspect: false };
        Alert { code, subject: subject.into(), is_feed: true, over: false, text: text.into(), since: clock::rfc3339(RELEASED_AT_MS), at }
    }

    #[test]
    fn a_line_is_as_rfc_5424_wants_it() {
        let (site, gateway) = (name("st-marys"), name("st-marys-gw1"));
        let raised = alert(Code::ListenerDown, "or-usage", "port 2575 is in use");
        let expected = "<27>1 2026-11-01T00:00:00.000Z st-marys-gw1 siteward - listener_down [siteward@32473 site=\"st-marys\" \
            gateway=\"st-marys-gw1\" state=\"raised\" severity=\"error\" feed=\"or-usage\" since=\"2026-11-01T00:00:00.000Z\" \
            runbook=\"RUNBOOK.md#listener_down\"] \u{feff}raised: port 2575 is in use";
        assert_eq!(line(&site, &gateway, "RUNBOOK.md", &raised, 0), expected);
        let over = Alert { over: true, ..alert(Code::UplinkDown, "", "connected") };
        assert!(
            line(&site, &gateway, "RUNBOOK.md", &over, 0).starts_with("<29>1 ")
                && line(&site, &gateway, "RUNBOOK.md", &over, 0).contains("over: connected")
        );
        let after = line(&site, &gateway, "RUNBOOK.md", &alert(Code::UplinkDown, "", "x"), 7);
        assert!(after.starts_with("<28>1 ") && after.contains(" dropped=\"7\"] \u{feff}(7 lines before this one were dropped) raised: x"));
        let suspect = Alert { at: WallTime { unix_ms: 0, suspect: true }, ..over };
        assert!(
            line(&site, &gateway, "RUNBOOK.md", &suspect, 0).contains(" uplink_down [timeQuality tzKnown=\"1\" isSynced=\"0\"][siteward@")
        );
    }

    #[test]
    fn no_text_makes_a_second_line_or_leaves_its_place() {
        let hostile = alert(Code::FileRefused, "a\"]b\\\n", &"<13>1 forged\r\n\u{7f}\u{85}".repeat(400));
        let line = line(&name("s"), &name("g"), "RUNBOOK.md", &hostile, 0);
        assert!(!line.contains(|c: char| c.is_control()) && line.contains("feed=\"a\\\"\\]b\\\\\""), "{line}");
        assert!(line.len() <= SYSLOG_LINE_BYTES_MAX && line.len() > SYSLOG_LINE_BYTES_MAX - 4);
    }

    /// MSGID has at most 32 printable characters.
    #[test]
    fn every_code_fits_into_a_msgid() {
        assert!(Code::ALL.iter().all(|code| code.as_str().len() <= 32 && code.as_str().bytes().all(|b| b.is_ascii_graphic())));
    }
}
