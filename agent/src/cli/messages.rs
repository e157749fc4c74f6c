//! `siteward messages`: what became of a message, and which duplicates were suppressed; times and codes, no content.

use std::path::Path;

use clap::{Args, Subcommand};

use super::ask::{self, ask, print_json};
use super::{ConfigFile, Failure, print};
use crate::limits;
use crate::status::diagnosis::{DuplicateView, DuplicatesView, MessageView, MessagesView};
use crate::status::question::{MessagesQuestion, Question, Request};
use crate::status::table::{printable, put, rows};

pub(super) fn find(file: &Path, question: MessagesQuestion, json: bool) -> Result<(), Failure> {
    let view: MessagesView = ask(file, &Request::Get(Question::Messages(question)))?;
    if json {
        print_json(&view)?;
    } else {
        print(&render(&view))?;
    }
    if view.messages.is_empty() { Err(Failure::No) } else { Ok(()) }
}

pub(super) fn duplicates(file: &Path, feed: String, control_id: Option<String>, limit: Option<u64>, json: bool) -> Result<(), Failure> {
    let view: DuplicatesView = ask(file, &Request::Get(Question::Duplicates { feed, control_id, limit }))?;
    if json {
        return print_json(&view);
    }
    let mut out = String::new();
    if view.duplicates.is_empty() {
        out.push_str("no duplicate was suppressed lately\n");
    } else {
        let mut table = vec![["TIME", "CONTROL ID", "FIRST COPY", "ANSWERED", "PEER"].map(str::to_owned).to_vec()];
        let row = |d: &DuplicateView| {
            vec![d.at.clone(), d.control_id.clone(), format!("seq {}", d.seq), d.ack.as_str().to_owned(), d.peer.clone()]
        };
        table.extend(view.duplicates.iter().map(row));
        for row in rows(&table) {
            out.push_str(row.trim_end());
            out.push('\n');
        }
    }
    caveats(&mut out, view.recent_available, view.notes_dropped);
    print(&printable(&out))
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Shows what became of messages: received, answered, published, acknowledged, settled; the newest first
    Find {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        feed: String,
        #[command(flatten)]
        by: FindBy,
        /// Only below this seq: goes on where an earlier answer ended
        #[arg(long, value_name = "SEQ")]
        before: Option<u64>,
        /// At most so many
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=limits::FIND_LIMIT_MAX))]
        limit: Option<u64>,
        #[arg(long)]
        json: bool,
    },
    /// Lists messages that came again and were answered as the first time, the newest first
    Duplicates {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        feed: String,
        /// Only those with this MSH-10
        #[arg(long, value_name = "ID")]
        control_id: Option<String>,
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=limits::FIND_LIMIT_MAX))]
        limit: Option<u64>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct FindBy {
    /// By MSH-10
    #[arg(long, value_name = "ID")]
    control_id: Option<String>,
    /// By the feed's sequence number
    #[arg(long)]
    seq: Option<u64>,
    /// Received since: how long ago (30m, 2h) or a time with its zone (2026-11-22T10:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = ask::since_ms)]
    since: Option<i64>,
}

pub fn carry_out(action: Action) -> Result<(), Failure> {
    match action {
        Action::Find { config, feed, by, before, limit, json } => {
            let FindBy { control_id, seq, since } = by;
            find(&config.config, MessagesQuestion { feed, control_id, seq, since_ms: since, before, limit }, json)
        }
        Action::Duplicates { config, feed, control_id, limit, json } => duplicates(&config.config, feed, control_id, limit, json),
    }
}

fn render(view: &MessagesView) -> String {
    let mut out = String::new();
    for message in &view.messages {
        one(&mut out, view, message);
        out.push('\n');
    }
    if view.messages.is_empty() {
        out.push_str("nothing found\n");
    }
    match view.searched_down_to {
        Some(seq) => put(&mut out, format_args!("searched {} records of the journal, back to seq {seq}", view.searched)),
        None => out.push_str("the journal holds no records of this feed that could fit"),
    }
    if view.recent_available {
        out.push_str(", and the recent outcomes");
    }
    out.push('\n');
    if let Some(seq) = view.more_below {
        put(&mut out, format_args!("there is more below seq {seq}: go on with --before {seq}\n"));
    }
    caveats(&mut out, view.recent_available, view.notes_dropped);
    printable(&out)
}

fn caveats(out: &mut String, recent_available: bool, notes_dropped: u64) {
    if !recent_available {
        out.push_str("recent outcomes cannot be read at the moment: times, duplicates and settled messages are missing here (see `siteward status`)\n");
    } else if notes_dropped > 0 {
        put(
            out,
            format_args!(
                "{notes_dropped} notes were dropped under load since the agent started: a time that is missing may be one of them\n"
            ),
        );
    }
}

fn one(out: &mut String, view: &MessagesView, m: &MessageView) {
    let id = if m.control_id.is_empty() { "no control id" } else { &m.control_id };
    put(out, format_args!("{} seq {}  {}  {id}\n", view.feed, m.seq, m.state.as_str()));
    let answered = match m.ack {
        Some(ack) => format!("answered {}", ack.as_str()),
        None => "answered".to_owned(),
    };
    let from = format!("from {}", m.peer);
    let steps: [(&str, &Option<String>, &str); 6] = [
        ("received", &m.received_at, &from),
        (&answered, &m.ack_at, ""),
        ("published", &m.published_at, ""),
        ("PUBACK", &m.puback_at, "the broker has it"),
        ("settled", &m.settled_at, "the hub has it on disk"),
        ("quarantined", &m.quarantined_at, "the broker cannot take it; see `siteward quarantine list`"),
    ];
    for (what, at, note) in steps {
        if let Some(at) = at {
            out.push_str(format!("  {what:<12}  {at}  {note}").trim_end());
            out.push('\n');
        }
    }
    if let Some(first) = m.resend_of {
        put(out, format_args!("  {:<12}  seq {first}: let in as new by accept-resend\n", "resend of"));
    }
    for duplicate in &m.duplicates {
        put(
            out,
            format_args!(
                "  {:<12}  {}  suppressed, answered {}, from {}\n",
                "came again",
                duplicate.at,
                duplicate.ack.as_str(),
                duplicate.peer
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Name;
    use crate::source::answer::AckCode;
    use crate::status::diagnosis::MessageState;

    fn at(second: u32) -> String {
        format!("2026-11-01T00:00:0{second}.000Z")
    }

    #[test]
    fn a_timeline_reads_from_top_to_bottom() {
        let message = MessageView {
            seq: 17,
            state: MessageState::WaitingForReceipt,
            control_id: "MSG1".into(),
            peer: "10.0.0.1:5".into(),
            received_at: Some(at(1)),
            ack: Some(AckCode::Aa),
            ack_at: Some(at(2)),
            published_at: Some(at(3)),
            puback_at: Some(at(4)),
            settled_at: None,
            quarantined_at: None,
            resend_of: None,
            duplicates: vec![DuplicateView { at: at(5), control_id: "MSG1".into(), seq: 17, peer: "10.0.0.1:6".into(), ack: AckCode::Aa }],
        };
        let view = MessagesView {
            feed: Name::new("or-usage").unwrap(),
            messages: vec![message],
            searched: 9,
            searched_down_to: Some(9),
            more_below: Some(9),
            recent_available: true,
            notes_dropped: 0,
        };
        let expected = "\
or-usage seq 17  waiting for receipt  MSG1
  received      2026-11-01T00:00:01.000Z  from 10.0.0.1:5
  answered AA   2026-11-01T00:00:02.000Z
  published     2026-11-01T00:00:03.000Z
  PUBACK        2026-11-01T00:00:04.000Z  the broker has it
  came again    2026-11-01T00:00:05.000Z  suppressed, answered AA, from 10.0.0.1:6

searched 9 records of the journal, back to seq 9, and the recent outcomes
there is more below seq 9: go on with --before 9
";
        assert_eq!(render(&view), expected);
        let nothing = MessagesView { messages: Vec::new(), searched_down_to: None, more_below: None, recent_available: false, ..view };
        assert!(render(&nothing).starts_with("nothing found\n") && render(&nothing).contains("cannot be read at the moment"));
    }
}
