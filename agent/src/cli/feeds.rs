//! `siteward feeds`: who is connected and what they have shown; `accept-resend`; `record`, the vendor test.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ask::{Watched, ask, other, print_json, watch_until_interrupted};
use super::sheet::{Course, Sheet};
use super::{Failure, print};
use crate::clock;
use crate::config::cases;
use crate::limits::WATCH_MESSAGES_MAX;
use crate::source::mllp::registry::ConnectionView;
use crate::status::board::ExpectedView;
use crate::status::diagnosis::{FeedView, FeedsView};
use crate::status::question::{Order, Question, Request, WatchQuestion};
use crate::status::table::{bytes, printable, rows};
use crate::status::watching::Line;

pub(super) fn list(file: &Path, feed: Option<String>, json: bool) -> Result<(), Failure> {
    let view: FeedsView = ask(file, &Request::Get(Question::Feeds { feed }))?;
    if json { print_json(&view) } else { print(&render(&view)) }
}

fn render(view: &FeedsView) -> String {
    let heads = [
        "FEED",
        "STAGE",
        "LISTEN",
        "OPEN",
        "TURNED AWAY",
        "CAPTURED",
        "DUPLICATES",
        "REFUSED",
        "QUARANTINED",
        "LAST MESSAGE",
        "CONDITIONS",
    ];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    table.extend(view.feeds.iter().map(feed_row));
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    for row in rows(&table) {
        line(&row);
    }
    for feed in &view.feeds {
        line("");
        if let Some(files) = &feed.files {
            line(&format!("{}: {} files captured, {} empty files", feed.id, files.captured, files.empty));
        }
        if let Some(expected) = &feed.expected {
            line(&expectation(feed.id.as_str(), expected));
        }
        line(&match feed.connections_open {
            0 if feed.files.is_some() => continue,
            0 => format!("{}: nobody is connected", feed.id),
            n => format!("{}: {n} open, those heard from last first", feed.id),
        });
        for row in connections(&feed.connections, false) {
            line(&format!("  {row}"));
        }
        if !feed.ended.is_empty() {
            line(&format!("{}: the last {} of {} that ended", feed.id, feed.ended.len(), feed.connections_ended));
            for row in connections(&feed.ended, true) {
                line(&format!("  {row}"));
            }
        }
    }
    printable(&out)
}

fn expectation(feed: &str, expected: &ExpectedView) -> String {
    let next = expected.next.as_ref().map_or_else(|| "not told while the clock is suspect".to_owned(), |at| format!("by {at}"));
    let last = expected.last_arrival.as_deref().unwrap_or("never");
    let silent = if expected.silent { "SILENT; " } else { "" };
    format!("{feed}: {silent}expected next {next}; last arrival {last}")
}

fn feed_row(feed: &FeedView) -> Vec<String> {
    let mut row = vec![feed.id.to_string(), feed.stage.as_str().to_owned(), feed.listen.clone()];
    row.extend(
        [feed.connections_open, feed.connections_refused, feed.captured, feed.duplicates, feed.refused, feed.quarantined]
            .map(|n| n.to_string()),
    );
    row.push(feed.last_message.clone().unwrap_or_else(|| "-".to_owned()));
    row.push(if feed.conditions.is_empty() { "-".to_owned() } else { feed.conditions.join(", ") });
    row
}

fn connections(connections: &[ConnectionView], ended: bool) -> Vec<String> {
    if connections.is_empty() {
        return Vec::new();
    }
    let heads = ["PEER", "SINCE", "LAST MESSAGE", "MESSAGES", "BYTES", "ANSWERS", "ODDITIES"];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    if ended {
        table[0].extend(["ENDED", "WHY"].map(str::to_owned));
    }
    for connection in connections {
        let counts = |counts: &std::collections::BTreeMap<String, u64>| {
            let all: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            if all.is_empty() { "-".to_owned() } else { all.join(", ") }
        };
        let last = connection.last_message.clone().unwrap_or_else(|| "-".to_owned());
        let mut row = vec![connection.peer.clone(), connection.since.clone(), last, connection.messages.to_string()];
        row.extend([bytes(connection.bytes), counts(&connection.acks), counts(&connection.oddities)]);
        if let Some(end) = connection.ended.as_ref().filter(|_| ended) {
            row.extend([end.at.clone(), end.why.clone()]);
        }
        table.push(row);
    }
    rows(&table)
}

pub(super) fn accept_resend(file: &Path, feed: &str, time: Duration, why: Option<String>, json: bool) -> Result<(), Failure> {
    let order = Order::AcceptResend { feed: feed.to_owned(), for_s: time.as_secs(), by: super::secret::by(), why };
    let answer: serde_json::Value = ask(file, &Request::Do(order))?;
    if json {
        return print_json(&answer);
    }
    let until = answer["until"].as_str().unwrap_or("then");
    print(&printable(&format!(
        "{feed} stores messages seen before as new records, flagged as resends, until {until} or a restart of the agent; \n\
         the sender's people may send again now\n"
    )))
}

/// What `record` was asked for.
#[derive(Debug)]
pub(super) struct Record {
    pub feed: String,
    pub script: PathBuf,
    pub out: Option<PathBuf>,
    pub time: Duration,
    pub json: bool,
}

pub(super) fn record(file: &Path, asked: &Record) -> Result<(), Failure> {
    let cases = cases::load(&asked.script)?;
    if let Some(out) = &asked.out {
        // Found out now, not when the vendor has finished.
        std::fs::File::create(out).map_err(|error| other(format!("cannot write {}: {error}; give --out another path", out.display())))?;
    }
    let mut sheet = Sheet::new(cases);
    let time_s = asked.time.as_secs().max(1);
    let question = WatchQuestion { feed: asked.feed.clone(), count: WATCH_MESSAGES_MAX, time_s, expect: sheet.expected_ids() };
    let mut lost = 0;
    let watched = watch_until_interrupted(file, &Request::Get(Question::Watch(question)), |line| {
        match line {
            Line::Watching { .. } => {
                tell(&format!(
                    "watching {} for {time_s} s; the vendor may send now (Ctrl-C ends it early and writes the sheet)",
                    asked.feed
                ));
            }
            Line::Message { message } => {
                let taken = sheet.take(&message);
                tell(&sheet.progress(taken));
            }
            Line::Ended { dropped, .. } => lost = dropped,
        }
        !sheet.is_full()
    })?;
    let course = match watched {
        Watched::Interrupted => Course::Interrupted,
        Watched::Ended if lost == 0 => Course::Whole,
        Watched::Ended | Watched::AgentGone => Course::Holes,
    };
    let now = clock::now().unix_ms;
    let text = if asked.json {
        format!("{:#}\n", sheet.json(&asked.feed, now, course))
    } else {
        printable(&sheet.markdown(&asked.feed, now, course))
    };
    match &asked.out {
        Some(out) => {
            std::fs::write(out, text).map_err(|error| other(format!("cannot write {}: {error}", out.display())))?;
            tell(&format!("the sheet is in {}", out.display()));
        }
        None => print(&text)?,
    }
    if sheet.passed() && course == Course::Whole { Ok(()) } else { Err(Failure::No) }
}

/// A line about the course of things, beside the result on stdout.
fn tell(text: &str) {
    // Nobody has to read it.
    let _ = writeln!(std::io::stderr(), "{}", printable(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Name, Stage};
    use crate::source::mllp::registry::EndedView;
    use std::collections::BTreeMap;

    fn connection(peer: &str, ended: Option<EndedView>) -> ConnectionView {
        ConnectionView {
            peer: peer.into(),
            since: "2026-11-01T00:00:00.000Z".into(),
            last_message: None,
            messages: 3,
            bytes: 2048,
            acks: BTreeMap::from([("AA".into(), 2), ("AE".into(), 1)]),
            oddities: BTreeMap::from([("no_control_id".into(), 1)]),
            ended,
        }
    }

    #[test]
    fn the_table_answers_who_is_there_and_what_is_odd() {
        let ended = EndedView { at: "2026-11-01T00:00:09.000Z".into(), why: "the peer closed it".into() };
        let feed = FeedView {
            id: Name::new("or-usage").unwrap(),
            stage: Stage::Live,
            listen: "0.0.0.0:2575".into(),
            captured: 2,
            duplicates: 0,
            refused: 1,
            quarantined: 1,
            last_message: Some("2026-11-01T00:00:05.000Z".into()),
            connections_open: 1,
            connections_refused: 7,
            connections: vec![connection("10.0.0.1:5", None)],
            connections_ended: 4,
            ended: vec![connection("10.0.0.2:6", Some(ended))],
            conditions: vec!["frame_unusable".into()],
            files: None,
            expected: Some(ExpectedView {
                next: Some("2026-11-02T11:00:00.000Z".into()),
                last_arrival: Some("2026-11-01T00:00:05.000Z".into()),
                silent: true,
            }),
        };
        let expected = "\
FEED      STAGE  LISTEN        OPEN  TURNED AWAY  CAPTURED  DUPLICATES  REFUSED  QUARANTINED  LAST MESSAGE              CONDITIONS
or-usage  live   0.0.0.0:2575  1     7            2         0           1        1            2026-11-01T00:00:05.000Z  frame_unusable

or-usage: SILENT; expected next by 2026-11-02T11:00:00.000Z; last arrival 2026-11-01T00:00:05.000Z
or-usage: 1 open, those heard from last first
  PEER        SINCE                     LAST MESSAGE  MESSAGES  BYTES    ANSWERS     ODDITIES
  10.0.0.1:5  2026-11-01T00:00:00.000Z  -             3         2.0 KiB  AA 2, AE 1  no_control_id 1
or-usage: the last 1 of 4 that ended
  PEER        SINCE                     LAST MESSAGE  MESSAGES  BYTES    ANSWERS     ODDITIES         ENDED                     WHY
  10.0.0.2:6  2026-11-01T00:00:00.000Z  -             3         2.0 KiB  AA 2, AE 1  no_control_id 1  2026-11-01T00:00:09.000Z  the peer closed it
";
        assert_eq!(render(&FeedsView { feeds: vec![feed] }), expected);
    }
}
