//! NDJSON, arrays and FHIR Bundles.

use super::*;

fn array(text: impl AsRef<[u8]>) -> (Vec<Piece>, Verdict) {
    split(&SplitSettings::JsonArray, text)
}

fn bundle(text: impl AsRef<[u8]>) -> (Vec<Piece>, Verdict) {
    split(&SplitSettings::FhirBundle, text)
}

const CUT: State = State::Truncated { code: codes::JSON_CUT };

#[test]
fn each_line_of_ndjson_is_a_value() {
    let (pieces, verdict) = split(&SplitSettings::Ndjson, "\u{feff}{\"a\":1}\r\n\n {\"b\":[2]} \n{\"c\":}\n\"\u{e4}\"\n<a/>\n5");
    assert_eq!(shown(&pieces), ["{\"a\":1}", "{\"b\":[2]}", "!json_invalid", "\"\u{e4}\"", "!xml", "5"]);
    assert_eq!(rows(&pieces), [1, 3, 4, 5, 6, 7]);
    assert_eq!(verdict.state, State::Complete);
    assert_eq!(split(&SplitSettings::Ndjson, "{\"a\":1}\n{\"b\":").1.state, State::Truncated { code: codes::NDJSON_CUT });
    assert_eq!(shown(&split(&SplitSettings::Ndjson, b"\"\xE4\"\n").0), ["!json_encoding"]);
    let deep = format!("{}{}\n[]\n", "[".repeat(101), "]".repeat(101));
    assert_eq!(shown(&split(&SplitSettings::Ndjson, deep).0), ["!json_depth", "[]"]);
}

#[test]
fn an_array_gives_its_elements() {
    let (pieces, verdict) = array("\u{feff} [ {\"a\":\"],\\\"[\"} ,\n[1,2], 3 ] \n");
    assert_eq!(shown(&pieces), ["{\"a\":\"],\\\"[\"}", "[1,2]", "3"]);
    assert_eq!((verdict.records, verdict.state), (3, State::Complete));
    assert_eq!(array("[]").1.state, State::Complete);
    assert_eq!(array("[ ] ").0, []);
}

#[test]
fn an_element_that_is_no_json_costs_only_itself() {
    let (pieces, verdict) = array("[1, {a}, 2 3, , {\"b\":1}}, 4,]");
    let expected = ["1", "!json_invalid", "!json_invalid", "!json_empty_element", "!json_invalid", "4", "!json_empty_element"];
    assert_eq!(shown(&pieces), expected);
    assert_eq!(verdict.state, State::Complete);
}

#[test]
fn an_array_that_does_not_end_is_truncated() {
    for (text, pieces) in
        [("[1,{\"a\":", &["1", "!json_cut"][..]), ("[1,", &["1"]), ("[", &[]), ("[\"a]", &["!json_cut"]), (" ", &[]), ("", &[])]
    {
        let found = array(text);
        assert_eq!((shown(&found.0), found.1.state), (pieces.iter().map(ToString::to_string).collect(), CUT), "{text}");
    }
}

#[test]
fn what_is_no_array_is_refused_with_a_reason() {
    for (text, code) in [("{\"a\":1}", codes::JSON_NOT_ARRAY), ("<a>", codes::XML), ("\u{feff}x", codes::JSON_NOT_ARRAY)] {
        let (pieces, verdict) = array(text);
        assert_eq!((shown(&pieces), verdict.state), (vec![format!("!{code}")], State::Unusable { code }));
    }
    assert_eq!(shown(&array("[1] [2]").0), ["1", "!json_trailing"]);
}

#[test]
fn a_bundle_gives_its_entries() {
    let text = r#"{ "resourceType" : "Bundle", "type": "batch", "meta": {"x": "}\",{", "entry": [9]}, "total": 2, "entry" : [
        {"fullUrl":"u","resource":{"resourceType":"Device"}} , {"request":{"method":"DELETE"}} ], "link": [] }"#;
    let (pieces, verdict) = bundle(text);
    assert_eq!(shown(&pieces), [r#"{"fullUrl":"u","resource":{"resourceType":"Device"}}"#, r#"{"request":{"method":"DELETE"}}"#]);
    assert_eq!((verdict.records, verdict.state), (2, State::Complete));
    assert_eq!(bundle(r#"{"resourceType":"Bundle"}"#).1.state, State::Complete, "a Bundle may be empty");
    let late = r#"{"entry":[{"a":1}],"resourceType":"Bundle"}"#;
    assert_eq!(shown(&bundle(late).0), [r#"{"a":1}"#]);
    let escaped = "{\"resource\\u0054ype\":\"Bundle\",\"entr\\u0079\":[1]}";
    assert_eq!(shown(&bundle(escaped).0), ["1"]);
}

#[test]
fn a_resource_that_is_no_bundle_is_one_record() {
    for text in [r#"{"resourceType":"List","entry":[{"item":1}]}"#, r#"{"id":"x","contained":[{"a":"}"}],"resourceType":"SupplyDelivery"}"#]
    {
        assert_eq!(shown(&bundle(format!("{text}\n")).0), [text]);
    }
    assert_eq!(shown(&bundle("{\"resourceType\":\"List\"}\n{\"resourceType\":\"List\"}").0), ["!json_invalid"], "that is NDJSON");
    assert_eq!(bundle("{\"resourceType\":\"List\",\"a\":[").1.state, CUT);
}

#[test]
fn a_bundle_must_be_complete() {
    let text = r#"{"resourceType":"Bundle","entry":[{"a":1},{"b":2}],"x":{"y":"z"}}"#;
    for end in 1..text.len() {
        let (pieces, verdict) = bundle(&text[..end]);
        assert_eq!(verdict.state, CUT, "{}", &text[..end]);
        assert!(pieces.len() <= 2);
    }
    assert_eq!(shown(&bundle(format!("{text} x")).0), [r#"{"a":1}"#, r#"{"b":2}"#, "!json_trailing"]);
}

#[test]
fn what_is_no_bundle_is_refused_with_a_reason() {
    let state = |text: &str| bundle(text).1.state;
    assert_eq!(state("[1]"), State::Unusable { code: codes::JSON_NOT_OBJECT });
    assert_eq!(state("<Bundle xmlns=\"http://hl7.org/fhir\"/>"), State::Unusable { code: codes::XML });
    assert_eq!(state("{\"a\":1}"), State::Unusable { code: codes::BUNDLE_TYPE });
    assert_eq!(state("{\"entry\":[1],\"resourceType\":\"List\"}"), State::Unusable { code: codes::BUNDLE_TYPE });
    assert_eq!(shown(&bundle("{\"resourceType\":\"Bundle\",\"entry\":{\"a\":1},\"b\":2}").0), ["!bundle_entry"]);
}

#[test]
fn an_entry_over_the_limit_costs_only_itself() {
    let text = format!(r#"{{"resourceType":"Bundle","entry":[{{"a":1}},{{"b":"{}"}},{{"c":3}}]}}"#, "x".repeat(400));
    for step in [1, 30, 1000] {
        let (pieces, verdict) = split_with(&SplitSettings::FhirBundle, limits(64), text.as_bytes(), step);
        assert_eq!(shown(&pieces), [r#"{"a":1}"#, "!record_over_limit", r#"{"c":3}"#]);
        assert_eq!(verdict.state, State::Complete);
    }
}

/// Found by fuzzing.
#[test]
fn what_is_passed_over_spends_no_budget() {
    let text = format!(r#"{{"resourceType":"Bundle","entry":[{{"a":1}}],"x":"{}"}}"#, "y".repeat(5000));
    for step in [1, 100, 10_000] {
        let bounds = SplitLimits { discard_bytes: 500, ..limits(64) };
        let (pieces, verdict) = split_with(&SplitSettings::FhirBundle, bounds, text.as_bytes(), step);
        assert_eq!((shown(&pieces), verdict.state), (vec![r#"{"a":1}"#.to_owned()], State::Complete));
    }
}
