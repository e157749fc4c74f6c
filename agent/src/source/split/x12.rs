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

mod envelope;
mod isa;

use bytes::{BufMut as _, Bytes, BytesMut};
use memchr::memmem;

use self::envelope::Envelope;
use self::isa::{Number, Read};
use super::codes;
use super::settings::X12Level;
use super::verdict::Notes;
use super::window::{Cut, Preamble, Taken, Window, over_cut};
use crate::limits::X12_SEGMENT_BYTES_MAX;

/// Enough for the name of a binary segment and the elements up to its length.
const BINARY_HEAD_BYTES: usize = 64;

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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Gs,
    St,
    Se,
    Ge,
    Iea,
    Ta1,
    Other,
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
        if w.rest().len() < 4 && !(w.is_end() && !w.rest().is_empty()) {
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
        if rest.len() < 4 && !w.is_end() || rest.is_empty() {
            return None;
        }
        if begins_interchange(rest) {
            self.envelope.close_without(X12Level::Interchange, w.at(), false, notes);
            self.at = At::Between;
            return self.finish_record(w);
        }
        if !self.plain_binary && (rest.starts_with(b"BIN") || rest.starts_with(b"BDS")) && rest[3] == self.element {
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
        let segment = &w.rest()[..body];
        let mut elements = segment.split(|b| *b == self.element);
        let name = name(elements.next().unwrap_or_default());
        let (level, number) = match name {
            Name::Gs => (X12Level::Group, elements.nth(5)),
            Name::St => (X12Level::Transaction, elements.nth(1)),
            Name::Se | Name::Ge | Name::Iea | Name::Ta1 | Name::Other => (trailer_level(name), None),
        };
        let header = matches!(name, Name::Gs | Name::St);
        let trailer = matches!(name, Name::Se | Name::Ge | Name::Iea);
        if header || trailer {
            // what is still open of this level and below (for a trailer: below) ends without its own trailer
            let up_to = if header { Some(level) } else { below(level) };
            let was_open = self.envelope.in_record();
            if let Some(up_to) = up_to {
                self.envelope.close_without(up_to, w.at(), false, notes);
            }
            let placed = if header { above(level).is_some_and(|above| self.envelope.is_open(above)) } else { self.envelope.is_open(level) };
            if (was_open && !self.envelope.in_record()) || (placed && self.unplaced) {
                return self.finish_record(w);
            }
            if !placed {
                self.place_other(w);
                w.advance(bytes);
                return None;
            }
        }
        let range = w.at()..w.at() + bytes as u64;
        if header {
            let number = Number::of(number.unwrap_or_default());
            if name == Name::Gs {
                self.gs = Bytes::copy_from_slice(&w.rest()[..bytes]);
            }
            self.envelope.open(level, number, range, notes);
            w.advance(bytes);
            if !self.envelope.in_record() {
                w.skip();
            }
            return None;
        }
        if trailer {
            let (count, number) = (elements.next().unwrap_or_default(), Number::of(elements.next().unwrap_or_default()));
            let record = self.envelope.in_record();
            self.envelope.count_segment();
            self.envelope.close(level, count, number, range, notes);
            w.advance(bytes);
            if name == Name::Iea {
                self.at = At::Between;
            }
            if record && !self.envelope.in_record() {
                return self.finish_record(w);
            }
            if !record {
                w.skip();
            }
            return None;
        }
        let alone = name == Name::Ta1 && !self.envelope.is_open(X12Level::Group);
        if alone && self.level != X12Level::Interchange {
            if self.unplaced {
                return self.finish_record(w);
            }
            w.advance(bytes);
            return self.record(w, None);
        }
        if !alone {
            self.place_other(w);
        }
        w.advance(bytes);
        self.plain_binary = false;
        None
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

    fn binary_head(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        let head = &w.rest()[..w.rest().len().min(BINARY_HEAD_BYTES)];
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
            (None, None) if head.len() < BINARY_HEAD_BYTES && !w.is_end() && !head.contains(&self.terminator) => {}
            _ => {
                self.spoil_binary(w, notes);
                self.plain_binary = true;
                return self.segment(w, notes);
            }
        }
        None
    }

    fn binary(&mut self, w: &mut Window, notes: &mut Notes, left: u64, data: usize) {
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

    fn spoil_binary(&mut self, w: &Window, notes: &mut Notes) {
        notes.find(codes::X12_BINARY_LENGTH, w.at()..w.at(), None);
        if self.envelope.in_record() {
            self.envelope.fault.get_or_insert(codes::X12_BINARY_LENGTH);
        }
    }

    /// What is in the window is complete, or as complete as it will be.
    fn finish_record(&mut self, w: &mut Window) -> Option<Cut> {
        if std::mem::take(&mut self.unplaced) {
            return bad_run(w, codes::X12_STRAY_SEGMENT);
        }
        if w.is_between() {
            return None;
        }
        let fault = self.envelope.fault.take();
        self.record(w, fault)
    }

    fn record(&self, w: &mut Window, fault: Option<&'static str>) -> Option<Cut> {
        let (start, bytes) = match w.take() {
            Taken::Over { range, head } => return Some(over_cut(range, head, None)),
            Taken::Whole { start, bytes } => (start, bytes.slice(..bytes.trim_ascii_end().len().max(self.end_of(&bytes)))),
        };
        if let Some(code) = fault {
            return Some(w.bad_cut(code, start, &bytes, None));
        }
        let isa = if self.level == X12Level::Interchange { &[][..] } else { &self.isa };
        let alone = !bytes.starts_with(b"ST");
        let gs = if self.level != X12Level::Transaction || alone { &[][..] } else { &self.gs };
        if isa.len() + gs.len() + bytes.len() > w.limits().record_bytes {
            return Some(w.bad_cut(codes::RECORD_OVER_LIMIT, start, &bytes, None));
        }
        let range = start..start + bytes.len() as u64;
        let mut record = BytesMut::with_capacity(isa.len() + gs.len() + bytes.len());
        record.put_slice(isa);
        record.put_slice(gs);
        record.put_slice(&bytes);
        let mut cut = w.record_cut(start, record.freeze(), None);
        cut.range = range;
        Some(cut)
    }

    /// A terminator that is itself a line end stays.
    fn end_of(&self, bytes: &[u8]) -> usize {
        memchr::memrchr(self.terminator, bytes).map_or(0, |at| at + 1)
    }
}

fn bad_run(w: &mut Window, code: &'static str) -> Option<Cut> {
    match w.take() {
        Taken::Over { range, head } => Some(over_cut(range, head, None)),
        Taken::Whole { start, bytes } => {
            let bytes = bytes.slice(..bytes.len() - bytes.iter().rev().take_while(|b| is_decoration(**b)).count());
            (!bytes.is_empty()).then(|| w.bad_cut(code, start, &bytes, None))
        }
    }
}

/// Also what DOS programs end files with.
fn is_decoration(b: u8) -> bool {
    matches!(b, b'\r' | b'\n' | b' ' | b'\t' | 0 | 0x1A)
}

fn decoration(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| is_decoration(**b)).count()
}

fn begins_interchange(rest: &[u8]) -> bool {
    rest.starts_with(b"ISA") && rest.get(3).is_some_and(|b| !b.is_ascii_alphanumeric())
}

fn name(bytes: &[u8]) -> Name {
    match bytes {
        b"GS" => Name::Gs,
        b"ST" => Name::St,
        b"SE" => Name::Se,
        b"GE" => Name::Ge,
        b"IEA" => Name::Iea,
        b"TA1" => Name::Ta1,
        _ => Name::Other,
    }
}

fn trailer_level(name: Name) -> X12Level {
    match name {
        Name::Iea => X12Level::Interchange,
        Name::Ge | Name::Gs => X12Level::Group,
        _ => X12Level::Transaction,
    }
}

fn below(level: X12Level) -> Option<X12Level> {
    match level {
        X12Level::Interchange => Some(X12Level::Group),
        X12Level::Group => Some(X12Level::Transaction),
        X12Level::Transaction => None,
    }
}

fn above(level: X12Level) -> Option<X12Level> {
    match level {
        X12Level::Interchange => None,
        X12Level::Group => Some(X12Level::Interchange),
        X12Level::Transaction => Some(X12Level::Group),
    }
}
