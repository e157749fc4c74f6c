//! Carries out orders: signed commands and their local twins. A closed list of things the agent can do anyway; no shell, no file access.
//!
//! | order | what is done |
//! |---|---|
//! | `pause_feed`, `resume_feed` | `sources::paused`: the source stops or starts; what is paused survives a restart |
//! | `accept_resend` | `spool::resends`, for a while |
//! | `release_quarantine` | `spool::kept` → forwarder: one event after the other, each removed when it is acknowledged |
//! | `drop_quarantine`, entries by id | `spool::kept`: removed, for good |
//! | `checkpoint` | the forwarder tells every head |
//! | `diagnose` | a snapshot of the status; figures, never content (I7) |
//! | `log_level` | `log`, for a while by time that passes (I10) |
//! | `maintenance_start`, `maintenance_end` | `alerts::keeper`: a window, durable before it is answered |
//!
//! Thin: each order is one call to its owner and a sentence about what became of it. One runs at a time (see `orders`), within the time it is given:
//! what is not done by then is said to be left.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};

use super::command::{LogLevel, Outcome, Verb};
use crate::alerts;
use crate::alerts::windows::Wish;
use crate::audit::Book;
use crate::config::settings::Endpoint;
use crate::forward::Feeds;
use crate::forward::mail::{Letter, Mail, Post};
use crate::limits::{DIAGNOSE_BYTES_MAX, DIAGNOSE_ENTRIES_MAX, ORDER_GRACE};
use crate::log;
use crate::record::FeedId;
use crate::sources::SourcesHandle;
use crate::sources::paused::Pause;
use crate::spool::kept::{Choice, Kept};
use crate::spool::resends::Resends;
use crate::spool::{Monitor, QuarantineListed};
use crate::status::board::Board;
use crate::status::desk::Desk;
use crate::status::snapshot::Reporter;
use crate::uplink::AckReason;

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    Verb(Verb),
    /// Quarantine by the ids of entries: also what never was a record. On site only.
    DropEntries(Vec<String>),
}

impl Order {
    /// Stable, for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Verb(verb) => verb.name().as_str(),
            Self::DropEntries(_) => "drop_quarantine",
        }
    }

    /// What it is done to; empty for the gateway as a whole.
    pub fn subject(&self) -> String {
        match self {
            Self::Verb(Verb::PauseFeed { feed } | Verb::ResumeFeed { feed } | Verb::AcceptResend { feed, .. }) => feed.to_string(),
            Self::Verb(Verb::MaintenanceStart { feed, .. }) => feed.as_ref().map_or_else(|| "gateway".to_owned(), ToString::to_string),
            Self::Verb(Verb::MaintenanceEnd { id }) => format!("maintenance {id}"),
            Self::Verb(Verb::ReleaseQuarantine { feed, first, last } | Verb::DropQuarantine { feed, first, last }) => {
                format!("{feed} {first}-{last}")
            }
            Self::Verb(Verb::Checkpoint | Verb::Diagnose | Verb::LogLevel { .. }) => String::new(),
            Self::DropEntries(ids) => ids.join(" "),
        }
    }
}

/// An order, who gave it and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub order: Order,
    pub who: String,
    pub why: String,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    pub outcome: Outcome,
    /// A sentence.
    pub text: String,
    /// Of `diagnose`.
    pub data: Option<Value>,
}

fn done(text: impl Into<String>) -> Effect {
    Effect { outcome: Outcome::Done, text: text.into(), data: None }
}

pub(super) fn failed(text: impl Into<String>) -> Effect {
    Effect { outcome: Outcome::Failed, text: text.into(), data: None }
}

impl From<Result<String, String>> for Effect {
    fn from(result: Result<String, String>) -> Self {
        result.map_or_else(failed, done)
    }
}

/// The owners of what can be done. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Executor {
    pub(super) sources: SourcesHandle,
    pub(super) poster: Post,
    pub(super) book: Book,
    pub(super) link: watch::Receiver<Option<Endpoint>>,
    pub(super) reporter: Arc<Reporter>,
    pub(super) board: Arc<Board>,
    pub(super) monitor: Monitor,
    pub(super) kept: Kept,
    pub(super) resends: Arc<Resends>,
    pub(super) feeds: watch::Receiver<Feeds>,
    /// The keeper of maintenance windows; `None` in a rig.
    pub(super) alerts: Option<alerts::handle::Handle>,
    /// What goes back to the usual log level when its time is over.
    pub(super) level: Arc<Mutex<Option<AbortHandle>>>,
}

impl Executor {
    /// Of a rig without a control socket.
    #[cfg(test)]
    pub(super) fn bare(mail: &Mail, sources: SourcesHandle, board: &Arc<Board>, spool: (Monitor, Kept, Arc<Resends>)) -> Self {
        let name = |text| crate::record::Name::new(text).expect("a name");
        let (monitor, kept, resends) = spool;
        Self {
            sources,
            poster: mail.way_out(),
            book: Book::of_rig(board),
            link: mail.link(),
            reporter: Reporter::new(name("s"), name("gw1"), Arc::clone(board), monitor.clone()),
            board: Arc::clone(board),
            monitor,
            kept,
            resends,
            feeds: watch::channel(Feeds::default()).1,
            alerts: None,
            level: Arc::default(),
        }
    }

    /// With what the desk of the control socket works with, too.
    pub fn of(desk: &Desk, mail: &Mail, sources: SourcesHandle, kept: Kept) -> Self {
        Self {
            sources,
            poster: mail.way_out(),
            book: desk.book.clone(),
            link: mail.link(),
            reporter: Arc::clone(&desk.reporter),
            board: Arc::clone(&desk.board),
            monitor: desk.monitor.clone(),
            kept,
            resends: Arc::clone(&desk.resends),
            feeds: desk.feeds.clone(),
            alerts: Some(desk.on_site.alerts()),
            level: Arc::default(),
        }
    }

    /// Begins, with so much time.
    pub fn start(&self, given: Given, time: Duration) -> JoinHandle<Effect> {
        let this = self.clone();
        tokio::spawn(async move {
            let deadline = Instant::now() + time;
            match timeout_at(deadline + ORDER_GRACE, this.carry_out(given, deadline)).await {
                Ok(effect) => effect,
                Err(_) => {
                    failed("it was not done within its time and is not waited for any more; look at the status whether it had its effect")
                }
            }
        })
    }

    async fn carry_out(&self, given: Given, deadline: Instant) -> Effect {
        let Given { order, who, why } = given;
        match order {
            Order::Verb(Verb::PauseFeed { feed }) => self.sources.set_paused(feed, Some(Pause::now(&who, &why))).await.into(),
            Order::Verb(Verb::ResumeFeed { feed }) => self.sources.set_paused(feed, None).await.into(),
            Order::Verb(Verb::AcceptResend { feed, time }) => self.accept_resend(&feed, time),
            Order::Verb(Verb::ReleaseQuarantine { feed, first, last }) => {
                self.release(Choice::Records { feed, first, last }, deadline).await
            }
            Order::Verb(Verb::DropQuarantine { feed, first, last }) => self.drop_kept(Choice::Records { feed, first, last }).await,
            Order::DropEntries(ids) => self.drop_kept(Choice::Entries(ids)).await,
            Order::Verb(Verb::Checkpoint) => match self.poster.checkpoint() {
                Ok(()) => done("every feed tells its head"),
                Err(error) => failed(format!("no checkpoint was made: {error}")),
            },
            Order::Verb(Verb::Diagnose) => self.diagnose().await,
            Order::Verb(Verb::LogLevel { level, time }) => self.log_level(level, time),
            Order::Verb(Verb::MaintenanceStart { feed, time }) => {
                self.maintenance(alerts::handle::Request::Start(Wish { feed, time, at: None, who, reason: why })).await
            }
            Order::Verb(Verb::MaintenanceEnd { id }) => self.maintenance(alerts::handle::Request::End { id, who }).await,
        }
    }

    fn accept_resend(&self, feed: &FeedId, time: Duration) -> Effect {
        if !self.feeds.borrow().iter().any(|configured| configured.id == *feed) {
            return failed(format!("this gateway has no feed `{feed}`, or it only drains"));
        }
        let until = self.resends.open(feed, time, std::time::Instant::now(), &self.board);
        done(format!("feed {feed} stores messages seen before as new records, flagged as resends, until {until} or a restart"))
    }

    // ---- quarantine ----

    async fn choose(&self, choice: Choice) -> Result<(Vec<QuarantineListed>, bool), Effect> {
        let kept = self.kept.clone();
        let chosen = spawn_blocking(move || kept.choose(&choice)).await.map_err(|_| failed("quarantine could not be read; see the log"))?;
        match chosen {
            Ok((entries, _)) if entries.is_empty() => Err(failed("nothing of this is in quarantine; see `siteward quarantine list`")),
            Ok(chosen) => Ok(chosen),
            Err(error) => Err(failed(format!("quarantine cannot be read: {error}; check the disk"))),
        }
    }

    /// Records leave in the order of their seqs; the first that cannot go ends it.
    async fn release(&self, choice: Choice, deadline: Instant) -> Effect {
        if self.link.borrow().is_none() {
            return failed("the uplink is down, so nothing was released; do it again when it is up");
        }
        let (entries, more) = match self.choose(choice).await {
            Ok(chosen) => chosen,
            Err(effect) => return effect,
        };
        let (mut released, mut why) = (0, None);
        for entry in &entries {
            match self.release_one(entry, deadline).await {
                Ok(()) => released += 1,
                Err(reason) => {
                    let seq = entry.seq.map_or_else(String::new, |seq| format!("seq {seq}: "));
                    why = Some(format!("{seq}{reason}"));
                    break;
                }
            }
        }
        self.kept.tell();
        let left = entries.len() - released;
        match why {
            None if more => done(format!("{released} records were released; there are more, ask again")),
            None => done(format!("{released} records were released and acknowledged")),
            Some(why) => failed(format!("{released} records were released, {left} are still in quarantine: {why}")),
        }
    }

    async fn release_one(&self, entry: &QuarantineListed, deadline: Instant) -> Result<(), String> {
        if Instant::now() >= deadline {
            return Err("the time for this order is over; ask again".into());
        }
        let (kept, its) = (self.kept.clone(), entry.clone());
        let record = spawn_blocking(move || kept.record(&its)).await.map_err(|_| "it could not be read; see the log".to_owned())?;
        let record = record.map_err(|error| error.to_string())?;
        let (feed, seq) = (record.feed.clone(), record.seq);
        let answer = self.poster.post(Letter::Released(Arc::new(record))).map_err(|error| error.to_string())?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(delivered)) if delivered.reason == AckReason::Success => {}
            Ok(Ok(delivered)) => {
                return Err(match delivered.reason {
                    AckReason::PacketTooLarge => "it is larger than the broker takes; raise the broker's limit first".to_owned(),
                    AckReason::NoMatchingSubscribers => "nobody is subscribed at the hub".to_owned(),
                    AckReason::NotAuthorized => "the broker does not let this gateway publish there".to_owned(),
                    other => format!("the broker refuses it ({other:?})"),
                });
            }
            Ok(Err(_)) | Err(_) => {
                return Err("the broker has not acknowledged it in time; if it does, a repetition is recognised there".into());
            }
        }
        let (kept, its) = (self.kept.clone(), entry.clone());
        let removed = spawn_blocking(move || kept.remove(&its)).await;
        if !matches!(removed, Ok(Ok(()))) {
            return Err("it is at the hub, but its copy here could not be removed; check the disk and drop it".into());
        }
        tracing::warn!(%feed, seq, entry = entry.id, "a record was released from quarantine and acknowledged");
        Ok(())
    }

    async fn drop_kept(&self, choice: Choice) -> Effect {
        let asked = if let Choice::Entries(ids) = &choice { ids.clone() } else { Vec::new() };
        let (entries, more) = match self.choose(choice).await {
            Ok(chosen) => chosen,
            Err(effect) => return effect,
        };
        if let Some(unknown) = asked.iter().find(|id| !entries.iter().any(|entry| entry.id == **id)) {
            let unknown: String = unknown.chars().take(64).flat_map(char::escape_debug).collect();
            return failed(format!("no entry {unknown} is in quarantine, so nothing was dropped; see `siteward quarantine list`"));
        }
        // Of a range its subject says it.
        let named: Vec<String> = if asked.is_empty() { Vec::new() } else { entries.iter().map(|entry| entry.id.clone()).collect() };
        let (kept, all) = (self.kept.clone(), entries.len());
        let dropped = spawn_blocking(move || {
            let mut dropped = 0;
            for entry in &entries {
                if let Err(error) = kept.remove(entry) {
                    return (dropped, Some(error.to_string()));
                }
                dropped += 1;
                tracing::warn!(
                    feed = entry.feed,
                    seq = entry.seq,
                    entry = entry.id,
                    code = entry.code,
                    "dropped from quarantine, for good"
                );
            }
            kept.tell();
            (dropped, None)
        });
        match dropped.await {
            Ok((dropped, None)) if !named.is_empty() => done(format!("{dropped} entries were dropped: {}", named.join(" "))),
            Ok((dropped, None)) => done(format!("{dropped} entries were dropped{}", if more { "; there are more, ask again" } else { "" })),
            Ok((dropped, Some(error))) => {
                let gone = named.get(..dropped).map_or_else(String::new, |gone| format!(" ({})", gone.join(" ")));
                failed(format!("{dropped} of {all} entries were dropped{gone}, then: {error}; check the disk"))
            }
            Err(_) => failed("quarantine could not be changed; see the log"),
        }
    }

    // ---- the rest ----

    async fn diagnose(&self) -> Effect {
        let (reporter, monitor) = (Arc::clone(&self.reporter), self.monitor.clone());
        let made = spawn_blocking(move || {
            let quarantine = match monitor.quarantined(None, DIAGNOSE_ENTRIES_MAX) {
                Ok((mut entries, total)) => {
                    // Of rows it names the file, and who may see names of files is decided feed by feed (I7).
                    for entry in &mut entries {
                        entry.peer.clear();
                    }
                    json!({ "entries": entries, "total": total })
                }
                Err(error) => json!({ "error": error.to_string() }),
            };
            fitted(json!({ "status": reporter.snapshot(), "quarantine": quarantine }))
        });
        match made.await {
            Ok(data) => Effect { data: Some(data), ..done("the status at this moment") },
            Err(_) => failed("the status could not be taken; see the log"),
        }
    }

    async fn maintenance(&self, request: alerts::handle::Request) -> Effect {
        let Some(keeper) = self.alerts.clone() else { return failed("this agent keeps no maintenance windows") };
        match spawn_blocking(move || keeper.ask(request)).await {
            Ok(Ok(alerts::handle::Response::Done { done: text })) => done(text),
            Ok(Ok(alerts::handle::Response::List { .. })) | Err(_) => failed("it could not be asked for; see the log"),
            Ok(Err(why)) => failed(why),
        }
    }

    fn log_level(&self, level: LogLevel, time: Duration) -> Effect {
        let wanted = match level {
            LogLevel::Info => tracing::Level::INFO,
            LogLevel::Debug => tracing::Level::DEBUG,
        };
        if !log::set(Some(wanted)) {
            return failed("the log level cannot be changed here");
        }
        tracing::warn!(level = %wanted, for_s = time.as_secs(), "the log level was changed for a while");
        let back = tokio::spawn(async move {
            sleep(time).await;
            log::set(None);
            tracing::warn!("the log level is as it was");
        });
        let before = self.level.lock().unwrap_or_else(PoisonError::into_inner).replace(back.abort_handle());
        if let Some(before) = before {
            before.abort();
        }
        done(format!("the log is at {} for {} s or until a restart", wanted.as_str().to_ascii_lowercase(), time.as_secs()))
    }
}

/// What fits into an answer: where it does not, the parts that grow with the gateway go first, and their names say so.
fn fitted(mut data: Value) -> Value {
    for (part, key) in [("quarantine", "entries"), ("status", "feeds"), ("status", "conditions"), ("status", "lanes")] {
        if data.to_string().len() <= DIAGNOSE_BYTES_MAX {
            return data;
        }
        data[part][key] = json!("left out: too large");
    }
    if data.to_string().len() <= DIAGNOSE_BYTES_MAX { data } else { json!("left out: too large") }
}

/// Waits for an order that runs; pends where none does. Cancel-safe.
pub(super) async fn ended(running: Option<&mut JoinHandle<Effect>>) -> Effect {
    match running {
        Some(task) => task.await.unwrap_or_else(|_| failed("it broke off; its place is in the agent's log")),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn a_diagnosis_that_is_too_large_says_what_was_left_out() {
        let small = json!({ "status": { "feeds": ["a"] }, "quarantine": { "entries": [] } });
        assert_eq!(fitted(small.clone()), small);
        let feeds: Vec<String> = (0..10_000).map(|n| format!("a feed with a long name, number {n}")).collect();
        let large = json!({ "status": { "feeds": feeds, "version": "1" }, "quarantine": { "entries": ["x"], "total": 1 } });
        let fitting = fitted(large);
        assert!(fitting.to_string().len() <= DIAGNOSE_BYTES_MAX);
        assert_eq!((&fitting["status"]["version"], &fitting["quarantine"]["total"]), (&json!("1"), &json!(1)));
        assert_eq!(fitting["status"]["feeds"], "left out: too large");
    }

    #[tokio::test]
    async fn an_order_that_runs_is_waited_for_and_a_broken_one_is_told() {
        assert!(timeout(Duration::from_millis(5), ended(None)).await.is_err());
        let mut task = tokio::spawn(async { done("x") });
        assert_eq!(ended(Some(&mut task)).await.text, "x");
        let mut task = tokio::spawn(async {
            sleep(Duration::from_hours(1)).await;
            done("never")
        });
        task.abort();
        assert_eq!(ended(Some(&mut task)).await.outcome, Outcome::Failed);
    }
}
