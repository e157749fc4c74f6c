//! Golden bytes: what a released version wrote must be readable for ever. A test here that fails means the format changed: make a new version.

use super::format::*;
use crate::record::{Chain, Content, Digest, FileFingerprint, FilePlace, FileProgress, Incarnation, Nonce, Position};

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").expect("writing to a string");
        text
    })
}

fn record_header() -> RecordHeaderV1 {
    RecordHeaderV1 {
        feed: "or-usage".into(),
        seq: 300,
        flags: FLAG_HAS_IDENTITY,
        chain_before: Chain([1; 32]),
        digest: Digest([2; 32]),
        nonce: Nonce([3; 16]),
        synced_through: 65536,
        received_at_ms: 1_793_491_200_000,
        identity_fingerprint: [4; 16],
        body_fingerprint: [5; 16],
        control_id: b"C1".to_vec(),
        origin: OriginV1::Peer { peer: "10.0.0.1:9".into() },
        resend_of: Some(299),
    }
}

fn progress(seq: u64) -> FileProgress {
    FileProgress { seq, place: FilePlace { fingerprint: FileFingerprint([6; 32]), index: 41, end_offset: 70_000, last: false } }
}

#[test]
fn a_record_of_a_file_keeps_its_bytes() {
    let place = progress(300).place;
    let origin = OriginV1::File { place, start_offset: 69_900, name: "usage.csv".into(), content: Content::Csv };
    let header = RecordHeaderV1 { control_id: Vec::new(), origin, flags: FLAG_FILE_REPEATED, ..record_header() };
    let (mut out, id) = (Vec::new(), SegmentId([7; 16]));
    let bound = put_record_header(&mut out, &id, &header, 20);
    assert_eq!(hex(&out[bound]), include_str!("golden/record_header_file_v1.hex").trim());
    assert_eq!(decode_record_header(&id, &out), Some(header));
}

#[test]
fn a_record_header_keeps_its_bytes() {
    let mut out = Vec::new();
    let id = SegmentId([7; 16]);
    let bound = put_record_header(&mut out, &id, &record_header(), 20);
    let expected = include_str!("golden/record_header_v1.hex").trim();
    assert_eq!(hex(&out[bound.clone()]), expected);
    assert_eq!(decode_record_header(&id, &out), Some(record_header()));
    assert_eq!(decode_record_header(&SegmentId([8; 16]), &out), None, "another segment's record");
    let prefix: &[u8; PREFIX_BYTES] = out[..PREFIX_BYTES].try_into().unwrap();
    assert_eq!(record_layout(prefix).unwrap().total, bound.end + 20 + BODY_CRC_BYTES);
}

/// Headers are put together by hand, for speed; what comes out is postcard's.
#[test]
fn a_record_header_is_as_postcard_has_it() {
    let numbers = [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::from(u32::MAX), 1 << 35, i64::MAX as u64, u64::MAX];
    let contents =
        [Content::Octets, Content::Hl7V2, Content::Csv, Content::Text, Content::X12, Content::Json, Content::FhirJson].into_iter().cycle();
    for (n, content) in numbers.into_iter().zip(contents) {
        let text = "x".repeat((n % 200) as usize);
        let place = FilePlace { fingerprint: FileFingerprint([6; 32]), index: n, end_offset: n / 3, last: n % 2 == 0 };
        for origin in [
            OriginV1::Peer { peer: text.clone() },
            OriginV1::File { place, start_offset: n / 7, name: text.clone(), content },
            OriginV1::Http { peer: text.clone(), media_type: "text/csv".into() },
        ] {
            let header = RecordHeaderV1 {
                feed: text.clone(),
                seq: n,
                flags: n as u32,
                synced_through: n / 5,
                received_at_ms: n.cast_signed(),
                control_id: text.clone().into_bytes(),
                origin,
                resend_of: (n % 3 == 0).then_some(n),
                ..record_header()
            };
            let mut out = Vec::new();
            put_record_header(&mut out, &SegmentId([7; 16]), &header, 20);
            assert_eq!(out[PREFIX_BYTES..], postcard::to_stdvec(&header).unwrap(), "{header:?}");
        }
    }
}

#[test]
fn a_segment_header_keeps_its_bytes() {
    let header = SegmentHeaderV1 {
        id: SegmentId([7; 16]),
        lane: 1,
        ordinal: 5,
        key_generation: 0,
        flags: 0,
        incarnation: Incarnation([9; 16]),
        predecessor: Some(PredecessorV1 { id: SegmentId([6; 16]), valid_len: 70_000 }),
        bases: vec![BaseV1 {
            feed: "or-usage".into(),
            follows: Some(Position { incarnation: Incarnation([8; 16]), seq: 299, chain: Chain([1; 32]) }),
            head_seq: 299,
            head_chain: Chain([1; 32]),
            files: Some(progress(299)),
        }],
    };
    let bytes = encode_segment_header(&header);
    assert_eq!(hex(&bytes), include_str!("golden/segment_header_v1.hex").trim());
    assert_eq!(decode_segment_header(&bytes), Some(header));
}

#[test]
fn a_footer_keeps_its_bytes() {
    let footer = FooterV1 {
        id: SegmentId([7; 16]),
        data_end: 80_000,
        spans: vec![SpanV1 {
            feed: "or-usage".into(),
            first: 300,
            last: 310,
            count: 11,
            chain: Chain([1; 32]),
            first_received_ms: 1_793_491_200_000,
            files: Some(progress(310)),
        }],
        removed: Vec::new(),
    };
    let bytes = encode_footer(&footer);
    assert_eq!(hex(&bytes), include_str!("golden/footer_v1.hex").trim());
    assert_eq!(footer_len(&bytes[bytes.len() - FOOTER_TAIL..]), Some(bytes.len() as u64));
    assert_eq!(decode_footer(&SegmentId([7; 16]), &bytes), Some(footer));
    assert_eq!(decode_footer(&SegmentId([1; 16]), &bytes), None);
}

#[test]
fn no_bytes_make_the_decoders_panic() {
    let mut bytes = encode_footer(&FooterV1 { id: SegmentId([7; 16]), data_end: 1, spans: Vec::new(), removed: Vec::new() });
    for i in 0..bytes.len() * 8 {
        bytes[i / 8] ^= 1 << (i % 8);
        assert_eq!(decode_footer(&SegmentId([7; 16]), &bytes).map(|f| f.data_end), None, "bit {i}");
        bytes[i / 8] ^= 1 << (i % 8);
        for cut in [0, 7, 15, 16, 23] {
            assert_eq!(decode_footer(&SegmentId([7; 16]), &bytes[..cut]), None);
            assert_eq!(decode_segment_header(&bytes[..cut]), None);
        }
    }
}

#[test]
fn heads_keep_their_bytes() {
    use super::heads::{FeedHeadV1, HeadsContent, HeadsV1, MAGIC};
    let heads = HeadsContent::V1(HeadsV1 {
        generation: 7,
        key_check: [1; 8],
        incarnation: Incarnation([9; 16]),
        next_ordinal: [3, 0, 1],
        feeds: vec![FeedHeadV1 {
            feed: "or-usage".into(),
            lane: 0,
            head_seq: 310,
            head_chain: Chain([2; 32]),
            settled_seq: 300,
            settled_chain: Chain([1; 32]),
            lineage: vec![crate::record::Link { incarnation: Incarnation([9; 16]), follows: None }],
            files: Some(progress(310)),
            aged_ms: 0,
        }],
    });
    let bytes = encode_block(MAGIC, &heads);
    assert_eq!(hex(&bytes), include_str!("golden/heads_v1.hex").trim());
    assert_eq!(decode_block::<HeadsContent>(MAGIC, &bytes), Some(heads));
}
