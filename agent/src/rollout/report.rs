//! What is said about the configuration: the retained report for the hub, the view on the board, the conditions. Pure but for the board.
//!
//! All three are made from the machine's durable facts. While the ledger on disk is behind nothing is reported ([`reported`] is `None`): the report
//! that is out there stays true for what a restart would find.

use serde::Serialize;
use tokio::sync::watch;

use super::command::{CommandDesk, VerbName};
use super::facts::{Meta, Stamp};
use super::machine::{Machine, RunState, Tried};
use crate::clock;
use crate::config::header::SCHEMA_VERSION;
use crate::config::trust::Anchors;
use crate::limits::OVERRIDES_REPORTED_BYTES_MAX;
use crate::overrides::handle::View;
use crate::record::{DocumentDigest, FeedId, Name};
use crate::status::board::{Board, ConfigTried, ConfigView};
use crate::status::condition::Code;

/// Version of the reported JSON.
pub const SCHEMA: u32 = 1;

/// The payload of `config/reported`. Outside tools rely on it: fields are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reported {
    pub schema: u32,
    pub gateway: Name,
    pub version: &'static str,
    pub running: Running,
    /// The document there is something newest to say about.
    pub tried: Option<Attempt>,
    /// Of the effective configuration, as it runs.
    pub effective_digest: Option<DocumentDigest>,
    pub retired_feeds: Vec<FeedId>,
    /// What somebody on site changed for a while, on top of it.
    pub overrides: Vec<View>,
    /// Overrides that hold and are not listed, because the report would be too long.
    #[serde(skip_serializing_if = "is_none")]
    pub overrides_more: usize,
    /// The gateway's own key: secrets in documents are sealed to it. Base64 of an X25519 key; null where there is none to be had.
    pub secret_key: Option<String>,
    /// What a command must quote and exceed.
    pub commands: Commands,
    /// IANA name.
    pub timezone: String,
    /// Labels by which documents may mean this gateway.
    pub groups: Vec<Name>,
    /// The newest `schema_version` of documents it reads.
    pub document_schema: u64,
    /// Whose signatures count now.
    pub trust: Trust,
    /// RFC 3339.
    pub time: String,
    pub clock_suspect: bool,
}

/// What whoever signs a command has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Commands {
    /// New at every start and after every accepted command.
    pub challenge: String,
    /// The next counter must be above it.
    pub highest_counter: u64,
    pub allowed: Vec<VerbName>,
}

impl Commands {
    pub fn of(desk: &CommandDesk, highest_counter: u64) -> Self {
        Self { challenge: desk.challenge().as_str().to_owned(), highest_counter, allowed: desk.allowed().names().collect() }
    }
}

/// Trust anchors by their ids (SHA-256 of SubjectPublicKeyInfo, hex), and how many of them have to sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trust {
    pub keys: Vec<String>,
    pub threshold: usize,
    pub recovery_keys: Vec<String>,
    pub recovery_threshold: usize,
}

impl Trust {
    pub fn of(anchors: &Anchors) -> Self {
        let ((keys, threshold), (recovery_keys, recovery_threshold)) = (anchors.usual_ids(), anchors.recovery_ids());
        Self { keys, threshold, recovery_keys, recovery_threshold }
    }
}

/// What runs after any stop; while a trial is on, `tried` is what runs in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    /// 0: the local file alone.
    pub revision: u64,
    pub digest: Option<DocumentDigest>,
    pub since: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub document: Option<About>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    pub revision: Option<u64>,
    pub digest: Option<DocumentDigest>,
    /// `staged`, `trial`, `committed_local`, `committed`, `rolled_back` or `refused`.
    pub state: &'static str,
    pub code: Option<String>,
    /// One sentence with feed and key path.
    pub reason: Option<String>,
    pub at: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub document: Option<About>,
}

/// Who wanted it, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct About {
    pub author: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver: Option<String>,
    pub purpose: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

impl From<Meta> for About {
    fn from(meta: Meta) -> Self {
        Self { author: meta.author, approver: meta.approver, purpose: meta.reason, ticket: meta.ticket }
    }
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<Tried> for Attempt {
    fn from(tried: Tried) -> Self {
        Self {
            revision: tried.revision,
            digest: tried.digest,
            state: tried.state,
            code: filled(tried.code),
            reason: filled(tried.reason),
            at: clock::rfc3339(tried.at.unix_ms),
            document: tried.meta.map(About::from),
        }
    }
}

/// What is told of things set on the box.
#[derive(Debug)]
pub struct Local {
    pub overrides: watch::Receiver<Vec<View>>,
    pub secret_key: Option<String>,
}

/// What the machine does not know.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub gateway: Name,
    pub effective_digest: Option<DocumentDigest>,
    pub retired_feeds: Vec<FeedId>,
    pub overrides: Vec<View>,
    pub secret_key: Option<String>,
    pub commands: Commands,
    pub timezone: String,
    pub groups: Vec<Name>,
    pub trust: Trust,
    pub wall: Stamp,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_none(count: &usize) -> bool {
    *count == 0
}

/// As many of the overrides as a report has room for, and how many more there are.
fn within(overrides: Vec<View>) -> (Vec<View>, usize) {
    let mut room = OVERRIDES_REPORTED_BYTES_MAX;
    let fits = |view: &View| {
        let bytes = serde_json::to_vec(view).expect("plain values").len() + 1;
        room.checked_sub(bytes).map(|left| room = left).is_some()
    };
    let all = overrides.len();
    let listed: Vec<View> = overrides.into_iter().take_while(fits).collect();
    let more = all - listed.len();
    (listed, more)
}

/// The reported state; `None` while the ledger on disk is behind.
pub fn reported(machine: &Machine, around: Surroundings) -> Option<Reported> {
    if machine.is_unsaved() {
        return None;
    }
    let (committed, since) = machine.committed();
    let facts = committed.facts();
    let (overrides, overrides_more) = within(around.overrides);
    Some(Reported {
        schema: SCHEMA,
        gateway: around.gateway,
        version: env!("CARGO_PKG_VERSION"),
        running: Running {
            revision: committed.revision(),
            digest: facts.map(|facts| facts.digest),
            since: clock::rfc3339(since.unix_ms),
            document: facts.map(|facts| About::from(facts.meta.clone())),
        },
        tried: machine.tried().map(Attempt::from),
        effective_digest: around.effective_digest,
        retired_feeds: around.retired_feeds,
        overrides,
        overrides_more,
        secret_key: around.secret_key,
        commands: around.commands,
        timezone: around.timezone,
        groups: around.groups,
        document_schema: SCHEMA_VERSION,
        trust: around.trust,
        time: clock::rfc3339(around.wall.unix_ms),
        clock_suspect: around.wall.suspect,
    })
}

/// For the status; `text` is the effective configuration as it is shown; `is_owed`: it does not all run yet.
pub fn config_view(machine: &Machine, text: &str, is_owed: bool) -> ConfigView {
    let (committed, since) = machine.committed();
    let tried = machine.tried().map(|tried| ConfigTried {
        revision: tried.revision,
        state: tried.state.to_owned(),
        code: filled(tried.code),
        reason: filled(tried.reason),
        at: clock::rfc3339(tried.at.unix_ms),
    });
    ConfigView {
        revision: committed.facts().map(|facts| facts.revision),
        state: machine.run_state().as_str().to_owned(),
        digest: committed.facts().map(|facts| facts.digest),
        since: committed.facts().map(|_| clock::rfc3339(since.unix_ms)),
        tried,
        is_owed,
        text: text.into(),
    }
}

/// The conditions that hold.
pub fn conditions(machine: &Machine) -> Vec<(Code, String)> {
    let mut holding = Vec::new();
    let running = match machine.committed().0.facts() {
        Some(facts) => format!("revision {} runs", facts.revision),
        None => "the local file runs".to_owned(),
    };
    if let Some(tried) = machine.tried() {
        let name = tried.revision.map_or_else(|| "a document".to_owned(), |revision| format!("revision {revision}"));
        let reason = &tried.reason;
        match tried.state {
            "refused" => holding.push((Code::ConfigRefused, format!("{name} was refused ({}): {reason}; {running}", tried.code))),
            "rolled_back" => holding.push((Code::ConfigRolledBack, format!("{name} was taken back ({}): {reason}; {running}", tried.code))),
            "trial" => holding.push((Code::ConfigTrial, format!("{name} is on trial; if it is not confirmed, {running} again"))),
            _ => {}
        }
    }
    if machine.run_state() == RunState::CommittedLocal {
        let text = format!("{running}; everything here holds, the hub has not been reached with it yet");
        holding.push((Code::ConfigCommittedLocal, text));
    }
    if machine.ledger_was_damaged() {
        let text = format!("the ledger of the configuration could not be read at the start; {running}");
        holding.push((Code::ConfigLedgerDamaged, text));
    }
    holding
}

/// Shows all of it on the board.
pub fn show(machine: &Machine, board: &Board, text: &str, is_owed: bool) {
    board.set_config(config_view(machine, text, is_owed));
    let holding = conditions(machine);
    let all = [Code::ConfigRefused, Code::ConfigRolledBack, Code::ConfigTrial, Code::ConfigCommittedLocal, Code::ConfigLedgerDamaged];
    for code in all {
        match holding.iter().find(|(holds, _)| *holds == code) {
            Some((_, text)) => board.raise(code, "", text.clone()),
            None => board.clear(code, ""),
        }
    }
}
