//! What every format keeps.

use super::*;
use crate::limits::SPLIT_FEED_BYTES;
use proptest::prelude::*;

fn all() -> Vec<SplitSettings> {
    let names = ["whole", "hl7_batch", "hl7_concat", "lines", "csv", "x12", "ndjson", "json_array", "fhir_bundle"];
    let mut all: Vec<SplitSettings> = names.iter().map(|name| SplitSettings::named(name).unwrap()).collect();
    all.extend([X12Level::Group, X12Level::Interchange].map(|level| SplitSettings::X12 { level }));
    all.push(SplitSettings::Csv(CsvSettings { header: false, quote: None, ..CsvSettings::default() }));
    for record_len in [None, Some(9)] {
        all.push(SplitSettings::Fixed(FixedSettings { record_len, ..FixedSettings::from_widths(&[4, 3]) }));
    }
    all
}

/// Pieces of text that mean something to one format or another.
fn token() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "\n",
        "\r",
        "\r\n",
        ",",
        "\"",
        "\"\"",
        "a",
        "1",
        " ",
        "\u{feff}",
        "é",
        "{",
        "}",
        "[",
        "]",
        ":",
        "\\",
        "{\"resourceType\":\"Bundle\"",
        ",\"entry\":[",
        "{\"a\":[1]}",
        "\"x\":",
        "MSH|^~\\&|A\r",
        "BHS|^~\\&\r",
        "FHS|^~\\&\n",
        "BTS|1\r",
        "FTS|1\r",
        "PID|1\r",
        "\u{b}",
        "\0",
        "ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       *260102*1200*^*00501*000000001*0*P*:~",
        "ISA|1|2|3|4|5|6|7|8|9|a|b|c|1|e|f|:\n",
        "GS*PO*A*B*1*2*7*X*005010~",
        "ST*850*0001~",
        "SE*2*0001~",
        "BIN*3*a~b~",
        "BIN*70*",
        "BDS*A*",
        "GE*1*7~",
        "IEA*1*000000001~",
        "TA1*1~",
        "~",
        "*",
        "ISA",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ])
}

/// A member of an object that may be a Bundle, with long stretches of what decides nothing.
fn member() -> impl Strategy<Value = String> {
    let blanks = || prop_oneof![2 => Just(0usize), 1 => 0usize..150].prop_map(|count| " ".repeat(count));
    let key = prop::sample::select(vec!["\"resourceType\"", "\"entry\"", "\"x\"", "\"resource\\u0054ype\"", ""]);
    let value = prop_oneof![
        prop::sample::select(vec!["\"Bundle\"", "\"Patient\"", "[", "[{\"a\":1},2]", "[]", "{\"a\":[1]}", "7", ""]).prop_map(str::to_owned),
        (1usize..150).prop_map(|count| "9".repeat(count)),
    ];
    let (colon, after) = (prop::sample::select(vec![":", ":", ":", ""]), prop::sample::select(vec![",", ",", ",", "}", "]", "", "\""]));
    (key, blanks(), colon, blanks(), value, blanks(), after)
        .prop_map(|(key, a, colon, b, value, c, after)| [key, &a, colon, &b, &value, &c, after].concat())
}

fn bounds(record_bytes: usize) -> SplitLimits {
    SplitLimits { discard_bytes: 4 * record_bytes as u64 + 64, ..limits(record_bytes) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// I4: whatever the bytes and however they are cut, every format gives the same pieces, in order, disjoint, and holds no more than its
    /// bound.
    #[test]
    fn any_portions_give_the_same_pieces(
        tokens in prop::collection::vec(token(), 0..60),
        noise in prop::collection::vec(any::<u8>(), 0..20),
        step in 1usize..40,
        record_bytes in prop::sample::select(vec![24usize, 150, 400, 100_000]),
    ) {
        let text = [tokens.concat().into_bytes(), noise].concat();
        for settings in all() {
            let whole = split_with(&settings, bounds(record_bytes), &text, text.len());
            prop_assert_eq!(&split_with(&settings, bounds(record_bytes), &text, step), &whole, "{} by {}", settings.name(), step);
            let (pieces, verdict) = whole;
            let mut end = 0;
            for (piece, index) in pieces.iter().zip(1..) {
                prop_assert_eq!(piece.index, index);
                prop_assert!(piece.range.start >= end && piece.range.end >= piece.range.start, "{}", settings.name());
                end = piece.range.end;
                let place = &text[piece.range.start as usize..piece.range.end as usize];
                match &piece.kind {
                    PieceKind::Record(bytes) => prop_assert!(bytes.ends_with(place) && bytes.len() <= record_bytes),
                    PieceKind::Bad { bytes, .. } => prop_assert!(place.starts_with(bytes) && (!bytes.is_empty() || place.is_empty())),
                }
            }
            prop_assert!(end <= text.len() as u64);
            prop_assert_eq!(verdict.bytes, text.len() as u64);
            let covered: u64 = pieces.iter().map(|piece| piece.range.end - piece.range.start).sum();
            prop_assert_eq!(verdict.envelope_bytes + covered, verdict.bytes);
            prop_assert_eq!(verdict.records + verdict.bad, pieces.len() as u64);
        }
    }

    /// I4: neither does it depend on the portions where a Bundle, or what is taken for one, spends its budget between two states.
    #[test]
    fn any_portions_of_a_bundle_give_the_same_pieces(
        members in prop::collection::vec(member(), 0..5),
        step in 1usize..80,
        record_bytes in 8usize..120,
        slack_bytes in 0usize..40,
        discard_bytes in 0u64..200,
    ) {
        let text = format!("{{{}", members.concat()).into_bytes();
        let bounds = SplitLimits { slack_bytes, discard_bytes, ..limits(record_bytes) };
        let whole = split_with(&SplitSettings::FhirBundle, bounds, &text, text.len());
        prop_assert_eq!(&split_with(&SplitSettings::FhirBundle, bounds, &text, step), &whole);
    }

    /// What a parser of whole documents takes, the streaming one takes with the same elements.
    #[test]
    fn arrays_agree_with_a_parser_of_whole_documents(tokens in prop::collection::vec(token(), 0..12)) {
        let text = format!("[{}]", tokens.concat());
        if let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(&text) {
            let (pieces, verdict) = split_with(&SplitSettings::JsonArray, SplitLimits::new(MIB), text.as_bytes(), 5);
            prop_assert_eq!(verdict.state, State::Complete);
            let parse = |piece: &Piece| match &piece.kind {
                PieceKind::Record(bytes) => serde_json::from_slice::<serde_json::Value>(bytes).unwrap(),
                PieceKind::Bad { code, .. } => panic!("{code}"),
            };
            prop_assert_eq!(pieces.iter().map(parse).collect::<Vec<_>>(), values);
        }
    }
}

/// I4: a hundred megabytes through every format that goes on for ever hold no more than a record and what was fed.
#[test]
fn memory_does_not_grow_with_the_file() {
    let filler = "x".repeat(100);
    let unit = |settings: &SplitSettings| match settings {
        SplitSettings::Csv(_) => format!("{filler},\"1\n2\"\n"),
        SplitSettings::Fixed(_) => "4711 12  \n".repeat(10),
        SplitSettings::Ndjson => format!("{{\"a\":\"{filler}\"}}\n"),
        SplitSettings::JsonArray | SplitSettings::FhirBundle => format!("{{\"a\":\"{filler}\"}},"),
        SplitSettings::Hl7Batch | SplitSettings::Hl7Concat => format!("MSH|^~\\&|A\rOBX|{filler}\r"),
        SplitSettings::X12 { .. } => format!("ST*850*1~N1*{filler}~SE*3*1~"),
        SplitSettings::Whole | SplitSettings::Lines => format!("{filler}\n"),
    };
    let front = |settings: &SplitSettings| match settings {
        SplitSettings::JsonArray => "[".to_owned(),
        SplitSettings::FhirBundle => "{\"resourceType\":\"Bundle\",\"entry\":[".to_owned(),
        SplitSettings::X12 { .. } => {
            "ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       *260102*1200*^*00501*000000001*0*P*:~GS*PO*A*B*1*2*7*X*1~"
                .to_owned()
        }
        _ => String::new(),
    };
    for settings in all().iter().filter(|settings| **settings != SplitSettings::Whole) {
        let bounds = SplitLimits::new(MIB);
        let mut splitter = Splitter::new(settings, bounds).unwrap();
        let unit = unit(settings);
        let portion = unit.repeat(SPLIT_FEED_BYTES / unit.len());
        splitter.feed(front(settings).as_bytes());
        let mut most = 0;
        for _ in 0..(100 * MIB as usize).div_ceil(portion.len()) {
            splitter.feed(portion.as_bytes());
            most = most.max(splitter.held());
            while splitter.next_piece().is_some() {}
        }
        let bound = bounds.record_bytes + bounds.slack_bytes + SPLIT_FEED_BYTES + X12_SEGMENT_BYTES_MAX;
        assert!(most <= bound, "{}: {most}", settings.name());
        assert!(splitter.verdict().records > 0 || matches!(settings, SplitSettings::X12 { level } if *level != X12Level::Transaction));
    }
}
