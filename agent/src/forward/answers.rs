//! What the broker's answers mean.
//!
//! | answer to an outcome | meaning |
//! |---|---|
//! | success | the window's place is free; with `confirm = "puback"` the contiguous mark settles |
//! | 0x10 no matching subscribers | `hold`: no outcomes of any feed until a probe succeeds (`hub_not_subscribed`); `accept`: success |
//! | 0x87 not authorised, 0x97 quota, others | that feed only is parked (`feed_parked`) and tried again from there |
//! | 0x90, 0x95, 0x99, or larger than the broker takes | this record cannot go: quarantine, then an exception in its place |
//!
//! Answers to control publishes never hold anything back (no wedge on a control topic): success and 0x10 are fine, anything else is repeated
//! after a pause. A lineage that nobody was subscribed to goes again once somebody may be there. Refusals come in windowfuls; only what was published after a pause began speaks for or against ending it (`pause.rs`).

use std::time::Instant;

use super::core::{Core, Effect};
use super::feed::{Becomes, State};
use super::pause::pause;
use super::window::Flight;
use crate::config::settings::{Confirm, OnNoSubscriber};
use crate::limits::{PARK_MAX, PARK_MIN, WINDOW_FULL_PAUSE};
use crate::status::condition::Code;
use crate::uplink::{AckReason, NotTaken};

/// Reasons of exceptions, as the hub reads them.
pub const BROKER_PACKET_LIMIT: &str = "broker_packet_limit";
pub const BROKER_TOPIC_INVALID: &str = "broker_topic_invalid";
pub const BROKER_PAYLOAD_INVALID: &str = "broker_payload_invalid";

impl Core {
    /// The broker answered a publish.
    pub fn acked(&mut self, token: u64, reason: AckReason, now: Instant) {
        self.full_until = None;
        let Some(flight) = self.window.as_mut().and_then(|window| window.leave(token)) else { return };
        match flight {
            Flight::Outcome { feed, first, event, .. } => self.outcome_answered(token, (feed, first, event), reason, now),
            control => {
                if let (Flight::Open { feed, .. }, AckReason::NoMatchingSubscribers) = (control, reason) {
                    self.feeds[feed].unheard = true;
                }
                let fine = matches!(reason, AckReason::Success | AckReason::NoMatchingSubscribers);
                if let Flight::Mail { letter } = control {
                    self.letter_answered(letter, reason, fine);
                }
                self.control_answered(token, control, fine, now);
            }
        }
    }

    fn outcome_answered(&mut self, token: u64, (feed, first, event): (usize, u64, bool), reason: AckReason, now: Instant) {
        use AckReason as R;
        let refused = match reason {
            R::Success => None,
            R::NoMatchingSubscribers => (self.rules.on_no_subscriber == OnNoSubscriber::Hold).then_some(reason),
            _ => Some(reason),
        };
        let Some(refused) = refused else {
            self.accepted(token, feed, reason == R::Success);
            if self.feeds[feed].answered(first, token, State::Acked, now) {
                self.settle_acked(feed, now);
            }
            return;
        };
        if !self.feeds[feed].answered(first, token, State::Unsent, now) {
            return; // the feed has gone back behind it already
        }
        match (refused, event) {
            (R::NoMatchingSubscribers, _) => self.nobody_there(token, now),
            (R::PacketTooLarge, true) => self.cannot_go(feed, first, BROKER_PACKET_LIMIT),
            (R::TopicNameInvalid, true) => self.cannot_go(feed, first, BROKER_TOPIC_INVALID),
            (R::PayloadFormatInvalid, true) => self.cannot_go(feed, first, BROKER_PAYLOAD_INVALID),
            (reason, _) => self.refused(token, feed, reason, now),
        }
    }

    /// The broker took an outcome: what was paused before it was published goes on.
    fn accepted(&mut self, token: u64, feed: usize, subscribed: bool) {
        if subscribed && self.hold.is_some_and(|hold| token >= hold.since) {
            self.hold = None;
            self.clear(Code::HubNotSubscribed, None);
        }
        if self.feeds[feed].parked.is_some_and(|parked| token >= parked.pause.since) {
            self.unpark(feed);
        }
    }

    fn unpark(&mut self, feed: usize) {
        if let Some(code) = self.feeds[feed].parked.take().and_then(|parked| parked.code) {
            self.clear(code, Some(feed));
        }
    }

    fn settle_acked(&mut self, feed: usize, now: Instant) {
        if self.rules.confirm == Confirm::Puback {
            let mark = self.feeds[feed].acked_mark();
            if mark.seq > self.feeds[feed].settled().seq {
                self.settle(feed, mark, now);
            }
        }
    }

    fn nobody_there(&mut self, token: u64, now: Instant) {
        let since = self.next_token;
        pause(&mut self.hold, token, now, since, (PARK_MIN, PARK_MAX));
        self.speak_up = true;
        let text = "the broker takes our messages but nobody is subscribed to them: nothing is sent and nothing is lost; start the hub's \
                    receiver, or check the topics it subscribes to";
        self.raise(Code::HubNotSubscribed, None, text.into());
    }

    /// This record will never be taken as it is.
    fn cannot_go(&mut self, feed: usize, first: u64, reason: &'static str) {
        self.feeds[feed].becomes(first, Becomes::Exception { reason, stored: false });
    }

    fn refused(&mut self, token: u64, feed: usize, reason: AckReason, now: Instant) {
        self.park(feed, token, Some(Code::FeedParked), now);
        let what = match reason {
            AckReason::NotAuthorized => {
                "the broker does not allow this gateway to publish on the feed's topic (0x87): check its access rules".into()
            }
            AckReason::QuotaExceeded => {
                "the broker says that a quota is exceeded (0x97): check the hub's queue and the broker's limits".into()
            }
            AckReason::Other(code) => format!("the broker refuses the feed's messages (reason 0x{code:02x}): see the broker's log"),
            _ => "the broker refuses even a report without a message for this feed: check its limits and access rules".into(),
        };
        self.raise(Code::FeedParked, Some(feed), format!("{what}; the feed waits and is tried again by itself, the others go on"));
    }

    fn control_answered(&mut self, token: u64, flight: Flight, fine: bool, now: Instant) {
        if fine {
            if self.control_pause.is_some_and(|pause| token >= pause.since) {
                self.control_pause = None;
            }
            return;
        }
        if self.control_pause.is_none() {
            tracing::warn!("the broker refuses status or checkpoints; they are repeated: check its access rules for this gateway's topics");
        }
        let since = self.next_token;
        pause(&mut self.control_pause, token, now, since, (PARK_MIN, PARK_MAX));
        self.control_again(flight, now);
    }

    fn control_again(&mut self, flight: Flight, now: Instant) {
        match flight {
            Flight::Status => self.status_again(),
            Flight::Open { feed, .. } => self.feeds[feed].opens_again = true,
            Flight::Head { feed } => self.feeds[feed].checkpoints.force(now),
            // A refused letter was answered; one that is repeated is already marked.
            Flight::Mail { .. } | Flight::Outcome { .. } => {}
        }
    }

    fn letter_answered(&mut self, letter: u64, reason: AckReason, fine: bool) {
        self.mailbox.answered(letter, fine);
        self.effects.push(Effect::Answered { letter, reason });
    }

    /// The uplink did not take a publish.
    pub fn not_taken(&mut self, token: u64, why: NotTaken, now: Instant) {
        let Some(flight) = self.window.as_mut().and_then(|window| window.leave(token)) else { return };
        match (flight, why) {
            (Flight::Outcome { feed, first, event, .. }, _) => {
                self.feeds[feed].answered(first, token, State::Unsent, now);
                match why {
                    NotTaken::TooLarge { .. } if event => self.cannot_go(feed, first, BROKER_PACKET_LIMIT),
                    NotTaken::TooLarge { .. } => self.refused(token, feed, AckReason::PacketTooLarge, now),
                    _ => {}
                }
            }
            (Flight::Mail { letter }, NotTaken::TooLarge { .. }) => {
                self.letter_answered(letter, AckReason::PacketTooLarge, false);
                self.control_answered(token, flight, false, now);
            }
            (Flight::Mail { letter }, _) => self.mailbox.not_taken(letter),
            (control, NotTaken::TooLarge { .. }) => self.control_answered(token, control, false, now),
            // Nothing of a lineage may be left out, so it begins again.
            (Flight::Open { feed, link }, _) => self.feeds[feed].opens = self.feeds[feed].opens.min(link),
            (control, _) => self.control_again(control, now),
        }
        match why {
            NotTaken::WindowFull => self.full_until = Some(now + WINDOW_FULL_PAUSE),
            NotTaken::NoConnection => self.ending = true,
            NotTaken::TooLarge { .. } => {}
        }
    }

    /// The copy in quarantine is synced; the exception may go.
    pub fn quarantined(&mut self, feed: usize, first: u64) {
        if let Some(Becomes::Exception { reason, .. }) = self.feeds[feed].entry(first).map(|e| e.becomes) {
            self.feeds[feed].becomes(first, Becomes::Exception { reason, stored: true });
        }
        self.clear(Code::QuarantineFull, Some(feed));
    }

    /// The copy could not be made, so the exception was not published: the feed waits with this record.
    pub fn quarantine_failed(&mut self, feed: usize, token: u64, full: bool, now: Instant) {
        if let Some(Flight::Outcome { first, .. }) = self.window.as_mut().and_then(|window| window.leave(token)) {
            self.feeds[feed].answered(first, token, State::Unsent, now);
        }
        self.park(feed, u64::MAX, full.then_some(Code::QuarantineFull), now);
        if full {
            let text = "a record the broker cannot take has to be kept back, and quarantine is full: the feed waits; release or drop what \
                        lies in quarantine";
            self.raise(Code::QuarantineFull, Some(feed), text.into());
        }
    }

    /// I2: `mark` is proven.
    pub(super) fn settle(&mut self, feed: usize, mark: crate::contract::Mark, now: Instant) {
        let records = mark.seq - self.feeds[feed].settled().seq;
        self.feeds[feed].settle_through(mark, now);
        if self.feeds[feed].drained() {
            self.unpark(feed);
        }
        let before = self.effects.iter_mut().rev().find_map(|effect| match effect {
            Effect::Settle { feed: f, mark, records } if *f == feed => Some((mark, records)),
            _ => None,
        });
        match before {
            Some((known, count)) => (*known, *count) = (mark, *count + records),
            None => self.effects.push(Effect::Settle { feed, mark, records }),
        }
    }
}
