//! Maintenance windows: for how long whose alerts are silenced, by whom and why. Pure.
//!
//! 1. A window is for one feed or for the gateway as a whole, with a reason, for at most [`MAINTENANCE_TIME_MAX`](crate::limits::MAINTENANCE_TIME_MAX).
//! 2. It ends by time that passes while the agent runs (I10, see [`timed`](crate::timed)): a kill costs a little of it and adds nothing. Where both its
//!    begin and now can be believed, the wall clock ends it too, so that a box that was switched off does not come back silent.
//! 3. What it silences is the condition's own word (`Code::silencing`): a feed's window that feed's sender and cadence, the gateway's all of these and
//!    the uplink; loss never.

use std::time::Duration;

use super::view::{Silenced, Window};
use crate::clock::{self, WallTime};
use crate::limits::MAINTENANCE_MAX;
use crate::record::FeedId;
use crate::status::condition::{Code, Silencing};
use crate::timed::{self, Holding, Timed};

/// What a window is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub id: u64,
    /// `None`: the gateway.
    pub feed: Option<FeedId>,
}

/// One window.
pub type Held = Timed<Scope>;

impl Held {
    /// For people: what it is about.
    pub fn subject(&self) -> String {
        self.what.feed.as_ref().map_or_else(|| "gateway".to_owned(), |feed| format!("feed {feed}"))
    }

    fn until(&self, now: WallTime) -> String {
        clock::rfc3339(timed::later(now, self.left))
    }

    pub fn view(&self, now: WallTime) -> Window {
        Window {
            id: self.what.id,
            feed: self.what.feed.clone(),
            who: self.who.clone(),
            reason: self.reason.clone(),
            set_at: clock::rfc3339(self.set_at.unix_ms),
            for_s: self.asked.as_secs(),
            left_s: self.left.as_secs(),
            until: self.until(now),
        }
    }

    pub fn silenced(&self, now: WallTime) -> Silenced {
        Silenced { window: self.what.id, until: self.until(now), reason: self.reason.clone() }
    }
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub feed: Option<FeedId>,
    pub time: Duration,
    pub who: String,
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    pub held: Holding<Scope>,
    /// Of the newest one ever.
    pub last_id: u64,
}

impl Windows {
    pub fn start(&mut self, wish: Wish, now: WallTime) -> Result<Held, String> {
        if self.held.list().len() >= MAINTENANCE_MAX {
            return Err(format!("{MAINTENANCE_MAX} maintenance windows hold already; end one"));
        }
        self.last_id += 1;
        let Wish { feed, time, who, reason } = wish;
        let held = Held::new(Scope { id: self.last_id, feed }, (who, reason), now, time);
        self.held.put(held.clone());
        Ok(held)
    }

    pub fn end(&mut self, id: u64) -> Option<Held> {
        self.held.take(|held| held.what.id == id).pop()
    }

    /// Time passes; those that are over.
    pub fn pass(&mut self, time: Duration, now: WallTime) -> Vec<Held> {
        let mut over = self.held.pass(time);
        over.extend(self.held.take(|held| held.is_past(now)));
        over
    }

    /// The window that silences a condition: of several the one that lasts longest.
    pub fn silencing(&self, code: Code, subject: &str) -> Option<&Held> {
        let covers = |held: &&Held| match (code.silencing(), &held.what.feed) {
            (Silencing::Never, _) | (Silencing::Gateway, Some(_)) => false,
            (Silencing::Gateway | Silencing::Feed, None) => true,
            (Silencing::Feed, Some(feed)) => feed.as_str() == subject,
        };
        self.held.list().iter().filter(covers).max_by_key(|held| held.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::RELEASED_AT_MS;
    use crate::status::condition::Severity;

    const AT: WallTime = WallTime { unix_ms: RELEASED_AT_MS, suspect: false };
    const HOUR: Duration = Duration::from_hours(1);

    fn feed(text: &str) -> FeedId {
        FeedId::new(text).unwrap()
    }

    fn windows(feeds: &[Option<&str>]) -> Windows {
        let mut windows = Windows::default();
        for one in feeds {
            let wish = Wish { feed: one.map(feed), time: HOUR, who: "kim".into(), reason: "works".into() };
            windows.start(wish, AT).unwrap();
        }
        windows
    }

    /// Peers, cadence and uplink can be silenced, and nothing else: whatever code is added has to be put somewhere.
    #[test]
    fn what_may_be_silenced_is_a_closed_list_and_loss_is_not_on_it() {
        let of = |wanted| Code::ALL.iter().filter(|c| c.silencing() == wanted).map(|c| c.as_str()).collect::<Vec<_>>();
        assert_eq!(of(Silencing::Gateway), ["uplink_down", "uplink_refused", "hub_not_subscribed", "oldest_critical", "receipts_missing"]);
        let peers = ["peer_lost", "tls_refused", "peer_refused", "share_missing", "share_hung", "directory_unreadable", "feed_silent"];
        assert_eq!(of(Silencing::Feed), peers);
        let (gateway, lab) = (windows(&[None]), windows(&[Some("lab")]));
        for code in Code::ALL {
            let silenced = (gateway.silencing(*code, "lab").is_some(), lab.silencing(*code, "lab").is_some());
            let wanted = (code.silencing() != Silencing::Never, code.silencing() == Silencing::Feed);
            assert_eq!(silenced, wanted, "{}", code.as_str());
            assert!(lab.silencing(*code, "or").is_none(), "{}: another feed's", code.as_str());
        }
        let loss =
            ["spool_full", "spool_write_failed", "spool_damaged", "spool_behind_hub", "chain_conflict", "quarantine_full", "file_refused"];
        let never = of(Silencing::Never);
        assert!(loss.iter().all(|code| never.contains(code)));
        assert!(Code::ALL.iter().filter(|c| c.severity() == Severity::Error).count() > of(Silencing::Feed).len());
    }

    #[test]
    fn a_box_that_was_off_does_not_come_back_silent() {
        let mut windows = windows(&[None, Some("lab")]);
        assert_eq!(windows.pass(Duration::from_secs(1), WallTime { unix_ms: AT.unix_ms + 3_600_000, ..AT }).len(), 2);
        let mut windows = self::windows(&[None]);
        assert_eq!(
            windows.pass(Duration::from_secs(1), WallTime { unix_ms: i64::MAX, suspect: true }).len(),
            0,
            "nobody knows what time it is"
        );
    }

    #[test]
    fn windows_have_ids_of_their_own_and_end_by_them() {
        let mut windows = windows(&[None, Some("lab")]);
        assert_eq!(windows.end(1).map(|held| held.subject()), Some("gateway".into()));
        assert_eq!(windows.end(1), None);
        let wish = Wish { feed: None, time: HOUR * 2, who: "kim".into(), reason: "x".into() };
        assert_eq!(windows.start(wish, AT).unwrap().what.id, 3, "no id is used twice");
        assert_eq!(windows.silencing(Code::FeedSilent, "lab").map(|held| held.what.id), Some(3), "the one that lasts longest is named");
    }
}
