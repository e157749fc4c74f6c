//! Messages without framing: where they end, and that half a message is never taken for a whole one.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;

const LIMITS: FrameLimits =
    FrameLimits { message_bytes: 64, own_bytes: 16, head_bytes: 8, discard_bytes: 200, junk_bytes: 40, unframed: true };

fn frame(bytes: &[u8]) -> Event {
    Event::Frame(Payload::new(Bytes::copy_from_slice(bytes)))
}

fn partial(bytes: &[u8]) -> Event {
    Event::Restarted { partial: Payload::new(Bytes::copy_from_slice(bytes)) }
}

fn drain(framer: &mut Framer, events: &mut Vec<Event>) {
    while let Some(event) = framer.next_event() {
        if event == Event::NeedsSlot { framer.grant() } else { events.push(event) }
    }
}

/// What the pieces say, with a silence after each `None`.
fn events_of(pieces: &[Option<&[u8]>]) -> (Vec<Event>, Remainder) {
    let mut framer = Framer::new(LIMITS);
    let mut events = Vec::new();
    for piece in pieces {
        match piece {
            Some(bytes) => framer.buffer().extend_from_slice(bytes),
            None => assert_eq!(framer.may_end_by_silence(), framer.silence()),
        }
        drain(&mut framer, &mut events);
        assert!(framer.buffer.len() <= LIMITS.message_bytes + 3);
    }
    (events, framer.finish())
}

fn cut_anywhere(stream: &[u8]) -> (Vec<Event>, Remainder) {
    let whole = events_of(&[Some(stream)]);
    for cut in 0..=stream.len() {
        assert_eq!(events_of(&[Some(&stream[..cut]), Some(&stream[cut..])]), whole, "cut at {cut}");
    }
    let bytes: Vec<Option<&[u8]>> = stream.chunks(1).map(Some).collect();
    assert_eq!(events_of(&bytes), whole, "byte by byte");
    whole
}

#[test]
fn a_message_ends_where_the_next_one_begins_or_at_an_end_mark() {
    let stream = b"\r\nMSH|1\rPID|1\rMSH|2\r\n\0MSH|x\nMSH|3\x1C\r\x0Bframed\x1C\rMSH|4\r\x0Bframed\x1C";
    let (events, left) = cut_anywhere(stream);
    let expected = vec![
        frame(b"MSH|1\rPID|1\r"),
        frame(b"MSH|2\r\n\0MSH|x\n"), // MSH begins a message at the beginning of a line only
        frame(b"MSH|3"),
        frame(b"framed"),
        frame(b"MSH|4\r"),
        frame(b"framed"),
    ];
    assert_eq!((events, left), (expected, Remainder::Nothing));
}

#[test]
fn half_a_message_is_given_up_unanswered() {
    assert_eq!(cut_anywhere(b"MSH|1\rPI\x0Bframed\x1C").0, vec![partial(b"MSH|1\rPI"), frame(b"framed")]);
    let (events, left) = events_of(&[Some(b"MSH|1\rPI"), None, None]);
    assert_eq!((events, left), (vec![], Remainder::Partial(Payload::new(Bytes::from_static(b"MSH|1\rPI")))));
    assert_eq!(events_of(&[Some(b"MSH|1\rPI"), None, Some(b"D|1\r"), None]).0, vec![frame(b"MSH|1\rPID|1\r")]);
}

#[test]
fn silence_ends_a_message_behind_a_segment_and_the_next_one_may_follow() {
    let pieces = [Some(&b"MSH|1\rPID|1\r\n\0 "[..]), None, Some(b"\r\nMSH|2\n"), None, None, Some(b"\x0Bframed\x1C"), None];
    assert_eq!(events_of(&pieces), (vec![frame(b"MSH|1\rPID|1\r\n\0 "), frame(b"MSH|2\n"), frame(b"framed")], Remainder::Nothing));
}

#[test]
fn what_goes_on_after_the_silence_that_ended_it_is_told_and_kept() {
    let rest = Event::UnframedRest { rest: Payload::new(Bytes::from_static(b"OBX|1\rOBX|2\r")) };
    for cut in 1..5 {
        let (first, second) = b"OBX|1\rOBX|2\r".split_at(12 - cut);
        let (events, _) = events_of(&[Some(b"MSH|1\r"), None, Some(first), Some(second), Some(b"MSH|2\r"), None]);
        assert!(matches!(&events[..], [Event::Frame(_), Event::UnframedRest { .. }]), "{events:?}");
    }
    assert_eq!(events_of(&[Some(b"MSH|1\r"), None, Some(b"OBX|1\rOBX|2\r")]).0, vec![frame(b"MSH|1\r"), rest]);
}

#[test]
fn silence_means_nothing_to_framed_messages() {
    assert_eq!(events_of(&[Some(b"\x0BMSH|1\r"), None, Some(b"PID|1\r\x1C"), None]).0, vec![frame(b"MSH|1\rPID|1\r")]);
    let unasked = FrameLimits { unframed: false, ..LIMITS };
    let mut framer = Framer::new(unasked);
    framer.buffer().extend_from_slice(b"MSH|1\r");
    assert_eq!(framer.next_event(), Some(Event::Unframed));
    assert!(!framer.silence());
}

#[test]
fn a_message_of_the_limit_is_taken_and_one_above_it_is_refused() {
    let message = |bytes: usize| [&b"MSH|"[..], &vec![b'x'; bytes - 5], b"\r"].concat();
    let next = b"MSH|2\x1C";
    assert_eq!(cut_anywhere(&[&message(64), &next[..]].concat()).0, vec![frame(&message(64)), frame(b"MSH|2")]);
    for bytes in [65, 66, 67, 68, 90] {
        let (events, _) = cut_anywhere(&[&message(bytes), &b"\x1C\r"[..], next].concat());
        let oversize = Event::Oversize { head: Payload::new(Bytes::from_static(b"MSH|xxxx")), total: bytes as u64 };
        assert_eq!(events, vec![Event::OverLimit, oversize.clone(), frame(b"MSH|2")], "{bytes}");
        let (events, _) = events_of(&[Some(&message(bytes)), None, Some(next)]);
        assert_eq!(events.iter().filter(|e| **e != Event::OverLimit).collect::<Vec<_>>(), [&oversize, &frame(b"MSH|2")], "{bytes}");
    }
}

/// Bytes of which messages are made.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![1 => Just(START), 1 => Just(END), 4 => Just(b'\r'), 1 => Just(b'\n'), 1 => Just(0u8), 1 => Just(b'|'), 1 => any::<u8>()]
}

proptest! {
    /// I1: only what ends behind a segment, or at an end mark, is a message.
    #[test]
    fn any_bytes_cut_in_any_way_say_the_same_and_half_a_message_is_none(
        parts in prop::collection::vec(prop_oneof![Just(b"MSH|".to_vec()), prop::collection::vec(byte(), 0..30)], 0..12),
        cuts in prop::collection::vec(0usize..300, 0..12),
    ) {
        let stream = parts.concat();
        let whole = events_of(&[Some(&stream)]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<Option<&[u8]>> = cuts.windows(2).map(|w| Some(&stream[w[0]..w[1]])).collect();
        prop_assert_eq!(events_of(&pieces), whole);
        let silences: Vec<Option<&[u8]>> = pieces.iter().flat_map(|piece| [*piece, None]).collect();
        for event in events_of(&silences).0 {
            if let Event::Frame(frame) = event {
                let bytes = frame.expose();
                let marked = stream.windows(bytes.len() + 1).any(|w| w.starts_with(bytes) && w.ends_with(&[END]));
                prop_assert!(marked || unframed::ends_segment(bytes));
            }
        }
    }
}
