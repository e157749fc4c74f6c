//! Rows as text for people: aligned columns, a line that sums up, and what is not known. Pure. Everything foreign was cleaned when it was read.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::row::{Row, Shown, State};
use crate::status::condition::Severity;

const HEAD: [&str; 10] = ["SITE", "GATEWAY", "STATE", "SINCE", "VERSION", "CONFIG", "QUEUED", "OLDEST", "FULL IN", "CONDITIONS"];
/// Conditions that stand in a row; the others are counted.
const CONDITIONS_SHOWN: usize = 3;

/// A span of time, to two units.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The time as people read it: to the second, without the date's separator.
fn short(time: &str) -> String {
    format!("{} {}", time.get(..10).unwrap_or(time), time.get(11..19).unwrap_or_default())
}

/// What runs, and what became of the newest document where that is something else.
pub fn config(row: &Row) -> String {
    let Some(running) = row.revision else { return "?".into() };
    let running = if running == 0 { "local".to_owned() } else { running.to_string() };
    match &row.tried {
        Some(tried) if tried.state != "committed" || tried.revision != row.revision => {
            let revision = tried.revision.map_or_else(|| "?".into(), |revision| revision.to_string());
            let code = tried.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
            format!("{running}; {revision} {}{code}", tried.state)
        }
        _ => running,
    }
}

fn condition(shown: &Shown) -> String {
    let mark = if shown.severity == Severity::Error { "!" } else { "" };
    let subject = if shown.subject.is_empty() { String::new() } else { format!("({})", shown.subject) };
    format!("{}{subject}{mark}", shown.code)
}

fn conditions(row: &Row) -> String {
    let Some(all) = &row.conditions else { return "?".into() };
    if all.is_empty() {
        return "-".into();
    }
    let shown: Vec<String> = all.iter().take(CONDITIONS_SHOWN).map(condition).collect();
    let more = all.len().saturating_sub(CONDITIONS_SHOWN) as u64 + row.conditions_left_out;
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let before = if row.state == State::Online { "" } else { "before: " };
    format!("{before}{}{more}", shown.join(" "))
}

fn cells(row: &Row, now_ms: i64) -> [String; 10] {
    let unknown = || "?".to_owned();
    let known = row.queued.is_some();
    let age = |time: &String| {
        let then = time.parse::<jiff::Timestamp>().map_or(now_ms, jiff::Timestamp::as_millisecond);
        span(now_ms.saturating_sub(then).max(0).unsigned_abs() / 1000)
    };
    let absent = || if known { "-".to_owned() } else { unknown() };
    [
        row.site.to_string(),
        row.gateway.to_string(),
        row.state.as_str().to_owned(),
        row.since.as_deref().map_or_else(unknown, short),
        row.version.clone().filter(|version| !version.is_empty()).unwrap_or_else(unknown),
        config(row),
        row.queued.map_or_else(unknown, |queued| queued.to_string()),
        row.oldest_queued.as_ref().map_or_else(absent, age),
        row.time_to_full_s.map_or_else(absent, span),
        conditions(row),
    ]
}

/// The table; the last column is not padded.
pub fn table(rows: &[Row], now_ms: i64) -> String {
    let lines: Vec<[String; 10]> = rows.iter().map(|row| cells(row, now_ms)).collect();
    let mut widths = HEAD.map(str::len);
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head = HEAD.map(str::to_owned);
    for line in std::iter::once(&head).chain(&lines) {
        let mut out = String::new();
        for (at, (cell, width)) in line.iter().zip(widths).enumerate() {
            let gap = if at + 1 < HEAD.len() { width + 2 - cell.chars().count() } else { 0 };
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', gap));
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    text
}

/// How many of each state, and how many have something that somebody must act on.
pub fn summary(rows: &[Row]) -> String {
    let mut text = format!("{} gateways", rows.len());
    for state in State::ALL {
        let count = rows.iter().filter(|row| row.state == state).count();
        if count > 0 {
            // Writing to a string does not fail.
            let _ = write!(text, ", {count} {}", state.as_str().replace('_', " "));
        }
    }
    let errors = |row: &&Row| row.conditions.iter().flatten().any(|shown| shown.severity == Severity::Error);
    let errors = rows.iter().filter(|row| row.state == State::Online).filter(errors).count();
    let _ = write!(text, "; {errors} of those online with an error");
    text
}

/// Notes, the same ones of several gateways together.
pub fn notes(rows: &[Row]) -> String {
    let mut by_note: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in rows {
        for note in &row.notes {
            by_note.entry(note).or_default().push(format!("{}/{}", row.site, row.gateway));
        }
    }
    let mut text = String::new();
    for (note, gateways) in by_note {
        let more = gateways.len().saturating_sub(4);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}{more}: {note}", gateways[..gateways.len().min(4)].join(", "));
    }
    text
}
