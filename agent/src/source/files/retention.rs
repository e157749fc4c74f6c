//! done/ and failed/ are kept for so many days and up to so many bytes, each by itself; this decides what goes, and removes it.
//!
//! Called by [`finish`](super::finish) now and then. Age is a matter of two clocks: ours, and that of the share, which may be years off (I10). A
//! share whose clock is behind makes nothing old; it is asked for its time by an empty file, and only where something would be old by our clock.
//! What is looked at is bounded, and what is remembered of it too (I4): the oldest are remembered, so that the next pass goes on where this one
//! ended. A share that fails is tried again with the next pass.

use std::collections::BinaryHeap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use super::Retention;
use super::finish::is_gone;
use super::pulse::Pulse;
use super::share::{Kind, Share, Stat};
use crate::clock::{self, WallTime};
use crate::limits;

/// What is known of done/ or failed/ when it is to be cleared up.
#[derive(Debug, Default)]
struct Stock {
    /// The oldest of them; by name where the times are the same: a reason comes right behind its file.
    oldest: BinaryHeap<(i64, OsString, u64)>,
    /// Of all of them.
    bytes: u64,
    /// When something was last moved there, by the share's clock.
    newest: i64,
}

impl Stock {
    fn add(&mut self, name: &OsStr, stat: &Stat, most: usize) {
        self.bytes += stat.seen.size;
        self.newest = self.newest.max(stat.changed.0);
        self.oldest.push((stat.changed.0.max(stat.seen.modified.0), name.to_owned(), stat.seen.size));
        if self.oldest.len() > most {
            self.oldest.pop();
        }
    }

    /// Whether something here would be too old if the share's clock were ours.
    fn may_be_old(&self, now: WallTime, retention: Retention) -> bool {
        let oldest = self.oldest.iter().map(|(time, ..)| *time).min();
        oldest.is_some_and(|time| time < now.unix_ms / 1000 - i64::from(retention.days) * 86_400)
    }

    /// What goes, the oldest first. Age is counted by the share's clock where that is behind ours, and believed only while ours is (I10).
    /// `share_now`: what that clock says; without it, when something was last moved.
    fn surplus(self, now: WallTime, share_now: Option<i64>, retention: Retention) -> Vec<OsString> {
        let share_now = share_now.unwrap_or(self.newest);
        let oldest = (now.unix_ms / 1000).min(share_now) - i64::from(retention.days) * 86_400;
        let is_old = |time: i64| retention.days == 0 || (!now.suspect && time < oldest);
        let mut bytes = self.bytes;
        let files = self.oldest.into_sorted_vec().into_iter();
        let gone = files.take_while(|(time, _, size)| {
            let goes = bytes > retention.bytes || is_old(*time);
            bytes = bytes.saturating_sub(*size);
            goes
        });
        gone.map(|(_, name, _)| name).collect()
    }
}

/// What the share's clock says now: when an empty file was made there. `None` where none can be made.
fn share_clock(folder: &str, share: &Share, pulse: &Pulse) -> Option<i64> {
    let path = Path::new(folder).join(".siteward-clock");
    pulse.during("asking a share for its time", || {
        // One that a kill left behind says nothing of now.
        let _ = share.remove(&path);
        share.write_new(&path, b"").ok()?;
        let made = share.stat(&path).ok().map(|stat| stat.changed.0);
        if let Err(error) = share.remove(&path) {
            tracing::debug!("an empty file stays in {folder}/: {error}; the next clearing removes it");
        }
        made
    })
}

/// False: there is more to remove.
pub fn clear_up(folder: &'static str, share: &Share, pulse: &Pulse, retention: Retention) -> bool {
    let mut stock = Stock::default();
    let (what, mut names) = ("looking into done/ or failed/", 0_usize);
    let visited = pulse.during(what, || {
        share.visit(Path::new(folder), limits::RETENTION_NAMES_MAX, |name, stat| {
            names += 1;
            if names.is_multiple_of(limits::RETENTION_NAMES_A_CALL) {
                pulse.goes_on(what);
            }
            if stat.kind == Kind::File {
                stock.add(name, &stat, limits::FILES_PER_SCAN_MAX);
            }
            !pulse.is_stopping()
        })
    });
    match visited {
        Ok(_) => {}
        Err(error) if is_gone(&error) => return true,
        Err(error) => {
            tracing::warn!("{folder}/ cannot be cleared up: {error}");
            return true;
        }
    }
    let now = clock::now();
    let share_now = if stock.may_be_old(now, retention) { share_clock(folder, share, pulse) } else { None };
    let surplus = stock.surplus(now, share_now, retention);
    let is_all = surplus.len() < limits::FILES_PER_SCAN_MAX;
    let mut failed: Option<(io::Error, u64)> = None;
    for name in surplus {
        if pulse.is_stopping() {
            return true;
        }
        let path = Path::new(folder).join(name);
        match pulse.during("clearing up done/ or failed/", || share.remove(&path)) {
            Err(error) if !is_gone(&error) => failed = Some((error, failed.map_or(1, |(_, count)| count + 1))),
            _ => {}
        }
    }
    if let Some((error, count)) = &failed {
        tracing::warn!("{count} files in {folder}/ cannot be removed: {error}; they are tried again");
    }
    is_all || failed.is_some()
}

#[cfg(test)]
mod tests {
    use super::super::DONE;
    use super::super::settle::Seen;
    use super::*;

    fn stat(changed: i64, size: u64) -> Stat {
        Stat { kind: Kind::File, seen: Seen { size, modified: (changed, 0), inode: 1 }, changed: (changed, 0) }
    }

    /// I10: a server whose clock is years behind ours makes no file old; one that is ahead keeps them for longer.
    #[test]
    fn age_is_counted_by_the_clock_of_the_share() {
        const DAY: i64 = 86_400;
        let now = WallTime { unix_ms: 1000 * 10_000 * DAY, suspect: false };
        let retention = Retention { days: 30, bytes: limits::GIB };
        let surplus = |share_now: i64, now: WallTime, retention: Retention| {
            let mut stock = Stock::default();
            for (name, days) in [("new", 0), ("some", 29), ("old", 31)] {
                stock.add(OsStr::new(name), &stat(share_now - days * DAY, 10), 10);
            }
            stock.surplus(now, None, retention)
        };
        for share_now in [10_000 * DAY, 5000 * DAY] {
            assert_eq!(surplus(share_now, now, retention), ["old"]);
            assert!(surplus(share_now, WallTime { suspect: true, ..now }, retention).is_empty());
        }
        assert!(surplus(20_000 * DAY, now, retention).is_empty());
        assert_eq!(surplus(5000 * DAY, now, Retention { days: 0, ..retention }).len(), 3, "nothing is to be kept");
        assert_eq!(surplus(20_000 * DAY, now, Retention { bytes: 10, ..retention }), ["old", "some"]);

        // Nothing was moved for a year: the share is asked for its time.
        let idle = |share_now: Option<i64>| {
            let mut stock = Stock::default();
            stock.add(OsStr::new("last"), &stat((10_000 - 365) * DAY, 10), 10);
            assert!(stock.may_be_old(now, retention));
            stock.surplus(now, share_now, retention)
        };
        assert_eq!(idle(Some(10_000 * DAY)), ["last"]);
        assert!(idle(Some((10_000 - 360) * DAY)).is_empty() && idle(None).is_empty(), "its clock is behind, or cannot be asked");
    }

    #[test]
    fn a_share_says_its_time_and_keeps_nothing_of_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(DONE)).unwrap();
        let (share, pulse) = (Share::open(directory.path()).unwrap(), Pulse::default());
        std::fs::write(directory.path().join(DONE).join(".siteward-clock"), "left behind").unwrap();
        let said = share_clock(DONE, &share, &pulse).unwrap();
        assert!((said - clock::now().unix_ms / 1000).abs() < 3600);
        assert!(share.list(Path::new(DONE), 10).unwrap().names.is_empty());
        assert_eq!(share_clock("absent", &share, &pulse), None);
    }

    /// I4: however many there are, the oldest go first.
    #[test]
    fn of_more_files_than_are_remembered_the_oldest_go() {
        let mut stock = Stock::default();
        for (name, changed) in [("d", 4), ("a", 1), ("c", 3), ("b", 2)] {
            stock.add(OsStr::new(name), &stat(changed, 10), 2);
        }
        assert_eq!((stock.bytes, stock.newest, stock.oldest.len()), (40, 4, 2));
        let now = WallTime { unix_ms: 0, suspect: true };
        assert_eq!(stock.surplus(now, None, Retention { days: 1, bytes: 0 }), ["a", "b"]);
    }
}
