//! Orders on their way: signed commands from the hub and their local twins, judged, written down, carried out, answered, audited.
//!
//! ```text
//!   command ─► CommandDesk ─┬─► machine: counter durable ─► new challenge, reported ─► executor ─► result, audit
//!                           └─► refused, known, in doubt ─► result, audit                  ▲           (one at a time)
//!   `siteward feeds pause` … ──────────────────────────────────────────────────────────────┘ ─► answer, audit
//! ```
//!
//! 1. Nothing is executed before its counter is durable in the ledger, so after a kill at any point a command is never executed again: it is in
//!    doubt (see `command`). Nothing is executed beside something else.
//! 2. What is accepted is audited before it begins and when it has ended. What is refused is answered and audited as `refusals` permits, shown as
//!    the condition `command_refused` where it cannot be a mistake, and counted where it is not told.
//! 3. Results are letters: at least once while the agent lives, bounded; audit records are durable (`audit`). A command whose record cannot be
//!    written is not carried out. A result that got lost is given again to whoever sends the
//!    command again.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::command::{Answer, Command, CommandDesk, Decision, Outcome};
use super::executor::{self, Effect, Executor, Given, Order};
use super::handle::{Asked, Response};
use super::machine::Input;
use super::refusals::Refusals;
use super::shell::Shell;
use super::start::now;
use crate::audit::{Book, Intent};
use crate::clock;
use crate::config::settings::{Settings, TrustSettings};
use crate::config::trust::{Anchors, Verified};
use crate::forward::mail::{Letter, Post};
use crate::limits::{COMMAND_REFUSED_SHOWN, COMMAND_TIME, ORDER_TIME, REFUSALS_FORGED, REFUSALS_SIGNED};
use crate::status::condition::Code;

/// Refusals that no honest sender gets.
const SUSPICIOUS: [&str; 5] = ["not_verified", "too_large", "retained", "other_gateway", "old_counter"];

/// Refusals of what comes too early, and comes again.
const WAITS: [&str; 2] = ["running", "busy"];

/// What runs now.
#[derive(Debug)]
struct Running {
    given: Given,
    /// Whoever asked on site; `None`: a signed command.
    asked: Option<Asked>,
    /// Of a signed command; the desk of the control socket keeps its own.
    intent: Option<Intent>,
    task: JoinHandle<Effect>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Orders {
    pub(super) desk: CommandDesk,
    anchors: Anchors,
    executor: Executor,
    /// Accepted; its counter is being written.
    accepted: Option<Command>,
    running: Option<Running>,
    forged: Refusals,
    signed: Refusals,
    /// When the condition `command_refused` was raised last.
    shown_ms: Option<u64>,
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random numbers once it has started");
    bytes
}

fn anchors(trust: &TrustSettings) -> Anchors {
    Anchors::for_commands(trust).unwrap_or_else(|why| {
        tracing::error!("{why}; commands are refused until that is mended and the agent started again");
        Anchors::default()
    })
}

impl Orders {
    /// At a start. `highest`: the highest counter in the ledger. Blocking: reads the keys.
    pub fn new(local: &Settings, highest: u64, executor: Executor) -> Self {
        Self {
            desk: CommandDesk::new(local.gateway.id.clone(), local.trust.commands.clone(), highest, random()),
            anchors: anchors(&local.trust),
            executor,
            accepted: None,
            running: None,
            forged: Refusals::new(REFUSALS_FORGED.0, REFUSALS_FORGED.1),
            signed: Refusals::new(REFUSALS_SIGNED.0, REFUSALS_SIGNED.1),
            shown_ms: None,
        }
    }

    /// Other trust anchors count from now on.
    pub(super) fn follow(&mut self, trust: &TrustSettings) {
        self.anchors = anchors(trust);
    }

    fn poster(&self) -> &Post {
        &self.executor.poster
    }

    pub(super) fn book(&self) -> &Book {
        &self.executor.book
    }

    /// A command came. The counter of one that may be carried out; whatever else is answered here.
    fn judge(&mut self, payload: &[u8], retained: bool, highest: u64, mono_ms: u64) -> Option<u64> {
        let wall = clock::now();
        let decision = if retained {
            Decision::Answer(self.desk.retained(highest, wall))
        } else {
            let anchors = &self.anchors;
            self.desk.receive(payload, |envelope, kind| anchors.verify(envelope, kind).map(Verified::into_payload), highest, wall)
        };
        match decision {
            // An order on site runs.
            Decision::Accept(command) if self.running.is_some() => {
                let answer = self.desk.busy(&command, highest, wall);
                self.refuse(&answer, mono_ms);
                None
            }
            Decision::Accept(command) => {
                let counter = command.counter;
                self.accepted = Some(command);
                Some(counter)
            }
            Decision::Answer(answer) => {
                self.refuse(&answer, mono_ms);
                None
            }
        }
    }

    /// Answers what is not carried out (now), as far as that may be said.
    fn refuse(&mut self, answer: &Answer, mono_ms: u64) {
        let words = if answer.counter.is_none() { &mut self.forged } else { &mut self.signed };
        let told = words.refused(mono_ms);
        if SUSPICIOUS.contains(&answer.code.as_str()) {
            self.shown_ms = Some(mono_ms);
            let text = format!("commands came that are not carried out here, the last ({}): {}", answer.code, answer.text);
            self.executor.board.raise(Code::CommandRefused, "", text);
        }
        let Some(left_out) = told else { return };
        let is_news = matches!(answer.outcome, Outcome::Refused | Outcome::InDoubt) && !WAITS.contains(&answer.code.as_str());
        if is_news {
            let who = answer.counter.map_or_else(|| "unknown".to_owned(), |counter| format!("signed command {counter}"));
            let what = if answer.outcome == Outcome::InDoubt { "command_in_doubt" } else { "command_refused" };
            tracing::warn!(code = answer.code, who, left_out, "a command is not carried out: {}", answer.text);
            let more = if left_out > 0 { format!(" ({left_out} others before it were not told one by one)") } else { String::new() };
            self.book().note(&who, what, &answer.code, &format!("{}{more}", answer.text));
        }
        self.result(answer);
    }

    /// Time passes.
    fn tick(&mut self, mono_ms: u64) {
        let left_out = self.forged.due(mono_ms).unwrap_or(0) + self.signed.due(mono_ms).unwrap_or(0);
        if left_out > 0 {
            let text = format!("{left_out} commands more were refused and not told one by one");
            tracing::warn!("{text}");
            self.book().note("unknown", "command_refused", "flood", &text);
        }
        let shown = u64::try_from(COMMAND_REFUSED_SHOWN.as_millis()).unwrap_or(u64::MAX);
        if self.shown_ms.is_some_and(|at| mono_ms.saturating_sub(at) >= shown) {
            self.shown_ms = None;
            self.executor.board.clear(Code::CommandRefused, "");
        }
    }

    /// The counter of the accepted command is durable.
    fn begin(&mut self, counter: u64) {
        let Some(command) = self.accepted.take().filter(|command| command.counter == counter) else {
            return tracing::error!(counter, "a command is to be carried out that nobody gave; nothing was done");
        };
        self.desk.begin(&command, random());
        let Command { verb, author, reason, .. } = command;
        let given = Given { order: Order::Verb(verb), who: author, why: reason };
        tracing::warn!(counter, verb = given.order.name(), who = given.who, "a signed command is carried out: {}", given.why);
        match self.book().begin(&given.who, given.order.name(), &given.order.subject(), &given.why) {
            Ok(intent) => self.start(given, None, Some(intent), COMMAND_TIME),
            Err(why) => {
                tracing::error!(counter, "a command is not carried out: {why}");
                if let Some(answer) = self.desk.finish(Outcome::Failed, why, None, clock::now()) {
                    self.result(&answer);
                }
            }
        }
    }

    /// The counter could not be written: it was not carried out.
    fn abandon(&mut self, counter: u64, why: &str, highest: u64, mono_ms: u64) {
        if let Some(command) = self.accepted.take().filter(|command| command.counter == counter) {
            let answer = self.desk.abandoned(&command, why, highest, clock::now());
            self.refuse(&answer, mono_ms);
        }
    }

    fn start(&mut self, given: Given, asked: Option<Asked>, intent: Option<Intent>, time: Duration) {
        let task = self.executor.start(given.clone(), time);
        self.running = Some(Running { given, asked, intent, task });
    }

    /// An order on site.
    pub(super) fn local(&mut self, given: Given, asked: Asked) {
        if self.running.is_some() || self.accepted.is_some() {
            return asked.answer(Err("another order is being carried out; ask again".to_owned()));
        }
        self.start(given, Some(asked), None, ORDER_TIME);
    }

    /// The end of what runs; pends where nothing does. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Effect {
        executor::ended(self.running.as_mut().map(|running| &mut running.task)).await
    }

    /// What ran has ended.
    pub(super) fn finish(&mut self, effect: Effect) {
        let Some(Running { given, asked, intent, .. }) = self.running.take() else { return };
        let Effect { outcome, text, data } = effect;
        let suffix = if outcome == Outcome::Done { "done" } else { "failed" };
        tracing::info!(order = given.order.name(), who = given.who, "{suffix}: {text}");
        if let Some(intent) = intent {
            self.book().end(intent, outcome == Outcome::Done, &text);
        }
        match asked {
            Some(asked) => asked.answer(if outcome == Outcome::Done { Ok(Response::Done { done: text }) } else { Err(text) }),
            None => {
                if let Some(answer) = self.desk.finish(outcome, text, data, clock::now()) {
                    self.result(&answer);
                }
            }
        }
    }

    fn result(&self, answer: &Answer) {
        let payload = serde_json::to_vec(answer).expect("plain values");
        // Whether it arrives is not waited for: it is given again to whoever sends the command again.
        if let Err(error) = self.poster().post(Letter::CommandResult(payload.into())) {
            tracing::warn!("the result of a command could not be handed to the uplink: {error}");
        }
    }
}

impl Shell {
    fn highest_command(&self) -> u64 {
        self.machine.ledger().highest_command
    }

    /// A command came from the hub.
    pub(super) async fn command(&mut self, payload: &[u8], retained: bool) {
        let (highest, at) = (self.highest_command(), now(self.start));
        if let Some(counter) = self.orders.judge(payload, retained, highest, at.mono_ms) {
            self.input(Input::CommandAccepted { counter }, None).await;
        }
    }

    /// The counter is durable: at most once from here on. Everybody is told the next challenge.
    pub(super) fn run_command(&mut self, counter: u64) {
        self.orders.begin(counter);
        self.report();
    }

    pub(super) fn refuse_command(&mut self, counter: u64, why: &str) {
        let (highest, at) = (self.highest_command(), now(self.start));
        self.orders.abandon(counter, why, highest, at.mono_ms);
    }

    pub(super) fn tick_orders(&mut self) {
        self.orders.tick(now(self.start).mono_ms);
    }
}
