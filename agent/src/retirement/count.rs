//! What would be lost: records that the hub has not confirmed, and what lies in quarantine, by feed. From the spool itself, with no agent on it.

use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::settings::Settings;
use crate::record::FeedId;
use crate::spool::{self, Spool};
use crate::status::board::Board;

/// Of one feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    pub feed: FeedId,
    /// Not confirmed by the hub, both ends included. Some of them may have been sent.
    pub first_seq: u64,
    pub last_seq: u64,
}

/// What a spool holds that is nowhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    pub unsettled: Vec<Unsettled>,
    pub quarantined: u64,
    /// Why nobody knows; null: it was counted.
    pub unknown: Option<String>,
}

impl Loss {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub fn records(&self) -> u64 {
        self.unsettled.iter().map(|feed| feed.last_seq - feed.first_seq + 1).sum()
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(why) = &self.unknown {
            return write!(f, "an unknown number of records, since the spool cannot be read ({why})");
        }
        write!(f, "{} records that the hub has not confirmed", self.records())?;
        for feed in &self.unsettled {
            write!(f, ", feed {} seq {} to {}", feed.feed, feed.first_seq, feed.last_seq)?;
        }
        write!(f, "; {} in quarantine", self.quarantined)
    }
}

/// Opens the spool as the agent does, looks, and closes it. Needs its lock, which is given back.
pub fn count(settings: &Settings, lock: spool::Lock) -> (Loss, Option<spool::Lock>) {
    let options = spool::Options {
        path: settings.spool.path.clone(),
        max_bytes: settings.spool.max_bytes,
        key: settings.spool.key.clone(),
        message_bytes_max: settings.spool.message_bytes_max,
        feeds: settings.feeds.iter().map(|feed| (feed.id.clone(), feed.lane)).collect(),
    };
    let board = Board::new(settings.feeds.iter().map(|feed| feed.id.clone()));
    let Spool { appender, reader, monitor, closer, recent, resends, kept, lock } = match spool::open_locked(options, lock, &board) {
        Ok(spool) => spool,
        Err(error) => return (Loss { unknown: Some(error.to_string()), ..Loss::default() }, None),
    };
    let feeds = monitor.view().feeds.into_iter().filter(|feed| feed.last_seq > feed.settled_seq);
    let unsettled = feeds.map(|feed| Unsettled { feed: feed.id, first_seq: feed.settled_seq + 1, last_seq: feed.last_seq }).collect();
    let (quarantined, unknown) = match monitor.quarantined(None, 0) {
        Ok((_, count)) => (count, None),
        Err(error) => (0, Some(format!("its quarantine cannot be listed: {error}"))),
    };
    drop((appender, reader, resends, kept));
    recent.stop(); // before its database is closed
    closer.close();
    if let Err(error) = give_back(&settings.spool.path) {
        let why = format!("its files cannot be given back to the agent's user: {error}; run chown -R on it before the agent starts again");
        return (Loss { unsettled, quarantined, unknown: Some(why) }, Some(lock));
    }
    (Loss { unsettled, quarantined, unknown }, Some(lock))
}

/// What root opened is the agent's again: files made meanwhile go to whom the spool belongs, or the agent could not open it.
fn give_back(spool: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(spool)?;
    let mut directories = vec![spool.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.metadata()?.uid() != owner.uid() {
                lchown(entry.path(), Some(owner.uid()), Some(owner.gid()))?;
            }
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(())
}
