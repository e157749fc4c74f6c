//! After a commit: does much more go to quarantine than before? One counter per feed (see `suspect`), and the condition `document_suspect`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::machine::{Machine, RunState};
use super::suspect::Suspect;
use crate::config::settings::FeedSettings;
use crate::record::FeedId;
use crate::status::board::Board;
use crate::status::condition::Code;

#[derive(Debug, Default)]
pub struct QuarantineWatch {
    feeds: BTreeMap<FeedId, Suspect>,
    /// The revision whose commit was seen last.
    followed: u64,
}

impl QuarantineWatch {
    /// Looks at every feed's counter.
    pub fn look(&mut self, now_ms: u64, feeds: &[FeedSettings], board: &Board) {
        self.feeds.retain(|id, _| feeds.iter().any(|feed| feed.id == *id));
        for feed in feeds {
            let total = board.feed(&feed.id).quarantined.load(Ordering::Relaxed);
            let suspect = self.feeds.entry(feed.id.clone()).or_insert_with(|| Suspect::new(now_ms, total));
            match suspect.observe(now_ms, total) {
                Some(suspicion) => board.raise(Code::DocumentSuspect, feed.id.as_str(), suspicion.to_string()),
                None => board.clear(Code::DocumentSuspect, feed.id.as_str()),
            }
        }
    }

    /// Begins to compare when a revision is committed. What ran at the start is not new.
    pub fn follow(&mut self, machine: &Machine, now_ms: u64, feeds: &[FeedSettings], board: &Board) {
        let revision = machine.committed().0.revision();
        let is_new = revision != self.followed
            && !self.feeds.is_empty()
            && matches!(machine.run_state(), RunState::Committed | RunState::CommittedLocal);
        self.followed = if matches!(machine.run_state(), RunState::Staged | RunState::Trial) { self.followed } else { revision };
        if is_new {
            self.look(now_ms, feeds, board);
            for (id, suspect) in &mut self.feeds {
                suspect.committed(now_ms, board.feed(id).quarantined.load(Ordering::Relaxed), revision);
            }
        }
    }

    /// What was committed was taken back.
    pub fn taken_back(&mut self) {
        self.feeds.values_mut().for_each(Suspect::taken_back);
    }
}
