//! CSV: a record is one row with the header row in front of it.
//!
//! ```text
//!   FieldStart ──quote──► Quoted ──quote──► AfterQuote ──quote──► Quoted
//!       │ other              │ LF, CR: part of the field   │ delimiter: FieldStart, row end: row
//!       ▼                    ▼                             ▼ other: Plain (as if it had never been quoted)
//!     Plain              (see below)
//! ```
//!
//! - A row ends with LF, CRLF or a CR alone. A quote means something only at the front of a field. Rows of blanks only are passed over.
//! - The first row is the header (or, without one, shows how many columns there are). A row with another number of columns is bad.
//! - **A quote that is never closed** would take all rows up to the next quote, or the rest of the file, for one field. So where a row that
//!   goes over several lines does not have the right number of columns, has text behind a closing quote, grows over the limit or meets the
//!   end of the file inside quotes, only its first line is bad and reading begins again behind that line. What is read twice is bounded (`CSV_RESCAN_FACTOR`); when that is
//!   spent, rows of this file end with their line even inside quotes.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::settings::{CsvSettings, SplitLimits};
use super::verdict::Notes;
use super::window::{Cut, Preamble, Taken, Window, over_cut};
use super::{PieceKind, codes};
use crate::limits::{CSV_HEADER_BYTES_MAX, CSV_RESCAN_FACTOR, SPLIT_COPY_BYTES};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    FieldStart,
    Plain,
    Quoted,
    AfterQuote,
    /// A CR came outside of quotes: the row ends here, or behind the LF that follows.
    AfterCr,
    RowEnd,
}

#[derive(Clone, Copy)]
enum Class {
    Delimiter,
    Quote,
    Cr,
    Lf,
    Other,
}

/// Where reading begins again if the quotes of this row turn out to be wrong.
#[derive(Clone, Copy)]
struct FirstLine {
    /// Length with its end, in the record.
    bytes: usize,
}

/// What a scan stopped at.
enum Stop {
    Row,
    /// The quotes of this row are wrong.
    GiveUp,
    /// More bytes are needed.
    Starved,
}

pub(super) struct Csv {
    settings: CsvSettings,
    classes: [Class; 256],
    /// Header row with its line end; empty where there is none, or not yet.
    header: Bytes,
    columns: Option<u64>,
    header_bytes_max: usize,
    /// Largest record, and what the window holds of one before it drops it.
    record_max: usize,
    held_max: usize,
    at: At,
    /// Delimiters of the row so far, and its line ends inside quotes.
    delimiters: u64,
    inner_lines: u64,
    first_line: Option<FirstLine>,
    /// Text follows a quote that closed a field over several lines.
    torn: bool,
    /// Line number of the row in progress, from 0.
    line: u64,
    rescans_left: u64,
    /// Where records are put together: a few hundred share a block, which goes with the last of them.
    block: BytesMut,
    /// Nobody looks at the records: ordinary ones are not put together.
    survey: bool,
}

/// Below what the allocator gives back to the system at once.
const BLOCK_BYTES: usize = 32 * 1024;

impl Csv {
    pub(super) fn new(settings: CsvSettings, limits: &SplitLimits) -> Self {
        let mut classes = [Class::Other; 256];
        classes[usize::from(b'\r')] = Class::Cr;
        classes[usize::from(b'\n')] = Class::Lf;
        classes[usize::from(settings.delimiter)] = Class::Delimiter;
        if let Some(quote) = settings.quote {
            classes[usize::from(quote)] = Class::Quote;
        }
        Self {
            settings,
            classes,
            header: Bytes::new(),
            columns: None,
            header_bytes_max: CSV_HEADER_BYTES_MAX.min(limits.record_bytes / 2),
            record_max: limits.record_bytes,
            held_max: limits.record_bytes + limits.slack_bytes,
            at: At::FieldStart,
            delimiters: 0,
            inner_lines: 0,
            first_line: None,
            torn: false,
            line: 0,
            rescans_left: CSV_RESCAN_FACTOR * limits.record_bytes as u64,
            block: BytesMut::new(),
            survey: false,
        }
    }

    pub(super) fn survey(&mut self) {
        self.survey = true;
    }

    pub(super) fn next(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        if w.preamble()? == Preamble::Utf16 {
            notes.give_up(codes::TEXT_UTF16);
            return None;
        }
        while notes.unusable().is_none() && !w.is_spent() {
            let row = Some(self.line + 1);
            match self.scan(w) {
                Stop::Row => {
                    self.line += 1 + self.inner_lines;
                    if let Some(cut) = self.row(w, notes, row) {
                        return Some(cut);
                    }
                }
                Stop::GiveUp => {
                    let first = self.first_line.map_or(w.record().len(), |line| line.bytes);
                    self.rescans_left = self.rescans_left.saturating_sub((w.record().len() - first) as u64);
                    w.rewind(first);
                    self.line += 1;
                    self.begin();
                    let Taken::Whole { start, bytes } = w.take() else { continue }; // never dropped: given up before
                    return Some(w.bad_cut(codes::CSV_QUOTE_UNCLOSED, start, &bytes[..length(&bytes)], row));
                }
                Stop::Starved => return None,
            }
        }
        None
    }

    fn begin(&mut self) {
        (self.at, self.delimiters, self.inner_lines, self.first_line, self.torn) = (At::FieldStart, 0, 0, None, false);
    }

    /// Moves the row in progress on.
    fn scan(&mut self, w: &mut Window) -> Stop {
        loop {
            // a row over several lines is given up at the limit exactly, while all of it is still held
            let room = (w.limits().record_bytes + 1).saturating_sub(w.record().len());
            let bounded = !w.is_dropping() && self.settings.quote.is_some() && room > 0;
            let rest = w.rest();
            let rest = if bounded { &rest[..rest.len().min(room)] } else { rest };
            let (held, over) = (w.record().len(), w.is_dropping());
            let count = self.walk(rest, held, over);
            w.advance(count);
            let over = over || w.record().len() > w.limits().record_bytes;
            match self.at {
                At::RowEnd => {
                    let misfit = self.torn || self.columns.is_some_and(|columns| columns != self.delimiters + 1);
                    return if misfit && self.first_line.is_some() && !w.is_dropping() { Stop::GiveUp } else { Stop::Row };
                }
                _ if over && self.first_line.is_some() && !w.is_dropping() => return Stop::GiveUp,
                _ if !w.rest().is_empty() => {}
                _ if !w.is_end() || w.is_between() => return Stop::Starved,
                At::Quoted if !w.is_dropping() => return Stop::GiveUp,
                _ => {
                    self.at = At::RowEnd;
                }
            }
        }
    }

    /// Looks at bytes up to the end of the row; says how many belong to it.
    fn walk(&mut self, bytes: &[u8], held: usize, over: bool) -> usize {
        let mut i = 0;
        while i < bytes.len() {
            match self.at {
                At::RowEnd => break,
                At::AfterCr => {
                    self.at = At::RowEnd;
                    return i + usize::from(bytes[i] == b'\n');
                }
                At::Quoted => {
                    let quote = self.settings.quote.unwrap_or(b'"');
                    let Some(offset) = memchr::memchr2(quote, b'\n', &bytes[i..]) else { return bytes.len() };
                    i += offset + 1;
                    if bytes[i - 1] == quote {
                        self.at = At::AfterQuote;
                    } else if over || held + i > self.held_max || self.rescans_left == 0 {
                        self.at = At::RowEnd;
                    } else {
                        self.inner_lines += 1;
                        self.first_line.get_or_insert(FirstLine { bytes: held + i });
                        if held + i > self.record_max {
                            return i; // to be given up
                        }
                    }
                }
                At::FieldStart | At::Plain | At::AfterQuote => {
                    if self.at != At::AfterQuote {
                        let run = self.to_mark(&bytes[i..]);
                        self.pass(&bytes[i..i + run]);
                        i += run;
                        if i == bytes.len() {
                            break;
                        }
                    }
                    self.at = match (self.classes[usize::from(bytes[i])], self.at) {
                        (Class::Delimiter, _) => {
                            self.delimiters += 1;
                            At::FieldStart
                        }
                        (Class::Cr, _) => At::AfterCr,
                        (Class::Lf, _) => At::RowEnd,
                        (Class::Quote, At::FieldStart | At::AfterQuote) => At::Quoted,
                        (Class::Quote | Class::Other, at) => {
                            self.torn |= at == At::AfterQuote && self.first_line.is_some();
                            At::Plain
                        }
                    };
                    i += 1;
                }
            }
        }
        i
    }

    /// Bytes in front of the next line end or quote.
    fn to_mark(&self, bytes: &[u8]) -> usize {
        let mark = match self.settings.quote {
            Some(quote) => memchr::memchr3(b'\n', b'\r', quote, bytes),
            None => memchr::memchr2(b'\n', b'\r', bytes),
        };
        mark.unwrap_or(bytes.len())
    }

    /// Bytes outside of quotes, none of them a quote or a line end.
    fn pass(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.delimiters += memchr::memchr_iter(self.settings.delimiter, bytes).count() as u64;
        self.at = if *last == self.settings.delimiter { At::FieldStart } else { At::Plain };
    }

    /// What a complete row is.
    fn row(&mut self, w: &mut Window, notes: &mut Notes, row: Option<u64>) -> Option<Cut> {
        let columns = self.delimiters + 1;
        self.begin();
        if !w.is_dropping() && self.columns == Some(columns) && !self.header.is_empty() {
            let ordinary = self.ordinary_row(w, row);
            if ordinary.is_some() {
                return ordinary;
            }
        }
        let (start, whole) = match w.take() {
            Taken::Over { range, head } => {
                if self.columns.is_none() && self.settings.header {
                    notes.give_up(codes::CSV_HEADER_OVER_LIMIT);
                }
                return Some(over_cut(range, head, row));
            }
            Taken::Whole { start, bytes } => (start, bytes),
        };
        let bytes = whole.slice(..length(&whole));
        if columns == 1 && bytes.trim_ascii().is_empty() {
            return None;
        }
        let expected = *self.columns.get_or_insert(columns);
        if self.settings.header && self.header.is_empty() {
            return self.take_header(w, notes, start, &whole);
        }
        if columns != expected {
            return Some(w.bad_cut(codes::CSV_COLUMNS, start, &bytes, row));
        }
        if !bytes.is_ascii() && self.settings.encoding.decode(&bytes).undecodable > 0 {
            return Some(w.bad_cut(codes::CSV_ENCODING, start, &bytes, row));
        }
        if self.header.is_empty() {
            return Some(w.record_cut(start, bytes, row));
        }
        if self.header.len() + bytes.len() > w.limits().record_bytes {
            return Some(w.bad_cut(codes::RECORD_OVER_LIMIT, start, &bytes, row));
        }
        let end = start + bytes.len() as u64;
        let mut record = BytesMut::with_capacity(self.header.len() + bytes.len());
        record.put_slice(&self.header);
        record.put_slice(&bytes);
        let mut cut = w.record_cut(start, record.freeze(), row);
        cut.range = start..end;
        Some(cut)
    }

    /// The record of a small row that is as it should be, without a copy of the row in between; `None` for any other.
    fn ordinary_row(&mut self, w: &mut Window, row: Option<u64>) -> Option<Cut> {
        let whole = w.record();
        let (start, bytes) = (w.at() - whole.len() as u64, &whole[..length(whole)]);
        let len = self.header.len() + bytes.len();
        if len > SPLIT_COPY_BYTES.min(w.limits().record_bytes) || !bytes.is_ascii() || bytes.trim_ascii().is_empty() {
            return None;
        }
        let range = start..start + bytes.len() as u64;
        let record = if self.survey {
            Bytes::new()
        } else {
            if self.block.capacity() < len {
                self.block = BytesMut::with_capacity(BLOCK_BYTES);
            }
            self.block.put_slice(&self.header);
            self.block.put_slice(bytes);
            self.block.split().freeze()
        };
        w.skip();
        Some(Cut { range, row, kind: PieceKind::Record(record) })
    }

    fn take_header(&mut self, w: &Window, notes: &mut Notes, start: u64, whole: &Bytes) -> Option<Cut> {
        if whole.len() > self.header_bytes_max {
            notes.give_up(codes::CSV_HEADER_OVER_LIMIT);
            return Some(w.bad_cut(codes::CSV_HEADER_OVER_LIMIT, start, whole, Some(1)));
        }
        self.header = Bytes::copy_from_slice(whole);
        None
    }
}

/// Length of a row without LF, CRLF or CR.
fn length(row: &[u8]) -> usize {
    let row = row.strip_suffix(b"\n").unwrap_or(row);
    row.strip_suffix(b"\r").unwrap_or(row).len()
}
