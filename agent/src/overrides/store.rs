//! The overrides that hold, in one small file: `<spool>/overrides` (see `spool::small`). The last one that ends removes it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Change, Changed, Overrides};
use crate::config::network_of;
use crate::limits::{OVERRIDE_TIME_MAX, OVERRIDES_FILE_BYTES_MAX};
use crate::record::FeedId;
use crate::spool::disk::Disk;
use crate::spool::small::{Kind, SmallFile};
use crate::timed::TimedV1;

const KIND: Kind = Kind {
    name: "overrides",
    magic: *b"SWOVERR1",
    bytes_max: OVERRIDES_FILE_BYTES_MAX,
    says: "the overrides",
    without: "none holds, set them again",
};

#[derive(Debug, Serialize, Deserialize)]
enum Content {
    V1(Vec<TimedV1<ChangedV1>>),
}

#[derive(Debug, Serialize, Deserialize)]
struct ChangedV1 {
    feed: String,
    change: ChangeV1,
}

#[derive(Debug, Serialize, Deserialize)]
enum ChangeV1 {
    Port(u16),
    Peers(Vec<String>),
    Pause,
}

impl From<&Changed> for ChangedV1 {
    fn from(one: &Changed) -> Self {
        let change = match &one.change {
            Change::Port(port) => ChangeV1::Port(*port),
            Change::Peers(peers) => ChangeV1::Peers(peers.iter().map(ToString::to_string).collect()),
            Change::Pause => ChangeV1::Pause,
        };
        Self { feed: one.feed.to_string(), change }
    }
}

impl ChangedV1 {
    fn read(self) -> Option<Changed> {
        let change = match self.change {
            ChangeV1::Port(port) => Change::Port(port),
            // A list of which one entry cannot be read must not let in more, or fewer, than was asked.
            ChangeV1::Peers(peers) => Change::Peers(peers.iter().map(|text| network_of(text).ok()).collect::<Option<_>>()?),
            ChangeV1::Pause => Change::Pause,
        };
        Some(Changed { feed: FeedId::new(&self.feed).ok()?, change })
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct Store(SmallFile);

impl Store {
    pub fn new(disk: Arc<dyn Disk>, spool: &Path) -> Self {
        Self(SmallFile::new(disk, spool, &KIND))
    }

    /// What held when the agent stopped, with what is left of it. Blocking.
    pub fn read(&self) -> Overrides {
        let Some(Content::V1(all)) = self.0.read() else { return Overrides::default() };
        Overrides::read(all, OVERRIDE_TIME_MAX, ChangedV1::read)
    }

    /// Durable when this returns. Blocking.
    pub fn write(&self, overrides: &Overrides) -> io::Result<()> {
        let all = overrides.written(|one| ChangedV1::from(one));
        self.0.write((!all.is_empty()).then_some(&Content::V1(all)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::WallTime;
    use crate::overrides::Override;
    use crate::spool::disk::RealDisk;

    /// Every kind, ten of the 80 seconds charged.
    const V1: &[u8] =
        b"SWOVERR1^\0\0\0\xb9\x9eP\x18\0\x03\x01a\0\xa8F\x03kim\x05moved\x0e\x01\x80\xf1\x04\xf0\xa2\x04\x01a\x01\x02\x0b10.1.0.0/16\
        \r2001:db8::/32\x03kim\x05moved\x0e\x01\x80\xf1\x04\xf0\xa2\x04\x01a\x02\x03kim\x05moved\x0e\x01\x80\xf1\x04\xf0\xa2\x04";

    #[test]
    fn what_holds_survives_with_what_is_left_and_a_damaged_file_overrides_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(Arc::new(RealDisk), directory.path());
        assert_eq!(store.read(), Overrides::default());
        let at = WallTime { unix_ms: 7, suspect: true };
        let peers = Change::Peers(vec![network_of("10.1.0.0/16").unwrap(), network_of("2001:db8::/32").unwrap()]);
        let mut overrides = Overrides::default();
        for change in [Change::Port(9000), peers, Change::Pause] {
            let (who, what) = (("kim".to_owned(), "moved".to_owned()), Changed { feed: FeedId::new("a").unwrap(), change });
            overrides.set(Override::new(what, who, at, Duration::from_secs(80))).unwrap();
        }
        overrides.charge();
        store.write(&overrides).unwrap();
        assert_eq!(std::fs::read(directory.path().join(KIND.name)).unwrap().escape_ascii().to_string(), V1.escape_ascii().to_string());
        let read = store.read();
        assert_eq!(read.list().iter().map(|one| one.left.as_secs()).collect::<Vec<_>>(), [70, 70, 70], "the slice that ran is charged");
        let same = |one: &Override| Override { left: Duration::ZERO, charged: Duration::ZERO, ..one.clone() };
        assert!(read.list().iter().map(same).eq(overrides.list().iter().map(same)));
        std::fs::write(directory.path().join(KIND.name), b"SWOVERR1 torn").unwrap();
        assert_eq!(store.read(), Overrides::default());
        store.write(&Overrides::default()).unwrap();
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none());
    }
}
