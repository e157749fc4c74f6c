//! `siteward audit list | verify | export`: the audit log of this gateway. With the agent running it is asked; without it the files are read, by
//! whoever may.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::Value;

use super::ask::{ask, other, print_json};
use super::{ConfigFile, Failure, print};
use crate::audit::log::{self, Snapshot};
use crate::audit::verify::Verdict;
use crate::config;
use crate::spool::disk::RealDisk;
use crate::status::control::AskError;
use crate::status::question::{Order, Question, Request};
use crate::status::table::{printable, put, rows};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Lists who did what, when and why, the newest last
    List {
        #[command(flatten)]
        config: ConfigFile,
        /// So many of the newest
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// One line of JSON for each record, as it is at the hub
        #[arg(long)]
        json: bool,
    },
    /// Says whether the log is whole: no number missing, nothing changed. Exit code 3: it is not
    Verify {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        json: bool,
    },
    /// Writes all records, one line of JSON each, to a file that only this user may read
    Export {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

pub(super) fn carry_out(action: Action) -> Result<(), Failure> {
    match action {
        Action::List { config, limit, json } => list(&config.config, limit, json),
        Action::Verify { config, json } => {
            let verdict = verdict(&config.config)?;
            if json {
                print_json(&verdict)?;
            } else {
                print(&printable(&verdict.text()))?;
            }
            if verdict.is_whole() { Ok(()) } else { Err(Failure::No) }
        }
        Action::Export { config, out } => export(&config.config, &out),
    }
}

#[derive(serde::Deserialize)]
struct Page {
    records: Vec<Value>,
    last: u64,
    sent: u64,
}

/// Records, and up to which the hub's broker has them where the agent says it.
pub(super) struct Records {
    pub lines: Vec<Value>,
    pub sent: Option<u64>,
}

/// No agent runs: what it would say is read from its files.
fn is_stopped(failure: &Failure) -> bool {
    matches!(failure, Failure::Other(error) if matches!(error.downcast_ref::<AskError>(), Some(AskError::NotRunning(_))))
}

fn from_files(file: &Path) -> Result<Snapshot, Failure> {
    let settings = config::load_bootstrap_unchecked(file)?;
    log::lying(std::sync::Arc::new(RealDisk), &settings.spool.path).map_err(other)
}

/// From `first` on; all of them.
pub(super) fn records(file: &Path, newest: Option<usize>) -> Result<Records, Failure> {
    let page = |first: u64| ask::<Page>(file, &Request::Get(Question::Audit { first }));
    let newest = newest.unwrap_or(usize::MAX);
    // Where the log begins is not known, and a first page says where it ends.
    let end = match page(u64::MAX) {
        Ok(Page { last, .. }) => last,
        Err(failure) if is_stopped(&failure) => {
            let lines = from_files(file)?.lines().map_err(other)?;
            let skipped = lines.len().saturating_sub(newest);
            return Ok(Records {
                lines: lines.iter().skip(skipped).filter_map(|line| serde_json::from_str(line).ok()).collect(),
                sent: None,
            });
        }
        Err(failure) => return Err(failure),
    };
    let mut lines: Vec<Value> = Vec::new();
    let mut first = (end + 1).saturating_sub(newest as u64).max(1);
    loop {
        let Page { records, sent, .. } = page(first)?;
        let Some(last) = records.last().and_then(|record| record["n"].as_u64()) else {
            return Ok(Records { lines, sent: Some(sent) });
        };
        lines.extend(records);
        first = last + 1;
    }
}

pub(super) fn verdict(file: &Path) -> Result<Verdict, Failure> {
    match ask(file, &Request::Get(Question::AuditVerify {})) {
        Err(failure) if is_stopped(&failure) => from_files(file)?.verdict().map_err(other),
        verdict => verdict,
    }
}

fn list(file: &Path, limit: usize, json: bool) -> Result<(), Failure> {
    let Records { lines, sent } = records(file, Some(limit))?;
    if json {
        let mut text = String::new();
        for line in &lines {
            put(&mut text, format_args!("{line}\n"));
        }
        return print(&text);
    }
    print(&render(&lines, sent))
}

fn render(lines: &[Value], sent: Option<u64>) -> String {
    let mut table = vec![["N", "AT", "WHO", "WHAT", "TO", "REASON", "AT THE HUB"].map(str::to_owned).to_vec()];
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
    for line in lines {
        let n = line["n"].as_u64().unwrap_or(0);
        let suspect = if line["clock_suspect"] == true { " (clock suspect)" } else { "" };
        let at_hub = sent.map_or("-", |sent| if n <= sent { "yes" } else { "not yet" });
        let mut row = vec![n.to_string(), format!("{}{suspect}", text(&line["time"]))];
        row.extend([&line["who"], &line["what"], &line["subject"], &line["reason"]].map(text));
        row.push(at_hub.to_owned());
        table.push(row);
    }
    let mut out = String::new();
    for line in rows(&table) {
        put(&mut out, format_args!("{}\n", line.trim_end()));
    }
    printable(&out)
}

fn export(file: &Path, out: &Path) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| other(format!("cannot write {}: {error}; give --out another path", out.display()));
    // Who takes it out is in it; without the agent whoever may read the files takes them.
    let by = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).ok();
    match ask::<Value>(file, &Request::Do(Order::AuditExport { by })) {
        Err(failure) if !is_stopped(&failure) => return Err(failure),
        _ => {}
    }
    let Records { lines, .. } = records(file, None)?;
    let mut target = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(out).map_err(cannot)?;
    for line in &lines {
        writeln!(target, "{line}").map_err(cannot)?;
    }
    target.sync_all().map_err(cannot)?;
    let first = lines.first().and_then(|line| line["n"].as_u64()).unwrap_or(1);
    let partial = if first > 1 { format!(", with --partial, since they begin with {first}") } else { String::new() };
    print(&format!("{} records are in {}; `siteward-hub audit verify` checks them anywhere{partial}\n", lines.len(), out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_line_and_says_whether_the_hub_has_it() {
        let record = |n: u64, what: &str| serde_json::json!({ "n": n, "time": "2026-11-01T00:00:00.000Z", "who": "kim (uid 1000) on site", "what": what, "subject": "or-usage", "reason": "", "clock_suspect": n == 8 });
        let text = render(&[record(7, "pause_feed"), record(8, "pause_feed_done")], Some(7));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("7  2026-11-01T00:00:00.000Z") && lines[1].ends_with("yes"), "{text}");
        assert!(lines[2].contains("(clock suspect)") && lines[2].ends_with("not yet"), "{text}");
    }
}
