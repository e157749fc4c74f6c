//! Maintenance windows: for how long whose alerts are silenced, by whom and why. Pure.
//!
//! 1. A window is for one feed or for the gateway as a whole, with a reason, for at most [`MAINTENANCE_TIME_MAX`](crate::limits::MAINTENANCE_TIME_MAX).
//! 2. It ends by time that passes while the agent runs, charged ahead in slices as overrides are: a kill costs up to a slice and adds nothing. Where
//!    both its begin and now can be believed, the wall clock ends it too, so that a box that was switched off does not come back silent; a clock
//!    that jumps can only end it early (I10).
//! 3. What it silences is the condition's own word (`Code::silencing`): a feed's window that feed's sender and cadence, the gateway's all of these and
//!    the uplink; loss never.

use std::time::Duration;

use super::view::{Silenced, Window};
use crate::clock::{self, WallTime};
use crate::limits::{MAINTENANCE_MAX, MAINTENANCE_SLICE_RANGE};
use crate::record::FeedId;
use crate::status::condition::{Code, Silencing};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub id: u64,
    /// `None`: the gateway.
    pub feed: Option<FeedId>,
    pub who: String,
    pub reason: String,
    pub set_at: WallTime,
    pub asked: Duration,
    pub left: Duration,
    /// What the file says is left.
    pub charged: Duration,
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Held {
    /// For people: what it is about.
    pub fn subject(&self) -> String {
        self.feed.as_ref().map_or_else(|| "gateway".to_owned(), |feed| format!("feed {feed}"))
    }

    fn until(&self, now: WallTime) -> String {
        clock::rfc3339(now.unix_ms.saturating_add(ms(self.left)))
    }

    pub fn view(&self, now: WallTime) -> Window {
        Window {
            id: self.id,
            feed: self.feed.clone(),
            who: self.who.clone(),
            reason: self.reason.clone(),
            set_at: clock::rfc3339(self.set_at.unix_ms),
            for_s: self.asked.as_secs(),
            left_s: self.left.as_secs(),
            until: self.until(now),
        }
    }

    pub fn silenced(&self, now: WallTime) -> Silenced {
        Silenced { window: self.id, until: self.until(now), reason: self.reason.clone() }
    }

    fn is_past(&self, now: WallTime) -> bool {
        !now.suspect && !self.set_at.suspect && now.unix_ms >= self.set_at.unix_ms.saturating_add(ms(self.asked))
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
    list: Vec<Held>,
    /// Of the newest one ever.
    last_id: u64,
}

impl Windows {
    pub fn of(list: Vec<Held>, last_id: u64) -> Self {
        Self { list, last_id }
    }

    pub fn list(&self) -> &[Held] {
        &self.list
    }

    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    pub fn start(&mut self, wish: Wish, now: WallTime) -> Result<&Held, String> {
        if self.list.len() >= MAINTENANCE_MAX {
            return Err(format!("{MAINTENANCE_MAX} maintenance windows hold already; end one"));
        }
        self.last_id += 1;
        let Wish { feed, time, who, reason } = wish;
        self.list.push(Held { id: self.last_id, feed, who, reason, set_at: now, asked: time, left: time, charged: time });
        Ok(self.list.last().expect("just put there"))
    }

    pub fn end(&mut self, id: u64) -> Option<Held> {
        let at = self.list.iter().position(|held| held.id == id)?;
        Some(self.list.remove(at))
    }

    /// Time passes; those that are over.
    pub fn pass(&mut self, time: Duration, now: WallTime) -> Vec<Held> {
        for held in &mut self.list {
            held.left = held.left.saturating_sub(time);
        }
        let (over, stays) = std::mem::take(&mut self.list).into_iter().partition(|held| held.left.is_zero() || held.is_past(now));
        self.list = stays;
        over
    }

    /// Whether the file must say less before more time may pass.
    pub fn is_due(&self) -> bool {
        self.list.iter().any(|held| held.left <= held.charged)
    }

    /// Charges the next slice of every window ahead.
    pub fn charge(&mut self) {
        let (least, most) = MAINTENANCE_SLICE_RANGE;
        for held in &mut self.list {
            held.charged = held.left.saturating_sub((held.left / 8).clamp(least, most));
        }
    }

    /// Nothing runs any more: the file is to say what is left.
    pub fn settle(&mut self) {
        for held in &mut self.list {
            held.charged = held.left;
        }
    }

    /// The window that silences a condition: of several the one that lasts longest.
    pub fn silencing(&self, code: Code, subject: &str) -> Option<&Held> {
        let covers = |held: &&Held| match (code.silencing(), &held.feed) {
            (Silencing::Never, _) | (Silencing::Gateway, Some(_)) => false,
            (Silencing::Gateway | Silencing::Feed, None) => true,
            (Silencing::Feed, Some(feed)) => feed.as_str() == subject,
        };
        self.list.iter().filter(covers).max_by_key(|held| held.left)
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

    /// I10: never longer than asked, whatever the clock does and however often the agent is killed.
    #[test]
    fn a_window_never_lasts_longer_than_asked() {
        for kill_every in [1, 7, 61, u64::MAX] {
            for jump in [0, -86_400_000 * 3650, 86_400_000 * 3650] {
                let mut windows = windows(&[None]);
                windows.charge();
                let mut ran = 0;
                while !windows.list().is_empty() {
                    ran += 1;
                    let now = WallTime { unix_ms: AT.unix_ms + ran * 1000 + jump, suspect: jump < 0 };
                    windows.pass(Duration::from_secs(1), now);
                    if windows.is_due() {
                        windows.charge();
                    }
                    if ran.cast_unsigned() % kill_every == 0 {
                        let list = windows.list.iter().map(|held| Held { left: held.charged, ..held.clone() }).collect();
                        windows = Windows::of(list, 1);
                        windows.charge();
                    }
                }
                assert!(ran <= 3600, "killed every {kill_every} s, clock {jump}: {ran}");
                assert!(kill_every != u64::MAX || jump > 0 || ran == 3600, "{ran}");
            }
        }
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
        assert_eq!(windows.start(wish, AT).unwrap().id, 3, "no id is used twice");
        assert_eq!(windows.silencing(Code::FeedSilent, "lab").map(|held| held.id), Some(3), "the one that lasts longest is named");
    }
}
