//! The status for people: aligned, short, what is wrong first, each condition with its runbook page. Pure: snapshot in, text out.

use std::fmt::Write as _;

use super::condition::Severity;
use super::snapshot::{Snapshot, Spool};

/// The whole text, with a line break at its end.
pub fn render(s: &Snapshot) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(format!("gateway  {} at {}, version {}, up {}", s.gateway, s.site, s.version, duration(s.uptime_s)));
    let endpoint = s.uplink.endpoint.as_deref().map(|e| format!(" ({e})")).unwrap_or_default();
    line(format!("uplink   {} since {}{endpoint}", s.uplink.state, s.uplink.since));
    if let Some(error) = &s.uplink.last_error {
        line(format!("         last error: {error}"));
    }
    line(format!("spool    {}", spool(&s.spool)));
    if s.spool.notes_dropped > 0 {
        line(format!("         {} notes for `siteward messages` dropped under load; no message is affected", s.spool.notes_dropped));
    }
    let revision = s.config.revision.map(|r| format!(", revision {r}")).unwrap_or_default();
    line(format!("config   {}{revision}", s.config.state));
    if let Some(tried) = s.config.tried.as_ref().filter(|tried| tried.revision != s.config.revision) {
        let name = tried.revision.map_or_else(|| "a document".to_owned(), |revision| format!("revision {revision}"));
        line(format!("         {name}: {} at {}", tried.state, tried.at));
    }
    line(String::new());
    if s.conditions.is_empty() {
        line("no conditions: all is well".to_owned());
    }
    for c in &s.conditions {
        let severity = match c.severity {
            Severity::Warning => "warning",
            Severity::Error => "ERROR",
        };
        let subject = if c.subject.is_empty() { String::new() } else { format!(" [{}]", c.subject) };
        line(format!("{severity:<7}  {}{subject}: {}", c.code, c.text));
        let silenced = c.silenced.as_ref().map(|s| format!(", silenced until {} ({})", s.until, s.reason)).unwrap_or_default();
        line(format!("         since {}, see {}{silenced}", c.since, c.runbook));
    }
    for w in &s.maintenance {
        let what = w.feed.as_ref().map_or_else(|| "the gateway".to_owned(), |feed| format!("feed {feed}"));
        let when = w.from.as_ref().map_or_else(
            || format!("until {}, {} left", w.until, duration(w.left_s)),
            |from| format!("planned from {from} until {}", w.until),
        );
        line(format!("maintenance {} of {what} {when}: {} ({})", w.id, w.reason, w.who));
    }
    if let Some(error) = &s.alerts.error {
        line(format!("alerts   {error}; {} wait, {} dropped", s.alerts.waiting, s.alerts.dropped));
    }
    line(String::new());
    rows(&lane_rows(s)).into_iter().for_each(&mut line);
    line(String::new());
    rows(&feed_rows(s)).into_iter().for_each(&mut line);
    let promised = objective_rows(s);
    if promised.len() > 1 {
        line(String::new());
        rows(&promised).into_iter().for_each(&mut line);
    }
    printable(&out)
}

fn spool(spool: &Spool) -> String {
    let filling = match spool.time_to_full_s {
        None => "not filling".to_owned(),
        Some(0) => "FULL".to_owned(),
        Some(s) => format!("full in {}", duration(s)),
    };
    let percent = spool.bytes.saturating_mul(100).checked_div(spool.max_bytes).unwrap_or(0);
    format!("{} of {} ({percent} %), {filling}", bytes(spool.bytes), bytes(spool.max_bytes))
}

fn lane_rows(s: &Snapshot) -> Vec<Vec<String>> {
    let mut rows = vec![["LANE", "RECORDS", "BYTES", "OLDEST"].map(str::to_owned).to_vec()];
    for lane in &s.lanes {
        let oldest = lane.oldest_age_s.map_or_else(|| "-".to_owned(), duration);
        rows.push(vec![lane.name.clone(), lane.records.to_string(), bytes(lane.bytes), oldest]);
    }
    rows
}

fn feed_rows(s: &Snapshot) -> Vec<Vec<String>> {
    let heads =
        ["FEED", "LANE", "PEERS", "QUEUED", "CAPTURED", "RELEASED", "DUPLICATES", "REFUSED", "QUARANTINED", "LAST SEQ", "LAST MESSAGE"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for feed in &s.feeds {
        let mut row = vec![if feed.retired { format!("{} (retired)", feed.id) } else { feed.id.to_string() }, feed.lane.clone()];
        let counts =
            [feed.connections, feed.queued, feed.captured, feed.released, feed.duplicates, feed.refused, feed.quarantined, feed.last_seq];
        row.extend(counts.map(|n| n.to_string()));
        row.push(feed.last_message_at.clone().unwrap_or_else(|| "-".to_owned()));
        rows.push(row);
    }
    rows
}

/// What feeds say about themselves; only those that say something.
fn objective_rows(s: &Snapshot) -> Vec<Vec<String>> {
    let heads = ["FEED", "OBJECTIVE", "KEPT", "OLDEST", "CRITICALITY", "CLASS", "CONTRACT", "SUNSET", "OWNER"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for (feed, about) in s.feeds.iter().filter_map(|feed| Some((feed, feed.about.as_ref()?))) {
        let objective = about.delivery_objective_s.map_or_else(|| "-".to_owned(), duration);
        let oldest = feed.oldest_age_s.map_or_else(|| "-".to_owned(), duration);
        let kept = if about.delivery_objective_s.is_some() {
            about.objective.clone().unwrap_or_else(|| "unknown".to_owned())
        } else {
            "-".to_owned()
        };
        let words = [&about.criticality, &about.data_class, &about.contract_version, &about.sunset, &about.owner].map(or_dash);
        rows.push([feed.id.to_string(), objective, kept, oldest].into_iter().chain(words).collect());
    }
    rows
}

/// Aligns columns.
pub fn rows(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let aligned = |row: &Vec<String>| {
        row.iter().zip(&widths).fold(String::new(), |mut line, (cell, width)| {
            write!(line, "{cell:<width$}  ").expect("a String takes everything");
            line
        })
    };
    rows.iter().map(aligned).collect()
}

/// The two largest units.
pub fn duration(s: u64) -> String {
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Appends formatted text.
pub fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

/// No text can steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::snapshot::tests::example;

    #[test]
    fn the_table_is_aligned_and_names_the_runbook() {
        let expected = "\
gateway  st-marys-gw1 at st-marys, version 0.1.0, up 1 d 1 h
uplink   connected since 2026-11-01T00:00:00.000Z (mqtts://hub.example.org:8883)
         last error: connection refused
spool    1.0 MiB of 20.0 GiB (0 %), full in 2 h 0 min
config   local

ERROR    listener_down [or-usage]: port 2575 is in use
         since 2026-11-01T00:00:00.000Z, see RUNBOOK.md#listener_down
warning  spool_key_beside_spool: the spool key lies beside the spool
         since 2026-11-01T00:00:00.000Z, see RUNBOOK.md#spool_key_beside_spool

LANE      RECORDS  BYTES    OLDEST
critical  3        4.0 KiB  1 h 0 min
normal    0        0 B      -
bulk      1        9 B      -

FEED           LANE      PEERS  QUEUED  CAPTURED  RELEASED  DUPLICATES  REFUSED  QUARANTINED  LAST SEQ  LAST MESSAGE
or-usage       critical  0      3       1         0         0           0        0            10        2026-11-01T00:00:00.000Z
old (retired)  bulk      0      1       0         0         0           0        0            5         -
";
        assert_eq!(render(&example()), expected);
    }

    #[test]
    fn the_table_shows_whether_objectives_are_kept() {
        let mut snapshot = example();
        let about = crate::status::snapshot::AboutShown {
            owner: Some("OR desk".into()),
            criticality: Some("high".into()),
            delivery_objective_s: Some(900),
            objective: Some("missed".into()),
            data_class: Some("phi".into()),
            contract_version: None,
            sunset: Some("2028-06-30".into()),
        };
        for feed in &mut snapshot.feeds {
            feed.about = None;
        }
        assert!(!render(&snapshot).contains("OBJECTIVE"), "nothing is said, nothing is shown");
        snapshot.feeds[0].oldest_age_s = Some(1200);
        snapshot.feeds[0].about = Some(about);
        let id = snapshot.feeds[0].id.to_string();
        let text = render(&snapshot);
        let row = text.lines().last().unwrap();
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, [&id, "15 min", "missed", "20 min", "high", "phi", "-", "2028-06-30", "OR desk"], "{text}");
    }

    #[test]
    fn a_quiet_gateway_says_so_in_one_line() {
        let mut snapshot = example();
        snapshot.conditions.clear();
        assert!(render(&snapshot).contains("\nno conditions: all is well\n"));
    }

    #[test]
    fn no_text_steers_the_terminal() {
        let mut snapshot = example();
        snapshot.conditions[0].text = "\u{1b}[2J\r".to_owned();
        assert!(!render(&snapshot).contains(['\u{1b}', '\r']));
    }
}
