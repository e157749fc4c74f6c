//! The account in single steps.

use super::account::{Account, Followed, Head, Report};
use crate::contract::Mark;
use crate::limits::{HUB_CLOSED_INCARNATIONS_MAX, HUB_INCARNATIONS_MAX};
use crate::record::{Chain, Digest, Incarnation, Link, Nonce, Position};

const GENESIS: Mark = Mark { seq: 0, chain: Chain::GENESIS };

fn name(n: u16) -> Incarnation {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    Incarnation(bytes)
}

/// A gateway and the account of its feed. Chains depend on the incarnation, as they would.
struct Feed {
    account: Account,
    reports: Vec<Report>,
}

fn digest(incarnation: u16, seq: u64) -> Digest {
    Digest::of(&Nonce([0; 16]), &[&incarnation.to_be_bytes()[..], &seq.to_be_bytes()].concat())
}

/// The point after records `first..=last` of `incarnation`, which follow `from`.
fn after(from: Mark, incarnation: u16, last: u64) -> Mark {
    (from.seq + 1..=last).fold(from, |mark, seq| Mark { seq, chain: mark.chain.after(seq, &digest(incarnation, seq)) })
}

fn position(incarnation: u16, mark: Mark) -> Position {
    Position { incarnation: name(incarnation), seq: mark.seq, chain: mark.chain }
}

impl Feed {
    fn new(settled: Mark) -> Self {
        Self::starting(1, settled)
    }

    fn starting(incarnation: u16, settled: Mark) -> Self {
        let mut account = Account::default();
        account.begin(name(incarnation), settled);
        Self { account, reports: Vec::new() }
    }

    fn open(&mut self, incarnation: u16, follows: Option<Position>, settled: Mark) {
        let link = Link { incarnation: name(incarnation), follows };
        self.reports.extend(self.account.open(link, settled, Followed::Unknown));
    }

    /// Records `first..=last`, where the incarnation begins after `from`.
    fn records(&mut self, incarnation: u16, from: Mark, first: u64, last: u64) {
        for seq in first..=last {
            let chain = after(from, incarnation, seq).chain;
            self.reports.extend(self.account.record(name(incarnation), seq, &digest(incarnation, seq), chain));
        }
    }

    fn head(&mut self, incarnation: u16, mark: Mark, settled: Mark) {
        self.reports.extend(self.account.head(Head { incarnation: name(incarnation), mark, settled }));
    }

    fn receipt(&mut self, incarnation: u16) -> (u64, Incarnation, Vec<(u64, u64)>) {
        let standing = self.account.confirm(name(incarnation)).unwrap();
        (standing.through.seq, standing.through.incarnation, standing.missing)
    }
}

/// I3: missing is what a durable head says exists, no more, in exact inclusive ranges.
#[test]
fn missing_ranges_are_named_only_against_a_head() {
    let mut feed = Feed::new(GENESIS);
    feed.open(1, None, GENESIS);
    feed.records(1, GENESIS, 1, 2);
    feed.records(1, GENESIS, 5, 6);
    assert_eq!(feed.receipt(1), (2, name(1), vec![]));
    feed.head(1, after(GENESIS, 1, 9), GENESIS);
    assert_eq!(feed.receipt(1), (2, name(1), vec![(3, 4), (7, 9)]));
    assert_eq!(feed.reports, []);
    feed.head(1, after(GENESIS, 1, 9), GENESIS);
    assert_eq!(feed.reports, [Report::Missing { incarnation: name(1), ranges: vec![(3, 4)] }]);
}

#[test]
fn a_receipt_stays_at_the_predecessor_until_that_is_complete() {
    let mut feed = Feed::new(GENESIS);
    let (ten, fifteen) = (after(GENESIS, 1, 10), after(after(GENESIS, 1, 10), 2, 15));
    feed.open(1, None, GENESIS);
    feed.records(1, GENESIS, 1, 7);
    feed.open(2, Some(position(1, ten)), GENESIS);
    feed.records(2, ten, 11, 15);
    feed.head(2, fifteen, GENESIS);
    assert_eq!(feed.receipt(2), (7, name(1), vec![(8, 10)]));
    feed.records(1, GENESIS, 8, 10);
    assert_eq!(feed.receipt(2), (15, name(2), vec![]));
    assert_eq!(feed.reports, []);
}

#[test]
fn with_nothing_received_the_receipt_is_the_baseline() {
    let settled = after(GENESIS, 9, 40);
    let mut feed = Feed::new(settled);
    feed.open(1, Some(position(9, settled)), settled);
    assert_eq!(feed.receipt(1), (40, name(9), vec![]));
}

#[test]
fn first_contact_starts_at_the_settled_mark_even_if_the_newest_incarnation_is_told_first() {
    let (fifty, eighty, hundred) = (after(GENESIS, 1, 50), after(after(GENESIS, 1, 50), 2, 80), after(after(GENESIS, 1, 50), 2, 100));
    let mut feed = Feed::starting(2, eighty);
    feed.open(3, Some(position(2, hundred)), eighty);
    feed.records(3, hundred, 101, 104);
    assert_eq!(feed.receipt(3), (80, name(2), vec![(81, 100)]));
    feed.open(2, Some(position(1, fifty)), eighty);
    feed.records(2, fifty, 81, 100);
    assert_eq!(feed.receipt(3), (104, name(3), vec![]));
    assert_eq!(feed.reports, []);
}

#[test]
fn an_incarnation_whose_open_checkpoint_never_came_is_told_by_its_chain() {
    let mut feed = Feed::new(GENESIS);
    let ten = after(GENESIS, 1, 10);
    feed.open(1, None, GENESIS);
    feed.records(2, ten, 11, 12);
    feed.records(1, GENESIS, 1, 10);
    feed.head(2, after(ten, 2, 12), GENESIS);
    assert_eq!(feed.receipt(2), (12, name(2), vec![]));
    assert_eq!(feed.reports, [Report::Inferred { link: Link { incarnation: name(2), follows: Some(position(1, ten)) } }]);
}

/// I8
#[test]
fn an_incarnation_without_records_is_superseded_silently() {
    let mut feed = Feed::new(GENESIS);
    let ten = after(GENESIS, 1, 10);
    feed.open(1, None, GENESIS);
    feed.records(1, GENESIS, 1, 10);
    for incarnation in 2..6 {
        feed.open(incarnation, Some(position(1, ten)), GENESIS);
    }
    feed.records(5, ten, 11, 12);
    feed.head(5, after(ten, 5, 12), GENESIS);
    assert_eq!((feed.receipt(5), feed.reports), ((12, name(5), vec![]), vec![]));
}

/// I8: restored from an older image, or a disk that lost its synced end.
#[test]
fn a_successor_below_what_was_received_is_a_fork_with_exact_ranges() {
    let mut feed = Feed::new(GENESIS);
    let (six, ten) = (after(GENESIS, 1, 6), after(GENESIS, 1, 10));
    feed.open(1, None, GENESIS);
    feed.records(1, GENESIS, 1, 10);
    feed.open(2, Some(position(1, ten)), GENESIS);
    feed.records(2, ten, 11, 14);
    feed.open(3, Some(position(1, six)), GENESIS);
    assert_eq!(feed.reports, [Report::Fork { incarnation: name(3), other: name(1), first: 7, last: 10 }]);
    feed.records(3, six, 7, 8);
    assert_eq!(feed.reports[1..], [Report::Fork { incarnation: name(3), other: name(2), first: 11, last: 14 }]);
    feed.head(3, after(six, 3, 8), GENESIS);
    feed.open(4, Some(position(3, after(six, 3, 8))), GENESIS);
    feed.records(4, after(six, 3, 8), 9, 9);
    assert_eq!(feed.receipt(4), (9, name(4), vec![]));
    assert_eq!(feed.reports.len(), 2, "each pair is reported once: {:?}", feed.reports);
}

/// I8: a clone.
#[test]
fn two_successors_of_one_point_are_a_fork_and_each_has_its_own_receipts() {
    let mut feed = Feed::new(GENESIS);
    let ten = after(GENESIS, 1, 10);
    feed.open(1, None, GENESIS);
    feed.records(1, GENESIS, 1, 10);
    feed.open(2, Some(position(1, ten)), GENESIS);
    feed.open(3, Some(position(1, ten)), GENESIS);
    feed.records(2, ten, 11, 20);
    feed.records(3, ten, 11, 13);
    assert_eq!(feed.reports, [Report::Fork { incarnation: name(3), other: name(2), first: 11, last: 20 }]);
    feed.head(2, after(ten, 2, 20), GENESIS);
    feed.head(3, after(ten, 3, 14), GENESIS);
    assert_eq!((feed.receipt(2), feed.receipt(3)), ((20, name(2), vec![]), (13, name(3), vec![(14, 14)])));
}

/// I8: a gateway whose spool was wiped starts over.
#[test]
fn a_second_beginning_is_a_fork() {
    let mut feed = Feed::new(GENESIS);
    feed.open(1, None, GENESIS);
    feed.records(1, GENESIS, 1, 5);
    feed.open(2, None, GENESIS);
    feed.records(2, GENESIS, 1, 2);
    feed.head(2, after(GENESIS, 2, 2), GENESIS);
    assert_eq!(feed.reports, [Report::Fork { incarnation: name(2), other: name(1), first: 1, last: 5 }]);
    assert_eq!(feed.receipt(2), (2, name(2), vec![]));
}

#[test]
fn what_is_settled_at_the_gateway_and_not_here_is_lost_with_exact_ranges_and_the_account_goes_on() {
    let mut feed = Feed::new(GENESIS);
    let (six, ten, twelve) = (after(GENESIS, 1, 6), after(GENESIS, 1, 10), after(GENESIS, 1, 12));
    feed.open(1, None, GENESIS);
    feed.records(1, GENESIS, 1, 3);
    feed.records(1, GENESIS, 6, 7);
    feed.head(1, ten, ten);
    assert_eq!(feed.receipt(1).0, 3, "said once: records may still be under way");
    feed.head(1, twelve, ten);
    assert_eq!(feed.reports, [Report::Lost { incarnation: name(1), mark: ten, ranges: vec![(4, 5), (8, 10)] }]);
    feed.records(1, GENESIS, 11, 12);
    assert_eq!(feed.receipt(1), (12, name(1), vec![]));
    feed.open(2, Some(position(1, six)), GENESIS);
    assert_eq!(feed.reports[1..], [Report::Fork { incarnation: name(2), other: name(1), first: 7, last: 12 }]);
}

#[test]
fn a_head_with_another_chain_is_reported_once() {
    let mut feed = Feed::new(GENESIS);
    feed.open(1, None, GENESIS);
    feed.records(1, GENESIS, 1, 5);
    for _ in 0..3 {
        feed.head(1, Mark { seq: 5, chain: Chain([7; 32]) }, GENESIS);
    }
    assert_eq!(feed.reports, [Report::HeadConflict { incarnation: name(1), seq: 5 }]);
}

/// I4: however often a gateway is restarted, with and without records.
#[test]
fn old_incarnations_are_forgotten() {
    let mut feed = Feed::new(GENESIS);
    let mut end = position(0, GENESIS);
    for incarnation in 1..1000 {
        feed.open(incarnation, Some(end).filter(|p| p.seq > 0), GENESIS);
        if incarnation % 3 == 0 {
            let from = Mark { seq: end.seq, chain: end.chain };
            feed.records(incarnation, from, end.seq + 1, end.seq + 2);
            end = position(incarnation, after(from, incarnation, end.seq + 2));
            feed.head(incarnation, Mark { seq: end.seq, chain: end.chain }, GENESIS);
            assert_eq!(feed.receipt(incarnation), (end.seq, name(incarnation), vec![]));
        }
        assert!(feed.account.incarnations() <= HUB_INCARNATIONS_MAX);
    }
    assert_eq!(feed.reports, []);
    const { assert!(HUB_CLOSED_INCARNATIONS_MAX < HUB_INCARNATIONS_MAX) };
}

/// I8: a gateway tells its whole lineage at every connection, and sends again what was not confirmed to it; what the account has closed and forgotten
/// is neither a fork nor missing then, and a record beyond its end is still found out.
#[test]
fn what_was_closed_and_forgotten_is_no_fork_when_it_comes_again() {
    let mut feed = Feed::new(GENESIS);
    let mut lineage: Vec<Link> = Vec::new();
    let mut ends = vec![position(0, GENESIS)];
    for incarnation in 1..=60_u16 {
        let end = *ends.last().unwrap();
        lineage.push(Link { incarnation: name(incarnation), follows: Some(end).filter(|p| p.seq > 0) });
        for link in &lineage {
            feed.reports.extend(feed.account.open(*link, GENESIS, Followed::Same));
        }
        let from = Mark { seq: end.seq, chain: end.chain };
        feed.records(incarnation, from, end.seq + 1, end.seq + 2);
        ends.push(position(incarnation, after(from, incarnation, end.seq + 2)));
        // What an acknowledgement that got lost brings again, of long ago.
        if let Some(old) = incarnation.checked_sub(25).filter(|old| *old > 0) {
            let before = ends[usize::from(old) - 1];
            feed.records(old, Mark { seq: before.seq, chain: before.chain }, before.seq + 1, before.seq + 2);
        }
        let end = *ends.last().unwrap();
        feed.head(incarnation, Mark { seq: end.seq, chain: end.chain }, GENESIS);
        assert_eq!(feed.receipt(incarnation), (end.seq, name(incarnation), vec![]));
        assert_eq!(feed.reports, [], "incarnation {incarnation}");
    }
    let (before, end) = (ends[4], ends[5]);
    let from = after(Mark { seq: before.seq, chain: before.chain }, 5, end.seq);
    feed.records(5, from, end.seq + 1, end.seq + 1);
    for link in &lineage {
        feed.reports.extend(feed.account.open(*link, GENESIS, Followed::Same));
    }
    let is_told = |report: &Report| matches!(report, Report::Fork { incarnation, other, .. } if [*incarnation, *other].contains(&name(5)));
    assert!(!feed.reports.is_empty() && feed.reports.iter().all(is_told), "{:?}", feed.reports);
}
