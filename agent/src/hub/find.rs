//! One message in the receiver's output, followed across sites, without its content.
//!
//! ```text
//!   output (a file of lines, however large) ─► cheap look at each line ─► the few that may be it are read ─► findings by record
//!   ledger, index (beside it) ──────────────────────────────────────────────────► is the feed complete around it?
//! ```
//!
//! 1. Asked by control id (MSH-10; an event carries it where it is printable), by feed and seq, or by event id. A record that the gateway keeps back,
//!    a gap and what was lost carry no control id: they are found by seq only, and that is said.
//! 2. The file is read, not locked: the receiver may be writing it. Its end is where it ended when the search began. A budget of bytes bounds the
//!    work; where the file is larger, its newest part is read, and how much was left out is said.
//! 3. Nothing is kept of a line but what a [`Finding`] has: no payload, and no attribute but those named there (I7).
//! 4. A duplicate is counted by the receiver and not written, so that one came again is known by feed, not by message.
//! 5. Index and ledger are looked at as they lie; the ledger is saved now and then, so it may be behind the output, and says how far.

pub mod around;
#[cfg(test)]
mod tests;
pub mod text;

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

use super::line::{Line, LineKind};
use crate::limits::{FIND_SHOWN_MAX, HUB_LINE_BYTES_MAX};
use crate::record::{FeedId, Incarnation, Name};

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    ControlId(String),
    /// An incarnation where the event's id was given.
    Seq {
        feed: FeedId,
        seq: u64,
        incarnation: Option<Incarnation>,
    },
}

/// What is looked for, and where.
#[derive(Clone, Debug)]
pub struct Query {
    pub out: PathBuf,
    pub wanted: Wanted,
    pub site: Option<Name>,
    pub gateway: Option<Name>,
    /// Bytes that are read at most.
    pub budget: u64,
    /// Where reading begins; none: so that the budget reaches to the end.
    pub from: Option<u64>,
}

/// A line of the output that is about the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where the line begins.
    pub offset: u64,
    pub kind: LineKind,
    pub site: Name,
    pub gateway: Name,
    pub feed: FeedId,
    pub incarnation: Option<Incarnation>,
    /// The seq of the record; of a gap, a loss or a fork: the one that was asked for.
    pub seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Item and count, where the record became several events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<(u32, u32)>,
    /// By the gateway's clock: when it received the message.
    pub received_at: Option<String>,
    /// By the hub's: when the line was written.
    pub written_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A deliberate resend of this seq.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resend_of: Option<String>,
    /// Another message had the same control id before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub control_id_reused: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub clock_suspect: bool,
}

/// What a search read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    pub findings: Vec<Finding>,
    /// Findings beyond those that are kept.
    pub left_out: u64,
    pub read_from: u64,
    pub read_to: u64,
    pub file_bytes: u64,
    pub lines: u64,
    /// Lines that could not be read and may have been it.
    pub unreadable: u64,
}

impl Found {
    /// Everything there was is read.
    pub fn is_whole(&self) -> bool {
        self.read_from == 0 && self.read_to >= self.file_bytes && self.unreadable == 0
    }
}

/// The attributes that a finding shows; all others are passed over.
#[derive(Default, Deserialize)]
struct Attributes {
    controlid: Option<String>,
    resendof: Option<String>,
    controlidreused: Option<String>,
    clocksuspect: Option<String>,
}

#[derive(Deserialize)]
struct Extra {
    time: Option<String>,
    stage: Option<String>,
    #[serde(default)]
    attributes: Attributes,
}

/// `{gateway}/{feed}/{incarnation}/{seq}/{item}`.
pub fn parse_event_id(id: &str) -> Result<(Name, Wanted), String> {
    const LIKE: &str = "must be like gateway/feed/incarnation/seq/raw";
    let mut parts = id.split('/');
    let mut next = || parts.next().ok_or(LIKE);
    let gateway = Name::new(next()?).map_err(|_| LIKE)?;
    let feed = Name::new(next()?).map_err(|_| LIKE)?;
    let incarnation = next()?.parse().map_err(|_| LIKE)?;
    let seq = next()?.parse().map_err(|_| LIKE)?;
    // The item may be left out.
    if parts.count() > 1 {
        return Err(LIKE.into());
    }
    Ok((gateway, Wanted::Seq { feed, seq, incarnation: Some(incarnation) }))
}

/// A first look at a line, without reading it.
struct Sieve {
    /// All of these are in a line that may be it.
    all: Vec<Finder<'static>>,
    /// Where this is in it too, only with `seq`.
    event: Finder<'static>,
    seq: Option<Finder<'static>>,
}

impl Sieve {
    fn new(query: &Query) -> Self {
        // As the receiver writes it. A quote inside a value is written with a backslash, so no value can look like this.
        let pair = |name: &str, value: &str| {
            let value = serde_json::to_string(value).expect("text is JSON");
            Finder::new(&format!("\"{name}\":{value}")).into_owned()
        };
        let mut all = Vec::new();
        let mut seq = None;
        match &query.wanted {
            Wanted::ControlId(id) => all.push(pair("controlid", id)),
            Wanted::Seq { feed, seq: number, .. } => {
                all.push(pair("feed", feed.as_str()));
                seq = Some(Finder::new(&format!("\"seq\":{number},")).into_owned());
            }
        }
        all.extend(query.gateway.as_ref().map(|gateway| pair("gateway", gateway.as_str())));
        all.extend(query.site.as_ref().map(|site| pair("site", site.as_str())));
        Self { all, event: pair("kind", "event"), seq }
    }

    fn lets_through(&self, line: &[u8]) -> bool {
        // What names the record stands in front of its content.
        let head = &line[..line.len().min(HEAD)];
        let other = |seq: &Finder| self.event.find(head).is_some() && seq.find(head).is_none();
        self.all.iter().all(|finder| finder.find(head).is_some()) && !self.seq.as_ref().is_some_and(other)
    }
}

/// Line, attributes and their bounds together are shorter; content stands behind.
const HEAD: usize = 64 * 1024;

/// Reads the output. An error is a sentence.
pub fn search(query: &Query) -> Result<Found, String> {
    let failed = |error: io::Error| format!("{}: cannot be read: {error}", query.out.display());
    let mut file = File::open(&query.out).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let from = query.from.unwrap_or_else(|| length.saturating_sub(query.budget)).min(length);
    let to = length.min(from.saturating_add(query.budget));
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut reader = BufReader::with_capacity(1 << 20, file.take(length - from));
    let mut found = Found { read_from: from, file_bytes: length, ..Found::default() };
    let mut at = from;
    if from > 0 {
        // In the middle of a line: it belongs to what was left out.
        at += reader.skip_until(b'\n').map_err(failed)? as u64;
    }
    let sieve = Sieve::new(query);
    let mut text = Vec::new();
    while at < to {
        text.clear();
        let mut taken = reader.by_ref().take(HUB_LINE_BYTES_MAX).read_until(b'\n', &mut text).map_err(failed)? as u64;
        if taken == 0 {
            break;
        }
        let whole = text.last() == Some(&b'\n');
        if !whole {
            taken += reader.skip_until(b'\n').map_err(failed)? as u64;
        }
        found.lines += 1;
        if sieve.lets_through(&text) {
            found.judge(query, &text, at, whole);
        }
        at += taken;
    }
    found.read_to = at;
    Ok(found)
}

impl Found {
    fn judge(&mut self, query: &Query, text: &[u8], offset: u64, whole: bool) {
        match read(query, text, offset) {
            Ok(Some(_)) if self.findings.len() >= FIND_SHOWN_MAX => self.left_out += 1,
            Ok(Some(finding)) => self.findings.push(finding),
            Ok(None) => {}
            // The last line may still be being written.
            Err(_) => self.unreadable += u64::from(whole),
        }
    }
}

/// The line as a finding, if it is one.
fn read(query: &Query, text: &[u8], offset: u64) -> Result<Option<Finding>, serde_json::Error> {
    let line: Line = serde_json::from_slice(text)?;
    let Extra { time, stage, attributes } = serde_json::from_slice(text)?;
    let Some(key) = line.key() else { return Ok(None) };
    if query.site.as_ref().is_some_and(|site| *site != key.site) || query.gateway.as_ref().is_some_and(|gateway| *gateway != key.gateway) {
        return Ok(None);
    }
    let seq = match &query.wanted {
        Wanted::ControlId(id) => line.seq.filter(|_| attributes.controlid.as_ref() == Some(id)),
        Wanted::Seq { feed, seq, incarnation } => Some(*seq).filter(|seq| *feed == key.feed && concerns(&line, *seq, *incarnation)),
    };
    let Some(seq) = seq else { return Ok(None) };
    let said = |value: &Option<String>| value.as_deref() == Some("true");
    Ok(Some(Finding {
        offset,
        kind: line.kind,
        site: key.site,
        gateway: key.gateway,
        feed: key.feed,
        incarnation: line.incarnation,
        seq,
        item: line.item_index.zip(line.item_count),
        id: line.id,
        received_at: time,
        written_at: line.written_at,
        stage,
        reason: line.reason,
        control_id_reused: said(&attributes.controlidreused),
        clock_suspect: said(&attributes.clocksuspect),
        resend_of: attributes.resendof,
    }))
}

/// Whether a line says something about a seq.
fn concerns(line: &Line, seq: u64, incarnation: Option<Incarnation>) -> bool {
    let within = |ranges: &[(u64, u64)]| ranges.iter().any(|(first, last)| (*first..=*last).contains(&seq));
    let of = |who: Option<Incarnation>| incarnation.is_none() || incarnation == who;
    match line.kind {
        LineKind::Event | LineKind::Exception | LineKind::Corrupt => line.seq == Some(seq) && of(line.incarnation),
        LineKind::Gap | LineKind::Conflict => {
            let last = line.seq.unwrap_or(0);
            (line.first.unwrap_or(last)..=last).contains(&seq) && of(line.incarnation)
        }
        // Told of a whole line of incarnations.
        LineKind::Lost => within(&line.ranges),
        LineKind::Fork => within(&line.ranges) && of(line.other),
        LineKind::Start
        | LineKind::Open
        | LineKind::Reported
        | LineKind::CertificateRequest
        | LineKind::CommandResult
        | LineKind::Audit
        | LineKind::Malformed => false,
    }
}

/// A file beside the output.
fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
