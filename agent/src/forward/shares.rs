//! Shares: which feed publishes next.
//!
//! Lanes share the uplink by bytes (critical 70, normal 25, bulk 5) and work-conserving: what one lane does not use the others get. Each lane
//! has a virtual clock that advances by `bytes / share` when it publishes; the ready lane whose clock is furthest behind goes next. A lane that
//! was idle, or held back by its part of the window, starts at the present virtual time, so it cannot save up credit and then push the others
//! aside. The price is charged after the record was read, so nothing has to be read ahead to know its size. (This is deficit round robin with
//! the debt carried by the clocks instead of by counters, without its loop.)
//!
//! Within a lane feeds take turns. Only feeds that can publish now are looked at, so nothing here can spin.

use crate::limits::LANE_SHARES;
use crate::record::Lane;

/// Common multiple of the shares: a byte advances a lane's clock by `SCALE / share`.
const SCALE: u64 = 350;

#[derive(Debug)]
pub struct Shares {
    /// The feeds of each lane, by their index.
    feeds: [Vec<usize>; 3],
    /// Where each lane's turn is.
    turn: [usize; 3],
    clock: [u64; 3],
    now: u64,
}

impl Shares {
    /// `lanes[i]` is the lane of feed `i`.
    pub fn new(lanes: impl IntoIterator<Item = Lane>) -> Self {
        let mut feeds: [Vec<usize>; 3] = Default::default();
        for (feed, lane) in lanes.into_iter().enumerate() {
            feeds[lane.index()].push(feed);
        }
        Self { feeds, turn: [0; 3], clock: [0; 3], now: 0 }
    }

    /// One more feed: its index is the next one.
    pub fn add(&mut self, feed: usize, lane: Lane) {
        self.feeds[lane.index()].push(feed);
    }

    /// The feed goes on in another lane; what the old one owes stays with the old one.
    pub fn move_to(&mut self, feed: usize, lane: Lane) {
        for feeds in &mut self.feeds {
            feeds.retain(|known| *known != feed);
        }
        self.add(feed, lane);
    }

    /// The feed that publishes next, of those that are `ready`, in the lanes that the window `admits`.
    pub fn pick(&mut self, admits: impl Fn(Lane) -> bool, ready: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(u64, usize, usize)> = None;
        for lane in Lane::ALL {
            let (index, tag) = (lane.index(), self.clock[lane.index()].max(self.now));
            if best.is_some_and(|(least, ..)| least <= tag) || !admits(lane) {
                continue;
            }
            let feeds = &self.feeds[index];
            if let Some(at) = (0..feeds.len()).map(|i| (self.turn[index] + i) % feeds.len()).find(|&at| ready(feeds[at])) {
                best = Some((tag, index, at));
            }
        }
        let (_, lane, at) = best?;
        self.turn[lane] = at + 1;
        Some(self.feeds[lane][at])
    }

    /// `lane` published `bytes`.
    pub fn charge(&mut self, lane: Lane, bytes: usize) {
        let (index, share) = (lane.index(), LANE_SHARES[lane.index()]);
        let tag = self.clock[index].max(self.now);
        self.now = tag;
        self.clock[index] = tag.saturating_add((bytes as u64).saturating_mul(SCALE / share));
    }
}

const _: () = assert!(SCALE.is_multiple_of(LANE_SHARES[0]) && SCALE.is_multiple_of(LANE_SHARES[1]) && SCALE.is_multiple_of(LANE_SHARES[2]));

#[cfg(test)]
mod tests {
    use super::*;

    fn published(shares: &mut Shares, ready: &[bool], sizes: &[usize], rounds: usize) -> Vec<u64> {
        let lanes = shares.feeds.clone();
        let lane_of = |feed| Lane::ALL.into_iter().find(|l| lanes[l.index()].contains(&feed)).unwrap();
        let mut bytes = vec![0; ready.len()];
        for _ in 0..rounds {
            let feed = shares.pick(|_| true, |f| ready[f]).unwrap();
            shares.charge(lane_of(feed), sizes[feed]);
            bytes[feed] += sizes[feed] as u64;
        }
        bytes
    }

    #[test]
    fn lanes_share_by_bytes_whatever_the_size_of_their_records() {
        let mut shares = Shares::new([Lane::Critical, Lane::Normal, Lane::Bulk]);
        let bytes = published(&mut shares, &[true; 3], &[700, 5_000, 40_000], 100_000);
        let total: u64 = bytes.iter().sum();
        for (lane, share) in LANE_SHARES.iter().enumerate() {
            let percent = bytes[lane] * 100 / total;
            assert!(percent.abs_diff(*share) <= 1, "lane {lane}: {percent} %");
        }
    }

    #[test]
    fn what_a_lane_does_not_use_the_others_get() {
        let mut shares = Shares::new([Lane::Critical, Lane::Normal, Lane::Bulk]);
        let bytes = published(&mut shares, &[false, false, true], &[1, 1, 1000], 50);
        assert_eq!(bytes, [0, 0, 50_000]);
        assert_eq!(shares.pick(|_| true, |_| false), None);
        assert_eq!(shares.pick(|lane| lane == Lane::Critical, |feed| feed != 0), None);
    }

    #[test]
    fn an_idle_lane_saves_no_credit() {
        let mut shares = Shares::new([Lane::Critical, Lane::Bulk]);
        published(&mut shares, &[false, true], &[1000, 1000], 1000);
        let bytes = published(&mut shares, &[true, true], &[1000, 1000], 150);
        assert!(bytes[1] >= 9_000, "bulk went on with its share: {bytes:?}");
    }

    #[test]
    fn a_feed_that_comes_or_moves_takes_its_turn_in_its_lane() {
        let mut shares = Shares::new([Lane::Normal; 2]);
        assert_eq!(shares.pick(|_| true, |_| true), Some(0));
        shares.add(2, Lane::Normal);
        shares.move_to(0, Lane::Bulk);
        let order: Vec<_> = (0..4).map(|_| shares.pick(|lane| lane == Lane::Normal, |_| true).unwrap()).collect();
        assert!(order == [1, 2, 1, 2] || order == [2, 1, 2, 1], "{order:?}");
        assert_eq!(shares.pick(|lane| lane == Lane::Bulk, |_| true), Some(0));
    }

    #[test]
    fn feeds_of_a_lane_take_turns() {
        let mut shares = Shares::new([Lane::Normal; 3]);
        let order: Vec<_> = (0..6).map(|_| shares.pick(|_| true, |feed| feed != 1).unwrap()).collect();
        assert_eq!(order, [0, 2, 0, 2, 0, 2]);
    }
}
