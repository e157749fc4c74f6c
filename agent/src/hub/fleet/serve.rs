//! `fleet serve`: follows the fleet, answers who asks for metrics, and tells receivers of alarms.
//!
//! ```text
//!   follow ─► events ─► model ─► alarms ─► journal (synced) ─► a task per receiver ─► webhook
//!                         └────► metrics page when asked                └─► done ─► journal
//! ```
//!
//! 1. One loop owns nothing but the order of things; model and alarms are behind one lock that is never held across a wait.
//! 2. Nothing is sent before the file of alarms is synced with it. While that fails nothing new is sent, and it is said.
//! 3. Alarms are looked at only while connected and after what the broker keeps has come: a gateway that has not been heard of yet is not gone,
//!    and while we hear nothing nothing is said to be over.
//! 4. A receiver that is away is tried again with back-off for ever; the others do not wait for it.
//! 5. When certificates and lists of the desk end is looked at every hour, said twice a day from 60 days before, and among the metrics.
//! 6. Stop: deliveries under way are cut off; they are sent again, under the same key, by the next start.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::alarms::{Alarms, Rules};
use super::journal::Journal;
use super::look::{self, Event, Reach};
use super::metrics::{self, Counts, Format};
use super::port::{Address, Port};
use super::webhook::{Client, Outcome, Target};
use super::{Fleet, Id};
use crate::clock;
use crate::hub::ends::{self, End, Sources};
use crate::limits::{ALARM_LOOK_INTERVAL, FLEET_PENDING_MAX, FLEET_TICK, WEBHOOK_BACKOFF_MAX, WEBHOOK_BACKOFF_MIN, WEBHOOK_REFUSALS_MAX};
use crate::record::{Incarnation, Name};

const GIVEN_UP: &str = "the gateway is not on the list of those that there should be, and is not online; nobody waits for it";
const UNKNOWN: &str = "nothing is known of this gateway any more: neither a list nor the broker has it";

/// What to serve, to whom.
#[derive(Debug)]
pub struct Options {
    pub reach: Reach,
    pub expected: Vec<Id>,
    /// Whether there is a list at all.
    pub listed: bool,
    pub metrics: Option<Address>,
    /// Receivers with what they are reached by, and the file of alarms.
    pub webhooks: Option<(Vec<Target>, Client, PathBuf)>,
    pub rules: Rules,
    /// Whose end is told.
    pub ends: Sources,
}

/// Model, alarms and figures.
#[derive(Debug, Default)]
struct State {
    fleet: Fleet,
    alarms: Alarms,
    counts: Counts,
    /// When what the desk needs ends, as last looked at.
    ends: Vec<End>,
    /// Notices that the file has.
    saved: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The file has more than before.
    saved: Notify,
    /// There is more to save.
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, format: Format) -> String {
        let mut state = self.lock();
        state.counts.alarms = state.alarms.len() as u64;
        state.counts.alarms_beyond = state.alarms.beyond;
        state.counts.notices_waiting = state.alarms.waiting() as u64;
        state.counts.notices_dropped = state.alarms.dropped;
        let (fleet, counts, ends) = (state.fleet.clone(), state.counts, state.ends.clone());
        drop(state);
        metrics::page(&fleet, &counts, &ends, format, clock::now().unix_ms)
    }
}

/// Serves until `stop`. An error is a sentence.
pub async fn serve(options: Options, stop: watch::Receiver<bool>) -> Result<(), String> {
    let Options { reach, expected, listed, metrics, webhooks, rules, ends } = options;
    let shared = Arc::new(Shared::default());
    if listed {
        shared.lock().fleet.expect(expected);
    }
    let mut tasks = JoinSet::new();
    let looking = Arc::clone(&shared);
    tasks.spawn(ends::watch(ends, move |ends| looking.lock().ends = ends));
    if let Some(address) = metrics {
        let (port, shared) = (Port::open(&address).await?, Arc::clone(&shared));
        tracing::info!("metrics at {address}");
        tasks.spawn(port.serve(move |format| shared.page(format)));
    }
    if let Some((targets, client, file)) = webhooks {
        let (journal, mut alarms) = Journal::open(&file)?;
        alarms.address(&targets.iter().map(|target| target.address.clone()).collect::<Vec<_>>());
        {
            let mut state = shared.lock();
            let kept = alarms
                .windows()
                .iter()
                .map(|(site, gateway, window)| (Id { site: site.clone(), gateway: gateway.clone() }, window.clone()));
            state.fleet.remember(kept);
            state.alarms = alarms;
        }
        shared.changed.notify_one();
        tasks.spawn(keep(journal, Arc::clone(&shared)));
        for target in targets {
            tasks.spawn(tell(target, client.clone(), Arc::clone(&shared)));
        }
    }
    let (sender, events) = mpsc::channel(FLEET_PENDING_MAX);
    let following = tokio::spawn(look::follow(reach, sender, stop));
    listen(&shared, events, &rules).await;
    drop(tasks);
    following.await.map_err(|_| "following the fleet failed in a way that should not happen; please report this".to_owned())?
}

/// Until nobody tells anything any more.
async fn listen(shared: &Shared, mut events: mpsc::Receiver<Event>, rules: &Rules) {
    let mut tick = interval(FLEET_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What is kept comes at once behind the connection; alarms are looked at when nothing more comes.
    let (mut connected, mut settled, mut heard, mut looked) = (false, false, Instant::now(), Instant::now());
    loop {
        tokio::select! {
            event = events.recv() => match event {
                None => return,
                Some(Event::Connected) => {
                    (connected, settled, heard) = (true, false, Instant::now());
                    let mut state = shared.lock();
                    (state.counts.connected, state.counts.connections) = (true, state.counts.connections + 1);
                    tracing::info!("following the fleet");
                }
                Some(Event::Lost(why)) => {
                    (connected, settled) = (false, false);
                    shared.lock().counts.connected = false;
                    tracing::warn!("not connected: {why}; trying again");
                }
                Some(event @ Event::Heard { .. }) => {
                    heard = Instant::now();
                    let mut state = shared.lock();
                    let Some(id) = look::take(&mut state.fleet, &event) else { continue };
                    if settled && state.observe(&id, rules) {
                        shared.changed.notify_one();
                    }
                }
            },
            _ = tick.tick() => {
                let first = !settled && connected && heard.elapsed() >= look::SETTLED;
                settled |= first;
                if settled && (first || looked.elapsed() >= ALARM_LOOK_INTERVAL) {
                    looked = Instant::now();
                    if shared.lock().observe_all(rules) {
                        shared.changed.notify_one();
                    }
                }
            }
        }
    }
}

impl State {
    fn observe(&mut self, id: &Id, rules: &Rules) -> bool {
        let now_ms = clock::now().unix_ms;
        let Some(row) = self.fleet.row(id, now_ms) else { return false };
        if self.fleet.is_given_up(id) {
            self.alarms.dismiss(&(row.site, row.gateway), GIVEN_UP, now_ms);
            return false;
        }
        let before = self.alarms.beyond;
        let kept = self.alarms.maintain(&(row.site.clone(), row.gateway.clone()), self.fleet.windows(id), now_ms);
        let told = self.alarms.observe(&row, rules, fresh_id, now_ms) | kept;
        if self.alarms.beyond != before {
            tracing::error!("too many alarms are raised; further ones are not told");
        }
        told
    }

    fn observe_all(&mut self, rules: &Rules) -> bool {
        let now_ms = clock::now().unix_ms;
        let mut told = false;
        let all: Vec<Id> = self.fleet.members().keys().cloned().collect();
        for id in &all {
            told |= self.observe(id, rules);
        }
        let is_unknown =
            |(site, gateway): &&(Name, Name)| !self.fleet.members().contains_key(&Id { site: site.clone(), gateway: gateway.clone() });
        for gateway in self.alarms.gateways().filter(is_unknown).cloned().collect::<Vec<_>>() {
            self.alarms.dismiss(&gateway, UNKNOWN, now_ms);
        }
        told |= self.alarms.tick(rules, now_ms);
        told
    }
}

/// Met once: 128 random bits.
fn fresh_id() -> String {
    let mut bytes = [0; 16];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // The time is the next best thing; two alarms of one instant would be taken for one.
        tracing::warn!(%error, "no random numbers");
        bytes[..8].copy_from_slice(&clock::now().unix_ms.to_be_bytes());
    }
    Incarnation(bytes).to_string()
}

/// Writes the alarms down whenever they changed.
async fn keep(journal: Journal, shared: Arc<Shared>) {
    let journal = Arc::new(journal);
    loop {
        shared.changed.notified().await;
        let mut wait = WEBHOOK_BACKOFF_MIN;
        loop {
            let alarms = shared.lock().alarms.clone();
            let told = alarms.told();
            let journal = Arc::clone(&journal);
            match spawn_blocking(move || journal.save(&alarms)).await {
                Ok(Ok(())) => {
                    shared.lock().saved = told;
                    shared.saved.notify_waiters();
                    break;
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "alarms cannot be written down, nothing new is sent meanwhile; make room or repair the disk");
                }
                Err(_) => tracing::error!("writing alarms down failed in a way that should not happen; please report this"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(WEBHOOK_BACKOFF_MAX);
        }
    }
}

/// Delivers one receiver's notices, one after the other, for ever.
async fn tell(target: Target, client: Client, shared: Arc<Shared>) {
    let (mut wait, mut refusals) = (WEBHOOK_BACKOFF_MIN, 0);
    loop {
        let next = {
            let mut waiting = std::pin::pin!(shared.saved.notified());
            // Registered before looking, so that nothing is missed in between.
            waiting.as_mut().enable();
            let next = {
                let state = shared.lock();
                state.alarms.next(&target.address, state.saved).cloned()
            };
            let Some(next) = next else {
                waiting.await;
                continue;
            };
            next
        };
        let body = Bytes::from(serde_json::to_vec(&next).expect("a notice is plain data"));
        let outcome = client.deliver(&target, &next.key, body).await;
        let dropped = match &outcome {
            Outcome::Taken => false,
            Outcome::Refused(_) if refusals + 1 >= WEBHOOK_REFUSALS_MAX => true,
            Outcome::Refused(why) | Outcome::Failed(why) => {
                refusals += u32::from(matches!(outcome, Outcome::Refused(_)));
                shared.lock().counts.notices_failed += 1;
                tracing::warn!(receiver = %target, wait_s = wait.as_secs(), "a notice was not taken: {why}; trying again");
                sleep(jittered(wait)).await;
                wait = (wait * 2).min(WEBHOOK_BACKOFF_MAX);
                continue;
            }
        };
        if dropped {
            tracing::error!(receiver = %target, code = next.code, site = %next.site, gateway = %next.gateway, "a notice was refused for good and is dropped");
        }
        (wait, refusals) = (WEBHOOK_BACKOFF_MIN, 0);
        let mut state = shared.lock();
        state.counts.notices_delivered += u64::from(!dropped);
        if state.alarms.done(&target.address, &next.key, dropped) {
            shared.changed.notify_one();
        }
    }
}

/// Between a half and the whole.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without random numbers it is the whole.
    if getrandom::fill(&mut byte).is_err() {
        return wait;
    }
    wait.mul_f64(0.5 + f64::from(byte[0]) / 510.0)
}
