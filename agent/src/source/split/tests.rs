//! Behaviour of every format, and what all of them keep: nothing lost between pieces, no dependence on how the bytes are cut.

use super::*;
use crate::limits::{MIB, X12_ISA_BYTES_MAX, X12_SEGMENT_BYTES_MAX};

mod bounds;
mod csv;
mod fixed;
mod hl7;
mod json;
mod lines;
mod x12;

pub(super) fn limits(record_bytes: usize) -> SplitLimits {
    SplitLimits { record_bytes, bad_bytes: record_bytes.min(64), slack_bytes: 16, discard_bytes: 1 << 20 }
}

pub(super) fn split_with(settings: &SplitSettings, limits: SplitLimits, text: &[u8], step: usize) -> (Vec<Piece>, Verdict) {
    let split = split_by(Splitter::new(settings, limits).unwrap(), limits, text, step);
    let survey = split_by(Splitter::survey(settings, limits).unwrap(), limits, text, step);
    assert_eq!((without_records(&survey.0), &survey.1), (without_records(&split.0), &split.1), "a survey finds the same");
    split
}

fn without_records(pieces: &[Piece]) -> Vec<Piece> {
    let mut pieces = pieces.to_vec();
    for piece in &mut pieces {
        if let PieceKind::Record(bytes) = &mut piece.kind {
            bytes.clear();
        }
    }
    pieces
}

fn split_by(mut splitter: Splitter, limits: SplitLimits, text: &[u8], step: usize) -> (Vec<Piece>, Verdict) {
    let mut pieces = Vec::new();
    for portion in text.chunks(step.max(1)) {
        splitter.feed(portion);
        pieces.extend(std::iter::from_fn(|| splitter.next_piece()));
        // an X12 segment is held beside its record
        let bound = limits.record_bytes + limits.slack_bytes + X12_SEGMENT_BYTES_MAX.min(limits.record_bytes).max(X12_ISA_BYTES_MAX) + step;
        assert!(splitter.held() <= bound, "I4: the buffer stays within its bound");
    }
    let (rest, verdict) = splitter.finish();
    pieces.extend(rest);
    (pieces, verdict)
}

/// Splits in one go and byte by byte, and holds that this makes no difference.
pub(super) fn split(settings: &SplitSettings, text: impl AsRef<[u8]>) -> (Vec<Piece>, Verdict) {
    let text = text.as_ref();
    let whole = split_with(settings, SplitLimits::new(MIB), text, text.len());
    for step in [1, 2, 3, 7] {
        assert_eq!(split_with(settings, SplitLimits::new(MIB), text, step), whole, "fed {step} at a time");
    }
    whole
}

/// `text` for a record, `!code` for a bad piece.
pub(super) fn shown(pieces: &[Piece]) -> Vec<String> {
    let show = |piece: &Piece| match &piece.kind {
        PieceKind::Record(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        PieceKind::Bad { code, .. } => format!("!{code}"),
    };
    pieces.iter().map(show).collect()
}

pub(super) fn rows(pieces: &[Piece]) -> Vec<u64> {
    pieces.iter().map(|piece| piece.row.unwrap()).collect()
}
