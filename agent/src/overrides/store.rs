//! The overrides that hold, in one small file: `<spool>/overrides`, replaced as a whole (temp → sync → rename → sync of the directory). The last one
//! that ends removes it, which works on a full disk too.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Change, Override, Overrides};
use crate::clock::WallTime;
use crate::config::network_of;
use crate::limits::{OVERRIDE_TIME_MAX, OVERRIDES_FILE_BYTES_MAX};
use crate::record::FeedId;
use crate::spool::disk::Disk;
use crate::spool::format::{decode_block, encode_block};

const MAGIC: [u8; 8] = *b"SWOVERR1";
const FILE: &str = "overrides";
const FRESH: &str = "overrides.new";

#[derive(Debug, Serialize, Deserialize)]
enum Content {
    V1(Vec<EntryV1>),
}

#[derive(Debug, Serialize, Deserialize)]
struct EntryV1 {
    feed: String,
    change: ChangeV1,
    who: String,
    reason: String,
    set_at_ms: i64,
    clock_suspect: bool,
    asked_ms: u64,
    left_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
enum ChangeV1 {
    Port(u16),
    Peers(Vec<String>),
    Pause,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Override> for EntryV1 {
    fn from(one: &Override) -> Self {
        Self {
            feed: one.feed.to_string(),
            change: match &one.change {
                Change::Port(port) => ChangeV1::Port(*port),
                Change::Peers(peers) => ChangeV1::Peers(peers.iter().map(ToString::to_string).collect()),
                Change::Pause => ChangeV1::Pause,
            },
            who: one.who.clone(),
            reason: one.reason.clone(),
            set_at_ms: one.set_at.unix_ms,
            clock_suspect: one.set_at.suspect,
            asked_ms: ms(one.asked),
            left_ms: ms(one.charged),
        }
    }
}

impl EntryV1 {
    fn read(self) -> Option<Override> {
        let change = match self.change {
            ChangeV1::Port(port) => Change::Port(port),
            // A list of which one entry cannot be read must not let in more, or fewer, than was asked.
            ChangeV1::Peers(peers) => Change::Peers(peers.iter().map(|text| network_of(text).ok()).collect::<Option<_>>()?),
            ChangeV1::Pause => Change::Pause,
        };
        let left = Duration::from_millis(self.left_ms).min(OVERRIDE_TIME_MAX);
        Some(Override {
            feed: FeedId::new(&self.feed).ok()?,
            change,
            who: self.who,
            reason: self.reason,
            set_at: WallTime { unix_ms: self.set_at_ms, suspect: self.clock_suspect },
            asked: Duration::from_millis(self.asked_ms),
            left,
            charged: left,
        })
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct Store {
    pub disk: Arc<dyn Disk>,
    pub spool: PathBuf,
}

impl Store {
    /// What held when the agent stopped, with what is left of it. Blocking.
    pub fn read(&self) -> Overrides {
        match self.try_read() {
            Ok(overrides) => overrides,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Overrides::default(),
            Err(error) => {
                let path = self.spool.join(FILE);
                tracing::error!(path = %path.display(), "the overrides cannot be read ({error}); none holds, set them again");
                Overrides::default()
            }
        }
    }

    fn try_read(&self) -> io::Result<Overrides> {
        let file = self.disk.open_read(&self.spool.join(FILE))?;
        let mut bytes = vec![0; usize::try_from(file.len()?.min(OVERRIDES_FILE_BYTES_MAX)).unwrap_or(0)];
        let n = file.read_at(0, &mut bytes)?;
        let Content::V1(all) = decode_block(MAGIC, &bytes[..n]).ok_or_else(|| io::Error::other("the file is damaged"))?;
        Ok(Overrides::of(all.into_iter().filter_map(EntryV1::read).collect()))
    }

    /// Durable when this returns. Blocking.
    pub fn write(&self, overrides: &Overrides) -> io::Result<()> {
        let (path, fresh) = (self.spool.join(FILE), self.spool.join(FRESH));
        let absent = |removed: io::Result<()>| match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        absent(self.disk.remove(&fresh))?;
        if overrides.list().is_empty() {
            absent(self.disk.remove(&path))?;
        } else {
            let content = Content::V1(overrides.list().iter().map(EntryV1::from).collect());
            let file = self.disk.create(&fresh, 0)?;
            file.write_at(0, &encode_block(MAGIC, &content))?;
            file.sync_data()?;
            self.disk.rename(&fresh, &path)?;
        }
        self.disk.sync_dir(&self.spool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::disk::RealDisk;

    #[test]
    fn what_holds_survives_with_what_is_left_and_a_damaged_file_overrides_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { disk: Arc::new(RealDisk), spool: directory.path().to_owned() };
        assert_eq!(store.read(), Overrides::default());
        let at = WallTime { unix_ms: 7, suspect: true };
        let peers = Change::Peers(vec![network_of("10.1.0.0/16").unwrap(), network_of("2001:db8::/32").unwrap()]);
        let mut overrides = Overrides::default();
        for change in [Change::Port(9000), peers, Change::Pause] {
            let who = ("kim".to_owned(), "moved".to_owned());
            overrides.set(Override::new(FeedId::new("a").unwrap(), change, who, at, Duration::from_secs(80))).unwrap();
        }
        overrides.charge();
        store.write(&overrides).unwrap();
        let read = store.read();
        assert_eq!(read.list().iter().map(|one| one.left.as_secs()).collect::<Vec<_>>(), [70, 70, 70], "the slice that ran is charged");
        let same = |one: &Override| Override { left: Duration::ZERO, charged: Duration::ZERO, ..one.clone() };
        assert!(read.list().iter().map(same).eq(overrides.list().iter().map(same)));
        std::fs::write(directory.path().join(FILE), b"SWOVERR1 torn").unwrap();
        assert_eq!(store.read(), Overrides::default());
        store.write(&Overrides::default()).unwrap();
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none());
    }
}
