//! What of the cadence outlives a restart: per feed, when something arrived last and whether that was too long ago. Times and names only (I7).
//!
//! One small JSON file in the spool, replaced as a whole (written beside, synced, renamed, directory synced). It is an aid: where it is missing,
//! damaged or could not be written (a full disk), the newest record in the journal says nearly the same, and the worst that comes of it is a
//! silence that is said one deadline late.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::limits::ARRIVALS_FILE_BYTES_MAX;
use crate::record::FeedId;

const NAME: &str = "arrivals.json";

/// Of one feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    #[serde(with = "milliseconds")]
    pub arrived: Option<Timestamp>,
    /// Nothing arrived yet: since when it is looked for.
    #[serde(with = "milliseconds")]
    pub watched_from: Option<Timestamp>,
    /// Something arrived while the clock could not be believed.
    #[serde(default)]
    pub undated: bool,
    #[serde(default)]
    pub silent: bool,
    /// What arrived last came too late for a deadline and stands for that one.
    #[serde(default)]
    pub late: bool,
}

impl Remembered {
    /// As the journal knows it: the time of the newest record.
    #[must_use]
    pub fn or_newer(self, record: Option<Timestamp>) -> Self {
        match record {
            Some(at) if self.arrived.is_none_or(|arrived| at > arrived) && !self.undated => {
                Self { arrived: Some(at), watched_from: None, undated: false, silent: false, late: false }
            }
            _ => self,
        }
    }
}

/// Milliseconds since 1970, as everywhere on disk.
mod milliseconds {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde asks so")]
    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        at.map(Timestamp::as_millisecond).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<i64>::deserialize(deserializer)?.and_then(|ms| Timestamp::from_millisecond(ms).ok()))
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    feeds: BTreeMap<FeedId, Remembered>,
}

/// Nothing where there is nothing that can be used; why, where it is there.
pub fn read(spool: &Path) -> (BTreeMap<FeedId, Remembered>, Option<io::Error>) {
    match read_file(&spool.join(NAME)) {
        Ok(document) if document.version == 1 => (document.feeds, None),
        Ok(_) => (BTreeMap::new(), Some(io::Error::other("it is of another version"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (BTreeMap::new(), None),
        Err(error) => (BTreeMap::new(), Some(error)),
    }
}

fn read_file(path: &Path) -> io::Result<Document> {
    let mut text = Vec::new();
    File::open(path)?.take(ARRIVALS_FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

pub fn write(spool: &Path, feeds: BTreeMap<FeedId, Remembered>) -> io::Result<()> {
    let text = serde_json::to_vec(&Document { version: 1, feeds })?;
    let fresh = spool.join(format!("{NAME}.new"));
    let mut file = File::create(&fresh)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&fresh, spool.join(NAME))?;
    File::open(spool)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Name;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(read(directory.path()), (feeds, None) if feeds.is_empty()));
        let remembered = Remembered { arrived: Some("2026-11-01T05:30:00Z".parse().unwrap()), silent: true, ..Remembered::default() };
        let feeds = BTreeMap::from([(Name::new("cabinet").unwrap(), remembered)]);
        write(directory.path(), feeds.clone()).unwrap();
        assert_eq!(read(directory.path()).0, feeds);
        std::fs::write(directory.path().join(NAME), b"{\"version\":1,\"fee").unwrap();
        assert!(matches!(read(directory.path()), (feeds, Some(_)) if feeds.is_empty()));
    }

    #[test]
    fn a_newer_record_ends_a_remembered_silence() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let silent = Remembered { arrived: at("2026-11-02T06:00:00Z"), silent: true, ..Remembered::default() };
        assert_eq!(silent.or_newer(at("2026-11-02T05:00:00Z")), silent);
        assert!(!silent.or_newer(at("2026-11-02T07:00:00Z")).silent);
    }
}
