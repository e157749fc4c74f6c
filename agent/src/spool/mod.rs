//! The spool: all durable state of a gateway.
//!
//! ```text
//!   <spool>/spool.lock                       one agent at a time
//!           format                           which versions may open it                       admit.rs
//!           spool.key                        where the key is `auto`
//!           heads.a heads.b                  durable positions of every feed                heads.rs
//!           journal/<lane>/<ordinal>.seg     records, sealed                                format.rs segment.rs
//!           journal/quarantine/<n>.q         what cannot go on, sealed                      quarantine.rs
//!           files/<feed>.list                which files a directory feed is done with        filelist.rs
//!           state/                           sled: dedupe window, recent outcomes           state.rs recent.rs
//!           spare.seg damaged/               for a full disk; for an expert                 recovery.rs
//!
//!   source ─ Appender ─► queue ─► Committer ─► journal ─► fdatasync ─► Durable ─► the sender is answered
//!                                                 │
//!   forwarder ◄─ Reader ◄─────────────────────────┘   settle ─► heads ─► unlink
//! ```
//!
//! Handles are rights: an [`Appender`] can only append, the one [`Reader`] alone can settle and release, a [`Monitor`] can only look, and
//! [`kept::Kept`] alone empties the quarantine.
//! [`Durable`] can be made by the committer alone, so an answer cannot be written before the sync (I1).
//!
//! [`open`] takes the lock, recovers and starts the thread; [`open_with`] gives the same parts without thread and lock, on any [`disk::Disk`].

pub mod admit;
mod arrivals;
mod backwards;
mod chunk;
mod committer;
mod configure;
#[cfg(test)]
mod configure_tests;
mod delta;
pub mod disk;
#[cfg(test)]
pub(crate) mod faulty;
pub mod filelist;
mod flight;
pub mod format;
#[cfg(test)]
mod golden_tests;
pub mod heads;
mod index;
pub mod kept;
pub mod key;
mod lane;
mod monitor;
mod quarantine;
mod queue;
mod reader;
mod rebuild;
pub mod recent;
mod recovery;
#[cfg(test)]
mod request_tests;
pub mod resends;
mod rows;
mod scan;
pub mod search;
mod segment;
pub mod small;
mod state;
#[cfg(test)]
mod tests;
mod torn;
mod window;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use committer::Committer;
pub use configure::ConfigureError;
pub use monitor::{FeedView, LaneView, Monitor, SpoolView};
pub use quarantine::{Listed as QuarantineListed, Row};
pub use queue::{Appender, Closer, Wide};
pub use reader::Reader;
pub use rows::{Appending, Nonces, Rows, RowsOf};

use crate::config::settings::KeySource;
use crate::limits;
use crate::record::{Chain, FeedId, Incarnation, Lane, Payload, Record};
use crate::status::board::Board;
use crate::status::condition::Code;
use crate::threads::SCARCE;
use disk::Disk;
use heads::Heads;
use index::{Feed, Index, Shared};
use key::SpoolKey;
use quarantine::Quarantine;
use state::State;

pub(crate) const STATE_DIRECTORY: &str = "state";
const QUARANTINE_DIRECTORY: &str = "quarantine";
const LOCK_FILE: &str = "spool.lock";

/// How to open a spool.
#[derive(Debug, Clone)]
pub struct Options {
    pub path: PathBuf,
    /// `None`: 70 % of the volume.
    pub max_bytes: Option<u64>,
    pub key: KeySource,
    pub message_bytes_max: u64,
    pub feeds: Vec<(FeedId, Lane)>,
}

/// Where the dedupe window lives: sled in `<path>/state`, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateChoice {
    Sled,
    None,
}

/// An opened spool with its thread.
#[derive(Debug)]
pub struct Spool {
    pub appender: Appender,
    pub reader: Reader,
    pub monitor: Monitor,
    pub closer: Closer,
    /// Recent outcomes, for `siteward messages`.
    pub recent: Arc<recent::Recent>,
    /// Feeds that take deliberate resends.
    pub resends: Arc<resends::Resends>,
    /// What lies in quarantine.
    pub kept: kept::Kept,
    /// Held as long as the spool is open.
    pub lock: Lock,
}

/// The parts of an opened spool, without a thread.
#[derive(Debug)]
pub struct Parts {
    pub committer: Committer,
    pub reader: Reader,
    pub monitor: Monitor,
    shared: Arc<Shared>,
    quarantine: Arc<Quarantine>,
    state: state::SharedState,
}

/// Keeps a second agent out while it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "its file descriptor is the lock")] File);

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("spool: {path}: {source}; check that the directory exists, is writable for the service's user and that the disk is sound")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("spool: {path} is in use by another agent; stop that one first (systemctl status siteward), never delete the lock")]
    Locked { path: PathBuf },
    #[error(
        "spool: {path} has format {found}, and this version of siteward ({}) knows only formats up to {known}; nothing was touched; install the \
         version that was here before, or a newer one",
        env!("CARGO_PKG_VERSION")
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error(transparent)]
    Key(#[from] key::KeyError),
    #[error("spool: {path} was written with another spool key; give the agent the right key, or what is stored cannot be read")]
    WrongKey { path: PathBuf },
    #[error("spool: {0}")]
    TooManyFeeds(ConfigureError),
    #[error("spool: its threads could not be started; {SCARCE}")]
    Thread(#[source] std::io::Error),
}

/// Proof that a message is durable. Only the committer makes one.
#[derive(Debug)]
pub struct Durable {
    seq: u64,
    incarnation: Incarnation,
    reply: Payload,
    duplicate: bool,
    resend_of: Option<u64>,
}

impl Durable {
    pub fn seq(&self) -> u64 {
        self.seq
    }
    /// Of the record, or of its first copy; with `seq` its identity.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
    /// The positive answer that was stored with the record; of the first copy, where this is a duplicate.
    pub fn reply(&self) -> &Payload {
        &self.reply
    }
    pub fn is_duplicate(&self) -> bool {
        self.duplicate
    }
    /// The earlier record of the same message, where this one was let in as a resend.
    pub fn resend_of(&self) -> Option<u64> {
        self.resend_of
    }
}

/// Why a message was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("the spool is full: {0}")]
    Full(String),
    #[error("the journal could not be written: {0}")]
    Store(String),
    #[error("the agent is stopping")]
    Stopping,
    #[error("feed {0} is not configured")]
    UnknownFeed(FeedId),
    #[error("a message of {bytes} bytes is larger than message_bytes_max")]
    TooLarge { bytes: u64 },
    /// Only where an identity is a promise of the sender's (HTTP); of HL7 it is stored and flagged.
    #[error("the sender used this identity before, for another message")]
    IdentityReused,
}

/// One feed as the spool knows it.
#[derive(Debug, Clone)]
pub struct FeedInfo {
    pub id: FeedId,
    pub lane: Lane,
    /// No longer configured; drains.
    pub retired: bool,
}

/// What comes next in a feed.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and nearly always the large one")]
pub enum Item {
    Record(Record),
    /// `first..=last` of `incarnation` cannot be read; `chain` is the value at `last`.
    Gap {
        incarnation: Incarnation,
        first: u64,
        last: u64,
        chain: Chain,
        reason: &'static str,
    },
}

/// Why nothing could be read; the disk is in trouble, the record is not lost.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("reading record {seq} of feed {feed} failed: {source}; check the disk")]
    Io { feed: FeedId, seq: u64, source: std::io::Error },
}

/// Why a record could not be put into quarantine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuarantineError {
    #[error("quarantine is full; release or drop entries")]
    Full,
    #[error("{0}; check the disk")]
    Store(String),
}

/// Makes the spool's directory and keeps every other agent out of it, and this one too where a newer version wrote what is there.
pub fn lock(path: &Path) -> Result<Lock, OpenError> {
    make_ancestors(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let lock = take_lock(path)?;
    admit::admit(&disk::RealDisk, path)?;
    Ok(lock)
}

/// Whether somebody has the lock now. Makes nothing; a spool that is not there has none.
pub fn is_locked(path: &Path) -> Result<bool, OpenError> {
    let path = path.join(LOCK_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false), // given back with the file
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

/// Opens a spool on the real disk: lock, recovery, thread. Blocks while it recovers.
pub fn open(options: Options, board: &Arc<Board>) -> Result<Spool, OpenError> {
    let lock = lock(&options.path)?;
    open_locked(options, lock, board)
}

/// As [`open`], for whoever has the lock already.
pub fn open_locked(options: Options, lock: Lock, board: &Arc<Board>) -> Result<Spool, OpenError> {
    let Parts { committer, mut reader, monitor, shared, quarantine, state } =
        open_with(options, Arc::new(disk::RealDisk), StateChoice::Sled, board)?;
    let resends = Arc::clone(&shared.resends);
    let kept = kept::Kept::new(Arc::clone(&shared), Arc::clone(&quarantine));
    let (appender, renew, closer) = queue::start(committer, shared, quarantine).map_err(OpenError::Thread)?;
    reader.set_renew(renew);
    let recent = recent::Recent::start(board.notes(), state).map_err(OpenError::Thread)?;
    Ok(Spool { appender, reader, monitor, closer, recent, resends, kept, lock })
}

fn take_lock(spool: &Path) -> Result<Lock, OpenError> {
    let path = spool.join(LOCK_FILE);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|source| OpenError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: spool.to_owned() }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

/// Opens a spool on any disk, without lock and thread.
pub fn open_with(options: Options, disk: Arc<dyn Disk>, state: StateChoice, board: &Arc<Board>) -> Result<Parts, OpenError> {
    let Options { path, max_bytes, key, message_bytes_max, feeds: configured } = options;
    let failed = |at: &Path| {
        let at = at.to_owned();
        move |source| OpenError::Io { path: at, source }
    };
    make_directories(&*disk, &path)?;
    let mut lanes = [const { None }; 3];
    for lane in Lane::ALL {
        lanes[lane.index()] = Some(recovery::recover_lane(&*disk, &path, lane, board)?);
    }
    let lanes = lanes.map(|lane| lane.expect("every lane was recovered"));
    let (heads, known) = Heads::open(&*disk, &path).map_err(failed(&path))?;
    let is_new = known.is_none() && lanes.iter().all(|lane| lane.segments.is_empty());
    let (key, beside) = SpoolKey::load(&key, &path, is_new, &*disk)?;
    if known.as_ref().is_some_and(|heads| heads.key_check != key.check_value()) {
        return Err(OpenError::WrongKey { path: path.clone() });
    }
    if beside {
        let text = "the spool key lies beside what it seals; use a systemd credential to protect against a stolen box";
        board.raise(Code::SpoolKeyBesideSpool, "", text);
    }
    let mut feeds = recovery::feeds(known.as_ref(), &lanes);
    let mut incarnation = Incarnation([0; 16]);
    getrandom::fill(&mut incarnation.0).map_err(key::KeyError::Random)?;
    configure(&mut feeds, &configured, incarnation)?;

    let volume = disk.space(&path).map_err(failed(&path))?;
    let max_bytes = max_bytes.unwrap_or(volume.total / 100 * limits::SPOOL_VOLUME_PERCENT).max(limits::SPOOL_BYTES_MIN);
    let segment_bytes = (max_bytes / limits::SEGMENTS_PER_SPOOL).clamp(limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX);
    let spare = recovery::prepare_spare(&*disk, &path, segment_bytes);
    let quarantine_max = max_bytes / limits::QUARANTINE_DIVISOR;
    let directory = path.join("journal").join(QUARANTINE_DIRECTORY);
    let quarantine = Arc::new(Quarantine::open(&*disk, directory.clone(), quarantine_max).map_err(failed(&directory))?);

    let other_bytes = 2 * limits::HEADS_BYTES + spare;
    let before = known.as_ref().map(|heads| heads.incarnation);
    let heads_ordinals = known.map_or([0; 3], |heads| heads.next_ordinal);
    let mut last = [None; 3];
    let mut next_ordinal = heads_ordinals;
    let mut segments = [const { std::collections::BTreeMap::new() }; 3];
    for (i, lane) in lanes.into_iter().enumerate() {
        last[i] = lane.last;
        next_ordinal[i] = next_ordinal[i].max(lane.next_ordinal);
        segments[i] = lane.segments;
    }
    let index = Index {
        incarnation,
        arrivals: index::arrivals(&segments, &feeds),
        feeds,
        shape: 0,
        lanes: segments,
        next_ordinal,
        other_bytes,
        max_bytes,
        segment_bytes_max: max_bytes.saturating_sub(other_bytes + quarantine_max),
    };
    let shared = Shared::new(path.clone(), disk, key, board.clone(), segment_bytes, message_bytes_max, heads, index);
    // It claims its window for this incarnation and the one before it, so that a kill between here and the heads leaves it known.
    let state = match state {
        StateChoice::Sled => State::open(path.join(STATE_DIRECTORY), before, &shared),
        StateChoice::None => State::none(board.clone()),
    };
    // Before the first append: the new incarnation and its links are durable.
    shared.write_first_heads().map_err(failed(&path.join("heads")))?;
    let state = Arc::new(Mutex::new(state));
    let reader = Reader::new(shared.clone(), quarantine.clone(), state.clone());
    let monitor = Monitor::new(shared.clone(), quarantine.clone());
    let committer = Committer::new(shared.clone(), last, state.clone());
    Ok(Parts { committer, reader, monitor, shared, quarantine, state })
}

/// Creates the spool's directory and what is missing above it; every name made is durable.
fn make_ancestors(spool: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = spool.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for path in missing.iter().rev() {
        std::fs::create_dir(path)?;
        if let Some(parent) = path.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// Makes every directory of the spool. Names are synced in the directory above, the spool's own included: without it a power cut takes all.
fn make_directories(disk: &dyn Disk, spool: &Path) -> Result<(), OpenError> {
    let journal = spool.join("journal");
    let lanes = Lane::ALL.map(|lane| segment::lane_directory(spool, lane));
    let others = [journal.join(QUARANTINE_DIRECTORY), spool.join(recovery::DAMAGED_DIRECTORY)];
    for directory in [spool, &journal].into_iter().chain(lanes.iter().chain(&others).map(PathBuf::as_path)) {
        disk.create_dir(directory).map_err(|source| OpenError::Io { path: directory.to_owned(), source })?;
    }
    for directory in [&journal, spool].into_iter().chain(spool.parent().filter(|parent| !parent.as_os_str().is_empty())) {
        disk.sync_dir(directory).map_err(|source| OpenError::Io { path: directory.to_owned(), source })?;
    }
    Ok(())
}

/// Brings together what the spool holds and what is configured, and begins the incarnation.
fn configure(
    feeds: &mut std::collections::BTreeMap<FeedId, Feed>,
    configured: &[(FeedId, Lane)],
    incarnation: Incarnation,
) -> Result<(), OpenError> {
    for (id, lane) in configured {
        let feed = feeds.entry(id.clone()).or_insert_with(|| Feed::new(*lane));
        feed.lane = *lane;
        feed.configured = true;
    }
    configure::check_bounds(feeds.values().filter(|feed| feed.is_live()).count(), feeds.len()).map_err(OpenError::TooManyFeeds)?;
    for feed in feeds.values_mut() {
        feed.begin(incarnation, limits::LINEAGE_MAX);
    }
    Ok(())
}
