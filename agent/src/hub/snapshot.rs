//! The ledger beside the output: saved now and then, so that a start does not read the whole output.
//!
//! ```text
//!   siteward-hub-ledger 1 <crc32c of the rest, hex>\n
//!   {"covered": output offset, "fingerprint": …, "index": id, "ledger": […]}
//! ```
//!
//! Written to a temporary file, synced, renamed, directory synced. It is a convenience: where it is missing, damaged, of another version or of
//! another output, the ledger is rebuilt from the output.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::ledger::Ledger;
use super::output::sync_parent;
use crate::limits::HUB_SNAPSHOT_BYTES_MAX;

const TITLE: &str = "siteward-hub-ledger 1";

/// What is saved.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The ledger holds everything of the output before this offset.
    pub covered: u64,
    /// Of the bytes before `covered`.
    pub fingerprint: u32,
    /// The index that belongs to it.
    pub index: String,
    pub ledger: Ledger,
}

/// Why there is no ledger to start from; each leads to a rebuild.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("there is none")]
    Missing,
    #[error("cannot read it")]
    Read(#[source] io::Error),
    #[error("it is damaged or of another version")]
    Damaged,
}

pub fn save(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let body = serde_json::to_vec(snapshot)?;
    let temporary = path.with_extension("ledger.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{TITLE} {:08x}", crc32c::crc32c(&body))?;
    file.write_all(&body)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_parent(path)
}

pub fn load(path: &Path) -> Result<Snapshot, LoadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LoadError::Missing),
        Err(error) => return Err(LoadError::Read(error)),
    };
    let mut bytes = Vec::new();
    file.take(HUB_SNAPSHOT_BYTES_MAX).read_to_end(&mut bytes).map_err(LoadError::Read)?;
    let head = TITLE.len() + 10; // a space, eight digits, a line end
    let body = bytes.get(head..).ok_or(LoadError::Damaged)?;
    if bytes[..head] != *format!("{TITLE} {:08x}\n", crc32c::crc32c(body)).as_bytes() {
        return Err(LoadError::Damaged);
    }
    serde_json::from_slice(body).map_err(|_| LoadError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::super::ledger::AccountKey;
    use super::*;
    use crate::contract::Mark;
    use crate::record::{Chain, Incarnation, Name};

    #[test]
    fn one_damaged_bit_anywhere_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl.ledger");
        assert!(matches!(load(&path), Err(LoadError::Missing)));
        let mut ledger = Ledger::default();
        let name = Name::new("x").unwrap();
        let key = AccountKey { site: name.clone(), gateway: name.clone(), feed: name };
        ledger.entry(&key).account.begin(Incarnation([1; 16]), Mark { seq: 3, chain: Chain([2; 32]) });
        save(&path, &Snapshot { covered: 9, fingerprint: 7, index: "i".into(), ledger: ledger.clone() }).unwrap();
        let loaded = load(&path).unwrap();
        assert_eq!((loaded.covered, loaded.ledger), (9, ledger));
        let good = std::fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bad).unwrap();
            assert!(matches!(load(&path), Err(LoadError::Damaged)), "bit {bit}");
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(matches!(load(&path), Err(LoadError::Damaged)));
    }
}
