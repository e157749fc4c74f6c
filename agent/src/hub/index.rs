//! The chain index: for every seq of every feed what was received there, in files beside the output. It answers "new, duplicate or conflict?"
//! exactly for a record of any age, in constant memory.
//!
//! ```text
//!   <out>.index/<site>.<gateway>.<feed>.<level>     entry of seq n at n × 32:  incarnation 16 │ chain (first 15 bytes) │ held 1
//! ```
//!
//! 1. Almost every seq has one entry, in level 0. Further ones under the same seq (another incarnation after a fork, a conflicting record)
//!    go to level 1, 2, … The files are sparse.
//! 2. `find` looks, `note` keeps the entry in memory, `flush` writes. The desk flushes only after the output is synced: an entry on disk never
//!    speaks of a record that the output does not hold. Until then `find` sees what was noted.
//! 3. Entries since the last saved ledger may be lost in a power cut: they are written again from the output at start. `sync` comes before
//!    the ledger is saved.
//! 4. `id` ties the directory to the ledger file; where they do not fit, both are rebuilt.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ledger::AccountKey;
use crate::limits::{HUB_INDEX_FILES_MAX, HUB_INDEX_LEVELS_MAX};
use crate::record::{Chain, Incarnation};
use crate::spool::disk::DiskFile;

const ENTRY: usize = 32;
const CHAIN_BYTES: usize = 15;
const ID_FILE: &str = "id";

/// What is held under an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Record,
    /// Kept back at the gateway; an event for it is still welcome.
    Exception,
    /// The last seq of a gap.
    Gap,
}

/// What the index knows of an identity and chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Nothing,
    Same(Held),
    /// The same identity with another chain.
    OtherChain,
}

/// Where the answer stands, or would be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    level: u8,
    pub known: Known,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    incarnation: Incarnation,
    chain: [u8; CHAIN_BYTES],
    held: Held,
}

impl Entry {
    fn new(incarnation: Incarnation, chain: Chain, held: Held) -> Self {
        let mut start = [0; CHAIN_BYTES];
        start.copy_from_slice(&chain.0[..CHAIN_BYTES]);
        Self { incarnation, chain: start, held }
    }

    fn encode(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..16].copy_from_slice(&self.incarnation.0);
        bytes[16..31].copy_from_slice(&self.chain);
        bytes[31] = match self.held {
            Held::Record => 1,
            Held::Exception => 2,
            Held::Gap => 3,
        };
        bytes
    }

    fn decode(bytes: &[u8; ENTRY]) -> Option<Self> {
        let held = match bytes[31] {
            1 => Held::Record,
            2 => Held::Exception,
            3 => Held::Gap,
            _ => return None,
        };
        let (mut incarnation, mut chain) = ([0; 16], [0; CHAIN_BYTES]);
        incarnation.copy_from_slice(&bytes[..16]);
        chain.copy_from_slice(&bytes[16..31]);
        Some(Self { incarnation: Incarnation(incarnation), chain, held })
    }
}

type FileKey = (AccountKey, u8);

/// See the module.
#[derive(Debug)]
pub struct ChainIndex {
    dir: PathBuf,
    id: String,
    files: BTreeMap<FileKey, Option<File>>,
    written: BTreeSet<FileKey>,
    noted: BTreeMap<(FileKey, u64), [u8; ENTRY]>,
}

impl ChainIndex {
    /// Opens the directory, or makes it new.
    pub fn open(dir: &Path) -> io::Result<Self> {
        if !dir.is_dir() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let name = dir.join(ID_FILE);
        let id = match std::fs::read_to_string(&name) {
            Ok(id) if id.len() == 32 => id,
            Ok(_) => write_id(&name)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => write_id(&name)?,
            Err(error) => return Err(error),
        };
        Ok(Self { dir: dir.to_owned(), id, files: BTreeMap::new(), written: BTreeSet::new(), noted: BTreeMap::new() })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Empties the directory and gives it another id.
    pub fn clear(&mut self) -> io::Result<()> {
        (self.files, self.written, self.noted) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        for entry in std::fs::read_dir(&self.dir)? {
            std::fs::remove_file(entry?.path())?;
        }
        self.id = write_id(&self.dir.join(ID_FILE))?;
        Ok(())
    }

    /// Looks an identity up.
    pub fn find(&mut self, key: &AccountKey, incarnation: Incarnation, seq: u64, chain: Chain) -> io::Result<Place> {
        let wanted = Entry::new(incarnation, chain, Held::Record);
        let mut known = Known::Nothing;
        for level in 0..HUB_INDEX_LEVELS_MAX {
            let Some(entry) = self.read(&(key.clone(), level), seq)? else {
                return Ok(Place { level, known });
            };
            if entry.incarnation == incarnation && entry.chain == wanted.chain {
                return Ok(Place { level, known: Known::Same(entry.held) });
            }
            if entry.incarnation == incarnation {
                known = Known::OtherChain;
            }
        }
        Ok(Place { level: HUB_INDEX_LEVELS_MAX, known })
    }

    /// Remembers what is held at a place found before; written by the next flush. Above the last level nothing is remembered: such a record
    /// would be written again if it came again.
    pub fn note(&mut self, key: &AccountKey, seq: u64, place: Place, incarnation: Incarnation, chain: Chain, held: Held) {
        if place.level < HUB_INDEX_LEVELS_MAX {
            self.noted.insert(((key.clone(), place.level), seq), Entry::new(incarnation, chain, held).encode());
        }
    }

    /// Entries noted and not flushed.
    pub fn noted(&self) -> usize {
        self.noted.len()
    }

    /// Writes what was noted. On an error all of it stays noted.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut noted: Vec<(FileKey, u64, Vec<u8>)> = Vec::new();
        for ((key, seq), entry) in &self.noted {
            match noted.last_mut() {
                Some((last, first, bytes)) if last == key && *first + (bytes.len() / ENTRY) as u64 == *seq => {
                    bytes.extend_from_slice(entry);
                }
                _ => noted.push((key.clone(), *seq, entry.to_vec())),
            }
        }
        for (key, seq, bytes) in noted {
            self.file(&key, true)?.ok_or(io::ErrorKind::NotFound)?.write_all_at(&bytes, seq * ENTRY as u64)?;
            self.written.insert(key);
        }
        self.noted.clear();
        Ok(())
    }

    /// Makes everything flushed durable.
    pub fn sync(&mut self) -> io::Result<()> {
        while let Some(key) = self.written.first().cloned() {
            if let Some(file) = self.file(&key, false)? {
                file.sync_data()?;
            }
            self.written.remove(&key);
        }
        File::open(&self.dir)?.sync_all()
    }

    fn read(&mut self, key: &FileKey, seq: u64) -> io::Result<Option<Entry>> {
        if let Some(noted) = self.noted.get(&(key.clone(), seq)) {
            return Ok(Entry::decode(noted));
        }
        let Some(file) = self.file(key, false)? else { return Ok(None) };
        let mut bytes = [0; ENTRY];
        let read = DiskFile::read_at(file, seq * ENTRY as u64, &mut bytes)?;
        Ok(if read == ENTRY { Entry::decode(&bytes) } else { None })
    }

    /// The open file; `None` where there is none and none is to be made. That there is none is remembered too.
    fn file(&mut self, key: &FileKey, create: bool) -> io::Result<Option<&File>> {
        if self.files.get(key).is_none_or(|known| known.is_none() && create) {
            if self.files.len() >= HUB_INDEX_FILES_MAX
                && let Some((old, Some(file))) = self.files.pop_first()
                && self.written.contains(&old)
            {
                file.sync_data()?;
                self.written.remove(&old);
            }
            let (AccountKey { site, gateway, feed }, level) = (&key.0, key.1);
            let path = self.dir.join(format!("{site}.{gateway}.{feed}.{level}"));
            let opened = OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).open(path);
            let file = match opened {
                Ok(file) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !create => None,
                Err(error) => return Err(error),
            };
            self.files.insert(key.clone(), file);
        }
        Ok(self.files.get(key).and_then(Option::as_ref))
    }
}

/// What is held under a seq, by whatever incarnation, for whoever only looks on: opens nothing for writing, makes nothing. Entries are written
/// after the output is synced, so what is found here is there.
pub fn peek(dir: &Path, key: &AccountKey, seq: u64) -> io::Result<Vec<Held>> {
    let AccountKey { site, gateway, feed } = key;
    let mut held = Vec::new();
    std::fs::metadata(dir)?;
    for level in 0..HUB_INDEX_LEVELS_MAX {
        let file = match File::open(dir.join(format!("{site}.{gateway}.{feed}.{level}"))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let mut bytes = [0; ENTRY];
        let read = DiskFile::read_at(&file, seq.saturating_mul(ENTRY as u64), &mut bytes)?;
        match Entry::decode(&bytes).filter(|_| read == ENTRY) {
            Some(entry) => held.push(entry.held),
            None => break,
        }
    }
    Ok(held)
}

fn write_id(path: &Path) -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let id = Incarnation(random).to_string();
    std::fs::write(path, &id)?;
    File::open(path)?.sync_all()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Name;

    fn key(feed: &str) -> AccountKey {
        AccountKey { site: Name::new("s").unwrap(), gateway: Name::new("g").unwrap(), feed: Name::new(feed).unwrap() }
    }

    #[test]
    fn one_seq_holds_forks_and_conflicts_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = ChainIndex::open(&dir.path().join("i")).unwrap();
        let (k, a, b) = (key("f"), Incarnation([1; 16]), Incarnation([2; 16]));
        let (one, two) = (Chain([1; 32]), Chain([2; 32]));
        for (incarnation, chain, expected) in [(a, one, Known::Nothing), (b, one, Known::Nothing), (a, two, Known::OtherChain)] {
            let place = index.find(&k, incarnation, 5, chain).unwrap();
            assert_eq!(place.known, expected);
            index.note(&k, 5, place, incarnation, chain, Held::Record);
        }
        for flushed in [false, true] {
            for (incarnation, chain) in [(a, one), (b, one), (a, two)] {
                assert_eq!(index.find(&k, incarnation, 5, chain).unwrap().known, Known::Same(Held::Record), "flushed: {flushed}");
            }
            index.flush().unwrap();
        }
        assert_eq!(index.find(&k, b, 5, two).unwrap().known, Known::OtherChain);
        assert_eq!(index.find(&k, a, 6, one).unwrap().known, Known::Nothing);
    }

    #[test]
    fn an_exception_is_closed_in_its_own_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = ChainIndex::open(&dir.path().join("i")).unwrap();
        let (k, a, chain) = (key("f"), Incarnation([1; 16]), Chain([1; 32]));
        for (found, then) in [(Known::Nothing, Held::Exception), (Known::Same(Held::Exception), Held::Record)] {
            let place = index.find(&k, a, 1, chain).unwrap();
            assert_eq!(place, Place { level: 0, known: found });
            index.note(&k, 1, place, a, chain, then);
            index.flush().unwrap();
        }
        assert_eq!(index.find(&k, a, 1, chain).unwrap().known, Known::Same(Held::Record));
    }

    #[test]
    fn entries_stay_through_reopening_and_go_with_clearing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, a) = (dir.path().join("i"), Incarnation([1; 16]));
        let mut index = ChainIndex::open(&path).unwrap();
        for feed in 0..HUB_INDEX_FILES_MAX + 10 {
            let k = key(&format!("f{feed}"));
            for seq in [1, 2, 3, 1 << 38] {
                let place = index.find(&k, a, seq, Chain([7; 32])).unwrap();
                index.note(&k, seq, place, a, Chain([7; 32]), Held::Record);
            }
            index.flush().unwrap();
        }
        assert!(index.files.len() <= HUB_INDEX_FILES_MAX);
        index.sync().unwrap();
        let id = index.id().to_owned();
        let mut index = ChainIndex::open(&path).unwrap();
        assert_eq!(index.id(), id);
        assert_eq!(index.find(&key("f3"), a, 1 << 38, Chain([7; 32])).unwrap().known, Known::Same(Held::Record));
        index.clear().unwrap();
        assert_ne!(index.id(), id);
        assert_eq!(index.find(&key("f3"), a, 2, Chain([7; 32])).unwrap().known, Known::Nothing);
    }
}
