//! `siteward config show | history | diff | apply | rollback`: asks the running agent what is configured, what was, and to go back.

use std::path::Path;

use super::ask::{ask, order, print_json};
use super::lines::diff;
use super::{Failure, print};
use crate::limits::DOCUMENT_BYTES_MAX;
use crate::rollout::handle::{EntryView, HistoryView, TextsView};
use crate::status::question::{Order, Question, Request};
use crate::status::table::{printable, put, rows};

#[derive(serde::Deserialize)]
struct Shown {
    text: String,
}

#[derive(serde::Deserialize)]
struct Done {
    done: String,
}

/// The effective settings; they hold no secrets.
pub(super) fn show(file: &Path) -> Result<(), Failure> {
    let shown: Shown = ask(file, &Request::Get(Question::Config {}))?;
    print(&printable(&shown.text))
}

pub(super) fn history(file: &Path, json: bool) -> Result<(), Failure> {
    let view: HistoryView = ask(file, &Request::Get(Question::ConfigHistory {}))?;
    if json { print_json(&view) } else { print(&render(&view)) }
}

pub(super) fn compare(file: &Path) -> Result<(), Failure> {
    let texts: TextsView = ask(file, &Request::Get(Question::ConfigTexts {}))?;
    print(&compared(&texts))
}

pub(super) fn rollback(file: &Path, why: &str) -> Result<(), Failure> {
    order(file, |by| Order::ConfigRollback { by, why: why.to_owned() })
}

/// Hands a signed document over. The answer comes when it is stored or refused; what becomes of it takes until the end of its trial.
pub(super) fn apply(config: &Path, file: &Path, why: Option<String>) -> Result<(), Failure> {
    let failed = |why: String| Failure::Other(format!("{}: {why}", file.display()).into());
    let length = std::fs::metadata(file).map_err(|error| failed(format!("cannot be read: {error}")))?.len();
    if length > DOCUMENT_BYTES_MAX as u64 {
        return Err(failed(format!("has {length} bytes; a signed document has at most {DOCUMENT_BYTES_MAX}")));
    }
    let envelope = std::fs::read_to_string(file).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let by = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).ok();
    let done: Done = ask(config, &Request::Do(Order::ConfigApply { envelope, by, why }))?;
    print(&printable(&format!("{}\nfollow it with `siteward config history` and `siteward status`\n", done.done)))
}

fn named(revision: u64) -> String {
    if revision == 0 { "the local file".to_owned() } else { format!("revision {revision}") }
}

fn compared(texts: &TextsView) -> String {
    let Some(previous) = &texts.previous else {
        return format!("{} runs; there is nothing before it to compare with\n", named(texts.committed.revision));
    };
    let changes = diff(&previous.text, &texts.committed.text);
    let head = format!("- {}\n+ {}, which runs\n", named(previous.revision), named(texts.committed.revision));
    printable(&format!("{head}{}", if changes.is_empty() { "  no line differs\n" } else { &changes }))
}

fn render(view: &HistoryView) -> String {
    let mut out = String::new();
    put(&mut out, format_args!("running   {}\n", named(view.running)));
    if let Some(previous) = view.previous {
        put(&mut out, format_args!("before    {}\n", named(previous)));
    }
    if view.history.is_empty() {
        put(&mut out, format_args!("no document has come yet\n"));
        return out;
    }
    let mut table = vec![["REVISION", "OUTCOME", "AT", "AUTHOR", "APPROVER", "TICKET", "REASON"].map(str::to_owned).to_vec()];
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let row = |e: &EntryView| {
        let at = if e.clock_suspect { format!("{} (clock suspect)", e.at) } else { e.at.clone() };
        vec![e.revision.to_string(), e.outcome.clone(), at, e.author.clone(), or_dash(&e.approver), or_dash(&e.ticket), e.reason.clone()]
    };
    table.extend(view.history.iter().map(row));
    let lines = rows(&table);
    for (line, entry) in lines.iter().zip(std::iter::once(None).chain(view.history.iter().map(Some))) {
        put(&mut out, format_args!("{}\n", line.trim_end()));
        if let Some(entry) = entry.filter(|entry| !entry.why.is_empty()) {
            put(&mut out, format_args!("          {}: {}\n", entry.code, entry.why));
        }
    }
    printable(&out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::DocumentDigest;
    use crate::rollout::handle::TextView;

    #[test]
    fn the_history_says_what_became_of_each_revision_and_why() {
        let entry = EntryView {
            revision: 42,
            digest: DocumentDigest([1; 32]),
            outcome: "rolled_back".into(),
            code: "peers_missing".into(),
            why: "feed `lab` had a sender".into(),
            at: "2026-11-01T00:00:00.000Z".into(),
            clock_suspect: false,
            attempts: 1,
            author: "kim".into(),
            approver: None,
            reason: "new port".into(),
            ticket: Some("CHG-7".into()),
        };
        let text = render(&HistoryView { running: 41, previous: Some(0), history: vec![entry] });
        let expected = "\
running   revision 41
before    the local file
REVISION  OUTCOME      AT                        AUTHOR  APPROVER  TICKET  REASON
42        rolled_back  2026-11-01T00:00:00.000Z  kim     -         CHG-7   new port
          peers_missing: feed `lab` had a sender
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_difference_names_both_sides() {
        let side = |revision, text: &str| TextView { revision, text: text.into() };
        let texts = TextsView { committed: side(42, "a\nc\n"), previous: Some(side(41, "a\nb\n")) };
        assert_eq!(compared(&texts), "- revision 41\n+ revision 42, which runs\n  a\n- b\n+ c\n");
        let alone = TextsView { committed: side(42, "a\n"), previous: None };
        assert!(compared(&alone).contains("nothing before it"));
    }
}
