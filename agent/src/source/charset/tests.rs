//! Every name of table 0211, the order of the rules, and what cannot be read.

use super::*;

fn text(name: &str, bytes: &[u8]) -> (String, usize) {
    let decoded = Charset::named(name).unwrap_or_else(|_| panic!("{name} is known")).decode(bytes);
    (decoded.text.into_owned(), decoded.undecodable)
}

#[test]
fn every_set_of_table_0211_that_a_frame_can_carry_is_read() {
    let cases: [(&str, &[u8], &str); 21] = [
        ("ASCII", b"abc", "abc"),
        ("ISO IR6", b"abc", "abc"),
        ("8859/1", b"\xE9\xDF\xD0", "éßÐ"),
        ("8859/2", b"\xB1\xE6\xB3", "ąćł"),
        ("8859/3", b"\xA1\xE6", "Ħĉ"),
        ("8859/4", b"\xA2\xB6", "ĸļ"),
        ("8859/5", b"\xBF\xE0\xD8", "При"),
        ("8859/6", b"\xC7\xE4", "ال"),
        ("8859/7", b"\xC1\xE2", "Αβ"),
        ("8859/8", b"\xF9\xEC\xE5\xED", "שלום"),
        ("8859/9", b"\xD0\xDD\xDE\xF0\xFD\xFE\xE7", "ĞİŞğışç"),
        ("8859/15", b"\xA4\xBD", "€œ"),
        ("ISO IR14", b"Yen\\5~ \xB1\xB2", "Yen\\5~ ｱｲ"),
        ("ISO IR87", b"PID\x1B$B;3ED\x1B(B^x", "PID山田^x"),
        ("ISO IR159", b"\x1B$(D0!\x1B(B|", "丂|"),
        ("GB 18030-2000", b"\xD6\xD0\xB9\xFA", "中国"),
        ("KS X 1001", b"\xC7\xD1\xB1\xDB", "한글"),
        ("CNS 11643-1992", b"\xA4\xA4\xA4\xE5", "中文"),
        ("BIG-5", b"\xA4\xA4\xA4\xE5", "中文"),
        ("UNICODE", "é中".as_bytes(), "é中"),
        ("UNICODE UTF-8", "é中😀".as_bytes(), "é中😀"),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(text(name, bytes), (expected.to_owned(), 0), "{name}");
    }
}

#[test]
fn names_seen_in_the_wild_are_known_and_those_of_no_set_are_not() {
    for name in ["UTF-8", "utf8", "UTF8", "Unicode UTF-8"] {
        assert_eq!(Charset::named(name), Ok(Charset::UTF_8), "{name}");
    }
    for name in ["iso-8859-1", "ISO_8859-1", "8859-1", "latin1"] {
        assert_eq!(Charset::named(name), Ok(Charset::Latin1), "{name}");
    }
    for name in ["windows-1252", "CP1252", "Windows 1252"] {
        assert_eq!(Charset::named(name), Ok(Charset::WINDOWS_1252), "{name}");
    }
    for name in ["UNICODE UTF-16", "UNICODE UTF-32", "utf16le", "UCS-2"] {
        assert_eq!(Charset::named(name), Err(Unnamed::NotTransportable), "{name}");
    }
    for name in ["8859", "CAN", "", "?", "ébcdic"] {
        assert_eq!(Charset::named(name), Err(Unnamed::Unknown), "{name:?}");
    }
}

#[test]
fn true_latin_1_keeps_its_control_characters_and_windows_1252_does_not() {
    assert_eq!(text("8859/1", b"\x80\x9F"), ("\u{80}\u{9F}".to_owned(), 0));
    assert_eq!(text("windows-1252", b"\x80\x9F"), ("€Ÿ".to_owned(), 0));
}

#[test]
fn what_cannot_be_read_is_replaced_and_counted_and_the_senders_own_replacement_character_is_not() {
    assert_eq!(text("ASCII", b"a\xE9\xFFb"), ("a\u{FFFD}\u{FFFD}b".to_owned(), 2));
    assert_eq!(text("UNICODE UTF-8", b"a\xE9b\xEF\xBF\xBDc"), ("a\u{FFFD}b\u{FFFD}c".to_owned(), 1));
    assert_eq!(text("KS X 1001", b"\xC7").1, 1);
    assert_eq!(text("ISO IR87", b"\x1B$B;3E\rA\xFF").1, 2, "half of a pair, and a byte that no set has");
    assert!(text("ISO IR87", b"\x1B$B;3E\rA").0.ends_with("\rA"), "a line end switches back");
    assert_eq!(text("8859/6", b"\xA1").1, 1, "8859/6 leaves places empty");
}

#[test]
fn msh_18_is_read_with_its_repetitions() {
    let read = |field: &str| Declared::read(field.as_bytes(), b"~");
    assert_eq!(read(""), Declared::Nothing);
    assert_eq!(read("\"\""), Declared::Nothing);
    assert_eq!(read("UNICODE UTF-8"), Declared::Known(Charset::UTF_8));
    assert_eq!(read(" 8859/1 "), Declared::Known(Charset::Latin1));
    assert_eq!(read("8859/1~8859/2"), Declared::Known(Charset::Latin1));
    assert_eq!(read("~ISO IR87"), Declared::Known(Charset::Japanese));
    assert_eq!(read("ASCII~ISO IR87~ISO IR159"), Declared::Known(Charset::Japanese));
    assert_eq!(read("~8859/2"), Declared::Known(Charset::Ascii));
    assert_eq!(read("CAN"), Declared::Unknown);
    assert_eq!(read("UNICODE UTF-16"), Declared::NotTransportable);
    assert_eq!(Declared::read(b"8859/1~x", b""), Declared::Unknown, "without a repetition character there are no repetitions");
    assert_eq!(Declared::read(b"\xFF", b"~"), Declared::Unknown);
}

#[test]
fn a_forced_setting_goes_before_msh_18_and_msh_18_before_everything_else() {
    let latin2 = Charset::named("8859/2").unwrap();
    let message =
        |set: &str, name: &[u8]| [format!("MSH|^~\\&|A|B|C|D|||ADT|1|P|2.5||||||{set}\rPID|1||").as_bytes(), name, b"\r"].concat();
    let chosen = |rule, message: &[u8]| {
        let choice = of_message(rule, message);
        (choice.charset, choice.origin)
    };
    let setting = |force| Rule { charset: Some(latin2), force };
    let none = Rule::default();
    let declared = message("8859/1", b"\xE9");
    assert_eq!(chosen(setting(true), &declared), (latin2, Origin::Forced));
    assert_eq!(chosen(setting(false), &declared), (Charset::Latin1, Origin::Declared));
    for unusable in ["", "CAN", "UNICODE UTF-16"] {
        assert_eq!(chosen(setting(false), &message(unusable, b"\xE9")), (latin2, Origin::Setting), "{unusable}");
        assert_eq!(chosen(none, &message(unusable, "é".as_bytes())), (Charset::UTF_8, Origin::Detected), "{unusable}");
        assert_eq!(chosen(none, &message(unusable, b"\xE9")), (Charset::WINDOWS_1252, Origin::Assumed), "{unusable}");
    }
    assert_eq!(chosen(none, b"no header"), (Charset::UTF_8, Origin::Detected));
}

/// I7: a decoded text is not shown.
#[test]
fn debug_shows_no_text() {
    assert!(!format!("{:?}", Charset::UTF_8.decode(b"CANARY")).contains("CANARY"));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_decoded_in_any_set_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), n in 0usize..12) {
        let names = ["ASCII", "8859/1", "8859/2", "8859/9", "ISO IR87", "SJIS", "EUC-JP", "GB18030", "KS X 1001", "BIG5", "UTF-8", "CP1252"];
        let decoded = Charset::named(names[n]).unwrap().decode(&bytes);
        proptest::prop_assert!(decoded.undecodable <= bytes.len() + 1);
        proptest::prop_assert!(decoded.text.chars().filter(|c| *c == char::REPLACEMENT_CHARACTER).count() >= decoded.undecodable);
        let _ = of_message(Rule::default(), &bytes);
    }
}
