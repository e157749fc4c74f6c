//! Reading the dedupe window back from the journal, newest segments first, a few records at a time.

use std::collections::BTreeMap;

use super::chunk::Chunks;
use super::format;
use super::index::Shared;
use super::key::{Fingerprint, Sealer};
use super::scan::Scan;
use super::window::Window;
use crate::record::{FeedId, Incarnation, Lane};

/// Records looked at per step.
const RECORDS_PER_STEP: usize = 256;

/// What is still to be read back.
#[derive(Debug)]
pub struct Rebuild {
    /// Per feed: what is above this seq is wanted.
    above: BTreeMap<FeedId, u64>,
    /// Segments to read, the newest last (they are popped).
    segments: Vec<(Lane, u64)>,
    current: Option<Current>,
    is_untouched: bool,
}

#[derive(Debug)]
struct Current {
    scan: Scan,
    sealer: Sealer,
    incarnation: Incarnation,
    end: u64,
}

impl Rebuild {
    /// `segments` with the newest last.
    pub fn new(above: BTreeMap<FeedId, u64>, segments: Vec<(Lane, u64)>) -> Self {
        Self { above, segments, current: None, is_untouched: true }
    }

    /// Whether no step was made yet.
    pub fn is_untouched(&self) -> bool {
        self.is_untouched
    }

    /// Reads some records that `window` does not know. False when there is nothing more.
    pub fn step(&mut self, shared: &Shared, window: &Window) -> (bool, BTreeMap<FeedId, Chunks>) {
        self.is_untouched = false;
        let mut read: BTreeMap<FeedId, Chunks> = BTreeMap::new();
        if self.current.is_none() && !self.open_next(shared) {
            return (false, read);
        }
        for _ in 0..RECORDS_PER_STEP {
            let Some(current) = &mut self.current else { break };
            let Ok(Some(located)) = current.scan.next(current.end) else {
                self.current = None;
                break;
            };
            let header = &located.header;
            let Ok(feed) = FeedId::new(&header.feed) else { continue };
            let has_identity = header.flags & format::FLAG_HAS_IDENTITY != 0;
            let print = Fingerprint { identity: header.identity_fingerprint, body: header.body_fingerprint };
            let is_wanted = self.above.get(&feed).is_some_and(|above| header.seq > *above)
                && !(has_identity && window.find(&feed, &print).message.is_some_and(|seq| seq >= header.seq));
            if !is_wanted {
                continue;
            }
            if !has_identity {
                read.entry(feed).or_default().extend(header.seq, current.incarnation);
            } else if let Ok(body) = current.scan.body(&current.sealer, &located) {
                // A damaged one is not remembered: its resend must be stored.
                read.entry(feed).or_default().push(header.seq, current.incarnation, Some(print), body.reply());
            }
        }
        (self.current.is_some() || !self.segments.is_empty(), read)
    }

    /// False when no segment is left. One that was released meanwhile, or cannot be opened, is passed over: its messages are not recognised again.
    fn open_next(&mut self, shared: &Shared) -> bool {
        while let Some((lane, ordinal)) = self.segments.pop() {
            let Some(segment) = shared.index().lanes[lane.index()].get(&ordinal).cloned() else { continue };
            if let Ok(file) = shared.open_read(&segment.path) {
                let scan = Scan::new(file, segment.id, format::DATA_START);
                let sealer = shared.key.sealer(&segment.id);
                self.current = Some(Current { scan, sealer, incarnation: segment.incarnation, end: segment.durable_end });
                return true;
            }
        }
        false
    }
}
