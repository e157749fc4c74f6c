//! The header nearly everybody sends, in one pass: a message, one byte of separator, no control character before the CR that ends the segment.
//!
//! Eight bytes at a time, in a register: where the separators are, and whether the segment ends. Whatever is not plain is left to the general
//! rule, which says the same of a plain one (a test holds the two together). Nothing is copied, nothing is looked at twice.

use super::{FIELDS, Header, Kind, Place, delimiters};

/// Longest header read here, in blocks of eight bytes.
const BLOCKS_MAX: usize = 512;

const ONES: u64 = u64::from_le_bytes([1; 8]);
const LOW: u64 = u64::from_le_bytes([0x7F; 8]);
/// What is zero of a byte below 0x10, CR and LF among them.
const HIGH_HALF: u64 = u64::from_le_bytes([0xF0; 8]);
/// `MSH` and the separator.
const BEGIN_BYTES: u32 = 4;

/// The top bit of each byte that is zero.
#[inline]
fn zeroes(word: u64) -> u64 {
    !(((word & LOW) + LOW) | word | LOW)
}

/// The header at the front of `text`; `None`: not plain, or none.
#[inline]
pub(super) fn header(text: &[u8]) -> Option<Header<'_>> {
    let &[b'M', b'S', b'H', separator, ref rest @ ..] = text else { return None };
    if !separator.is_ascii_punctuation() {
        return None;
    }
    let wanted = ONES * u64::from(separator);
    let mut fields = [Place::default(); FIELDS];
    let (mut n, mut from, mut base, mut ended) = (0, BEGIN_BYTES, BEGIN_BYTES, false);
    for block in rest.as_chunks::<8>().0.iter().take(BLOCKS_MAX) {
        let word = u64::from_le_bytes(*block);
        let mut ends = zeroes(word ^ wanted);
        let controls = zeroes(word & HIGH_HALF);
        if controls != 0 {
            let first = controls.trailing_zeros();
            if block[first as usize / 8] != b'\r' {
                return None;
            }
            ends = ends & ((1 << first) - 1) | 1 << first;
            ended = true;
        }
        while ends != 0 && n < FIELDS {
            let to = base + ends.trailing_zeros() / 8;
            fields[n] = Place { from, to };
            from = to + 1;
            n += 1;
            ends &= ends - 1;
        }
        if ended || n == FIELDS {
            // MSH-2 was ended by a separator
            let encoding = text.get(BEGIN_BYTES as usize..fields[0].to as usize).filter(|_| n > 1)?;
            return Some(Header { kind: Kind::Message, delimiters: delimiters(&text[3..4], encoding), fields, text });
        }
        base += 8;
    }
    None
}
