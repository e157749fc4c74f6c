//! Feeds that somebody paused: nothing is taken from their senders until somebody resumes them, also after a restart.
//!
//! A paused feed has no source: its port is closed, its directory is not looked at; senders keep what they have and see that nobody listens (an HTTP
//! feed that shares its port with others is answered as one that is not there). What it holds is forwarded as before. Which feeds are paused
//! stands in one small file (see `spool::small`), written before the source stops or starts, so that after a crash in between it says what was asked
//! for. A file that cannot be read pauses nothing: capturing is what this gateway is for.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::Sources;
use crate::clock;
use crate::limits::{FEEDS_KNOWN_MAX, HISTORY_NAME_BYTES_MAX, HISTORY_REASON_BYTES_MAX, PAUSE_ENDS, PAUSES_BYTES_MAX};
use crate::record::FeedId;
use crate::rollout::facts::cut;
use crate::spool::disk::Disk;
use crate::spool::small::{Kind, SmallFile};
use crate::status::board::Board;
use crate::status::condition::Code;

const KIND: Kind = Kind {
    name: "paused",
    magic: *b"SWPAUSE1",
    bytes_max: PAUSES_BYTES_MAX,
    says: "which feeds are paused",
    without: "none is, pause them again",
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Content {
    V1(BTreeMap<String, Pause>),
}

impl Default for Content {
    fn default() -> Self {
        Self::V1(BTreeMap::new())
    }
}

/// Who paused a feed, why and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub who: String,
    pub why: String,
    pub at_ms: i64,
}

impl Pause {
    pub fn now(who: &str, why: &str) -> Self {
        Self { who: cut(who, HISTORY_NAME_BYTES_MAX), why: cut(why, HISTORY_REASON_BYTES_MAX), at_ms: clock::now().unix_ms }
    }
}

/// The file, and what it says.
#[derive(Debug)]
pub struct Pauses {
    file: SmallFile,
    paused: BTreeMap<FeedId, Pause>,
}

impl Pauses {
    /// Blocking.
    pub fn open(disk: Arc<dyn Disk>, spool: &Path) -> Self {
        let file = SmallFile::new(disk, spool, &KIND);
        let Content::V1(all) = file.read().unwrap_or_default();
        Self { file, paused: all.into_iter().filter_map(|(feed, pause)| Some((FeedId::new(&feed).ok()?, pause))).collect() }
    }

    pub fn is_paused(&self, feed: &FeedId) -> bool {
        self.paused.contains_key(feed)
    }

    /// Pauses a feed, or resumes it; durable when this returns. `Err`: all is as it was, a sentence.
    pub fn set(&mut self, feed: &FeedId, pause: Option<Pause>) -> Result<(), String> {
        let mut next = self.paused.clone();
        match pause {
            Some(_) if next.len() >= FEEDS_KNOWN_MAX => return Err("as many feeds are paused as may be; resume one".to_owned()),
            Some(pause) => drop(next.insert(feed.clone(), pause)),
            None => drop(next.remove(feed)),
        }
        let Err(error) = self.keep(&next) else {
            self.paused = next;
            return Ok(());
        };
        // The rename may have come through, and only the sync behind it failed.
        let rest =
            if self.keep(&self.paused).is_ok() { "" } else { ", though a restart may find it so: ask once more when the disk works" };
        Err(format!("what is paused could not be written ({error}); nothing was changed{rest}; check the disk of the spool"))
    }

    fn keep(&self, paused: &BTreeMap<FeedId, Pause>) -> io::Result<()> {
        let all: BTreeMap<_, _> = paused.iter().map(|(feed, pause)| (feed.to_string(), pause.clone())).collect();
        self.file.write((!all.is_empty()).then_some(&Content::V1(all)))
    }

    /// The conditions of the feeds that are configured; others have none.
    fn tell(&self, board: &Board, is_wanted: impl Fn(&FeedId) -> bool) {
        for (feed, pause) in &self.paused {
            if is_wanted(feed) {
                let (who, why, at) = (&pause.who, &pause.why, clock::rfc3339(pause.at_ms));
                let text = format!("nothing is taken from its senders: paused by {who} at {at} ({why}); `siteward feeds resume` ends it");
                board.raise(Code::FeedPaused, feed.as_str(), text);
            } else {
                board.clear(Code::FeedPaused, feed.as_str());
            }
        }
    }
}

impl Sources {
    pub(super) fn is_paused(&self, feed: &FeedId) -> bool {
        self.pauses.is_paused(feed) || self.overlay.is_paused(feed)
    }

    pub(super) fn tell_pauses(&self) {
        self.pauses.tell(&self.parts.board, |feed| self.wanted.iter().any(|wanted| wanted.id == *feed));
    }

    /// Stops a feed's source, or starts it again. `Ok`: what became of it, a sentence; `Err`: it is as it was.
    pub(super) async fn set_paused(&mut self, feed: &FeedId, pause: Option<Pause>) -> Result<String, String> {
        let (is_wanted, was_paused) = (self.wanted.iter().any(|wanted| wanted.id == *feed), self.pauses.is_paused(feed));
        match (&pause, is_wanted, was_paused) {
            (Some(_), false, _) => return Err(format!("this gateway has no feed `{feed}` to pause; see `siteward feeds`")),
            (Some(_), true, true) => return Ok(format!("feed {feed} was paused already")),
            (None, _, false) => return Ok(format!("feed {feed} was not paused")),
            _ => {}
        }
        let pauses = pause.is_some();
        block_in_place(|| self.pauses.set(feed, pause))?;
        if !pauses {
            self.parts.board.clear(Code::FeedPaused, feed.as_str());
            let faults = self.reconcile(false).await;
            if self.overlay.is_paused(feed) {
                return Ok(format!(
                    "feed {feed} is resumed, but an override still pauses it; `siteward override clear --feed {feed}` ends that one"
                ));
            }
            return Ok(match faults.into_iter().find(|fault| fault.feed == *feed) {
                None => format!("feed {feed} is resumed"),
                Some(fault) => format!("feed {feed} is resumed, but {fault}; it is tried again"),
            });
        }
        self.tell_pauses();
        let gone = self.stop_unwanted().await;
        drop(self.reconcile(true).await); // closes ports that nobody has; faults stand on the board
        let all = async {
            for ended in gone {
                drop(ended.await); // an error is its end as well
            }
        };
        let has_ended = timeout(PAUSE_ENDS, all).await.is_ok();
        let rest = if has_ended { "" } else { "; connections that are in the middle of a message end behind it" };
        Ok(format!("feed {feed} is paused: nobody is listened to{rest}; what it holds is still forwarded"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::disk::RealDisk;
    use crate::spool::faulty::{Call, Faulty};

    #[test]
    fn the_file_keeps_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let mut pauses = Pauses::open(Arc::new(RealDisk), directory.path());
        for feed in ["a", "lab"] {
            let pause = Pause { who: "kim".into(), why: "moving".into(), at_ms: 7 };
            pauses.set(&FeedId::new(feed).unwrap(), Some(pause)).unwrap();
        }
        let bytes = std::fs::read(directory.path().join(KIND.name)).unwrap();
        let fixed = b"SWPAUSE1 \0\0\0}a\x9aM\0\x02\x01a\x03kim\x06moving\x0e\x03lab\x03kim\x06moving\x0e";
        assert_eq!(bytes.escape_ascii().to_string(), fixed.escape_ascii().to_string());
    }

    #[test]
    fn what_is_paused_survives_and_a_damaged_file_pauses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Pauses::open(Arc::new(RealDisk), directory.path());
        let (a, b) = (FeedId::new("a").unwrap(), FeedId::new("b").unwrap());
        open().set(&a, Some(Pause::now("kim", "moving"))).unwrap();
        let mut pauses = open();
        assert!(pauses.is_paused(&a) && !pauses.is_paused(&b));
        pauses.set(&b, Some(Pause::now("kim", "moving"))).unwrap();
        pauses.set(&a, None).unwrap();
        let mut pauses = open();
        assert!(!pauses.is_paused(&a) && pauses.is_paused(&b));
        pauses.set(&b, None).unwrap();
        assert!(!directory.path().join(KIND.name).exists());
        std::fs::write(directory.path().join(KIND.name), b"SWPAUSE1 torn").unwrap();
        assert!(!open().is_paused(&a));
    }

    /// The rename came through, and the sync behind it did not: a start must find what was answered.
    #[test]
    fn a_change_that_failed_half_way_is_undone_on_the_disk_too() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(Faulty::default());
        let mut pauses = Pauses::open(Arc::clone(&disk) as Arc<dyn Disk>, directory.path());
        let found = |feed: &FeedId| Pauses::open(Arc::new(RealDisk), directory.path()).is_paused(feed);
        let a = FeedId::new("a").unwrap();
        disk.fail(&[Call::SyncDir]);
        let told = pauses.set(&a, Some(Pause::now("kim", "moving"))).unwrap_err();
        assert!(told.contains("nothing was changed; check") && !pauses.is_paused(&a) && !found(&a), "{told}");
        pauses.set(&a, Some(Pause::now("kim", "moving"))).unwrap();
        disk.fail(&[Call::SyncDir]);
        assert!(pauses.set(&a, None).is_err() && pauses.is_paused(&a) && found(&a));
        disk.fail(&[Call::SyncDir, Call::Create]);
        let told = pauses.set(&a, None).unwrap_err();
        assert!(told.contains("a restart may find it so"), "{told}");
    }
}
