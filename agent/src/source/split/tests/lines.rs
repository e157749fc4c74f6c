//! Whole files and lines.

use super::*;

#[test]
fn a_whole_file_is_one_record_and_an_empty_one_none() {
    let (pieces, verdict) = split(&SplitSettings::Whole, "a\nb\n");
    assert_eq!((shown(&pieces), pieces[0].range.clone()), (vec!["a\nb\n".to_owned()], 0..4));
    assert_eq!((verdict.records, verdict.bytes, verdict.envelope_bytes, verdict.state), (1, 4, 0, State::Complete));
    assert_eq!(split(&SplitSettings::Whole, "").0, []);
}

#[test]
fn a_line_is_a_record_whatever_ends_it() {
    let (pieces, verdict) = split(&SplitSettings::Lines, "\u{feff}one\r\n\n  \ntwo \nthree");
    assert_eq!(shown(&pieces), ["one", "two ", "three"]);
    assert_eq!(rows(&pieces), [1, 4, 5]);
    assert_eq!(pieces.iter().map(|p| p.range.clone()).collect::<Vec<_>>(), [3..6, 12..16, 17..22]);
    assert_eq!((verdict.records, verdict.bytes, verdict.envelope_bytes), (3, 22, 10));
}

#[test]
fn a_line_over_the_limit_costs_only_itself() {
    let text = format!("{}\n{}\nb\n", "a".repeat(32), "x".repeat(500));
    for step in [1, 5, 1000] {
        let (pieces, verdict) = split_with(&SplitSettings::Lines, limits(32), text.as_bytes(), step);
        assert_eq!(shown(&pieces), ["a".repeat(32), "!record_over_limit".to_owned(), "b".to_owned()]);
        assert_eq!((verdict.records, verdict.bad, verdict.state), (2, 1, State::Complete));
        let PieceKind::Bad { bytes, .. } = &pieces[1].kind else { panic!() };
        assert_eq!(bytes.len(), 32, "its first bytes are kept");
    }
}

#[test]
fn a_file_without_line_ends_is_given_up_when_the_budget_is_spent() {
    let text = [b"a\n".to_vec(), vec![b'x'; 5000], b"\nb\n".to_vec()].concat();
    for step in [1, 100, 6000] {
        let bounds = SplitLimits { discard_bytes: 1000, ..limits(64) };
        let (pieces, verdict) = split_with(&SplitSettings::Lines, bounds, &text, step);
        assert_eq!(shown(&pieces), ["a", "!discard_budget_spent"]);
        assert_eq!(pieces[1].range, 2..5005);
        assert_eq!(verdict.state, State::Unusable { code: codes::DISCARD_BUDGET_SPENT });
    }
}

#[test]
fn utf_16_is_refused_and_said() {
    let (pieces, verdict) = split(&SplitSettings::Lines, b"\xFF\xFEa\0\n\0");
    assert_eq!(shown(&pieces), ["!text_utf16"]);
    assert!(verdict.state.holds_file());
}

/// I7: pieces and splitters show no content.
#[test]
fn debug_output_shows_lengths_only() {
    let mut splitter = Splitter::new(&SplitSettings::Lines, limits(64)).unwrap();
    splitter.feed(b"CANARY\nCANARY");
    let piece = splitter.next_piece().unwrap();
    assert!(!format!("{splitter:?} {piece:?}").contains("CANARY"));
}

#[test]
fn xml_is_refused_with_a_reason() {
    assert_eq!(SplitSettings::named("xml"), Err(SplitError::Xml));
    assert!(SplitError::Xml.to_string().contains("whole"));
    assert!(SplitSettings::named("tsv").unwrap_err().to_string().contains("csv"));
    for name in ["whole", "hl7_batch", "hl7_concat", "lines", "csv", "x12", "ndjson", "json_array", "fhir_bundle", "fixed"] {
        assert_eq!(SplitSettings::named(name).unwrap().name(), name);
    }
}

#[test]
fn every_code_has_a_meaning() {
    for code in codes::ALL {
        assert_ne!(codes::meaning(code), "unknown code");
    }
}
