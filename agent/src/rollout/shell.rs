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
//! 4. A configuration that could not be put back is tried again every second: the machine has decided, the world has to follow.
//! 5. At the stop nothing is undone: what is on trial counts as failed at the next start.
//!
//! SIGHUP reads the local file's feeds again, as long as no document runs.

use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval};

use super::drive;
use super::facts::{Evidence, Facts, FeedFault, Generation, UplinkEvidence};
use super::handle::{Asked, HistoryView, Request, Response, TextView, TextsView};
use super::machine::{Action, Input, Machine, RunState};
use super::proof::Proof;
use super::report::{self, Surroundings};
use super::start::{Ground, Running, Started, now};
use super::store::Store;
use super::watch::QuarantineWatch;
use crate::config::settings::Endpoint;
use crate::config::{Files, diff, show};
use crate::forward::mail::{Inbound, Letter, Mail};
use crate::limits::ROLLOUT_TICK;
use crate::record::DocumentDigest;
use crate::reload::Reload;
use crate::sources::SourcesHandle;
use crate::spool::Monitor;
use crate::status::board::Board;
use crate::status::condition::Code;

/// What the rollout works with.
#[derive(Debug)]
pub struct Means {
    pub sources: SourcesHandle,
    pub mail: Mail,
    pub board: Arc<Board>,
    pub monitor: Monitor,
    pub asked: mpsc::Receiver<Asked>,
    pub hangup: Signal,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Shell {
    pub(super) machine: Machine,
    pub(super) store: Store,
    pub(super) ground: Ground,
    pub(super) running: Running,
    sources: SourcesHandle,
    pub(super) mail: Mail,
    pub(super) link: watch::Receiver<Option<Endpoint>>,
    board: Arc<Board>,
    monitor: Monitor,
    asked: mpsc::Receiver<Asked>,
    hangup: Signal,
    proof: Proof,
    quarantine: QuarantineWatch,
    /// What is to run and does not yet.
    owed: Option<Running>,
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
}

impl Shell {
    pub fn new(started: Started, means: Means, start: Instant) -> Self {
        let Started { machine, store, ground, running, actions } = started;
        let Means { sources, mail, board, monitor, asked, hangup } = means;
        Self {
            link: mail.link(),
            quarantine: QuarantineWatch::default(),
            proof: Proof::default(),
            owed: None,
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
            start,
        }
    }

    /// Until told to stop.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let first = std::mem::take(&mut self.todo);
        self.carry_out(first).await;
        let mut tick = interval(ROLLOUT_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut posts, mut asks, mut links, mut hangs) = (true, true, true, true);
        loop {
            let woken = tokio::select! {
                biased;
                _ended = stop.wait_for(|stop| *stop) => return,
                _ = tick.tick() => Woken::Tick,
                evidence = self.proof.answer() => Woken::Proven(evidence),
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
                    self.document(&payload).await;
                }
                // Nothing signed is executed before there is somebody to answer for it.
                Woken::Inbound(Some(Inbound::Command { payload })) => {
                    tracing::warn!(bytes = payload.len(), "a command came; this version carries out none");
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
        self.pay().await;
        self.input(Input::Tick, None).await;
        if matches!(self.machine.run_state(), RunState::Trial | RunState::CommittedLocal) {
            let uplink = self.proof.standing(self.link.borrow().as_ref());
            self.evidence(uplink).await;
        }
        self.quarantine.look(now(self.start).mono_ms, &self.running.settings.feeds, &self.board);
    }

    /// The uplink went or came. An answer to a new reported state says over which endpoint.
    async fn linked(&mut self) {
        let standing = self.link.borrow_and_update().clone();
        if standing.is_some() && self.machine.run_state() == RunState::CommittedLocal {
            self.report();
        }
        let uplink = self.proof.standing(standing.as_ref());
        self.evidence(uplink).await;
    }

    async fn evidence(&mut self, uplink: UplinkEvidence) {
        if !matches!(self.machine.run_state(), RunState::Trial | RunState::CommittedLocal) {
            return;
        }
        let Some(local) = self.sources.evidence().await else { return };
        let conditions = self.board.conditions();
        let fault = |feed: &crate::record::FeedId, key: &str| {
            let told =
                conditions.iter().find(|condition| condition.subject == feed.as_str() && condition.code != Code::ListenerOpen.as_str());
            let why = told.map_or_else(|| "has not been seen to work yet; look at the agent's log".to_owned(), |told| told.text.clone());
            FeedFault { feed: feed.clone(), key: key.to_owned(), why }
        };
        let faults = local.unbound.iter().map(|feed| fault(feed, "listen")).chain(local.unreadable.iter().map(|feed| fault(feed, "path")));
        let evidence = Evidence {
            listeners_bound: local.unbound.is_empty(),
            directories_readable: local.unreadable.is_empty(),
            faults: faults.collect(),
            waiting_for_peers: local.waiting_for_peers,
            uplink,
        };
        self.input(Input::Evidence(evidence), None).await;
    }

    async fn asked(&mut self, asked: Asked) {
        match &asked.request {
            Request::History => asked.answer(Ok(Response::History(HistoryView::of(self.machine.ledger())))),
            Request::Texts => {
                let texts = block_in_place(|| self.texts());
                asked.answer(texts.map(Response::Texts));
            }
            Request::Apply { envelope } => {
                let envelope = envelope.clone().into_bytes();
                let done = self.document(&envelope).await;
                asked.answer(Ok(Response::Done { done }));
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
            let text = self.ground.restore(&self.store, generation, &self.board)?.text;
            Ok(TextView { revision: generation.revision(), text: text.to_string() })
        };
        Ok(TextsView { committed: view(&ledger.committed)?, previous: ledger.previous.as_ref().map(view).transpose()? })
    }

    /// SIGHUP.
    async fn reload(&mut self) {
        if *self.machine.committed().0 != Generation::Bootstrap || !self.machine.is_idle() {
            return tracing::warn!("SIGHUP: a document of central IT runs or is on trial; the feeds of the local file do not count");
        }
        let reload = Reload { file: &self.ground.local.file, running: &self.ground.local_settings, sources: &self.sources };
        if let Some((text, settings)) = reload.once().await {
            self.ground.local.text = text;
            self.ground.local_settings.feeds.clone_from(&settings.feeds);
            self.running = self.ground.local();
            self.report();
        }
    }

    // ---- actions ----

    async fn carry_out(&mut self, actions: Vec<Action>) {
        let mut todo = std::collections::VecDeque::from(actions);
        while let Some(action) = todo.pop_front() {
            let next = match action {
                Action::Apply(facts) => self.apply(&facts).await,
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
                Action::RunCommand(counter) | Action::RefuseCommand { counter, .. } => {
                    tracing::error!(counter, "a command that nobody gave; nothing was done");
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

    async fn apply(&mut self, facts: &Facts) -> Option<(Input, Option<Vec<u8>>)> {
        let judged = block_in_place(|| {
            let envelope = self.store.envelope(facts.digest).map_err(|error| error.to_string())?;
            let document = crate::config::document::open(&envelope, &self.ground.anchors).map_err(|refusal| refusal.to_string())?;
            self.ground.effective(&document, Files::Checked).map_err(|refusal| refusal.to_string())
        });
        let result = match judged {
            Ok(wanted) => self.put_to_use(wanted).await,
            Err(why) => Err(FeedFault { feed: crate::record::Name::new("document").expect("a name"), key: "document".to_owned(), why }),
        };
        Some((Input::Applied { digest: facts.digest, result }, None))
    }

    /// Makes this the configuration in use; at the first feed that cannot follow it is a fault (the others run under it already).
    async fn put_to_use(&mut self, wanted: Running) -> Result<(), FeedFault> {
        let changes = diff::diff(&self.running.settings, &wanted.settings);
        self.proof.changed();
        let feeds = Arc::from(wanted.settings.feeds.as_slice());
        let applied = self.sources.apply(feeds).await;
        let first = wanted.settings.feeds.first().map_or_else(|| self.ground.identity.gateway.clone(), |feed| feed.id.clone());
        let faults = applied.map_err(|error| FeedFault { feed: first, key: "feed".to_owned(), why: error.to_string() })?;
        if (changes.uplink_changed || changes.endpoints_changed)
            && let Err(error) = self.mail.replace_uplink(wanted.settings.uplink.clone())
        {
            tracing::error!("the uplink's settings could not be handed over: {error}");
        }
        self.running = wanted;
        match faults.into_iter().next() {
            None => Ok(()),
            Some(fault) => Err(FeedFault { feed: fault.feed, key: fault.key.to_owned(), why: fault.reason }),
        }
    }

    async fn revert(&mut self, generation: &Generation) {
        let wanted = block_in_place(|| self.ground.restore(&self.store, generation, &self.board));
        self.owed = Some(wanted.unwrap_or_else(|why| {
            tracing::error!("the configuration from before cannot be read: {why}; the local file runs");
            self.ground.local()
        }));
        self.quarantine.taken_back();
        self.pay().await;
    }

    /// Puts to use what has been decided and could not be done before. Feeds that cannot follow are tried again by their sources.
    async fn pay(&mut self) {
        let Some(wanted) = self.owed.take() else { return };
        if let Err(fault) = self.put_to_use(wanted.clone()).await {
            tracing::warn!(feed = %fault.feed, "not everything is back as it was yet: {}", fault.why);
            if self.running.settings != wanted.settings {
                self.owed = Some(wanted);
            }
        }
    }

    /// Board, conditions and the retained reported state.
    fn report(&mut self) {
        let text = show::render(&self.running.settings);
        report::show(&self.machine, &self.board, &text);
        let at = now(self.start);
        self.quarantine.follow(&self.machine, at.mono_ms, &self.running.settings.feeds, &self.board);
        let retired = self.monitor.view().feeds.into_iter().filter(|feed| feed.retired && feed.settled_seq < feed.last_seq);
        let around = Surroundings {
            gateway: self.ground.identity.gateway.clone(),
            effective_digest: Some(DocumentDigest::of(text.as_bytes())),
            retired_feeds: retired.map(|feed| feed.id).collect(),
            wall: at.wall,
        };
        let Some(reported) = report::reported(&self.machine, around) else { return };
        let payload = serde_json::to_vec(&reported).expect("plain values");
        match self.mail.post(Letter::Reported(payload.into())) {
            Ok(answer) => self.proof.posted(answer),
            Err(error) => tracing::warn!("the state of the configuration could not be handed to the uplink: {error}"),
        }
    }
}
