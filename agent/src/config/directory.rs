//! `[feed.directory]` through its three stages: as written, merged with the defaults, validated (`source::files::DirectorySettings`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault::{FaultList, Place};
use super::reader::{At, Field, Section, choice, duration, flag, path, size, text, texts, whole, wholes};
use super::validate::{ranged, within};
use crate::limits;
use crate::record::Stage;
use crate::source::charset::Charset;
use crate::source::files::pattern::Pattern;
use crate::source::files::{Completion, DirectorySettings, DoneRule, Order, Retention};
use crate::source::split::{FixedSettings, SplitSettings, X12Level};

/// Where shares are mounted by habit: a directory below one of these must be a mounted one.
const MOUNTED_BELOW: [&str; 2] = ["/mnt", "/srv/feeds"];
const MARKER_DEFAULT: &str = ".ok";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complete {
    Rename,
    Marker,
    Trailer,
    Settled,
}

#[derive(Debug)]
pub(super) struct Written {
    place: Place,
    path: Field<PathBuf>,
    patterns: Field<Vec<String>>,
    subfolders: Field<bool>,
    order: Field<Order>,
    complete: Field<Complete>,
    marker: Field<String>,
    settle: Field<Duration>,
    scan: Field<Duration>,
    split: Field<String>,
    done: Field<bool>,
    retention_days: Field<u64>,
    retention_bytes: Field<u64>,
    require_mount: Field<bool>,
    name_in_events: Field<bool>,
    details: Details,
}

/// The sections of the ways to split that have one.
#[derive(Debug)]
struct Details {
    delimiter: Field<String>,
    quote: Field<String>,
    header: Field<bool>,
    csv_encoding: Field<String>,
    widths: Field<Vec<u64>>,
    record_len: Field<u64>,
    trimmed_ends: Field<bool>,
    fixed_encoding: Field<String>,
    level: Field<X12Level>,
    /// The sections that are there.
    given: Vec<(&'static str, Place)>,
}

#[derive(Debug)]
pub(super) struct Merged {
    path: Option<At<PathBuf>>,
    patterns: Option<At<Vec<String>>>,
    subfolders: Option<At<bool>>,
    order: Option<At<Order>>,
    complete: Option<At<Complete>>,
    marker: Field<String>,
    settle: Option<At<Duration>>,
    scan: Option<At<Duration>>,
    split: Option<At<String>>,
    moves: Option<At<bool>>,
    retention_days: Option<At<u64>>,
    retention_bytes: Option<At<u64>>,
    require_mount: Field<bool>,
    name_in_events: Option<At<bool>>,
    details: Details,
}

pub(super) fn read(mut s: Section<'_, '_>, f: &mut FaultList) -> Written {
    let orders = [("name", Order::Name), ("mtime", Order::Modified), ("number", Order::Number)];
    let completions =
        [("rename", Complete::Rename), ("marker", Complete::Marker), ("trailer", Complete::Trailer), ("settled", Complete::Settled)];
    let written = Written {
        place: s.place.clone(),
        path: s.read(f, "path", path),
        patterns: s.read(f, "patterns", texts),
        subfolders: s.read(f, "subfolders", flag),
        order: s.read(f, "order", choice(&orders)),
        complete: s.read(f, "complete", choice(&completions)),
        marker: s.read(f, "marker", text),
        settle: s.read(f, "settle", duration),
        scan: s.read(f, "scan", duration),
        split: s.read(f, "split", text),
        done: s.read(f, "done", choice(&[("move", true), ("leave", false)])),
        retention_days: s.read(f, "retention_days", whole),
        retention_bytes: s.read(f, "retention_bytes", size),
        require_mount: s.read(f, "require_mount", flag),
        name_in_events: s.read(f, "name_in_events", flag),
        details: details(&mut s, f),
    };
    s.finish(f);
    written
}

fn details(s: &mut Section<'_, '_>, f: &mut FaultList) -> Details {
    let given = ["csv", "fixed", "x12"].into_iter().filter_map(|name| s.has(name).map(|place| (name, place))).collect();
    let (mut csv, mut fixed, mut x12) = (s.section(f, "csv"), s.section(f, "fixed"), s.section(f, "x12"));
    let levels = [("transaction", X12Level::Transaction), ("group", X12Level::Group), ("interchange", X12Level::Interchange)];
    let details = Details {
        delimiter: csv.read(f, "delimiter", text),
        quote: csv.read(f, "quote", text),
        header: csv.read(f, "header", flag),
        csv_encoding: csv.read(f, "encoding", text),
        widths: fixed.read(f, "widths", wholes),
        record_len: fixed.read(f, "record_len", whole),
        trimmed_ends: fixed.read(f, "trimmed_ends", flag),
        fixed_encoding: fixed.read(f, "encoding", text),
        level: x12.read(f, "level", choice(&levels)),
        given,
    };
    for section in [csv, fixed, x12] {
        section.finish(f);
    }
    details
}

pub(super) fn merge(w: Written, f: &mut FaultList) -> Merged {
    let at = &w.place;
    Merged {
        path: w.path.required(f, at, "path", "name the directory the files come to, like \"/srv/feeds/cabinet\""),
        patterns: w.patterns.or(vec!["*".to_owned()], at, "patterns"),
        subfolders: w.subfolders.or(false, at, "subfolders"),
        order: w.order.or(Order::Name, at, "order"),
        complete: w.complete.or(Complete::Settled, at, "complete"),
        settle: w.settle.or(limits::SETTLE_DEFAULT, at, "settle"),
        scan: w.scan.or(limits::SCAN_INTERVAL_DEFAULT, at, "scan"),
        split: w.split.required(f, at, "split", "say how a file becomes records, like \"csv\", or \"whole\" to take it as it is"),
        moves: w.done.or(true, at, "done"),
        retention_days: w.retention_days.or(limits::RETENTION_DAYS_DEFAULT.into(), at, "retention_days"),
        retention_bytes: w.retention_bytes.or(limits::RETENTION_BYTES_DEFAULT, at, "retention_bytes"),
        name_in_events: w.name_in_events.or(false, at, "name_in_events"),
        marker: w.marker,
        require_mount: w.require_mount,
        details: w.details,
    }
}

pub(super) fn validate(m: &Merged, stage: Option<Stage>, f: &mut FaultList) -> Option<DirectorySettings> {
    let path = m.path.as_ref().and_then(|at| {
        let is_plain = at.value.is_absolute() && !at.value.components().any(|part| part.as_os_str() == "..");
        if is_plain { Some(at.value.clone()) } else { f.refuse(&at.place, "must be an absolute path without ..") }
    });
    let patterns = m.patterns.as_ref().and_then(|at| patterns(at, f));
    let split = split(m, f);
    let complete = completion(m, split.as_ref(), f);
    let settle = ranged(m.settle.as_ref(), within(limits::SETTLE_RANGE), "\"1s\" to \"24h\"", f);
    let scan = ranged(m.scan.as_ref(), within(limits::SCAN_INTERVAL_RANGE), "\"1s\" to \"1h\"", f);
    let (least, most) = limits::RETENTION_DAYS_RANGE;
    let days = ranged(m.retention_days.as_ref(), least..=most, "0 to 3650", f);
    let retention = days.zip(m.retention_bytes.as_ref()).map(|(days, bytes)| Retention { days: days as u32, bytes: bytes.value });
    let require_mount = path.as_deref().map(|path| mount(m, path));
    Some(DirectorySettings {
        path: path?,
        patterns: patterns?,
        subfolders: m.subfolders.as_ref()?.value,
        order: m.order.as_ref()?.value,
        complete: complete?,
        settle: settle?,
        scan: scan?,
        split: split?,
        done: if m.moves.as_ref()?.value { DoneRule::Move(retention?) } else { DoneRule::Leave },
        require_mount: require_mount?,
        name_in_events: m.name_in_events.as_ref()?.value,
        stage: stage?,
    })
}

/// Below what something must be mounted.
fn mount(m: &Merged, path: &Path) -> Option<PathBuf> {
    let habit = MOUNTED_BELOW.into_iter().map(Path::new).find(|habit| path.starts_with(habit));
    match m.require_mount.given().map(|at| at.value) {
        Some(false) => None,
        Some(true) => Some(habit.unwrap_or(Path::new("/")).to_owned()),
        None => habit.map(Path::to_owned),
    }
}

fn patterns(at: &At<Vec<String>>, f: &mut FaultList) -> Option<Vec<Pattern>> {
    if at.value.is_empty() || at.value.len() > limits::FILE_PATTERNS_MAX {
        return f.refuse(&at.place, format!("must hold 1 to {} patterns, like [\"*.csv\"]", limits::FILE_PATTERNS_MAX));
    }
    let checked: Result<Vec<Pattern>, _> = at.value.iter().map(|text| Pattern::new(text)).collect();
    checked.map_err(|why| f.add(&at.place, why)).ok()
}

fn completion(m: &Merged, split: Option<&SplitSettings>, f: &mut FaultList) -> Option<Completion> {
    let at = m.complete.as_ref()?;
    if let (Some(marker), false) = (m.marker.given(), at.value == Complete::Marker) {
        f.add(&marker.place, "means something only with complete = \"marker\"; remove it or set that");
    }
    match at.value {
        Complete::Rename => Some(Completion::Rename),
        Complete::Settled => Some(Completion::Settled),
        Complete::Trailer => match split {
            None | Some(SplitSettings::Hl7Batch | SplitSettings::X12 { .. }) => Some(Completion::Trailer),
            Some(other) => {
                f.refuse(&at.place, format!("is \"trailer\", but split = \"{}\" has no trailer; use another evidence", other.name()))
            }
        },
        Complete::Marker => {
            let suffix = m.marker.given().map_or(MARKER_DEFAULT, |at| &at.value);
            if suffix.contains('/') || suffix.len() > 32 {
                return f.refuse(&at.place, "needs a marker that is a short suffix without /, like \".ok\"");
            }
            Some(Completion::Marker(suffix.to_owned()))
        }
    }
}

fn split(m: &Merged, f: &mut FaultList) -> Option<SplitSettings> {
    let at = m.split.as_ref()?;
    let d = &m.details;
    let mut split = SplitSettings::named(&at.value).map_err(|error| f.add(&at.place, error.to_string())).ok()?;
    for (name, place) in d.given.iter().filter(|(name, _)| *name != split.name()) {
        f.add(place, format!("means something only with split = \"{name}\"; remove it or set that"));
    }
    match &mut split {
        SplitSettings::Csv(csv) => {
            if let Some(at) = d.delimiter.given() {
                csv.delimiter = character(at, f)?;
            }
            if let Some(at) = d.quote.given() {
                csv.quote = if at.value == "none" { None } else { Some(character(at, f)?) };
            }
            csv.header = d.header.given().map_or(csv.header, |at| at.value);
            csv.encoding = encoding(&d.csv_encoding, csv.encoding, f)?;
        }
        SplitSettings::Fixed(fixed) => {
            let widths: Vec<u32> = d.widths.given().map(|at| at.value.iter().map(|w| u32::try_from(*w).unwrap_or(u32::MAX)).collect())?;
            *fixed = FixedSettings::from_widths(&widths);
            fixed.record_len = d.record_len.given().map(|at| u32::try_from(at.value).unwrap_or(u32::MAX));
            fixed.trimmed_ends = d.trimmed_ends.given().is_some_and(|at| at.value);
            fixed.encoding = encoding(&d.fixed_encoding, fixed.encoding, f)?;
        }
        SplitSettings::X12 { level } => *level = d.level.given().map_or(*level, |at| at.value),
        _ => {}
    }
    split.check().map_err(|error| f.add(&at.place, error.to_string())).ok()?;
    Some(split)
}

/// One character; a tabulator is written as `tab`.
fn character(at: &At<String>, f: &mut FaultList) -> Option<u8> {
    match at.value.as_bytes() {
        b"tab" => Some(b'\t'),
        [byte] => Some(*byte),
        _ => f.refuse(&at.place, "must be one character, like \";\", or \"tab\""),
    }
}

fn encoding(field: &Field<String>, default: Charset, f: &mut FaultList) -> Option<Charset> {
    let Some(at) = field.given() else { return Some(default) };
    let named = Charset::named(&at.value);
    named
        .map_err(|_| f.add(&at.place, "is not a character set known here, or one that is not split; give \"UNICODE UTF-8\" or \"8859/1\""))
        .ok()
}

#[cfg(test)]
mod tests;
