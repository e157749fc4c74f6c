//! What can be commanded: a closed list, and which of it a gateway allows.
//!
//! | verb | arguments | allowed unless the bootstrap says otherwise |
//! |---|---|---|
//! | `pause_feed`, `resume_feed` | `feed` | yes |
//! | `accept_resend` | `feed`, `for_s` | yes |
//! | `release_quarantine`, `drop_quarantine` | `feed`, `first`, `last` | no: one publishes what was kept back, the other ends records |
//! | `checkpoint`, `diagnose` | none | yes |
//! | `log_level` | `level`, `for_s` | yes |
//! | `maintenance_start` | `for_s`, `feed` or nothing for the gateway | yes: it silences alerts, never those of loss |
//! | `maintenance_end` | `id` | yes |

use std::collections::BTreeSet;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::limits::{ACCEPT_RESEND_MAX, LOG_LEVEL_TIME_MAX, MAINTENANCE_TIME_MAX};
use crate::record::{FeedId, Name};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerbName {
    PauseFeed,
    ResumeFeed,
    AcceptResend,
    ReleaseQuarantine,
    DropQuarantine,
    Checkpoint,
    Diagnose,
    LogLevel,
    MaintenanceStart,
    MaintenanceEnd,
}

impl VerbName {
    pub const ALL: [Self; 10] = [
        Self::PauseFeed,
        Self::ResumeFeed,
        Self::AcceptResend,
        Self::ReleaseQuarantine,
        Self::DropQuarantine,
        Self::Checkpoint,
        Self::Diagnose,
        Self::LogLevel,
        Self::MaintenanceStart,
        Self::MaintenanceEnd,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::PauseFeed => "pause_feed",
            Self::ResumeFeed => "resume_feed",
            Self::AcceptResend => "accept_resend",
            Self::ReleaseQuarantine => "release_quarantine",
            Self::DropQuarantine => "drop_quarantine",
            Self::Checkpoint => "checkpoint",
            Self::Diagnose => "diagnose",
            Self::LogLevel => "log_level",
            Self::MaintenanceStart => "maintenance_start",
            Self::MaintenanceEnd => "maintenance_end",
        }
    }

    pub fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == name)
    }

    /// All names, for messages.
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl std::fmt::Display for VerbName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Info,
    Debug,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    PauseFeed {
        feed: FeedId,
    },
    ResumeFeed {
        feed: FeedId,
    },
    AcceptResend {
        feed: FeedId,
        time: Duration,
    },
    ReleaseQuarantine {
        feed: FeedId,
        first: u64,
        last: u64,
    },
    DropQuarantine {
        feed: FeedId,
        first: u64,
        last: u64,
    },
    Checkpoint,
    Diagnose,
    LogLevel {
        level: LogLevel,
        time: Duration,
    },
    /// `None`: of the gateway.
    MaintenanceStart {
        feed: Option<FeedId>,
        time: Duration,
    },
    MaintenanceEnd {
        id: u64,
    },
}

impl Verb {
    pub fn name(&self) -> VerbName {
        match self {
            Self::PauseFeed { .. } => VerbName::PauseFeed,
            Self::ResumeFeed { .. } => VerbName::ResumeFeed,
            Self::AcceptResend { .. } => VerbName::AcceptResend,
            Self::ReleaseQuarantine { .. } => VerbName::ReleaseQuarantine,
            Self::DropQuarantine { .. } => VerbName::DropQuarantine,
            Self::Checkpoint => VerbName::Checkpoint,
            Self::Diagnose => VerbName::Diagnose,
            Self::LogLevel { .. } => VerbName::LogLevel,
            Self::MaintenanceStart { .. } => VerbName::MaintenanceStart,
            Self::MaintenanceEnd { .. } => VerbName::MaintenanceEnd,
        }
    }

    /// Reads the arguments. The error never repeats what was written.
    pub fn read(name: VerbName, args: Map<String, Value>) -> Result<Self, String> {
        Ok(match name {
            VerbName::PauseFeed => Self::PauseFeed { feed: feed(args)? },
            VerbName::ResumeFeed => Self::ResumeFeed { feed: feed(args)? },
            VerbName::AcceptResend => {
                let OfResend { feed, for_s } = read(args, "feed, for_s")?;
                Self::AcceptResend { feed: known(&feed)?, time: time(for_s, ACCEPT_RESEND_MAX)? }
            }
            VerbName::ReleaseQuarantine => {
                let (feed, first, last) = range(args)?;
                Self::ReleaseQuarantine { feed, first, last }
            }
            VerbName::DropQuarantine => {
                let (feed, first, last) = range(args)?;
                Self::DropQuarantine { feed, first, last }
            }
            VerbName::Checkpoint => nothing(&args).map(|()| Self::Checkpoint)?,
            VerbName::Diagnose => nothing(&args).map(|()| Self::Diagnose)?,
            VerbName::LogLevel => {
                let OfLevel { level, for_s } = read(args, "level (info or debug), for_s")?;
                Self::LogLevel { level, time: time(for_s, LOG_LEVEL_TIME_MAX)? }
            }
            VerbName::MaintenanceStart => {
                let OfMaintenance { feed, for_s } = read(args, "for_s, and feed for one feed only")?;
                Self::MaintenanceStart { feed: feed.as_deref().map(known).transpose()?, time: time(for_s, MAINTENANCE_TIME_MAX)? }
            }
            VerbName::MaintenanceEnd => read(args, "id").map(|OfWindow { id }| Self::MaintenanceEnd { id })?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfFeed {
    feed: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfResend {
    feed: String,
    for_s: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfRange {
    feed: String,
    first: u64,
    last: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfLevel {
    level: LogLevel,
    for_s: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfMaintenance {
    #[serde(default)]
    feed: Option<String>,
    for_s: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfWindow {
    id: u64,
}

fn read<T: DeserializeOwned>(args: Map<String, Value>, wanted: &str) -> Result<T, String> {
    serde_json::from_value(Value::Object(args)).map_err(|_| format!("`args` must hold {wanted} and nothing else"))
}

fn nothing(args: &Map<String, Value>) -> Result<(), String> {
    if args.is_empty() { Ok(()) } else { Err("takes no `args`".into()) }
}

fn known(feed: &str) -> Result<FeedId, String> {
    Name::new(feed).map_err(|_| "`feed` is not a feed's name".into())
}

fn feed(args: Map<String, Value>) -> Result<FeedId, String> {
    let OfFeed { feed } = read(args, "feed")?;
    known(&feed)
}

fn range(args: Map<String, Value>) -> Result<(FeedId, u64, u64), String> {
    let OfRange { feed, first, last } = read(args, "feed, first, last")?;
    if first == 0 || last < first {
        return Err("`first` must be 1 or more, `last` not below it".into());
    }
    Ok((known(&feed)?, first, last))
}

fn time(seconds: u64, most: Duration) -> Result<Duration, String> {
    let time = Duration::from_secs(seconds);
    if seconds == 0 || time > most { Err(format!("`for_s` must be 1 to {}", most.as_secs())) } else { Ok(time) }
}

/// Which verbs a gateway takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed(BTreeSet<VerbName>);

impl Default for Allowed {
    /// What neither publishes nor ends anything that was kept back.
    fn default() -> Self {
        let destructive = [VerbName::ReleaseQuarantine, VerbName::DropQuarantine];
        Self(VerbName::ALL.into_iter().filter(|verb| !destructive.contains(verb)).collect())
    }
}

impl Allowed {
    /// Of names as they stand in the local file; the error is the number of the first one that is none.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, usize> {
        names.into_iter().enumerate().map(|(index, name)| VerbName::read(name).ok_or(index)).collect::<Result<_, _>>().map(Self)
    }

    /// Commands are carried out not at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order of [`VerbName::ALL`].
    pub fn names(&self) -> impl Iterator<Item = VerbName> {
        self.0.iter().copied()
    }

    pub fn contains(&self, verb: VerbName) -> bool {
        self.0.contains(&verb)
    }
}
