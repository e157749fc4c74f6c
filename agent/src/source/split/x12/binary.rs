//! BIN and BDS: segments whose data are passed over by their length, whatever they hold.

use super::{At, X12};
use crate::source::split::codes;
use crate::source::split::verdict::Notes;
use crate::source::split::window::{Cut, Window};

/// Enough for the name of a binary segment and the elements up to its length.
const BINARY_HEAD_BYTES: usize = 64;

impl X12 {
    pub(super) fn binary_head(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        let head = &w.rest()[..w.rest().len().min(BINARY_HEAD_BYTES)];
        let ended = memchr::memchr(self.terminator, head);
        let complete = ended.is_some() || head.len() == BINARY_HEAD_BYTES || w.is_end();
        let head = &head[..ended.unwrap_or(head.len())];
        let skipped = if head.starts_with(b"BIN") { 1 } else { 2 };
        let mut places = head.iter().enumerate().filter(|(_, b)| **b == self.element).map(|(at, _)| at);
        let (from, to) = (places.nth(skipped - 1), places.next());
        let length = from.zip(to).and_then(|(from, to)| std::str::from_utf8(head[from + 1..to].trim_ascii()).ok()?.parse::<u64>().ok());
        match (length, to) {
            (Some(left), Some(to)) => {
                self.place_other(w);
                w.advance(to + 1);
                self.at = At::Binary { left, data: w.record().len() };
            }
            (None, None) if !complete => {}
            _ => {
                self.spoil_binary(w, notes);
                self.plain_binary = true;
                return self.segment(w, notes);
            }
        }
        None
    }

    pub(super) fn binary(&mut self, w: &mut Window, notes: &mut Notes, left: u64, data: usize) {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(w.rest().len());
        w.advance(count);
        let left = left - count as u64;
        self.at = At::Binary { left, data };
        if w.is_spent() {
            return;
        }
        if left > 0 && !w.is_end() || (w.rest().is_empty() && !w.is_end()) {
            return;
        }
        if left == 0 && w.rest().first() == Some(&self.terminator) {
            w.advance(1);
            self.at = At::Segment;
            return;
        }
        self.spoil_binary(w, notes);
        if !w.is_dropping() {
            w.rewind(data);
        }
        self.at = At::Long; // counted already; read on to its terminator
    }

    pub(super) fn spoil_binary(&mut self, w: &Window, notes: &mut Notes) {
        notes.find(codes::X12_BINARY_LENGTH, w.at()..w.at(), None);
        if self.envelope.in_record() {
            self.envelope.fault.get_or_insert(codes::X12_BINARY_LENGTH);
        }
    }
}
