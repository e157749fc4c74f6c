//! Carries a rollout out: the broker, the clock and the journal around the pure [`Waves`]. One loop, one connection at a time.
//!
//! ```text
//!   broker ── reports, status, answers ──► event ─► Waves::step ─► entries ─► journal (synced) ─► then publishes ─► broker
//!   ticks, `stop` file, signals ───────────┘
//! ```
//!
//! 1. Lines are durable before the publishes that rest on them. A journal that cannot be written ends the rollout where it is; `resume` goes on.
//! 2. What is published is read from the journal's documents and held against the plan's digest each time.
//! 3. A lost connection is opened again with a growing pause, for as long as it takes: gateways do not wait for us. Meanwhile nothing is decided.
//! 4. Another client under our name means another operator: it ends this process with a word, and nobody is driven out again. Where the broker does not
//!    say it, connections that are lost again and again soon after they stood do.
//! 5. Time is the desk's clock at the start and the monotonic clock from there, so that nothing jumps while this runs.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::entry::Entry;
use super::journal::Journal;
use super::start::Signed;
use super::{Action, Event, State, Waves};
use crate::clock;
use crate::contract::topic::{self, Kind, ROOT, Topics};
use crate::hub::connection::live::{Live, News, Say};
use crate::hub::reports::{self, Door, GatewayKey, Word};
use crate::limits::{LIVE_BACKOFF, LIVE_CONTESTED, LIVE_SHORT, RETAINED_QUIET, WAVES_TICK};
use crate::record::DocumentDigest;

/// How long to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The rollout is over, and then until no gateway is pending, at most so long.
    Over { then: Duration },
    /// What the broker keeps is read and written down; nothing is published.
    Read,
    /// It is stopped, and the broker knows.
    Stopped,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Over,
    /// Somebody ended this process; the rollout goes on with `resume`.
    Interrupted,
}

/// What is told while it goes on.
#[derive(Debug)]
pub enum Said<'a> {
    Entry(&'a Entry),
    /// About the connection.
    Note(&'a str),
    /// Nothing new; where it stands.
    Standing,
}

/// See the module.
pub struct Driver<'a> {
    pub door: &'a Door,
    pub journal: &'a mut Journal,
    pub waves: &'a mut Waves,
    pub until: Until,
    /// Who stops it as soon as everybody was heard, and why.
    pub stop: Option<(String, String)>,
    pub tell: &'a mut dyn FnMut(&Waves, Said<'_>),
}

impl std::fmt::Debug for Driver<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("until", &self.until).finish_non_exhaustive()
    }
}

/// One connection's state.
struct Line {
    live: Live,
    since: Instant,
    /// When the broker counts as read, unless more comes; `None`: it is read.
    quiet: Option<Instant>,
    up: bool,
    next_tick: Instant,
    todo: VecDeque<Action>,
    unanswered: usize,
}

impl Line {
    fn new(live: Live) -> Self {
        let now = Instant::now();
        Self {
            live,
            since: now,
            quiet: Some(now + Duration::from_hours(1)),
            up: false,
            next_tick: now + WAVES_TICK,
            todo: VecDeque::new(),
            unanswered: 0,
        }
    }
}

struct Clock {
    wall_ms: i64,
    start: Instant,
}

impl Clock {
    fn now(&self) -> i64 {
        self.wall_ms.saturating_add(i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

impl Driver<'_> {
    /// Until the end. The error is a sentence; the journal says how far it came.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<Ending, String> {
        let directory = reports::runtime_directory("rollout")?;
        let clock = Clock { wall_ms: clock::now().unix_ms, start: Instant::now() };
        let targets: BTreeMap<GatewayKey, usize> =
            self.waves.plan().targets.iter().enumerate().map(|(i, t)| ((t.site.clone(), t.gateway.clone()), i)).collect();
        self.waves.only_reads(self.until == Until::Read || self.stop.is_some());
        let mut filters = reports::filters();
        filters.push(format!("{ROOT}/+/+/config/desired"));
        let (mut pause, mut short) = (LIVE_BACKOFF.0, 0);
        let mut over_since = None;
        loop {
            let door = self.door;
            let opened = Live::open(&door.broker, door.tls.as_ref(), (&door.client_id, directory.path()), &filters);
            let opened = tokio::select! {
                opened = opened => opened,
                _ = stop.changed() => return Ok(Ending::Interrupted),
            };
            let why = match opened {
                Ok(live) => {
                    let mut line = Line::new(live);
                    let ended = self.follow(&mut line, &targets, &clock, &mut stop, &mut over_since).await?;
                    if line.up {
                        pause = LIVE_BACKOFF.0;
                    }
                    short = if line.up && line.since.elapsed() < LIVE_SHORT { short + 1 } else { 0 };
                    match ended {
                        Ok(ending) => return Ok(ending),
                        Err(why) if short == LIVE_CONTESTED => {
                            return Err(format!("{why}, {short} times in a row: {}", reports::taken_over(&door.client_id)));
                        }
                        Err(why) => why,
                    }
                }
                Err(why) => {
                    short = 0;
                    why
                }
            };
            self.step(clock.now(), Event::Informed(false), None)?;
            (self.tell)(self.waves, Said::Note(&format!("{why}; tried again in {} s", pause.as_secs())));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => return Ok(Ending::Interrupted),
            }
            pause = (2 * pause).min(LIVE_BACKOFF.1);
        }
    }

    /// One connection: how all of it ended, or why the connection did.
    async fn follow(
        &mut self,
        line: &mut Line,
        targets: &BTreeMap<GatewayKey, usize>,
        clock: &Clock,
        stop: &mut watch::Receiver<bool>,
        over_since: &mut Option<Instant>,
    ) -> Result<Result<Ending, String>, String> {
        loop {
            self.publish(line)?;
            let news = tokio::select! {
                news = timeout_at(line.next_tick, line.live.news.recv()) => news,
                _ = stop.changed() => return Ok(Ok(Ending::Interrupted)),
            };
            let event = match news {
                Ok(Some(News::Up)) => {
                    (line.up, line.quiet) = (true, Some(Instant::now() + RETAINED_QUIET));
                    None
                }
                Ok(Some(News::Heard { topic, payload })) => {
                    line.quiet = line.quiet.map(|_| Instant::now() + RETAINED_QUIET);
                    heard(targets, &topic, &payload).or_else(|| self.foreign(targets, &topic, &payload))
                }
                Ok(Some(News::Sent(token))) => {
                    line.unanswered = line.unanswered.saturating_sub(1);
                    usize::try_from(token).ok().filter(|target| *target < targets.len()).map(Event::Sent)
                }
                Ok(Some(News::Refused(token, why))) => {
                    line.unanswered = line.unanswered.saturating_sub(1);
                    usize::try_from(token).ok().filter(|target| *target < targets.len()).map(|target| Event::Refused(target, why))
                }
                Ok(Some(News::TakenOver)) => return Err(reports::taken_over(&self.door.client_id)),
                Ok(Some(News::Lost(why))) => return Ok(Err(why)),
                Ok(None) => return Ok(Err("the connection ended".to_owned())),
                Err(_) => {
                    line.next_tick = Instant::now() + WAVES_TICK;
                    Some(Event::Tick)
                }
            };
            if let Some(event) = event {
                self.step(clock.now(), event, Some(&mut *line))?;
            }
            if line.up && line.quiet.is_some_and(|quiet| Instant::now() >= quiet) {
                line.quiet = None;
                self.informed(clock, line)?;
            }
            if line.quiet.is_none()
                && let Some((who, why)) = self.journal.stop_asked()
            {
                self.step(clock.now(), Event::Stop { who, why }, Some(&mut *line))?;
            }
            if line.quiet.is_none() && line.unanswered == 0 && self.is_enough(over_since) {
                return Ok(Ok(Ending::Over));
            }
        }
    }

    /// A publish of somebody else for one of our gateways; those of this connection do not come back to it, kept ones are not asked for.
    fn foreign(&self, targets: &BTreeMap<GatewayKey, usize>, topic: &str, payload: &[u8]) -> Option<Event> {
        let parsed = topic::parse(topic).filter(|parsed| matches!(parsed.kind, Kind::Desired))?;
        let target = *targets.get(&(parsed.site, parsed.gateway))?;
        if DocumentDigest::of(payload) == self.waves.plan().targets[target].envelope {
            return None;
        }
        let what = match Signed::read("", payload.to_vec()) {
            _ if payload.is_empty() => "nothing in the document's place".to_owned(),
            Ok(signed) => format!("revision {}", signed.document.header.revision),
            Err(_) => "something that is no document".to_owned(),
        };
        Some(Event::Overwritten(target, what))
    }

    fn informed(&mut self, clock: &Clock, line: &mut Line) -> Result<(), String> {
        self.step(clock.now(), Event::Informed(true), Some(&mut *line))?;
        if let Some((who, why)) = self.stop.take() {
            self.waves.only_reads(false);
            self.step(clock.now(), Event::Stop { who, why }, Some(&mut *line))?;
        }
        (self.tell)(self.waves, Said::Standing);
        Ok(())
    }

    /// Whether there is nothing left to wait for.
    fn is_enough(&self, over_since: &mut Option<Instant>) -> bool {
        match self.until {
            Until::Read => true,
            Until::Stopped => self.waves.is_over(),
            Until::Over { then } => {
                if !self.waves.is_over() {
                    *over_since = None;
                    return false;
                }
                let since = *over_since.get_or_insert_with(Instant::now);
                let all = 0..self.waves.plan().targets.len();
                let is_open = |state| matches!(state, State::Pushed | State::Pending | State::Trying | State::Gone);
                since.elapsed() >= then || !all.map(|target| self.waves.state(target)).any(is_open)
            }
        }
    }

    /// Lets the rollout take an event, writes down what it says, and then publishes.
    fn step(&mut self, now_ms: i64, event: Event, line: Option<&mut Line>) -> Result<(), String> {
        let is_tick = matches!(event, Event::Tick);
        let actions = self.waves.step(now_ms, event);
        let split = actions.iter().position(|action| !matches!(action, Action::Note(_))).unwrap_or(actions.len());
        let (notes, publishes) = actions.split_at(split);
        let entries: Vec<Entry> = notes.iter().cloned().filter_map(entry_of).collect();
        if !entries.is_empty() {
            self.journal.append(&entries)?;
            for entry in &entries {
                (self.tell)(self.waves, Said::Entry(entry));
            }
        } else if is_tick {
            (self.tell)(self.waves, Said::Standing);
        }
        if let Some(line) = line {
            line.unanswered += publishes.len();
            line.todo.extend(publishes.iter().cloned());
        }
        Ok(())
    }

    /// Hands over what there is room for; the rest when answers have come. Waiting here could wait for ourselves.
    fn publish(&self, line: &mut Line) -> Result<(), String> {
        while let Some(action) = line.todo.front() {
            let (target, token, payload) = match action {
                Action::Push(target) => (*target, *target as u64, self.journal.envelope(&self.waves.plan().targets[*target])?),
                Action::Withdraw(target) => (*target, u64::MAX, Vec::new()),
                Action::Note(_) => break,
            };
            let goal = &self.waves.plan().targets[target];
            let topic = Topics::new(&goal.site, &goal.gateway).desired();
            if !line.live.try_say(Say { token, topic, payload }) {
                break;
            }
            line.todo.pop_front();
        }
        Ok(())
    }
}

fn entry_of(action: Action) -> Option<Entry> {
    match action {
        Action::Note(entry) => Some(entry),
        Action::Push(_) | Action::Withdraw(_) => None,
    }
}

/// What a retained or fresh publish says of a gateway that this rollout is for.
fn heard(targets: &BTreeMap<GatewayKey, usize>, topic: &str, payload: &[u8]) -> Option<Event> {
    let (key, word) = reports::read(topic, payload)?;
    let target = *targets.get(&key)?;
    match word {
        Word::Reported(reported) => Some(Event::Reported(target, reported)),
        Word::Presence(presence) => Some(Event::Presence(target, presence)),
        Word::Unreadable => None,
    }
}
