//! What the core does with the broker's answers, connections and lanes, rule by rule.

use super::*;
use crate::contract::OnlineState;
use crate::limits::{CHECKPOINT_SPACING, IN_FLIGHT_BYTES_MAX, PARK_MAX, PARK_MIN, UNCONFIRMED_PER_FEED, WINDOW_FULL_PAUSE};

#[test]
fn a_connection_begins_with_the_status_and_the_lineage_of_every_feed() {
    let mut journal = Journal::new("a", Lane::Critical, 0);
    journal.append(1, 700);
    journal.renew(2);
    journal.append(1, 700);
    let lineage = journal.lineage.clone();
    let mut bench = Bench::new(RULES, vec![journal]);
    bench.up(100);
    let Sent::Control { what, .. } = &bench.wire[0] else { panic!("status first") };
    assert_eq!(*what, Control::Status(OnlineState::Online));
    for (at, link) in lineage.iter().enumerate() {
        let Sent::Control { what: Control::Checkpoint(Checkpoint::Open { incarnation, follows, .. }), .. } = &bench.wire[at + 1] else {
            panic!("then the lineage")
        };
        assert_eq!((*incarnation, *follows), (link.incarnation, link.follows));
    }
    assert_eq!(bench.outcomes(0), [1, 2]);
}

#[test]
fn with_one_place_in_the_window_the_lineage_still_goes_first() {
    let mut bench = Bench::new(RULES, vec![Journal::new("a", Lane::Critical, 0)]);
    bench.append(0, 3);
    bench.up(1);
    let mut order = Vec::new();
    while let Some(sent) = bench.wire.front().cloned() {
        assert_eq!(bench.wire.len(), 1, "one place, one publish");
        order.push(matches!(sent, Sent::Outcome { .. }));
        bench.ack(sent.token(), AckReason::Success);
    }
    assert_eq!(order[..3], [false, false, false], "status, open, head");
    assert_eq!(order.iter().filter(|outcome| **outcome).count(), 3);
}

/// I2: where the promise ends at the broker, only the contiguous mark of acknowledgements settles.
#[test]
fn with_puback_only_the_contiguous_mark_settles() {
    let mut bench = Bench::one(PUBACK, 3);
    bench.answer(0, 2, AckReason::Success);
    bench.answer(0, 3, AckReason::Success);
    assert_eq!(bench.settled(0), 0);
    bench.answer(0, 1, AckReason::Success);
    assert_eq!(bench.settled(0), 3);
}

/// I2: the broker's word settles nothing where receipts do.
#[test]
fn with_receipts_an_acknowledgement_settles_nothing() {
    let mut bench = Bench::one(RULES, 3);
    bench.ack_all();
    assert_eq!(bench.settled(0), 0);
    assert!(bench.outcomes(0).is_empty());
}

/// I3
#[test]
fn puback_lost_means_sent_again() {
    let mut bench = Bench::one(RULES, 5);
    bench.answer(0, 1, AckReason::Success);
    bench.answer(0, 2, AckReason::Success);
    bench.down();
    bench.run();
    assert!(bench.wire.is_empty(), "nothing is published without a connection");
    bench.up(100);
    assert_eq!(bench.outcomes(0), [3, 4, 5], "from the oldest that was not acknowledged");
}

/// I3: what a broker without memory had acknowledged goes again before anything newer.
#[test]
fn a_lost_session_sends_everything_unconfirmed_again() {
    let mut bench = Bench::one(RULES, 5);
    bench.ack_all();
    bench.down();
    bench.core.up(100, false, bench.now);
    bench.append(0, 1);
    bench.run();
    assert_eq!(bench.outcomes(0), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn an_answer_to_an_earlier_connections_publish_means_nothing() {
    let mut bench = Bench::one(PUBACK, 1);
    let old = bench.token(0, 1);
    bench.down();
    bench.up(100);
    bench.ack(old, AckReason::Success);
    assert_eq!(bench.settled(0), 0);
    bench.ack_all();
    assert_eq!(bench.settled(0), 1);
}

#[test]
fn nobody_subscribed_holds_everything_and_a_probe_ends_it() {
    let mut bench = Bench::new(RULES, vec![Journal::new("a", Lane::Critical, 0), Journal::new("b", Lane::Bulk, 0)]);
    bench.append(0, 5);
    bench.append(1, 5);
    bench.up(100);
    let outcomes: Vec<_> = bench.wire.iter().filter(|s| matches!(s, Sent::Outcome { .. })).map(Sent::token).collect();
    for token in outcomes {
        bench.ack(token, AckReason::NoMatchingSubscribers);
    }
    bench.answer_controls(AckReason::Success);
    assert!(bench.raised(Code::HubNotSubscribed));
    assert!(bench.wire.is_empty());
    bench.not_before(PARK_MIN);
    assert_eq!(bench.outcomes(0), [1], "one probe, the oldest");
    bench.answer(0, 1, AckReason::NoMatchingSubscribers);
    bench.pass(PARK_MIN);
    assert!(bench.wire.is_empty(), "the second pause is twice as long");
    bench.pass(PARK_MIN);
    bench.answer(0, 1, AckReason::Success);
    assert!(!bench.raised(Code::HubNotSubscribed));
    assert_eq!(bench.outcomes(0), [2, 3, 4, 5]);
    assert_eq!(bench.outcomes(1), [1, 2, 3, 4, 5]);
}

#[test]
fn nobody_subscribed_can_be_accepted() {
    let mut bench = Bench::one(Rules { on_no_subscriber: OnNoSubscriber::Accept, ..PUBACK }, 2);
    bench.answer(0, 1, AckReason::NoMatchingSubscribers);
    bench.answer(0, 2, AckReason::NoMatchingSubscribers);
    assert_eq!(bench.settled(0), 2);
}

#[test]
fn nobody_subscribed_to_status_or_checkpoints_is_fine() {
    let mut bench = Bench::one(RULES, 1);
    bench.answer_controls(AckReason::NoMatchingSubscribers);
    assert!(!bench.raised(Code::HubNotSubscribed));
    bench.pass(PARK_MIN);
    assert!(bench.checkpoints().is_empty(), "and nothing is repeated because of it");
}

/// A hub that came late, or a broker that forgot: without the lineage the hub could not confirm anything.
#[test]
fn a_lineage_nobody_heard_goes_again_before_the_probe() {
    let mut bench = Bench::one(RULES, 2);
    bench.answer_controls(AckReason::NoMatchingSubscribers);
    bench.answer(0, 1, AckReason::NoMatchingSubscribers);
    bench.answer(0, 2, AckReason::NoMatchingSubscribers);
    bench.pass(PARK_MIN);
    assert!(matches!(bench.checkpoints()[..], [Checkpoint::Open { .. }]));
    assert!(matches!(bench.wire[1], Sent::Outcome { .. }));
    bench.answer_controls(AckReason::NoMatchingSubscribers);
    assert!(bench.checkpoints().is_empty(), "once before each probe");
    bench.answer(0, 1, AckReason::NoMatchingSubscribers);
    bench.pass(PARK_MIN * 2);
    assert!(matches!(bench.checkpoints()[..], [Checkpoint::Open { .. }]));
    bench.ack_all();
    assert!(!bench.raised(Code::HubNotSubscribed));
}

#[test]
fn a_lineage_nobody_heard_goes_again_before_the_next_head() {
    let mut bench = Bench::one(RULES, 1);
    bench.answer_controls(AckReason::NoMatchingSubscribers);
    bench.answer(0, 1, AckReason::Success);
    bench.pass(CHECKPOINT_SPACING);
    assert!(matches!(bench.checkpoints()[..], [Checkpoint::Open { .. }, Checkpoint::Head { .. }]));
}

#[test]
fn a_refused_checkpoint_is_repeated_and_holds_nothing_back() {
    let mut bench = Bench::one(RULES, 1);
    let controls = bench.answer_controls(AckReason::NotAuthorized);
    bench.append(0, 1);
    bench.run();
    assert_eq!(bench.outcomes(0), [1, 2]);
    assert!(bench.checkpoints().is_empty(), "not before its pause is over");
    bench.pass(PARK_MIN);
    assert_eq!(bench.wire.iter().filter(|s| matches!(s, Sent::Control { .. })).count(), controls);
}

#[test]
fn a_refusal_parks_that_feed_only() {
    let mut bench = Bench::new(PUBACK, vec![Journal::new("a", Lane::Critical, 0), Journal::new("b", Lane::Critical, 0)]);
    bench.append(0, 4);
    bench.append(1, 2);
    bench.up(100);
    bench.answer(0, 2, AckReason::NotAuthorized);
    bench.answer(0, 3, AckReason::NotAuthorized);
    bench.ack_all();
    assert!(bench.raised(Code::FeedParked));
    assert_eq!((bench.settled(0), bench.settled(1)), (1, 2));
    bench.append(1, 1);
    bench.pass(Duration::from_secs(1));
    bench.ack_all();
    assert_eq!(bench.settled(1), 3, "the other feed goes on");
    bench.pass(PARK_MIN);
    assert_eq!(bench.outcomes(0), [2], "back at the refused one, with a probe");
    bench.answer(0, 2, AckReason::Success);
    assert!(!bench.raised(Code::FeedParked));
    assert_eq!(bench.outcomes(0), [3]);
    bench.ack_all();
    assert_eq!(bench.settled(0), 4);
}

#[test]
fn unknown_refusals_are_tried_again_with_growing_pauses() {
    let mut bench = Bench::one(PUBACK, 1);
    let mut pause = PARK_MIN;
    for _ in 0..12 {
        bench.answer(0, 1, AckReason::Other(0x80));
        bench.answer_controls(AckReason::Success);
        bench.not_before(pause);
        pause = (pause * 2).min(PARK_MAX);
    }
    bench.answer(0, 1, AckReason::Success);
    assert_eq!(bench.settled(0), 1);
}

/// I3: what cannot go as an event has an exception for its outcome, and the feed goes on.
#[test]
fn a_record_the_broker_cannot_take_becomes_an_exception() {
    for reason in [AckReason::PacketTooLarge, AckReason::TopicNameInvalid, AckReason::PayloadFormatInvalid] {
        let mut bench = Bench::one(PUBACK, 3);
        bench.answer(0, 2, reason);
        let sent = bench.wire.iter().find(|s| s.token() == bench.token(0, 2)).unwrap();
        assert!(matches!(sent, Sent::Outcome { becomes: Becomes::Exception { .. }, .. }));
        bench.ack_all();
        assert_eq!(bench.settled(0), 3);
    }
}

#[test]
fn an_exception_stays_one_when_it_is_sent_again() {
    let mut bench = Bench::one(PUBACK, 1);
    bench.answer(0, 1, AckReason::PacketTooLarge);
    bench.down();
    bench.up(100);
    assert!(bench.wire.iter().any(|s| matches!(s, Sent::Outcome { becomes: Becomes::Exception { stored: true, .. }, .. })));
}

#[test]
fn a_publish_too_large_for_the_uplink_becomes_an_exception() {
    let mut bench = Bench::one(PUBACK, 1);
    let token = bench.token(0, 1);
    bench.wire.clear();
    bench.core.not_taken(token, NotTaken::TooLarge { packet_bytes_max: 100 }, bench.now);
    bench.run();
    assert!(bench.wire.iter().any(|s| matches!(s, Sent::Outcome { becomes: Becomes::Exception { .. }, .. })));
    bench.ack_all();
    assert_eq!(bench.settled(0), 1);
}

#[test]
fn a_refused_exception_parks_the_feed_and_is_never_quarantined_again() {
    let mut bench = Bench::one(PUBACK, 1);
    bench.answer(0, 1, AckReason::PacketTooLarge);
    bench.answer(0, 1, AckReason::PacketTooLarge);
    assert!(bench.raised(Code::FeedParked));
    assert!(bench.outcomes(0).is_empty());
}

#[test]
fn a_full_quarantine_makes_the_feed_wait() {
    let mut bench = Bench::one(PUBACK, 2);
    bench.quarantine = Some(true);
    bench.answer(0, 1, AckReason::PacketTooLarge);
    bench.answer(0, 2, AckReason::Success);
    assert!(bench.raised(Code::QuarantineFull));
    assert_eq!(bench.settled(0), 0);
    assert!(bench.outcomes(0).is_empty());
    bench.quarantine = None;
    bench.pass(PARK_MIN);
    assert!(!bench.raised(Code::QuarantineFull));
    bench.ack_all();
    assert_eq!(bench.settled(0), 2);
}

/// I3, I9: what cannot be read is an outcome too, with the chain at its end.
#[test]
fn a_gap_is_published_and_settled_as_a_whole() {
    let mut journal = Journal::new("a", Lane::Normal, 0);
    journal.append(1, 700);
    journal.append(10, 0);
    journal.append(1, 700);
    let mut bench = Bench::new(RULES, vec![journal]);
    bench.up(100);
    assert_eq!(bench.outcomes(0), [1, 2, 12]);
    bench.ack_all();
    bench.receipt(0, 11, &[]);
    assert_eq!(bench.settled(0), 11);
}

/// I3: a record damaged between two publishes takes its neighbours' place as a gap; nothing is passed over.
#[test]
fn damage_found_when_sending_again_becomes_a_gap() {
    let mut bench = Bench::one(PUBACK, 4);
    bench.down();
    let (second, third) = (bench.journals[0].items[1], bench.journals[0].items.remove(2));
    bench.journals[0].items[1] = Seen { last: third.last, chain: third.chain, gap: true, ..second };
    bench.up(100);
    assert_eq!(bench.outcomes(0), [1, 2, 4]);
    bench.ack_all();
    assert_eq!(bench.settled(0), 4);
}

#[test]
fn a_feed_that_cannot_be_read_waits_and_the_others_go_on() {
    let mut bench = Bench::new(PUBACK, vec![Journal::new("a", Lane::Critical, 0), Journal::new("b", Lane::Critical, 0)]);
    bench.append(0, 1);
    bench.append(1, 1);
    let lost = std::mem::take(&mut bench.journals[0].items);
    bench.up(100);
    bench.ack_all();
    assert_eq!((bench.settled(0), bench.settled(1)), (0, 1));
    bench.journals[0].items = lost;
    bench.pass(PARK_MIN);
    bench.ack_all();
    assert_eq!(bench.settled(0), 1);
}

#[test]
fn a_full_window_is_tried_again_later_and_nothing_is_passed_over() {
    let mut bench = Bench::one(PUBACK, 1);
    bench.append(0, 1);
    let Next::Read { feed, after } = bench.core.next(bench.now) else { panic!("something to read") };
    let offer = bench.core.offer(feed, after, bench.journals[0].at(2), bench.now).unwrap();
    bench.core.not_taken(offer.token, NotTaken::WindowFull, bench.now);
    bench.run();
    assert_eq!(bench.outcomes(0), [1]);
    assert_eq!(bench.wake, Some(bench.now + WINDOW_FULL_PAUSE));
    bench.pass(WINDOW_FULL_PAUSE);
    assert_eq!(bench.outcomes(0), [1, 2]);
}

#[test]
fn answers_that_arrived_before_the_connection_ended_still_count() {
    let mut bench = Bench::one(PUBACK, 1);
    let answered = bench.token(0, 1);
    bench.append(0, 1);
    let Next::Read { feed, after } = bench.core.next(bench.now) else { panic!("something to read") };
    let offer = bench.core.offer(feed, after, bench.journals[0].at(2), bench.now).unwrap();
    bench.core.not_taken(offer.token, NotTaken::NoConnection, bench.now);
    bench.run();
    assert_eq!(bench.outcomes(0), [1], "nothing more is tried");
    bench.ack(answered, AckReason::Success);
    assert_eq!(bench.settled(0), 1);
    bench.down();
    bench.up(100);
    assert_eq!(bench.outcomes(0), [2]);
}

/// I4: a feed whose hub is silent stops at its bound.
#[test]
fn unconfirmed_records_of_a_feed_are_bounded() {
    let mut bench = Bench::one(RULES, UNCONFIRMED_PER_FEED + 100);
    bench.ack_all();
    assert_eq!(bench.core.feeds[0].unconfirmed(), UNCONFIRMED_PER_FEED);
    bench.receipt(0, 60, &[]);
    bench.ack_all();
    assert_eq!(bench.core.feeds[0].tail(), UNCONFIRMED_PER_FEED as u64 + 60);
}

/// I4: bytes in flight are bounded, and a lane of large records leaves room for the others.
#[test]
fn a_bulk_lane_of_large_records_leaves_the_window_to_critical() {
    let mut bench = Bench::new(RULES, vec![Journal::new("a", Lane::Critical, 0), Journal::new("b", Lane::Bulk, 0)]);
    (0..100).for_each(|_| bench.journals[1].append(1, IN_FLIGHT_BYTES_MAX / 4));
    bench.core.head(1, bench.journals[1].head());
    bench.up(100);
    assert_eq!(bench.outcomes(1), [1, 2, 3]);
    bench.append(0, 1);
    bench.run();
    assert_eq!(bench.outcomes(0), [1]);
}

#[test]
fn stopping_publishes_no_more_records_but_heads_and_offline() {
    let mut bench = Bench::one(RULES, 2);
    bench.core.stop();
    bench.append(0, 1);
    bench.ack_all();
    assert_eq!(bench.core.outcomes_in_flight(), 0);
    bench.core.last_heads(bench.now);
    bench.run();
    assert!(matches!(bench.checkpoints()[..], [Checkpoint::Head { seq: 3, .. }]), "the durable head, published or not");
    assert!(bench.core.awaiting_receipts());
    bench.ack_all();
    bench.receipt(0, 2, &[(3, 3)]);
    assert!(!bench.core.awaiting_receipts());
    bench.core.say_offline();
    bench.run();
    assert!(matches!(&bench.wire[0], Sent::Control { what: Control::Status(OnlineState::Offline), .. }));
    assert!(!bench.core.quiet(bench.now));
    bench.ack_all();
    assert!(bench.core.quiet(bench.now));
}
