//! What every splitter keeps, whatever the bytes: the same pieces however the bytes are cut, in order, disjoint, counted, within the limits.

use siteward::limits::{X12_ISA_BYTES_MAX, X12_SEGMENT_BYTES_MAX};
use siteward::source::split::{Piece, PieceKind, SplitLimits, SplitSettings, Splitter, Verdict};

fn split(settings: &SplitSettings, limits: SplitLimits, text: &[u8], seed: Option<u64>) -> (Vec<Piece>, Verdict) {
    let split = split_by(Splitter::new(settings, limits).expect("these settings are fine"), limits, text, seed);
    let survey = split_by(Splitter::survey(settings, limits).expect("these settings are fine"), limits, text, seed);
    let places = |pieces: &[Piece]| pieces.iter().map(|piece| (piece.index, piece.range.clone(), piece.row)).collect::<Vec<_>>();
    assert_eq!((places(&survey.0), &survey.1), (places(&split.0), &split.1), "a survey finds the same");
    split
}

fn split_by(mut splitter: Splitter, limits: SplitLimits, text: &[u8], mut seed: Option<u64>) -> (Vec<Piece>, Verdict) {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let length = seed.as_mut().map_or(rest.len(), |seed| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            1 + (*seed >> 33) as usize % if *seed >> 62 == 0 { 300 } else { 12 }
        });
        let (portion, behind) = rest.split_at(length.min(rest.len()));
        rest = behind;
        splitter.feed(portion);
        pieces.extend(std::iter::from_fn(|| splitter.next_piece()));
        let beside = X12_SEGMENT_BYTES_MAX.min(limits.record_bytes).max(X12_ISA_BYTES_MAX);
        assert!(splitter.held() <= limits.record_bytes + limits.slack_bytes + beside + portion.len(), "I4: no more than the limits say");
    }
    let (left, verdict) = splitter.finish();
    pieces.extend(left);
    (pieces, verdict)
}

/// The first bytes of the input choose the limits and seed the cuts; `make` gets one more to choose settings by; the rest is the file.
pub fn check(input: &[u8], make: impl Fn(u8) -> SplitSettings) {
    let Some(([choice, scale, low, high], text)) = input.split_first_chunk::<4>() else { return };
    let record_bytes = 64 + (usize::from(*scale) << (scale % 5));
    let limits = SplitLimits { record_bytes, bad_bytes: 32, slack_bytes: 16, discard_bytes: 8 * record_bytes as u64 };
    let settings = make(*choice);
    let (pieces, verdict) = split(&settings, limits, text, None);
    assert_eq!(split(&settings, limits, text, Some(u64::from(u16::from_be_bytes([*high, *low])))), (pieces.clone(), verdict.clone()));
    let (mut end, mut covered) = (0, 0);
    for (piece, index) in pieces.iter().zip(1..) {
        assert_eq!(piece.index, index);
        assert!(piece.range.start >= end && piece.range.end >= piece.range.start && piece.range.end <= text.len() as u64);
        end = piece.range.end;
        covered += piece.range.end - piece.range.start;
        let place = &text[piece.range.start as usize..piece.range.end as usize];
        match &piece.kind {
            PieceKind::Record(bytes) => assert!(bytes.ends_with(place) && bytes.len() <= record_bytes),
            PieceKind::Bad { bytes, .. } => assert!(place.starts_with(bytes)),
        }
    }
    assert_eq!(verdict.bytes, text.len() as u64);
    assert_eq!(verdict.envelope_bytes + covered, verdict.bytes);
    assert_eq!(verdict.records + verdict.bad, pieces.len() as u64);
}
