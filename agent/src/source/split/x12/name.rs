//! Which segments move the envelope, and what stands between segments.

use crate::source::split::settings::X12Level;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// GS, ST.
    Header(X12Level),
    /// IEA, GE, SE.
    Trailer(X12Level),
    Ta1,
    Other,
}

/// Also what DOS programs end files with.
pub(super) fn is_decoration(b: u8) -> bool {
    matches!(b, b'\r' | b'\n' | b' ' | b'\t' | 0 | 0x1A)
}

pub(super) fn decoration(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| is_decoration(**b)).count()
}

pub(super) fn begins_interchange(rest: &[u8]) -> bool {
    rest.starts_with(b"ISA") && rest.get(3).is_some_and(|b| !b.is_ascii_alphanumeric())
}

pub(super) fn name(bytes: &[u8]) -> Name {
    match bytes {
        b"GS" => Name::Header(X12Level::Group),
        b"ST" => Name::Header(X12Level::Transaction),
        b"SE" => Name::Trailer(X12Level::Transaction),
        b"GE" => Name::Trailer(X12Level::Group),
        b"IEA" => Name::Trailer(X12Level::Interchange),
        b"TA1" => Name::Ta1,
        _ => Name::Other,
    }
}

pub(super) fn below(level: X12Level) -> Option<X12Level> {
    match level {
        X12Level::Interchange => Some(X12Level::Group),
        X12Level::Group => Some(X12Level::Transaction),
        X12Level::Transaction => None,
    }
}

pub(super) fn above(level: X12Level) -> Option<X12Level> {
    match level {
        X12Level::Interchange => None,
        X12Level::Group => Some(X12Level::Interchange),
        X12Level::Transaction => Some(X12Level::Group),
    }
}
