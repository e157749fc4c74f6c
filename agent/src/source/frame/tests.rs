//! The framer against streams of every kind, cut in every way.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;

const LIMITS: FrameLimits =
    FrameLimits { message_bytes: 64, own_bytes: 16, head_bytes: 8, discard_bytes: 200, junk_bytes: 40, unframed: false };

fn payload(bytes: &[u8]) -> Payload {
    Payload::new(Bytes::copy_from_slice(bytes))
}

/// Feeds the pieces one after the other and grants every slot; checks after each step that no more is held than the limits say.
fn events_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: FrameLimits) -> (Vec<Event>, Remainder) {
    let mut framer = Framer::new(limits);
    let mut events = Vec::new();
    for piece in pieces {
        framer.buffer().extend_from_slice(piece);
        let mut granted = false;
        while let Some(event) = framer.next_event() {
            if event == Event::NeedsSlot {
                assert!(!std::mem::replace(&mut granted, true) || events.last() != Some(&Event::NeedsSlot), "a slot is asked for once");
                framer.grant();
                assert!(framer.is_large());
            }
            events.push(event);
        }
        let held = if framer.is_large() { limits.message_bytes } else { limits.own_bytes } + if limits.unframed { 3 } else { 0 };
        assert!(framer.buffer.len() <= held, "{} bytes held", framer.buffer.len());
    }
    let remainder = framer.finish();
    (events, remainder)
}

fn one_shot(stream: &[u8]) -> (Vec<Event>, Remainder) {
    events_of([stream], LIMITS)
}

fn frame(body: &[u8]) -> Event {
    Event::Frame(payload(body))
}

#[test]
fn a_message_is_complete_at_its_end_mark_without_waiting_for_the_carriage_return() {
    assert_eq!(one_shot(b"\x0BMSH|\r\x1C"), (vec![frame(b"MSH|\r")], Remainder::Nothing));
}

#[test]
fn carriage_returns_line_feeds_nuls_and_blanks_between_frames_are_skipped_silently() {
    let stream = b"\r\n\0 \x0Ba\x1C\r\n\0\0 \x0Bb\x1C\n\x0Bc\x1C\r";
    assert_eq!(one_shot(stream), (vec![frame(b"a"), frame(b"b"), frame(b"c")], Remainder::Nothing));
}

#[test]
fn other_bytes_between_frames_are_told_once_a_run() {
    let stream = b"\x0Ba\x1C\rxy z\r\x0Bb\x1C!!";
    let events = vec![frame(b"a"), Event::Junk { bytes: 3, class: JunkClass::Other }, frame(b"b")];
    assert_eq!(one_shot(stream), (events, Remainder::Junk { bytes: 2, class: JunkClass::Other }));
}

#[test]
fn a_start_inside_a_frame_begins_anew_and_gives_up_the_part_before() {
    let stream = b"\x0Bpart\x0Bwhole\x1C\r";
    assert_eq!(one_shot(stream), (vec![Event::Restarted { partial: payload(b"part") }, frame(b"whole")], Remainder::Nothing));
}

#[test]
fn an_end_mark_inside_data_ends_the_message_and_the_rest_is_junk() {
    let stream = b"\x0BMSH|a\x1Cb|c\rPID|1\r\x1C\r\x0Bnext\x1C\r";
    let junk = Event::Junk { bytes: 9, class: JunkClass::Other };
    assert_eq!(one_shot(stream), (vec![frame(b"MSH|a"), junk, frame(b"next")], Remainder::Nothing), "the next message is untouched");
}

#[test]
fn a_start_right_behind_an_end_needs_nothing_between_them() {
    assert_eq!(one_shot(b"\x0Ba\x1C\x0Bb\x1C\x0B\x1C").0, vec![frame(b"a"), frame(b"b"), frame(b"")]);
}

#[test]
fn too_much_junk_ends_the_connection_and_a_frame_in_time_forgives_it() {
    let junk = [b'x'; 41];
    assert_eq!(one_shot(&junk), (vec![Event::JunkBudgetSpent { bytes: 41, class: JunkClass::Other }], Remainder::Nothing));
    let half = [b'x'; 30];
    let mut stream = half.to_vec();
    stream.extend_from_slice(b"\x0Ba\x1C");
    stream.extend_from_slice(&half);
    stream.extend_from_slice(b"\x0Bb\x1C");
    let run = Event::Junk { bytes: 30, class: JunkClass::Other };
    assert_eq!(one_shot(&stream), (vec![run.clone(), frame(b"a"), run, frame(b"b")], Remainder::Nothing));
}

#[test]
fn junk_split_by_frames_that_never_end_still_counts_as_one() {
    let mut stream = Vec::new();
    for _ in 0..50 {
        stream.extend_from_slice(b"xxxx\x0B");
    }
    let (events, _) = one_shot(&stream);
    assert!(events.len() > 1);
    assert!(events[1..].iter().all(|e| matches!(e, Event::Restarted { .. })), "bytes after a start belong to its frame");
}

#[test]
fn a_tls_hello_or_http_request_as_first_bytes_is_recognised_at_once() {
    assert_eq!(one_shot(b"\x16\x03\x01\x02\x00").0, vec![Event::Foreign(Foreign::TlsHello)]);
    for request in [&b"GET / HTTP/1.1\r\n"[..], b"POST /x", b"HTTP/1.1 400", b"OPTIONS * ", b"\r\nPUT /", b"PRI * HTTP/2.0"] {
        assert_eq!(one_shot(request).0, vec![Event::Foreign(Foreign::HttpRequest)]);
    }
    let later = b"\x0Ba\x1C\rGET / \x0Bb\x1C";
    assert_eq!(one_shot(later).0, vec![frame(b"a"), Event::Junk { bytes: 4, class: JunkClass::Other }, frame(b"b")]);
    assert_eq!(one_shot(b"GETS").0, vec![]);
}

#[test]
fn a_sender_that_does_not_frame_is_recognised() {
    let (events, left) = one_shot(b"MSH|^~\\&|A\rPID|1\r");
    assert_eq!(events, vec![Event::Unframed]);
    assert_eq!(left, Remainder::Junk { bytes: 15, class: JunkClass::UnframedMessage });
}

#[test]
fn a_frame_above_the_own_allowance_waits_for_a_slot() {
    let body = [b'm'; 17];
    let stream = [&b"\x0B"[..], &body, b"\x1C\r"].concat();
    let mut framer = Framer::new(LIMITS);
    framer.buffer().extend_from_slice(&stream);
    assert_eq!(framer.next_event(), Some(Event::NeedsSlot));
    assert_eq!(framer.next_event(), Some(Event::NeedsSlot), "nothing goes on without it");
    framer.grant();
    assert_eq!(framer.next_event(), Some(frame(&body)));
    assert_eq!(one_shot(&[&b"\x0B"[..], &body[..16], b"\x1C"].concat()).0, vec![frame(&body[..16])], "exactly the allowance needs none");
}

#[test]
fn a_frame_over_the_limit_is_discarded_to_its_end_and_its_neighbours_live() {
    let exact = [b'e'; 64];
    let over = [b'o'; 65];
    let stream = [&b"\x0B"[..], &exact, b"\x1C\r\x0B", &over, b"\x1C\r\x0Bafter\x1C"].concat();
    let (events, left) = one_shot(&stream);
    let expected = vec![
        Event::NeedsSlot,
        frame(&exact),
        Event::NeedsSlot,
        Event::OverLimit,
        Event::Oversize { head: payload(&over[..8]), total: 65 },
        frame(b"after"),
    ];
    assert_eq!((events, left), (expected, Remainder::Nothing));
}

#[test]
fn discarding_has_a_budget() {
    let stream = [&b"\x0B"[..], &[b'o'; 300]].concat();
    let (events, left) = one_shot(&stream);
    let spent = Event::DiscardBudgetSpent { head: payload(&[b'o'; 8]), total: 201 };
    assert_eq!((events, left), (vec![Event::NeedsSlot, Event::OverLimit, spent], Remainder::Nothing));
}

#[test]
fn half_a_frame_is_handed_over_when_the_connection_ends() {
    assert_eq!(one_shot(b"\x0Bhalf").1, Remainder::Partial(payload(b"half")));
    assert_eq!(one_shot(b"\x0B").1, Remainder::Nothing);
    let over = [&b"\x0B"[..], &[b'o'; 70]].concat();
    assert_eq!(one_shot(&over).1, Remainder::Partial(payload(&[b'o'; 8])));
}

/// I4: the large block goes with its frame; what was read behind it does not hold on to it.
#[test]
fn bytes_behind_a_large_frame_move_to_a_buffer_of_their_own() {
    let limits = FrameLimits::new(1 << 20);
    let mut framer = Framer::new(limits);
    framer.buffer().extend_from_slice(&[&b"\x0B"[..], &vec![b'l'; 500_000], b"\x1C\r\x0Bnext"].concat());
    assert_eq!(framer.next_event(), Some(Event::NeedsSlot));
    framer.grant();
    assert!(matches!(framer.next_event(), Some(Event::Frame(large)) if large.len() == 500_000));
    assert_eq!(framer.next_event(), None);
    assert!(framer.buffer.capacity() <= 2 * SOCKET_READ_BYTES, "{}", framer.buffer.capacity());
    assert!(!framer.is_large());
}

/// I7: a framer shows counts only.
#[test]
fn debug_of_a_framer_shows_no_content() {
    let mut framer = Framer::new(LIMITS);
    framer.buffer().extend_from_slice(b"\x0BCANARY");
    assert!(!format!("{framer:?}").contains("CANARY"));
    assert!(!format!("{:?}", one_shot(b"\x0BCANARY\x1C")).contains("CANARY"));
}

#[test]
fn a_stream_cut_at_any_one_place_says_the_same() {
    let streams: [&[u8]; 6] = [
        b"\x0BMSH|^~\\&|A|B|C|D|20200101||ADT^A01|1|P|2.3\rPID|1\r\x1C\r\x0Bsecond\x1C\r",
        b"\r\n\0\x0Ba\x1C\r\n\0junk\x0Bpart\x0Bb\x1C\x1C\x0B\x1C\r",
        b"\x16\x03\x01\x00\xA5",
        b"POST /feeds/x HTTP/1.1\r\n\r\n",
        b"MSH|^~\\&|unframed\rPID|1\r\x0Bframed\x1C",
        b"\x0Boooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooo\x1C\rzz\x0Bc\x1C",
    ];
    for stream in streams {
        let whole = one_shot(stream);
        for cut in 0..=stream.len() {
            assert_eq!(events_of([&stream[..cut], &stream[cut..]], LIMITS), whole, "cut at {cut}");
        }
        assert_eq!(events_of(stream.chunks(1), LIMITS), whole, "byte by byte");
    }
}

/// Pieces of streams that matter more often than chance would have it.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words =
        [&b"GET /"[..], b"PRI * ", b"HTTP", b"\x16\x03", b"MSH|", b"MS", b"FHS", b"BHS|^~", b"\r\n", b"\0 ", b"\x1C\r\x0B", b"\x1C\x0D"];
    prop_oneof![
        4 => Just(vec![START]),
        4 => Just(vec![END]),
        3 => prop::sample::select(words.map(<[u8]>::to_vec).to_vec()),
        3 => prop::collection::vec(any::<u8>(), 1..12),
        2 => (any::<u8>(), 1usize..90).prop_map(|(byte, n)| vec![byte; n]),
    ]
}

/// Bounds in every relation to each other that configuration permits, small enough to be met.
fn limits() -> impl Strategy<Value = FrameLimits> {
    (1usize..70, 0usize..70, 0usize..70, 0u64..150, 0u64..40).prop_map(|(message_bytes, own, head, more, junk_bytes)| FrameLimits {
        message_bytes,
        own_bytes: own.min(message_bytes),
        head_bytes: head.min(message_bytes),
        discard_bytes: message_bytes as u64 + 1 + more,
        junk_bytes,
        unframed: false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// I4: and what is held stays within the limits, which `events_of` looks at after every piece.
    #[test]
    fn any_stream_cut_in_any_way_says_what_the_reference_says_of_the_whole(
        limits in limits(),
        pieces in prop::collection::vec(piece(), 0..24),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let stream = pieces.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(stream.len() + 1)).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let cut = cuts.windows(2).map(|w| &stream[w[0]..w[1]]);
        prop_assert_eq!(events_of(cut, limits), reference::events_of(&stream, limits));
    }

    #[test]
    fn every_event_comes_with_the_byte_that_decides_it(limits in limits(), pieces in prop::collection::vec(piece(), 0..8)) {
        let stream = pieces.concat();
        let mut framer = Framer::new(limits);
        let mut events = Vec::new();
        for (i, byte) in stream.iter().enumerate() {
            framer.buffer().extend_from_slice(&[*byte]);
            while let Some(event) = framer.next_event() {
                if event == Event::NeedsSlot {
                    framer.grant();
                }
                events.push(event);
            }
            prop_assert_eq!(&events, &reference::events_of(&stream[..=i], limits).0, "after byte {}", i);
        }
    }
}

proptest! {
    #[test]
    fn long_frames_cut_in_any_way_say_the_same(
        lens in prop::collection::vec(0usize..260, 1..6),
        step in 1usize..50,
    ) {
        let mut stream = Vec::new();
        for len in lens {
            stream.push(START);
            stream.extend(std::iter::repeat_n(b'a', len));
            stream.push(END);
        }
        prop_assert_eq!(events_of(stream.chunks(step), LIMITS), one_shot(&stream));
    }

    #[test]
    fn framed_messages_come_out_whole_and_in_order(
        bodies in prop::collection::vec(prop::collection::vec(0x0Du8..0x1C, 0..64), 0..8),
        step in 1usize..50,
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            stream.push(START);
            stream.extend_from_slice(body);
            stream.extend_from_slice(&[END, b'\r']);
        }
        let (events, left) = events_of(stream.chunks(step), LIMITS);
        let frames: Vec<Event> = events.into_iter().filter(|e| *e != Event::NeedsSlot).collect();
        prop_assert_eq!(frames, bodies.iter().map(|b| frame(b)).collect::<Vec<_>>());
        prop_assert_eq!(left, Remainder::Nothing);
    }
}
