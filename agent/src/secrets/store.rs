//! The secrets that were set on the box: one file in the spool, sealed with what the spool key gives.
//!
//! ```text
//!   <spool>/secrets (0600)   "SWSECRT1" ‖ length ‖ CRC ‖ [{ name, set_at, nonce, place, sealed value ‖ tag }]      names and times are not sealed
//! ```
//!
//! 1. There is one writer at a time: the agent, or with the agent stopped a command that holds the spool's lock.
//! 2. A change writes the whole file anew: `secrets.new` → sync → rename → sync of the directory. A crash leaves the old or the new.
//! 3. Name and time are associated data of the seal: a value cannot be put under another name.
//! 4. Names can be listed without the spool key; whoever may read the file may know them.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Value;
use crate::clock::WallTime;
use crate::limits::{SECRET_BYTES_MAX, SECRETS_FILE_BYTES_MAX, SECRETS_MAX};
use crate::record::Nonce;
use crate::spool::disk::Disk;
use crate::spool::format::{decode_block, encode_block};
use crate::spool::key::{SEAL_BYTES, SpoolKey};

const MAGIC: [u8; 8] = *b"SWSECRT1";
pub(super) const FILE: &str = "secrets";
const FRESH: &str = "secrets.new";

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Content {
    V1(Vec<EntryV1>),
}

#[derive(Clone, Serialize, Deserialize)]
struct EntryV1 {
    name: String,
    set_at_ms: i64,
    clock_suspect: bool,
    nonce: [u8; 16],
    place: u64,
    /// The tag at its end.
    sealed: Vec<u8>,
}

impl std::fmt::Debug for EntryV1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// What may be told of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub name: String,
    pub set_at: WallTime,
}

/// Why the store does not do as asked. No value and no name of a file's owner in it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: {source}; check the disk and the rights of this user", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is damaged; remove it and set the secrets again with `siteward secret set`", .0.display())]
    Damaged(PathBuf),
    #[error("this gateway keeps {SECRETS_MAX} secrets already; remove one with `siteward secret remove`")]
    Full,
    #[error("a secret has 1 to {SECRET_BYTES_MAX} bytes")]
    Size,
    #[error("the system gives no random numbers")]
    Random(#[from] getrandom::Error),
}

/// The file, as it is now.
#[derive(Debug)]
pub struct Store<'d> {
    disk: &'d dyn Disk,
    spool: &'d Path,
    entries: Vec<EntryV1>,
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

impl<'d> Store<'d> {
    /// A file that is not there holds nothing. Blocking.
    pub fn open(disk: &'d dyn Disk, spool: &'d Path) -> Result<Self, StoreError> {
        let path = spool.join(FILE);
        let file = match disk.open_read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { disk, spool, entries: Vec::new() }),
            Err(error) => return Err(io(&path)(error)),
        };
        let len = file.len().map_err(io(&path))?;
        if len > SECRETS_FILE_BYTES_MAX {
            return Err(StoreError::Damaged(path));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = file.read_at(0, &mut bytes).map_err(io(&path))?;
        let Some(Content::V1(entries)) = decode_block(MAGIC, &bytes[..read]) else { return Err(StoreError::Damaged(path)) };
        Ok(Self { disk, spool, entries })
    }

    /// By name.
    pub fn list(&self) -> Vec<Known> {
        let known = |entry: &EntryV1| Known {
            name: entry.name.clone(),
            set_at: WallTime { unix_ms: entry.set_at_ms, suspect: entry.clock_suspect },
        };
        self.entries.iter().map(known).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// The value; `Err`: it was sealed with another spool key, or the file was tampered with.
    pub fn value(&self, name: &str, key: &SpoolKey) -> Option<Result<Value, StoreError>> {
        let entry = self.entries.iter().find(|entry| entry.name == name)?;
        let mut value = Value::new(entry.sealed.clone());
        let body = value.len().saturating_sub(SEAL_BYTES);
        let tag = value.split_off(body);
        let opened = key.secrets().open(&Nonce(entry.nonce), entry.place, &aad(name, entry.set_at_ms), &mut value, &tag);
        Some(opened.map(|()| value).map_err(|_| StoreError::Damaged(self.spool.join(FILE))))
    }

    /// Sets a value, in place of an earlier one of this name; durable when this returns. `owner`: whom the file is to belong to.
    pub fn set(&mut self, name: &str, value: &[u8], at: WallTime, key: &SpoolKey, owner: Option<(u32, u32)>) -> Result<(), StoreError> {
        if value.is_empty() || value.len() > SECRET_BYTES_MAX {
            return Err(StoreError::Size);
        }
        if !self.has(name) && self.entries.len() >= SECRETS_MAX {
            return Err(StoreError::Full);
        }
        let (mut nonce, mut place) = ([0; 16], [0; 8]);
        getrandom::fill(&mut nonce)?;
        getrandom::fill(&mut place)?;
        let place = u64::from_le_bytes(place);
        let mut sealed = Vec::with_capacity(value.len() + SEAL_BYTES); // sealed in place, so that no copy of the value stays behind
        sealed.extend_from_slice(value);
        let tag = key.secrets().seal(&Nonce(nonce), place, &aad(name, at.unix_ms), &mut sealed);
        sealed.extend_from_slice(&tag);
        let entry = EntryV1 { name: name.to_owned(), set_at_ms: at.unix_ms, clock_suspect: at.suspect, nonce, place, sealed };
        let mut entries: Vec<EntryV1> = self.entries.iter().filter(|entry| entry.name != name).cloned().collect();
        entries.push(entry);
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        self.write(entries, owner)
    }

    /// True: it was there. Durable when this returns.
    pub fn remove(&mut self, name: &str, owner: Option<(u32, u32)>) -> Result<bool, StoreError> {
        if !self.has(name) {
            return Ok(false);
        }
        let entries = self.entries.iter().filter(|entry| entry.name != name).cloned().collect();
        self.write(entries, owner).map(|()| true)
    }

    fn write(&mut self, entries: Vec<EntryV1>, owner: Option<(u32, u32)>) -> Result<(), StoreError> {
        let (path, fresh) = (self.spool.join(FILE), self.spool.join(FRESH));
        let content = Content::V1(entries);
        let bytes = encode_block(MAGIC, &content);
        match self.disk.remove(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(&fresh)(error)),
            _ => {}
        }
        let file = self.disk.create(&fresh, 0).map_err(io(&fresh))?;
        file.write_at(0, &bytes).and_then(|()| file.sync_data()).map_err(io(&fresh))?;
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(&fresh, Some(user), Some(group)).map_err(io(&fresh))?;
        }
        self.disk.rename(&fresh, &path).map_err(io(&path))?;
        self.disk.sync_dir(self.spool).map_err(io(self.spool))?;
        let Content::V1(entries) = content;
        self.entries = entries;
        Ok(())
    }
}

fn aad(name: &str, set_at_ms: i64) -> Vec<u8> {
    [name.as_bytes(), &set_at_ms.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::disk::RealDisk;
    use std::os::unix::fs::PermissionsExt as _;

    const AT: WallTime = WallTime { unix_ms: crate::clock::RELEASED_AT_MS, suspect: false };

    /// I7: a value is on disk sealed only, in a file of its owner's.
    #[test]
    fn a_value_comes_back_and_is_nowhere_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let key = SpoolKey::from_bytes([3; 32]);
        let open = || Store::open(&RealDisk, directory.path()).unwrap();
        open().set("lab", b"canary-secret", AT, &key, None).unwrap();
        open().set("a", b"first", AT, &key, None).unwrap();
        open().set("a", b"second", AT, &key, None).unwrap();
        let store = open();
        assert_eq!(store.value("lab", &key).unwrap().unwrap().as_slice(), b"canary-secret");
        assert_eq!(store.value("a", &key).unwrap().unwrap().as_slice(), b"second");
        assert!(store.value("none", &key).is_none());
        assert_eq!(store.list().iter().map(|known| known.name.as_str()).collect::<Vec<_>>(), ["a", "lab"]);
        let path = directory.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(6).any(|w| w == b"canary") && !bytes.windows(6).any(|w| w == b"second"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{store:?}").contains("canary"));
        assert!(open().remove("lab", None).unwrap() && !open().remove("lab", None).unwrap());
        assert!(!open().has("lab"));
    }

    #[test]
    fn another_key_a_swapped_name_and_a_damaged_file_give_no_value() {
        let directory = tempfile::tempdir().unwrap();
        let key = SpoolKey::from_bytes([3; 32]);
        let mut store = Store::open(&RealDisk, directory.path()).unwrap();
        store.set("aa", b"one", AT, &key, None).unwrap();
        store.set("bb", b"two", AT, &key, None).unwrap();
        assert!(store.value("aa", &SpoolKey::from_bytes([4; 32])).unwrap().is_err());
        store.entries[0].name = "bb".into();
        store.entries[1].name = "aa".into();
        assert!(store.value("aa", &key).unwrap().is_err());
        std::fs::write(directory.path().join(FILE), b"SWSECRT1 torn").unwrap();
        assert!(matches!(Store::open(&RealDisk, directory.path()), Err(StoreError::Damaged(_))));
        assert!(matches!(store.set("c", b"", AT, &key, None), Err(StoreError::Size)));
        assert!(matches!(store.set("c", &vec![0; SECRET_BYTES_MAX + 1], AT, &key, None), Err(StoreError::Size)));
    }
}
