//! Fixed width: a record is a line, or a block of `record_len` bytes.
//!
//! A line must reach to the end of the layout; blanks behind it are fine, and with `trimmed_ends` blanks may also be missing. Lengths of
//! lines count characters of the feed's encoding. Blocks follow each other with or without line ends between them; a last block that is
//! not full is what a cut file looks like.

use super::codes;
use super::lines::without_end;
use super::settings::FixedSettings;
use super::verdict::{Notes, State};
use super::window::{Cut, Preamble, Taken, Window, over_cut};

pub(super) struct Fixed {
    settings: FixedSettings,
    width: usize,
    /// Lines or blocks complete so far.
    rows: u64,
}

impl Fixed {
    pub(super) fn new(settings: FixedSettings) -> Self {
        Self { width: settings.width() as usize, settings, rows: 0 }
    }

    pub(super) fn next(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        if w.preamble()? == Preamble::Utf16 {
            notes.give_up(codes::TEXT_UTF16);
            return None;
        }
        match self.settings.record_len {
            Some(length) => self.block(w, notes, length as usize),
            None => self.line(w),
        }
    }

    fn line(&mut self, w: &mut Window) -> Option<Cut> {
        loop {
            let ended = memchr::memchr(b'\n', w.rest());
            w.advance(ended.map_or(w.rest().len(), |at| at + 1));
            if ended.is_none() && (!w.is_end() || w.is_between()) {
                return None;
            }
            self.rows += 1;
            let row = Some(self.rows);
            let (start, bytes) = match w.take() {
                Taken::Over { range, head } => return Some(over_cut(range, head, row)),
                Taken::Whole { start, bytes } => (start, bytes),
            };
            // 0x1A: what CP/M and DOS programs end a file with
            let line = bytes.slice(..without_end(&bytes));
            if line.trim_ascii().is_empty() || (&line[..] == b"\x1A" && ended.is_none()) {
                continue;
            }
            return Some(match self.fault(&line) {
                Some(code) => w.bad_cut(code, start, &line, row),
                None => w.record_cut(start, line, row),
            });
        }
    }

    fn fault(&self, line: &[u8]) -> Option<&'static str> {
        let length = |bytes: &[u8]| {
            if bytes.is_ascii() { bytes.len() } else { self.settings.encoding.decode(bytes).text.chars().count() }
        };
        if !line.is_ascii() && self.settings.encoding.decode(line).undecodable > 0 {
            return Some(codes::FIXED_ENCODING);
        }
        if length(line) < self.width {
            return (!self.settings.trimmed_ends).then_some(codes::FIXED_SHORT);
        }
        (length(line.trim_ascii_end()) > self.width).then_some(codes::FIXED_LONG)
    }

    fn block(&mut self, w: &mut Window, notes: &mut Notes, length: usize) -> Option<Cut> {
        if w.is_between() {
            let ends = w.rest().iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            w.advance(ends);
            w.skip();
        }
        if w.rest().len() >= length {
            w.advance(length);
        } else if w.is_end() && !w.rest().is_empty() {
            w.advance(w.rest().len());
        } else {
            return None;
        }
        self.rows += 1;
        let row = Some(self.rows);
        let (start, bytes) = match w.take() {
            Taken::Over { range, head } => return Some(over_cut(range, head, row)),
            Taken::Whole { start, bytes } => (start, bytes),
        };
        if bytes.len() < length {
            if bytes.trim_ascii().is_empty() || &bytes[..] == b"\x1A" {
                return None;
            }
            notes.find(codes::FIXED_CUT, start..start + bytes.len() as u64, None);
            notes.worsen(State::Truncated { code: codes::FIXED_CUT });
            return Some(w.bad_cut(codes::FIXED_CUT, start, &bytes, row));
        }
        if !bytes.is_ascii() && self.settings.encoding.decode(&bytes).undecodable > 0 {
            return Some(w.bad_cut(codes::FIXED_ENCODING, start, &bytes, row));
        }
        Some(w.record_cut(start, bytes, row))
    }
}
