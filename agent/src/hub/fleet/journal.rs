//! The file of alarms: what is raised and what each receiver has not taken yet, so that a restart raises nothing again and loses nothing.
//!
//! ```text
//!   siteward-hub-alarms 1 <crc32c of the rest, hex>\n
//!   {"alarms": […], "lines": {…}}
//! ```
//!
//! Written whole to a temporary file, synced, renamed, directory synced; locked, so that two of us do not tell everything twice. A file that cannot
//! be read is set aside and everything that holds is raised anew: told twice is better than not at all. A full disk is said and tried again;
//! nothing new is sent meanwhile, since its key would be forgotten.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::alarms::Alarms;
use crate::hub::output::sync_parent;
use crate::limits::ALARM_FILE_BYTES_MAX;

const TITLE: &str = "siteward-hub-alarms 1";

/// The open file; whoever has it is the only one.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Held for its lock; the file itself is renamed over, so the lock has a file of its own.
    _lock: File,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl Journal {
    /// Opens or makes it; the alarms it holds. An error is a sentence.
    pub fn open(path: &Path) -> Result<(Self, Alarms), String> {
        let failed = |error: io::Error| format!("{}: cannot be used for alarms: {error}", path.display());
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(beside(path, ".lock")).map_err(failed)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(format!("{}: another `fleet serve` uses it; stop it, or give this one another file", path.display()));
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        let alarms = match read(path) {
            Ok(alarms) => alarms,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Alarms::default(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = beside(path, ".damaged");
                std::fs::rename(path, &aside).map_err(failed)?;
                let aside = aside.display();
                tracing::error!(%aside, "the file of alarms is damaged and was set aside; everything that holds is raised anew");
                Alarms::default()
            }
            Err(error) => return Err(failed(error)),
        };
        Ok((Self { path: path.to_owned(), _lock: lock }, alarms))
    }

    /// Makes these alarms the ones that a restart finds.
    pub fn save(&self, alarms: &Alarms) -> io::Result<()> {
        let body = serde_json::to_vec(alarms)?;
        let fresh = beside(&self.path, ".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{TITLE} {:08x}", crc32c::crc32c(&body))?;
        file.write_all(&body)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        sync_parent(&self.path)
    }
}

fn read(path: &Path) -> io::Result<Alarms> {
    let mut bytes = Vec::new();
    File::open(path)?.take(ALARM_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let head = TITLE.len() + 10; // a space, eight digits, a line end
    let body = bytes.get(head..).ok_or(io::ErrorKind::InvalidData)?;
    if bytes[..head] != *format!("{TITLE} {:08x}\n", crc32c::crc32c(body)).as_bytes() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    serde_json::from_slice(body).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_set_aside_and_a_second_of_us_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alarms");
        let (journal, mut alarms) = Journal::open(&path).unwrap();
        alarms.dropped = 7;
        journal.save(&alarms).unwrap();
        assert!(Journal::open(&path).unwrap_err().contains("another `fleet serve`"));
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().1, alarms);
        let good = std::fs::read(&path).unwrap();
        for cut in [0, 5, good.len() - 1] {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert_eq!(Journal::open(&path).unwrap().1, Alarms::default(), "cut at {cut}");
            assert!(dir.path().join("alarms.damaged").exists());
        }
    }
}
