//! Two judgements that need time: whether a sender that keeps its connection has gone (`peer_lost`), and for how long what is critical has not reached the
//! hub (`oldest_critical`). Pure; looks and the time between them are passed in. Nothing here reads the wall clock (I10).
//!
//! **Peer.** Some senders connect for each message, some once for months; only of the second kind is no connection worth a word. Which kind a feed has
//! is learnt: a stretch with a connection that lasted as long as the hold-down makes it *standing*, and three shorter ones in a row that brought
//! something make it otherwise. A connection that brings nothing, a test of the port, teaches nothing; and who is lost stays lost until a connection
//! brings something or stays. What was learnt outlives a restart; after one, senders have a while to come back. A sender that connects for each
//! message is watched by what it brings: `[feed.expect]`.
//!
//! **Oldest.** Of each critical feed, marks of how far its head was when; those that are settled go. The age of the oldest one left is how long its record
//! has waited at least, and at most a sixteenth of the limit longer. What was there at the start is as old as the last run left it; the time in
//! which nothing ran does not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::limits::{ALERT_STANDING_MAX, PEER_BACK, PEER_GONE, PEER_STAYS};
use crate::record::FeedId;

/// Stretches in a row that are too short for a standing connection.
const SHORT_MAX: u8 = 3;

#[derive(Debug, Default)]
struct Peer {
    /// How long the stretch with a connection has lasted.
    lasted: Duration,
    /// How long there has been no connection that brought something or stayed.
    gone: Duration,
    is_there: bool,
    /// Since the start.
    was_there: bool,
    short: u8,
    is_lost: bool,
    /// Connections that ended, as far as is known: one came and went between two looks.
    came: u64,
    /// What it had brought, at the last look and when the stretch began.
    brought: u64,
    brought_before: u64,
}

impl Peer {
    fn pass(&mut self, passed: Duration, now: Seen, hold: Duration) {
        let (is_there, was_there) = (now.connections > 0, self.is_there);
        let is_glimpse = !is_there && !was_there && now.ended > self.came; // came and went between two looks
        let (begins, ends) = (is_there && !was_there || is_glimpse, !is_there && (was_there || is_glimpse));
        if begins {
            (self.lasted, self.brought_before) = (Duration::ZERO, self.brought);
        } else {
            self.lasted += passed;
        }
        let brings = (is_there || ends) && now.messages > self.brought_before;
        if ends && brings && self.lasted < hold {
            self.short = self.short.saturating_add(1);
        }
        let stays = is_there && self.lasted >= hold.min(PEER_STAYS);
        if brings || stays {
            (self.gone, self.is_lost) = (Duration::ZERO, false);
        } else {
            self.gone += passed;
        }
        self.was_there |= is_there;
        (self.is_there, self.came, self.brought) = (is_there, now.ended, now.messages);
    }
}

/// What a look at a feed shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub connections: u64,
    /// Connections that ended, ever.
    pub ended: u64,
    /// Messages that came, whatever became of them.
    pub messages: u64,
    /// It takes nobody on purpose, or cannot: what that means is said elsewhere.
    pub is_closed: bool,
}

/// All feeds with a listener.
#[derive(Debug)]
pub struct Peers {
    hold: Duration,
    feeds: BTreeMap<FeedId, Peer>,
    standing: BTreeSet<FeedId>,
    ran: Duration,
}

impl Peers {
    pub fn new(hold: Duration, standing: BTreeSet<FeedId>) -> Self {
        Self { hold, feeds: BTreeMap::new(), standing, ran: Duration::ZERO }
    }

    /// What outlives the process.
    pub fn standing(&self) -> &BTreeSet<FeedId> {
        &self.standing
    }

    /// So much time went by, and this is seen now: of which feeds a sender is lost.
    pub fn look(&mut self, passed: Duration, seen: &[(FeedId, Seen)]) -> Vec<FeedId> {
        self.ran += passed;
        self.feeds.retain(|feed, _| seen.iter().any(|(known, _)| known == feed));
        let mut lost = Vec::new();
        for (feed, now) in seen {
            let peer = self.feeds.entry(feed.clone()).or_default();
            if now.is_closed {
                *peer = Peer { came: now.ended, brought: now.messages, ..Peer::default() };
                continue;
            }
            peer.pass(passed, *now, self.hold);
            if peer.is_there && peer.lasted >= self.hold {
                peer.short = 0;
                if self.standing.len() < ALERT_STANDING_MAX {
                    self.standing.insert(feed.clone());
                }
            }
            if peer.short >= SHORT_MAX {
                self.standing.remove(feed);
                peer.short = 0;
            }
            let patience = if self.ran < PEER_BACK && !peer.was_there { PEER_BACK } else { PEER_GONE };
            let is_missed = !peer.is_there && peer.gone >= patience;
            peer.is_lost = (peer.is_lost || is_missed) && self.standing.contains(feed);
            if peer.is_lost {
                lost.push(feed.clone());
            }
        }
        lost
    }
}

/// Marks of one feed.
#[derive(Debug, Default)]
struct Marks(VecDeque<(u64, Duration)>);

/// How long what is critical has waited.
#[derive(Debug)]
pub struct Oldest {
    limit: Duration,
    feeds: BTreeMap<FeedId, Marks>,
    now: Duration,
    is_new: bool,
}

/// A feed's head and what of it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub feed: FeedId,
    pub head: u64,
    pub settled: u64,
}

impl Oldest {
    pub fn new(limit: Duration) -> Self {
        Self { limit, feeds: BTreeMap::new(), now: Duration::ZERO, is_new: true }
    }

    /// The feed whose record has waited longest, and how long. `before`: how old what is there at the start was when the last run ended.
    pub fn look(&mut self, passed: Duration, waiting: &[Waiting], before: Duration) -> Option<(FeedId, Duration)> {
        self.now += passed;
        self.feeds.retain(|feed, _| waiting.iter().any(|one| one.feed == *feed));
        if self.is_new {
            // So that ages of earlier runs lie behind zero.
            self.now += Duration::from_hours(24 * 366);
        }
        for one in waiting {
            let marks = &mut self.feeds.entry(one.feed.clone()).or_default().0;
            while marks.front().is_some_and(|(seq, _)| *seq <= one.settled) {
                marks.pop_front();
            }
            let known = marks.back().copied();
            if one.head <= one.settled || known.is_some_and(|(seq, _)| seq >= one.head) {
                continue;
            }
            match known {
                // Close together they count as one, the younger as old as the older.
                Some((_, at)) if self.now.saturating_sub(at) < self.limit / 16 => marks.back_mut().expect("it is there").0 = one.head,
                _ => {
                    let age = if self.is_new { before } else { Duration::ZERO };
                    marks.push_back((one.head, self.now.saturating_sub(age)));
                }
            }
        }
        self.is_new = false;
        let oldest = self.feeds.iter().filter_map(|(feed, marks)| Some((feed, marks.0.front()?.1)));
        oldest.min_by_key(|(_, at)| *at).map(|(feed, at)| (feed.clone(), self.now.saturating_sub(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOLD: Duration = Duration::from_secs(60);

    fn feed() -> FeedId {
        FeedId::new("lab").unwrap()
    }

    /// So many seconds with so many connections, of which so many have ended, each with a message: whether the sender is lost at the end.
    fn run(peers: &mut Peers, seconds: u64, connections: u64, ended: u64) -> bool {
        brings(peers, seconds, (connections, ended), connections + ended)
    }

    fn brings(peers: &mut Peers, seconds: u64, (connections, ended): (u64, u64), messages: u64) -> bool {
        let seen = [(feed(), Seen { connections, ended, messages, is_closed: false })];
        (0..seconds).map(|_| !peers.look(SECOND, &seen).is_empty()).last().unwrap_or(false)
    }

    #[test]
    fn a_sender_that_kept_its_connection_is_missed_and_one_that_connects_for_each_message_is_not() {
        let mut peers = Peers::new(HOLD, BTreeSet::new());
        assert!(!run(&mut peers, 500, 0, 0), "nobody was ever there");
        for n in 1..20 {
            assert!(!run(&mut peers, 2, 1, n - 1) && !run(&mut peers, 500, 0, n));
        }
        assert!(!run(&mut peers, 62, 1, 20));
        assert!(!run(&mut peers, 2, 0, 21), "a moment is nothing");
        assert!(run(&mut peers, 60, 0, 21));
        assert!(!run(&mut peers, 1, 1, 21), "it is back");
        // Now it connects for each message: after a few it is one of those.
        let lost: Vec<bool> = (22..30).map(|n| run(&mut peers, 2, 1, n) | run(&mut peers, 200, 0, n + 1)).collect();
        assert!(lost[0] && !lost[7], "{lost:?}");
    }

    /// What the runbook has people do while a sender is gone: connect to the port, send nothing, go. Seen at a look or between two.
    #[test]
    fn tests_of_the_port_neither_bring_a_sender_back_nor_make_it_another_kind() {
        let mut peers = Peers::new(HOLD, BTreeSet::new());
        brings(&mut peers, 100, (1, 0), 1);
        assert!(brings(&mut peers, 10, (0, 1), 1), "it is gone");
        for n in 1..20 {
            assert!(brings(&mut peers, 20, (1, n), 1), "somebody is there for a while, and says nothing");
            assert!(brings(&mut peers, 20, (0, n + 1), 1));
            assert!(brings(&mut peers, 1, (0, n + 2), 1), "or for a moment");
        }
        assert!(peers.standing().contains(&feed()));
        assert!(brings(&mut peers, PEER_STAYS.as_secs(), (1, 30), 1) && !brings(&mut peers, 2, (1, 30), 1), "one that stays is the sender");
        assert!(brings(&mut peers, 9, (0, 31), 1));
        assert!(!brings(&mut peers, 1, (1, 31), 2), "one that brings something is, too");
        // A probe that comes every other second hides nobody's absence.
        let mut peers = Peers::new(HOLD, BTreeSet::from([feed()]));
        brings(&mut peers, 100, (1, 0), 1);
        let lost: Vec<bool> = (1..20).map(|n| brings(&mut peers, 1, (1, n), 1) | brings(&mut peers, 1, (0, n + 1), 1)).collect();
        assert!(lost[18], "{lost:?}");
    }

    #[test]
    fn what_was_learnt_outlives_a_restart_and_senders_have_a_while_to_come_back() {
        let mut peers = Peers::new(HOLD, BTreeSet::from([feed()]));
        assert!(!run(&mut peers, PEER_BACK.as_secs() - 1, 0, 0));
        assert!(run(&mut peers, 3, 0, 0));
        let closed = [(feed(), Seen { connections: 0, ended: 0, messages: 0, is_closed: true })];
        assert!(peers.look(HOLD * 9, &closed).is_empty(), "a paused feed takes nobody");
        assert!(peers.look(SECOND, &[]).is_empty(), "a feed that is gone misses nobody");
    }

    fn waiting(head: u64, settled: u64) -> [Waiting; 1] {
        [Waiting { feed: feed(), head, settled }]
    }

    /// I10: an age is what went by, not what clocks say.
    #[test]
    fn the_oldest_is_as_old_as_it_has_waited() {
        let mut oldest = Oldest::new(HOLD);
        let age =
            |o: &mut Oldest, passed: u64, of: &[Waiting]| o.look(SECOND * passed as u32, of, Duration::ZERO).map(|(_, age)| age.as_secs());
        assert_eq!(age(&mut oldest, 1, &waiting(0, 0)), None);
        assert_eq!(age(&mut oldest, 1, &waiting(5, 0)), Some(0));
        assert_eq!(age(&mut oldest, 30, &waiting(9, 4)), Some(30), "not all of it is settled");
        assert_eq!(age(&mut oldest, 10, &waiting(9, 5)), Some(10), "the second mark is the oldest now");
        assert_eq!(age(&mut oldest, 10, &waiting(9, 9)), None);
    }

    #[test]
    fn what_waited_before_the_start_is_as_old_as_is_known() {
        let mut oldest = Oldest::new(HOLD);
        assert_eq!(oldest.look(SECOND, &waiting(5, 0), SECOND * 7).map(|(_, age)| age.as_secs()), Some(7));
        assert_eq!(oldest.look(SECOND, &waiting(8, 5), SECOND * 7).map(|(_, age)| age.as_secs()), Some(0));
    }

    /// I4: marks are bounded: one for each sixteenth of the limit, and then one more; what is settled goes.
    #[test]
    fn a_burst_makes_few_marks() {
        let mut oldest = Oldest::new(HOLD);
        for n in 1..10_000 {
            oldest.look(Duration::from_millis(1), &waiting(n, 0), Duration::ZERO);
        }
        assert!(oldest.feeds[&feed()].0.len() <= 4);
    }
}
