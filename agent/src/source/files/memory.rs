//! What a feed remembers of its files, and what follows from it after a crash (I3).
//!
//! ```text
//!   begin(batch)   noted and synced: these files, in this order; the feed's progress before them
//!     records of the first file, the second, …     in order: a record is stored only behind the one before it
//!   end(done)      noted and synced: so many of them are done; the next was left at this place
//!   now they may be moved away
//! ```
//!
//! After a crash between `begin` and `end` one place says everything: files before the one it names are done, that one is stored through it (all
//! of it where it is the last record), nothing of the others is. If the progress is still what it was before the batch, nothing of it is stored.
//! A file without any record is done when one behind it is; else it is gone through again, which does nothing.
//!
//! Two things tell a file: its glance (path, size, times, inode), which is enough to leave it alone, and its fingerprint (path, size, time,
//! digest), which is what it *is*. Bounded: the oldest that are not there any more are forgotten first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::begun;
use super::share::Stat;
use crate::limits;
use crate::record::{FileFingerprint, FilePlace};
use crate::source::split::SplitSettings;
use crate::spool::filelist::{FileList, KnownFile, Note};

/// The glance at a file.
pub fn glance(relative: &Path, stat: &Stat) -> [u8; 16] {
    let seen = stat.seen;
    let hash = hashed(relative, seen.size, seen.modified).chain_update(stat.changed.0.to_be_bytes());
    let hash: [u8; 32] = hash.chain_update(stat.changed.1.to_be_bytes()).chain_update(seen.inode.to_be_bytes()).finalize().into();
    hash[..16].try_into().expect("half of 32 bytes")
}

/// What a file is: path, size, time of change, digest of its content.
pub fn fingerprint(relative: &Path, size: u64, modified: (i64, u32), digest: &[u8; 32]) -> FileFingerprint {
    FileFingerprint(hashed(relative, size, modified).chain_update(digest).finalize().into())
}

fn hashed(relative: &Path, size: u64, modified: (i64, u32)) -> Sha256 {
    let path = relative.as_os_str().as_encoded_bytes();
    let hash = Sha256::new().chain_update(b"siteward file 1").chain_update((path.len() as u64).to_be_bytes()).chain_update(path);
    hash.chain_update(size.to_be_bytes()).chain_update(modified.0.to_be_bytes()).chain_update(modified.1.to_be_bytes())
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Memory {
    list: FileList,
    /// In the order they were done.
    done: BTreeMap<u64, KnownFile>,
    next: u64,
    glances: HashMap<[u8; 16], u64>,
    fingerprints: HashMap<FileFingerprint, u64>,
    digests: HashMap<[u8; 16], u64>,
    left: BTreeMap<FileFingerprint, FilePlace>,
    /// How files are split that are begun now; and those that were left, where they were begun otherwise (see `begun`).
    split: Vec<u8>,
    under: BTreeMap<FileFingerprint, Vec<u8>>,
    begun: Option<(Vec<KnownFile>, Option<FilePlace>)>,
    /// What is on disk says less than this does.
    is_behind: bool,
}

impl Memory {
    /// Reads the notes, with the feed's durable progress, and writes down what follows.
    pub fn open(list: FileList, notes: Vec<Note>, progress: Option<FilePlace>, split: &SplitSettings) -> io::Result<Self> {
        let split = begun::encode(split);
        let mut split_before = None;
        let mut memory = Self {
            list,
            done: BTreeMap::new(),
            next: 0,
            glances: HashMap::new(),
            fingerprints: HashMap::new(),
            digests: HashMap::new(),
            left: BTreeMap::new(),
            under: BTreeMap::new(),
            split,
            begun: None,
            is_behind: true,
        };
        for note in notes {
            match note {
                Note::DoneV1(files) => files.into_iter().for_each(|file| memory.learn(file)),
                Note::BegunV1 { files, after } => memory.begun = Some((files, after)),
                Note::EndedV1 { done, left } => memory.conclude(usize::try_from(done).unwrap_or(usize::MAX), left),
                Note::LeftV1(place) => {
                    memory.left.insert(place.fingerprint, place);
                }
                Note::SplitV1(split) => split_before = Some(split),
                Note::UnderV1 { split, files } => memory.under.extend(files.into_iter().map(|file| (file, split.clone()))),
            }
        }
        memory.resolve(progress);
        if let Some(before) = split_before.filter(|before| *before != memory.split) {
            memory.bind(&before, progress);
        }
        memory.settle()?;
        Ok(memory)
    }

    /// What a batch that was never ended came to.
    fn resolve(&mut self, progress: Option<FilePlace>) {
        let Some((files, after)) = &self.begun else { return };
        let reached = progress.filter(|_| progress != *after);
        let found = reached.and_then(|place| files.iter().position(|file| file.fingerprint == place.fingerprint).map(|at| (at, place)));
        match found {
            Some((at, place)) if place.last => self.conclude(at + 1, None),
            Some((at, place)) => self.conclude(at, Some(place)),
            None => self.begun = None,
        }
    }

    /// Files are split otherwise from now on: those that are half stored stay with what they were begun under.
    fn bind(&mut self, before: &[u8], progress: Option<FilePlace>) {
        let current = progress.filter(|place| !place.last && !self.is_done(&place.fingerprint));
        for file in self.left.keys().copied().chain(current.map(|place| place.fingerprint)) {
            self.under.entry(file).or_insert_with(|| before.to_vec());
        }
    }

    /// How a file was split when it was begun, where that is not how files are split now.
    pub fn split_of(&self, fingerprint: &FileFingerprint) -> Option<SplitSettings> {
        self.under.get(fingerprint).and_then(|split| begun::decode(split))
    }

    fn learn(&mut self, file: KnownFile) {
        self.left.remove(&file.fingerprint);
        self.under.remove(&file.fingerprint);
        if let Some(number) = self.fingerprints.get(&file.fingerprint).copied() {
            self.forget(number);
        }
        self.glances.insert(file.glance, self.next);
        self.fingerprints.insert(file.fingerprint, self.next);
        self.digests.insert(file.digest, self.next);
        self.done.insert(self.next, file);
        self.next += 1;
    }

    fn forget(&mut self, number: u64) {
        let Some(file) = self.done.remove(&number) else { return };
        // Only what leads to this entry: another file may have the same content.
        self.glances.retain_if_other(&file.glance, number);
        self.fingerprints.retain_if_other(&file.fingerprint, number);
        self.digests.retain_if_other(&file.digest, number);
    }

    fn conclude(&mut self, done: usize, left: Option<FilePlace>) {
        let Some((files, _)) = self.begun.take() else { return };
        for file in files.into_iter().take(done) {
            self.learn(file);
        }
        if let Some(place) = left {
            self.left.insert(place.fingerprint, place);
        }
        while self.left.len() > limits::FILES_LEFT_MAX {
            if let Some((forgotten, _)) = self.left.pop_first() {
                self.under.remove(&forgotten);
            }
        }
    }

    /// Makes durable what is remembered, if it is not.
    pub fn settle(&mut self) -> io::Result<()> {
        if !self.is_behind && !self.list.must_be_rewritten() {
            return Ok(());
        }
        let files: Vec<KnownFile> = self.done.values().copied().collect();
        let mut notes: Vec<Note> = files.chunks(1024).map(|files| Note::DoneV1(files.to_vec())).collect();
        notes.extend(self.left.values().map(|place| Note::LeftV1(*place)));
        notes.extend(self.under.iter().map(|(file, split)| Note::UnderV1 { split: split.clone(), files: vec![*file] }));
        notes.push(Note::SplitV1(self.split.clone()));
        notes.extend(self.begun.iter().map(|(files, after)| Note::BegunV1 { files: files.clone(), after: *after }));
        self.list.rewrite(notes.iter())?;
        self.is_behind = false;
        Ok(())
    }

    fn note(&mut self, note: &Note) -> io::Result<()> {
        if self.is_behind || self.list.must_be_rewritten() {
            // What is remembered already says what the note does.
            self.is_behind = true;
            return self.settle();
        }
        self.is_behind = true;
        self.list.add(note)?;
        self.is_behind = false;
        Ok(())
    }

    /// Says which files come, in order; nothing of them may be stored before this returned `Ok`.
    pub fn begin(&mut self, files: Vec<KnownFile>, after: Option<FilePlace>) -> io::Result<()> {
        let note = Note::BegunV1 { files: files.clone(), after };
        self.begun = Some((files, after));
        let noted = self.note(&note);
        if noted.is_err() {
            self.begun = None;
        }
        noted
    }

    /// Says how many of the batch are done, and how far the next one is stored; none may be moved before this returned `Ok`.
    pub fn end(&mut self, done: usize, left: Option<FilePlace>) -> io::Result<()> {
        self.conclude(done, left);
        self.note(&Note::EndedV1 { done: done as u64, left })
    }

    /// What this file is, if it is done, as far as can be told without reading it.
    pub fn known_at_glance(&self, glance: &[u8; 16]) -> Option<FileFingerprint> {
        let number = self.glances.get(glance)?;
        self.done.get(number).map(|file| file.fingerprint)
    }

    pub fn is_done(&self, fingerprint: &FileFingerprint) -> bool {
        self.fingerprints.contains_key(fingerprint)
    }

    /// Whether a file of this content is done.
    pub fn knows_content(&self, digest: &[u8; 16]) -> bool {
        self.digests.contains_key(digest)
    }

    /// Remembers another glance at a file that is done (it was moved back, or the share was mounted anew).
    pub fn glance_again(&mut self, fingerprint: &FileFingerprint, glance: [u8; 16]) {
        let Some(number) = self.fingerprints.get(fingerprint).copied() else { return };
        if let Some(file) = self.done.get_mut(&number) {
            self.glances.remove(&file.glance);
            file.glance = glance;
            self.glances.insert(glance, number);
        }
    }

    /// The number of the last piece of a file that is stored; 0 for none.
    pub fn stored_through(&self, fingerprint: &FileFingerprint, progress: Option<FilePlace>) -> u64 {
        let current = progress.filter(|place| place.fingerprint == *fingerprint).map_or(0, |place| place.index);
        self.left.get(fingerprint).map_or(0, |place| place.index).max(current)
    }

    /// Files remembered as done.
    pub fn len(&self) -> usize {
        self.done.len()
    }

    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// Forgets the oldest that are not there any more, where there are more than `max`. False: more are there.
    pub fn prune(&mut self, present: &HashSet<[u8; 16]>, max: usize) -> bool {
        if self.done.len() <= max {
            return true;
        }
        let surplus = self.done.len() - max * 3 / 4;
        let gone = self.done.iter().filter(|(_, file)| !present.contains(&file.glance)).map(|(number, _)| *number);
        let gone: Vec<u64> = gone.take(surplus).collect();
        for number in &gone {
            self.forget(*number);
        }
        self.is_behind = self.is_behind || !gone.is_empty();
        self.done.len() <= max
    }
}

trait RetainIfOther<K> {
    fn retain_if_other(&mut self, key: &K, number: u64);
}

impl<K: std::hash::Hash + Eq> RetainIfOther<K> for HashMap<K, u64> {
    fn retain_if_other(&mut self, key: &K, number: u64) {
        if self.get(key) == Some(&number) {
            self.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FeedId;
    use crate::spool::disk::RealDisk;
    use std::sync::Arc;

    fn file(n: u8) -> KnownFile {
        KnownFile { glance: [n; 16], fingerprint: FileFingerprint([n; 32]), digest: [n; 16] }
    }

    fn place(n: u8, index: u64, last: bool) -> FilePlace {
        FilePlace { fingerprint: FileFingerprint([n; 32]), index, end_offset: index * 10, last }
    }

    fn open(spool: &Path, progress: Option<FilePlace>) -> Memory {
        open_as(spool, progress, &SplitSettings::Lines)
    }

    fn open_as(spool: &Path, progress: Option<FilePlace>, split: &SplitSettings) -> Memory {
        let (list, notes) = FileList::open(Arc::new(RealDisk), spool, &FeedId::new("f").unwrap()).unwrap();
        Memory::open(list, notes, progress, split).unwrap()
    }

    /// I3: a file that is half stored is finished as it was begun, whatever `split` says by then, and however often that changes.
    #[test]
    fn a_half_stored_file_stays_with_the_split_it_was_begun_under() {
        let spool = tempfile::tempdir().unwrap();
        let (half, other) = (FileFingerprint([2; 32]), FileFingerprint([3; 32]));
        open(spool.path(), None).begin(vec![file(1), file(2), file(3)], None).unwrap();
        let reached = Some(place(2, 5, false));
        let whole = SplitSettings::Whole;
        let mut memory = open_as(spool.path(), reached, &whole);
        assert_eq!((memory.split_of(&half), memory.split_of(&other)), (Some(SplitSettings::Lines), None));
        assert_eq!(memory.stored_through(&half, reached), 5);
        memory.begin(vec![file(3)], reached).unwrap();
        let later = Some(place(3, 1, false));
        let mut memory = open_as(spool.path(), later, &SplitSettings::Ndjson);
        assert_eq!((memory.split_of(&half), memory.split_of(&other)), (Some(SplitSettings::Lines), Some(whole)));
        memory.begin(vec![file(2)], later).unwrap();
        memory.end(1, None).unwrap();
        let memory = open_as(spool.path(), Some(place(2, 9, true)), &SplitSettings::Ndjson);
        assert!(memory.is_done(&half) && memory.split_of(&half).is_none() && memory.split_of(&other).is_some());
    }

    /// I3: after a crash in the middle of a batch the one place tells which files are done.
    #[test]
    fn a_batch_that_was_cut_is_resolved_by_the_progress() {
        for (progress, done, through) in [
            (None, [false; 3], [0; 3]),
            (Some(place(1, 4, false)), [false; 3], [4, 0, 0]),
            (Some(place(1, 9, true)), [true, false, false], [0; 3]),
            (Some(place(3, 2, false)), [true, true, false], [0, 0, 2]),
            (Some(place(9, 2, true)), [false; 3], [0; 3]),
        ] {
            let spool = tempfile::tempdir().unwrap();
            open(spool.path(), None).begin(vec![file(1), file(2), file(3)], Some(place(9, 2, true))).unwrap();
            let memory = open(spool.path(), progress);
            for i in 0..3u8 {
                let print = FileFingerprint([i + 1; 32]);
                assert_eq!(memory.is_done(&print), done[usize::from(i)], "{progress:?} {i}");
                if !memory.is_done(&print) {
                    assert_eq!(memory.stored_through(&print, progress), through[usize::from(i)], "{progress:?} {i}");
                }
            }
        }
    }

    /// I3: a file that was left earlier does not make those before it in a later batch look done.
    #[test]
    fn progress_from_before_the_batch_says_nothing_about_it() {
        let spool = tempfile::tempdir().unwrap();
        let mut memory = open(spool.path(), None);
        memory.begin(vec![file(2)], None).unwrap();
        memory.end(0, Some(place(2, 3, false))).unwrap();
        memory.begin(vec![file(1), file(2)], Some(place(2, 3, false))).unwrap();
        drop(memory);
        let memory = open(spool.path(), Some(place(2, 3, false)));
        assert!(!memory.is_done(&FileFingerprint([1; 32])));
        assert_eq!(memory.stored_through(&FileFingerprint([2; 32]), None), 3, "and what was stored of it is still known");
    }

    #[test]
    fn what_is_done_is_known_again_and_the_oldest_that_are_gone_are_forgotten() {
        let spool = tempfile::tempdir().unwrap();
        let mut memory = open(spool.path(), None);
        memory.begin(vec![file(1), file(2)], None).unwrap();
        memory.end(2, None).unwrap();
        let mut memory = open(spool.path(), None);
        assert!(memory.known_at_glance(&[1; 16]).is_some() && memory.is_done(&FileFingerprint([2; 32])) && memory.knows_content(&[2; 16]));
        memory.glance_again(&FileFingerprint([1; 32]), [7; 16]);
        assert!(memory.known_at_glance(&[7; 16]).is_some() && memory.known_at_glance(&[1; 16]).is_none());
        assert!(memory.prune(&HashSet::new(), 2) && memory.len() == 2, "few enough");
        memory.begin(vec![file(3), file(4), file(5)], None).unwrap();
        memory.end(3, None).unwrap();
        let present = HashSet::from([[7; 16]]);
        assert!(memory.prune(&present, 4) && memory.len() == 3);
        assert!(memory.known_at_glance(&[7; 16]).is_some(), "the oldest, but it is there");
        assert!(memory.known_at_glance(&[2; 16]).is_none() && memory.known_at_glance(&[3; 16]).is_none());
        assert!(memory.known_at_glance(&[5; 16]).is_some());
    }
}
