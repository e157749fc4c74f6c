//! Fixed width.

use super::*;
use crate::source::charset::Charset;

fn fixed(change: impl FnOnce(&mut FixedSettings)) -> SplitSettings {
    let mut settings = FixedSettings::from_widths(&[4, 3]);
    change(&mut settings);
    SplitSettings::Fixed(settings)
}

#[test]
fn a_line_must_reach_to_the_end_of_the_layout() {
    let (pieces, verdict) = split(&fixed(|_| ()), "4711 12\r\n4712\n4713 13  \n4714 14x\n\n4715 15\n\x1A");
    assert_eq!(shown(&pieces), ["4711 12", "!fixed_short", "4713 13  ", "!fixed_long", "4715 15"]);
    assert_eq!(rows(&pieces), [1, 2, 3, 4, 6]);
    assert_eq!(verdict.state, State::Complete);
    assert_eq!(shown(&split(&fixed(|f| f.trimmed_ends = true), "4712\n").0), ["4712"]);
}

#[test]
fn lengths_of_lines_count_characters() {
    assert_eq!(shown(&split(&fixed(|f| f.encoding = Charset::UTF_8), "Bär 12é\nab\n").0), ["Bär 12é", "!fixed_short"]);
    assert_eq!(shown(&split(&fixed(|f| f.encoding = Charset::UTF_8), b"B\xE4r 123\n").0), ["!fixed_encoding"]);
    assert_eq!(split(&fixed(|_| ()), b"B\xE4r 123\n").1.records, 1);
}

#[test]
fn blocks_follow_each_other_with_or_without_line_ends() {
    let blocks = fixed(|f| f.record_len = Some(8));
    for text in ["4711 12x4712 13y", "4711 12x\r\n4712 13y\r\n", "4711 12x4712 13y\x1A"] {
        assert_eq!(shown(&split(&blocks, text).0), ["4711 12x", "4712 13y"]);
        assert_eq!(split(&blocks, text).1.state, State::Complete);
    }
    let (pieces, verdict) = split(&blocks, "4711 12x4712");
    assert_eq!(shown(&pieces), ["4711 12x", "!fixed_cut"]);
    assert_eq!(verdict.state, State::Truncated { code: codes::FIXED_CUT });
}

#[test]
fn layouts_that_cannot_be_are_refused() {
    for widths in [&[][..], &[0], &[70_000], &[u32::MAX, u32::MAX]] {
        assert!(Splitter::new(&SplitSettings::Fixed(FixedSettings::from_widths(widths)), limits(64)).is_err(), "{widths:?}");
    }
    let error = Splitter::new(&fixed(|f| f.record_len = Some(6)), limits(64)).unwrap_err();
    assert_eq!(error, SplitError::FixedLength { width: 7, record_len: 6 });
    assert_eq!(FixedSettings::from_widths(&[4, 3]).fields[1], FixedField { start: 4, len: 3 });
}
