//! How long the broker may be silent. Pure: bytes and times in, a verdict out; asked a few times per stall limit.
//!
//! A publish is owed an answer within the stall limit; a ping that is answered does not count, or a broker that does nothing but answer pings
//! would never be noticed. `poll` itself returns at least once per keep alive, unless the line takes nothing.
//!
//! But a slow line that still takes bytes is not silence: a large message over a thin line may well take minutes, and giving up would only
//! start it anew, for ever.

use std::time::Duration;

use tokio::time::Instant;

use super::fault::Fault;
use crate::config::settings::Endpoint;

#[derive(Debug)]
pub(super) struct Patience {
    stall: Duration,
    stuck: Duration,
    /// When the connection came up.
    pub began: Instant,
    /// When rumqttc's `poll` last returned.
    pub returned: Instant,
    /// When a line with bytes waiting was last seen to take some.
    moved: Instant,
    sent: u64,
}

/// Why a connection is given up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Silence {
    Stalled { open: usize, after: Duration },
    Stuck,
}

impl Silence {
    pub(super) fn fault(&self, endpoint: &Endpoint) -> Fault {
        Fault::passing(match self {
            Self::Stalled { open, after } => {
                format!("{endpoint}: {open} publishes without an answer for {} s though the line is up; check the broker", after.as_secs())
            }
            Self::Stuck => format!("{endpoint}: the line takes no more bytes; check the WAN and the broker"),
        })
    }
}

impl Patience {
    /// A publish must be answered within `stall`, and `poll` return within `stuck`.
    pub(super) fn new(stall: Duration, stuck: Duration, now: Instant) -> Self {
        Self { stall, stuck, began: now, returned: now, moved: now, sent: 0 }
    }

    /// `sent`: bytes the line has taken; `writing`: more are waiting for it; `owing`: open publishes and since when.
    pub(super) fn check(&mut self, sent: u64, writing: bool, owing: Option<(usize, Instant)>, now: Instant) -> Option<Silence> {
        if writing && sent != self.sent {
            self.moved = now;
        }
        self.sent = sent;
        if let Some((open, since)) = owing.filter(|(open, _)| *open > 0)
            && now.duration_since(since.max(self.moved)) >= self.stall
        {
            return Some(Silence::Stalled { open, after: self.stall });
        }
        (now.duration_since(self.returned.max(self.moved)) >= self.stuck).then_some(Silence::Stuck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(30);
    const STUCK: Duration = Duration::from_mins(1);

    /// Asks every 10 s; when it is given up, and why. `sent` and `writing` by the second, as is when `poll` returned.
    fn given_up(sent: fn(u64) -> u64, writing: fn(u64) -> bool, returns: fn(u64) -> bool, owing: Option<usize>) -> Option<(u64, Silence)> {
        let start = Instant::now();
        let mut patience = Patience::new(STALL, STUCK, start);
        for second in (0..600).step_by(10) {
            let now = start + Duration::from_secs(second);
            if returns(second) {
                patience.returned = now;
            }
            if let Some(silence) = patience.check(sent(second), writing(second), owing.map(|open| (open, start)), now) {
                return Some((second, silence));
            }
        }
        None
    }

    #[test]
    fn a_publish_without_an_answer_ends_it_whatever_pings_say() {
        let stalled = Silence::Stalled { open: 3, after: STALL };
        assert_eq!(given_up(|second| 40 * (second / 30), |_| false, |_| true, Some(3)), Some((30, stalled)));
    }

    #[test]
    fn nothing_in_flight_is_no_silence() {
        assert_eq!(given_up(|_| 0, |_| false, |_| true, Some(0)), None);
        assert_eq!(given_up(|_| 0, |_| false, |_| true, None), None);
    }

    #[test]
    fn a_slow_line_is_given_time_while_it_moves_and_no_longer() {
        assert_eq!(given_up(|second| second * 1000, |_| true, |second| second == 0, Some(1)), None);
        let stops = given_up(|second| second.min(200) * 1000, |_| true, |second| second == 0, Some(1));
        assert_eq!(stops, Some((230, Silence::Stalled { open: 1, after: STALL })));
    }

    #[test]
    fn a_line_that_takes_nothing_is_stuck() {
        assert_eq!(given_up(|_| 7, |_| true, |second| second == 0, None), Some((60, Silence::Stuck)));
    }
}
