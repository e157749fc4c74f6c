//! What is the matter with a feed's files, said once: one condition per code and feed, with one file named and the others counted. A trouble ends
//! when its file is gone or fine again; what cannot end by itself (a file that was refused, or changed after it was captured) after some time.
//!
//! A file's name may hold a patient's name (I7). Unless the feed says that its names may be shown, a file is called by the begin of the SHA-256
//! of its path below the feed's directory, which whoever may see the directory can compute (RUNBOOK.md).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use crate::limits;
use crate::record::FeedId;
use crate::status::board::Board;
use crate::status::condition::Code;

/// The conditions about files.
pub const CODES: [Code; 5] = [Code::FileHeld, Code::FileUnreadable, Code::FileStuck, Code::FileRefused, Code::FileChanged];

/// See the module's documentation.
#[derive(Debug)]
pub struct Report {
    board: Arc<Board>,
    feed: FeedId,
    names_shown: bool,
    troubles: BTreeMap<Code, BTreeMap<PathBuf, (String, Instant)>>,
}

impl Report {
    pub fn new(board: Arc<Board>, feed: FeedId, names_shown: bool) -> Self {
        Self { board, feed, names_shown, troubles: BTreeMap::new() }
    }

    /// What a file is called.
    pub fn label(&self, path: &Path) -> String {
        if self.names_shown {
            return path.to_string_lossy().chars().filter(|c| !c.is_control()).take(limits::FILE_NAME_CHARS_MAX).collect();
        }
        let hash: [u8; 32] = Sha256::digest(path.as_os_str().as_encoded_bytes()).into();
        format!("file {:.12}", crate::record::FileFingerprint(hash).to_string())
    }

    /// The base name where it may be shown, else nothing.
    pub fn name(&self, path: &Path) -> String {
        let name = path.file_name().filter(|_| self.names_shown).unwrap_or_default();
        name.to_string_lossy().chars().filter(|c| !c.is_control()).take(limits::FILE_NAME_CHARS_MAX).collect()
    }

    pub fn trouble(&mut self, code: Code, path: &Path, text: impl Into<String>) {
        let files = self.troubles.entry(code).or_default();
        if files.len() < limits::FILES_PER_SCAN_MAX {
            files.insert(path.to_owned(), (text.into(), Instant::now()));
        }
        self.show(code);
    }

    /// Whether this was said of the file.
    pub fn has(&self, code: Code, path: &Path) -> bool {
        self.troubles.get(&code).is_some_and(|files| files.contains_key(path))
    }

    /// This is no longer so.
    pub fn over(&mut self, code: Code, path: &Path) {
        if self.troubles.get_mut(&code).is_some_and(|files| files.remove(path).is_some()) {
            self.show(code);
        }
    }

    /// After a scan: what is gone is no trouble any more.
    pub fn retain(&mut self, is_there: impl Fn(&Path) -> bool) {
        for code in CODES {
            let Some(files) = self.troubles.get_mut(&code) else { continue };
            let before = files.len();
            let stays = matches!(code, Code::FileRefused | Code::FileChanged);
            files.retain(|path, (_, since)| if stays { since.elapsed() < limits::ODDITY_HOLD } else { is_there(path) });
            if files.len() != before {
                self.show(code);
            }
        }
    }

    fn show(&self, code: Code) {
        let files = self.troubles.get(&code);
        let Some((path, (text, _))) = files.and_then(|files| files.first_key_value()) else {
            return self.board.clear(code, self.feed.as_str());
        };
        let others = files.map_or(0, |files| files.len() - 1);
        let more = if others == 0 { String::new() } else { format!(" ({others} other files likewise)") };
        self.board.raise(code, self.feed.as_str(), format!("{}: {text}{more}", self.label(path)));
    }

    /// A condition about the directory.
    pub fn directory(&self, code: Code, text: Option<String>) {
        match text {
            Some(text) => self.board.raise(code, self.feed.as_str(), text),
            None => self.board.clear(code, self.feed.as_str()),
        }
    }
}
