//! What becomes of files that are done or refused: `done/` with retention, `failed/` with a reason beside them, or left where they are.
//!
//! A file is moved only when the list of finished files says durably that it is done (`memory`); so a move may fail for any time, be tried again
//! from one minute to one hour apart, and the file is never captured again (a scanner or another program may hold it open, the share may be
//! read-only for a while). Its marker goes first: one left behind would vouch for the next file of that name. What is moved is the file as it was
//! captured and nothing else: where another one is there by then, or its writer has gone on, it is left and looked at as a new one (I1).
//!
//! Files that were moved are looked at for a while: one that still changes had a writer that was only pausing, and what it wrote since is not
//! captured. That is said (`file_changed`).

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::pulse::Pulse;
use super::report::Report;
use super::retention::clear_up;
use super::scan::marker_of;
use super::settle::{Completion, Seen};
use super::share::Share;
use super::{DONE, FAILED, Retention};
use crate::limits;
use crate::record::FileFingerprint;
use crate::status::condition::Code;

/// A move that is owed.
#[derive(Debug)]
struct Owed {
    fingerprint: FileFingerprint,
    /// As it was captured.
    seen: Seen,
    next: Instant,
    delay: Duration,
}

/// What became of a move.
#[derive(Debug, PartialEq, Eq)]
pub enum Moved {
    To(PathBuf),
    /// This is there now, which is not what was to be moved.
    Replaced(Seen),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Finisher {
    marker: Option<String>,
    owed: BTreeMap<PathBuf, Owed>,
    moved: VecDeque<(PathBuf, PathBuf, Seen)>,
    retention_due: Option<Instant>,
}

pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Where a file goes: its path with folders written into the name, made different where that name is taken.
fn name_in(folder: &str, path: &Path, fingerprint: &FileFingerprint, attempt: u32) -> PathBuf {
    let parts: Vec<_> = path.iter().collect();
    let mut name = parts.join(std::ffi::OsStr::new("--"));
    match attempt {
        0 => {}
        1 => name.push(format!(".{:.8}", fingerprint.to_string())),
        n => name.push(format!(".{:.8}.{n}", fingerprint.to_string())),
    }
    Path::new(folder).join(name)
}

impl Finisher {
    pub fn new(completion: &Completion) -> Self {
        let marker = match completion {
            Completion::Marker(suffix) => Some(suffix.clone()),
            _ => None,
        };
        Self { marker, owed: BTreeMap::new(), moved: VecDeque::new(), retention_due: None }
    }

    /// A file that is done must be moved; `seen`: as it was captured.
    pub fn owe(&mut self, path: &Path, fingerprint: FileFingerprint, seen: Seen) {
        let owed = Owed { fingerprint, seen, next: Instant::now(), delay: limits::FILE_MOVE_RETRY.0 };
        self.owed.entry(path.to_owned()).or_insert(owed);
    }

    /// Whether the move of this file is owed. It is not where another one is there now.
    pub fn owes(&mut self, path: &Path, seen: Seen, report: &mut Report) -> bool {
        match self.owed.get(path) {
            Some(owed) if owed.seen == seen => true,
            Some(_) => {
                self.forget_replaced(path, seen, report);
                false
            }
            None => false,
        }
    }

    fn forget(&mut self, path: &Path, report: &mut Report) {
        self.owed.remove(path);
        report.over(Code::FileStuck, path);
    }

    /// The next scan looks at what is there now. A file that has grown is told: its first records come a second time with the rest.
    fn forget_replaced(&mut self, path: &Path, now: Seen, report: &mut Report) {
        let has_grown = self.owed.get(path).is_some_and(|owed| owed.seen.inode == now.inode && owed.seen.size < now.size);
        self.forget(path, report);
        if has_grown {
            let text = "changed after it was captured and before it was moved; what is there now is captured as a new file, so records may \
                        come twice. Its writer pauses longer than `settle`, or does not write elsewhere and rename";
            report.trouble(Code::FileChanged, path, text);
        }
    }

    /// When the next move is due.
    pub fn due(&self) -> Option<Instant> {
        self.owed.values().map(|owed| owed.next).min()
    }

    /// Makes the moves that are due.
    pub fn run(&mut self, share: &Share, pulse: &Pulse, report: &mut Report) {
        let now = Instant::now();
        let due: Vec<PathBuf> = self.owed.iter().filter(|(_, owed)| owed.next <= now).map(|(path, _)| path.clone()).collect();
        let mut moved_any = false;
        for path in due {
            if pulse.is_stopping() {
                return;
            }
            let (fingerprint, seen) = (self.owed[&path].fingerprint, self.owed[&path].seen);
            match self.move_to(DONE, share, pulse, &path, &fingerprint, seen) {
                Ok(Moved::To(to)) => {
                    moved_any = true;
                    self.forget(&path, report);
                    self.remember(path, to, seen);
                }
                Ok(Moved::Replaced(now)) => self.forget_replaced(&path, now, report),
                Err(error) if is_gone(&error) => self.forget(&path, report),
                Err(error) => {
                    let owed = self.owed.get_mut(&path).expect("it is being moved");
                    owed.next = Instant::now() + owed.delay;
                    owed.delay = (owed.delay * 2).min(limits::FILE_MOVE_RETRY.1);
                    let text = format!("is captured but cannot be moved to done/: {error}; it is tried again and not captured again");
                    report.trouble(Code::FileStuck, &path, text);
                }
            }
        }
        if moved_any && let Err(error) = pulse.during("syncing a directory", || share.sync(Path::new(DONE))) {
            tracing::debug!("done/ could not be synced: {error}; after a power cut files may be found again, they are known");
        }
    }

    fn move_to(
        &self,
        folder: &str,
        share: &Share,
        pulse: &Pulse,
        path: &Path,
        fingerprint: &FileFingerprint,
        seen: Seen,
    ) -> io::Result<Moved> {
        pulse.during("moving a file", || {
            share.make_directory(folder)?;
            let now = share.stat(path)?.seen;
            if now != seen {
                return Ok(Moved::Replaced(now));
            }
            if let Some(suffix) = &self.marker {
                match share.remove(&marker_of(path, suffix)) {
                    Err(error) if !is_gone(&error) => return Err(error),
                    _ => {}
                }
            }
            let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
            for attempt in 0..limits::FILE_NAME_ATTEMPTS {
                let to = name_in(folder, path, fingerprint, attempt);
                match share.rename_new(path, &to) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
                    other => return other.map(|()| Moved::To(to)),
                }
            }
            Err(taken)
        })
    }

    /// `seen`: as it was captured, so that what was written to it since is noticed.
    fn remember(&mut self, path: PathBuf, to: PathBuf, seen: Seen) {
        if self.moved.len() == limits::FILES_WATCHED_AFTER {
            self.moved.pop_front();
        }
        self.moved.push_back((path, to, seen));
    }

    /// Looks whether those that were moved are as they were captured.
    pub fn watch_moved(&mut self, share: &Share, pulse: &Pulse, report: &mut Report) {
        self.moved.retain(|(path, to, seen)| {
            let Ok(stat) = pulse.during("looking at a file", || share.stat(to)) else { return false };
            if stat.seen.is_as_written(*seen) {
                return true;
            }
            report.trouble(Code::FileChanged, path, changed_after(seen.size, stat.seen.size));
            false
        });
    }

    /// Moves a file away that cannot be captured, and says beside it why.
    pub fn refuse(
        &self,
        share: &Share,
        pulse: &Pulse,
        path: &Path,
        fingerprint: &FileFingerprint,
        seen: Seen,
        reason: &str,
    ) -> io::Result<Moved> {
        let moved = self.move_to(FAILED, share, pulse, path, fingerprint, seen)?;
        let Moved::To(to) = &moved else { return Ok(moved) };
        let reason_file = marker_of(to, ".reason.txt");
        let written = pulse.during("writing a reason", || share.write_new(&reason_file, format!("{reason}\n").as_bytes()));
        if let Err(error) = written {
            tracing::warn!("a file was moved to failed/, but its reason could not be written beside it: {error}");
        }
        Ok(moved)
    }

    /// Removes from done/ and failed/ what is older or more than the feed keeps, each by itself.
    pub fn retain(&mut self, share: &Share, pulse: &Pulse, retention: Retention) {
        let now = Instant::now();
        if self.retention_due.is_some_and(|due| now < due) {
            return;
        }
        self.retention_due = Some(now + limits::RETENTION_INTERVAL);
        for folder in [DONE, FAILED] {
            if !clear_up(folder, share, pulse, retention) {
                self.retention_due = None;
            }
        }
    }
}

/// The sentence about a file that changed when it was captured already.
pub fn changed_after(captured: u64, now: u64) -> String {
    format!(
        "changed after it was captured: it had {captured} bytes and has {now}; what was written since is not captured. Its writer pauses longer \
         than `settle`: raise it, or let the writer rename or set a marker when it is done"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_done_keep_folders_and_differ() {
        let print = FileFingerprint([0xAB; 32]);
        let path = Path::new("sub/a.csv");
        assert_eq!(name_in(DONE, path, &print, 0), Path::new("done/sub--a.csv"));
        assert_eq!(name_in(DONE, path, &print, 1), Path::new("done/sub--a.csv.abababab"));
        assert_eq!(name_in(DONE, path, &print, 2), Path::new("done/sub--a.csv.abababab.2"));
    }

    /// I1: what took the name of a file that was captured stays where it is, and its marker too.
    #[test]
    fn a_file_that_is_not_the_captured_one_is_not_moved() {
        let directory = tempfile::tempdir().unwrap();
        let (share, pulse) = (Share::open(directory.path()).unwrap(), Pulse::default());
        let feed = crate::record::FeedId::new("f").unwrap();
        let mut report = Report::new(crate::status::board::Board::new([feed.clone()]), feed, false);
        let mut finisher = Finisher::new(&Completion::Marker(".ok".into()));
        let put = |name: &str, content: &str| std::fs::write(directory.path().join(name), content).unwrap();
        put("a", "first");
        finisher.owe(Path::new("a"), FileFingerprint([1; 32]), share.stat(Path::new("a")).unwrap().seen);
        put("new", "second");
        put("a.ok", "");
        std::fs::rename(directory.path().join("new"), directory.path().join("a")).unwrap();
        finisher.run(&share, &pulse, &mut report);
        assert!(directory.path().join("a").exists() && directory.path().join("a.ok").exists());
        assert!(finisher.due().is_none(), "nothing is owed of it");
        finisher.owe(Path::new("a"), FileFingerprint([2; 32]), share.stat(Path::new("a")).unwrap().seen);
        finisher.run(&share, &pulse, &mut report);
        assert!(directory.path().join("done/a").exists() && !directory.path().join("a.ok").exists());
    }

    /// A moved file is watched for late writers; that a share numbers files anew is no writer.
    #[test]
    fn a_moved_file_that_is_written_to_is_told_and_one_with_another_inode_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (share, pulse) = (Share::open(directory.path()).unwrap(), Pulse::default());
        let feed = crate::record::FeedId::new("f").unwrap();
        let mut report = Report::new(crate::status::board::Board::new([feed.clone()]), feed, false);
        let mut finisher = Finisher::new(&Completion::Settled);
        let (path, moved) = (Path::new("a"), directory.path().join("done/a"));
        std::fs::write(directory.path().join("a"), "first").unwrap();
        let seen = share.stat(path).unwrap().seen;
        finisher.owe(path, FileFingerprint([1; 32]), seen);
        finisher.run(&share, &pulse, &mut report);

        let modified = std::fs::metadata(&moved).unwrap().modified().unwrap();
        let renumbered = directory.path().join("renumbered");
        std::fs::write(&renumbered, "first").unwrap();
        std::fs::File::options().write(true).open(&renumbered).unwrap().set_modified(modified).unwrap();
        std::fs::rename(&renumbered, &moved).unwrap();
        assert_ne!(share.stat(Path::new("done/a")).unwrap().seen.inode, seen.inode);
        finisher.watch_moved(&share, &pulse, &mut report);
        assert!(!report.has(Code::FileChanged, path));

        std::fs::write(&moved, "first and more").unwrap();
        finisher.watch_moved(&share, &pulse, &mut report);
        assert!(report.has(Code::FileChanged, path));
    }

    #[test]
    fn done_keeps_what_it_should_and_removes_the_oldest_first() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(DONE)).unwrap();
        for (name, size) in [("a", 10), ("b", 20), ("c", 30)] {
            std::fs::write(directory.path().join(DONE).join(name), vec![b'x'; size]).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        let (share, pulse) = (Share::open(directory.path()).unwrap(), Pulse::default());
        let names = || {
            let mut names: Vec<_> = share.list(Path::new(DONE), 10).unwrap().names.into_iter().map(|(name, _)| name).collect();
            names.sort();
            names
        };
        Finisher::new(&Completion::Settled).retain(&share, &pulse, Retention { days: 1, bytes: 60 });
        assert_eq!(names(), ["a", "b", "c"]);
        Finisher::new(&Completion::Settled).retain(&share, &pulse, Retention { days: 1, bytes: 30 });
        assert_eq!(names().len(), 1);
    }

    #[test]
    fn refused_files_go_as_those_that_are_done_with_their_reasons() {
        let directory = tempfile::tempdir().unwrap();
        let (share, pulse) = (Share::open(directory.path()).unwrap(), Pulse::default());
        let mut finisher = Finisher::new(&Completion::Settled);
        for name in ["a", "b"] {
            std::fs::write(directory.path().join(name), vec![b'x'; 100]).unwrap();
            let seen = share.stat(Path::new(name)).unwrap().seen;
            let moved = finisher.refuse(&share, &pulse, Path::new(name), &FileFingerprint([1; 32]), seen, "why").unwrap();
            assert!(matches!(moved, Moved::To(_)));
            std::thread::sleep(Duration::from_millis(20));
        }
        let names = || share.list(Path::new(FAILED), 10).unwrap().names.len();
        finisher.retain(&share, &pulse, Retention { days: 1, bytes: 1000 });
        assert_eq!(names(), 4);
        finisher.retention_due = None;
        finisher.retain(&share, &pulse, Retention { days: 1, bytes: 104 });
        assert_eq!(names(), 2);
    }
}
