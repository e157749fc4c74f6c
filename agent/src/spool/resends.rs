//! Feeds that take deliberate resends for a while: what would be suppressed as a duplicate is stored as a new record, flagged `resend_of`.
//!
//! 1. Somebody opens a feed for at most [`ACCEPT_RESEND_MAX`] (`siteward feeds accept-resend`); the condition `accept_resend_open` says until
//!    when. Opening it again sets the time anew.
//! 2. The committer asks, only about messages it recognised. The record names the earlier one, and so does its event (`resendof`): the hub can
//!    tell a resend from a usage that happened twice.
//! 3. It ends by itself, by time that passes and not by the clock on the wall (I10), or with the agent: after a restart it is closed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::limits::ACCEPT_RESEND_MAX;
use crate::record::FeedId;
use crate::status::board::Board;
use crate::status::condition::Code;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Resends {
    until: Mutex<BTreeMap<FeedId, Instant>>,
}

impl Resends {
    fn until(&self) -> MutexGuard<'_, BTreeMap<FeedId, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a feed, at most for [`ACCEPT_RESEND_MAX`]. Says until when, by the clock on the wall, for people.
    pub fn open(&self, feed: &FeedId, time: Duration, now: Instant, board: &Board) -> String {
        let time = time.min(ACCEPT_RESEND_MAX);
        self.until().insert(feed.clone(), now + time);
        let until = clock::rfc3339(clock::now().unix_ms.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)));
        let text =
            format!("messages that were seen before are stored again and flagged as resends, until {until} or a restart of the agent");
        board.raise(Code::AcceptResendOpen, feed.as_str(), text);
        until
    }

    pub fn is_open(&self, feed: &FeedId, now: Instant) -> bool {
        self.until().get(feed).is_some_and(|until| now < *until)
    }

    /// Closes what is over.
    pub fn expire(&self, now: Instant, board: &Board) {
        self.until().retain(|feed, until| {
            let stays = now < *until;
            if !stays {
                board.clear(Code::AcceptResendOpen, feed.as_str());
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I10: the time that passes counts, and a feed is never open for longer than the most.
    #[test]
    fn a_feed_is_open_for_its_time_and_no_longer() {
        let (resends, now) = (Resends::default(), Instant::now());
        let (feed, other) = (FeedId::new("a").unwrap(), FeedId::new("b").unwrap());
        let board = Board::new([feed.clone()]);
        resends.open(&feed, Duration::from_hours(1000), now, &board);
        assert!(resends.is_open(&feed, now + ACCEPT_RESEND_MAX.saturating_sub(Duration::from_secs(1))) && !resends.is_open(&other, now));
        assert!(!resends.is_open(&feed, now + ACCEPT_RESEND_MAX));
        resends.open(&feed, Duration::from_mins(1), now, &board);
        resends.expire(now + Duration::from_secs(59), &board);
        assert_eq!(board.conditions().len(), 1);
        resends.expire(now + Duration::from_mins(1), &board);
        assert!(board.conditions().is_empty() && !resends.is_open(&feed, now));
    }
}
