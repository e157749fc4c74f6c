//! X12: interchanges (ISA to IEA), functional groups (GS to GE) or transaction sets (ST to SE), with their envelopes checked.
//!
//! ```text
//!   Between ──ISA──► Segment ⇄ Long, Binary ──IEA──► Between
//!      └ anything else but blanks: Stray, up to the next ISA
//! ```
//!
//! 1. Each ISA brings its separators (`isa`), so interchanges with different ones may follow each other. Line ends and blanks between
//!    segments are decoration.
//! 2. A segment is looked at when its terminator is there. One longer than `X12_SEGMENT_BYTES_MAX` is no control segment and is only passed
//!    over. The data of BIN and BDS are passed over by their length, whatever bytes they hold; a length that is no number or does not lead
//!    to a terminator spoils the record, and the segment is read like any other.
//! 3. ISA, GS, ST and their trailers move the envelope (`envelope`). A record is complete at its trailer, or given up where a header or
//!    trailer of its own or a higher level comes first.
//! 4. Records of groups and sets carry their ISA (and GS) in front. A TA1 outside of groups is a record of its own. Segments that have no
//!    place where they stand are one bad piece a run, or spoil the record they stand in.

mod binary;
mod envelope;
mod isa;
mod name;
mod record;

use bytes::Bytes;
use memchr::memmem;

use self::envelope::Envelope;
use self::isa::{Number, Read};
use self::name::{Name, above, begins_interchange, below, decoration, name};
use self::record::bad_run;
use super::codes;
use super::settings::X12Level;
use super::verdict::Notes;
use super::window::{Cut, Preamble, Window};
use crate::limits::X12_SEGMENT_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Outside of interchanges.
    Between,
    Stray,
    Segment,
    /// Inside a segment too long to hold.
    Long,
    /// Inside the data of a binary segment: what is left of it; where its data begin in the record, if that is still held.
    Binary {
        left: u64,
        data: usize,
    },
}

pub(super) struct X12 {
    level: X12Level,
    at: At,
    element: u8,
    terminator: u8,
    /// ISA and GS in progress, with their terminators.
    isa: Bytes,
    gs: Bytes,
    envelope: Envelope,
    /// Segments without a place are in the window.
    unplaced: bool,
    /// The binary segment at the front is to be read like any other.
    plain_binary: bool,
    interchanges: u64,
    ended: bool,
}

impl X12 {
    pub(super) fn new(level: X12Level) -> Self {
        Self {
            level,
            at: At::Between,
            element: b'*',
            terminator: b'~',
            isa: Bytes::new(),
            gs: Bytes::new(),
            envelope: Envelope::new(level),
            unplaced: false,
            plain_binary: false,
            interchanges: 0,
            ended: false,
        }
    }

    pub(super) fn next(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        if w.preamble()? == Preamble::Utf16 {
            notes.give_up(codes::TEXT_UTF16);
            return None;
        }
        while !w.is_spent() {
            let (before, state) = (w.at(), self.at);
            let cut = match self.at {
                At::Between => self.between(w, notes),
                At::Stray => self.stray(w),
                At::Segment => self.segment(w, notes),
                At::Long => {
                    self.long(w);
                    None
                }
                At::Binary { left, data } => {
                    self.binary(w, notes, left, data);
                    None
                }
            };
            if cut.is_some() {
                return cut;
            }
            if w.at() == before && self.at == state {
                return self.starved(w, notes);
            }
        }
        None
    }

    /// Nothing moved: more bytes are needed, or there are none.
    fn starved(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        if !w.is_end() || std::mem::replace(&mut self.ended, true) {
            return None;
        }
        self.envelope.close_without(X12Level::Interchange, w.at(), true, notes);
        notes.claimed = self.envelope.claimed().filter(|_| self.interchanges > 0);
        if self.interchanges == 0 && w.fed() > 0 {
            notes.give_up(codes::X12_NO_INTERCHANGE);
            return None;
        }
        self.finish_record(w)
    }

    fn between(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        w.advance(decoration(w.rest()));
        w.skip();
        if w.rest().is_empty() || (w.rest().len() < 4 && !w.is_end()) {
            return None;
        }
        if !begins_interchange(w.rest()) {
            self.at = At::Stray;
            return None;
        }
        let isa = match isa::read(w.rest(), w.is_end()) {
            Read::Starved => return None,
            Read::NotReadable => {
                notes.find(codes::X12_ISA, w.at()..w.at() + 3, None);
                self.at = At::Stray;
                w.advance(3);
                return None;
            }
            Read::Isa(isa) => isa,
        };
        let range = w.at()..w.at() + isa.bytes as u64;
        if !isa.padded {
            notes.find(codes::X12_ISA_UNPADDED, range.clone(), None);
        }
        (self.element, self.terminator) = (isa.element, isa.terminator);
        self.isa = Bytes::copy_from_slice(&w.rest()[..isa.bytes]);
        self.interchanges += 1;
        self.envelope.open(X12Level::Interchange, isa.number, range, notes);
        w.advance(isa.bytes);
        if !self.envelope.in_record() {
            w.skip();
        }
        self.at = At::Segment;
        None
    }

    /// Text outside of interchanges, up to what may be an ISA.
    fn stray(&mut self, w: &mut Window) -> Option<Cut> {
        let rest = w.rest();
        let found = memmem::find_iter(rest, b"ISA").find(|at| rest.len() < at + 4 || begins_interchange(&rest[*at..]));
        let count = match found {
            Some(at) if rest.len() >= at + 4 => at,
            _ if w.is_end() => rest.len(),
            _ => rest.len().saturating_sub(3),
        };
        let ended = found.is_some_and(|at| rest.len() >= at + 4) || w.is_end();
        w.advance(count);
        if !ended {
            return None;
        }
        self.at = At::Between;
        bad_run(w, codes::X12_STRAY)
    }

    fn segment(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        let blanks = decoration(w.rest());
        w.advance(blanks);
        if !self.envelope.in_record() && !self.unplaced {
            w.skip();
        }
        let rest = w.rest();
        if rest.len() < 4 && !w.is_end() || rest.is_empty() || w.is_spent() {
            return None;
        }
        if begins_interchange(rest) {
            self.envelope.close_without(X12Level::Interchange, w.at(), false, notes);
            self.at = At::Between;
            return self.finish_record(w);
        }
        if !self.plain_binary && (rest.starts_with(b"BIN") || rest.starts_with(b"BDS")) && rest.get(3) == Some(&self.element) {
            return self.binary_head(w, notes);
        }
        let longest = X12_SEGMENT_BYTES_MAX.min(w.limits().record_bytes);
        let seek = &rest[..rest.len().min(longest + 1)];
        match memchr::memchr(self.terminator, seek) {
            Some(at) => self.whole(w, notes, at, at + 1),
            None if rest.len() > longest => {
                self.place_other(w);
                self.at = At::Long;
                None
            }
            None if w.is_end() => self.whole(w, notes, rest.trim_ascii_end().len(), rest.len()),
            None => None,
        }
    }

    /// A segment that is here with all its bytes: `body` of them without the terminator.
    fn whole(&mut self, w: &mut Window, notes: &mut Notes, body: usize, bytes: usize) -> Option<Cut> {
        let end = w.rest()[..body].iter().position(|b| *b == self.element).unwrap_or(body);
        match name(&w.rest()[..end]) {
            Name::Header(level) => self.header(w, notes, level, bytes),
            Name::Trailer(level) => self.trailer(w, notes, level, body, bytes),
            Name::Ta1 if !self.envelope.is_open(X12Level::Group) => self.acknowledgement(w, bytes),
            Name::Ta1 | Name::Other => {
                self.place_other(w);
                w.advance(bytes);
                self.plain_binary = false;
                None
            }
        }
    }

    /// GS or ST. What is still open of its level and below ends without a trailer.
    fn header(&mut self, w: &mut Window, notes: &mut Notes, level: X12Level, bytes: usize) -> Option<Cut> {
        let placed = above(level).is_some_and(|above| self.envelope.is_open(above));
        if self.interrupts(w, notes, Some(level)) || (placed && self.unplaced) {
            return self.finish_record(w);
        }
        if !placed {
            self.place_other(w);
            w.advance(bytes);
            return None;
        }
        let number_at = if level == X12Level::Group { 6 } else { 2 };
        let segment = &w.rest()[..bytes];
        let body = segment.strip_suffix(&[self.terminator]).unwrap_or(segment);
        let number = Number::of(body.split(|b| *b == self.element).nth(number_at).unwrap_or_default());
        if level == X12Level::Group {
            self.gs = Bytes::copy_from_slice(segment);
        }
        self.envelope.open(level, number, w.at()..w.at() + bytes as u64, notes);
        w.advance(bytes);
        if !self.envelope.in_record() {
            w.skip();
        }
        None
    }

    /// SE, GE or IEA. What is still open below its level ends without a trailer.
    fn trailer(&mut self, w: &mut Window, notes: &mut Notes, level: X12Level, body: usize, bytes: usize) -> Option<Cut> {
        let placed = self.envelope.is_open(level);
        if self.interrupts(w, notes, below(level)) || (placed && self.unplaced) {
            return self.finish_record(w);
        }
        if !placed {
            self.place_other(w);
            w.advance(bytes);
            return None;
        }
        let mut elements = w.rest()[..body].split(|b| *b == self.element).skip(1);
        let (count, number) = (elements.next().unwrap_or_default(), Number::of(elements.next().unwrap_or_default()));
        let in_record = self.envelope.in_record();
        self.envelope.count_segment();
        self.envelope.close(level, count, number, w.at()..w.at() + bytes as u64, notes);
        w.advance(bytes);
        if level == X12Level::Interchange {
            self.at = At::Between;
        }
        if !in_record {
            w.skip();
        }
        if in_record && !self.envelope.in_record() { self.finish_record(w) } else { None }
    }

    /// Closes what has no trailer; true where that ends the record in progress.
    fn interrupts(&mut self, w: &Window, notes: &mut Notes, up_to: Option<X12Level>) -> bool {
        let in_record = self.envelope.in_record();
        if let Some(up_to) = up_to {
            self.envelope.close_without(up_to, w.at(), false, notes);
        }
        in_record && !self.envelope.in_record()
    }

    /// A TA1 outside of groups.
    fn acknowledgement(&mut self, w: &mut Window, bytes: usize) -> Option<Cut> {
        if self.level == X12Level::Interchange {
            w.advance(bytes);
            return None;
        }
        if self.unplaced {
            return self.finish_record(w);
        }
        w.advance(bytes);
        Some(self.record(w, None))
    }

    /// A segment that belongs to a set, or nowhere.
    fn place_other(&mut self, w: &Window) {
        if self.envelope.is_open(X12Level::Transaction) {
            self.envelope.count_segment();
        } else if self.envelope.in_record() {
            self.envelope.fault.get_or_insert(codes::X12_STRAY_SEGMENT);
        } else {
            debug_assert!(self.unplaced || w.is_between(), "what went before was passed over");
            self.unplaced = true;
        }
    }

    fn long(&mut self, w: &mut Window) {
        match memchr::memchr(self.terminator, w.rest()) {
            Some(at) => {
                w.advance(at + 1);
                self.plain_binary = false;
                self.at = At::Segment;
            }
            None => w.advance(w.rest().len()),
        }
    }
}
