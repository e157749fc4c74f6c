//! What the core does with receipts, and without them, rule by rule.

use super::*;
use crate::limits::{CHECKPOINT_INTERVAL, CHECKPOINT_RECORDS, CHECKPOINT_SPACING, MISSING_GRACE, MISSING_RETRY_MIN, RECEIPT_PATIENCE_MAX};

/// I2
#[test]
fn a_receipt_that_names_our_chain_settles() {
    let mut bench = Bench::one(RULES, 5);
    bench.ack_all();
    bench.receipt(0, 3, &[]);
    assert_eq!(bench.settled(0), 3);
    bench.receipt(0, 2, &[]);
    assert_eq!(bench.settled(0), 3, "an old one changes nothing");
    bench.receipt(0, 5, &[]);
    assert_eq!(bench.settled(0), 5);
    assert!(bench.effects.contains(&Effect::Settle { feed: 0, mark: bench.journals[0].settled, records: 2 }));
}

/// I2
#[test]
fn a_receipt_with_another_chain_settles_nothing() {
    let mut bench = Bench::one(RULES, 5);
    bench.ack_all();
    let honest = bench.receipt_of(0, 3, &[]);
    bench.receive(Receipt { chain: Chain([0xEE; 32]), ..honest.clone() });
    assert!(bench.raised(Code::ChainConflict));
    assert_eq!(bench.settled(0), 0);
    bench.receive(Receipt { incarnation: Incarnation([0xEE; 16]), ..honest.clone() });
    assert_eq!(bench.settled(0), 0, "nor with another incarnation");
    bench.receive(honest);
    assert_eq!(bench.settled(0), 3);
    assert!(!bench.raised(Code::ChainConflict));
    let settled = bench.receipt_of(0, 3, &[]);
    bench.receive(Receipt { chain: Chain([0xEE; 32]), ..settled });
    assert!(bench.raised(Code::ChainConflict), "also at the settled mark itself");
}

/// The PUBACK was lost, the record was not.
#[test]
fn a_receipt_settles_what_is_still_in_flight() {
    let mut bench = Bench::one(RULES, 5);
    let late = bench.token(0, 2);
    bench.receipt(0, 4, &[]);
    assert_eq!(bench.settled(0), 4);
    bench.ack(late, AckReason::Success);
    bench.ack_all();
    assert_eq!(bench.core.feeds[0].unconfirmed(), 1);
}

/// What an earlier run published is looked up in the journal, not sent again.
#[test]
fn a_receipt_ahead_of_this_runs_publishes_settles_by_the_journal() {
    let mut bench = Bench::new(RULES, vec![Journal::new("a", Lane::Critical, 0)]);
    bench.append(0, 1000);
    bench.up(10);
    bench.receipt(0, 900, &[]);
    assert_eq!(bench.settled(0), 900);
    bench.ack_all();
    assert_eq!(bench.core.feeds[0].tail(), 1000);
    let honest = bench.receipt_of(0, 1000, &[]);
    let mut bench = Bench::new(RULES, vec![Journal::new("a", Lane::Critical, 0)]);
    bench.append(0, 1000);
    bench.up(10);
    bench.receive(Receipt { chain: Chain([0xEE; 32]), ..honest });
    assert_eq!(bench.settled(0), 0);
    assert!(bench.raised(Code::ChainConflict));
}

/// I8: the hub holds more of our incarnation than we do, so identities would come up twice: a new one begins.
#[test]
fn a_hub_ahead_of_our_incarnation_renews_it() {
    let mut bench = Bench::one(RULES, 5);
    bench.ack_all();
    let ahead = Receipt { through_seq: 9, ..bench.receipt_of(0, 5, &[]) };
    bench.receive(ahead.clone());
    assert!(bench.raised(Code::SpoolBehindHub));
    assert_eq!(bench.effects.iter().filter(|e| **e == Effect::Renew).count(), 1);
    assert_eq!(bench.settled(0), 0);
    bench.journals[0].renew(2);
    bench.core.head(0, bench.journals[0].head());
    bench.core.lineage(0, bench.journals[0].lineage.clone(), bench.now);
    bench.append(0, 1);
    bench.run();
    let Sent::Control { what: Control::Checkpoint(Checkpoint::Open { incarnation, .. }), .. } = &bench.wire[0] else {
        panic!("the new link goes before its first record")
    };
    assert_eq!(*incarnation, Incarnation([2; 16]));
    assert_eq!(bench.checkpoints().iter().filter(|c| matches!(c, Checkpoint::Open { .. })).count(), 1);
    assert_eq!(bench.outcomes(0), [6]);
    bench.receive(ahead);
    assert_eq!(bench.effects.iter().filter(|e| **e == Effect::Renew).count(), 1, "ahead in an older incarnation is only said");
}

#[test]
fn ahead_in_an_incarnation_that_ended_is_only_said() {
    let mut journal = Journal::new("a", Lane::Critical, 0);
    (0..5).for_each(|_| journal.append(1, 700));
    journal.renew(2);
    (0..5).for_each(|_| journal.append(1, 700));
    let mut bench = Bench::new(RULES, vec![journal]);
    bench.up(100);
    bench.ack_all();
    let old = Incarnation([1; 16]);
    let ahead = Receipt { incarnation: old, ..bench.receipt_of(0, 8, &[]) };
    bench.receive(ahead);
    assert!(bench.raised(Code::SpoolBehindHub));
    assert!(!bench.effects.contains(&Effect::Renew));
    assert_eq!(bench.settled(0), 0);
    let boundary = Receipt { incarnation: Incarnation([2; 16]), ..bench.receipt_of(0, 5, &[]) };
    bench.receive(boundary);
    assert_eq!(bench.settled(0), 5, "the end of one incarnation may be named by the next");
}

/// I3: the broker lost what it had acknowledged.
#[test]
fn what_a_receipt_calls_missing_goes_again() {
    let mut bench = Bench::one(RULES, 10);
    bench.ack_all();
    bench.receipt(0, 2, &[(3, 4), (7, 7)]);
    assert_eq!(bench.outcomes(0), [3, 4, 7]);
    bench.ack_all();
    bench.receipt(0, 10, &[]);
    assert_eq!(bench.settled(0), 10);
}

#[test]
fn a_repeated_receipt_does_not_storm() {
    let mut bench = Bench::one(RULES, 10);
    bench.ack_all();
    bench.pass(CHECKPOINT_SPACING);
    bench.ack_all();
    bench.pass(MISSING_GRACE);
    let mut times = Vec::new();
    for tenth in 0..200 {
        bench.receipt(0, 0, &[(1, 10)]);
        if !bench.outcomes(0).is_empty() {
            times.push(tenth / 10);
        }
        bench.ack_all();
        bench.pass(Duration::from_millis(100));
    }
    let doubling = MISSING_RETRY_MIN.as_secs();
    assert_eq!(times, [0, doubling, doubling * 3, doubling * 7, doubling * 15]);
}

/// A checkpoint tells the durable head, so receipts call missing what was not even sent then.
#[test]
fn missing_does_not_mean_what_was_still_on_its_way() {
    let mut bench = Bench::one(RULES, 5_000);
    for _ in 0..600 {
        let token = bench.wire.front().unwrap().token();
        bench.ack(token, AckReason::Success);
    }
    let before = bench.core.feeds[0].tail();
    bench.receipt(0, 400, &[(401, 5_000)]);
    assert_eq!(bench.settled(0), 400);
    assert_eq!(bench.core.feeds[0].after(), Some(bench.core.feeds[0].tail()), "the feed goes on, not back");
    assert!(bench.core.feeds[0].tail() >= before);
}

#[test]
fn receipts_that_stay_away_send_the_feed_back_with_growing_patience() {
    let mut bench = Bench::one(RULES, 3);
    bench.ack_all();
    let mut patience = 1;
    for _ in 0..7 {
        bench.not_before(RULES.receipt_timeout * patience);
        assert_eq!(bench.outcomes(0), [1, 2, 3]);
        assert!(bench.raised(Code::ReceiptsMissing));
        bench.ack_all();
        patience = (patience * 2).min(RECEIPT_PATIENCE_MAX);
    }
    bench.receipt(0, 1, &[]);
    assert!(!bench.raised(Code::ReceiptsMissing));
    bench.pass(RULES.receipt_timeout);
    assert_eq!(bench.outcomes(0), [2, 3], "patience begins anew");
}

#[test]
fn a_time_without_a_connection_is_no_time_without_receipts() {
    let mut bench = Bench::one(RULES, 3);
    bench.ack_all();
    bench.down();
    bench.pass(RULES.receipt_timeout * 10);
    bench.up(100);
    assert!(bench.outcomes(0).is_empty());
    assert!(!bench.raised(Code::ReceiptsMissing));
}

#[test]
fn without_receipts_by_configuration_nothing_waits_for_them() {
    let mut bench = Bench::one(PUBACK, 3);
    bench.answer(0, 2, AckReason::Success);
    bench.pass(RULES.receipt_timeout * 2);
    bench.receipt(0, 3, &[]);
    assert_eq!(bench.settled(0), 0, "and they settle nothing");
    assert!(!bench.raised(Code::ReceiptsMissing));
}

#[test]
fn a_receipt_for_a_feed_we_do_not_have_is_told_to_the_caller() {
    let mut bench = Bench::one(RULES, 1);
    let stranger = Receipt { feed: Name::new("stranger").unwrap(), ..bench.receipt_of(0, 1, &[]) };
    assert!(!bench.core.receipt(stranger, bench.now));
}

#[test]
fn a_checkpoint_tells_head_settled_and_the_incarnations_own_count() {
    let mut journal = Journal::new("a", Lane::Critical, 0);
    (0..5).for_each(|_| journal.append(1, 700));
    journal.renew(2);
    (0..3).for_each(|_| journal.append(1, 700));
    let mut bench = Bench::new(RULES, vec![journal]);
    bench.up(100);
    let head = bench.journals[0].head();
    let told = bench.checkpoints().into_iter().find(|c| matches!(c, Checkpoint::Head { .. })).unwrap();
    let Position { incarnation, seq, chain } = head;
    let (feed, settled) = (bench.journals[0].id.clone(), bench.journals[0].base);
    assert_eq!(told, Checkpoint::Head { feed, incarnation, seq, chain, count: 3, settled });
}

#[test]
fn a_backlog_is_confirmed_in_portions() {
    let mut bench = Bench::one(RULES, CHECKPOINT_RECORDS as usize * 3);
    bench.answer_controls(AckReason::Success);
    let mut heads = 0;
    while let Some(sent) = bench.wire.front().cloned() {
        heads += usize::from(matches!(sent, Sent::Control { .. }));
        bench.ack(sent.token(), AckReason::Success);
    }
    assert_eq!(heads, 3);
}

#[test]
fn a_checkpoint_is_repeated_while_receipts_are_owed() {
    let mut bench = Bench::one(RULES, 1);
    bench.ack_all();
    bench.pass(CHECKPOINT_SPACING);
    bench.ack_all();
    bench.pass(CHECKPOINT_INTERVAL);
    let told = bench.checkpoints();
    assert!(
        matches!(told[..], [Checkpoint::Open { .. }, Checkpoint::Head { .. }]),
        "with its lineage, which may be what is missing: {told:?}"
    );
    bench.ack_all();
    bench.receipt(0, 1, &[]);
    bench.pass(Duration::from_hours(1));
    assert!(bench.wire.is_empty(), "an idle feed is silent");
}
