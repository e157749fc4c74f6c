//! What alerts remember over a restart, in one small file: `<spool>/alerts`, replaced as a whole (temp → sync → rename → sync of the directory).
//!
//! A file that cannot be read remembers nothing: nothing is silenced, and what holds is held and told anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::machine::{Key, Remembered};
use super::windows::{Held, Windows};
use crate::clock::WallTime;
use crate::limits::{ALERTS_FILE_BYTES_MAX, MAINTENANCE_TIME_MAX};
use crate::record::FeedId;
use crate::spool::disk::Disk;
use crate::spool::format::{decode_block, encode_block};
use crate::status::condition::Code;

const MAGIC: [u8; 8] = *b"SWALERT1";
const FILE: &str = "alerts";
const FRESH: &str = "alerts.new";

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// How often an agent was started on this spool.
    pub starts: u64,
    pub windows: Windows,
    pub alerts: BTreeMap<Key, Remembered>,
    /// Feeds whose sender keeps its connection.
    pub standing: BTreeSet<FeedId>,
    /// How long what is critical had waited.
    pub oldest: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
enum Content {
    V1(MemoryV1),
}

#[derive(Debug, Serialize, Deserialize)]
struct MemoryV1 {
    starts: u64,
    last_window: u64,
    windows: Vec<WindowV1>,
    /// Code, subject, held, told.
    alerts: Vec<(String, String, u64, bool)>,
    standing: Vec<String>,
    oldest_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct WindowV1 {
    id: u64,
    feed: Option<String>,
    who: String,
    reason: String,
    set_at_ms: i64,
    clock_suspect: bool,
    asked_ms: u64,
    left_ms: u64,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Memory> for MemoryV1 {
    fn from(memory: &Memory) -> Self {
        let window = |held: &Held| WindowV1 {
            id: held.id,
            feed: held.feed.as_ref().map(ToString::to_string),
            who: held.who.clone(),
            reason: held.reason.clone(),
            set_at_ms: held.set_at.unix_ms,
            clock_suspect: held.set_at.suspect,
            asked_ms: ms(held.asked),
            left_ms: ms(held.charged),
        };
        let alert = |((code, subject), kept): (&Key, &Remembered)| (code.as_str().to_owned(), subject.clone(), ms(kept.held), kept.told);
        Self {
            starts: memory.starts,
            last_window: memory.windows.last_id(),
            windows: memory.windows.list().iter().map(window).collect(),
            alerts: memory.alerts.iter().map(alert).collect(),
            standing: memory.standing.iter().map(ToString::to_string).collect(),
            oldest_ms: ms(memory.oldest),
        }
    }
}

impl WindowV1 {
    /// A window of which something cannot be read silences nothing.
    fn read(self) -> Option<Held> {
        let feed = self.feed.map(|feed| FeedId::new(&feed)).transpose().ok()?;
        let left = Duration::from_millis(self.left_ms).min(MAINTENANCE_TIME_MAX);
        Some(Held {
            id: self.id,
            feed,
            who: self.who,
            reason: self.reason,
            set_at: WallTime { unix_ms: self.set_at_ms, suspect: self.clock_suspect },
            asked: Duration::from_millis(self.asked_ms).min(MAINTENANCE_TIME_MAX),
            left,
            charged: left,
        })
    }
}

impl From<MemoryV1> for Memory {
    fn from(read: MemoryV1) -> Self {
        // Codes of another version are nobody's here.
        let alert = |(code, subject, held, told): (String, String, u64, bool)| {
            Some(((Code::read(&code)?, subject), Remembered { held: Duration::from_millis(held), told }))
        };
        Self {
            starts: read.starts,
            windows: Windows::of(read.windows.into_iter().filter_map(WindowV1::read).collect(), read.last_window),
            alerts: read.alerts.into_iter().filter_map(alert).collect(),
            standing: read.standing.iter().filter_map(|feed| FeedId::new(feed).ok()).collect(),
            oldest: Duration::from_millis(read.oldest_ms),
        }
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct Store {
    pub disk: Arc<dyn Disk>,
    pub spool: PathBuf,
}

impl Store {
    /// What the last run left. Blocking.
    pub fn read(&self) -> Memory {
        match self.try_read() {
            Ok(memory) => memory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::default(),
            Err(error) => {
                let path = self.spool.join(FILE);
                tracing::error!(path = %path.display(), "what alerts remember cannot be read ({error}); no maintenance window holds");
                Memory::default()
            }
        }
    }

    fn try_read(&self) -> io::Result<Memory> {
        let file = self.disk.open_read(&self.spool.join(FILE))?;
        let mut bytes = vec![0; usize::try_from(file.len()?.min(ALERTS_FILE_BYTES_MAX)).unwrap_or(0)];
        let n = file.read_at(0, &mut bytes)?;
        let Content::V1(memory) = decode_block(MAGIC, &bytes[..n]).ok_or_else(|| io::Error::other("the file is damaged"))?;
        Ok(memory.into())
    }

    /// Durable when this returns. Blocking.
    pub fn write(&self, memory: &Memory) -> io::Result<()> {
        let (path, fresh) = (self.spool.join(FILE), self.spool.join(FRESH));
        match self.disk.remove(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&fresh, 0)?;
        file.write_at(0, &encode_block(MAGIC, &Content::V1(memory.into())))?;
        file.sync_data()?;
        self.disk.rename(&fresh, &path)?;
        self.disk.sync_dir(&self.spool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::windows::Wish;
    use crate::spool::disk::RealDisk;

    #[test]
    fn what_is_remembered_survives_and_a_damaged_file_silences_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { disk: Arc::new(RealDisk), spool: directory.path().to_owned() };
        assert_eq!(store.read(), Memory::default());
        let mut windows = Windows::default();
        let lab = FeedId::new("lab").unwrap();
        for feed in [None, Some(lab.clone())] {
            let wish = Wish { feed, time: Duration::from_secs(80), who: "kim".into(), reason: "works".into() };
            windows.start(wish, WallTime { unix_ms: 7, suspect: true }).unwrap();
        }
        windows.charge();
        let alerts = BTreeMap::from([((Code::UplinkDown, String::new()), Remembered { held: Duration::from_secs(9), told: true })]);
        let memory = Memory { starts: 3, windows, alerts, standing: BTreeSet::from([lab]), oldest: Duration::from_secs(5) };
        store.write(&memory).unwrap();
        let read = store.read();
        assert_eq!(
            read.windows.list().iter().map(|held| held.left.as_secs()).collect::<Vec<_>>(),
            [70, 70],
            "the slice that ran is charged"
        );
        assert_eq!(Memory { windows: memory.windows.clone(), ..read.clone() }, memory);
        assert_eq!(read.windows.last_id(), 2);
        std::fs::write(directory.path().join(FILE), b"SWALERT1 torn").unwrap();
        assert_eq!(store.read(), Memory::default());
    }
}
