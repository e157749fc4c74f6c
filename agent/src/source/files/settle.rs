//! When a file is complete: a pure rule. Sizes and times go in, a verdict comes out.
//!
//! ```text
//!   rename    there under a matching name: complete        the writer renames when it is done
//!   marker    its marker is there and not older            the writer makes the marker when it is done
//!   trailer   unchanged for the settle time, then the content decides (a held file is looked at again when it changes)
//!   settled   unchanged for the settle time                no evidence, only likelihood: a writer that pauses longer is captured half
//! ```
//!
//! "Unchanged" is seen by this process and measured by its monotonic clock: times of change are compared with one another, never with our
//! clock, so a server whose clock is years off changes nothing (I10).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What tells that a file is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub size: u64,
    /// Seconds and nanoseconds.
    pub modified: (i64, u32),
    pub inode: u64,
}

impl Seen {
    /// Whether nobody wrote to it in between, whatever its inode is called now: clients of shares may number files anew when they are renamed,
    /// or when their server was away.
    pub fn is_as_written(self, before: Self) -> bool {
        (self.size, self.modified) == (before.size, before.modified)
    }
}

/// What makes a file complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    Rename,
    /// The name of the file with this behind it.
    Marker(String),
    Trailer,
    Settled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Complete,
    /// Not before this, if nothing changes.
    Wait(Instant),
    /// Only a change can complete it.
    Absent,
}

/// The rule of one feed, and what it saw.
#[derive(Debug)]
pub struct SettleRule {
    completion: Completion,
    quiet: Duration,
    since: HashMap<PathBuf, (Seen, Instant)>,
}

impl SettleRule {
    pub fn new(completion: Completion, quiet: Duration) -> Self {
        Self { completion, quiet, since: HashMap::new() }
    }

    /// Takes what is seen of a file; `marker` is when its marker was made, where there is one.
    pub fn observe(&mut self, path: &Path, seen: Seen, marker: Option<(i64, u32)>, now: Instant) -> Settled {
        match &self.completion {
            Completion::Rename => Settled::Complete,
            Completion::Marker(_) if marker.is_some_and(|made| made >= seen.modified) => Settled::Complete,
            Completion::Marker(_) => Settled::Absent,
            Completion::Trailer | Completion::Settled => {
                let known = self.since.entry(path.to_owned()).or_insert((seen, now));
                if known.0 != seen {
                    *known = (seen, now);
                }
                let at = known.1 + self.quiet;
                if now >= at { Settled::Complete } else { Settled::Wait(at) }
            }
        }
    }

    /// Forgets files that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&Path) -> bool) {
        self.since.retain(|path, _| is_there(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(30);

    fn seen(size: u64, modified: i64) -> Seen {
        Seen { size, modified: (modified, 0), inode: 1 }
    }

    #[test]
    fn a_file_settles_when_nothing_changes_for_the_whole_time() {
        let (mut rule, path, start) = (SettleRule::new(Completion::Settled, QUIET), Path::new("a.csv"), Instant::now());
        assert_eq!(rule.observe(path, seen(1, 5), None, start), Settled::Wait(start + QUIET));
        let grown = start + QUIET / 2;
        assert_eq!(rule.observe(path, seen(2, 5), None, grown), Settled::Wait(grown + QUIET), "it grew");
        assert_eq!(rule.observe(path, seen(2, 5), None, grown + QUIET), Settled::Complete);
        let replaced = Seen { inode: 2, ..seen(2, 5) };
        assert!(matches!(rule.observe(path, replaced, None, grown + QUIET), Settled::Wait(_)), "another file of that name");
    }

    /// I10: the server's clock says 1970 or 2090; what counts is that it does not change.
    #[test]
    fn a_clock_that_is_years_off_changes_nothing() {
        for modified in [0, -1, i64::MAX / 4] {
            let (mut rule, path, start) = (SettleRule::new(Completion::Settled, QUIET), Path::new("a.csv"), Instant::now());
            assert!(matches!(rule.observe(path, seen(1, modified), None, start), Settled::Wait(_)));
            assert_eq!(rule.observe(path, seen(1, modified), None, start + QUIET), Settled::Complete);
        }
    }

    #[test]
    fn a_marker_older_than_its_file_is_of_the_file_before() {
        let (mut rule, path, now) = (SettleRule::new(Completion::Marker(".ok".into()), QUIET), Path::new("a.csv"), Instant::now());
        assert_eq!(rule.observe(path, seen(1, 100), None, now), Settled::Absent);
        assert_eq!(rule.observe(path, seen(1, 100), Some((99, 999)), now), Settled::Absent);
        assert_eq!(rule.observe(path, seen(1, 100), Some((100, 0)), now), Settled::Complete);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (mut rule, path, start) = (SettleRule::new(Completion::Settled, QUIET), Path::new("a.csv"), Instant::now());
        rule.observe(path, seen(1, 5), None, start);
        rule.retain(|_| false);
        assert!(matches!(rule.observe(path, seen(1, 5), None, start + QUIET), Settled::Wait(_)));
    }
}
