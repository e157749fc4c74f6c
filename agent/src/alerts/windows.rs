//! Maintenance windows: for how long whose alerts are silenced, by whom and why. Pure.
//!
//! 1. A window is for one feed or for the gateway as a whole, with a reason, for at most [`MAINTENANCE_TIME_MAX`](crate::limits::MAINTENANCE_TIME_MAX).
//! 2. It ends by time that passes while the agent runs (I10, see [`timed`](crate::timed)): a kill costs a little of it and adds nothing. Where both its
//!    begin and now can be believed, the wall clock ends it too, so that a box that was switched off does not come back silent.
//! 3. One that is planned begins when the clock says so, and not while that cannot be believed; a box that was off at that time begins it late and
//!    ends it in time, or drops it when it is past. From then on it is as any other: a clock that jumps can begin it at the wrong time, and never
//!    makes it longer.
//! 4. What it silences is the condition's own word (`Code::silencing`): a feed's window that feed's sender and cadence, the gateway's all of these and
//!    the uplink; loss never.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::view::{Silenced, Window};
use crate::clock::{self, WallTime};
use crate::limits::{MAINTENANCE_AHEAD_MAX, MAINTENANCE_MAX};
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

impl Scope {
    /// For people: what it is about.
    pub fn subject(&self) -> String {
        self.feed.as_ref().map_or_else(|| "gateway".to_owned(), |feed| format!("feed {feed}"))
    }
}

/// One that begins later. Its `left` is all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub held: Held,
    /// By the wall clock.
    pub from_ms: i64,
}

impl Planned {
    pub fn view(&self) -> Window {
        let until = clock::rfc3339(self.from_ms.saturating_add_unsigned(timed::ms(self.held.asked)));
        Window { from: Some(clock::rfc3339(self.from_ms)), until, ..self.held.view(self.held.set_at) }
    }
}

/// What the clock brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Come {
    Begun(Held),
    /// Nothing ran, or no clock could be believed, from its begin to its end.
    Missed(Held),
}

/// When that is: with an offset as it stands, without one in site time.
pub fn moment(text: &str, zone: &TimeZone, now: WallTime) -> Result<i64, String> {
    if now.suspect {
        return Err(
            "the clock of this box cannot be believed, so nobody knows when that will be; begin the window when it is needed".to_owned()
        );
    }
    let local = |text: &str| text.parse::<DateTime>().ok()?.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp());
    let at = text.parse::<Timestamp>().ok().or_else(|| local(text));
    let at =
        at.ok_or("--at is a time like 2026-11-28T22:00, in site time, or with an offset like 2026-11-28T22:00+01:00")?.as_millisecond();
    let ahead = at.saturating_sub(now.unix_ms);
    if ahead <= 0 {
        return Err(format!("{} is past; without --at the window begins now", clock::rfc3339(at)));
    }
    if ahead.unsigned_abs() > timed::ms(MAINTENANCE_AHEAD_MAX) {
        return Err(format!("{} is further ahead than {} days", clock::rfc3339(at), MAINTENANCE_AHEAD_MAX.as_secs() / 86_400));
    }
    Ok(at)
}

impl Held {
    pub fn subject(&self) -> String {
        self.what.subject()
    }

    fn until(&self, now: WallTime) -> String {
        clock::rfc3339(timed::later(now, self.left))
    }

    pub fn view(&self, now: WallTime) -> Window {
        Window {
            id: self.what.id,
            feed: self.what.feed.clone(),
            from: None,
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
    /// When it is to begin, as somebody wrote it; `None`: now.
    pub at: Option<String>,
    pub who: String,
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    pub held: Holding<Scope>,
    pub planned: Vec<Planned>,
    /// Of the newest one ever.
    pub last_id: u64,
}

impl Windows {
    /// `from_ms`: when it begins, where that is not now.
    pub fn start(&mut self, wish: Wish, from_ms: Option<i64>, now: WallTime) -> Result<Window, String> {
        if self.held.list().len() + self.planned.len() >= MAINTENANCE_MAX {
            return Err(format!("{MAINTENANCE_MAX} maintenance windows hold or are planned already; end one"));
        }
        self.last_id += 1;
        let Wish { feed, time, who, reason, .. } = wish;
        let held = Held::new(Scope { id: self.last_id, feed }, (who, reason), now, time);
        if let Some(from_ms) = from_ms {
            let planned = Planned { held, from_ms };
            let view = planned.view();
            self.planned.push(planned);
            return Ok(view);
        }
        let view = held.view(now);
        self.held.put(held);
        Ok(view)
    }

    /// One that holds or is planned.
    pub fn end(&mut self, id: u64) -> Option<Held> {
        let planned = self.planned.extract_if(.., |planned| planned.held.what.id == id).map(|planned| planned.held);
        planned.collect::<Vec<_>>().pop().or_else(|| self.held.take(|held| held.what.id == id).pop())
    }

    /// Those whose time has come.
    pub fn begin(&mut self, now: WallTime) -> Vec<Come> {
        if now.suspect {
            return Vec::new();
        }
        let due: Vec<Planned> = self.planned.extract_if(.., |planned| planned.from_ms <= now.unix_ms).collect();
        let come = |Planned { held, from_ms }: Planned| {
            let late = Duration::from_millis(now.unix_ms.saturating_sub(from_ms).unsigned_abs());
            let left = held.asked.saturating_sub(late);
            if left.is_zero() {
                return Come::Missed(held);
            }
            let held = Held::new(held.what, (held.who, held.reason), now, left);
            self.held.put(held.clone());
            Come::Begun(held)
        };
        due.into_iter().map(come).collect()
    }

    /// Those that hold, and those that are planned.
    pub fn views(&self, now: WallTime) -> Vec<Window> {
        self.held.list().iter().map(|held| held.view(now)).chain(self.planned.iter().map(Planned::view)).collect()
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
            let wish = Wish { feed: one.map(feed), time: HOUR, at: None, who: "kim".into(), reason: "works".into() };
            windows.start(wish, None, AT).unwrap();
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
        let wish = Wish { feed: None, time: HOUR * 2, at: None, who: "kim".into(), reason: "x".into() };
        assert_eq!(windows.start(wish, None, AT).unwrap().id, 3, "no id is used twice");
        assert_eq!(windows.silencing(Code::FeedSilent, "lab").map(|held| held.what.id), Some(3), "the one that lasts longest is named");
    }

    fn planned(from_ms: i64) -> Windows {
        let mut windows = Windows::default();
        let wish = Wish { feed: None, time: HOUR, at: None, who: "kim".into(), reason: "works".into() };
        windows.start(wish, Some(from_ms), AT).unwrap();
        windows
    }

    /// I10: it begins by a clock that is believed, as late as that says so, and ends in time all the same; never is it longer than asked.
    #[test]
    fn a_planned_window_begins_when_its_time_has_come_and_ends_in_time() {
        let (from, at) = (AT.unix_ms + 86_400_000, |ms| WallTime { unix_ms: AT.unix_ms + 86_400_000 + ms, suspect: false });
        let silences = |windows: &Windows| windows.silencing(Code::UplinkDown, "").is_some();
        for (late_ms, left) in [(0, 3600), (500, 3599), (1_800_000, 1800), (3_599_000, 1)] {
            let mut windows = planned(from);
            assert!(
                windows.begin(at(-1)).is_empty() && windows.begin(WallTime { suspect: true, ..at(0) }).is_empty() && !silences(&windows)
            );
            let come = windows.begin(at(late_ms));
            assert!(matches!(&come[..], [Come::Begun(held)] if held.left.as_secs() == left && held.what.id == 1), "{come:?}");
            assert!(silences(&windows) && windows.planned.is_empty());
            assert_eq!(windows.pass(Duration::from_secs(left + 1), WallTime { unix_ms: 0, suspect: true }).len(), 1);
        }
        let mut missed = planned(from);
        assert!(matches!(&missed.begin(at(3_600_000))[..], [Come::Missed(_)]));
        assert!(missed.planned.is_empty() && !silences(&missed));
        let mut ended = planned(from);
        assert_eq!(ended.end(1).map(|held| held.subject()), Some("gateway".into()));
        assert!(ended.views(AT).is_empty());
    }

    #[test]
    fn a_planned_window_is_shown_with_its_begin_and_its_end() {
        let view = planned(AT.unix_ms + 60_000).views(AT).remove(0);
        assert_eq!((view.from, view.until), (Some(clock::rfc3339(AT.unix_ms + 60_000)), clock::rfc3339(AT.unix_ms + 3_660_000)));
        assert_eq!((view.left_s, view.for_s), (3600, 3600));
    }

    #[test]
    fn a_moment_is_in_site_time_unless_it_says_otherwise_and_neither_past_nor_far() {
        let zone = jiff::tz::TimeZoneDatabase::bundled().get("Europe/Berlin").unwrap();
        let moment = |text: &str| moment(text, &zone, AT);
        let ten: i64 = "2026-11-28T21:00:00Z".parse::<Timestamp>().unwrap().as_millisecond();
        for text in ["2026-11-28T22:00", "2026-11-28 22:00", "2026-11-28T22:00:00+01:00", "2026-11-28T21:00Z"] {
            assert_eq!(moment(text), Ok(ten), "{text}");
        }
        assert!(moment("saturday").unwrap_err().contains("like 2026-11-28T22:00"));
        assert!(moment("2020-01-01T00:00").unwrap_err().contains("is past"));
        assert!(moment("2027-11-28T22:00").unwrap_err().contains("further ahead than 30 days"));
        assert!(super::moment("2026-11-28T22:00", &zone, WallTime { suspect: true, ..AT }).unwrap_err().contains("cannot be believed"));
    }
}
