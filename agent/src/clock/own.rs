//! The time by which certificates are judged. Pure: readings in, times and doubts out.
//!
//! ```text
//!   the system's clock ── somebody keeps it right, or the hub agrees ──► believed: dates count
//!                      └─ neither: judged by what the hub confirmed (this run, or before), else as it stands; dates alone refuse nobody
//! ```
//!
//! 1. **What the hub says.** Receipts carry the time at which the hub wrote them. A broker may have kept one for days, so one alone says only
//!    that it is not earlier; two that came some seconds apart, and whose times lie as far apart, were not kept. The last such pair counts,
//!    advanced by the monotonic clock. Only receipts count that prove themselves by our chain, over a verified connection (`forward`).
//! 2. **Kept right**: a file says so (systemd-timesyncd makes it, or whatever the site has).
//! 3. **Suspect** for everything: nobody keeps the clock right, and it differs from the hub's; or the hub's certificate was taken although by this
//!    clock its dates do not fit. Clock or certificate is wrong then, such a hub confirms no time, and a record must not vouch for its own.
//! 4. Before the first word of the hub in this run there is the last one of an earlier run: certain to be past, and a better guess than a clock
//!    that stands in 1970 or by which a certificate has ended.

use std::time::{Duration, Instant};

use super::{RELEASED_AT_MS, rfc3339};
use crate::limits::{CLOCK_TOLERANCE, HUB_TIME_APART, HUB_TIME_JITTER, HUB_TIME_KEPT, LISTENER_DOUBT};

#[derive(Debug)]
pub(super) struct Own {
    /// Somebody looks after it.
    tended: bool,
    synchronised: bool,
    /// The first of a pair, and the last confirmed.
    heard: Option<(i64, Instant)>,
    confirmed: Option<(i64, Instant)>,
    /// Confirmed in an earlier run.
    before: Option<i64>,
    kept_at: Option<Instant>,
    /// The hub's certificate was taken although its dates do not fit; when one of a sender was.
    hub_forgiven: bool,
    sender_forgiven: Option<Instant>,
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Own {
    pub const UNTENDED: Self = Self {
        tended: false,
        synchronised: false,
        heard: None,
        confirmed: None,
        before: None,
        kept_at: None,
        hub_forgiven: false,
        sender_forgiven: None,
    };

    pub fn tend(&mut self, before: Option<i64>) {
        (self.tended, self.before) = (true, before.filter(|at| *at >= RELEASED_AT_MS));
    }

    pub fn synchronised(&mut self, synchronised: bool) {
        self.synchronised = synchronised;
    }

    pub fn hear(&mut self, unix_ms: i64, now: Instant) {
        if unix_ms < RELEASED_AT_MS || self.hub_forgiven {
            return; // a hub without a clock, or one that is not verified as it should be
        }
        let Some((first, at)) = self.heard else {
            self.heard = Some((unix_ms, now));
            return;
        };
        let apart = now.saturating_duration_since(at);
        let fits = (unix_ms - first - ms(apart)).abs() <= ms(HUB_TIME_JITTER);
        if fits && apart < HUB_TIME_APART {
            return; // too early to say; the first stays
        }
        if fits {
            self.confirmed = Some((unix_ms, now));
        }
        self.heard = Some((unix_ms, now));
    }

    /// The hub's time now, where it was confirmed in this run.
    fn confirmed(&self, now: Instant) -> Option<i64> {
        self.confirmed.map(|(unix_ms, at)| unix_ms.saturating_add(ms(now.saturating_duration_since(at))))
    }

    fn agrees(&self, system: i64, now: Instant) -> Option<bool> {
        self.confirmed(now).map(|hub| (hub - system).abs() <= ms(CLOCK_TOLERANCE))
    }

    /// Dates count by the system's clock.
    pub fn believed(&self, system: i64, now: Instant) -> bool {
        system >= RELEASED_AT_MS && (!self.tended || self.synchronised || self.agrees(system, now) == Some(true))
    }

    /// What the hub says instead.
    pub fn contradicted(&self, system: i64, now: Instant) -> Option<i64> {
        let contradicts = !self.synchronised && self.agrees(system, now) == Some(false);
        self.confirmed(now).filter(|_| contradicts)
    }

    /// What is written down by the system's clock must say that it may be wrong.
    pub fn suspect(&self, system: i64, now: Instant) -> bool {
        self.contradicted(system, now).is_some() || self.hub_forgiven && !self.believed(system, now)
    }

    /// The time to check a certificate at, and another one where its dates do not fit by that.
    pub fn times(&self, system: i64, now: Instant) -> (i64, Option<i64>) {
        if self.believed(system, now) {
            return (system, None);
        }
        match self.confirmed(now) {
            Some(hub) => (hub, None),
            None => (system.max(self.before.unwrap_or(RELEASED_AT_MS)), self.before),
        }
    }

    /// The hub's certificate was checked.
    pub fn hub_checked(&mut self, forgiven: bool) {
        self.hub_forgiven = forgiven;
    }

    /// A sender's was, and only by forgiving its dates.
    pub fn sender_forgiven(&mut self, now: Instant) {
        self.sender_forgiven = Some(now);
    }

    pub fn doubt(&self, system: i64, now: Instant) -> Option<String> {
        if let Some(hub) = self.contradicted(system, now) {
            let (hub, system) = (rfc3339(hub), rfc3339(system));
            return Some(format!(
                "the system's clock says {system}, the hub {hub}, and nothing keeps the clock right; check time synchronisation"
            ));
        }
        if self.believed(system, now) {
            return None;
        }
        let whose = if self.hub_forgiven {
            "the hub's certificate"
        } else if self.sender_forgiven.is_some_and(|at| now.saturating_duration_since(at) < LISTENER_DOUBT) {
            "a sender's certificate"
        } else {
            return None;
        };
        Some(format!(
            "by the system's clock {whose} has ended or has not begun, and nothing keeps the clock right: it was taken all the same; check time \
             synchronisation, and the certificate's dates"
        ))
    }

    /// The confirmed time, now and then.
    pub fn due_for_keeping(&mut self, now: Instant) -> Option<i64> {
        let confirmed = self.confirmed(now)?;
        if self.kept_at.is_some_and(|at| now.saturating_duration_since(at) < HUB_TIME_KEPT) {
            return None;
        }
        self.kept_at = Some(now);
        Some(confirmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = RELEASED_AT_MS + 30 * DAY;
    const DAY: i64 = 24 * 3_600_000;

    fn tended(before: Option<i64>) -> Own {
        let mut own = Own::UNTENDED;
        own.tend(before);
        own
    }

    /// Two receipts, as far apart by the hub as by us.
    fn confirm(own: &mut Own, unix_ms: i64, at: Instant) -> Instant {
        own.hear(unix_ms, at);
        let later = at + HUB_TIME_APART;
        own.hear(unix_ms + ms(HUB_TIME_APART) + 200, later);
        later
    }

    #[test]
    fn a_clock_that_is_kept_right_or_that_the_hub_agrees_with_is_believed() {
        let start = Instant::now();
        let mut own = tended(None);
        assert!(!own.believed(NOW, start), "nobody says that it is right");
        own.synchronised(true);
        assert!(own.believed(NOW, start) && !own.believed(RELEASED_AT_MS - 1, start));
        own.synchronised(false);
        let later = confirm(&mut own, NOW, start);
        assert!(own.believed(NOW + ms(HUB_TIME_APART), later));
        assert!(own.believed(NOW + DAY, later + Duration::from_hours(24)), "the monotonic clock carries it on");
        assert!(Own::UNTENDED.believed(NOW, start), "a tool goes by the system's clock");
    }

    /// I10: ten years either way.
    #[test]
    fn a_clock_that_the_hub_contradicts_is_suspect_and_its_certificates_are_judged_by_the_hubs_time() {
        let start = Instant::now();
        for wrong in [NOW + 3650 * DAY, NOW - 29 * DAY, 0] {
            let mut own = tended(None);
            assert!(own.contradicted(wrong, start).is_none());
            let later = confirm(&mut own, NOW, start);
            assert!(!own.believed(wrong, later) && own.contradicted(wrong, later).is_some());
            assert!((own.times(wrong, later).0 - NOW).abs() < 60_000);
            assert!(own.doubt(wrong, later).unwrap().contains("the hub 2026-12-01"));
            own.synchronised(true);
            assert!(own.contradicted(wrong, later).is_none(), "what keeps the clock right knows better");
        }
    }

    /// A broker may have kept receipts for days.
    #[test]
    fn receipts_that_waited_at_the_broker_confirm_nothing() {
        let start = Instant::now();
        let mut own = tended(None);
        for number in 0..100 {
            own.hear(NOW - 2 * DAY + number * 60_000, start + Duration::from_millis(number.unsigned_abs()));
        }
        assert_eq!(own.confirmed(start), None);
        let fresh = start + Duration::from_secs(60);
        own.hear(NOW, fresh);
        assert_eq!(own.confirmed(fresh), None, "one alone says nothing");
        own.hear(NOW + 60_000, fresh + Duration::from_secs(60));
        assert_eq!(own.confirmed(fresh + Duration::from_secs(61)), Some(NOW + 61_000));
    }

    #[test]
    fn before_the_hub_is_heard_the_last_time_it_confirmed_is_the_better_guess() {
        let start = Instant::now();
        let own = tended(Some(NOW));
        assert_eq!(own.times(0, start), (NOW, Some(NOW)));
        assert_eq!(own.times(NOW + DAY, start), (NOW + DAY, Some(NOW)), "an unkept clock may well be right");
        assert_eq!(tended(None).times(0, start), (RELEASED_AT_MS, None));
        assert_eq!(tended(Some(5)).before, None);
    }

    /// Whoever has an old key of the hub's must not set our clock.
    #[test]
    fn a_hub_whose_dates_were_forgiven_confirms_no_time() {
        let start = Instant::now();
        let mut own = tended(None);
        own.hub_checked(true);
        let later = confirm(&mut own, NOW, start);
        assert_eq!(own.confirmed(later), None);
        assert!(own.doubt(NOW, later).unwrap().contains("the hub's certificate"));
        own.hub_checked(false);
        assert_eq!(own.doubt(NOW, later), None);
        own.sender_forgiven(start);
        assert!(own.doubt(NOW, later).unwrap().contains("a sender's certificate"));
        assert_eq!(own.doubt(NOW, start + LISTENER_DOUBT), None);
    }

    /// I10: a new box, ten years ahead: nobody keeps its clock, the hub's certificate has ended by it, and such a hub confirms nothing.
    #[test]
    fn a_clock_by_which_the_hubs_certificate_had_to_be_forgiven_is_suspect_until_it_is_believed() {
        let (start, ahead) = (Instant::now(), NOW + 3650 * DAY);
        let mut own = tended(None);
        assert!(!own.suspect(ahead, start), "nothing speaks against it yet");
        own.hub_checked(true);
        let later = confirm(&mut own, NOW, start);
        assert!(own.contradicted(ahead, later).is_none() && own.suspect(ahead, later));
        own.synchronised(true);
        assert!(!own.suspect(ahead, later), "what keeps the clock right knows better");
        own.synchronised(false);
        own.hub_checked(false);
        assert!(!own.suspect(ahead, later));
    }

    #[test]
    fn what_is_confirmed_is_kept_at_once_and_then_now_and_then() {
        let start = Instant::now();
        let mut own = tended(None);
        assert_eq!(own.due_for_keeping(start), None);
        let later = confirm(&mut own, NOW, start);
        assert!(own.due_for_keeping(later).is_some());
        assert_eq!(own.due_for_keeping(later + Duration::from_secs(60)), None);
        assert!(own.due_for_keeping(later + HUB_TIME_KEPT).is_some());
    }
}
