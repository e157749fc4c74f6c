//! Whether this version may open a spool at all: the number in `<spool>/format`.
//!
//! An agent that meets what a newer one wrote would take it for damage, and set aside what is sound. So the spool says by one number what it is
//! made of ([`SPOOL_FORMAT`]), and whoever knows only smaller numbers leaves it alone: it stops with a sentence, having written nothing. Packages
//! compare the same number before they replace a program by an older one.
//!
//! - The number is read under the lock, before anything of the spool is read, changed or taken away.
//! - No file: format 1. The first agent that comes by writes it. A version with a higher number writes its number, durably, before anything else
//!   that an older one would not understand.
//! - The file is replaced as a whole and its name synced. One that is unreadable all the same is a sick disk's doing, and two digits must not cost
//!   a site its capture: it is written anew, and the log says so.

use std::io;
use std::path::Path;

use super::disk::Disk;
use super::{OpenError, small};

/// What this version writes, and the newest it reads. Raised together with any change that an older version cannot read.
pub const SPOOL_FORMAT: u32 = 1;

const FILE: &str = "format";
const NEW_FILE: &str = "format.new";
/// Longer than any number.
const BYTES_MAX: usize = 16;

/// Lets a spool through that this version knows, and marks one that has no mark.
pub(super) fn admit(disk: &dyn Disk, spool: &Path) -> Result<(), OpenError> {
    let file = spool.join(FILE);
    match read(disk, &file) {
        Ok(Some(found)) if found > SPOOL_FORMAT => return Err(OpenError::Newer { path: spool.to_owned(), found, known: SPOOL_FORMAT }),
        Ok(Some(found)) if found == SPOOL_FORMAT => return Ok(()),
        Ok(Some(_)) => {}
        Ok(None) => tracing::warn!("{} is damaged and is written again; look at the disk", file.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(OpenError::Io { path: file, source }),
    }
    if let Err(error) = write(disk, spool) {
        // Format 1 is what a spool without a mark has, so nothing is lost by it.
        tracing::warn!("{} could not be written: {error}; it is tried again at the next start", file.display());
    }
    Ok(())
}

/// `None`: not a number, or nothing that the disk gives back.
fn read(disk: &dyn Disk, file: &Path) -> io::Result<Option<u32>> {
    let mut bytes = [0; BYTES_MAX];
    let length = match disk.open_read(file)?.read_at(0, &mut bytes) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => return Ok(None),
        read => read?,
    };
    Ok(std::str::from_utf8(&bytes[..length]).ok().and_then(|text| text.trim_end().parse().ok()).filter(|number| *number > 0))
}

fn write(disk: &dyn Disk, spool: &Path) -> io::Result<()> {
    small::replace(disk, &spool.join(NEW_FILE), &spool.join(FILE), format!("{SPOOL_FORMAT}\n").as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::spool::{disk::RealDisk, lock};

    fn left(spool: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_spool_says_what_it_is_made_of_from_its_first_lock_on() {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        drop(lock(&spool).unwrap());
        assert_eq!(fs::read_to_string(spool.join(FILE)).unwrap(), "1\n");
        drop(lock(&spool).unwrap());
        assert_eq!(left(&spool), ["format", "spool.lock"]);
    }

    /// I2: what an older version would take for damage it does not touch.
    #[test]
    fn a_newer_spool_is_refused_with_a_sentence_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "2\n").unwrap();
        let error = lock(directory.path()).unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{told}");
        assert!(told.contains("format 2") && told.contains("nothing was touched") && told.contains("install"), "{told}");
        assert_eq!(left(directory.path()), ["format", "spool.lock"]);
        assert_eq!(fs::read_to_string(directory.path().join(FILE)).unwrap(), "2\n");
    }

    #[test]
    fn a_damaged_mark_does_not_cost_the_site_its_capture() {
        for content in ["", "\0\0\0\0", "0\n", "two\n", "99999999999999999999999"] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(FILE), content).unwrap();
            fs::write(directory.path().join(NEW_FILE), "left over").unwrap();
            admit(&RealDisk, directory.path()).unwrap();
            assert_eq!(fs::read_to_string(directory.path().join(FILE)).unwrap(), "1\n", "{content:?}");
        }
    }
}
