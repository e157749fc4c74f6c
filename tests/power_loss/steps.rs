//! What a process does between opening and end: batches of appends, reads, marks, quarantine, with faults armed in between.

use harness::sim::model::{Losses, Step};
use harness::sim::{Errno, Op};
use siteward::contract::Mark;
use siteward::limits;
use siteward::record::{Chain, FeedId};
use siteward::spool::{AppendError, Durable, Item};

use super::history::History;
use super::{Check, all_feeds};

impl History {
    pub(super) fn step(&mut self) -> Check {
        if self.rng.percent(self.mix.faults) {
            let op =
                *self.rng.pick(&[Op::Write, Op::Sync, Op::Sync, Op::SetLen, Op::Create, Op::Rename, Op::Remove, Op::SyncDir, Op::Read]);
            let (after, times) = (self.rng.below(4), if self.rng.percent(80) { 1 } else { self.rng.between(2, 6) });
            // A sector that fails again and again is damage, which this model does not play.
            let times = if op == Op::Read { 1 } else { times };
            if op == Op::Read && self.disk.is_armed(op) {
                return Ok(());
            }
            let errno = if op == Op::Create && self.rng.percent(50) { Errno::NoSpace } else { Errno::Io };
            self.disk.fail(op, after, times, errno);
            self.note(format!("{op:?} will fail {times}x after {after}"));
        }
        if self.mix.reshaping > 0 && self.rng.percent(8) {
            return self.configure();
        }
        match self.rng.below(100) {
            0..50 => self.append(),
            50..72 => self.read(),
            72..86 => {
                self.settle();
                Ok(())
            }
            86..95 => {
                let now = self.rng.percent(80);
                self.parts.as_mut().expect("open").reader.sync_marks(now);
                self.note(format!("sync marks {now}"));
                Ok(())
            }
            95..98 => self.quarantine(),
            _ => self.bogus_marks(),
        }
    }

    /// Feeds come, go and move while the spool is open. A change that is refused has changed nothing.
    pub(super) fn configure(&mut self) -> Check {
        let (feeds, retired) = (self.feeds.clone(), self.retired.clone());
        let next = all_feeds().into_iter().find(|(id, _)| !self.feeds.iter().any(|(known, _)| known == id));
        match next {
            Some(feed) if self.rng.percent(30) => {
                self.note(format!("{} is new", feed.0));
                self.feeds.push(feed);
            }
            _ => self.reshape(),
        }
        let (wanted, failed) = (self.options().feeds, self.disk.failed());
        let configured = self.parts.as_mut().expect("open").committer.configure(&wanted);
        self.note(format!("configure: {}", configured.is_ok()));
        match configured {
            Ok(()) => {
                for (id, _) in &self.feeds {
                    self.ledger.feeds.entry(id.clone()).or_default();
                }
                Ok(())
            }
            Err(error) if self.disk.is_frozen() || self.disk.failed() > failed => {
                self.note(error.to_string());
                (self.feeds, self.retired) = (feeds, retired);
                Ok(())
            }
            Err(error) => Err(format!("not configured on a healthy disk: {error}")),
        }
    }

    pub(super) fn length(&mut self) -> usize {
        let rng = &mut self.rng;
        let (low, high) = match rng.below(100) {
            n if n < self.mix.large / 6 => (300_000, 1_400_000),
            n if n < self.mix.large => (20_000, 200_000),
            n if n < 40 => (8, 100),
            _ => (100, 3000),
        };
        rng.between(low, high) as usize
    }

    pub(super) fn append(&mut self) -> Check {
        let count = if self.rng.percent(70) { self.rng.between(1, 4) } else { self.rng.between(5, 16) };
        let (mut batch, mut sent) = (Vec::new(), Vec::new());
        let parts = self.parts.as_ref().expect("open");
        let (failed, incarnation) = (self.disk.failed(), parts.monitor.view().incarnation);
        let complete = self.board.conditions().iter().all(|c| c.code != "dedupe_incomplete" && c.code != "state_unavailable");
        for _ in 0..count {
            let feed = self.rng.pick(&self.feeds).0.clone();
            let known: Vec<u64> = self.ledger.sent.iter().filter(|(_, s)| s.feed == feed).map(|(id, _)| *id).collect();
            let (len, named) = (self.length(), self.rng.percent(80));
            let again = !known.is_empty() && self.rng.percent(15);
            let id = if again { *self.rng.pick(&known) } else { self.ledger.compose(&feed, len, named) };
            let was_answered = self.ledger.sent[&id].answered && self.ledger.sent[&id].identity.is_some();
            batch.push(self.ledger.send(id));
            sent.push((id, self.ledger.sent[&id].times, was_answered));
        }
        let answers = self.parts.as_mut().expect("open").committer.commit(batch);
        let mut word = "append";
        for ((id, time, was_answered), answer) in sent.into_iter().zip(&answers) {
            let feed = self.ledger.sent[&id].feed.clone();
            let outcome = match answer {
                Ok(d) => format!("{}b->{feed}:{}{}", self.ledger.sent[&id].len, d.seq(), if d.is_duplicate() { "dup" } else { "" }),
                Err(error) => format!("->{feed} refused({})", error.to_string().chars().take(40).collect::<String>()),
            };
            self.log.push(format!("{word} {id}/{outcome}"));
            word = "      ";
            self.ledger.answered(id, time, incarnation, answer)?;
            self.judge_refusal(&feed, answer, failed)?;
            if let (Ok(durable), true) = (answer, was_answered && complete && self.dedupe_strict)
                && !durable.is_duplicate()
            {
                return Err(format!("message {id} was answered before and is not recognised"));
            }
        }
        self.check_heads()
    }

    /// A refusal has a reason.
    pub(super) fn judge_refusal(&self, feed: &FeedId, answer: &Result<Durable, AppendError>, failed: u64) -> Check {
        let view = self.parts.as_ref().expect("open").monitor.view();
        let trouble = self.disk.is_frozen() || self.disk.failed() > failed;
        match answer {
            Ok(_) => Ok(()),
            Err(AppendError::Store(_)) if trouble => Ok(()),
            Err(AppendError::Full(_)) if trouble || view.bytes + 5 * limits::MIB > view.max_bytes => Ok(()),
            Err(AppendError::UnknownFeed(_)) if self.retired.as_ref() == Some(feed) => Ok(()),
            Err(error) => Err(format!("{feed} was refused on a healthy disk with {} of {} bytes: {error}", view.bytes, view.max_bytes)),
        }
    }

    /// The head is the last record there is, not one more and not one less.
    pub(super) fn check_heads(&mut self) -> Check {
        let reader = &self.parts.as_ref().expect("open").reader;
        for (feed, model) in &self.ledger.feeds {
            let known = model.records.keys().chain(model.gaps.keys()).max().copied().unwrap_or(0);
            let head = reader.head(feed).seq;
            if known > 0 && head != known {
                return Err(format!("the head of {feed} is {head}, the last record {known}"));
            }
        }
        Ok(())
    }

    pub(super) fn some_feed(&mut self) -> FeedId {
        self.rng.pick(&self.feeds).0.clone()
    }

    pub(super) fn cursor(&self, feed: &FeedId) -> Mark {
        self.cursors.get(feed).copied().unwrap_or(Mark { seq: 0, chain: Chain::GENESIS })
    }

    pub(super) fn read(&mut self) -> Check {
        let (feed, limit) = (self.some_feed(), self.rng.between(1, 30) as usize);
        let reader = &mut self.parts.as_mut().expect("open").reader;
        let mut from = self.cursors.get(&feed).copied().unwrap_or(Mark { seq: 0, chain: Chain::GENESIS });
        if self.rng.percent(15) {
            from = reader.settled(&feed);
        }
        let failed = self.disk.failed();
        match self.ledger.walk(reader, &feed, from, limit) {
            Ok((steps, mark)) => {
                self.cursors.insert(feed.clone(), mark);
                self.note(format!("read {feed} {}..={} ({})", from.seq, mark.seq, steps.len()));
                for step in steps {
                    if let Step::Gap { first, last } = step {
                        self.ledger.feeds[&feed].may_miss(first, last, Losses::None)?;
                    }
                }
                Ok(())
            }
            Err(error) if error.contains("reading after") && (self.disk.is_frozen() || self.disk.failed() > failed) => {
                self.note(format!("read {feed}: {error}"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn settle(&mut self) {
        let feed = self.some_feed();
        let cursor = self.cursor(&feed);
        let settled = self.parts.as_ref().expect("open").reader.settled(&feed);
        if cursor.seq <= settled.seq {
            return;
        }
        let seq = if self.rng.percent(50) { cursor.seq } else { self.rng.between(settled.seq + 1, cursor.seq) };
        let Some(chain) = self.ledger.feeds[&feed].records.get(&seq).and_then(|known| known.chain) else { return };
        let reader = &mut self.parts.as_mut().expect("open").reader;
        self.ledger.settle(reader, &feed, Mark { seq, chain });
        self.note(format!("settle {feed} {seq}"));
    }

    pub(super) fn bogus_marks(&mut self) -> Check {
        let feed = self.some_feed();
        let reader = &mut self.parts.as_mut().expect("open").reader;
        let (before, head) = (reader.settled(&feed), reader.head(&feed).seq);
        reader.settle(&feed, Mark { seq: head + 1 + self.rng.below(5), chain: Chain([7; 32]) });
        reader.settle(&feed, Mark { seq: before.seq.saturating_sub(1), chain: Chain([7; 32]) });
        if reader.settled(&feed) == before { Ok(()) } else { Err(format!("a mark beyond the head or behind moved {feed}")) }
    }

    /// A copy in quarantine is safe before the record may be settled.
    pub(super) fn quarantine(&mut self) -> Check {
        let feed = self.some_feed();
        let from = self.cursor(&feed);
        let failed = self.disk.failed();
        let directory = self.root.join("journal").join("quarantine");
        let before = self.disk.unsynced(&directory);
        let parts = self.parts.as_mut().expect("open");
        let Ok(Some(Item::Record(record))) = parts.reader.next(&feed, from.seq) else { return Ok(()) };
        let done = parts.reader.quarantine(&record, "no_profile");
        self.note(format!("quarantine {feed} {}: {}", record.seq, done.is_ok()));
        if done.is_ok() && self.disk.failed() == 0 {
            let mut unsafe_yet = self.disk.unsynced(&directory);
            unsafe_yet.retain(|what| !before.contains(what) || !what.starts_with("content"));
            if !unsafe_yet.is_empty() {
                return Err(format!("I2: quarantine said done, but a power cut would take away {unsafe_yet:?}"));
            }
        }
        let trouble = self.disk.is_frozen() || self.disk.failed() > failed;
        if done.is_err() && !trouble {
            let reason = done.map_err(|error| error.to_string());
            if !matches!(&reason, Err(text) if text.contains("full")) {
                return Err(format!("quarantine failed on a healthy disk: {reason:?}"));
            }
        }
        Ok(())
    }
}
