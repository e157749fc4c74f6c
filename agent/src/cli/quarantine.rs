//! `siteward quarantine`: what was kept aside, when and why; what becomes of it. Content is shown by `show --content` only, for whoever may see it.

use std::io::{IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};

use super::ask::{ask, other, print_json};
use super::{ConfigFile, Failure, OnFeed, order, print};
use crate::limits::QUARANTINE_NAMED_MAX;
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
    /// Shows one entry; with --content what is in it, for members of siteward-phi, audited
    Show {
        #[command(flatten)]
        config: ConfigFile,
        /// Its id as `quarantine list` shows it
        id: String,
        /// The bytes themselves: THIS IS DATA OF PATIENTS
        #[arg(long, requires = "why")]
        content: bool,
        /// Why; audited
        #[arg(long, value_name = "REASON")]
        why: Option<String>,
        /// Writes the bytes to this new file, which only this user may read
        #[arg(long, value_name = "FILE", requires = "content")]
        out: Option<PathBuf>,
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

fn show(file: &Path, id: &str) -> Result<(), Failure> {
    let mut view: QuarantineView = ask(file, &Request::Get(Question::Quarantine { feed: None }))?;
    view.entries.retain(|entry| entry.id == id);
    if view.entries.is_empty() {
        return Err(other(format!("no entry {} is among the first that `siteward quarantine list` shows", id.escape_debug())));
    }
    view.total = 1;
    print(&render(&view))
}

#[derive(serde::Deserialize)]
struct Part {
    bytes: u64,
    content: String,
}

/// Bytes for a terminal, which they cannot steer: ends of segments and lines begin a new line, other control characters and what is no text are shown
/// as `\x1b`.
fn harmless(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut after_return = false;
        for c in chunk.valid().chars() {
            match c {
                '\r' => text.push('\n'),
                '\n' if after_return => {}
                '\n' | '\t' => text.push(c),
                c if c.is_control() => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| put(&mut text, format_args!("\\x{byte:02x}"))),
                c => text.push(c),
            }
            after_return = c == '\r';
        }
        chunk.invalid().iter().for_each(|byte| put(&mut text, format_args!("\\x{byte:02x}")));
    }
    text
}

/// Part by part, each of which is audited.
fn content(file: &Path, id: &str, why: &str, out: Option<&Path>) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| other(format!("the content cannot be written: {error}; give --out another path"));
    let mut target: Box<dyn Write> = match out {
        Some(path) => Box::new(std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?),
        None => Box::new(std::io::stdout()),
    };
    let is_seen = out.is_none() && std::io::stdout().is_terminal();
    let by = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "somebody".to_owned());
    let mut offset = 0;
    loop {
        let order = Order::Unseal { entry: id.to_owned(), offset, by: by.clone(), why: why.to_owned() };
        let Part { bytes, content } = ask(file, &Request::Do(order))?;
        let part = STANDARD.decode(content).map_err(|_| other("the agent gave no usable answer; nothing more is shown"))?;
        if is_seen { target.write_all(harmless(&part).as_bytes()) } else { target.write_all(&part) }.map_err(cannot)?;
        offset += part.len() as u64;
        if offset >= bytes || part.is_empty() {
            return target.flush().map_err(cannot);
        }
    }
}

pub fn carry_out(action: Action) -> Result<(), Failure> {
    match action {
        Action::List { config, feed, json } => list(&config.config, feed, json),
        Action::Show { config, id, content: false, .. } => show(&config.config, &id),
        Action::Show { config, id, why, out, .. } => content(&config.config, &id, &why.unwrap_or_default(), out.as_deref()),
        Action::Release { at: OnFeed { config, feed, why }, range: SeqRange { first, last } } => {
            order(&config.config, |by| Order::ReleaseQuarantine { feed, first, last, by, why })
        }
        Action::Drop { config, feed: Some(feed), first, last, why, .. } => {
            let (first, last) = (first.unwrap_or(1), last.unwrap_or(0));
            order(&config.config, |by| Order::DropQuarantine { feed, first, last, by, why })
        }
        // Each order names no more than its audit record holds.
        Action::Drop { config, why, entries, .. } => entries
            .chunks(QUARANTINE_NAMED_MAX)
            .try_for_each(|entries| order(&config.config, |by| Order::DropEntries { entries: entries.to_vec(), by, why: why.clone() })),
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
    fn content_on_a_terminal_cannot_steer_it() {
        assert_eq!(harmless(b"MSH|^~\\&|A\rPID|1\r\nOBX\t1\n"), "MSH|^~\\&|A\nPID|1\nOBX\t1\n");
        assert_eq!(harmless(b"\x1b]0;OWNED\x07\x00\x7f"), "\\x1b]0;OWNED\\x07\\x00\\x7f");
        assert_eq!(harmless("Ł\u{9b}2J".as_bytes()), "Ł\\xc2\\x9b2J");
        assert_eq!(harmless(b"\xc5\x9b\xff\xc5"), "\u{15b}\\xff\\xc5");
    }

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
