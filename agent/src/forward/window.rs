//! Window: everything published that the broker has not answered, and who may publish more.
//!
//! Bounded three ways (I4): the number of publishes (what `Up` said), the bytes of outcomes among them, and each lane's part of both. Control
//! publishes (status, checkpoints) are exempt from bytes and parts, and have places of their own, so a full window of events cannot hold back
//! the checkpoint whose receipt would empty it. A lane with nothing in flight may always have one outcome there, whatever its size, so a large
//! record cannot wait for ever.
//!
//! A token leaves the window when the broker answers or the connection ends, also when the feed has long gone back behind its record.

use std::collections::HashMap;

use crate::limits::{CONTROL_RESERVE, IN_FLIGHT_BYTES_MAX, LANE_WINDOW_PERCENT};
use crate::record::Lane;

/// What was published under a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flight {
    Status,
    /// Link `link` of a feed's lineage.
    Open {
        feed: usize,
        link: usize,
    },
    Head {
        feed: usize,
    },
    /// The outcome that begins at `first`; `event` is false for exceptions and gaps.
    Mail {
        letter: u64,
    },
    Outcome {
        feed: usize,
        first: u64,
        lane: Lane,
        bytes: usize,
        event: bool,
    },
}

#[derive(Debug)]
pub struct Window {
    places: usize,
    flights: HashMap<u64, Flight>,
    /// Outcomes in flight, by lane.
    count: [usize; 3],
    bytes: [usize; 3],
}

impl Window {
    pub fn new(places: usize) -> Self {
        Self { places: places.max(1), flights: HashMap::new(), count: [0; 3], bytes: [0; 3] }
    }

    /// Places that outcomes may take.
    fn outcome_places(&self) -> usize {
        if self.places > 4 { self.places - CONTROL_RESERVE } else { (self.places - 1).max(1) }
    }

    pub fn admits_control(&self) -> bool {
        self.flights.len() < self.places
    }

    /// A control publish is free to go, and so is an outcome of `lane`.
    pub fn admits(&self, lane: Lane) -> bool {
        let all = self.outcomes();
        if !self.admits_control() || all >= self.outcome_places() {
            return false;
        }
        let (count, bytes) = (self.count[lane.index()], self.bytes[lane.index()]);
        if count == 0 {
            return true;
        }
        let part = |of: usize| if lane == Lane::Critical { of } else { of * LANE_WINDOW_PERCENT / 100 };
        count < part(self.places) && bytes < part(IN_FLIGHT_BYTES_MAX) && self.bytes.iter().sum::<usize>() < IN_FLIGHT_BYTES_MAX
    }

    pub fn enter(&mut self, token: u64, flight: Flight) {
        if let Flight::Outcome { lane, bytes, .. } = flight {
            self.count[lane.index()] += 1;
            self.bytes[lane.index()] += bytes;
        }
        let before = self.flights.insert(token, flight);
        assert!(before.is_none(), "a token is given once");
    }

    /// The token was answered or not taken; `None` where it belongs to an earlier connection.
    pub fn leave(&mut self, token: u64) -> Option<Flight> {
        let flight = self.flights.remove(&token)?;
        if let Flight::Outcome { lane, bytes, .. } = flight {
            self.count[lane.index()] -= 1;
            self.bytes[lane.index()] -= bytes;
        }
        Some(flight)
    }

    /// Feed and first seq of what was published under a token, where it is an outcome.
    pub fn outcome(&self, token: u64) -> Option<(usize, u64)> {
        match self.flights.get(&token)? {
            Flight::Outcome { feed, first, .. } => Some((*feed, *first)),
            _ => None,
        }
    }

    pub fn outcomes(&self) -> usize {
        self.count.iter().sum()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lane: Lane, bytes: usize) -> Flight {
        Flight::Outcome { feed: 0, first: 1, lane, bytes, event: true }
    }

    fn fill(window: &mut Window, lane: Lane, bytes: usize) -> usize {
        let mut entered = 0;
        while window.admits(lane) {
            window.enter(window.len() as u64, outcome(lane, bytes));
            entered += 1;
        }
        entered
    }

    #[test]
    fn no_lane_but_critical_holds_more_than_three_quarters() {
        let mut window = Window::new(100);
        assert_eq!(fill(&mut window, Lane::Bulk, 1), 75);
        assert_eq!(fill(&mut window, Lane::Critical, 1), 23);
        assert_eq!(fill(&mut Window::new(100), Lane::Critical, 1), 98);
    }

    #[test]
    fn events_leave_places_for_control_publishes() {
        for (places, outcomes) in [(1, 1), (2, 1), (4, 3), (5, 3), (10, 8)] {
            let mut window = Window::new(places);
            assert_eq!(fill(&mut window, Lane::Critical, 1), outcomes, "{places} places");
            assert_eq!(window.admits_control(), places > 1);
        }
    }

    /// I4: bytes in flight are bounded, yet a record larger than the bound can go.
    #[test]
    fn bytes_in_flight_are_bounded_and_a_large_record_still_goes() {
        let mut window = Window::new(1000);
        assert_eq!(fill(&mut window, Lane::Critical, IN_FLIGHT_BYTES_MAX / 4), 4);
        assert!(window.admits(Lane::Bulk), "a lane with nothing in flight may have one");
        assert_eq!(fill(&mut window, Lane::Bulk, IN_FLIGHT_BYTES_MAX * 4), 1);
        assert_eq!(fill(&mut window, Lane::Normal, 1), 1);
    }

    #[test]
    fn a_token_of_an_earlier_connection_is_nobodys() {
        let mut window = Window::new(10);
        window.enter(7, outcome(Lane::Normal, 5));
        assert!(window.leave(8).is_none());
        assert_eq!(window.leave(7), Some(outcome(Lane::Normal, 5)));
        assert!(window.is_empty());
        assert_eq!(window.outcomes(), 0);
    }
}
