//! File feeds under the same model: a directory of files, a feed that captures them as the real one does (the same memory, the same notes, the same
//! guard in the committer), and an end at any operation.
//!
//! After every opening, whatever the end was: the journal holds the rows of the files in order, each once, without a hole, and the feed's progress
//! is the place of the last one: never ahead of what is durable, never behind it. At the last, every row of every file is there, although files were
//! taken away as soon as the list said they were done. A feed of a peer in the same lane keeps what it was promised.

use bytes::Bytes;
use harness::sim::model::{Ledger, Losses, feed_id};
use harness::sim::{Errno, Op, Rng, SimDisk};
use siteward::config::settings::KeySource;
use siteward::limits;
use siteward::record::{Content, FeedId, FileFingerprint, FilePlace, Lane, Origin, Payload, Stage};
use siteward::source::files::memory::Memory;
use siteward::source::split::SplitSettings;
use siteward::spool::filelist::{FileList, KnownFile};
use siteward::spool::{Appending, Item, Nonces, Options, Parts, Rows, RowsOf, StateChoice, open_with};
use siteward::status::board::Board;
use std::path::{Path, PathBuf};

use super::Check;

/// One file of the directory.
#[derive(Clone, Debug)]
struct Present {
    known: KnownFile,
    rows: u64,
}

struct World {
    rng: Rng,
    root: PathBuf,
    disk: SimDisk,
    ledger: Ledger,
    /// Not taken away yet, in order.
    files: Vec<Present>,
    /// Every row there ever was, in order: fingerprint and index.
    all: Vec<(FileFingerprint, u64)>,
    log: Vec<String>,
    nonces: Nonces,
}

fn cabinet() -> FeedId {
    feed_id("cabinet")
}

fn lab() -> FeedId {
    feed_id("lab")
}

/// A row's bytes: which file, which row, then as many bytes as its size says.
fn body(print: &FileFingerprint, index: u64, len: usize) -> Payload {
    let mut bytes = print.0.to_vec();
    bytes.extend_from_slice(&index.to_le_bytes());
    bytes.resize(bytes.len() + len, b'.');
    Payload::new(Bytes::from(bytes))
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let root = PathBuf::from("/var/lib/siteward");
        let disk = SimDisk::new(rng.draw(), root.parent().expect("a spool is in a directory"));
        let mut ledger = Ledger::default();
        ledger.feeds.insert(lab(), harness::sim::model::FeedModel::default());
        let mut world = Self { rng, root, disk, ledger, files: Vec::new(), all: Vec::new(), log: Vec::new(), nonces: Nonces::default() };
        for _ in 0..world.rng.between(2, 12) {
            let mut print = [0; 32];
            world.rng.fill(&mut print);
            let rows = if world.rng.percent(15) { 0 } else { world.rng.between(1, 40) };
            let short = print[..16].try_into().expect("half of 32 bytes");
            let known = KnownFile { glance: short, fingerprint: FileFingerprint(print), digest: short };
            world.all.extend((1..=rows).map(|index| (known.fingerprint, index)));
            world.files.push(Present { known, rows });
        }
        world
    }

    fn open(&mut self) -> Result<Option<Parts>, String> {
        let options = Options {
            path: self.root.clone(),
            max_bytes: Some(limits::SPOOL_BYTES_MIN),
            key: KeySource::Auto,
            message_bytes_max: limits::MIB,
            feeds: vec![(cabinet(), Lane::Normal), (lab(), Lane::Normal)],
        };
        let board = Board::new([cabinet(), lab()]);
        let failed = self.disk.failed();
        match open_with(options, self.disk.handle(), StateChoice::None, &board) {
            Ok(parts) => Ok(Some(parts)),
            Err(_) if self.disk.is_frozen() || self.disk.failed() > failed => Ok(None),
            Err(error) => Err(format!("does not open: {error}")),
        }
    }

    fn progress(parts: &Parts) -> Option<FilePlace> {
        let view = parts.monitor.view();
        view.feeds.iter().find(|feed| feed.id == cabinet()).and_then(|feed| feed.files).map(|progress| progress.place)
    }

    /// I3: the journal against the files, the progress against the journal.
    fn verify(&mut self, parts: &mut Parts) -> Check {
        self.ledger.verify(parts, Losses::None)?;
        let (mut after, mut last, mut found) = (0, None, Vec::new());
        while let Some(item) = parts.reader.next(&cabinet(), after).map_err(|error| error.to_string())? {
            let Item::Record(record) = item else { return Err(format!("after {after} came {item:?}")) };
            let Origin::File(file) = &record.origin else { return Err("a record without a file".into()) };
            let bytes = record.body.expose();
            if bytes[..32] != file.place.fingerprint.0 || bytes[32..40] != file.place.index.to_le_bytes() {
                return Err(format!("record {} is not the row it says", record.seq));
            }
            found.push((file.place.fingerprint, file.place.index));
            last = Some(file.place);
            after = record.seq;
        }
        if self.all.get(..found.len()) != Some(&found[..]) {
            let at = found.iter().zip(&self.all).position(|(a, b)| a != b);
            return Err(format!("the journal holds {} rows, which are not the first ones in order (from {at:?})", found.len()));
        }
        let progress = Self::progress(parts);
        self.log.push(format!("  {} of {} rows, progress {progress:?}", found.len(), self.all.len()));
        if progress == last { Ok(()) } else { Err(format!("progress says {progress:?}, the last row is {last:?}")) }
    }

    fn place(print: FileFingerprint, index: u64, rows: u64) -> FilePlace {
        FilePlace { fingerprint: print, index, end_offset: index * 100, last: index == rows }
    }

    /// Puts a row behind the others, in a run of its file.
    fn push(&mut self, bundle: &mut Vec<Rows>, place: FilePlace, follows: Option<FilePlace>) {
        let len = if self.rng.percent(5) { self.rng.between(10_000, 200_000) } else { self.rng.between(0, 900) };
        self.push_sized(bundle, place, follows, len as usize);
    }

    fn push_sized(&mut self, bundle: &mut Vec<Rows>, place: FilePlace, follows: Option<FilePlace>, len: usize) {
        // A run may end anywhere.
        if bundle.last().is_none_or(|run| run.file() != place.fingerprint) || self.rng.percent(10) {
            let of = RowsOf {
                feed: cabinet(),
                file: place.fingerprint,
                name: String::new(),
                content: Content::Csv,
                repeated: false,
                stage: Stage::Live,
                batch_mismatch: false,
                received_at_ms: 1_800_000_000_000,
                clock_suspect: false,
            };
            bundle.push(Rows::new(of, follows));
        }
        let run = bundle.last_mut().expect("just made");
        run.push(&mut self.nonces, &place, place.end_offset - 100, body(&place.fingerprint, place.index, len));
    }

    /// Rows of one size of a file of 40.
    fn append_indices(&mut self, parts: &mut Parts, print: FileFingerprint, indices: std::ops::RangeInclusive<u64>) -> Appending {
        self.append_sized(parts, print, indices, 300)
    }

    fn append_sized(&mut self, parts: &mut Parts, print: FileFingerprint, indices: std::ops::RangeInclusive<u64>, len: usize) -> Appending {
        let mut bundle = Vec::new();
        for index in indices {
            let follows = (index > 1).then(|| Self::place(print, index - 1, 40));
            self.push_sized(&mut bundle, Self::place(print, index, 40), follows, len);
        }
        parts.committer.append_rows(bundle)
    }

    /// Appends a bundle, with some of the peer's messages before or behind; it may be under way, or only ahead, when this returns.
    fn append(&mut self, parts: &mut Parts, bundle: Vec<Rows>) -> Result<Appending, String> {
        if self.rng.percent(20) {
            self.of_peer(parts)?;
        }
        let appending = parts.committer.append_rows(bundle);
        match self.rng.below(10) {
            0..5 => parts.committer.go(),
            5 => parts.committer.settle(),
            _ => {}
        }
        if self.rng.percent(20) {
            self.of_peer(parts)?;
        }
        Ok(appending)
    }

    /// The peer is answered at once, whatever is under way.
    fn of_peer(&mut self, parts: &mut Parts) -> Check {
        let incarnation = parts.monitor.view().incarnation;
        let ids: Vec<u64> = (0..self.rng.between(1, 3)).map(|_| self.ledger.compose(&lab(), 300, false)).collect();
        let batch = ids.iter().map(|id| self.ledger.send(*id)).collect();
        let answers = parts.committer.commit(batch);
        for (id, answer) in ids.into_iter().zip(&answers) {
            self.ledger.answered(id, 1, incarnation, answer)?;
        }
        Ok(())
    }

    /// Looks at who was answered; what was answered positively is durable, or stands in no answer's way. Whether none was refused.
    fn answered(parts: &Parts, under_way: &mut Vec<(Appending, FilePlace, u64)>, all: bool) -> Result<bool, String> {
        let mut stored = true;
        let mut waiting = Vec::new();
        for (mut appending, last, ordinal) in under_way.drain(..) {
            match appending.poll() {
                Some(Ok(())) if !Self::reaches(parts, ordinal) => {
                    return Err(format!("I1: {last:?} was answered and is not the progress, nor behind it"));
                }
                Some(answer) => stored &= answer.is_ok(),
                None if all => return Err(format!("nobody was told what became of {last:?}")),
                None => waiting.push((appending, last, ordinal)),
            }
        }
        *under_way = waiting;
        Ok(stored)
    }

    /// Whether so many rows are durable.
    fn reaches(parts: &Parts, rows: u64) -> bool {
        parts.reader.head(&cabinet()).seq >= rows
    }

    /// One batch of files, as the feed does it. False: something failed, the round ends.
    fn batch(&mut self, parts: &mut Parts, memory: &mut Memory) -> Result<bool, String> {
        let many = self.rng.between(1, 5) as usize;
        let batch: Vec<Present> = self.files.iter().take(many).cloned().collect();
        let before = Self::progress(parts);
        if memory.settle().is_err() || memory.begin(batch.iter().map(|file| file.known).collect(), before).is_err() {
            return Ok(false);
        }
        let (mut follows, mut bundle, mut stored) = (before, Vec::new(), true);
        let (mut under_way, mut ordinal) = (Vec::new(), parts.reader.head(&cabinet()).seq);
        'files: for file in &batch {
            let through = memory.stored_through(&file.known.fingerprint, before);
            for index in through + 1..=file.rows {
                let place = Self::place(file.known.fingerprint, index, file.rows);
                self.push(&mut bundle, place, follows);
                follows = Some(place);
                ordinal += 1;
                // A bundle behind one that fails is refused by the guard; that is tried here too.
                if bundle.len() as u64 > self.rng.below(4) && self.rng.percent(40) {
                    under_way.push((self.append(parts, std::mem::take(&mut bundle))?, place, ordinal));
                    stored &= Self::answered(parts, &mut under_way, false)?;
                    if !stored && self.rng.percent(70) {
                        break 'files;
                    }
                }
            }
        }
        if stored && !bundle.is_empty() {
            let last = follows.expect("there are rows");
            under_way.push((self.append(parts, bundle)?, last, ordinal));
        }
        parts.committer.settle();
        stored &= Self::answered(parts, &mut under_way, true)?;
        let reached = Self::progress(parts);
        let at = reached.filter(|_| reached != before).and_then(|place| {
            batch.iter().position(|file| file.known.fingerprint == place.fingerprint).map(|at| at + usize::from(place.last))
        });
        let done = if stored { batch.len() } else { at.unwrap_or(0) };
        let left = reached.filter(|place| batch.get(done).is_some_and(|file| file.known.fingerprint == place.fingerprint));
        let noted = memory.end(done, left).is_ok();
        self.log.push(format!("batch of {}: done {done}, left {left:?}, noted {noted}", batch.len()));
        if noted {
            // Taken away for good: whatever is not durable of them is lost.
            self.files.drain(..done);
        }
        Ok(stored && noted)
    }

    fn live(&mut self, mut parts: Parts) -> Check {
        self.verify(&mut parts)?;
        let opened = FileList::open(self.disk.handle(), &self.root, &cabinet());
        let opened = opened.and_then(|(list, notes)| Memory::open(list, notes, Self::progress(&parts), &SplitSettings::Lines));
        if let Ok(mut memory) = opened {
            // What was done before the end and only not taken away.
            self.files.retain(|file| !memory.is_done(&file.known.fingerprint));
            for _ in 0..self.rng.between(1, 6) {
                if self.rng.percent(25) {
                    let op = *self.rng.pick(&[Op::Write, Op::Sync, Op::Create, Op::SyncDir, Op::Rename]);
                    self.disk.fail(op, self.rng.below(4), 1, Errno::Io);
                }
                if self.disk.is_frozen() || self.files.is_empty() || (!self.batch(&mut parts, &mut memory)? && self.rng.percent(50)) {
                    break;
                }
            }
        }
        if !self.disk.is_frozen() && self.rng.percent(20) {
            self.disk.clear_faults();
            parts.committer.close();
        }
        Ok(())
    }

    fn play(&mut self) -> Check {
        for _ in 0..40 {
            if self.files.is_empty() {
                break;
            }
            if self.rng.percent(80) {
                let at = self.rng.between(1, 50);
                self.disk.freeze_after(at);
                self.log.push(format!("the power will go at {at}"));
            }
            if let Some(parts) = self.open()? {
                self.live(parts)?;
            }
            if let Some(violation) = self.disk.violations().first() {
                return Err(format!("a failed file was used again: {violation}"));
            }
            let cut = self.rng.percent(65);
            self.log.push(if cut { "power cut".into() } else { "kill".to_owned() });
            self.disk = if cut { self.disk.power_cut() } else { self.disk.kill() };
        }
        // Without any more trouble the rest comes too.
        self.disk.clear_faults();
        let mut parts = self.open()?.ok_or("does not open on a healthy disk")?;
        self.verify(&mut parts)?;
        let (list, notes) = FileList::open(self.disk.handle(), &self.root, &cabinet()).map_err(|error| error.to_string())?;
        let mut memory = Memory::open(list, notes, Self::progress(&parts), &SplitSettings::Lines).map_err(|error| error.to_string())?;
        self.files.retain(|file| !memory.is_done(&file.known.fingerprint));
        while !self.files.is_empty() {
            if !self.batch(&mut parts, &mut memory)? {
                return Err("a batch fails on a healthy disk".into());
            }
        }
        self.verify(&mut parts)?;
        let (known, wanted) = (parts.reader.head(&cabinet()).seq, self.all.len() as u64);
        if known == wanted { Ok(()) } else { Err(format!("{known} of {wanted} rows are there though every file is done")) }
    }
}

/// I1, I3: a file feed neither loses nor repeats a row, through kills, power cuts and failing operations at any place.
#[test]
fn a_file_feed_goes_on_exactly_where_it_was() {
    let long = std::env::var_os("SITEWARD_LONG").is_some();
    let only: Option<u64> = std::env::var("SITEWARD_SEED").ok().and_then(|seed| seed.parse().ok());
    let first = 9_000_000;
    let count = if long { 20_000 } else { 800 };
    for seed in only.map_or(first..first + count, |seed| seed..seed + 1) {
        let mut world = World::new(seed);
        if let Err(error) = world.play() {
            let trace = world.disk.trace();
            let tail = trace.len().saturating_sub(40);
            panic!("seed {seed}: {error}\n{}\n--- disk\n{}", world.log.join("\n"), trace[tail..].join("\n"));
        }
    }
}

/// The root of the list is the spool's.
#[test]
fn the_list_lies_in_the_spool() {
    let disk = SimDisk::new(1, Path::new("/var/lib"));
    let mut world = World::new(1);
    world.disk = disk;
    let parts = world.open().expect("opens").expect("a healthy disk");
    drop(FileList::open(world.disk.handle(), &world.root, &cabinet()).map(|(mut list, _)| list.rewrite([].iter())));
    assert!(world.disk.files().iter().any(|(path, _)| path.ends_with("files/cabinet.list")));
    drop(parts);
}

/// I1, I3: a flush that fails takes with it what was computed on top of it, and what comes behind; the feed goes on from its progress, and a power
/// cut brings none of it back.
#[test]
fn what_was_computed_on_top_of_a_failed_flush_is_refused_with_it() {
    let print = FileFingerprint([9; 32]);
    for op in [Op::Sync, Op::Write] {
        for seed in 0..20 {
            let mut world = World::new(seed);
            world.all = (1..=40).map(|index| (print, index)).collect();
            let mut parts = world.open().expect("opens").expect("a healthy disk");
            let mut first = world.append_indices(&mut parts, print, 1..=10);
            parts.committer.settle();
            assert_eq!(first.poll(), Some(Ok(())));
            let mut under_way = world.append_indices(&mut parts, print, 11..=20);
            parts.committer.go();
            let mut on_top = world.append_indices(&mut parts, print, 21..=30);
            assert!(under_way.poll().is_none() && on_top.poll().is_none(), "nobody is answered before the sync");
            let mut behind = world.append_indices(&mut parts, print, 31..=35);
            world.disk.fail(op, 0, 1, Errno::Io);
            parts.committer.go();
            for refused in [&mut under_way, &mut on_top, &mut behind] {
                assert!(refused.poll().is_some_and(|answer| answer.is_err()), "{op:?}");
            }
            assert_eq!(World::progress(&parts), Some(World::place(print, 10, 40)));
            let mut later = world.append_indices(&mut parts, print, 36..=40);
            assert!(later.poll().is_some_and(|answer| answer.is_err()), "it does not follow what is durable");
            if seed % 2 == 0 {
                let mut again = world.append_indices(&mut parts, print, 11..=40);
                parts.committer.settle();
                assert_eq!(again.poll(), Some(Ok(())));
            }
            world.verify(&mut parts).unwrap_or_else(|error| panic!("{op:?}, seed {seed}: {error}"));
            let before = World::progress(&parts);
            assert!(world.disk.violations().is_empty());
            world.disk = if seed % 4 < 2 { world.disk.power_cut() } else { world.disk.kill() };
            drop(parts);
            let mut parts = world.open().expect("opens").expect("a healthy disk");
            world.verify(&mut parts).unwrap_or_else(|error| panic!("{op:?}, seed {seed}: {error}"));
            assert_eq!(World::progress(&parts), before, "{op:?}, seed {seed}");
        }
    }
}

/// Rows of which a segment holds some fifteen.
const LARGE_ROW: usize = 60_000;

/// I1, I3: rows are computed for the next segment while the last ones of the full segment are under way. At whatever operation the power goes, what
/// was answered is there, in order, and so is what a peer was answered in between.
#[test]
fn rows_that_go_on_in_the_next_segment_survive_a_power_cut_when_answered() {
    let print = FileFingerprint([9; 32]);
    for with_peer in [false, true] {
        for at in 1.. {
            let mut world = World::new(at);
            world.all = (1..=40).map(|index| (print, index)).collect();
            let mut parts = world.open().expect("opens").expect("a healthy disk");
            world.disk.freeze_after(at);
            let mut under_way = Vec::new();
            for first in (1..=40).step_by(5) {
                under_way.push((world.append_sized(&mut parts, print, first..=first + 4, LARGE_ROW), first + 4));
                if with_peer && first % 3 == 0 {
                    world.of_peer(&mut parts).unwrap_or_else(|error| panic!("power cut at {at}: {error}"));
                }
                parts.committer.go();
            }
            parts.committer.settle();
            let answered = under_way.iter_mut().filter_map(|(row, last)| row.poll()?.is_ok().then_some(*last)).max().unwrap_or(0);
            let is_over = !world.disk.is_frozen();
            assert!(!is_over || answered == 40, "all are stored where nothing goes wrong");
            assert!(world.disk.violations().is_empty());
            world.disk = world.disk.power_cut();
            drop(parts);
            let mut parts = world.open().expect("opens").expect("a healthy disk");
            world.verify(&mut parts).unwrap_or_else(|error| panic!("power cut at {at}: {error}"));
            assert!(World::reaches(&parts, answered), "I1: power cut at {at}: {answered} were answered");
            if is_over {
                assert!(at > 20, "several segments were made");
                break;
            }
        }
    }
}

/// I1, I3: where the last rows of a full segment fail, those computed for the next one are refused with them, and their file is not there any more;
/// the feed goes on from its progress.
#[test]
fn rows_for_the_next_segment_are_refused_when_the_full_one_fails() {
    let print = FileFingerprint([9; 32]);
    for op in [Op::Sync, Op::Write] {
        for seed in 0..20 {
            let mut world = World::new(seed);
            world.all = (1..=40).map(|index| (print, index)).collect();
            let mut parts = world.open().expect("opens").expect("a healthy disk");
            let mut first = world.append_sized(&mut parts, print, 1..=10, LARGE_ROW);
            parts.committer.settle();
            assert_eq!(first.poll(), Some(Ok(())));
            let segments =
                |world: &World| world.disk.files().iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "seg")).count();
            let before = segments(&world);
            let mut across = world.append_sized(&mut parts, print, 11..=25, LARGE_ROW);
            assert_eq!(segments(&world), before + 1, "some of them are for another segment");
            assert!(across.poll().is_none(), "nobody is answered before the sync");
            world.disk.fail(op, 0, 1, Errno::Io);
            parts.committer.go();
            assert!(across.poll().is_some_and(|answer| answer.is_err()), "{op:?}");
            assert_eq!(World::progress(&parts), Some(World::place(print, 10, 40)));
            assert_eq!(segments(&world), before + 1, "one that says where the failed one ends has taken the place of the prepared one");
            if seed % 2 == 0 {
                let mut again = world.append_sized(&mut parts, print, 11..=40, LARGE_ROW);
                parts.committer.settle();
                assert_eq!(again.poll(), Some(Ok(())));
            }
            let progress = World::progress(&parts);
            assert!(world.disk.violations().is_empty());
            world.disk = if seed % 4 < 2 { world.disk.power_cut() } else { world.disk.kill() };
            drop(parts);
            let mut parts = world.open().expect("opens").expect("a healthy disk");
            world.verify(&mut parts).unwrap_or_else(|error| panic!("{op:?}, seed {seed}: {error}"));
            assert_eq!(World::progress(&parts), progress, "{op:?}, seed {seed}");
        }
    }
}
