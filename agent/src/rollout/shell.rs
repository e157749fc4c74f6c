//! The rollout's shell: one task that owns the machine, the ledger and what runs, and carries things between them and the rest of the agent.
//!
//! ```text
//!   config/desired, `config apply` ─► intake ─┐                              ┌─► sources (feeds), mail (uplink)
//!   sources, uplink ─► evidence ──────────────┼─► machine ─► ledger ─► do ───┼─► reported state, board, conditions
//!   `config rollback`, SIGHUP, time ──────────┘                              └─► answers
//! ```
//!
//! 1. [`Shell::new`] takes over what [`start`](super::start) decided; the sources run already under it.
//! 2. Everything that happens becomes an input; the machine's actions are carried out in order before the next input is taken. Putting a
//!    configuration to use may take some seconds; whoever asks meanwhile waits, within the bounds of the channels.
//! 3. While something is to be proven, the sources are asked once a second, and each acknowledged reported state is evidence.
//! 4. A configuration that could not be put back is tried again every second: the machine has decided, the world has to follow (`change`).
//! 5. At the stop nothing is undone: what is on trial counts as failed at the next start.
//!
//! SIGHUP reads the local file's feeds again, as long as no document runs.

use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval};

use super::change::Owed;
use super::drive;
use super::evidence::gathered;
use super::executor::Effect;
use super::facts::{Generation, UplinkEvidence};
use super::handle::{Asked, HistoryView, Request, Response, TextView, TextsView};
use super::machine::{Action, Input, Machine, RunState};
use super::orders::Orders;
use super::proof::Proof;
use super::report::{self, Surroundings};
use super::start::{Ground, Running, Started, now};
use super::store::Store;
use super::unfed::FeedWatch;
use super::watch::QuarantineWatch;
use crate::config::settings::{Endpoint, RenewSettings};
use crate::config::show;
use crate::forward::mail::{Inbound, Letter, Mail};
use crate::limits::ROLLOUT_TICK;
use crate::record::{DocumentDigest, FeedId};
use crate::reload::Reload;
use crate::sources::SourcesHandle;
use crate::spool::Monitor;
use crate::status::board::Board;

/// What the rollout works with.
#[derive(Debug)]
pub struct Means {
    pub sources: SourcesHandle,
    pub mail: Mail,
    pub board: Arc<Board>,
    pub monitor: Monitor,
    pub asked: mpsc::Receiver<Asked>,
    pub hangup: Signal,
    pub orders: Orders,
    /// Told what the committed configuration asks for.
    pub renew: watch::Sender<Option<RenewSettings>>,
    pub local: report::Local,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Shell {
    pub(super) machine: Machine,
    pub(super) store: Store,
    pub(super) ground: Ground,
    pub(super) running: Running,
    pub(super) sources: SourcesHandle,
    pub(super) mail: Mail,
    pub(super) link: watch::Receiver<Option<Endpoint>>,
    pub(super) board: Arc<Board>,
    monitor: Monitor,
    asked: mpsc::Receiver<Asked>,
    hangup: Signal,
    pub(super) proof: Proof,
    pub(super) quarantine: QuarantineWatch,
    unfed: FeedWatch,
    pub(super) orders: Orders,
    renew: watch::Sender<Option<RenewSettings>>,
    local: report::Local,
    /// What is to run and does not yet.
    pub(super) owed: Option<Owed>,
    /// Why what was proven does not count yet, as it was said.
    pub(super) unsettled: Option<String>,
    /// Feeds that drain, as last reported.
    retired_told: Vec<FeedId>,
    /// Whoever asked for the rollback that is under way.
    waiting: Option<Asked>,
    todo: Vec<Action>,
    pub(super) start: Instant,
}

/// What ended a wait.
enum Woken {
    Tick,
    Inbound(Option<Inbound>),
    Asked(Option<Asked>),
    Link(bool),
    Proven(UplinkEvidence),
    Hangup(bool),
    Ended(Effect),
    Overridden(bool),
}

impl Shell {
    pub fn new(started: Started, means: Means, start: Instant) -> Self {
        let Started { machine, store, ground, running, actions } = started;
        let Means { sources, mail, board, monitor, asked, hangup, orders, renew, local } = means;
        Self {
            link: mail.link(),
            quarantine: QuarantineWatch::default(),
            unfed: FeedWatch::new(&ground.local_settings),
            proof: Proof::default(),
            owed: None,
            unsettled: None,
            retired_told: Vec::new(),
            waiting: None,
            todo: actions,
            machine,
            store,
            ground,
            running,
            sources,
            mail,
            board,
            monitor,
            asked,
            hangup,
            orders,
            renew,
            local,
            start,
        }
    }

    /// Until told to stop.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let first = std::mem::take(&mut self.todo);
        self.carry_out(first).await;
        self.tell_renewal();
        let mut tick = interval(ROLLOUT_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut posts, mut asks, mut links, mut hangs, mut locals) = (true, true, true, true, true);
        loop {
            let woken = tokio::select! {
                biased;
                _ended = stop.wait_for(|stop| *stop) => return,
                _ = tick.tick() => Woken::Tick,
                evidence = self.proof.answer() => Woken::Proven(evidence),
                effect = self.orders.ended() => Woken::Ended(effect),
                changed = self.local.overrides.changed(), if locals => Woken::Overridden(changed.is_ok()),
                changed = self.link.changed(), if links => Woken::Link(changed.is_ok()),
                asked = self.asked.recv(), if asks => Woken::Asked(asked),
                heard = self.hangup.recv(), if hangs => Woken::Hangup(heard.is_some()),
                inbound = self.mail.inbound.recv(), if posts => Woken::Inbound(inbound),
            };
            match woken {
                Woken::Tick => self.tick().await,
                Woken::Proven(uplink) => self.evidence(uplink).await,
                Woken::Link(lives) => {
                    links = lives;
                    self.linked().await;
                }
                Woken::Asked(Some(asked)) => self.asked(asked).await,
                Woken::Asked(None) => asks = false,
                Woken::Hangup(heard) => {
                    hangs = heard;
                    self.reload().await;
                }
                Woken::Inbound(Some(Inbound::Desired { payload, .. })) => {
                    let (_, actions) = self.document(&payload);
                    self.carry_out(actions).await;
                }
                Woken::Inbound(Some(Inbound::Command { payload, retained })) => self.command(&payload, retained).await,
                Woken::Ended(effect) => self.orders.finish(effect),
                Woken::Overridden(lives) => {
                    locals = lives;
                    self.report();
                }
                Woken::Inbound(None) => posts = false,
            }
        }
    }

    // ---- inputs ----

    /// Steps the machine and does what it asks for.
    pub(super) async fn input(&mut self, input: Input, envelope: Option<&[u8]>) {
        let at = now(self.start);
        let actions = block_in_place(|| drive(&mut self.machine, &mut self.store, at, input, envelope));
        self.carry_out(actions).await;
    }

    async fn tick(&mut self) {
        if self.pay().await {
            self.report();
        }
        self.settle().await;
        self.tick_orders();
        self.input(Input::Tick, None).await;
        if self.has_to_prove() {
            let uplink = self.proof.standing(self.link.borrow().as_ref());
            if self.proof.is_overdue() && matches!(uplink, UplinkEvidence::Up { acked_after_change: false, .. }) {
                self.report();
            }
            self.evidence(uplink).await;
        }
        if self.retired() != self.retired_told {
            self.report(); // one has sent its last record, or come back
        }
        let (at, feeds) = (now(self.start).mono_ms, &self.running.settings.feeds);
        self.quarantine.look(at, feeds, &self.board);
        self.unfed.look(at, &self.machine, feeds, &self.board);
    }

    /// Feeds that are not configured any more and still drain.
    fn retired(&self) -> Vec<FeedId> {
        let retired = self.monitor.view().feeds.into_iter().filter(|feed| feed.retired && feed.settled_seq < feed.last_seq);
        retired.map(|feed| feed.id).collect()
    }

    fn has_to_prove(&self) -> bool {
        matches!(self.machine.run_state(), RunState::Trial | RunState::CommittedLocal)
    }

    /// The uplink went or came. An answer to a new reported state says over which endpoint; one that this endpoint gave already stands.
    async fn linked(&mut self) {
        let standing = self.link.borrow_and_update().clone();
        let uplink = self.proof.standing(standing.as_ref());
        if self.has_to_prove() && matches!(uplink, UplinkEvidence::Up { acked_after_change: false, .. }) {
            self.report();
        }
        self.evidence(uplink).await;
    }

    async fn evidence(&mut self, uplink: UplinkEvidence) {
        if !self.has_to_prove() {
            return;
        }
        let Some(local) = self.sources.evidence().await else { return };
        let evidence = gathered(local, &self.running.settings.feeds, &self.board.conditions(), uplink);
        self.input(Input::Evidence(evidence), None).await;
    }

    async fn asked(&mut self, asked: Asked) {
        match &asked.request {
            Request::History => asked.answer(Ok(Response::History(HistoryView::of(self.machine.ledger())))),
            Request::Texts => {
                let texts = block_in_place(|| self.texts());
                asked.answer(texts.map(Response::Texts));
            }
            Request::Order(given) => {
                let given = given.clone();
                self.orders.local(given, asked);
            }
            Request::Apply { envelope } => {
                let (done, actions) = self.document(envelope.as_bytes());
                asked.answer(done.map(|done| Response::Done { done })); // durable; putting it to use may take longer than anybody waits
                self.carry_out(actions).await;
            }
            Request::Rollback { who, why } => {
                let input = Input::RollbackAsked { who: who.clone(), why: why.clone() };
                self.waiting = Some(asked);
                self.input(input, None).await;
                if let Some(asked) = self.waiting.take() {
                    asked.answer(Err("nothing came of it; look at `siteward config history`".to_owned()));
                }
            }
        }
    }

    fn texts(&self) -> Result<TextsView, String> {
        let ledger = self.machine.ledger();
        let view = |generation: &Generation| -> Result<TextView, String> {
            let text = self.ground.restore(&self.store, generation)?.running.text;
            Ok(TextView { revision: generation.revision(), text: text.to_string() })
        };
        Ok(TextsView { committed: view(&ledger.committed)?, previous: ledger.previous.as_ref().map(view).transpose()? })
    }

    /// SIGHUP.
    async fn reload(&mut self) {
        if *self.machine.committed().0 != Generation::Bootstrap || !self.machine.is_idle() {
            self.unfed.read_again(&self.ground.local.file);
            return tracing::warn!("SIGHUP: a document of central IT runs or is on trial; the feeds of the local file do not count");
        }
        let reload = Reload { file: &self.ground.local.file, running: &self.ground.local_settings, sources: &self.sources };
        let (text, settings) = match reload.once().await {
            Ok(Some(read)) => read,
            Ok(None) => return,
            Err(error) => {
                tracing::error!("{error}: the feeds that ran are put to use again, tried every second; send SIGHUP again when they are");
                self.owes_what_ran(error.to_string());
                return self.report();
            }
        };
        self.ground.reloaded(&text, &settings.feeds);
        // What the uplink has is its own affair: it may be owed other settings yet.
        let uplink = std::mem::replace(&mut self.running, self.ground.local()).settings.uplink;
        self.running.settings.uplink = uplink;
        self.owes_anew(self.ground.local());
        self.report();
    }

    // ---- actions ----

    async fn carry_out(&mut self, actions: Vec<Action>) {
        let mut todo = std::collections::VecDeque::from(actions);
        while let Some(action) = todo.pop_front() {
            let next = match action {
                Action::Apply(facts) => Some(self.apply(&facts).await),
                Action::Revert(generation) => {
                    self.revert(&generation).await;
                    None
                }
                Action::Report => {
                    self.report();
                    None
                }
                Action::Reconsider(facts) => Some(self.reconsider(&facts)),
                Action::Answer(answer) => {
                    if let Some(asked) = self.waiting.take() {
                        asked.answer(answer.map(|done| Response::Done { done }));
                    }
                    None
                }
                // What runs again has not the feeds of the trial: its sources retired them.
                Action::Retire(feeds) => {
                    tracing::info!(feeds = feeds.len(), "feeds of the trial are retired; they send what they hold");
                    None
                }
                Action::RunCommand(counter) => {
                    self.run_command(counter);
                    None
                }
                Action::RefuseCommand { counter, why } => {
                    self.refuse_command(counter, &why);
                    None
                }
                Action::Persist { .. } => None, // carried out by `drive`
            };
            if let Some((input, envelope)) = next {
                let at = now(self.start);
                let more = block_in_place(|| drive(&mut self.machine, &mut self.store, at, input, envelope.as_deref()));
                for action in more.into_iter().rev() {
                    todo.push_front(action);
                }
            }
        }
    }

    /// What is committed may ask for a new certificate; what is on trial may not.
    fn tell_renewal(&self) {
        if self.machine.is_idle() && self.owed.is_none() {
            self.renew.send_if_modified(|known| {
                let wanted = &self.running.settings.renew;
                let other = known != wanted;
                known.clone_from(wanted);
                other
            });
        }
    }

    /// Board, conditions and the retained reported state.
    pub(super) fn report(&mut self) {
        if let Some(entry) = self.machine.ledger().history.last() {
            let revision = format!("{} attempt {}", entry.revision, entry.attempts);
            let reason = if entry.why.is_empty() { entry.meta.reason.clone() } else { format!("{}: {}", entry.code, entry.why) };
            self.orders.book().note_revision(&entry.meta.author, entry.outcome.as_str(), &revision, &reason);
        }
        let text = show::render(&self.running.settings);
        report::show(&self.machine, &self.board, &text, self.owed.is_some());
        self.tell_renewal();
        let at = now(self.start);
        self.quarantine.follow(&self.machine, at.mono_ms, &self.running.settings.feeds, &self.board);
        let retired = self.retired();
        let around = Surroundings {
            gateway: self.ground.identity.gateway.clone(),
            effective_digest: Some(DocumentDigest::of(text.as_bytes())),
            retired_feeds: retired.clone(),
            overrides: self.local.overrides.borrow_and_update().clone(),
            secret_key: self.local.secret_key.clone(),
            commands: report::Commands::of(&self.orders.desk, self.machine.ledger().highest_command),
            timezone: self.ground.local_settings.gateway.timezone.clone(),
            groups: self.ground.identity.groups.clone(),
            trust: report::Trust::of(&self.ground.anchors),
            wall: at.wall,
        };
        let Some(reported) = report::reported(&self.machine, around) else { return };
        let payload = serde_json::to_vec(&reported).expect("plain values");
        match self.mail.post(Letter::Reported(payload.into())) {
            Ok(answer) => {
                self.proof.posted(answer);
                self.retired_told = retired;
            }
            Err(error) => {
                self.proof.not_posted();
                tracing::warn!("the state of the configuration could not be handed to the uplink: {error}");
            }
        }
    }
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;
