//! `siteward feeds try`: what a feed would make of a file: its records by place and length, what is none and why, and what becomes of the whole.
//!
//! Asks no agent and changes nothing: configuration and file are read, the answer is printed. Structure only, never a value, and not the name of
//! the file either, which may be one (I7). The answer is a no (exit code 3) where anything of the file would not be captured.

use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::ask::{other, print_json};
use super::{Failure, print};
use crate::config::settings::{FeedSettings, Settings, SourceSettings};
use crate::config::{self, Files};
use crate::limits;
use crate::source::files::trial::{Outcome, Shown, Trial, Way};
use crate::source::files::{Completion, DirectorySettings};
use crate::source::http::HttpSplit;
use crate::source::split::{SplitLimits, SplitSettings, State, codes};
use crate::status::table::{bytes, printable, put, rows};

/// What was asked for.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub feed: &'a str,
    pub path: &'a Path,
    pub rows: usize,
    pub json: bool,
}

/// Whether the feed would take the file at all, and when.
#[derive(Debug, Serialize)]
struct Reception {
    name_taken: bool,
    is_link: bool,
    rule: &'static str,
    /// Null where only watching the file would tell.
    complete: Option<bool>,
    /// For people.
    text: String,
}

/// All that is shown.
struct Tried<'a> {
    feed: &'a FeedSettings,
    split: &'a SplitSettings,
    /// Of a directory feed.
    reception: Option<Reception>,
    trial: Trial,
    outcome: Outcome,
}

pub(super) fn try_file(config: &Path, asked: &Asked<'_>) -> Result<(), Failure> {
    let settings = config::load_with(config, Files::NotChecked)?;
    let feed = feed(&settings, asked.feed)?;
    let (split, answers) = match &feed.source {
        SourceSettings::Directory(directory) => (&directory.split, None),
        SourceSettings::Mllp(mllp) => (&SplitSettings::Hl7Concat, Some(&mllp.answers)),
        SourceSettings::Http(http) => (split_of(http.split, asked.path), None),
    };
    let failed = |error: io::Error| other(format!("{} cannot be read: {error}", asked.path.display()));
    let file = File::open(asked.path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(other(format!("{} is no plain file; a feed takes nothing else", asked.path.display())));
    }
    let way = Way { split, limits: SplitLimits::new(settings.spool.message_bytes_max), answers, rows: asked.rows };
    let bar = bar(metadata.len());
    let tried = way.try_on(file, |read| bar.set_position(read));
    bar.finish_and_clear();
    let trial = tried.map_err(other)?;
    let outcome = Outcome::of(&trial.verdict);
    let reception = match &feed.source {
        SourceSettings::Directory(directory) => Some(reception(directory, asked.path, &metadata, &outcome)),
        SourceSettings::Mllp(_) | SourceSettings::Http(_) => None,
    };
    let result = Tried { feed, split, reception, trial, outcome };
    if asked.json {
        print_json(&result.json())?;
    } else {
        let paint = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        print(&result.text(asked.rows, Paint(paint)))?;
    }
    if result.is_whole() { Ok(()) } else { Err(Failure::No) }
}

/// How a posted body is split. The media type says whether it is NDJSON; of a file, its name does.
fn split_of(split: HttpSplit, path: &Path) -> &'static SplitSettings {
    match split {
        _ if path.extension().is_some_and(|ending| ending == "ndjson") => &SplitSettings::Ndjson,
        HttpSplit::Whole => &SplitSettings::Whole,
        HttpSplit::FhirBundle => &SplitSettings::FhirBundle,
        HttpSplit::JsonArray => &SplitSettings::JsonArray,
    }
}

fn feed<'a>(settings: &'a Settings, name: &str) -> Result<&'a FeedSettings, Failure> {
    settings.feeds.iter().find(|feed| feed.id.as_str() == name).ok_or_else(|| {
        let names: Vec<&str> = settings.feeds.iter().map(|feed| feed.id.as_str()).collect();
        let known = if names.is_empty() { "it has none yet".to_owned() } else { format!("it has {}", names.join(", ")) };
        other(printable(&format!("the configuration has no feed {name}; {known}")))
    })
}

/// Shown on stderr, and only where that is a terminal.
fn bar(size: u64) -> ProgressBar {
    if size < limits::TRY_PROGRESS_BYTES {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent} % of {total_bytes}, {eta} left");
    ProgressBar::new(size).with_style(style.expect("a template that does not change"))
}

fn reception(directory: &DirectorySettings, path: &Path, metadata: &Metadata, outcome: &Outcome) -> Reception {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let quiet = directory.settle.as_secs();
    let (rule, complete, text) = match &directory.complete {
        Completion::Rename => ("rename", Some(true), "as soon as it is there under this name".to_owned()),
        Completion::Marker(suffix) => {
            let marker = fs::metadata(directory.complete.marker_of(path).unwrap_or_default());
            let made = marker.ok().map(|marker| (marker.mtime(), marker.mtime_nsec()));
            let (complete, said) = match made {
                None => (false, "it is not there"),
                Some(made) if made < (metadata.mtime(), metadata.mtime_nsec()) => (false, "it is older than the file"),
                Some(_) => (true, "it is there"),
            };
            ("marker", Some(complete), format!("when its marker is there, its name with {suffix} behind it: {said}"))
        }
        Completion::Trailer => {
            let complete = !matches!(outcome, Outcome::Held { .. });
            let said = if complete { "it is there" } else { "it is missing, or claims more than came" };
            ("trailer", Some(complete), format!("when its trailer is there and nothing has changed for {quiet} s: {said}"))
        }
        Completion::Settled => ("settled", None, format!("when nothing has changed for {quiet} s")),
    };
    let name_taken = path.file_name().is_some_and(|name| directory.takes(name));
    Reception { name_taken, is_link, rule, complete, text }
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn good(self, text: &str) -> String {
        self.in_colour("32", text)
    }
    fn bad(self, text: &str) -> String {
        self.in_colour("31", text)
    }
    fn in_colour(self, colour: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Tried<'_> {
    /// Every byte that means something would be captured.
    fn is_whole(&self) -> bool {
        self.is_taken() && self.outcome == Outcome::Captured && self.trial.verdict.bad == 0 && self.trial.refused == 0
    }

    /// As a file of the feed, by its name and kind.
    fn is_taken(&self) -> bool {
        self.reception.as_ref().is_none_or(|reception| reception.name_taken && !reception.is_link)
    }

    fn json(&self) -> serde_json::Value {
        let verdict = &self.trial.verdict;
        let (outcome, reason) = match &self.outcome {
            Outcome::Captured => ("captured", None),
            Outcome::Held { code } => ("held", Some((*code).to_owned())),
            Outcome::Refused(reason) => ("refused", Some(reason.clone())),
        };
        let findings =
            verdict.findings.iter().map(|finding| json!({"code": finding.code, "range": finding.range, "counts": finding.counts}));
        json!({
            "feed": self.feed.id.as_str(),
            "split": self.split.name(),
            "whole": self.is_whole(),
            "outcome": outcome,
            "reason": reason,
            "reception": self.reception,
            "bytes": verdict.bytes,
            "records": verdict.records,
            "bad": verdict.bad,
            "refused": self.trial.refused,
            "claimed": verdict.claimed,
            "envelope_bytes": verdict.envelope_bytes,
            "flag": verdict.state.code(),
            "findings": findings.collect::<Vec<_>>(),
            "findings_left_out": verdict.findings_left_out,
            "pieces": self.trial.pieces,
            "not_captured": self.trial.bad,
        })
    }

    fn text(&self, limit: usize, paint: Paint) -> String {
        let verdict = &self.trial.verdict;
        let mut out = format!("feed      {}, split {}\n", self.feed.id.as_str(), self.split.name());
        if let Some(reception) = &self.reception {
            let name = match (reception.is_link, reception.name_taken) {
                (true, _) => paint.bad("refused: this is a symbolic link, which is never followed"),
                (false, true) => "taken: it fits the patterns of the feed".to_owned(),
                (false, false) => paint.bad("not taken: it begins with a dot, is a marker, or fits no pattern of the feed"),
            };
            put(&mut out, format_args!("name      {name}\ncomplete  {}\n", reception.text));
        }
        let claimed = verdict.claimed.map(|n| format!("; the file claims {n}")).unwrap_or_default();
        put(
            &mut out,
            format_args!(
                "file      {}: {} records, {} parts that are none, {} of envelope{claimed}\n",
                bytes(verdict.bytes),
                verdict.records,
                verdict.bad,
                bytes(verdict.envelope_bytes)
            ),
        );
        for finding in &verdict.findings {
            let (code, range) = (finding.code, &finding.range);
            put(&mut out, format_args!("envelope  bytes {}-{}: {code}: {}\n", range.start, range.end, codes::meaning(code)));
        }
        if verdict.findings_left_out > 0 {
            put(&mut out, format_args!("envelope  {} more like these\n", verdict.findings_left_out));
        }
        if !self.trial.pieces.is_empty() {
            self.table(&mut out, paint);
        }
        self.bad(&mut out, limit, paint);
        out.push('\n');
        out.push_str(&self.conclusion(paint));
        if !self.is_taken() {
            put(&mut out, format_args!("{}: see name\n", paint.bad("but not as it is called here")));
        }
        out
    }

    fn table(&self, out: &mut String, paint: Paint) {
        let mut table = vec![["PART", "ROW", "BYTES", "LENGTH"].map(str::to_owned).to_vec()];
        let row = |row: Option<u64>| row.map_or_else(|| "-".to_owned(), |row| row.to_string());
        table.extend(self.trial.pieces.iter().map(|shown| {
            let range = format!("{}-{}", shown.range.start, shown.range.end);
            vec![shown.index.to_string(), row(shown.row), range, shown.length.to_string()]
        }));
        let mut lines = rows(&table).into_iter();
        put(out, format_args!("\n{}VERDICT\n", lines.next().unwrap_or_default()));
        for (line, shown) in lines.zip(&self.trial.pieces) {
            let verdict = shown.code.map_or_else(|| paint.good("record"), |code| paint.bad(code));
            put(out, format_args!("{line}{verdict}\n"));
        }
        let parts = self.trial.verdict.records + self.trial.verdict.bad;
        if parts > self.trial.pieces.len() as u64 {
            put(out, format_args!("... and {} more; --limit shows more of them\n", parts - self.trial.pieces.len() as u64));
        }
    }

    fn bad(&self, out: &mut String, limit: usize, paint: Paint) {
        let all = self.trial.verdict.bad + self.trial.refused;
        if all == 0 {
            return;
        }
        let which = if all > limit as u64 { format!("the first {limit} of {all}") } else { all.to_string() };
        put(out, format_args!("\nnot captured: {which}\n"));
        for shown in &self.trial.bad {
            put(out, format_args!("  {}: {}\n", place(shown), paint.bad(&reason(shown.code.unwrap_or_default()))));
        }
    }

    fn conclusion(&self, paint: Paint) -> String {
        let lost = self.trial.verdict.bad;
        match &self.outcome {
            Outcome::Held { code } => {
                format!("{}: {code}: {}; nothing of it is captured before it changes\n", paint.bad("would be held"), codes::meaning(code))
            }
            Outcome::Refused(reason) => format!("{}, nothing of it captured: {reason}\n", paint.bad("would be refused")),
            Outcome::Captured if self.trial.refused > 0 || (self.reception.is_none() && lost > 0) => {
                format!(
                    "{}: {} messages, see above; the others would be captured\n",
                    paint.bad("would be refused"),
                    self.trial.refused + lost
                )
            }
            Outcome::Captured if lost > 0 => {
                format!("would be captured, but {} of it would go to quarantine\n", paint.bad(&format!("{lost} parts")))
            }
            Outcome::Captured => match self.trial.verdict.state {
                State::Flagged { code } | State::CountMismatch { code, .. } => {
                    format!("{}, with a remark: {code}: {}\n", paint.good("would be captured"), codes::meaning(code))
                }
                _ => format!("{}\n", paint.good("would be captured whole")),
            },
        }
    }
}

fn place(shown: &Shown) -> String {
    let range = format!("bytes {}-{}", shown.range.start, shown.range.end);
    shown.row.map_or_else(|| format!("part {}, {range}", shown.index), |row| format!("row {row}, {range}"))
}

/// A code with what it means, where it is a splitter's.
fn reason(code: &str) -> String {
    if codes::ALL.contains(&code) { format!("{code}: {}", codes::meaning(code)) } else { code.to_owned() }
}
