//! A start: which configuration runs. Blocking; called by the agent when it has the spool's lock and before it opens the spool.
//!
//! ```text
//!   local file ──► anchors, identity ─┐
//!   ledger ──► committed document ────┼─► effective settings ──► the agent opens the spool with their feeds
//!   envelope, verified again ─────────┘
//! ```
//!
//! 1. A committed document whose signature does not hold any more (the anchors changed) runs all the same: a site without feeds is worse. It is the
//!    condition `config_unverified`. The ledger knows the digest of what was verified when it came, so other text than that never runs.
//! 2. A committed document that cannot be read or does not fit the local file any more gives way to the one before it, at last to the local file.
//! 3. A read that fails is made three times before a document counts as lost: going back is written down, a passing fault must not be.
//! 4. What documents refer to (certificates, directories) is not looked at here: a file that is missing costs its feed, not the start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facts::{ConfirmBy, Facts, Meta, Now, Stamp};
use super::machine::{Action, Found, Input, Machine, RunState};
use super::store::{Store, StoreError, Stored};
use super::{Generation, carry_out, drive, trial_s};
use crate::clock;
use crate::config::document::{self, BootstrapText, Document, Identity};
use crate::config::header;
use crate::config::settings::{FeedSettings, Settings};
use crate::config::trust::Anchors;
use crate::config::{Files, refusal::Refusal};
use crate::limits::{ENVELOPE_READ_PAUSE, ENVELOPE_READS, ROLLOUT_FALLBACKS_MAX};
use crate::record::DocumentDigest;
use crate::spool::disk::Disk;
use crate::status::board::Board;
use crate::status::condition::Code;

/// Everything that documents are judged by; it does not change while the agent runs.
#[derive(Debug)]
pub struct Ground {
    /// As it was at the start: what documents are merged with.
    pub local: BootstrapText,
    /// The local file alone: what is in use of it, so its feeds as last read and the rest as at the start.
    pub local_settings: Settings,
    /// The local file as it was last put to use, for people.
    pub local_shown: Arc<str>,
    /// Those that count now, and those of the local file.
    pub anchors: Anchors,
    pub local_anchors: Anchors,
    pub identity: Identity,
    pub credentials: Option<PathBuf>,
}

/// A configuration that can run, and where it comes from.
#[derive(Clone, Debug)]
pub struct Running {
    pub settings: Settings,
    /// The document's text; of the local file where none runs.
    pub text: Arc<str>,
}

/// A generation as it comes from the store.
#[derive(Debug)]
pub struct Restored {
    pub running: Running,
    /// Its signatures do not hold now: a sentence for `config_unverified`.
    pub unverified: Option<String>,
}

/// Whether what runs is verified, on the board.
pub fn show_unverified(board: &Board, unverified: Option<&str>) {
    match unverified {
        Some(text) => board.raise(Code::ConfigUnverified, "", text),
        None => board.clear(Code::ConfigUnverified, ""),
    }
}

/// A read that fails is tried again: it may be a passing fault, and what rests on it is large. Blocking.
fn patiently<T>(mut once: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let mut read = once();
    for _ in 1..ENVELOPE_READS {
        if read.is_ok() {
            break;
        }
        std::thread::sleep(ENVELOPE_READ_PAUSE);
        read = once();
    }
    read
}

/// A rollout that has not begun to listen.
#[derive(Debug)]
pub struct Started {
    pub machine: Machine,
    pub store: Store,
    pub ground: Ground,
    pub running: Running,
    pub actions: Vec<Action>,
}

/// The facts of a document that are kept.
pub fn facts(document: &Document) -> Facts {
    let header = &document.header;
    let confirm = match header.confirm {
        header::ConfirmBy::PeersReturn => ConfirmBy::PeersReturn,
        header::ConfirmBy::Bound => ConfirmBy::Bound,
    };
    let meta = Meta::new(&header.author, header.approver.as_deref(), &header.reason, header.ticket.as_deref());
    Facts { revision: header.revision, digest: DocumentDigest(document.digest), trial_s: trial_s(header.trial), confirm, meta }
}

/// Both clocks, the monotonic one in milliseconds since `start`.
pub fn now(start: std::time::Instant) -> Now {
    Now { mono_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX), wall: Stamp::from(clock::now()) }
}

impl Ground {
    /// `settings` are those of the file's own text.
    pub fn new(file: &Path, settings: Settings) -> Result<Self, crate::config::Faults> {
        let anchors = Anchors::load(&settings.trust).unwrap_or_else(|why| {
            tracing::error!("{why}; documents are refused until that is mended and the agent started again");
            Anchors::of(Vec::new(), 1, Vec::new(), 1)
        });
        let local = BootstrapText::read(file)?;
        Ok(Self {
            local_shown: local.text.as_str().into(),
            local,
            identity: Identity::of(&settings.gateway),
            local_settings: settings,
            local_anchors: anchors.clone(),
            anchors,
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        })
    }

    pub fn local(&self) -> Running {
        Running { settings: self.local_settings.clone(), text: Arc::clone(&self.local_shown) }
    }

    /// A configuration is proven: from now on its anchors count, and what it says of the bootstrap is what the next document has to repeat. `Err`:
    /// its anchors cannot be had, a sentence; then neither, and it is to be tried again.
    pub fn settle(&mut self, running: &Settings) -> Result<(), String> {
        if self.local.moved != running.moved {
            self.anchors = Anchors::load(&running.trust)?;
            self.local.moved.clone_from(&running.moved);
        }
        Ok(())
    }

    /// The feeds of the local file were read again; whatever else it says now counts from the next start.
    pub fn reloaded(&mut self, text: &str, feeds: &[FeedSettings]) {
        self.local_shown = text.into();
        self.local_settings.feeds = feeds.to_vec();
    }

    pub fn effective(&self, document: &Document, look: Files) -> Result<Running, Refusal> {
        let settings = document::effective(&self.local, Some(document), look, self.credentials.as_deref())?;
        Ok(Running { settings, text: document.text.as_str().into() })
    }

    /// The configuration of a generation that was proven here, from its stored envelope.
    pub fn restore(&self, store: &Store, generation: &Generation) -> Result<Restored, String> {
        let Some(facts) = generation.facts() else { return Ok(Restored { running: self.local(), unverified: None }) };
        let (document, unverified) = patiently(|| self.stored(store, facts))?;
        let document = Document { recovery: true, ..document }; // what it may say was judged when it came
        let running = self.effective(&document, Files::NotChecked).map_err(|refusal| refusal.to_string())?;
        Ok(Restored { running, unverified })
    }

    fn stored(&self, store: &Store, facts: &Facts) -> Result<(Document, Option<String>), String> {
        let envelope = store.envelope(facts.digest).map_err(|error| error.to_string())?;
        let opened = document::open(&envelope, &self.anchors).or_else(|refusal| {
            let own = || document::open_by_its_own_anchors(&envelope, &self.local, &self.local_settings.trust);
            document::open(&envelope, &self.local_anchors).ok().or_else(own).ok_or(refusal)
        });
        let (document, unverified) = match opened {
            Ok(document) => (document, None),
            Err(refusal) => {
                let document = document::open_unverified(&envelope).map_err(|error| error.to_string())?;
                (document, Some(format!("revision {} runs, though its signatures do not hold now: {refusal}", facts.revision)))
            }
        };
        if document.digest != facts.digest.0 {
            return Err(format!("the stored text of revision {} is not what was verified", facts.revision));
        }
        Ok((document, unverified))
    }
}

/// What is committed on the spool of the local file's settings, and its revision; for tools beside the agent. Nothing is written.
pub fn committed(disk: Arc<dyn Disk>, file: &Path, local: Settings) -> Result<(Settings, Option<u64>), String> {
    let spool = local.spool.path.clone();
    let Some(facts) = super::store::committed(&spool).map_err(|error| error.to_string())? else { return Ok((local, None)) };
    let ground = Ground::new(file, local).map_err(|faults| faults.to_string())?;
    let (document, _) = ground.stored(&Store::look(disk, &spool), &facts)?;
    let document = Document { recovery: true, ..document }; // as in `restore`
    let mut settings = ground.effective(&document, Files::NotChecked).map_err(|refusal| refusal.to_string())?.settings;
    settings.settle();
    Ok((settings, Some(facts.revision)))
}

/// Reads the ledger and decides what runs.
pub fn start(disk: Arc<dyn Disk>, mut ground: Ground, board: &Board, at: Now) -> Result<Started, StoreError> {
    let (mut store, stored) = Store::open(disk, &ground.local_settings.spool.path)?;
    let found = found(&store, stored, &ground);
    let (mut machine, actions) = Machine::boot(found, at);
    let mut actions = carry_out(&mut machine, &mut store, at, actions, None);
    let mut running = None;
    for _ in 0..ROLLOUT_FALLBACKS_MAX {
        match ground.restore(&store, machine.committed().0) {
            Ok(Restored { running: good, unverified }) => {
                show_unverified(board, unverified.as_deref());
                running = Some(good);
                break;
            }
            Err(why) => {
                tracing::error!("the committed configuration cannot be used: {why}; the one before it is taken");
                actions.extend(drive(&mut machine, &mut store, at, Input::CommittedLost { why }, None));
            }
        }
    }
    // What is put to use is known here; the shell needs not be told again.
    actions.retain(|action| !matches!(action, Action::Revert(_)));
    let mut running = running.unwrap_or_else(|| ground.local());
    if machine.run_state() != RunState::CommittedLocal {
        match ground.settle(&running.settings) {
            Ok(()) => drop(running.settings.settle()),
            Err(why) => tracing::error!("{why}; the trust anchors stay those of the local file, until that is mended"), // the shell goes on trying
        }
    }
    Ok(Started { machine, store, ground, running, actions })
}

fn found(store: &Store, stored: Stored, ground: &Ground) -> Found {
    let verified = |digests: &[DocumentDigest]| -> Vec<Facts> {
        let open = |digest: &DocumentDigest| {
            let envelope = patiently(|| store.envelope(*digest).map_err(|error| error.to_string())).ok()?;
            document::open(&envelope, &ground.anchors).ok()
        };
        digests.iter().filter_map(open).map(|document| facts(&document)).collect()
    };
    match stored.ledger {
        Some(ledger) => Found::Ledger(Box::new(ledger)),
        None if stored.is_damaged => Found::Damaged { proven: verified(&stored.proven), unproven: verified(&stored.unproven) },
        None => Found::Nothing,
    }
}
