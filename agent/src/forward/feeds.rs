//! Feeds that come, go and move while the forwarder runs.
//!
//! The journal says which feeds there are, in which lane, and which of them only drain; the configuration how their messages are to be read.
//! [`Shell::take_up_feeds`] brings the core in line with both. It takes no argument and may be called at any time: at start, when either has
//! changed, and for a change that was half made. Indices never change: a feed that is gone stays in its place and says nothing (`Feed::is_done`),
//! and goes on there when it comes back.
//!
//! A retired feed is sent as before, in the character set and lane it had last, and has the condition `feed_retired` until all of it is settled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::feed::FeedStart;
use super::shell::Shell;
use crate::record::{FeedId, Lane, Record};
use crate::source::charset;
use crate::spool::FeedInfo;
use crate::status::board::FeedCounters;
use crate::status::condition::Code;
use crate::uplink::Outgoing;

/// What the shell knows of a feed; same index as in the core.
#[derive(Debug)]
pub(super) struct FeedFacts {
    pub id: FeedId,
    pub lane: Lane,
    pub charset: charset::Rule,
    pub retired: bool,
    pub counters: Arc<FeedCounters>,
}

impl Shell {
    /// Brings the feeds in line with the journal and the configuration.
    pub(super) fn take_up_feeds(&mut self, now: Instant) {
        self.shape = self.reader.shape();
        let configured = self.configured.borrow_and_update().clone();
        let mut there: BTreeMap<FeedId, FeedInfo> = self.reader.feeds().into_iter().map(|info| (info.id.clone(), info)).collect();
        let charset = |id: &FeedId| configured.iter().find(|feed| feed.id == *id).map(|feed| feed.charset);
        for index in 0..self.feeds.len() {
            // One that is not there any more has drained.
            let info = there.remove(&self.feeds[index].id);
            let facts = &mut self.feeds[index];
            facts.charset = charset(&facts.id).unwrap_or(facts.charset);
            let (lane, retired) = info.map_or((facts.lane, true), |info| (info.lane, info.retired));
            self.reshape(index, lane, retired);
        }
        for (id, info) in there {
            let start = FeedStart {
                settled: self.reader.settled(&id),
                head: self.reader.head(&id),
                lineage: self.reader.lineage(&id),
                lane: info.lane,
                id: id.clone(),
            };
            let index = self.core.add(start, now);
            let (charset, counters) = (charset(&id).unwrap_or_default(), self.board.feed(&id));
            self.feeds.push(FeedFacts { id, lane: info.lane, charset, retired: false, counters });
            assert_eq!(index + 1, self.feeds.len(), "core and shell number feeds alike");
            self.reshape(index, info.lane, info.retired);
        }
    }

    fn reshape(&mut self, index: usize, lane: Lane, retired: bool) {
        let facts = &mut self.feeds[index];
        (facts.lane, facts.retired) = (lane, retired);
        let drains = self.reader.settled(&facts.id).seq < self.reader.head(&facts.id).seq;
        if retired && drains {
            let text = "no longer configured, but records of it are not confirmed by the hub yet: they are still being sent";
            self.board.raise(Code::FeedRetired, facts.id.as_str(), text);
        } else {
            self.board.clear(Code::FeedRetired, facts.id.as_str());
        }
        self.core.reshape(index, lane, retired);
    }

    /// A record out of quarantine, as it would have gone.
    pub(super) fn released(&self, token: u64, record: &Record) -> Outgoing {
        let facts = self.feeds.iter().find(|facts| facts.id == record.feed);
        let (lane, charset) = facts.map_or((Lane::Normal, charset::Rule::default()), |facts| (facts.lane, facts.charset));
        self.publisher.event(token, lane, charset, record)
    }
}
