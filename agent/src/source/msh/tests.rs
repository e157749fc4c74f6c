//! Headers as they come, and as nobody should send them.

use super::*;
use proptest::prelude::*;

fn field(message: &[u8], n: usize) -> &[u8] {
    scan(message).map(|h| h.field(n)).unwrap()
}

#[test]
fn fields_are_counted_from_the_separator_itself() {
    let header = scan(b"MSH|^~\\&|A|B|C|D|20240101||ADT^A01^ADT_A01|ID 1|P|2.5.1|||AL|NE||UNICODE UTF-8\rPID|1\r").unwrap();
    assert_eq!(header.field(3), b"A");
    assert_eq!(header.field(10), b"ID 1");
    assert_eq!(header.field(15), b"AL");
    assert_eq!(header.field(18), b"UNICODE UTF-8");
    assert_eq!((header.field(2), header.field(19), header.field(0)), (&b""[..], &b""[..], &b""[..]));
    assert_eq!((header.component(9, 1), header.component(9, 3), header.component(9, 4)), (&b"ADT"[..], &b"ADT_A01"[..], &b""[..]));
    assert_eq!(header.version(), Some(Version(2, 5, 1)));
}

#[test]
fn a_byte_order_mark_and_blanks_before_the_header_do_not_matter() {
    for before in [&b"\xEF\xBB\xBF"[..], b"\r\n", b" \t\0\n", b"\n\xEF\xBB\xBF \r"] {
        assert_eq!(field(&[before, b"MSH|^~\\&|A|B|C|D|||ADT|ID|P|2.3\rPID|\r"].concat(), 10), b"ID");
    }
    assert!(scan(b"xMSH|^~\\&|A").is_none());
}

#[test]
fn segments_end_with_cr_if_there_is_any_else_with_lf() {
    for end in ["\r", "\n", "\r\n"] {
        let message = format!("MSH|^~\\&|A|B|C|D|||ADT|ID{end}PID|1|x{end}");
        assert_eq!(field(message.as_bytes(), 10), b"ID");
        assert_eq!(field(message.as_bytes(), 11), b"");
    }
    assert_eq!(field(b"MSH|^~\\&|A\nB|C|D|E|||ADT|ID\rPID|\r", 3), b"A\nB", "a bare LF beside CRs is data");
}

/// I7: with mixed line ends the next segment stays out of the header.
#[test]
fn a_line_feed_before_a_segment_ends_the_header_even_beside_carriage_returns() {
    let message = b"MSH|^~\\&|A|B|C|D|||ADT|ID|P|2.5\nPID|1||CANARY\rPV1|1\r";
    assert_eq!(field(message, 12), b"2.5");
    assert_eq!(field(message, 13), b"");
    assert_eq!(field(b"MSH|^~\\&|A|B|C|D|||ADT|ID\n\n", 10), b"ID");
}

#[test]
fn any_separator_but_letters_digits_and_controls_is_taken() {
    assert_eq!(field(b"MSH$%~\\&$A$B$C$D$$$ORU%R01$77$P$2.3\r", 10), b"77");
    assert_eq!(scan(b"MSH$%~\\&$A$B$C$D$$$ORU%R01$77$P$2.3\r").unwrap().component(9, 2), b"R01");
    assert_eq!(field("MSH¦^~\\&¦A¦B¦C¦D¦¦¦ADT¦ü1¦P\r".as_bytes(), 10), "ü1".as_bytes());
    assert_eq!(field(b"MSH\xA6^~\\&\xA6A\xA6B\xA6C\xA6D\xA6\xA6\xA6ADT\xA6L1\xA6P\r", 10), b"L1");
    for none in [&b"MSHA^~\\&AaAbA"[..], b"MSH0^~\\&0a0b0", b"MSH\r^~\\&|a|b|", b"MSH", b"MSH|", b"MSH|^~\\&", b""] {
        assert!(scan(none).is_none());
    }
}

#[test]
fn short_or_odd_encoding_characters_leave_out_what_they_do_not_name() {
    let delimiters = |message: &'static [u8]| scan(message).unwrap().delimiters;
    assert_eq!(
        delimiters(b"MSH|^~|A|B|C|D|"),
        Delimiters { separator: b"|", encoding: b"^~", component: Some(b"^"), repetition: Some(b"~"), subcomponent: None }
    );
    assert_eq!(delimiters(b"MSH|^~\\&#|A|B|C").subcomponent, Some(&b"&"[..]));
    assert_eq!(delimiters(b"MSH|0000|||||||").component, None);
    assert_eq!(delimiters(b"MSH||||||||||").encoding, b"");
    assert_eq!(scan(b"MSH||A||||||ADT^A01|1|").unwrap().component(9, 1), b"ADT^A01");
}

#[test]
fn an_acknowledgement_is_ack_with_msa_and_nothing_else() {
    let is_ack = |message: &[u8]| scan(message).unwrap().is_acknowledgement();
    assert!(is_ack(b"MSH|^~\\&|A|B|C|D|||ACK^A01|1|P|2.3\rMSA|AA|5\r"));
    assert!(is_ack(b"MSH|^~\\&|A|B|C|D|||ACK|1|P|2.3\nMSA|AA|5"));
    assert!(!is_ack(b"MSH|^~\\&|A|B|C|D|||ACK|1|P|2.3\rPID|1\r"));
    assert!(!is_ack(b"MSH|^~\\&|A|B|C|D|||ORR^O02|1|P|2.3\rMSA|AA|5\r"));
    assert!(!is_ack(b"MSH|^~\\&|A|B|C|D|||ACK|1|P|2.3\rMSAX|AA|5\r"));
}

#[test]
fn a_batch_has_the_first_control_id_that_is_there() {
    let both = b"FHS|^~\\&|A|B|C|D|2024||file||F1|\rBHS|^~\\&|A|B|C|D|2024||||B1\rMSH|^~\\&|X|Y|||||ADT|M1|T|2.4\r";
    assert_eq!(
        (scan(both).unwrap().kind, field(both, 3), field(both, 10), field(both, 12)),
        (Kind::Batch, &b"A"[..], &b"F1"[..], &b"2.4"[..])
    );
    assert_eq!(field(b"FHS|^~\\&|A|B\rBHS|^~\\&|A|B|C|D|2024||||B1\rMSH|^~\\&|X|Y|||||ADT|M1|T|2.4\r", 10), b"B1");
    assert_eq!(field(b"BHS|^~\\&|A|B\r\rMSH|^~\\&|X|Y|||||ADT|M1|T|2.4\r", 10), b"M1");
    assert_eq!(field(b"BHS|^~\\&|A|B|||||CANARY\r", 9), b"");
}

/// Found by fuzzing: such an id, repeated in MSA-2 with the batch's separator, became several fields of the answer.
#[test]
fn a_batch_takes_no_control_id_that_its_own_separator_would_take_apart() {
    let batch = b"BHS|^~\\&|A|B|C|D|2024\rMSH#^~\\&#X#Y#####ADT#M|1#T#2.4\r";
    assert_eq!(field(batch, 10), b"");
    let whole = b"BHS|^~\\&|A|B|C|D|2024\rMSH#^~\\&#X#Y#####ADT#M1#T#2.4\r";
    assert_eq!(field(whole, 10), b"M1");
}

#[test]
fn a_field_that_may_have_been_cut_is_absent() {
    let head = scan_head(b"MSH|^~\\&|A|B|C|D|||ADT|ID-1").unwrap();
    assert_eq!((head.field(9), head.field(10)), (&b"ADT"[..], &b""[..]));
    assert_eq!(scan_head(b"MSH|^~\\&|A|B|C|D|||ADT|ID-1\rPI").unwrap().field(10), b"ID-1");
    assert_eq!(scan_head(b"MSH|^~\\&|A|B|C|D|||ADT|ID-1|").unwrap().field(10), b"ID-1");
}

proptest! {
    #[test]
    fn fields_are_what_stands_between_separators(
        bytes in prop::collection::vec(prop_oneof![Just(b'|'), Just(0xFD), Just(0xFC), 0x20..=0xFFu8], 0..200),
        separator in prop::sample::select(vec![&b"|"[..], b"\xFD", b"\xC2\xA6"]),
        end in prop::sample::select(vec![&b""[..], b"\r", b"\n", b"\rPID", b"\r\nPID|"]),
        cut in any::<bool>(),
    ) {
        let mut all: Vec<&[u8]> = Vec::new();
        let mut rest = Some(&bytes[..]);
        while let Some(bytes) = rest {
            let (field, next) = split_once(bytes, separator);
            all.push(field);
            rest = next;
        }
        if cut && end.is_empty() {
            all.pop();
        }
        let message = [b"MSH", separator, b"^~\\&", separator, &bytes, end].concat();
        prop_assume!(message.len() >= HEADER_BYTES_MIN && delimiter(&message[3..]) == Some(separator));
        let header = if cut { scan_head(&message) } else { scan(&message) }.unwrap();
        for n in 3..=18 {
            prop_assert_eq!(header.field(n), all.get(n - 3).copied().unwrap_or_default());
        }
    }

    /// Both ways to read a header say the same of any bytes, so that it does not matter which of them reads one.
    #[test]
    fn a_plain_header_is_what_the_general_rule_reads(
        bytes in prop::collection::vec(prop_oneof![4 => Just(b'|'), 1 => Just(b'\r'), 1 => Just(b'\n'), 1 => 0..0x10u8, 8 => any::<u8>()], 5..200),
        begin in prop::sample::select(vec![&b""[..], b"MSH", b"MSH|^~\\&|", b"MSH|^~\\&|A|B|C|D|20261122||ADT^A01|ID|P|2.5|||AL|NE||8859/1\r"]),
        cut in any::<bool>(),
    ) {
        let text = [begin, &bytes].concat();
        if let Some(header) = plain::header(&text) {
            prop_assert!(general(&text, cut).unwrap() == header);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0usize..3) {
        let message = [[&b""[..], b"MSH|", b"BHS|^~\\&|"][start], &bytes[..]].concat();
        for header in [scan(&message), scan_head(&message)].into_iter().flatten() {
            let _ = (header.is_acknowledgement(), header.version());
            for n in 0..25 {
                let _ = (header.component(n, 1), header.component(n, 9));
            }
        }
    }
}
