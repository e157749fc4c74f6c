//! The two passes over a file.
//!
//! ```text
//!   look      digest, verdict of the splitter, number of the last record       nothing leaves; a file that is cut is held as a whole
//!   capture   pieces in order: records ─► spool, what is none ─► quarantine     the last record goes only if the digest is the same again
//! ```
//!
//! Both read exactly as many bytes as the file had when it was found and watch its size and time of change while they do: a file that grows,
//! shrinks, is replaced, cut or vanishes is left for another round. The digest of a large file is made by a thread beside (`hashing`), and the
//! first pass only surveys: no record is put together. In the second pass records go in bundles, `FILE_BUNDLES` under way at most
//! (I4); a bundle that is refused ends the pass, because the spool refuses everything behind it. A piece that is no record goes to quarantine,
//! synced, before anything behind it and the file's last record is handed over, under a name that follows from file and place: going through the file again does not put
//! it there twice.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};

use super::hashing::Hashing;
use super::pulse::Pulse;
use super::settle::Seen;
use super::share::{Share, stat_file};
use crate::clock;
use crate::limits;
use crate::record::{Content, FeedId, FileFingerprint, FilePlace, Payload, Stage};
use crate::source::split::{Piece, PieceKind, SplitError, SplitLimits, SplitSettings, Splitter, State, Verdict};
use crate::spool::{AppendError, Appender, Appending, Nonces, QuarantineError, Row, Rows, RowsOf, Wide};

/// Why a pass ended early.
#[derive(Debug)]
pub enum Broken {
    /// The file is not what it was.
    Changed,
    Io(io::Error),
    Append(AppendError),
    Quarantine(QuarantineError),
    Stopping,
}

impl Broken {
    /// It concerns this file and no other.
    pub fn is_of_the_file(&self) -> bool {
        matches!(self, Self::Changed | Self::Io(_))
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What the first pass found.
#[derive(Debug)]
pub struct Look {
    pub digest: [u8; 32],
    pub verdict: Verdict,
    /// The last piece that is a record.
    pub last_record: Option<u64>,
}

/// How a feed's files become records.
#[derive(Debug)]
pub struct Reading<'a> {
    pub feed: &'a FeedId,
    pub split: &'a SplitSettings,
    pub limits: SplitLimits,
    pub stage: Stage,
    pub pulse: &'a Pulse,
}

/// A file that is read through.
struct Through<'a> {
    file: File,
    seen: Seen,
    at: u64,
    hash: Hashing,
    pulse: &'a Pulse,
    buffer: Vec<u8>,
}

impl<'a> Through<'a> {
    fn open(share: &Share, path: &std::path::Path, seen: Seen, pulse: &'a Pulse) -> Result<Self, Broken> {
        let file = pulse.during("opening a file", || share.open_file(path))?;
        let through = Self { file, seen, at: 0, hash: Hashing::of(seen.size), pulse, buffer: Vec::new() };
        through.check()?;
        Ok(through)
    }

    fn check(&self) -> Result<(), Broken> {
        let now = self.pulse.during("looking at a file", || stat_file(&self.file))?;
        if now.seen == self.seen { Ok(()) } else { Err(Broken::Changed) }
    }

    /// The next bytes; empty at the end.
    fn next(&mut self) -> Result<&[u8], Broken> {
        if self.pulse.is_stopping() {
            return Err(Broken::Stopping);
        }
        self.buffer = self.hash.update(std::mem::take(&mut self.buffer));
        let want = limits::SPLIT_FEED_BYTES.min(usize::try_from(self.seen.size - self.at).unwrap_or(usize::MAX));
        self.buffer.resize(want, 0);
        let n = self.pulse.during("reading a file", || self.file.read(&mut self.buffer))?;
        if n == 0 && want > 0 {
            return Err(Broken::Changed);
        }
        self.at += n as u64;
        self.buffer.truncate(n);
        self.check()?;
        Ok(&self.buffer)
    }

    /// Of all that was read.
    fn digest(self) -> [u8; 32] {
        self.hash.finish(self.buffer)
    }
}

/// The first pass.
pub fn look(reading: &Reading<'_>, share: &Share, path: &std::path::Path, seen: Seen) -> Result<Look, Broken> {
    let mut through = Through::open(share, path, seen, reading.pulse)?;
    let mut splitter = Splitter::survey(reading.split, reading.limits).map_err(unusable)?;
    let mut last_record = None;
    let mut drain = |splitter: &mut Splitter| {
        while let Some(piece) = splitter.next_piece() {
            if let PieceKind::Record(_) = piece.kind {
                last_record = Some(piece.index);
            }
        }
    };
    loop {
        let bytes = through.next()?;
        if bytes.is_empty() {
            break;
        }
        splitter.feed(bytes);
        drain(&mut splitter);
    }
    splitter.end();
    drain(&mut splitter);
    Ok(Look { digest: through.digest(), verdict: splitter.verdict(), last_record })
}

fn unusable(error: SplitError) -> Broken {
    Broken::Io(io::Error::other(error))
}

/// Records on their way to the spool; shared by the files of a batch.
#[derive(Debug)]
pub struct Sender<'a> {
    appender: &'a Appender,
    nonces: Nonces,
    bundle: Vec<Rows>,
    bundle_records: usize,
    bundle_bytes: usize,
    under_way: VecDeque<Appending>,
    /// The place of the last record handed over.
    follows: Option<FilePlace>,
    /// Held from the moment when this is found to be a large file.
    wide: Option<Wide>,
}

/// What a bundle may hold, and how many are under way.
struct Ways {
    records: usize,
    bytes: usize,
    bundles: usize,
}

impl<'a> Sender<'a> {
    /// `progress`: the feed's, now.
    pub fn new(appender: &'a Appender, progress: Option<FilePlace>) -> Self {
        let (under_way, nonces) = (VecDeque::new(), Nonces::default());
        Self { appender, nonces, bundle: Vec::new(), bundle_records: 0, bundle_bytes: 0, under_way, follows: progress, wide: None }
    }

    /// Takes one record. The newest is never handed over before the next one comes, or [`Sender::finish`].
    fn push(&mut self, place: FilePlace, start_offset: u64, body: Payload, of: impl FnOnce() -> RowsOf) -> Result<(), Broken> {
        let ways = self.ways();
        if self.bundle_records >= ways.records || self.bundle_bytes + body.len() > ways.bytes {
            self.hand_over()?;
        }
        self.bundle_records += 1;
        self.bundle_bytes += body.len();
        if self.bundle.last().is_none_or(|run| run.file() != place.fingerprint) {
            self.bundle.push(Rows::new(of(), self.follows));
        }
        let run = self.bundle.last_mut().expect("there is one");
        run.push(&mut self.nonces, &place, start_offset, body);
        self.follows = Some(place);
        Ok(())
    }

    fn ways(&self) -> Ways {
        match self.wide {
            None => Ways { records: limits::FILE_BUNDLE_RECORDS, bytes: limits::FILE_BUNDLE_BYTES, bundles: limits::FILE_BUNDLES },
            Some(_) => Ways { records: limits::FILE_WIDE_RECORDS, bytes: limits::FILE_WIDE_BYTES, bundles: limits::FILE_WIDE_BUNDLES },
        }
    }

    fn hand_over(&mut self) -> Result<(), Broken> {
        if self.bundle.is_empty() {
            return Ok(());
        }
        if self.under_way.len() == limits::FILE_BUNDLES && self.wide.is_none() {
            self.wide = self.appender.widen();
        }
        let ways = self.ways();
        let most = if self.bundle_bytes > ways.bytes { 0 } else { ways.bundles - 1 };
        while self.under_way.len() > most {
            self.wait_for_one()?;
        }
        (self.bundle_records, self.bundle_bytes) = (0, 0);
        let appending = self.appender.append_files(std::mem::take(&mut self.bundle)).map_err(Broken::Append)?;
        self.under_way.push_back(appending);
        Ok(())
    }

    fn wait_for_one(&mut self) -> Result<(), Broken> {
        self.under_way.pop_front().map_or(Ok(()), |appending| appending.wait().map_err(Broken::Append))
    }

    /// Hands over what is left and waits until all of it is durable.
    pub fn finish(&mut self) -> Result<(), Broken> {
        self.hand_over()?;
        while !self.under_way.is_empty() {
            self.wait_for_one()?;
        }
        Ok(())
    }

    /// Forgets what was not handed over of a file, the last one: it is at fault. Nothing may follow but [`Sender::finish`].
    pub fn forget(&mut self, file: &FileFingerprint) {
        self.bundle.retain(|run| run.file() != *file);
    }

    /// Forgets what was not handed over and waits for the rest, whatever becomes of it.
    pub fn give_up(mut self) {
        self.bundle.clear();
        while let Some(appending) = self.under_way.pop_front() {
            // The progress tells how far it came.
            drop(appending.wait());
        }
    }
}

/// A file to capture.
#[derive(Debug)]
pub struct Subject<'a> {
    pub path: &'a std::path::Path,
    pub seen: Seen,
    pub fingerprint: FileFingerprint,
    pub look: &'a Look,
    /// Pieces up to this one are stored.
    pub through: u64,
    /// Empty unless names may be shown.
    pub name: &'a str,
    /// For people.
    pub label: &'a str,
    pub repeated: bool,
}

/// The second pass. `Ok`: everything of it was handed over, but not all of it need be durable yet.
pub fn capture(
    reading: &Reading<'_>,
    share: &Share,
    subject: &Subject<'_>,
    sender: &mut Sender<'_>,
    mut moved: impl FnMut(u64),
) -> Result<(), Broken> {
    let mut through = Through::open(share, subject.path, subject.seen, reading.pulse)?;
    let mut splitter = Splitter::new(reading.split, reading.limits).map_err(unusable)?;
    loop {
        let bytes = through.next()?;
        if bytes.is_empty() {
            break;
        }
        splitter.feed(bytes);
        while let Some(piece) = splitter.next_piece() {
            take(reading, subject, piece, sender)?;
        }
        moved(through.at);
    }
    splitter.end();
    while let Some(piece) = splitter.next_piece() {
        take(reading, subject, piece, sender)?;
    }
    let digest = through.digest();
    let now = reading.pulse.during("looking at a file", || share.stat(subject.path))?;
    if digest != subject.look.digest || now.seen != subject.seen {
        return Err(Broken::Changed);
    }
    Ok(())
}

fn take(reading: &Reading<'_>, subject: &Subject<'_>, piece: Piece, sender: &mut Sender<'_>) -> Result<(), Broken> {
    if piece.index <= subject.through {
        return Ok(());
    }
    match piece.kind {
        PieceKind::Record(bytes) => {
            let place = FilePlace {
                fingerprint: subject.fingerprint,
                index: piece.index,
                end_offset: piece.range.end,
                last: subject.look.last_record == Some(piece.index),
            };
            sender.push(place, piece.range.start, Payload::new(bytes), || rows_of(reading, subject))
        }
        PieceKind::Bad { code, bytes } => {
            let row = piece.row.map_or_else(|| format!("piece {}", piece.index), |row| format!("row {row}"));
            let row = Row {
                feed: reading.feed.clone(),
                file: subject.fingerprint,
                offset: piece.range.start,
                code,
                origin: format!("{} {row}", subject.label),
                bytes: Payload::new(bytes),
            };
            // Those before it must not come behind it, should quarantine be full. Not the last record: once it is stored the file counts as
            // done, after a kill too, and the rest of it must be in quarantine by then.
            if subject.look.last_record.is_none_or(|last| piece.index < last) {
                sender.hand_over()?;
            }
            sender.appender.quarantine_row(row).map_err(Broken::Quarantine)
        }
    }
}

/// What the rows of a run have in common; they come at one time.
fn rows_of(reading: &Reading<'_>, subject: &Subject<'_>) -> RowsOf {
    let now = clock::now();
    RowsOf {
        feed: reading.feed.clone(),
        file: subject.fingerprint,
        name: subject.name.to_owned(),
        content: content_of(reading.split),
        repeated: subject.repeated,
        stage: reading.stage,
        batch_mismatch: matches!(subject.look.verdict.state, State::CountMismatch { .. }),
        received_at_ms: now.unix_ms,
        clock_suspect: now.suspect,
    }
}

/// What the records of a way to split are.
pub fn content_of(split: &SplitSettings) -> Content {
    match split {
        SplitSettings::Whole => Content::Octets,
        SplitSettings::Hl7Batch | SplitSettings::Hl7Concat => Content::Hl7V2,
        SplitSettings::Lines | SplitSettings::Fixed(_) => Content::Text,
        SplitSettings::Csv(_) => Content::Csv,
        SplitSettings::X12 { .. } => Content::X12,
        SplitSettings::Ndjson | SplitSettings::JsonArray => Content::Json,
        SplitSettings::FhirBundle => Content::FhirJson,
    }
}
