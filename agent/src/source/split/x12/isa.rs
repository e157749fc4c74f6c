//! The ISA segment: where the separators of an interchange come from.
//!
//! ```text
//!   byte 0   ISA*00*…*P*:~      105: segment terminator, 104: component separator, 3: element separator
//! ```
//!
//! 1. By position: 106 bytes, the element separator at its sixteen fixed places, the terminator last.
//! 2. Where that does not hold (not padded, hand-made): the first sixteen separators are counted, the component separator follows, then the
//!    terminator. An empty ISA16 is told by a terminator directly in front of a line end or a segment name.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::limits::X12_ISA_BYTES_MAX;

const PLACES: [usize; 16] = [3, 6, 17, 20, 31, 34, 50, 53, 69, 76, 81, 83, 89, 99, 101, 103];
const ISA_BYTES: usize = 106;

/// What an ISA says.
pub(super) struct Isa {
    pub element: u8,
    pub terminator: u8,
    /// Length with its terminator.
    pub bytes: usize,
    /// ISA13.
    pub number: Number,
    pub padded: bool,
}

pub(super) enum Read {
    Isa(Isa),
    NotReadable,
    /// More bytes are needed.
    Starved,
}

/// Reads the ISA at the front of `rest`; `end`: no more will come.
pub(super) fn read(rest: &[u8], end: bool) -> Read {
    if rest.len() < ISA_BYTES && !end {
        return Read::Starved;
    }
    let Some(&element) = rest.get(3) else { return Read::NotReadable };
    if let Some(head) = rest.get(..ISA_BYTES)
        && memchr::memchr_iter(element, head).eq(PLACES)
        && is_terminator(head[105], element)
    {
        let number = Number::of(&head[90..99]);
        return Read::Isa(Isa { element, terminator: head[105], bytes: ISA_BYTES, number, padded: true });
    }
    by_counting(&rest[..rest.len().min(X12_ISA_BYTES_MAX)], element, end || rest.len() >= X12_ISA_BYTES_MAX)
}

fn by_counting(head: &[u8], element: u8, all: bool) -> Read {
    let mut places = head.iter().enumerate().filter(|(_, b)| **b == element).map(|(at, _)| at);
    let number_at = (places.nth(12), places.next());
    let last = places.nth(1);
    let Some(last) = last.filter(|last| all || head.len() > last + 4) else {
        return if all { Read::NotReadable } else { Read::Starved };
    };
    let (Some(&first), second) = (head.get(last + 1), head.get(last + 2).copied()) else { return Read::NotReadable };
    let name_follows = |at: usize| head.get(at..at + 2).is_some_and(|name| name == b"GS" || name == b"TA" || name == b"IE");
    let empty = is_terminator(first, element)
        && (name_follows(last + 2) || second.is_none() || (matches!(second, Some(b'\r' | b'\n')) && matches!(first, b'~' | b'\'')));
    let (terminator, bytes) = if empty { (Some(first), last + 2) } else { (second, last + 3) };
    let (Some(terminator), (Some(from), Some(to))) = (terminator.filter(|b| is_terminator(*b, element)), number_at) else {
        return Read::NotReadable;
    };
    if !head.starts_with(b"ISA") {
        return Read::NotReadable;
    }
    Read::Isa(Isa { element, terminator, bytes, number: Number::of(&head[from + 1..to]), padded: false })
}

fn is_terminator(b: u8, element: u8) -> bool {
    b != element && b != b' ' && b != b'\t' && !b.is_ascii_alphanumeric()
}

/// A control number, as a hash; leading zeros and blanks make no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Number(u64);

impl Number {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let text = bytes.trim_ascii();
        let zeros = if text.iter().all(u8::is_ascii_digit) { text.iter().take_while(|b| **b == b'0').count() } else { 0 };
        let mut hasher = DefaultHasher::new();
        text[zeros..].hash(&mut hasher);
        Self(hasher.finish())
    }
}
