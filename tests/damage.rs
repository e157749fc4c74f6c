//! I9: whatever happens to bytes at rest, the spool opens, says what is missing by feed and seq, and delivers everything else.
//!
//! The oracle is exact: each record is committed alone while the disk notes its writes, so the test knows which bytes belong to which record. A
//! damaged byte may cost the record it lies in and nothing else; a damaged header, footer or heads file may cost nothing. What is missing must
//! be named as a gap of exactly those seqs, or be the end of a feed's last segment (torn or damaged: cannot be known) with a condition raised.

#![allow(clippy::unwrap_used, reason = "set-up of tests")]

use harness::sim::model::{Ledger, Losses, Step, feed_id};
use harness::sim::{Errno, Op, Rng, SimDisk};
use siteward::config::settings::KeySource;
use siteward::limits;
use siteward::record::{FeedId, Lane};
use siteward::spool::{Options, Parts, StateChoice, open_with};
use siteward::status::board::Board;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Openings of a specimen.
const SESSIONS: u64 = 4;

type Check = Result<(), String>;

/// Where a record lies.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    feed: FeedId,
    seq: u64,
    path: PathBuf,
    bytes: Range<u64>,
}

/// A spool of closed and open segments, and where everything in it lies.
struct Specimen {
    root: PathBuf,
    disk: SimDisk,
    ledger: Ledger,
    places: Vec<Place>,
    examined: std::cell::Cell<u64>,
}

fn feeds() -> Vec<(FeedId, Lane)> {
    vec![(feed_id("or-usage"), Lane::Critical), (feed_id("icu"), Lane::Critical), (feed_id("lab"), Lane::Normal)]
}

fn board() -> Arc<Board> {
    Board::new(feeds().into_iter().map(|(id, _)| id))
}

fn options(root: &Path) -> Options {
    Options {
        path: root.to_owned(),
        max_bytes: Some(limits::SPOOL_BYTES_MIN),
        key: KeySource::Auto,
        message_bytes_max: 4 * limits::MIB,
        feeds: feeds(),
    }
}

fn append(parts: &mut Parts, ledger: &mut Ledger, feed: &FeedId, len: usize) -> Result<u64, String> {
    let id = ledger.compose(feed, len, true);
    let message = ledger.send(id);
    let incarnation = parts.monitor.view().incarnation;
    let answer = parts.committer.commit(vec![message]).remove(0);
    ledger.answered(id, 1, incarnation, &answer)?;
    answer.map(|durable| durable.seq()).map_err(|error| format!("{feed} was refused: {error}"))
}

impl Specimen {
    /// Sessions that stop clean leave closed segments; the last one is killed and leaves open ones.
    fn new(seed: u64, state: StateChoice, root: &Path) -> Self {
        let mut rng = Rng::new(seed);
        let mut disk = SimDisk::new(seed, root.parent().expect("a spool is in a directory"));
        let (mut ledger, mut places) = (Ledger::default(), Vec::new());
        for session in 0..SESSIONS {
            let mut parts = open_with(options(root), disk.handle(), state, &board()).expect("a healthy disk");
            for _ in 0..12 {
                let feed = rng.pick(&feeds()).0.clone();
                let len = if rng.percent(10) { rng.between(2000, 6000) } else { rng.between(8, 500) };
                disk.record_writes();
                let seq = append(&mut parts, &mut ledger, &feed, len as usize).expect("a healthy disk");
                let written = disk.record_writes().pop().expect("a record was written");
                places.push(Place { feed, seq, path: written.path, bytes: written.offset..written.offset + written.len });
            }
            for (feed, _) in feeds() {
                ledger.walk_all(&mut parts.reader, &feed).expect("a healthy disk");
            }
            if session + 1 < SESSIONS {
                parts.committer.close();
            }
            disk = disk.kill();
        }
        Self { root: root.to_owned(), disk: disk.image(), ledger, places, examined: std::cell::Cell::default() }
    }

    fn segments(&self) -> Vec<PathBuf> {
        self.disk
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .filter(|p| p.extension().is_some_and(|e| e == "seg") && !p.ends_with("spare.seg"))
            .collect()
    }

    /// Opens a damaged copy and holds it against what may be missing.
    fn examine(&self, disk: &SimDisk, hurt: impl Fn(&Place) -> bool, must_miss: bool) -> Check {
        let board = board();
        let blank: Vec<_> = self.places.iter().filter(|place| disk.is_blank_from(&place.path, place.bytes.start)).collect();
        let mut parts =
            open_with(options(&self.root), disk.handle(), StateChoice::None, &board).map_err(|error| format!("does not open: {error}"))?;
        let mut ledger = self.ledger.clone();
        let alarmed = |board: &Board| board.conditions().iter().any(|c| c.code == "spool_damaged" || c.code == "spool_torn_tail");
        let mut heads = BTreeMap::new();
        for (feed, _) in feeds() {
            let steps = ledger.walk_all(&mut parts.reader, &feed)?;
            let places: Vec<&Place> = self.places.iter().filter(|place| place.feed == feed).collect();
            let last = places.last().map_or(0, |place| place.seq);
            let (mut delivered, mut named) = (BTreeSet::new(), BTreeSet::new());
            for step in &steps {
                match step {
                    Step::Record { seq, .. } => drop(delivered.insert(*seq)),
                    Step::Gap { first, last } => named.extend(*first..=*last),
                }
            }
            if let Some(seq) = named.iter().find(|seq| **seq > last) {
                return Err(format!("{feed} {seq} is reported missing and never was"));
            }
            let end = delivered.iter().chain(&named).max().copied().unwrap_or(0);
            for place in places {
                match (delivered.contains(&place.seq), hurt(place)) {
                    (false, false) => return Err(format!("I9: {feed} {} is whole but not delivered ({place:?}); {steps:?}", place.seq)),
                    (true, true) if must_miss => return Err(format!("I9: {feed} {} was damaged and is delivered", place.seq)),
                    (false, true) if place.seq <= end && !named.contains(&place.seq) => {
                        return Err(format!("I9: {feed} {} is missing and not named", place.seq));
                    }
                    (false, true) if !blank.contains(&place) && !alarmed(&board) => {
                        return Err(format!("I9: {feed} {} nobody was told", place.seq));
                    }
                    _ => {}
                }
            }
            heads.insert(feed, end);
        }
        // Every fourth time in CI: opening costs a scan of two open segments.
        self.examined.set(self.examined.get() + 1);
        if long() > 1 || self.examined.get().is_multiple_of(4) { self.go_on(disk, parts, &ledger, &heads) } else { Ok(()) }
    }

    /// A damaged spool takes new records, and after a power cut says the same again.
    fn go_on(&self, disk: &SimDisk, mut parts: Parts, ledger: &Ledger, heads: &BTreeMap<FeedId, u64>) -> Check {
        let mut ledger = ledger.clone();
        for (feed, head) in heads {
            // A lost end that nobody knows of is given again, under the new incarnation.
            if let Some(model) = ledger.feeds.get_mut(feed) {
                model.records.retain(|seq, _| seq <= head);
            }
            let seq = append(&mut parts, &mut ledger, feed, 100)?;
            if seq != head + 1 {
                return Err(format!("{feed}: after {head} came {seq}"));
            }
        }
        let before: Vec<_> = heads.keys().map(|feed| ledger.walk_all(&mut parts.reader, feed)).collect::<Result<_, _>>()?;
        let disk = disk.power_cut();
        drop(parts);
        let mut parts = open_with(options(&self.root), disk.handle(), StateChoice::None, &board())
            .map_err(|error| format!("does not open again: {error}"))?;
        let after: Vec<_> = heads.keys().map(|feed| ledger.walk_all(&mut parts.reader, feed)).collect::<Result<_, _>>()?;
        if before == after { Ok(()) } else { Err(format!("the second opening tells another story: {before:?}, then {after:?}")) }
    }
}

fn long() -> u64 {
    if std::env::var_os("SITEWARD_LONG").is_some() { 20 } else { 1 }
}

fn overlaps(place: &Place, path: &Path, bytes: &Range<u64>) -> bool {
    place.path == path && place.bytes.start < bytes.end && bytes.start < place.bytes.end
}

fn root() -> PathBuf {
    PathBuf::from("/var/lib/siteward")
}

/// I9: one flipped bit anywhere in closed and open segments costs at most the record it is in, which is named.
#[test]
fn a_flipped_bit_costs_at_most_its_record() {
    let step = if long() > 1 { 3 } else { 13 };
    let specimen = Specimen::new(11, StateChoice::None, &root());
    let mut rng = Rng::new(12);
    let mut flips = 0;
    for path in specimen.segments() {
        let end = specimen.disk.written_end(&path);
        let mut at = rng.below(step);
        while at < end {
            let bit = rng.below(8) as u8;
            let disk = specimen.disk.image();
            disk.flip(&path, at, bit);
            let checked = specimen.examine(&disk, |place| overlaps(place, &path, &(at..at + 1)), true);
            if let Err(error) = checked {
                panic!("bit {bit} of byte {at} in {}: {error}", path.display());
            }
            flips += 1;
            let in_padding =
                at < 65_536 && specimen.disk.contents(&path)[at as usize..(at as usize + 64).min(end as usize)].iter().all(|b| *b == 0);
            at += if in_padding { 4096 } else { rng.between(1, step * 2 - 1) };
        }
    }
    assert!(flips > 500, "only {flips} flips");
}

/// I9: a sector that comes back as zeroes costs the records it touches.
#[test]
fn a_zeroed_sector_costs_the_records_it_touches() {
    for seed in 0..6 * long() {
        let specimen = Specimen::new(20 + seed, StateChoice::None, &root());
        for path in specimen.segments() {
            let end = specimen.disk.written_end(&path);
            let sectors: Vec<u64> = [0, 32_768 / 512].into_iter().chain(128..end.div_ceil(512)).collect();
            for sector in sectors {
                let bytes = sector * 512..(sector + 1) * 512;
                let disk = specimen.disk.image();
                let len = disk.contents(&path).len() as u64;
                disk.overwrite(&path, bytes.start, &vec![0; (bytes.end.min(len) - bytes.start) as usize]);
                let checked = specimen.examine(&disk, |place| overlaps(place, &path, &bytes), true);
                checked.unwrap_or_else(|error| panic!("seed {seed}: sector {sector} of {} zeroed: {error}", path.display()));
            }
        }
    }
}

/// I9: a sector that cannot be read any more costs the records it touches, not the start of the agent and not the feed.
#[test]
fn an_unreadable_sector_costs_the_records_it_touches() {
    let mut specimen = Specimen::new(31, StateChoice::None, &root());
    // One failure may pass; a sector that stays unreadable is damage.
    specimen.ledger.patience = 20;
    for path in specimen.segments() {
        let end = specimen.disk.written_end(&path);
        for sector in [0, 32_768 / 512].into_iter().chain((128..end.div_ceil(512)).step_by(3)) {
            let bytes = sector * 512..(sector + 1) * 512;
            let disk = specimen.disk.image();
            disk.make_unreadable(&path, bytes.start, 512);
            let checked = specimen.examine(&disk, |place| overlaps(place, &path, &bytes), true);
            checked.unwrap_or_else(|error| panic!("sector {sector} of {} unreadable: {error}", path.display()));
        }
    }
}

/// I9: reads that fail for a while when the agent starts: it may refuse to start, it may call a sector bad, but it throws nothing away.
#[test]
fn reads_that_fail_for_a_while_destroy_nothing() {
    let specimen = Specimen::new(33, StateChoice::None, &root());
    for times in [1, 2, 3, 4, 6, 10, 30, 100, 1000, 1_000_000] {
        for after in (0..120).step_by(if long() > 1 { 1 } else { 3 }) {
            let disk = specimen.disk.image();
            disk.fail(Op::Read, after, times, Errno::Io);
            let told = board();
            let opened = open_with(options(&root()), disk.handle(), StateChoice::None, &told);
            let disk = disk.kill();
            drop(opened);
            let again = board();
            let mut parts = open_with(options(&root()), disk.handle(), StateChoice::None, &again).unwrap();
            let missing: Vec<_> = feeds().into_iter().flat_map(|(feed, _)| missing(&specimen, &mut parts, &feed)).collect();
            let kept = disk.files().into_iter().filter(|(path, _)| path.components().any(|c| c.as_os_str() == "damaged")).count();
            if !missing.is_empty() {
                let spoken = told.conditions().iter().any(|c| c.code == "spool_damaged");
                assert!(kept > 0, "{times} reads failing after {after} destroyed {missing:?}");
                assert!(spoken, "{times} reads failing after {after} hid {missing:?} and nobody was told");
            }
        }
    }
}

/// Records of the specimen that a spool does not deliver.
fn missing(specimen: &Specimen, parts: &mut Parts, feed: &FeedId) -> Vec<String> {
    let steps = specimen.ledger.clone().walk_all(&mut parts.reader, feed).unwrap();
    let delivered = |seq: u64| steps.iter().any(|step| matches!(step, Step::Record { seq: there, .. } if *there == seq));
    let places = specimen.places.iter().filter(|place| place.feed == *feed && !delivered(place.seq));
    places.map(|place| format!("{feed} {}", place.seq)).collect()
}

/// I9: heads that cannot be read are heads that are not there.
#[test]
fn unreadable_heads_cost_no_record_and_not_the_start() {
    let specimen = Specimen::new(32, StateChoice::None, &root());
    for names in [&["heads.a"][..], &["heads.b"], &["heads.a", "heads.b"]] {
        let disk = specimen.disk.image();
        for name in names {
            disk.make_unreadable(&root().join(name), 0, 512);
        }
        let checked = specimen.examine(&disk, |_| false, true);
        if let Err(error) = checked {
            panic!("{names:?} unreadable: {error}");
        }
    }
}

/// I9: files that end too early, or are gone.
#[test]
fn a_truncated_or_missing_segment_costs_what_was_in_it() {
    let specimen = Specimen::new(41, StateChoice::None, &root());
    let mut rng = Rng::new(42);
    for path in specimen.segments() {
        let end = specimen.disk.written_end(&path);
        for round in 0..15 {
            let len = if round == 0 { 0 } else { rng.below(end + 1).max(if round > 3 { 65_536.min(end) } else { 0 }) };
            let disk = specimen.disk.image();
            disk.truncate(&path, len);
            let headerless = len <= 65_536;
            let checked = specimen.examine(&disk, |place| place.path == path && (headerless || place.bytes.end > len), true);
            // A last segment without its headers looks like one whose making was interrupted: nobody can know.
            if let Err(error) = checked {
                assert!(headerless && error.contains("nobody was told"), "{} cut to {len}: {error}", path.display());
            }
        }
        let disk = specimen.disk.image();
        disk.delete(&path);
        if let Err(error) = specimen.examine(&disk, |place| place.path == path, true) {
            assert!(error.contains("nobody was told"), "{} deleted: {error}", path.display());
        }
    }
}

/// I9: several wounds at once.
#[test]
fn many_wounds_cost_their_records_only() {
    for seed in 0..150 * long() {
        let mut rng = Rng::new(5000 + seed);
        let specimen = Specimen::new(50 + seed % 5, StateChoice::None, &root());
        let disk = specimen.disk.image();
        let segments = specimen.segments();
        let mut wounds = Vec::new();
        for _ in 0..rng.between(2, 8) {
            let path = rng.pick(&segments).clone();
            let (end, len) = (specimen.disk.written_end(&path), rng.between(1, 200));
            let at = rng.between(65_536.min(end - 1), end - 1);
            let bytes = at..(at + len).min(end);
            let mut noise = vec![0; (bytes.end - bytes.start) as usize];
            rng.fill(&mut noise);
            disk.overwrite(&path, at, &noise);
            wounds.push((path, bytes));
        }
        let checked = specimen.examine(&disk, |place| wounds.iter().any(|(path, bytes)| overlaps(place, path, bytes)), false);
        if let Err(error) = checked {
            panic!("seed {seed}, wounds {wounds:?}: {error}");
        }
    }
}

/// I9: one damaged byte in either copy of the heads costs nothing.
#[test]
fn a_flipped_bit_in_the_heads_costs_nothing() {
    let specimen = Specimen::new(61, StateChoice::None, &root());
    let mut rng = Rng::new(62);
    for name in ["heads.a", "heads.b"] {
        let path = root().join(name);
        for at in (0..specimen.disk.written_end(&path)).step_by(if long() > 1 { 1 } else { 7 }) {
            let disk = specimen.disk.image();
            disk.flip(&path, at, rng.below(8) as u8);
            let checked = specimen.examine(&disk, |_| false, true);
            if let Err(error) = checked {
                panic!("byte {at} of {name}: {error}");
            }
        }
    }
}

// ---- the state database ----

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = entry.map(|e| (e.path(), to.join(e.file_name()))).unwrap();
        if entry.is_dir() {
            copy_tree(&entry, &to);
        } else {
            std::fs::copy(&entry, &to).unwrap();
        }
    }
}

fn files_under(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_under(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn garble(state: &Path, rng: &mut Rng) -> String {
    let files = files_under(state);
    let file = rng.pick(&files).clone();
    let len = std::fs::metadata(&file).unwrap().len();
    match rng.below(5) {
        0 => {
            std::fs::remove_dir_all(state).unwrap();
            "deleted".to_owned()
        }
        1 => {
            std::fs::remove_dir_all(state).unwrap();
            std::fs::write(state, b"not a directory").unwrap();
            "a file in its place".to_owned()
        }
        2 => {
            let to = rng.below(len + 1);
            std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(to).unwrap();
            format!("{} cut to {to} of {len}", file.display())
        }
        3 => {
            let mut bytes = std::fs::read(&file).unwrap();
            rng.fill(&mut bytes);
            std::fs::write(&file, bytes).unwrap();
            format!("{} filled with noise", file.display())
        }
        _ => {
            let mut bytes = std::fs::read(&file).unwrap();
            let written = bytes.iter().rposition(|b| *b != 0).map_or(1, |at| at + 1) as u64;
            let mut at = Vec::new();
            if !bytes.is_empty() {
                for _ in 0..rng.between(1, 4) {
                    let byte = rng.below(written) as usize;
                    bytes[byte] ^= 1 << rng.below(8);
                    at.push(byte);
                }
            }
            std::fs::write(&file, bytes).unwrap();
            format!("bits flipped in {} at {at:?}", file.display())
        }
    }
}

/// The state database deleted, cut or garbled: the agent starts, nothing is lost, a new message is never taken for an old one.
#[test]
fn a_garbled_state_database_costs_duplicates_at_most() {
    for seed in 0..25 * long() {
        let mut rng = Rng::new(7000 + seed);
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("spool");
        let specimen = Specimen::new(70 + seed, StateChoice::Sled, &root);
        let state = root.join("state");
        let what = garble(&state, &mut rng);
        let board = board();
        let mut ledger = specimen.ledger.clone();
        let disk = specimen.disk.image();
        let opened = open_with(options(&root), disk.handle(), StateChoice::Sled, &board);
        let mut parts = opened.unwrap_or_else(|error| panic!("seed {seed}, state {what}: does not open: {error}"));
        let checked = ledger.verify(&mut parts, Losses::None).and_then(|()| {
            for id in ledger.sent.keys().copied().collect::<Vec<_>>() {
                let message = ledger.send(id);
                let incarnation = parts.monitor.view().incarnation;
                let answer = parts.committer.commit(vec![message]).remove(0);
                ledger.answered(id, 2, incarnation, &answer)?;
                let feed = ledger.sent[&id].feed.clone();
                append(&mut parts, &mut ledger, &feed, 50)?;
            }
            ledger.verify(&mut parts, Losses::None)
        });
        if let Err(error) = checked {
            panic!("seed {seed}, state {what}: {error}");
        }
        let is_told = board.conditions().iter().any(|c| c.code == "state_set_aside");
        assert!(is_told || !["deleted", "a file in its place"].contains(&&*what), "seed {seed}, state {what}: nobody was told");
    }
}

/// A state database from an older copy is brought up to date from the journal, never the other way round.
#[test]
fn a_stale_state_database_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("spool");
    let specimen = Specimen::new(81, StateChoice::Sled, &root);
    let (state, old) = (root.join("state"), directory.path().join("old"));
    copy_tree(&state, &old);
    let mut ledger = specimen.ledger.clone();
    let disk = specimen.disk.image();
    let mut parts = open_with(options(&root), disk.handle(), StateChoice::Sled, &board()).unwrap();
    for _ in 0..30 {
        append(&mut parts, &mut ledger, &feeds()[0].0, 60).unwrap();
    }
    parts.committer.close();
    drop(parts);
    std::fs::remove_dir_all(&state).unwrap();
    copy_tree(&old, &state);
    let board = board();
    let mut parts = open_with(options(&root), disk.kill().handle(), StateChoice::Sled, &board).unwrap();
    ledger.verify(&mut parts, Losses::None).unwrap();
    while parts.committer.idle() {}
    for id in ledger.sent.keys().copied().collect::<Vec<_>>() {
        let message = ledger.send(id);
        let incarnation = parts.monitor.view().incarnation;
        let answer = parts.committer.commit(vec![message]).remove(0);
        ledger.answered(id, 2, incarnation, &answer).unwrap();
        assert!(answer.unwrap().is_duplicate(), "message {id} is in the journal and was not recognised");
    }
    ledger.verify(&mut parts, Losses::None).unwrap();
}
