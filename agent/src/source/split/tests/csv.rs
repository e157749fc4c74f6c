//! CSV.

use super::*;
use crate::source::charset::Charset;

fn csv() -> SplitSettings {
    SplitSettings::Csv(CsvSettings::default())
}

fn csv_with(change: impl FnOnce(&mut CsvSettings)) -> SplitSettings {
    let mut settings = CsvSettings::default();
    change(&mut settings);
    SplitSettings::Csv(settings)
}

#[test]
fn a_record_is_a_row_with_its_header() {
    for end in ["\n", "\r\n", "\r"] {
        let text = format!("\u{feff}item,qty{end}4711,2{end}{end}4712,3");
        let (pieces, verdict) = split(&csv(), &text);
        assert_eq!(shown(&pieces), [format!("item,qty{end}4711,2"), format!("item,qty{end}4712,3")], "{end:?}");
        assert_eq!(rows(&pieces), [2, 4]);
        assert_eq!(&text.as_bytes()[pieces[1].range.start as usize..pieces[1].range.end as usize], b"4712,3");
        assert_eq!((verdict.records, verdict.bad, verdict.state), (2, 0, State::Complete));
        assert_eq!(verdict.envelope_bytes, verdict.bytes - 12);
    }
    assert_eq!(split(&csv(), "item,qty\n").0, [], "a header alone has no records");
    assert_eq!(split(&csv(), "").1.state, State::Complete);
}

#[test]
fn quotes_hold_delimiters_quotes_and_line_ends() {
    let (pieces, _) = split(&csv(), "a,b\n\"1,\"\"x\"\"\r\ny\",2\n5\" nail,3\n\"\",4\n");
    assert_eq!(shown(&pieces), ["a,b\n\"1,\"\"x\"\"\r\ny\",2", "a,b\n5\" nail,3", "a,b\n\"\",4"]);
    assert_eq!(rows(&pieces), [2, 4, 5], "a row over two lines counts two");
}

#[test]
fn a_row_with_another_number_of_columns_costs_only_itself() {
    let (pieces, verdict) = split(&csv(), "a,b\n1,2\n3\n4,5,6\n7,8\nTOTAL,3,,\n");
    assert_eq!(shown(&pieces), ["a,b\n1,2", "!csv_columns", "!csv_columns", "a,b\n7,8", "!csv_columns"]);
    assert_eq!((verdict.records, verdict.bad, verdict.state), (2, 3, State::Complete));
}

#[test]
fn a_quote_that_is_never_closed_costs_its_line_only() {
    let (pieces, _) = split(&csv(), "a,b\n\"1,2\n3,4\n5,6\n");
    assert_eq!(shown(&pieces), ["!csv_quote_unclosed", "a,b\n3,4", "a,b\n5,6"]);
    assert_eq!(rows(&pieces), [2, 3, 4]);
    let (pieces, _) = split(&csv(), "a,b\n\"1,2\n3,4\n\"5\",6\n7,8\n");
    assert_eq!(shown(&pieces), ["!csv_quote_unclosed", "a,b\n3,4", "a,b\n\"5\",6", "a,b\n7,8"], "closed by another row's quote");
    let (pieces, _) = split(&csv(), "a,b\n1,\"2");
    assert_eq!(shown(&pieces), ["!csv_quote_unclosed"]);
    let text = format!("a,b\n1,\"2\n{}", "3,4\n".repeat(100));
    for step in [1, 50, 1000] {
        let (pieces, verdict) = split_with(&csv(), limits(64), text.as_bytes(), step);
        assert_eq!((verdict.records, verdict.bad, pieces[0].range.clone()), (100, 1, 4..8), "found at the limit");
    }
}

#[test]
fn looking_again_for_quotes_is_bounded() {
    // every line opens a quote that the next one closes and opens again
    let text = format!("a,b,c\n{}", "x\",\"y\n".repeat(20_000));
    for step in [100, text.len()] {
        let (_, verdict) = split_with(&csv(), limits(4096), text.as_bytes(), step);
        assert_eq!(verdict.records + verdict.bad, 20_000, "in the end a row ends with its line");
    }
}

#[test]
fn without_quotes_they_are_text() {
    let plain = csv_with(|csv| (csv.quote, csv.delimiter) = (None, b';'));
    assert_eq!(shown(&split(&plain, "a;b\n\"1;2\n").0), ["a;b\n\"1;2"]);
}

#[test]
fn without_a_header_the_first_row_counts_the_columns() {
    let bare = csv_with(|csv| (csv.header, csv.delimiter) = (false, b'\t'));
    assert_eq!(shown(&split(&bare, "1\t2\n3\n4\t5\n").0), ["1\t2", "!csv_columns", "4\t5"]);
}

#[test]
fn bytes_are_checked_against_the_encoding_and_kept() {
    let text = b"a,b\n\xE4,1\nb,2\n";
    assert_eq!(shown(&split(&csv(), text).0), ["!csv_encoding", "a,b\nb,2"]);
    let western = csv_with(|csv| csv.encoding = Charset::WINDOWS_1252);
    let (pieces, verdict) = split(&western, text);
    assert_eq!(verdict.records, 2);
    assert_eq!(pieces[0].kind, PieceKind::Record(Bytes::from_static(b"a,b\n\xE4,1")));
}

#[test]
fn a_header_that_is_too_large_is_no_header() {
    let (pieces, verdict) = split_with(&csv(), limits(64), format!("{}\n1,2\n", "h".repeat(40)).as_bytes(), 9);
    assert_eq!(shown(&pieces), ["!csv_header_over_limit"]);
    assert_eq!(verdict.state, State::Unusable { code: codes::CSV_HEADER_OVER_LIMIT });
    assert_eq!(verdict.bytes, verdict.envelope_bytes + pieces[0].range.end - pieces[0].range.start);
}

#[test]
fn header_and_row_together_keep_the_limit() {
    let (pieces, _) = split_with(&csv(), limits(16), b"head,er\n12345678,9\n1,2\n", 4);
    assert_eq!(shown(&pieces), ["!record_over_limit", "head,er\n1,2"]);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    for (delimiter, quote) in [(b'a', None), (b'\n', None), (b',', Some(b',')), (b',', Some(b'1'))] {
        let settings = csv_with(|csv| (csv.delimiter, csv.quote) = (delimiter, quote));
        assert!(Splitter::new(&settings, limits(64)).is_err());
    }
}
