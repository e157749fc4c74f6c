//! What is wrong with a configuration: every fault with its line, its key and what to do.
//!
//! 1. Reader, merge, validation and file checks add to one [`FaultList`]; nobody stops at the first fault.
//! 2. `config` turns the list into [`Faults`]: byte offsets become lines, the order becomes the order of the file.
//! 3. The command line prints it: `file:line: key.path: what is wrong; what to do`.
//!
//! Values are never repeated in a fault (I7): a secret may stand where a path was expected. The line says where to look.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where something stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Byte offset into the file.
    pub offset: usize,
    /// `feed[0].mllp.listen`; empty for the file as a whole.
    pub path: String,
}

impl Place {
    /// The place of a key inside the table at this place, where the key is not written.
    pub fn missing(&self, key: &str) -> Self {
        self.key(key, self.offset)
    }
    pub fn key(&self, key: &str, offset: usize) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { offset, path }
    }
}

/// Faults as they are found.
#[derive(Debug, Default)]
pub(super) struct FaultList(Vec<(Place, String)>);

impl FaultList {
    pub fn add(&mut self, place: &Place, text: impl Into<String>) {
        self.0.push((place.clone(), text.into()));
    }
    /// Adds the fault and gives `None`, for values that have to be there.
    pub fn refuse<T>(&mut self, place: &Place, text: impl Into<String>) -> Option<T> {
        self.add(place, text);
        None
    }
    /// Takes out what was found in sections of this name.
    pub fn forget(&mut self, section: &str) {
        let inside = |path: &str| path.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        self.0.retain(|(place, _)| !inside(&place.path));
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// In file order, with lines instead of offsets.
    pub fn into_faults(mut self, file: &Path, text: &str) -> Faults {
        self.0.sort_by_key(|(place, _)| place.offset);
        let line_ends: Vec<usize> = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i).collect();
        let list = self
            .0
            .into_iter()
            .map(|(place, text)| Fault { line: Some(line_ends.partition_point(|end| *end < place.offset) + 1), path: place.path, text })
            .collect();
        Faults { file: file.to_owned(), list }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1; `None` where the file could not be read at all.
    pub line: Option<usize>,
    /// The key's path; empty where it is about the file.
    pub path: String,
    /// What is wrong; what to do.
    pub text: String,
}

/// Everything that is wrong with one configuration file, in file order. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    pub file: PathBuf,
    pub list: Vec<Fault>,
}

impl Faults {
    /// A fault about the file as a whole.
    pub(super) fn whole_file(file: &Path, text: impl Into<String>) -> Self {
        Self { file: file.to_owned(), list: vec![Fault { line: None, path: String::new(), text: text.into() }] }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file.display())?;
            if let Some(line) = fault.line {
                write!(f, "{line}:")?;
            }
            if !fault.path.is_empty() {
                write!(f, " {}:", fault.path)?;
            }
            write!(f, " {}", fault.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
