//! The desk: takes arrivals in batches through verdict, ledger, output and index. Blocking; one owner.
//!
//! 1. `take` decides about one arrival (see [`intake`](super::intake)): lines are staged in memory, the ledger moves, the index notes.
//! 2. `commit` writes and syncs the staged lines, then flushes the index, and only then hands out receipts; the caller acknowledges to the
//!    broker only after it. A commit that failed (full disk) is repeated as it is; nothing was answered, the ledger in memory is merely
//!    ahead. If the process dies instead, everything of the batch comes again.
//! 3. `save` writes the ledger now and then. `open` loads it and replays the lines it does not cover; where it does not fit the output or the
//!    index, all is rebuilt from the output.
//!
//! Every change of the ledger and the index goes through `apply`, from a line, at reception as well as at replay: so both end the same.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use serde::Serialize;

use super::account::{Followed, Report};
use super::gateways::Gateways;
use super::index::{ChainIndex, Held, Known};
use super::ledger::{AccountKey, ItemVerdict, Ledger, Tally};
use super::line::{Line, LineKind};
use super::output::{Output, OutputError};
use super::snapshot::{self, LoadError, Snapshot};
use super::trail::Trail;
use crate::clock;
use crate::contract::topic::Topics;
use crate::contract::{Mark, Receipt};
use crate::limits::{HUB_BATCH_BYTES_MAX, HUB_INDEX_NOTED_MAX, HUB_SNAPSHOT_INTERVAL, HUB_SNAPSHOT_LINES};
use crate::record::{Incarnation, Link, Payload, Position};

/// A publish as it came from the broker.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub topic: String,
    pub content_type: Option<String>,
    pub attributes: Vec<(String, String)>,
    pub payload: Payload,
}

impl Arrival {
    pub fn new(topic: &str, payload: impl Into<Bytes>) -> Self {
        Self { topic: topic.to_owned(), content_type: None, attributes: Vec::new(), payload: Payload::new(payload.into()) }
    }
}

/// Why the desk cannot go on. A full disk is not among these: `commit` reports it and is repeated.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("cannot use the chain index {path}: check the disk; if the index is damaged, remove it, it is rebuilt from the output")]
    Index { path: PathBuf, source: io::Error },
}

/// A line that was written, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub kind: LineKind,
    pub key: Option<AccountKey>,
    pub id: Option<String>,
    pub seq: Option<u64>,
    /// MSH-10, where the event carries it.
    pub control_id: Option<String>,
}

/// What became durable.
#[derive(Debug, Default)]
pub struct Committed {
    /// Topic and receipt.
    pub receipts: Vec<(String, Receipt)>,
    pub written: Vec<Written>,
}

/// What a feed stands at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    #[serde(flatten)]
    pub key: AccountKey,
    #[serde(flatten)]
    pub tally: Tally,
    pub exceptions_open: usize,
    pub incarnation: Option<Incarnation>,
    pub through_seq: u64,
    pub missing: Vec<(u64, u64)>,
}

/// See the module.
#[derive(Debug)]
pub struct Desk {
    output: Output,
    pub(super) index: ChainIndex,
    pub(super) ledger: Ledger,
    ledger_path: PathBuf,
    index_path: PathBuf,
    pub(super) staged: Vec<u8>,
    pub(super) written: Vec<Written>,
    /// Accounts whose gateway waits for a receipt, and the incarnation its last checkpoint spoke of.
    pub(super) due: BTreeMap<AccountKey, Incarnation>,
    pub(super) gateways: Gateways,
    pub(super) trail: Trail,
    uncovered_lines: u64,
    uncovered_since: Option<Instant>,
}

fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl Desk {
    pub fn open(out: &Path) -> Result<Self, DeskError> {
        let output = Output::open(out)?;
        let (ledger_path, index_path) = (beside(out, ".ledger"), beside(out, ".index"));
        let index = ChainIndex::open(&index_path).map_err(|source| DeskError::Index { path: index_path.clone(), source })?;
        let mut desk = Self {
            output,
            index,
            ledger: Ledger::default(),
            ledger_path,
            index_path,
            staged: Vec::new(),
            written: Vec::new(),
            due: BTreeMap::new(),
            gateways: Gateways::default(),
            trail: Trail::default(),
            uncovered_lines: 0,
            uncovered_since: None,
        };
        let covered = desk.load()?;
        desk.replay(covered)?;
        Ok(desk)
    }

    /// Takes the saved ledger if it fits; how much of the output it covers.
    fn load(&mut self) -> Result<u64, DeskError> {
        let read = |source| OutputError::Read { path: self.output.path().to_owned(), source };
        let why = match snapshot::load(&self.ledger_path) {
            Ok(saved) if saved.index != self.index.id() => "the index is another one".to_owned(),
            Ok(saved) if self.output.fingerprint(saved.covered).map_err(read)? != Some(saved.fingerprint) => {
                "it belongs to another output, or the output was cut".to_owned()
            }
            Ok(saved) => {
                self.ledger = saved.ledger;
                return Ok(saved.covered);
            }
            Err(LoadError::Missing) if self.output.durable() == 0 => String::new(),
            Err(error) => error.to_string(),
        };
        if !why.is_empty() {
            tracing::warn!(ledger = %self.ledger_path.display(), "the saved ledger is not used ({why}); rebuilding it from the output");
        }
        self.index.clear().map_err(|source| DeskError::Index { path: self.index_path.clone(), source })?;
        Ok(0)
    }

    fn replay(&mut self, covered: u64) -> Result<(), DeskError> {
        let Self { output, index, ledger, index_path, .. } = self;
        let failed = |source| DeskError::Index { path: index_path.clone(), source };
        let replayed = output.replay(covered, |line| {
            apply(ledger, index, line).map_err(failed)?;
            if index.noted() >= HUB_INDEX_NOTED_MAX { index.flush().map_err(failed) } else { Ok(()) }
        })?;
        index.flush().map_err(failed)?;
        if let Some(at) = replayed.first_unreadable_at {
            let (lines, output) = (replayed.unreadable, output.path().display());
            tracing::error!(%output, lines, at, "lines of the output cannot be read; what they held is asked for again if it is still there");
        }
        self.uncovered_lines = replayed.lines;
        if replayed.lines > 0 {
            tracing::info!(lines = replayed.lines, from = covered, "read back the output");
            self.save();
        }
        Ok(())
    }

    pub(super) fn index_failed(&self, source: io::Error) -> DeskError {
        DeskError::Index { path: self.index_path.clone(), source }
    }

    /// Makes everything taken durable. After an error: call it again.
    pub fn commit(&mut self) -> io::Result<Committed> {
        self.output.append(&self.staged)?;
        self.staged.clear();
        self.staged.shrink_to(HUB_BATCH_BYTES_MAX);
        self.index.flush()?;
        let written = std::mem::take(&mut self.written);
        if !written.is_empty() {
            self.uncovered_lines += written.len() as u64;
            self.uncovered_since.get_or_insert_with(Instant::now);
        }
        let mut receipts = Vec::new();
        // Gateways without a clock of their own go by ours; one that cannot be believed is not passed on.
        let time = Some(clock::now()).filter(|now| !now.suspect).map(|now| clock::rfc3339(now.unix_ms));
        for (key, incarnation) in std::mem::take(&mut self.due) {
            if let Some(standing) = self.ledger.entry(&key).account.confirm(incarnation) {
                let (through, missing) = (standing.through, standing.missing);
                let topic = Topics::new(&key.site, &key.gateway).receipt();
                let (feed, incarnation, through_seq, chain) = (key.feed, through.incarnation, through.seq, through.chain);
                receipts.push((topic, Receipt { feed, incarnation, through_seq, chain, missing, time: time.clone() }));
            }
        }
        Ok(Committed { receipts, written })
    }

    /// Saves the ledger where that is due. Call after a commit only.
    pub fn save_if_due(&mut self) {
        if self.uncovered_lines >= HUB_SNAPSHOT_LINES || self.uncovered_since.is_some_and(|since| since.elapsed() >= HUB_SNAPSHOT_INTERVAL)
        {
            self.save();
        }
    }

    /// Saves the ledger. Where that fails, the output still has everything; it is tried again when due.
    pub fn save(&mut self) {
        assert!(self.staged.is_empty(), "a ledger is saved only when the output holds all of it");
        let saved = self.try_save();
        self.uncovered_since = (saved.is_err() && self.uncovered_lines > 0).then(Instant::now);
        self.uncovered_lines = 0;
        if let Err(error) = saved {
            tracing::warn!(ledger = %self.ledger_path.display(), %error, "cannot save the ledger; the next start will read more of the output");
        }
    }

    fn try_save(&mut self) -> io::Result<()> {
        self.index.sync()?;
        let covered = self.output.durable();
        let fingerprint = self.output.fingerprint(covered)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let snapshot = Snapshot { covered, fingerprint, index: self.index.id().to_owned(), ledger: self.ledger.clone() };
        snapshot::save(&self.ledger_path, &snapshot)
    }

    /// How every feed stands.
    pub fn summary(&self) -> Vec<Summary> {
        let each = self.ledger.entries().map(|(key, entry)| {
            let incarnation = entry.account.current();
            let standing = incarnation.and_then(|incarnation| entry.account.standing(incarnation));
            let (through_seq, missing) = standing.map_or((0, Vec::new()), |s| (s.through.seq, s.missing));
            let (key, tally, exceptions_open) = (key.clone(), entry.tally, entry.exceptions().len());
            Summary { key, tally, exceptions_open, incarnation, through_seq, missing }
        });
        each.collect()
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

/// How many seqs are in inclusive ranges.
pub(super) fn count(ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().map(|(first, last)| last.saturating_sub(*first) + 1).sum()
}

/// What a line changed.
#[derive(Debug, Default)]
pub(in crate::hub) struct Applied {
    /// An item that is here already: the line says nothing new.
    pub again: bool,
    pub reports: Vec<Report>,
}

impl From<Vec<Report>> for Applied {
    fn from(reports: Vec<Report>) -> Self {
        Self { again: false, reports }
    }
}

/// Lets a line change ledger and index. Lines without the fields their kind needs change nothing.
pub(in crate::hub) fn apply(ledger: &mut Ledger, index: &mut ChainIndex, line: &Line) -> io::Result<Applied> {
    let (Some(key), Some(incarnation)) = (line.key(), line.incarnation) else { return Ok(Applied::default()) };
    let mark = line.seq.zip(line.chain).map(|(seq, chain)| Mark { seq, chain });
    let entry = ledger.entry(&key);
    match (line.kind, mark) {
        (LineKind::Start, Some(mark)) => entry.account.begin(incarnation, mark),
        (LineKind::Open, _) => {
            let Some(settled) = line.settled else { return Ok(Applied::default()) };
            let followed = line.followed.unwrap_or(Followed::Unknown);
            return Ok(entry.account.open(Link { incarnation, follows: line.follows }, settled, followed).into());
        }
        (LineKind::Gap, Some(mark)) => {
            let place = index.find(&key, incarnation, mark.seq, mark.chain)?;
            if place.known != Known::Same(Held::Record) {
                index.note(&key, mark.seq, place, incarnation, mark.chain, Held::Gap);
            }
            entry.tally.gaps += 1;
            return Ok(entry.account.gap(incarnation, line.first.unwrap_or(mark.seq), mark.seq, mark.chain).into());
        }
        (LineKind::Lost, Some(mark)) => {
            entry.tally.lost += count(&line.ranges);
            return Ok(entry.account.lost(incarnation, mark).into());
        }
        (LineKind::Event | LineKind::Exception | LineKind::Conflict, Some(mark)) if line.digest.is_some() => {
            return record(ledger, index, line, &key, Position { incarnation, seq: mark.seq, chain: mark.chain });
        }
        (LineKind::Conflict, _) => entry.tally.conflicts += 1,
        (LineKind::Fork, _) => entry.tally.forks += 1,
        (LineKind::Corrupt, _) => entry.tally.corrupt += 1,
        _ => {}
    }
    Ok(Applied::default())
}

fn record(ledger: &mut Ledger, index: &mut ChainIndex, line: &Line, key: &AccountKey, at: Position) -> io::Result<Applied> {
    let Position { incarnation, seq, chain } = at;
    let (entry, digest) = (ledger.entry(key), line.digest.unwrap_or(crate::record::Digest([0; 32])));
    let held = if line.id.is_some() { Held::Record } else { Held::Exception };
    if held == Held::Record {
        match entry.items.take(incarnation, seq, chain, line.item_index.unwrap_or(0), line.item_count.unwrap_or(1)) {
            ItemVerdict::Again => return Ok(Applied { again: true, reports: Vec::new() }),
            ItemVerdict::More => return Ok(Applied::default()),
            ItemVerdict::Complete => entry.exception_closed(incarnation, seq),
        }
    } else {
        entry.exception_opened(incarnation, seq);
    }
    match line.kind {
        LineKind::Event => entry.tally.events += 1,
        LineKind::Conflict => entry.tally.conflicts += 1,
        _ => {}
    }
    let place = index.find(key, incarnation, seq, chain)?;
    index.note(key, seq, place, incarnation, chain, held);
    Ok(entry.account.record(incarnation, seq, &digest, chain).into())
}

pub(super) fn followed(index: &mut ChainIndex, key: &AccountKey, at: Position) -> io::Result<Followed> {
    Ok(match index.find(key, at.incarnation, at.seq, at.chain)?.known {
        Known::Nothing => Followed::Unknown,
        Known::Same(_) => Followed::Same,
        Known::OtherChain => Followed::OtherChain,
    })
}
