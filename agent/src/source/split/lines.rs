//! One record a line: `lines` and `ndjson`.
//!
//! A line ends with LF; a CR in front of it belongs to the line end. Lines of blanks only are passed over, a byte order mark at the front too,
//! and the last line needs no end. A line of `ndjson` must be one JSON value in UTF-8; a last line without its end that is no JSON is what a
//! cut upload looks like.

use super::codes;
use super::json::json_fault;
use super::verdict::{Notes, State};
use super::window::{Cut, Preamble, Taken, Window, over_cut, trimmed};

#[derive(Debug, Default)]
pub(super) struct Lines {
    json: bool,
    /// Lines complete so far.
    rows: u64,
}

impl Lines {
    pub(super) fn ndjson() -> Self {
        Self { json: true, rows: 0 }
    }

    pub(super) fn next(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        if w.preamble()? == Preamble::Utf16 {
            notes.give_up(codes::TEXT_UTF16);
            return None;
        }
        loop {
            let ended = memchr::memchr(b'\n', w.rest());
            w.advance(ended.map_or(w.rest().len(), |at| at + 1));
            if ended.is_none() && (!w.is_end() || w.is_between()) {
                return None;
            }
            self.rows += 1;
            let row = Some(self.rows);
            let (start, line) = match w.take() {
                Taken::Over { range, head } => return Some(over_cut(range, head, row)),
                Taken::Whole { start, bytes } => (start, bytes),
            };
            let (front, inner) = trimmed(&line);
            if inner.is_empty() {
                continue;
            }
            if !self.json {
                let line = line.slice(..without_end(&line));
                return Some(w.record_cut(start, line, row));
            }
            let start = start + front;
            return Some(match json_fault(&inner) {
                Some(fault) => {
                    if ended.is_none() {
                        notes.find(codes::NDJSON_CUT, start..w.at(), None);
                        notes.worsen(State::Truncated { code: codes::NDJSON_CUT });
                    }
                    w.bad_cut(fault.code, start, &inner, row)
                }
                None => w.record_cut(start, inner, row),
            });
        }
    }
}

/// Length of a line without LF or CRLF.
pub(super) fn without_end(line: &[u8]) -> usize {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line).len()
}
