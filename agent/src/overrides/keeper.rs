//! The owner of the overrides while the agent runs: one task.
//!
//! 1. A change is durable before the feeds follow; feeds that cannot follow (a port that is taken) have it taken back, durably, and who asked is told.
//! 2. Time passes by `Instant`; what is over ends here, in order: file, feeds, condition, audit, reported state.
//! 3. A disk that cannot be written refuses new overrides. It ends none early, and those that are over end without it.
//! 4. What could not be written is written as soon as the disk takes it, tried with every tick: until then a kill would bring back what is over.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval};

use super::handle::{self, Asked, Handle, Request, Response, View};
use super::store::Store;
use super::{Change, Changed, Kind, Override, Overrides, fits, in_the_way};
use crate::audit::Book;
use crate::clock;
use crate::forward::Feeds;
use crate::limits::{OVERRIDE_TICK, OVERRIDE_TIME_MAX};
use crate::record::FeedId;
use crate::sources::{FeedFault, SourcesHandle};
use crate::spool::disk::Disk;
use crate::status::board::Board;
use crate::status::condition::Code;
use crate::status::inquiry::{Turn, turn};
use crate::timed;

/// What the keeper works with.
#[derive(Debug)]
struct Means {
    store: Store,
    sources: SourcesHandle,
    /// Those that run now.
    feeds: watch::Receiver<Feeds>,
    board: Arc<Board>,
    book: Book,
    /// Told to the rollout, which reports them.
    told: watch::Sender<Vec<View>>,
    asked: mpsc::Receiver<Asked>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Keeper {
    overrides: Overrides,
    means: Means,
    last: Instant,
    /// The feeds do not follow yet.
    is_owed: bool,
    /// The file may say something else than what holds.
    unwritten: bool,
}

/// The overrides as they were found at the start, and what is asked of their keeper before it runs.
#[derive(Debug)]
pub struct Kept {
    store: Store,
    overrides: Overrides,
    asked: mpsc::Receiver<Asked>,
}

impl Kept {
    pub fn open(disk: Arc<dyn Disk>, spool: &Path) -> (Self, Handle) {
        let store = Store::new(disk, spool);
        let (handle, asked) = handle::open();
        (Self { overrides: block_in_place(|| store.read()), store, asked }, handle)
    }

    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// Their keeper, and what it tells the rollout.
    pub fn keep(
        self,
        sources: SourcesHandle,
        feeds: watch::Receiver<Feeds>,
        board: &Arc<Board>,
        book: Book,
    ) -> (Keeper, watch::Receiver<Vec<View>>) {
        let (told, heard) = watch::channel(Vec::new());
        let Self { store, overrides, asked } = self;
        let means = Means { store, sources, feeds, board: Arc::clone(board), book, told, asked };
        (Keeper { overrides, means, last: Instant::now(), is_owed: false, unwritten: false }, heard)
    }
}

impl Keeper {
    /// Until told to stop.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.overrides.charge();
        self.persist();
        self.tell();
        for one in self.overrides.list() {
            let (feed, kind, value) = (&one.what.feed, one.what.change.kind().as_str(), one.what.change.value());
            let subject = format!("{feed} {kind} {value} since {}", clock::rfc3339(one.set_at.unix_ms));
            self.means.book.note_holds(&subject, &format!("set by {}: {}", one.who, one.reason));
        }
        let mut tick = interval(OVERRIDE_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match turn(&mut self.means.asked, &mut tick, &mut stop).await {
                Turn::Stop => break,
                Turn::Tick => self.tick().await,
                Turn::Asked(asked) => {
                    let answer = self.answer(asked.request.clone()).await;
                    asked.answer(answer);
                }
            }
        }
        // A stop in order costs nothing of the time that is left.
        self.overrides.pass(self.last.elapsed());
        let mut exact = self.overrides.clone();
        exact.settle();
        if let Err(error) = block_in_place(|| self.means.store.write(&exact)) {
            tracing::warn!("what is left of the overrides could not be written ({error}); a little less of it is left");
        }
    }

    fn persist(&mut self) {
        let written = block_in_place(|| self.means.store.write(&self.overrides));
        match (&written, self.unwritten) {
            (Err(error), false) => {
                tracing::warn!(
                    "the overrides could not be written ({error}), it is tried again until they are; check the disk of the spool"
                );
            }
            (Ok(()), true) => tracing::info!("the overrides are written again"),
            _ => {}
        }
        self.unwritten = written.is_err();
    }

    /// Writes what is to hold; where that fails, `before` holds, and is written back: the rename may have come through, and only the sync not.
    fn write_or(&mut self, before: &Overrides) -> Result<(), String> {
        let Err(error) = block_in_place(|| self.means.store.write(&self.overrides)) else {
            self.unwritten = false;
            return Ok(());
        };
        self.overrides = before.clone();
        self.overrides.charge();
        self.persist();
        let rest = if self.unwritten { ", though a restart may find it so until it is written back" } else { "" };
        Err(format!("it could not be written ({error}); nothing was changed{rest}; check the disk of the spool"))
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let time = now.saturating_duration_since(std::mem::replace(&mut self.last, now));
        let over = self.overrides.pass(time);
        // A trial may be taken back, and the feed with it come back; until that is done it is owed.
        let config = self.means.board.config();
        let homeless = if config.is_owed || matches!(config.state.as_str(), "staged" | "trial") {
            Vec::new()
        } else {
            let feeds = Arc::clone(&self.means.feeds.borrow());
            self.overrides.end_homeless(&feeds)
        };
        let ended =
            over.iter().map(|one| (one, "its time is over")).chain(homeless.iter().map(|one| (one, "there is no such feed any more")));
        let ended: Vec<(Override, &str)> = ended.map(|(one, why)| (one.clone(), why)).collect();
        if self.overrides.is_due() || !ended.is_empty() || self.unwritten {
            self.overrides.charge();
            self.persist();
        }
        if !ended.is_empty() || self.is_owed {
            drop(self.follow().await); // faults stand on the board
        }
        for (one, why) in ended {
            let (feed, kind) = (&one.what.feed, one.what.change.kind().as_str());
            tracing::warn!(%feed, kind, "an override ended: {why}; the feed is as it is configured");
            self.audit("siteward", "override_ended", &one.what, why);
        }
    }

    /// The feeds as the overrides say.
    async fn follow(&mut self) -> Vec<FeedFault> {
        let applied = self.means.sources.overlay(self.overrides.clone()).await;
        self.is_owed = applied.is_err();
        self.tell();
        applied.unwrap_or_else(|error| {
            tracing::warn!("the feeds do not follow the overrides yet: {error}");
            Vec::new()
        })
    }

    /// Conditions and reported state.
    fn tell(&self) {
        let board = &self.means.board;
        let active = board.conditions().into_iter().filter(|condition| condition.code == Code::OverrideActive.as_str());
        for subject in active.map(|condition| condition.subject) {
            if !self.overrides.list().iter().any(|one| one.what.feed.as_str() == subject) {
                board.clear(Code::OverrideActive, &subject);
            }
        }
        for one in self.overrides.list() {
            if let Some(text) = self.overrides.sentence(&one.what.feed) {
                board.raise(Code::OverrideActive, one.what.feed.as_str(), text);
            }
        }
        let view = |one: &Override| View { value: one.what.change.short_value(), ..View::from(one) };
        let views: Vec<View> = self.overrides.list().iter().map(view).collect();
        self.means.told.send_if_modified(|known| {
            let is_news = *known != views;
            *known = views;
            is_news
        });
    }

    fn audit(&self, who: &str, what: &str, Changed { feed, change }: &Changed, reason: &str) {
        let value = change.value();
        let subject = format!("{feed} {}{}{value}", change.kind().as_str(), if value.is_empty() { "" } else { " " });
        self.means.book.note(who, what, &subject, reason);
    }

    async fn answer(&mut self, request: Request) -> Result<Response, String> {
        match request {
            Request::List => {
                let now = self.last.elapsed();
                let view = |one: &Override| View { left_s: Some(one.left.saturating_sub(now).as_secs()), ..View::from(one) };
                Ok(Response::List { overrides: self.overrides.list().iter().map(view).collect() })
            }
            Request::Set { feed, change, time, who, reason } => self.set(feed, change, time, who, &reason).await,
            Request::Clear { feed, kind, who } => self.clear(&feed, kind, &who).await,
        }
    }

    async fn set(&mut self, feed: FeedId, change: Change, time: Duration, who: String, reason: &str) -> Result<Response, String> {
        let reason = timed::reason(reason, "an override", time, OVERRIDE_TIME_MAX)?;
        let feeds = Arc::clone(&self.means.feeds.borrow());
        let Some(settings) = feeds.iter().find(|known| known.id == feed) else {
            return Err(format!("this gateway has no feed `{feed}`; see `siteward feeds`"));
        };
        fits(settings, &change)?;
        if let Some(other) = in_the_way(&feeds, settings, &change) {
            return Err(format!("feed `{other}` listens there; nothing was changed, choose another port"));
        }
        self.tick().await;
        let before = self.overrides.clone();
        let one = Override::new(Changed { feed: feed.clone(), change }, (who, reason), clock::now(), time);
        self.overrides.set(one.clone())?;
        self.overrides.charge();
        self.write_or(&before)?;
        let fault = self.follow().await.into_iter().find(|fault| fault.feed == feed);
        if let Some(fault) = fault {
            self.overrides = before;
            self.overrides.charge();
            self.persist();
            drop(self.follow().await);
            return Err(format!("{fault}; the feed is as it was"));
        }
        tracing::warn!(%feed, kind = one.what.change.kind().as_str(), who = one.who, "an override holds for {} s: {}", time.as_secs(), one.reason);
        let sentence = one.what.change.sentence();
        Ok(Response::Done { done: format!("feed {feed}: {sentence} for {} s, then it is as configured again", time.as_secs()) })
    }

    async fn clear(&mut self, feed: &FeedId, kind: Option<Kind>, who: &str) -> Result<Response, String> {
        let before = self.overrides.clone();
        let cleared = self.overrides.clear(feed, kind);
        if cleared.is_empty() {
            return Err(format!("feed `{feed}` has no such override; see `siteward override list`"));
        }
        self.overrides.charge();
        self.write_or(&before)?;
        let fault = self.follow().await.into_iter().find(|fault| fault.feed == *feed);
        tracing::warn!(%feed, who, "overrides were cleared");
        Ok(Response::Done {
            done: match fault {
                None => format!("feed {feed} is as configured again"),
                Some(fault) => format!("feed {feed} has no override any more, but {fault}; it is tried again"),
            },
        })
    }
}
