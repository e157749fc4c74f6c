//! The agent: wires the parts together, keeps house, and stops them in order.
//!
//! ```text
//! start   signals → board → spool (recovers) → forwarder → listeners → control socket → READY
//! run     one loop: signals, watchdog beat, housekeeping every few seconds; beside it the sources, which may change (`sources`, `reload`)
//! stop    sources (nothing new comes in) → forwarder (what the window holds is drained) → spool (synced, closed) → exit 0
//! ```
//!
//! Everything that can mend by itself is retried while the rest runs: a listener whose port is taken or a control socket that cannot be made
//! costs that feed or the status only. What cannot (no spool) ends the start with a reason. The stop has one deadline; whoever exceeds it is
//! left behind, since whatever was acknowledged is already durable (I1).

mod surface;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::surface::{serve_all, show_page};
use crate::alerts;
use crate::audit::{self, Book};
use crate::config::settings::{ExpectSettings, FeedSettings, RenewSettings, Settings, SourceSettings};
use crate::forward::mail::Mail;
use crate::forward::{Feeds, Forwarder, ForwarderHandle};
use crate::limits;
use crate::overrides::keeper::Kept;
use crate::renewal;
use crate::renewal::keeper::Keeper;
use crate::rollout;
use crate::rollout::executor::Executor;
use crate::rollout::orders::Orders;
use crate::rollout::report::Local;
use crate::rollout::shell::{Means, Shell};
use crate::rollout::start::Ground;
use crate::secrets::Vault;
use crate::sources::paused::Pauses;
use crate::sources::{Parts, Sources, SourcesHandle};
use crate::spool::recent::Recent;
use crate::spool::resends::Resends;
use crate::spool::{self, Appender, Closer, Monitor, Spool};
use crate::status::board::{Board, ConfigView};
use crate::status::cadence::{self, Expectation};
use crate::status::condition::Code;
use crate::status::desk::Desk;
use crate::status::earlier::Earlier;
use crate::status::on_site::OnSite;
use crate::status::snapshot::{self, Reporter};
use crate::systemd::sockets::SocketStore;
use crate::threads::{self, SCARCE};
use crate::uplink::credentials::Credentials;
use crate::{clock, config, systemd};

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot start the threads of the agent; {SCARCE}")]
    Runtime(#[source] std::io::Error),
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot open the spool {}", path.display())]
    Spool { path: std::path::PathBuf, source: spool::OpenError },
    #[error("{0}")]
    Configuration(config::Faults),
    #[error("cannot read the ledger of the configuration; check the disk of the spool")]
    Ledger(#[source] rollout::store::StoreError),
    #[error("cannot start the thread of the forwarder; {SCARCE}")]
    Forwarder(#[source] std::io::Error),
    #[error("{0} panicked; its place is in the log above")]
    Panicked(&'static str),
    #[error("not everything stopped within {} s; what was acknowledged is on disk", limits::STOP_DEADLINE.as_secs())]
    StopDeadline,
}

/// Runs until SIGTERM or SIGINT. Blocking.
/// SIGHUP reads the feeds of `file` again. `sockets` are those that stayed open since the process before.
pub fn run(settings: Settings, file: PathBuf, sockets: SocketStore) -> Result<(), RunError> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(limits::RUNTIME_THREADS_MAX);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(workers).max_blocking_threads(limits::BLOCKING_THREADS_MAX).thread_name("siteward");
    let runtime = threads::runtime(&mut builder, workers + limits::START_THREADS).map_err(RunError::Runtime)?;
    let outcome = runtime.block_on(live(settings, file, sockets));
    // A blocking call that exceeded the deadline must not hold up the exit.
    runtime.shutdown_background();
    outcome
}

async fn live(settings: Settings, file: PathBuf, sockets: SocketStore) -> Result<(), RunError> {
    // First, so that a SIGTERM during recovery is a clean stop too.
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let hangup = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    tracing::info!(gateway = %settings.gateway.id, site = %settings.gateway.site, version = env!("CARGO_PKG_VERSION"), "starting");
    let start = Instant::now();
    let board = Board::new(settings.feeds.iter().map(|feed| feed.id.clone()));
    systemd::status("opening the spool");
    let clock_watch = ClockWatch { file: settings.gateway.clock_synchronised_file.clone(), memory: settings.spool.path.join("hub-time") };
    clock::tend(&clock_watch.file, &clock_watch.memory);
    let (lock, started) = open_ledger(settings, file.clone(), &board, start).await?;
    let settings = Arc::new(started.running.settings.clone());
    show(&board, &settings);
    let Spool { appender, reader, monitor, closer, recent, resends, kept, lock } = open_spool(&settings, lock, &board).await?;
    let reporter = Reporter::new(settings.gateway.site.clone(), settings.gateway.id.clone(), Arc::clone(&board), monitor.clone());
    let credentials = Credentials::open(Arc::new(spool::disk::RealDisk), &settings.spool.path);
    let (ours, here) = (credentials.identities(), tokio::runtime::Handle::current());
    let mut forwarder = Forwarder::spawn_as(&settings, ours, reader, Arc::clone(&board), here).map_err(RunError::Forwarder)?;
    let told = forwarder.feeds();
    let mut mail = forwarder.take_mail().expect("nobody else takes it");
    let (spool_monitor, rollout_monitor) = (monitor.clone(), monitor.clone());
    let (rollout, asked) = rollout::handle::open();
    let (renew, wanted) = watch::channel(None);
    let book = open_book(&settings, &monitor, &board);
    let (keeper, renewal) = renewer(&settings, credentials, &mut mail, &book, wanted, &board);
    let vault = Arc::new(Vault::new(&settings.spool, started.ground.credentials.as_deref()));
    let (overridden, alerting, on_site) = open_on_site(&settings, &vault, &book);
    let desk = Desk {
        pace: std::sync::Mutex::default(),
        reporter: Arc::clone(&reporter),
        board: Arc::clone(&board),
        monitor,
        recent: Arc::clone(&recent),
        resends: Arc::clone(&resends),
        feeds: told.subscribe(),
        rollout: Some(rollout),
        renewal: Some(renewal),
        book: book.clone(),
        kept: kept.clone(),
        on_site,
    };
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    // The sources' copies of the appender are the only ones.
    let watched = told.subscribe();
    let (sources, handle) = take_up((appender, told, sockets), &board, &settings, &overridden, &stopped).await?;
    tasks.spawn(sources.run(stopped.clone()));
    let executor = Executor::of(&desk, &mail, handle.clone(), kept);
    let highest = started.machine.ledger().highest_command;
    let orders = tokio::task::block_in_place(|| Orders::new(&started.running.settings, highest, executor));
    let (overriding, told) = overridden.keep(handle.clone(), watched.clone(), &desk.board, book.clone());
    tasks.spawn(overriding.run(stopped.clone()));
    tasks.spawn(audit::sender::run(book, mail.way_out(), stopped.clone()));
    tasks.spawn(alerting.keep(alert_means(&settings, &desk)).run(stopped.clone()));
    let local = Local { overrides: told, secret_key: tokio::task::block_in_place(|| vault.public_key().ok()) };
    let means = Means { sources: handle, mail, board: Arc::clone(&board), monitor: rollout_monitor, asked, hangup, orders, renew, local };
    tasks.spawn(Shell::new(started, means, start).run(stopped.clone()));
    tasks.spawn(keeper.run(stopped.clone()));
    tasks.spawn(keep_cadence(watched, settings.spool.path.clone(), Arc::clone(&board), spool_monitor, stopped.clone()));
    tasks.spawn(Earlier::open(Arc::new(spool::disk::RealDisk), &settings.spool.path, &board).keep(Arc::clone(&board), stopped.clone()));
    show_page(&mut tasks, (&reporter, &board), &settings, file, &stopped)?;
    serve_all(&settings, &Arc::new(desk), &stopped, &mut tasks);
    systemd::ready();
    tracing::info!(feeds = settings.feeds.len(), "running");
    let ended = keep_house(&mut signals, &reporter, &board, forwarder.progress_counter(), &closer, &resends, &clock_watch).await;
    let deadline = Instant::now() + limits::STOP_DEADLINE;
    systemd::stopping();
    // Fails only when nobody listens any more, which is what is wanted.
    let _ = stop.send(true);
    let stopped = shut_down(tasks, forwarder, recent, closer, deadline).await;
    drop(lock); // only now may another agent have the spool
    ended.and(stopped)
}

/// The sources, with every feed bound once, so that READY means listening; a feed that cannot bind tries on, and says so on the board.
async fn take_up(
    (appender, told, sockets): (Appender, watch::Sender<Feeds>, SocketStore),
    board: &Arc<Board>,
    settings: &Settings,
    overridden: &Kept,
    stopped: &watch::Receiver<bool>,
) -> Result<(Sources, SourcesHandle), RunError> {
    let path = settings.spool.path.clone();
    let pauses = tokio::task::spawn_blocking(move || Pauses::open(Arc::new(spool::disk::RealDisk), &path)).await;
    let parts = Parts {
        gateway: settings.gateway.id.clone(),
        appender,
        board: Arc::clone(board),
        message_bytes_max: settings.spool.message_bytes_max,
        told,
        sockets: sockets.clone(),
    };
    let (mut sources, handle) = Sources::new(parts, pauses.map_err(|_| RunError::Panicked("reading which feeds are paused"))?);
    sources.begin_under(overridden.overrides().clone());
    if let Err(error) = sources.apply(Arc::from(settings.feeds.as_slice()), stopped).await {
        tracing::error!("the feeds cannot be taken up: {error}");
    }
    sockets.close_rest();
    Ok((sources, handle))
}

/// What was set on site and outlives a restart, and how to ask for more.
fn open_on_site(settings: &Settings, vault: &Arc<Vault>, book: &Book) -> (Kept, alerts::keeper::Kept, Arc<OnSite>) {
    let path = &settings.spool.path;
    let (overridden, overrides) = Kept::open(Arc::new(spool::disk::RealDisk), path);
    let (alerting, maintenance) = alerts::keeper::Kept::open(Arc::new(spool::disk::RealDisk), path);
    let on_site = OnSite::new(Arc::clone(vault), overrides, maintenance, book.clone());
    (overridden, alerting, on_site)
}

/// What the keeper of alerts works with.
fn alert_means(settings: &Settings, desk: &Desk) -> alerts::keeper::Means {
    alerts::keeper::Means {
        site: settings.gateway.site.clone(),
        gateway: settings.gateway.id.clone(),
        settings: settings.alerts.clone(),
        // The zone was looked up when the file was checked.
        zone: jiff::tz::TimeZoneDatabase::bundled().get(&settings.gateway.timezone).unwrap_or(jiff::tz::TimeZone::UTC),
        board: Arc::clone(&desk.board),
        monitor: desk.monitor.clone(),
        feeds: desk.feeds.clone(),
        book: desk.book.clone(),
    }
}

/// What is known before anything runs.
fn show(board: &Board, settings: &Settings) {
    board.learn(settings.feeds.iter().map(|feed| feed.id.clone()));
    for feed in &settings.feeds {
        board.feed(&feed.id).describe(feed.about.clone());
    }
    board.set_config(ConfigView::local(&config::show::render(settings)));
}

/// Keeps other agents out of the spool and finds out what runs: the local file, or the document that is committed.
async fn open_ledger(
    settings: Settings,
    file: PathBuf,
    board: &Arc<Board>,
    at: Instant,
) -> Result<(spool::Lock, rollout::start::Started), RunError> {
    let board = Arc::clone(board);
    let open = move || {
        let path = settings.spool.path.clone();
        let lock = spool::lock(&path).map_err(|source| RunError::Spool { path, source })?;
        let ground = Ground::new(&file, settings).map_err(RunError::Configuration)?;
        let started = rollout::start::start(Arc::new(spool::disk::RealDisk), ground, &board, rollout::start::now(at));
        Ok((lock, started.map_err(RunError::Ledger)?))
    };
    tokio::task::spawn_blocking(open).await.map_err(|_| RunError::Panicked("reading the ledger of the configuration"))?
}

async fn open_spool(settings: &Settings, lock: spool::Lock, board: &Arc<Board>) -> Result<Spool, RunError> {
    let options = spool::Options {
        path: settings.spool.path.clone(),
        max_bytes: settings.spool.max_bytes,
        key: settings.spool.key.clone(),
        message_bytes_max: settings.spool.message_bytes_max,
        feeds: settings.feeds.iter().map(|feed| (feed.id.clone(), feed.lane)).collect(),
    };
    let board = Arc::clone(board);
    tokio::task::spawn_blocking(move || spool::open_locked(options, lock, &board))
        .await
        .map_err(|_| RunError::Panicked("opening the spool"))?
        .map_err(|source| RunError::Spool { path: settings.spool.path.clone(), source })
}

/// Who renews our certificate, and how to ask.
fn renewer(
    settings: &Settings,
    credentials: Credentials,
    mail: &mut Mail,
    book: &Book,
    wanted: watch::Receiver<Option<RenewSettings>>,
    board: &Arc<Board>,
) -> (Keeper, renewal::Handle) {
    let (handle, asked) = renewal::handle::open();
    let keeper = Keeper::new(renewal::keeper::Means {
        site: settings.gateway.site.clone(),
        gateway: settings.gateway.id.clone(),
        cert: settings.uplink.cert.clone(),
        credentials,
        post: mail.way_out(),
        book: book.clone(),
        certificates: mail.certificates.take().expect("nobody else takes it"),
        wanted,
        asked,
        board: Arc::clone(board),
    });
    (keeper, handle)
}

/// The feeds that say when they expect something.
fn expectations(feeds: &[FeedSettings]) -> Vec<Expectation> {
    let of = |feed: &FeedSettings| {
        let ExpectSettings { expect, holidays_file } = feed.expect.clone()?;
        let is_directory = matches!(feed.source, SourceSettings::Directory(_));
        Some(Expectation { feed: feed.id.clone(), expect, holidays_file, is_directory })
    };
    feeds.iter().filter_map(of).collect()
}

/// Watches what the configured feeds are expected to bring; begins anew when that changes (what was seen so far is in a file).
async fn keep_cadence(
    mut feeds: watch::Receiver<Feeds>,
    spool: PathBuf,
    board: Arc<Board>,
    monitor: Monitor,
    mut stop: watch::Receiver<bool>,
) {
    let mut begin = cadence::Begin::OfProcess;
    loop {
        let watched = expectations(&feeds.borrow_and_update());
        let (end, ends) = watch::channel(false);
        let is_watched = watched.clone();
        let mut watching = std::pin::pin!(cadence::run(watched, spool.clone(), Arc::clone(&board), monitor.clone(), begin, ends));
        begin = cadence::Begin::Anew;
        let mut has_ended = false;
        let stops = loop {
            tokio::select! {
                biased;
                _ended = stop.wait_for(|stop| *stop) => break true,
                () = &mut watching, if !has_ended => has_ended = true, // nothing is expected
                changed = feeds.changed() => {
                    if changed.is_err() {
                        break true;
                    }
                    if expectations(&feeds.borrow_and_update()) != is_watched {
                        break false;
                    }
                }
            }
        };
        end.send_replace(true);
        if !has_ended {
            watching.await;
        }
        if stops {
            return;
        }
        let now = expectations(&feeds.borrow());
        for gone in is_watched.iter().filter(|was| !now.iter().any(|is| is.feed == was.feed)) {
            board.clear(Code::FeedSilent, gone.feed.as_str());
        }
    }
}

/// The audit log of this spool.
fn open_book(settings: &Settings, monitor: &Monitor, board: &Arc<Board>) -> Book {
    let gateway = settings.gateway.id.clone();
    let disk = Arc::new(spool::disk::RealDisk);
    Book::open(disk, &settings.spool.path, gateway, monitor.view().incarnation, Arc::clone(board))
}

/// Returns when the agent is to stop: told to, or because a part it cannot do without has failed (the service manager starts it again).
async fn keep_house(
    signals: &mut Signals,
    reporter: &Reporter,
    board: &Board,
    forwarder: Arc<AtomicU64>,
    committer: &Closer,
    resends: &Resends,
    watch: &ClockWatch,
) -> Result<(), RunError> {
    let mut forwarder_moves = systemd::moves(forwarder);
    // The spool's figures are asked for, which says that the committer does not sit on its lock.
    let mut watchdog = systemd::Watchdog::new(|| {
        reporter.snapshot();
        forwarder_moves()
    });
    let mut housekeeping = tokio::time::interval(limits::GAUGE_INTERVAL);
    housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => {
                tracing::info!("SIGTERM: stopping");
                return Ok(());
            }
            _ = signals.interrupt.recv() => {
                tracing::info!("SIGINT: stopping");
                return Ok(());
            }
            () = watchdog.due() => {
                watchdog.beat();
            }
            _ = housekeeping.tick() => {
                if !committer.is_running() {
                    return Err(RunError::Panicked("the committer"));
                }
                resends.expire(Instant::now(), board);
                look_at_clock(watch, board);
                systemd::status(&snapshot::one_line(&reporter.snapshot()));
            }
        }
    }
}

/// Where the system's time synchronisation leaves word, and where the hub's is kept.
struct ClockWatch {
    file: PathBuf,
    memory: PathBuf,
}

fn look_at_clock(watch: &ClockWatch, board: &Board) {
    if let Some(confirmed) = clock::look(&watch.file) {
        let memory = watch.memory.clone();
        // Nobody waits for it: what could not be written is written an hour later.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = clock::keep(&memory, confirmed) {
                tracing::warn!("the time that the hub confirmed could not be written down: {error}");
            }
        }));
    }
    match clock::doubt() {
        Some(text) => board.raise(Code::ClockSuspect, "", text),
        None => board.clear(Code::ClockSuspect, ""),
    }
}

async fn shut_down(
    mut tasks: JoinSet<()>,
    forwarder: ForwarderHandle,
    recent: Arc<Recent>,
    closer: Closer,
    deadline: Instant,
) -> Result<(), RunError> {
    let sources = async { while tasks.join_next().await.is_some() {} };
    if timeout(limits::STOP_SOURCES, sources).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut; their senders will send again");
        tasks.abort_all();
    }
    let left = |reserve: Duration| deadline.saturating_duration_since(Instant::now()).saturating_sub(reserve);
    let drain = left(limits::STOP_SPOOL);
    // It keeps the deadline itself and logs where it could not; this one is for a thread that cannot even do that.
    let drained = timeout(drain + limits::STOP_SPOOL / 2, tokio::task::spawn_blocking(move || forwarder.stop(drain))).await;
    if !matches!(drained, Ok(Ok(true))) {
        tracing::warn!("the forwarder did not end in order; what it had not settled is sent again");
    }
    let close = move || {
        recent.stop(); // before its database is closed
        closer.close();
    };
    match timeout(left(Duration::ZERO), tokio::task::spawn_blocking(close)).await {
        Ok(Ok(())) => {
            tracing::info!("stopped");
            Ok(())
        }
        Ok(Err(_)) => Err(RunError::Panicked("closing the spool")),
        Err(_) => Err(RunError::StopDeadline),
    }
}

/// The signals the agent knows.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}
