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
        self.feeds.retain(|id, _| {
            let stays = feeds.iter().any(|feed| feed.id == *id);
            if !stays {
                board.clear(Code::DocumentSuspect, id.as_str());
            }
            stays
        });
        for feed in feeds {
            let total = board.feed(&feed.id).quarantined.load(Ordering::Relaxed);
            let suspect = self.feeds.entry(feed.id.clone()).or_insert_with(|| Suspect::new(now_ms, total));
            match suspect.observe(now_ms, total) {
                Some(suspicion) => board.raise(Code::DocumentSuspect, feed.id.as_str(), suspicion.to_string()),
                None => board.clear(Code::DocumentSuspect, feed.id.as_str()),
            }
        }
    }

    /// Begins to compare when a revision is committed. What ran at the start is not new, and neither is what a rollback went back to.
    pub fn follow(&mut self, machine: &Machine, now_ms: u64, feeds: &[FeedSettings], board: &Board) {
        let revision = machine.committed().0.revision();
        let is_new = revision > self.followed
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::record::DocumentDigest;
    use crate::rollout::ledger::Ledger;
    use crate::rollout::{ConfirmBy, Facts, Found, Generation, Meta, Now, Stamp};

    fn feeds() -> Vec<FeedSettings> {
        let text = "[gateway]\nsite=\"s\"\nid=\"g\"\ntimezone=\"UTC\"\n[uplink]\nendpoints=[\"mqtt://h:1\"]\nallow_plaintext=true\n\
                    [[feed]]\nid=\"lab\"\nforward=\"raw\"\nphi=\"allowed\"\n[feed.mllp]\nlisten=\"127.0.0.1:2575\"\n";
        config::parse_text(std::path::Path::new("/etc/t.toml"), text).unwrap_or_else(|faults| panic!("{faults}")).feeds
    }

    fn committed(revision: u64) -> Machine {
        let now = Now { mono_ms: 0, wall: Stamp { unix_ms: 0, suspect: false } };
        let meta = Meta::new("kim", None, "test", None);
        let digest = DocumentDigest([revision as u8; 32]);
        let mut ledger = Ledger::fresh(now.wall);
        ledger.committed = Generation::Document(Facts { revision, digest, trial_s: 60, confirm: ConfirmBy::Bound, meta });
        Machine::boot(Found::Ledger(Box::new(ledger)), now).0
    }

    fn is_suspect(board: &Board) -> bool {
        board.conditions().iter().any(|condition| condition.code == Code::DocumentSuspect.as_str())
    }

    /// Going back is no commit: what ran before is not compared with the hour in which its successor filled the quarantine.
    #[test]
    fn only_a_newer_revision_is_watched_and_a_feed_that_is_gone_leaves_no_suspicion() {
        let feeds = feeds();
        let board = Board::new(feeds.iter().map(|feed| feed.id.clone()));
        let quarantined = |n: u64| board.feed(&feeds[0].id).quarantined.store(n, Ordering::Relaxed);
        let mut watch = QuarantineWatch::default();
        watch.follow(&committed(5), 0, &feeds, &board);
        watch.look(0, &feeds, &board);
        watch.taken_back();
        watch.follow(&committed(4), 1, &feeds, &board);
        quarantined(50);
        watch.look(2, &feeds, &board);
        assert!(!is_suspect(&board), "revision 4 was not committed now");
        watch.follow(&committed(6), 3, &feeds, &board);
        quarantined(50 + 6 * 50);
        watch.look(4, &feeds, &board);
        assert!(is_suspect(&board));
        watch.look(5, &[], &board);
        assert!(!is_suspect(&board), "its feed is gone");
    }
}
