//! What alerts remember over a restart, in one small file: `<spool>/alerts` (see `spool::small`).
//!
//! A file that cannot be read remembers nothing: nothing is silenced, and what holds is held and told anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::machine::{Key, Remembered};
use super::windows::{Planned, Scope, Windows};
use crate::limits::{ALERTS_FILE_BYTES_MAX, MAINTENANCE_TIME_MAX};
use crate::record::FeedId;
use crate::spool::disk::Disk;
use crate::spool::small::{Kind, SmallFile};
use crate::status::condition::Code;
use crate::timed::{Holding, TimedV1, ms};

const KIND: Kind = Kind {
    name: "alerts",
    magic: *b"SWALERT1",
    bytes_max: ALERTS_FILE_BYTES_MAX,
    says: "what alerts remember",
    without: "no maintenance window holds",
};

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
    /// Where windows are planned.
    V2(MemoryV1, Vec<PlannedV1>),
}

/// Begin, and the window.
type PlannedV1 = (i64, TimedV1<(u64, Option<String>)>);

#[derive(Debug, Serialize, Deserialize)]
struct MemoryV1 {
    starts: u64,
    last_window: u64,
    /// Id, feed.
    windows: Vec<TimedV1<(u64, Option<String>)>>,
    /// Code, subject, held, told.
    alerts: Vec<(String, String, u64, bool)>,
    standing: Vec<String>,
    oldest_ms: u64,
}

fn written(Scope { id, feed }: &Scope) -> (u64, Option<String>) {
    (*id, feed.as_ref().map(ToString::to_string))
}

/// A window of which something cannot be read silences nothing.
fn scope((id, feed): (u64, Option<String>)) -> Option<Scope> {
    let feed = feed.map(|feed| FeedId::new(&feed)).transpose().ok()?;
    Some(Scope { id, feed })
}

impl From<&Memory> for Content {
    fn from(memory: &Memory) -> Self {
        let planned = |planned: &Planned| (planned.from_ms, planned.held.written(written));
        let planned: Vec<PlannedV1> = memory.windows.planned.iter().map(planned).collect();
        if planned.is_empty() { Self::V1(memory.into()) } else { Self::V2(memory.into(), planned) }
    }
}

impl From<Content> for Memory {
    fn from(read: Content) -> Self {
        let (memory, planned) = match read {
            Content::V1(memory) => (memory, Vec::new()),
            Content::V2(memory, planned) => (memory, planned),
        };
        let mut memory = Self::from(memory);
        let planned =
            planned.into_iter().filter_map(|(from_ms, one)| Some(Planned { held: one.read(MAINTENANCE_TIME_MAX, scope)?, from_ms }));
        memory.windows.planned = planned.collect();
        memory
    }
}

impl From<&Memory> for MemoryV1 {
    fn from(memory: &Memory) -> Self {
        let alert = |((code, subject), kept): (&Key, &Remembered)| (code.as_str().to_owned(), subject.clone(), ms(kept.held), kept.told);
        Self {
            starts: memory.starts,
            last_window: memory.windows.last_id,
            windows: memory.windows.held.written(written),
            alerts: memory.alerts.iter().map(alert).collect(),
            standing: memory.standing.iter().map(ToString::to_string).collect(),
            oldest_ms: ms(memory.oldest),
        }
    }
}

impl From<MemoryV1> for Memory {
    fn from(read: MemoryV1) -> Self {
        // Codes of another version are nobody's here.
        let alert = |(code, subject, held, told): (String, String, u64, bool)| {
            Some(((Code::read(&code)?, subject), Remembered { held: Duration::from_millis(held), told }))
        };
        let held = Holding::read(read.windows, MAINTENANCE_TIME_MAX, scope);
        Self {
            starts: read.starts,
            windows: Windows { held, planned: Vec::new(), last_id: read.last_window },
            alerts: read.alerts.into_iter().filter_map(alert).collect(),
            standing: read.standing.iter().filter_map(|feed| FeedId::new(feed).ok()).collect(),
            oldest: Duration::from_millis(read.oldest_ms),
        }
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct Store(SmallFile);

impl Store {
    pub fn new(disk: Arc<dyn Disk>, spool: &Path) -> Self {
        Self(SmallFile::new(disk, spool, &KIND))
    }

    /// What the last run left. Blocking.
    pub fn read(&self) -> Memory {
        self.0.read::<Content>().map(Memory::from).unwrap_or_default()
    }

    /// Durable when this returns. Blocking.
    pub fn write(&self, memory: &Memory) -> io::Result<()> {
        self.0.write(Some(&Content::from(memory)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::windows::Wish;
    use crate::clock::WallTime;
    use crate::spool::disk::RealDisk;

    /// A window of the gateway and one of a feed, ten of their 80 seconds charged.
    const V1: &[u8] = b"SWALERT1H\0\0\0P\xddD\x89\0\x03\x02\x02\x01\0\x03kim\x05works\x0e\x01\x80\xf1\x04\xf0\xa2\x04\x02\x01\x03lab\x03kim\x05works\x0e\x01\
        \x80\xf1\x04\xf0\xa2\x04\x01\x0buplink_down\0\xa8F\x01\x01\x03lab\x88\x27";

    #[test]
    fn what_is_remembered_survives_and_a_damaged_file_silences_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(Arc::new(RealDisk), directory.path());
        assert_eq!(store.read(), Memory::default());
        let mut windows = Windows::default();
        let lab = FeedId::new("lab").unwrap();
        for feed in [None, Some(lab.clone())] {
            let wish = Wish { feed, time: Duration::from_secs(80), at: None, who: "kim".into(), reason: "works".into() };
            windows.start(wish, None, WallTime { unix_ms: 7, suspect: true }).unwrap();
        }
        windows.held.charge();
        let alerts = BTreeMap::from([((Code::UplinkDown, String::new()), Remembered { held: Duration::from_secs(9), told: true })]);
        let memory = Memory { starts: 3, windows, alerts, standing: BTreeSet::from([lab]), oldest: Duration::from_secs(5) };
        store.write(&memory).unwrap();
        assert_eq!(std::fs::read(directory.path().join(KIND.name)).unwrap().escape_ascii().to_string(), V1.escape_ascii().to_string());
        let read = store.read();
        assert_eq!(
            read.windows.held.list().iter().map(|held| held.left.as_secs()).collect::<Vec<_>>(),
            [70, 70],
            "the slice that ran is charged"
        );
        assert_eq!(Memory { windows: memory.windows.clone(), ..read.clone() }, memory);
        assert_eq!(read.windows.last_id, 2);
        // One that is planned is kept whole, and what holds with it.
        let mut memory = memory;
        let wish = Wish { feed: None, time: Duration::from_secs(80), at: None, who: "kim".into(), reason: "later".into() };
        memory.windows.start(wish, Some(9_000_000), WallTime { unix_ms: 7, suspect: false }).unwrap();
        store.write(&memory).unwrap();
        let read = store.read();
        assert_eq!((&read.windows.planned, read.windows.last_id), (&memory.windows.planned, 3));
        assert_eq!(read.windows.held.list().len(), 2);
        std::fs::write(directory.path().join(KIND.name), b"SWALERT1 torn").unwrap();
        assert_eq!(store.read(), Memory::default());
    }
}
