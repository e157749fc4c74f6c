//! `[alerts]` through its three stages: who is alerted, and after how long. Local, never in a document: who watches a box on site is the site's to say,
//! and no document may make a box quiet (I6).
//!
//! ```toml
//! [alerts]
//! syslog = "udp://10.1.2.3:514"       # tcp://host:601, unix:/dev/log
//! runbook = "https://wiki.example.org/siteward/RUNBOOK.md"
//! uplink_after = "5m"
//! peer_after = "15m"
//! oldest_critical_after = "15m"
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::endpoint::split_port;
use super::fault::{FaultList, Place};
use super::reader::{At, Field, Section, duration, text};
use super::settings::AlertSettings;
use super::validate::{ranged, within};
use crate::alerts::syslog::Target;
use crate::limits::{
    HOLD_OLDEST_DEFAULT, HOLD_PEER_DEFAULT, HOLD_RANGE, HOLD_UPLINK_DEFAULT, SOCKET_PATH_BYTES_MAX, SYSLOG_RUNBOOK_BYTES_MAX,
    SYSLOG_RUNBOOK_DEFAULT,
};

#[derive(Debug)]
pub(super) struct Written {
    place: Place,
    syslog: Field<String>,
    runbook: Field<String>,
    uplink_after: Field<Duration>,
    peer_after: Field<Duration>,
    oldest_critical_after: Field<Duration>,
}

#[derive(Debug)]
pub(super) struct Merged {
    /// Default: no lines.
    syslog: Field<String>,
    runbook: Field<String>,
    uplink_after: Option<At<Duration>>,
    peer_after: Option<At<Duration>>,
    oldest_critical_after: Option<At<Duration>>,
}

pub(super) fn read(mut s: Section<'_, '_>, f: &mut FaultList) -> Written {
    let written = Written {
        place: s.place.clone(),
        syslog: s.read(f, "syslog", text),
        runbook: s.read(f, "runbook", text),
        uplink_after: s.read(f, "uplink_after", duration),
        peer_after: s.read(f, "peer_after", duration),
        oldest_critical_after: s.read(f, "oldest_critical_after", duration),
    };
    s.finish(f);
    written
}

pub(super) fn merge(w: Written) -> Merged {
    let at = &w.place;
    Merged {
        syslog: w.syslog,
        runbook: w.runbook,
        uplink_after: w.uplink_after.or(HOLD_UPLINK_DEFAULT, at, "uplink_after"),
        peer_after: w.peer_after.or(HOLD_PEER_DEFAULT, at, "peer_after"),
        oldest_critical_after: w.oldest_critical_after.or(HOLD_OLDEST_DEFAULT, at, "oldest_critical_after"),
    }
}

pub(super) fn validate(m: &Merged, f: &mut FaultList) -> Option<AlertSettings> {
    let syslog = match &m.syslog {
        Field::Given(at) => Some(target(&at.value).map_err(|why| f.add(&at.place, why)).ok()?),
        Field::Bad => return None,
        Field::Absent => None,
    };
    let runbook = match &m.runbook {
        Field::Given(at) if is_link(&at.value) => at.value.clone(),
        Field::Given(at) => {
            f.add(
                &at.place,
                "is no link; give at most 128 printable characters without quotes and #, like https://wiki.example.org/RUNBOOK.md",
            );
            return None;
        }
        Field::Bad => return None,
        Field::Absent => SYSLOG_RUNBOOK_DEFAULT.to_owned(),
    };
    let mut after = |at: &Option<At<Duration>>| ranged(at.as_ref(), within(HOLD_RANGE), "\"1s\" to \"24h\"", f);
    let (uplink, peer, oldest) = (after(&m.uplink_after), after(&m.peer_after), after(&m.oldest_critical_after));
    Some(AlertSettings { syslog, runbook, uplink_after: uplink?, peer_after: peer?, oldest_critical_after: oldest? })
}

/// What a code can follow after a `#`.
fn is_link(url: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_graphic() && !matches!(c, b'"' | b'\\' | b']' | b'#');
    (1..=SYSLOG_RUNBOOK_BYTES_MAX).contains(&url.len()) && url.bytes().all(is_plain)
}

fn target(url: &str) -> Result<Target, String> {
    if let Some(path) = url.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        let fits = path.is_absolute() && path != Path::new("/") && path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
        return if fits { Ok(Target::Unix(path)) } else { Err("names no socket; write its whole path, like unix:/dev/log".to_owned()) };
    }
    let (is_tcp, rest) = match url.split_once("://") {
        Some(("udp", rest)) => (false, rest),
        Some(("tcp", rest)) => (true, rest),
        _ => return Err("must begin with udp://, tcp:// or unix:, like udp://10.1.2.3:514".to_owned()),
    };
    let (host, port) = split_port(rest).map_err(str::to_owned)?;
    let port = match port {
        None => {
            if is_tcp {
                601
            } else {
                514
            }
        }
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or("has no usable port; give a number from 1 to 65535")?,
    };
    Ok(if is_tcp { Target::Tcp { host, port } } else { Target::Udp { host, port } })
}

impl AlertSettings {
    /// For `config show`.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let seconds = |time: Duration| format!("{}s", time.as_secs());
        let mut rows: Vec<(&'static str, String)> = self.syslog.iter().map(|target| ("syslog", target.to_string())).collect();
        rows.extend([
            ("runbook", self.runbook.clone()),
            ("uplink_after", seconds(self.uplink_after)),
            ("peer_after", seconds(self.peer_after)),
            ("oldest_critical_after", seconds(self.oldest_critical_after)),
        ]);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{faults, with};
    use super::super::{parse_text, show};
    use super::*;

    fn with_alerts(lines: &str) -> String {
        with("[[feed]]", &format!("[alerts]\n{lines}\n[[feed]]"))
    }

    #[test]
    fn every_key_of_alerts_is_read_and_has_a_default() {
        let settings = parse_text("/etc/t.toml".as_ref(), &with_alerts("")).unwrap();
        assert_eq!(settings.alerts, AlertSettings::default());
        let all = "syslog = \"tcp://noc.example.org\"\nrunbook = \"https://wiki.example.org/r\"\nuplink_after = \"1m\"\npeer_after = \"2m\"\noldest_critical_after = \"3m\"";
        let settings = parse_text("/etc/t.toml".as_ref(), &with_alerts(all)).unwrap();
        let shown = show::render(&settings);
        let section = "[alerts]\nsyslog = \"tcp://noc.example.org:601\"\nrunbook = \"https://wiki.example.org/r\"\nuplink_after = \"60s\"\npeer_after = \"120s\"\n\
            oldest_critical_after = \"180s\"\n";
        assert!(shown.contains(section), "{shown}");
        for (url, shown) in [
            ("udp://10.1.2.3", "udp://10.1.2.3:514"),
            ("udp://[2001:db8::1]:5514", "udp://[2001:db8::1]:5514"),
            ("unix:/dev/log", "unix:/dev/log"),
        ] {
            assert_eq!(target(url).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_receiver_is_refused() {
        for (line, told) in [
            ("syslog = \"10.1.2.3\"", "must begin with udp://, tcp:// or unix:, like udp://10.1.2.3:514"),
            ("syslog = \"udp://\"", "has no usable host name"),
            ("syslog = \"tcp://a:0\"", "has no usable port; give a number from 1 to 65535"),
            ("syslog = \"unix:log\"", "names no socket; write its whole path, like unix:/dev/log"),
            ("uplink_after = \"0s\"", "is out of range; give \"1s\" to \"24h\""),
            ("peer_after = \"25h\"", "is out of range; give \"1s\" to \"24h\""),
            ("oldest_critical_after = 5", "is not a duration; write text like \"30s\", \"5m\" or \"2h\""),
            (
                "runbook = \"https://wiki.example.org/a page\"",
                "is no link; give at most 128 printable characters without quotes and #, like https://wiki.example.org/RUNBOOK.md",
            ),
            ("runbook = \"\"", "is empty"),
            ("syslogs = \"x\"", "unknown key; did you mean \"syslog\"?"),
        ] {
            let key = line.split(' ').next().unwrap();
            assert_eq!(faults(&with_alerts(line)).lines().next(), Some(format!("siteward.toml:16: alerts.{key}: {told}").as_str()));
        }
    }
}
