//! The header of an HL7 v2 message, read from raw bytes.
//!
//! Bytes are bytes here: no character set is assumed, nothing is decoded, trimmed or unescaped, and no input makes it panic. What is read
//! is exactly what an answer and a record's identity need: MSH-3 to MSH-18 with the sender's own delimiters.
//!
//! - A byte order mark, blanks, line ends and NULs before the header are skipped.
//! - Segments end with CR if there is any CR in the message, else with LF. CRLF counts as CR. A bare LF beside CRs is data, except in the
//!   header segment when something that looks like a segment follows: senders that mix both exist, and what stands in the next segment must
//!   never get into an answer (I7).
//! - MSH-1 and the delimiters of MSH-2 are characters: where one is written as a UTF-8 sequence, all of its bytes count. A letter, digit or
//!   control character is no delimiter.
//! - A batch begins with FHS or BHS, whose fields 3 to 6 mean the same. Its control id is FHS-11, else BHS-11, else MSH-10 of its first
//!   message; MSH-11 and MSH-12 come from its first message. `batch` cuts it into its messages.

mod plain;
#[cfg(test)]
mod tests;

use memchr::{memchr, memchr2, memmem};
use std::fmt;

/// Least length of a header: `MSH|^~\&|`.
const HEADER_BYTES_MIN: usize = 9;
/// Header segments looked at in a batch: FHS, BHS, MSH and what blank lines may stand between.
const BATCH_LINES_MAX: usize = 8;

const FIRST_FIELD: usize = 2;
const LAST_FIELD: usize = 18;
const FIELDS: usize = LAST_FIELD - FIRST_FIELD + 1;

/// What a header introduces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Message,
    Batch,
}

/// The sender's delimiters; what MSH-2 holds may be anything, so `Debug` does not show it (I7). `component` and `subcomponent` are absent
/// where MSH-2 is too short or unusable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Delimiters<'a> {
    pub separator: &'a [u8],
    /// MSH-2 as received.
    pub encoding: &'a [u8],
    pub component: Option<&'a [u8]>,
    pub repetition: Option<&'a [u8]>,
    pub subcomponent: Option<&'a [u8]>,
}

impl Delimiters<'static> {
    /// What HL7 recommends.
    pub const STANDARD: Self =
        Self { separator: b"|", encoding: b"^~\\&", component: Some(b"^"), repetition: Some(b"~"), subcomponent: Some(b"&") };
}

/// A version as numbers; missing parts are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u8, pub u8, pub u8);

/// A header; fields are places in the message. `Debug` shows none of them: they are content (I7).
#[derive(Clone, PartialEq, Eq)]
pub struct Header<'a> {
    pub kind: Kind,
    pub delimiters: Delimiters<'a>,
    /// From MSH-2 on.
    fields: [Place; FIELDS],
    text: &'a [u8],
}

/// Where a field stands in the text.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    from: u32,
    to: u32,
}

impl Place {
    /// What lies beyond these offsets is taken as absent; no message is that long.
    fn new(from: usize, to: usize) -> Self {
        let offset = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self { from: offset(from), to: offset(to) }
    }
}

impl fmt::Debug for Delimiters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Delimiters")
    }
}

impl fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<'a> Header<'a> {
    /// MSH-`n` (3 to 18), whole, as received; empty where there is none.
    pub fn field(&self, n: usize) -> &'a [u8] {
        let place = n.checked_sub(FIRST_FIELD).filter(|i| *i > 0).and_then(|i| self.fields.get(i));
        place.and_then(|place| self.text.get(place.from as usize..place.to as usize)).unwrap_or_default()
    }

    /// MSH-`n`.`c` (counted from 1), of the first repetition or not: header fields do not repeat where this is asked.
    pub fn component(&self, n: usize, c: usize) -> &'a [u8] {
        let mut rest = Some(self.field(n));
        let Some(delimiter) = self.delimiters.component else {
            return if c == 1 { self.field(n) } else { &[] };
        };
        for _ in 1..c {
            rest = rest.and_then(|r| split_once(r, delimiter).1);
        }
        rest.map(|r| split_once(r, delimiter).0).unwrap_or_default()
    }

    /// MSH-12.1, where it is a version 2.x of HL7.
    pub fn version(&self) -> Option<Version> {
        let mut parts = [0u8; 3];
        let text = std::str::from_utf8(self.component(12, 1).trim_ascii()).ok()?;
        for (i, part) in text.split('.').enumerate() {
            *parts.get_mut(i)? = part.parse().ok()?;
        }
        (parts[0] == 2).then_some(Version(parts[0], parts[1], parts[2]))
    }

    /// Whether the message is itself an acknowledgement: MSH-9.1 is ACK and it has an MSA. Other responses that carry one (ORR, RSP, MFK)
    /// are data.
    pub fn is_acknowledgement(&self) -> bool {
        self.kind == Kind::Message && self.component(9, 1).trim_ascii() == b"ACK" && self.has_segment(*b"MSA")
    }

    /// MSH-11.1 says that the message is not for production: training or debugging (HL7 table 0103).
    pub fn is_test(&self) -> bool {
        let id = self.component(11, 1).trim_ascii();
        id.eq_ignore_ascii_case(b"T") || id.eq_ignore_ascii_case(b"D")
    }

    fn has_segment(&self, name: [u8; 3]) -> bool {
        let separator = self.delimiters.separator;
        let is_it = |line: &[u8]| line.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with(separator));
        Lines::new(self.text).any(|line| line.bytes.split(|b| *b == b'\n').any(is_it))
    }
}

/// Reads the header of a message or batch; `None` where there is none.
pub fn scan(message: &[u8]) -> Option<Header<'_>> {
    read(message, false)
}

/// The same for the first bytes of a message whose rest was dropped: a field that may have been cut is taken as absent.
pub fn scan_head(head: &[u8]) -> Option<Header<'_>> {
    read(head, true)
}

fn read(message: &[u8], cut: bool) -> Option<Header<'_>> {
    let text = skip_blank(message);
    if text.len() < HEADER_BYTES_MIN {
        return None;
    }
    plain::header(text).or_else(|| general(text, cut))
}

/// The rules above, all of them.
fn general(text: &[u8], cut: bool) -> Option<Header<'_>> {
    let mut lines = Lines::new(text);
    let mut header = header(text, &lines.next()?, cut)?;
    if header.kind == Kind::Batch {
        for line in lines.take(BATCH_LINES_MAX) {
            let Some(inner) = self::header(text, &line, cut) else { continue };
            header.adopt(&inner);
            if inner.kind == Kind::Message {
                break;
            }
        }
    }
    Some(header)
}

impl Header<'_> {
    /// What a batch takes over from a header inside it; never what its own separator would take apart in an answer.
    fn adopt(&mut self, inner: &Self) {
        let separator = self.delimiters.separator;
        let same = inner.kind == Kind::Message && inner.delimiters == self.delimiters;
        let taken: &[usize] = if same { &[10, 11, 12] } else { &[10] };
        for &n in taken {
            if self.field(n).is_empty() && memmem::find(inner.field(n), separator).is_none() {
                self.fields[n - FIRST_FIELD] = inner.fields[n - FIRST_FIELD];
            }
        }
    }
}

/// Reads one line as a header segment. `cut`: the line may end where the bytes end, in the middle of a field.
fn header<'a>(text: &'a [u8], line: &Line<'a>, cut: bool) -> Option<Header<'a>> {
    let kind = match line.bytes.get(..3)? {
        b"MSH" => Kind::Message,
        b"FHS" | b"BHS" => Kind::Batch,
        _ => return None,
    };
    let rest = &line.bytes[3..];
    let separator = delimiter(rest)?;
    let (body, whole) = match header_end(rest, separator) {
        Some(end) => (&rest[separator.len()..end], true),
        None => (&rest[separator.len()..], line.terminated),
    };
    let mut fields = [Place::default(); FIELDS];
    let (mut from, mut rest) = (line.at + 3 + separator.len(), Some(body));
    for field in &mut fields {
        let Some(bytes) = rest else { break };
        let (value, next) = split_once(bytes, separator);
        if next.is_some() || whole || !cut {
            *field = Place::new(from, from + value.len());
        }
        from += value.len() + separator.len();
        rest = next;
    }
    let encoding = split_once(body, separator).0;
    if kind == Kind::Batch {
        // FHS-11 is the control id; from field 7 on nothing else of a batch header is used.
        fields[10 - FIRST_FIELD] = fields[11 - FIRST_FIELD];
        fields[7 - FIRST_FIELD..10 - FIRST_FIELD].fill(Place::default());
        fields[11 - FIRST_FIELD..].fill(Place::default());
    }
    Some(Header { kind, delimiters: delimiters(separator, encoding), fields, text })
}

fn delimiters<'a>(separator: &'a [u8], encoding: &'a [u8]) -> Delimiters<'a> {
    if let (b"|", b"^~\\&") = (separator, encoding) {
        return Delimiters::STANDARD;
    }
    let mut rest = encoding;
    let mut characters = [None; 4];
    for character in &mut characters {
        let at = &rest[..character_len(rest)];
        rest = &rest[at.len()..];
        *character = delimiter(at).filter(|d| *d != separator);
    }
    Delimiters { separator, encoding, component: characters[0], repetition: characters[1], subcomponent: characters[3] }
}

/// The character at the front, if it can delimit anything.
pub(super) fn delimiter(bytes: &[u8]) -> Option<&[u8]> {
    let first = *bytes.first()?;
    let usable = !first.is_ascii_alphanumeric() && (first == b'\t' || !first.is_ascii_control());
    usable.then(|| &bytes[..character_len(bytes)])
}

/// Length of the character at the front: of a UTF-8 sequence where there is one, else one byte.
fn character_len(bytes: &[u8]) -> usize {
    let expected = match bytes.first() {
        None => return 0,
        Some(0..0x80) => return 1,
        Some(0xC2..=0xDF) => 2,
        Some(0xE0..=0xEF) => 3,
        Some(0xF0..=0xF4) => 4,
        Some(_) => 1,
    };
    bytes.get(..expected).filter(|character| std::str::from_utf8(character).is_ok()).map_or(1, |_| expected)
}

/// Where the header segment ends before its line does: at a LF that is followed by nothing or by something like a segment.
fn header_end(line: &[u8], separator: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(offset) = memchr(b'\n', &line[from..]) {
        let at = from + offset;
        let after = skip_blank(&line[at..]);
        if after.is_empty() || is_segment(after, separator) {
            return Some(at);
        }
        from = line.len() - after.len(); // the whole run of blanks has been looked at: linear in any input
    }
    None
}

fn is_segment(bytes: &[u8], separator: &[u8]) -> bool {
    let named = |name: &[u8]| {
        name[0].is_ascii_uppercase() && name[1..].iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) // PV1, ZX2
    };
    bytes.get(..3).is_some_and(named) && bytes[3..].starts_with(separator)
}

/// Without byte order mark, blanks, line ends and NULs at the front.
pub(super) fn skip_blank(mut bytes: &[u8]) -> &[u8] {
    loop {
        if let Some(rest) = bytes.strip_prefix(b"\xEF\xBB\xBF") {
            bytes = rest;
        } else if let Some((0 | b'\t' | b'\n' | b'\r' | b' ', rest)) = bytes.split_first() {
            bytes = rest;
        } else {
            return bytes;
        }
    }
}

/// Before and after the first `delimiter`.
pub(super) fn split_once<'a>(bytes: &'a [u8], delimiter: &[u8]) -> (&'a [u8], Option<&'a [u8]>) {
    let at = match delimiter {
        [one] => memchr(*one, bytes),
        _ => memmem::find(bytes, delimiter),
    };
    at.map_or((bytes, None), |at| (&bytes[..at], Some(&bytes[at + delimiter.len()..])))
}

/// What ends a segment of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    Cr,
    Lf,
    /// The first segment ends with LF though there are CRs further on.
    Either,
}

impl LineEnds {
    pub fn of(text: &[u8]) -> Self {
        let Some(cr) = memchr(b'\r', text) else { return Self::Lf };
        let first = &text[..cr];
        let mixed = first.get(3..).and_then(delimiter).and_then(|separator| {
            let end = header_end(&first[3..], separator)?;
            is_segment(skip_blank(&first[3 + end..]), separator).then_some(())
        });
        if mixed.is_some() { Self::Either } else { Self::Cr }
    }

    /// Where the first line end is.
    pub fn find(self, text: &[u8]) -> Option<usize> {
        match self {
            Self::Cr => memchr(b'\r', text),
            Self::Lf => memchr(b'\n', text),
            Self::Either => memchr2(b'\r', b'\n', text),
        }
    }
}

struct Line<'a> {
    /// Where it begins in the text.
    at: usize,
    bytes: &'a [u8],
    /// The terminator was seen.
    terminated: bool,
}

/// Segments of a message by the rule above; leading line feeds (of CRLF) are not part of a line.
struct Lines<'a> {
    rest: Option<&'a [u8]>,
    at: usize,
    terminator: u8,
    /// Where the first line ends, if that was seen already.
    first_end: Option<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a [u8]) -> Self {
        let first_end = memchr(b'\r', text);
        Self { rest: Some(text), at: 0, terminator: if first_end.is_some() { b'\r' } else { b'\n' }, first_end }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = self.rest?;
        let (mut bytes, rest) = match self.first_end.take() {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => split_once(rest, &[self.terminator]),
        };
        let next = self.at + bytes.len() + 1;
        while let Some(line) = bytes.strip_prefix(b"\n") {
            bytes = line;
        }
        let at = next - 1 - bytes.len();
        (self.rest, self.at) = (rest, next);
        Some(Line { at, bytes, terminated: rest.is_some() })
    }
}
