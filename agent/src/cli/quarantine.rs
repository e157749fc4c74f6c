//! `siteward quarantine list`: what was kept aside, when and why; no content.

use std::path::Path;

use clap::{Args, Subcommand};

use super::ask::{ask, print_json};
use super::{ConfigFile, Failure, OnFeed, order, print};
use crate::spool::QuarantineListed;
use crate::status::diagnosis::QuarantineView;
use crate::status::question::{Order, Question, Request};
use crate::status::table::{bytes, printable, put, rows};

pub(super) fn list(file: &Path, feed: Option<String>, json: bool) -> Result<(), Failure> {
    let view: QuarantineView = ask(file, &Request::Get(Question::Quarantine { feed }))?;
    if json { print_json(&view) } else { print(&render(&view)) }
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Lists entries: time, feed, peer, code, size; no content
    List {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        feed: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Sends records to the hub after all, under the identity they had, and removes each when it is acknowledged
    Release {
        #[command(flatten)]
        at: OnFeed,
        #[command(flatten)]
        range: SeqRange,
    },
    /// Removes records, or entries by their ids, for good
    Drop {
        #[command(flatten)]
        config: ConfigFile,
        /// Of this feed, from --first to --last
        #[arg(long, requires_all = ["first", "last"], conflicts_with = "entries", required_unless_present = "entries")]
        feed: Option<String>,
        #[arg(long, value_name = "SEQ", requires = "feed")]
        first: Option<u64>,
        #[arg(long, value_name = "SEQ", requires = "feed")]
        last: Option<u64>,
        /// Why; audited and reported
        #[arg(long, value_name = "REASON")]
        why: String,
        /// Ids as `quarantine list` shows them
        entries: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct SeqRange {
    /// The first seq
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    first: u64,
    /// The last seq
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    last: u64,
}

pub fn carry_out(action: Action) -> Result<(), Failure> {
    match action {
        Action::List { config, feed, json } => list(&config.config, feed, json),
        Action::Release { at: OnFeed { config, feed, why }, range: SeqRange { first, last } } => {
            order(&config.config, |by| Order::ReleaseQuarantine { feed, first, last, by, why })
        }
        Action::Drop { config, feed: Some(feed), first, last, why, .. } => {
            let (first, last) = (first.unwrap_or(1), last.unwrap_or(0));
            order(&config.config, |by| Order::DropQuarantine { feed, first, last, by, why })
        }
        Action::Drop { config, why, entries, .. } => order(&config.config, |by| Order::DropEntries { entries, by, why }),
    }
}

fn render(view: &QuarantineView) -> String {
    if view.entries.is_empty() {
        return match view.total {
            0 => "quarantine is empty\n".to_owned(),
            n => format!("nothing of this feed; {n} entries of others\n"),
        };
    }
    let mut table = vec![["ENTRY", "TIME", "FEED", "PEER", "CODE", "BYTES", "RECORD"].map(str::to_owned).to_vec()];
    let row = |e: &QuarantineListed| {
        let record = e.seq.map_or_else(|| "-".to_owned(), |seq| format!("seq {seq}"));
        vec![e.id.clone(), e.at.clone(), e.feed.clone(), e.peer.clone(), e.code.clone(), bytes(e.bytes), record]
    };
    table.extend(view.entries.iter().map(row));
    let mut out = String::new();
    for row in rows(&table) {
        out.push_str(row.trim_end());
        out.push('\n');
    }
    let shown = view.entries.len() as u64;
    if view.total > shown {
        put(&mut out, format_args!("{shown} of {} entries; the newest first\n", view.total));
    }
    printable(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_listed_with_their_reason() {
        let entry = QuarantineListed {
            id: "00000000000000a1".into(),
            feed: "or-usage".into(),
            code: "no_header".into(),
            peer: "10.0.0.1:5".into(),
            at: "2026-11-01T00:00:00.000Z".into(),
            bytes: 700,
            seq: None,
            incarnation: None,
        };
        let expected = "\
ENTRY             TIME                      FEED      PEER        CODE       BYTES  RECORD
00000000000000a1  2026-11-01T00:00:00.000Z  or-usage  10.0.0.1:5  no_header  700 B  -
3 of 9 entries; the newest first
";
        let text = render(&QuarantineView { entries: vec![entry.clone()], total: 9 });
        assert_eq!(text, expected.replace("3 of 9", "1 of 9"));
        assert_eq!(render(&QuarantineView { entries: vec![], total: 0 }), "quarantine is empty\n");
        assert!(render(&QuarantineView { entries: vec![], total: 2 }).contains("of others"));
    }
}
