//! Keeps one connection going, for ever: chooses the endpoint, runs the connection, tells the board, waits.
//!
//! A connection that stands ends in order when other settings come (`Uplink::replace`) or a better endpoint can be dialled (`preference`):
//! its task is told to leave, and nothing is dialled before it has.
//!
//! A connection runs in a task of its own, so that even a panic inside the MQTT library is one failed attempt and not the end of the uplink.
//!
//! What the board shows: `down` since the connection was lost, whatever is attempted meanwhile; `uplink_down` only when a new attempt failed
//! too, so that a broker's restart does not alarm anybody; `uplink_refused` for each endpoint that refuses us, until it lets us in;
//! `gateway_id_in_use` until a connection has lasted longer than a twin would wait.
//!
//! Not every broker says that a session was taken over: mosquitto 2.0 just closes. So when it closes several young connections in a row
//! without a word, a twin is suspected: the condition is raised, and the next attempts are not made at once, so that two clones do not throw
//! each other out twice a second. Nothing else changes; a broker that is merely flaky costs a few seconds.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backoff::{Pace, Progress, Retry, suspicious_wait};
use super::dial;
use super::expiry;
use super::fault::{Fault, Kind};
use super::gate::Gate;
use super::mqtt::{self, Ended, How};
use super::preference::Return;
use super::queue;
use super::tls::{self, CaSource, TlsFiles};
use super::{Timing, UplinkIdentity};
use crate::config::settings::{ClientIdentity, Endpoint, TlsKeySource, UplinkSettings};
use crate::limits::{TLS_FILES_INTERVAL, UNEXPLAINED_ENDS};
use crate::secrets::Reference;
use crate::source::tls::{Mark, mark};
use crate::status::board::{Board, UplinkState};
use crate::status::condition::Code;

/// What every connection is made from.
pub(super) struct Context {
    /// The settings that count now; a connection may be of earlier ones.
    pub wanted: watch::Receiver<Arc<UplinkSettings>>,
    pub identity: UplinkIdentity,
    pub board: Arc<Board>,
    pub timing: Timing,
    pub gate: Arc<Gate>,
    pub events: queue::Sender,
    pub stop: watch::Receiver<bool>,
    /// The last connection ended without progress.
    pub flapping: AtomicBool,
    /// Another client is suspected, not known, to use our id.
    pub suspecting: AtomicBool,
}

impl Context {
    /// A connection that stands is no news worth until something is acknowledged.
    pub(super) fn is_flapping(&self) -> bool {
        self.flapping.load(Ordering::Relaxed)
    }

    /// A connection has lasted this long.
    pub(super) fn settled_in(&self, lasted: Duration) {
        let suspecting = self.suspecting.load(Ordering::Relaxed);
        if lasted >= if suspecting { self.timing.keep_alive * 2 } else { self.timing.backoff_slow } {
            self.suspecting.store(false, Ordering::Relaxed);
            self.board.clear(Code::GatewayIdInUse, "");
        }
    }
}

/// What an endpoint is dialled with: its own CA and certificate, where it has them, else those of the bootstrap.
pub(super) fn tls_files(settings: &UplinkSettings, endpoint: &Endpoint) -> Result<TlsFiles, Fault> {
    let UplinkSettings { ca, cert, key, .. } = settings;
    let ca = match (&endpoint.ca, ca) {
        (Some(pem), _) => CaSource::Inline(pem.clone()),
        (None, Some(path)) => CaSource::File(path.clone()),
        (None, None) => return Err(Fault::passing(format!("{endpoint}: TLS needs a CA file; set `ca` under [uplink]"))),
    };
    if let Some(ClientIdentity { cert, key, .. }) = endpoint.identity.as_deref() {
        return Ok(TlsFiles { ca, cert: Some(cert.clone()), key: Some(key.clone()) });
    }
    let key = match key {
        None => None,
        Some(TlsKeySource::File(path)) => Some(path.clone()),
        Some(TlsKeySource::Credential(name)) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(directory) => Some(PathBuf::from(directory).join(name.name())),
            None => {
                return Err(Fault::passing(format!(
                    "{endpoint}: the key is the credential `{}` but systemd passed none; add LoadCredential= to the unit",
                    name.name()
                )));
            }
        },
    };
    Ok(TlsFiles { ca, cert: cert.clone(), key })
}

/// Returns when we are asked to stop, or nobody could ask any more.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the `Uplink` is gone, which asks for the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

pub(super) async fn run(context: Arc<Context>, wanted: watch::Receiver<Arc<UplinkSettings>>) {
    tokio::select! {
        () = connections(&context, wanted.clone()) => {}
        () = expiry::watch(wanted, context.board.clone()) => {}
    }
}

async fn connections(context: &Arc<Context>, mut wanted: watch::Receiver<Arc<UplinkSettings>>) {
    let mut suspicion = Suspicion::default();
    let mut last_text = String::new();
    loop {
        let settings = Arc::clone(&wanted.borrow_and_update());
        let first = settings.endpoints.first().map(ToString::to_string).unwrap_or_default();
        context.board.set_uplink(UplinkState::Connecting, &first, None);
        if !with_settings(context, &settings, &mut wanted, (&mut suspicion, &mut last_text)).await {
            return;
        }
        for endpoint in &settings.endpoints {
            context.board.clear(Code::UplinkRefused, &endpoint.to_string()); // whoever still refuses us says so again
        }
        tracing::info!("the uplink goes on with other settings");
    }
}

/// True: other settings came. False: the end.
async fn with_settings(
    context: &Arc<Context>,
    settings: &Arc<UplinkSettings>,
    wanted: &mut watch::Receiver<Arc<UplinkSettings>>,
    (suspicion, last_text): (&mut Suspicion, &mut String),
) -> bool {
    let endpoints = &settings.endpoints;
    let mut retry = Retry::new(endpoints.len());
    let mut returning = Return::default();
    let mut stop = context.stop.clone();
    loop {
        let at = retry.endpoint();
        let endpoint = &endpoints[at];
        let (Ended { how, progressed, lasted }, left_for) = supervised(context, settings, at, wanted, &mut returning).await;
        let steady = progressed && lasted.is_some_and(|lasted| lasted >= context.timing.steady);
        returning.ended(at, steady);
        let fault = match (how, left_for) {
            // Nobody but us could have asked to leave.
            (How::Stopped, _) | (How::Left, None) => return false,
            (_, Some(Left::ForSettings)) => return true,
            (_, Some(Left::ForEndpoint(better))) => {
                returning.attempted();
                retry.start_at(better);
                continue;
            }
            (How::Fault(fault), None) => fault,
        };
        let young = lasted.map(|lasted| lasted < context.timing.keep_alive);
        let (fault, twin) = suspicion.weigh(fault, young);
        if twin {
            context.suspecting.store(true, Ordering::Relaxed);
        }
        if fault.text != *last_text {
            tracing::info!("{}", fault.text);
            last_text.clone_from(&fault.text);
        }
        report(context, endpoint, &fault, progressed);
        // Without randomness the bound itself is waited for.
        let random = getrandom::u64().unwrap_or(u64::MAX);
        let progress = if steady {
            Progress::Steady
        } else if progressed {
            Progress::Brief
        } else {
            Progress::None
        };
        let wait = retry.failed(fault.pace, progress, &context.timing, random);
        let wait = if twin { wait.max(suspicious_wait(&context.timing, random)) } else { wait };
        tracing::debug!(?wait, "next attempt: {}", endpoints[retry.endpoint()]);
        tokio::select! {
            () = stopped(&mut stop) => return false,
            Ok(()) = wanted.changed() => return true,
            () = pause(settings, endpoint, fault.pace, wait) => {}
        }
    }
}

/// What a connection was left for.
#[derive(Clone, Copy, Debug)]
enum Left {
    ForSettings,
    /// The number of a better one that can be dialled.
    ForEndpoint(usize),
}

/// One connection, and while it stands an eye on what would be better.
async fn supervised(
    context: &Arc<Context>,
    settings: &Arc<UplinkSettings>,
    at: usize,
    wanted: &mut watch::Receiver<Arc<UplinkSettings>>,
    returning: &mut Return,
) -> (Ended, Option<Left>) {
    let (leave, leaving) = watch::channel(false);
    let mut running = std::pin::pin!(connection(context, settings, &settings.endpoints[at], leaving));
    let left_for = {
        let mut better = std::pin::pin!(better(context, settings, at, returning));
        tokio::select! {
            biased;
            ended = &mut running => return (ended, None),
            Ok(()) = wanted.changed() => Left::ForSettings,
            better = &mut better => Left::ForEndpoint(better),
        }
    };
    // A receiver that is gone has ended already.
    let _ = leave.send(true);
    (running.await, Some(left_for))
}

/// Waits until an endpoint preferred to the one numbered `at` can be dialled, beside a connection that has been standing for a while.
async fn better(context: &Context, settings: &UplinkSettings, at: usize, returning: &mut Return) -> usize {
    if at == 0 {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(returning.wait(&context.timing)).await;
        if context.gate.with(|_| ()).is_none() {
            continue; // still connecting: the rotation does it
        }
        for (number, endpoint) in settings.endpoints[..at].iter().enumerate() {
            if dialled(context, settings, endpoint).await {
                tracing::info!("{endpoint} is preferred and can be dialled: going back to it");
                return number;
            }
        }
        returning.dial_failed();
    }
}

/// A dial and nothing more; the line is closed at once.
async fn dialled(context: &Context, settings: &UplinkSettings, endpoint: &Endpoint) -> bool {
    let deadline = Instant::now() + context.timing.connect;
    let config = match tls_files(settings, endpoint) {
        _ if !endpoint.tls => None,
        Ok(files) => match tls::client_config(&files) {
            Ok(config) => Some(config),
            Err(_) => return false,
        },
        Err(_) => return false,
    };
    let way = dial::Way { endpoint, proxy: settings.proxy.as_ref(), tls: config };
    dial::dial(way, &Arc::default(), deadline, &mut dial::Trace::default()).await.is_ok()
}

/// Young connections in a row that the broker closed without a word.
#[derive(Debug, Default)]
struct Suspicion(u32);

impl Suspicion {
    /// The fault, in other words where a twin is suspected. `young`: whether the connection was, if there was one.
    fn weigh(&mut self, fault: Fault, young: Option<bool>) -> (Fault, bool) {
        match young {
            Some(true) if fault.unexplained => self.0 += 1,
            Some(_) => self.0 = 0,
            None => {}
        }
        if self.0 < UNEXPLAINED_ENDS || !fault.unexplained {
            return (fault, false);
        }
        let text = format!(
            "{}; that was {} times in a row: perhaps another client uses this gateway's id, make sure that no copy of it runs",
            fault.text, self.0
        );
        (Fault { kind: Kind::IdInUse, text, ..fault }, true)
    }
}

/// One connection in a task of its own, which ends with us.
async fn connection(context: &Arc<Context>, settings: &Arc<UplinkSettings>, endpoint: &Endpoint, leave: watch::Receiver<bool>) -> Ended {
    let mut task = JoinSet::new();
    task.spawn(mqtt::run(context.clone(), settings.clone(), endpoint.clone(), leave));
    if let Some(Ok(ended)) = task.join_next().await {
        return ended;
    }
    // Nobody but us could have cancelled it: it panicked.
    context.gate.close();
    let fault = Fault::passing(format!("{endpoint}: the connection failed inside; this is a fault in siteward, please report it"));
    // A forwarder that is gone has no use for it.
    let _ = context.events.send(super::UplinkEvent::Down { error: fault.text.clone() }).await;
    Ended { how: How::Fault(fault), progressed: false, lasted: None }
}

fn report(context: &Context, endpoint: &Endpoint, fault: &Fault, progressed: bool) {
    let board = &context.board;
    if let Some(identity) = &endpoint.identity {
        board.set_identity_fault(&identity.cert, &fault.text);
    }
    context.flapping.store(!progressed, Ordering::Relaxed);
    board.uplink_counters.failures.fetch_add(1, Ordering::Relaxed);
    board.uplink_counters.refusals.fetch_add(u64::from(fault.kind == Kind::Refused), Ordering::Relaxed);
    board.set_uplink(UplinkState::Down, &endpoint.to_string(), Some(fault.text.clone()));
    match fault.kind {
        Kind::Down if progressed => {}
        Kind::Down => board.raise(Code::UplinkDown, "", fault.text.clone()),
        Kind::Refused => board.raise(Code::UplinkRefused, &endpoint.to_string(), fault.text.clone()),
        Kind::IdInUse => board.raise(Code::GatewayIdInUse, "", fault.text.clone()),
    }
}

/// Waits; but where certificates or the proxy's password may be the reason for a slow pace, a changed file is tried at once.
async fn pause(settings: &UplinkSettings, endpoint: &Endpoint, pace: Pace, wait: Duration) {
    let until = Instant::now() + wait;
    let watched = (endpoint.tls && pace == Pace::Slow).then(|| fingerprint(settings, endpoint));
    loop {
        let next = match watched {
            Some(_) => until.min(Instant::now() + TLS_FILES_INTERVAL),
            None => until,
        };
        tokio::time::sleep_until(next).await;
        let changed = watched.as_ref().is_some_and(|before| fingerprint(settings, endpoint) != *before);
        if changed || Instant::now() >= until {
            return;
        }
    }
}

/// Marks of the certificate files, and of the proxy's password.
fn fingerprint(settings: &UplinkSettings, endpoint: &Endpoint) -> Vec<Option<Mark>> {
    let password = settings.proxy.as_ref().and_then(|proxy| proxy.credential.as_ref()).map(Reference::marks).unwrap_or_default();
    let Ok(TlsFiles { ca, cert, key }) = tls_files(settings, endpoint) else { return password };
    let ca = match ca {
        CaSource::File(path) => Some(path),
        CaSource::Inline(_) => None,
    };
    [ca, cert, key].into_iter().flatten().map(|path| mark(&path)).chain(password).collect()
}
