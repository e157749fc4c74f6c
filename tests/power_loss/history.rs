//! One history: opening (also through crashes), ending a process in every way, damage to the heads, and what must hold after each.

use harness::sim::model::{FeedModel, Ledger, Losses};
use harness::sim::{Errno, Op, Rng, SimDisk};
use siteward::config::settings::KeySource;
use siteward::contract::Mark;
use siteward::limits;
use siteward::record::{FeedId, Lane};
use siteward::spool::{Item, Options, Parts, StateChoice, open_with};
use siteward::status::board::Board;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Check, Mix, all_feeds};

pub(super) struct History {
    pub(super) seed: u64,
    pub(super) rng: Rng,
    pub(super) mix: Mix,
    pub(super) root: PathBuf,
    pub(super) disk: SimDisk,
    pub(super) parts: Option<Parts>,
    pub(super) board: Arc<Board>,
    pub(super) ledger: Ledger,
    pub(super) feeds: Vec<(FeedId, Lane)>,
    pub(super) retired: Option<FeedId>,
    pub(super) cursors: std::collections::BTreeMap<FeedId, Mark>,
    pub(super) losses: Losses,
    /// The dedupe window must know every message that was answered.
    pub(super) dedupe_strict: bool,
    pub(super) log: Vec<String>,
}

impl History {
    pub(super) fn new(seed: u64, mix: Mix, root: &Path) -> Self {
        let mut rng = Rng::new(seed);
        let mut feeds = all_feeds();
        feeds.truncate(rng.between(1, 4) as usize);
        // The spool's own directory does not exist yet.
        let disk = SimDisk::new(rng.draw(), root.parent().expect("a spool is in a directory"));
        let mut ledger = Ledger::default();
        for (feed, _) in &feeds {
            ledger.feeds.insert(feed.clone(), FeedModel::default());
        }
        Self {
            seed,
            rng,
            mix,
            root: root.to_owned(),
            disk,
            parts: None,
            board: Board::new(feeds.iter().map(|(id, _)| id.clone())),
            ledger,
            feeds,
            retired: None,
            cursors: std::collections::BTreeMap::new(),
            losses: Losses::None,
            dedupe_strict: mix.sled,
            log: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, line: impl Into<String>) {
        self.log.push(line.into());
    }

    // ---- opening ----

    pub(super) fn options(&self) -> Options {
        let feeds = self.feeds.iter().filter(|(id, _)| Some(id) != self.retired.as_ref()).cloned().collect();
        Options {
            path: self.root.clone(),
            max_bytes: Some(limits::SPOOL_BYTES_MIN),
            key: KeySource::Auto,
            message_bytes_max: 4 * limits::MIB,
            feeds,
        }
    }

    pub(super) fn reshape(&mut self) {
        if !self.rng.percent(self.mix.reshaping) {
            return;
        }
        if self.rng.percent(50) {
            let lane = *self.rng.pick(&Lane::ALL);
            let at = self.rng.below(self.feeds.len() as u64) as usize;
            self.feeds[at].1 = lane;
            self.note(format!("{} moves to {lane}", self.feeds[at].0));
        } else if self.retired.is_none() && self.feeds.len() > 1 {
            self.retired = Some(self.rng.pick(&self.feeds).0.clone());
            self.note(format!("{:?} is retired", self.retired));
        } else {
            self.retired = None;
            self.note("nothing is retired");
        }
    }

    pub(super) fn state(&self) -> StateChoice {
        if self.mix.sled { StateChoice::Sled } else { StateChoice::None }
    }

    /// Opens, if need be through several crashes, and verifies.
    pub(super) fn open(&mut self) -> Check {
        self.reshape();
        for _ in 0..self.rng.below(3) {
            if self.rng.percent(self.mix.cut_openings) {
                let at = self.rng.between(1, 40);
                self.disk.freeze_after(at);
                self.note(format!("open, cut at {at}"));
                self.board = Board::new(self.feeds.iter().map(|(id, _)| id.clone()));
                let opened = open_with(self.options(), self.disk.handle(), self.state(), &self.board);
                if let (Err(error), false) = (&opened, self.disk.is_frozen()) {
                    return Err(format!("does not open: {error}"));
                }
                self.end_process(opened.ok());
            } else if self.rng.percent(self.mix.faults) {
                let reading = [Op::Read, Op::Open, Op::List];
                let op = if self.rng.percent(70) { *self.rng.pick(&Op::CHANGING) } else { *self.rng.pick(&reading) };
                let after = self.rng.below(if reading.contains(&op) { 30 } else { 6 });
                self.disk.fail(op, after, 1, Errno::Io);
                self.note(format!("open with {op:?} failing after {after}"));
                let opened = open_with(self.options(), self.disk.handle(), self.state(), &self.board);
                if let (Err(error), 0) = (&opened, self.disk.failed()) {
                    return Err(format!("does not open: {error}"));
                }
                self.end_process(opened.ok());
            }
        }
        self.disk.clear_faults();
        self.board = Board::new(self.feeds.iter().map(|(id, _)| id.clone()));
        let opened = open_with(self.options(), self.disk.handle(), self.state(), &self.board);
        let mut parts = opened.map_err(|error| format!("does not open on a healthy disk: {error}"))?;
        self.note(format!("open {}", parts.monitor.view().incarnation));
        if self.rng.percent(50) {
            while parts.committer.idle() {}
        }
        let verified = self.ledger.verify(&mut parts, self.losses);
        self.cursors.clear();
        for (feed, _) in &self.feeds {
            let settled = parts.reader.settled(feed);
            let known = self.ledger.feeds.get(feed).map_or(0, |m| m.records.len());
            self.log.push(format!("  {feed}: settled {} head {} known {known}", settled.seq, parts.reader.head(feed).seq));
            self.cursors.insert(feed.clone(), settled);
        }
        self.parts = Some(parts);
        verified?;
        self.forgive_heads();
        Ok(())
    }

    /// After heads were damaged and everything was verified, what they had known is known no more.
    pub(super) fn forgive_heads(&mut self) {
        if self.losses == Losses::None {
            return;
        }
        self.losses = Losses::None;
        let reader = &mut self.parts.as_mut().expect("just opened").reader;
        for (feed, model) in &mut self.ledger.feeds {
            let head = reader.head(feed).seq;
            model.records.retain(|seq, _| *seq <= head);
            // What was settled and released is gone; the gap says so until it is settled once more.
            let mut at = reader.settled(feed).seq;
            while at < model.settled_max.min(head) {
                match reader.next(feed, at) {
                    Ok(Some(Item::Record(record))) => at = record.seq,
                    Ok(Some(Item::Gap { first, last, chain, .. })) => {
                        model.records.retain(|seq, _| *seq < first || *seq > last);
                        reader.settle(feed, Mark { seq: last, chain });
                        at = last;
                    }
                    _ => break,
                }
            }
            model.settled_max = model.settled_max.min(head).max(reader.settled(feed).seq);
            self.cursors.insert(feed.clone(), reader.settled(feed));
        }
    }

    // ---- ends ----

    /// Ends the process: nothing it does from now on reaches the disk.
    pub(super) fn end_process(&mut self, parts: Option<Parts>) {
        let cut = self.rng.percent(60);
        self.disk = if cut { self.disk.power_cut() } else { self.disk.kill() };
        self.note(if cut { "power cut" } else { "kill" });
        drop(parts);
    }

    pub(super) fn end(&mut self) -> Check {
        let violations = self.disk.violations();
        if let Some(violation) = violations.first() {
            return Err(format!("a failed file was used again: {violation}"));
        }
        if !self.disk.is_frozen() && self.rng.percent(30) {
            return self.stop();
        }
        if !self.disk.is_frozen() && self.rng.percent(30) {
            let at = self.rng.between(1, 12);
            self.disk.freeze_after(at);
            self.note(format!("stop, cut at {at}"));
            let parts = self.parts.as_mut().expect("open");
            parts.committer.close();
            parts.reader.sync_marks(true);
        }
        let parts = self.parts.take();
        self.end_process(parts);
        self.damage_heads();
        Ok(())
    }

    /// A clean stop loses nothing, not even a mark.
    pub(super) fn stop(&mut self) -> Check {
        let failed_before = self.disk.failed();
        self.disk.clear_faults();
        let mut parts = self.parts.take().expect("open");
        parts.reader.sync_marks(true);
        parts.committer.close();
        self.note("clean stop");
        let marks: Vec<_> = self.feeds.iter().map(|(id, _)| (id.clone(), parts.reader.settled(id))).collect();
        drop(parts);
        self.disk = if self.rng.percent(50) { self.disk.power_cut() } else { self.disk.kill() };
        let mut again =
            open_with(self.options(), self.disk.handle(), self.state(), &self.board).map_err(|e| format!("does not open: {e}"))?;
        if failed_before == 0 {
            for (feed, mark) in marks {
                if again.reader.settled(&feed) != mark {
                    return Err(format!("a clean stop forgot the mark of {feed}: {} of {}", again.reader.settled(&feed).seq, mark.seq));
                }
            }
        }
        self.ledger.verify(&mut again, Losses::None)?;
        self.end_process(Some(again));
        self.damage_heads();
        Ok(())
    }

    pub(super) fn damage_heads(&mut self) {
        if !self.rng.percent(self.mix.head_damage) {
            return;
        }
        let copies = ["heads.a", "heads.b"].map(|name| self.root.join(name));
        let both = self.rng.percent(40);
        let one = self.rng.below(2) as usize;
        for (i, copy) in copies.iter().enumerate() {
            if (both || i == one) && self.disk.files().iter().any(|(path, _)| path == copy) {
                let offset = self.rng.below(64);
                match self.rng.below(3) {
                    0 => self.disk.delete(copy),
                    1 => self.disk.truncate(copy, offset),
                    _ => self.disk.overwrite(copy, offset, &[0xEE; 64]),
                }
                self.losses = Losses::Heads;
            }
        }
        self.note(if both { "both heads damaged".to_owned() } else { format!("heads {one} damaged") });
    }

    // ---- the whole ----

    pub(super) fn play(&mut self) -> Check {
        for _ in 0..self.mix.openings {
            self.open()?;
            let steps = self.rng.between(1, self.mix.steps);
            if self.rng.percent(25) {
                let at = self.rng.between(1, 60);
                self.disk.freeze_after(at);
                self.note(format!("the power will go at {at}"));
            }
            for _ in 0..steps {
                self.step()?;
                if self.disk.is_frozen() {
                    break;
                }
            }
            self.end()?;
        }
        // The last opening, then a cut right behind it: what was verified must still be there.
        self.open()?;
        let parts = self.parts.take();
        self.end_process(parts);
        self.open()
    }

    pub(super) fn report(&self, error: &str) -> String {
        let trace = self.disk.trace();
        let tail = trace.len().saturating_sub(60);
        format!(
            "seed {}: {error}\n--- history\n{}\n--- last operations of the disk\n{}",
            self.seed,
            self.log.join("\n"),
            trace[tail..].join("\n")
        )
    }
}
