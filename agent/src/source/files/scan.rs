//! What is in a feed's directory now, in the feed's order. The scan is the truth; what inotify says only makes it come sooner.
//!
//! Taken: plain files whose name matches and does not begin with a dot, markers left out. `done` and `failed` at the top belong to the agent, in
//! whatever case: to many servers it is the same. Symbolic links and special files with a matching name are counted and refused.
//!
//! Bounded in names and depth (I4). Of a directory with more names the first ones are taken, and a folder that cannot be looked into is left out:
//! whoever scans is told of both, and the rest goes on.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::pattern::Pattern;
use super::settle::Completion;
use super::share::{Kind, Listed, Share, Stat};
use super::{DONE, FAILED};
use crate::limits;

/// In which order the files of a scan are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By path, byte by byte.
    Name,
    /// By time of change, then by path.
    Modified,
    /// By path, with numbers in it taken as numbers: 9 before 10.
    Number,
}

/// A file that may be captured.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Below the feed's directory; plain names only.
    pub path: PathBuf,
    pub stat: Stat,
    /// When its marker was made, where there is one.
    pub marker: Option<(i64, u32)>,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Found {
    pub files: Vec<Candidate>,
    /// Links and special files with a matching name.
    pub refused: Vec<PathBuf>,
    /// Folders that could not be looked into.
    pub unreadable: Vec<(PathBuf, io::Error)>,
    /// There are more names than one scan looks at.
    pub is_cut: bool,
}

impl Found {
    /// Nothing was left out.
    pub fn is_whole(&self) -> bool {
        self.unreadable.is_empty() && !self.is_cut
    }
}

/// What to look for.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub patterns: &'a [Pattern],
    pub subfolders: bool,
    pub order: Order,
    pub completion: &'a Completion,
}

impl Wanted<'_> {
    fn takes(&self, name: &OsStr) -> bool {
        takes(self.patterns, name)
    }
}

/// Whether a name fits.
pub fn takes(patterns: &[Pattern], name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    !name.starts_with('.') && patterns.iter().any(|pattern| pattern.matches(&name))
}

/// The marker of a file.
pub fn marker_of(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Looks through the directory.
pub fn scan(share: &Share, wanted: &Wanted<'_>) -> io::Result<Found> {
    scan_with(|folder, budget| share.list(folder, budget), wanted)
}

fn scan_with(list: impl Fn(&Path, usize) -> io::Result<Listed>, wanted: &Wanted<'_>) -> io::Result<Found> {
    let mut found = Found::default();
    let mut folders = vec![(PathBuf::new(), 0)];
    let mut budget = limits::FILES_PER_SCAN_MAX;
    while let Some((folder, depth)) = folders.pop() {
        let names = match list(&folder, budget) {
            Ok(listed) => {
                found.is_cut |= !listed.is_whole;
                listed.names
            }
            Err(error) if depth == 0 => return Err(error),
            Err(error) => {
                // Gone meanwhile is nothing to speak of.
                if error.kind() != io::ErrorKind::NotFound {
                    found.unreadable.push((folder, error));
                }
                continue;
            }
        };
        budget = budget.saturating_sub(names.len());
        let markers: HashMap<&OsStr, (i64, u32)> = match wanted.completion {
            Completion::Marker(suffix) => names
                .iter()
                .filter(|(name, stat)| stat.kind == Kind::File && name.as_encoded_bytes().ends_with(suffix.as_bytes()))
                .map(|(name, stat)| (name.as_os_str(), stat.seen.modified))
                .collect(),
            _ => HashMap::new(),
        };
        for (name, stat) in &names {
            let path = folder.join(name);
            let is_ours = depth == 0 && (name.eq_ignore_ascii_case(DONE) || name.eq_ignore_ascii_case(FAILED));
            match stat.kind {
                Kind::Directory if wanted.subfolders && !is_ours && depth < limits::FOLDER_DEPTH_MAX && !starts_with_dot(name) => {
                    folders.push((path, depth + 1));
                }
                Kind::Other if wanted.takes(name) => found.refused.push(path),
                Kind::File if wanted.takes(name) && !is_ours && !markers.contains_key(name.as_os_str()) => {
                    let marker = match wanted.completion {
                        Completion::Marker(suffix) => markers.get(marker_of(Path::new(name), suffix).as_os_str()).copied(),
                        _ => None,
                    };
                    found.files.push(Candidate { path, stat: *stat, marker });
                }
                Kind::File | Kind::Directory | Kind::Other => {}
            }
        }
    }
    found.files.sort_by(|a, b| compare(a, b, wanted.order));
    Ok(found)
}

fn starts_with_dot(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn compare(a: &Candidate, b: &Candidate, order: Order) -> Ordering {
    let by_name = || a.path.as_os_str().cmp(b.path.as_os_str());
    match order {
        Order::Name => by_name(),
        Order::Modified => a.stat.seen.modified.cmp(&b.stat.seen.modified).then_with(by_name),
        Order::Number => by_number(a.path.as_os_str().as_encoded_bytes(), b.path.as_os_str().as_encoded_bytes()).then_with(by_name),
    }
}

/// Compares with runs of digits taken as numbers.
fn by_number(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        let (Some(x), Some(y)) = (a.first(), b.first()) else { return a.len().cmp(&b.len()) };
        let ordering = if x.is_ascii_digit() && y.is_ascii_digit() {
            let numbers = (take_number(&mut a), take_number(&mut b));
            numbers.0.len().cmp(&numbers.1.len()).then_with(|| numbers.0.cmp(numbers.1))
        } else {
            (a, b) = (&a[1..], &b[1..]);
            x.cmp(y)
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

/// The digits at the front without leading zeroes.
fn take_number<'b>(bytes: &mut &'b [u8]) -> &'b [u8] {
    let digits = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
    let (number, rest) = bytes.split_at(digits);
    *bytes = rest;
    &number[number.iter().position(|b| *b != b'0').unwrap_or(number.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path, wanted: &Wanted<'_>) -> Vec<String> {
        let found = scan(&Share::open(directory).unwrap(), wanted).unwrap();
        found.files.iter().map(|file| file.path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn matching_plain_files_come_in_order_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["b10.csv", "b9.csv", "a.csv", ".a.csv.Xy12", "note.txt"] {
            std::fs::write(root.join(name), name).unwrap();
        }
        for folder in ["done", "failed", "sub", "sub/done"] {
            std::fs::create_dir(root.join(folder)).unwrap();
            std::fs::write(root.join(folder).join("c.csv"), "c").unwrap();
        }
        std::os::unix::fs::symlink(root.join("a.csv"), root.join("link.csv")).unwrap();
        let patterns = [Pattern::new("*.csv").unwrap()];
        let mut wanted = Wanted { patterns: &patterns, subfolders: false, order: Order::Name, completion: &Completion::Settled };
        assert_eq!(names(root, &wanted), ["a.csv", "b10.csv", "b9.csv"]);
        wanted.order = Order::Number;
        assert_eq!(names(root, &wanted), ["a.csv", "b9.csv", "b10.csv"]);
        wanted.subfolders = true;
        assert_eq!(names(root, &wanted), ["a.csv", "b9.csv", "b10.csv", "sub/c.csv", "sub/done/c.csv"]);
        assert_eq!(scan(&Share::open(root).unwrap(), &wanted).unwrap().refused, [PathBuf::from("link.csv")]);
    }

    /// A server that does not tell cases apart has them under the case somebody once wrote.
    #[test]
    fn the_folders_of_the_agent_are_its_own_in_any_case() {
        let directory = tempfile::tempdir().unwrap();
        for folder in ["Done", "FAILED"] {
            std::fs::create_dir(directory.path().join(folder)).unwrap();
            std::fs::write(directory.path().join(folder).join("c.csv"), "c").unwrap();
        }
        let patterns = [Pattern::new("*.csv").unwrap()];
        let wanted = Wanted { patterns: &patterns, subfolders: true, order: Order::Name, completion: &Completion::Settled };
        assert!(names(directory.path(), &wanted).is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_looked_into_is_left_out_and_named() {
        let directory = tempfile::tempdir().unwrap();
        for folder in ["gone", "locked", "open"] {
            std::fs::create_dir(directory.path().join(folder)).unwrap();
            std::fs::write(directory.path().join(folder).join("a"), "a").unwrap();
        }
        let (share, patterns) = (Share::open(directory.path()).unwrap(), [Pattern::new("*").unwrap()]);
        let wanted = Wanted { patterns: &patterns, subfolders: true, order: Order::Name, completion: &Completion::Settled };
        let list = |folder: &Path, budget| match folder.to_str().unwrap() {
            "gone" => Err(io::ErrorKind::NotFound.into()),
            "locked" => Err(io::ErrorKind::PermissionDenied.into()),
            _ => share.list(folder, budget),
        };
        let found = scan_with(list, &wanted).unwrap();
        assert_eq!(found.files.iter().map(|file| file.path.to_str().unwrap()).collect::<Vec<_>>(), ["open/a"]);
        assert_eq!(found.unreadable.iter().map(|(folder, _)| folder.to_str().unwrap()).collect::<Vec<_>>(), ["locked"]);
        assert!(!found.is_whole() && !found.is_cut);
        assert!(scan_with(|_, _| Err(io::ErrorKind::NotFound.into()), &wanted).is_err(), "the directory itself is another matter");
    }

    /// I4: of too many names the first are taken, so that a directory that is too full empties again.
    #[test]
    fn of_too_many_names_the_first_are_taken() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        let (share, patterns) = (Share::open(directory.path()).unwrap(), [Pattern::new("*").unwrap()]);
        let wanted = Wanted { patterns: &patterns, subfolders: false, order: Order::Name, completion: &Completion::Settled };
        let found = scan_with(|folder, _| share.list(folder, 2), &wanted).unwrap();
        assert!(found.files.len() == 2 && found.is_cut && !found.is_whole());
        assert!(scan_with(|folder, _| share.list(folder, 3), &wanted).unwrap().is_whole());
    }

    #[test]
    fn markers_are_no_files_of_the_feed() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.csv", "a.csv.ok", "b.csv"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        let (patterns, completion) = ([Pattern::new("*").unwrap()], Completion::Marker(".ok".into()));
        let wanted = Wanted { patterns: &patterns, subfolders: false, order: Order::Name, completion: &completion };
        let found = scan(&Share::open(directory.path()).unwrap(), &wanted).unwrap();
        let marked: Vec<_> = found.files.iter().map(|file| (file.path.to_str().unwrap(), file.marker.is_some())).collect();
        assert_eq!(marked, [("a.csv", true), ("b.csv", false)]);
    }

    #[test]
    fn numbers_are_compared_as_numbers_whatever_their_length() {
        assert_eq!(by_number(b"f_007_2", b"f_7_10"), Ordering::Less);
        assert_eq!(by_number(b"x99999999999999999999999", b"x100000000000000000000000"), Ordering::Less);
        assert_eq!(by_number(b"a", b"a1"), Ordering::Less);
    }
}
