//! The task that owns the renewal; see the module above for what it does and why.
//!
//! Whatever happens (a document's wish, a certificate, an order from the socket, a connection, time) is handled to its end before the next. The
//! disk is asked from within this task, for files of some kilobytes. Order of writes: key, then memory; candidate, then the uplink; promotion,
//! then memory. A kill between any two is seen at the start: a key waits, a candidate is on trial again, a promotion is finished.

use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::handle::{Asked, Request, View};
use super::memory::Memory;
use super::trial::{Trial, Verdict};
use crate::audit::Book;
use crate::clock;
use crate::config::settings::{Endpoint, RenewSettings};
use crate::contract::{CertificateOutcome, CertificateState, RenewalState};
use crate::forward::mail::{Letter, Post};
use crate::limits::{RENEWAL_RETRY, RENEWAL_TICK, RENEWAL_TOLD_INTERVAL};
use crate::record::Name;
use crate::source::tls::certificate;
use crate::status::board::Board;
use crate::status::condition::Code;
use crate::uplink::credentials::{CredentialError, Credentials, chain_of};

/// What the keeper works with.
#[derive(Debug)]
pub struct Means {
    pub site: Name,
    pub gateway: Name,
    /// The certificate of the local file: a request asks for the same name.
    pub cert: Option<PathBuf>,
    pub credentials: Credentials,
    pub post: Post,
    pub book: Book,
    pub certificates: mpsc::Receiver<Bytes>,
    /// What the committed configuration asks for.
    pub wanted: watch::Receiver<Option<RenewSettings>>,
    pub asked: mpsc::Receiver<Asked>,
    pub board: std::sync::Arc<Board>,
}

#[derive(Debug)]
pub struct Keeper {
    means: Means,
    memory: Memory,
    /// Somebody asked once: from then on the retained request says how things stand.
    is_told: bool,
    trial: Option<Trial>,
    /// The candidate is proven and could not be made the current one yet: what was said of it.
    unpromoted: Option<String>,
    link: watch::Receiver<Option<Endpoint>>,
    proven: watch::Receiver<Option<Endpoint>>,
    /// The document's wish could not be written down.
    again_at: Option<Instant>,
    refused_at: Option<Instant>,
    /// When the hub's last one went on trial, and the newest that fits and came too soon after it.
    tried_at: Option<Instant>,
    held: Option<Bytes>,
    /// The uplink had no room for it: which certificates to go on with; how things stand.
    owes_identities: bool,
    owes_state: bool,
}

/// Where a certificate came from.
const HUB: &str = "hub";
const DOCUMENT: &str = "document";
const AGENT: &str = "agent";

impl Keeper {
    pub fn new(means: Means) -> Self {
        let remembered = means.credentials.memory().ok().flatten();
        let is_told = remembered.is_some() || means.credentials.is_waiting();
        let memory = remembered.map(|bytes| Memory::read(&bytes)).unwrap_or_default();
        let trial = means.credentials.candidate().map(|identity| Trial::new(identity, memory.trial()));
        let (link, proven) = (means.post.link(), means.post.proven());
        Self {
            means,
            memory,
            is_told,
            trial,
            unpromoted: None,
            link,
            proven,
            again_at: None,
            refused_at: None,
            tried_at: None,
            held: None,
            owes_identities: false,
            owes_state: false,
        }
    }

    /// Until told to stop.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut tick = interval(RENEWAL_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut posts, mut asks, mut wants, mut proves) = (true, true, true, true);
        block_in_place(|| {
            self.tell();
            self.wanted();
        });
        loop {
            let owes = self.owes_identities || self.owes_state;
            let waits = owes || self.trial.is_some() || self.again_at.is_some() || self.held.is_some();
            tokio::select! {
                biased;
                _ended = stop.wait_for(|stop| *stop) => return,
                changed = self.proven.changed(), if proves => {
                    proves = changed.is_ok();
                    block_in_place(|| self.judge());
                }
                asked = self.means.asked.recv(), if asks => match asked {
                    Some(asked) => block_in_place(|| self.asked(asked)),
                    None => asks = false,
                },
                came = self.means.certificates.recv(), if posts => match came {
                    Some(chain) => block_in_place(|| self.came(&chain)),
                    None => posts = false,
                },
                changed = self.means.wanted.changed(), if wants => {
                    wants = changed.is_ok();
                    block_in_place(|| self.wanted());
                }
                _ = tick.tick(), if waits => block_in_place(|| self.tick()),
            }
        }
    }

    fn tick(&mut self) {
        self.judge();
        if self.again_at.is_some_and(|at| at <= Instant::now()) {
            self.wanted();
        }
        if !self.is_too_soon()
            && let Some(chain) = self.held.take()
        {
            self.came(&chain);
        }
        if self.owes_identities {
            self.follow();
        }
        if self.owes_state {
            self.tell();
        }
    }

    // ---- a renewal is asked for ----

    /// The committed configuration may ask.
    fn wanted(&mut self) {
        self.again_at = None;
        let Some(RenewSettings { request, trial }) = self.means.wanted.borrow_and_update().clone() else { return };
        if self.memory.has_answered(&request) {
            return;
        }
        if let Err(why) = self.renew(Some(&request), trial) {
            tracing::error!(request, "the document asks for a new certificate, and no key could be made; it is tried again: {why}");
            self.again_at = Some(Instant::now() + RENEWAL_RETRY);
            return;
        }
        self.means.book.note(DOCUMENT, "certificate_requested", &request, "");
    }

    /// Makes a new key and asks with it. A candidate on trial is forgotten.
    fn renew(&mut self, request: Option<&str>, trial: std::time::Duration) -> Result<(), CredentialError> {
        if let Err(why) = self.means.credentials.make_key() {
            self.miss_candidate();
            return Err(why);
        }
        self.end_trial();
        let mut memory = self.memory.clone();
        memory.asked(request, trial);
        memory.last = None;
        self.means.credentials.remember(&memory.bytes())?;
        (self.memory, self.refused_at, self.is_told) = (memory, None, true);
        tracing::info!(request, "a new key was made and asks for its certificate");
        self.tell();
        Ok(())
    }

    // ---- a certificate comes ----

    /// Each trial costs writes and a connection, and whoever may publish there can have any number of certificates signed for our request.
    fn is_too_soon(&self) -> bool {
        self.tried_at.is_some_and(|at| at.elapsed() < RENEWAL_TOLD_INTERVAL)
    }

    /// From the hub. The same again, and what nobody asked for, is none of anybody's business.
    fn came(&mut self, chain: &Bytes) {
        let text = String::from_utf8_lossy(chain);
        if let Ok(certificates) = chain_of(&text)
            && (self.means.credentials.holds(&certificates[0]) || self.memory.has_refused(&certificates[0]))
        {
            return tracing::debug!("a certificate came that is known already");
        }
        if (self.is_too_soon() || self.unpromoted.is_some()) && self.means.credentials.fits(&text) {
            self.held = Some(chain.clone());
            return tracing::debug!("another certificate came for our request; the newest waits for its turn");
        }
        let taken = if self.means.credentials.is_waiting() { self.install(&text, false) } else { Err(CredentialError::NothingAsked) };
        let Err(why) = taken else {
            self.tried_at = Some(Instant::now());
            return;
        };
        if self.refused_at.is_some_and(|at| at.elapsed() < RENEWAL_TOLD_INTERVAL) {
            return tracing::debug!("another certificate is refused: {why}"); // whoever sends them does not fill the log
        }
        self.refused_at = Some(Instant::now());
        if matches!(why, CredentialError::NothingAsked) {
            return tracing::warn!("a certificate came that this gateway did not ask for; it is ignored");
        }
        self.conclude(false, HUB, format!("the certificate that came was not taken: {}", told(&why)));
    }

    /// Puts a certificate on trial. Somebody on site gives it all of its time, whatever the hub sent before.
    fn install(&mut self, chain: &str, is_on_site: bool) -> Result<(), CredentialError> {
        self.judge();
        if self.unpromoted.is_some() {
            return Err(CredentialError::Unpromoted); // it must not take the place of the proven one in its file
        }
        let certificates = chain_of(chain)?;
        has_not_ended(certificate::not_after(&certificates[0]), clock::believed_now())?;
        let identity = self.means.credentials.install(chain)?;
        match &mut self.trial {
            Some(trial) if !is_on_site => trial.pass_on(identity),
            _ => self.trial = Some(Trial::new(identity, self.memory.trial())),
        }
        self.follow();
        tracing::info!("a certificate came for our request; it is on trial");
        self.tell();
        Ok(())
    }

    // ---- a certificate on trial ----

    fn judge(&mut self) {
        if self.unpromoted.is_some() {
            return self.promote(); // proven is proven, wherever the connection is now
        }
        let Some(trial) = &mut self.trial else { return };
        let link = self.link.borrow().clone();
        let proven = self.proven.borrow().clone();
        match trial.judge(link.as_ref(), proven.as_ref(), Instant::now()) {
            Verdict::Wait => {}
            Verdict::Promote => self.promote(),
            Verdict::GiveUp => self.give_up(),
        }
    }

    fn promote(&mut self) {
        match self.means.credentials.promote() {
            Ok(_) => self.end_trial(),
            Err(CredentialError::NoCandidate) => {
                tracing::error!("the certificate on trial is not on the disk any more; the one from before stays in use");
                self.end_trial();
                return self.tell();
            }
            Err(why) => {
                let why = told(&why);
                if self.unpromoted.as_ref() != Some(&why) {
                    tracing::error!("the new certificate works, and could not be made the current one; it is tried again: {why}");
                }
                self.unpromoted = Some(why);
                return;
            }
        }
        let ends = self.means.credentials.current_end().map(|end| format!(", until {}", clock::rfc3339(end * 1000))).unwrap_or_default();
        self.conclude(true, AGENT, format!("the new certificate was proven by an acknowledged publish and is in use{ends}"));
    }

    fn give_up(&mut self) {
        let Some(trial) = self.trial.take() else { return };
        let cause = self.means.board.identity_fault(&trial.identity().cert);
        let cause = cause.map(|fault| format!("; what the uplink said of it last: {fault}")).unwrap_or_default();
        let why = format!(
            "no publish was acknowledged over a connection with the new certificate within {} s: the one from before stays in use{cause}",
            trial.time().as_secs()
        );
        // One that had only what another left of the time may come once more.
        if trial.had_all()
            && let Ok(leaf) =
                std::fs::read_to_string(&trial.identity().cert).map_err(|_| ()).and_then(|text| chain_of(&text).map_err(|_| ()))
        {
            self.memory.refuse(&leaf[0]);
        }
        if let Err(error) = self.means.credentials.give_up() {
            tracing::error!("the new certificate could not be removed; it will be tried once more at the next start: {error}");
        }
        self.follow();
        self.conclude(false, AGENT, why);
    }

    /// Nothing is on trial any more.
    fn end_trial(&mut self) {
        (self.unpromoted, self.held) = (None, None);
        if self.trial.take().is_some() {
            self.follow();
        }
    }

    /// Files could be changed in part only; a candidate that went with it is not on trial any more.
    fn miss_candidate(&mut self) {
        if self.trial.is_some() && self.unpromoted.is_none() && self.means.credentials.candidate().is_none() {
            self.end_trial();
            self.tell();
        }
    }

    /// The uplink goes on with the certificates that lie there.
    fn follow(&mut self) {
        let told = self.means.post.use_identities(self.means.credentials.identities());
        if let (Err(error), false) = (&told, self.owes_identities) {
            tracing::warn!("the uplink could not be told which certificates to go on with, it is told again every second: {error}");
        }
        self.owes_identities = told.is_err();
    }

    // ---- what is told ----

    /// What became of a certificate: kept, told, reported.
    fn conclude(&mut self, taken: bool, by: &str, why: String) {
        if taken {
            tracing::info!("{why}");
        } else {
            tracing::warn!("{why}");
        }
        self.means.book.note(by, if taken { "certificate_renewed" } else { "certificate_refused" }, "", &why);
        self.memory.last = Some(CertificateOutcome { taken, why, at: clock::rfc3339(clock::now().unix_ms) });
        self.remember();
        self.tell();
    }

    fn remember(&self) {
        if let Err(error) = self.means.credentials.remember(&self.memory.bytes()) {
            tracing::warn!("what became of the certificate could not be written down: {error}");
        }
    }

    fn common_name(&self) -> String {
        let known = self.means.cert.as_deref().and_then(|path| std::fs::read_to_string(path).ok()).and_then(|text| chain_of(&text).ok());
        let name = known.and_then(|chain| certificate::subject(&chain[0]));
        name.unwrap_or_else(|| format!("{}.{}", self.means.site, self.means.gateway)).chars().take(64).collect()
    }

    fn csr(&self) -> Option<String> {
        self.means.credentials.request(&self.common_name()).unwrap_or_else(|error| {
            tracing::error!("no request can be made of the key that waits: {error}");
            None
        })
    }

    fn state(&self, csr: Option<&str>) -> RenewalState {
        match (&self.trial, csr) {
            (Some(_), _) => RenewalState::Trial,
            (None, Some(_)) => RenewalState::Requested,
            (None, None) => RenewalState::Idle,
        }
    }

    /// Conditions, and the retained request. Nothing is published while nobody ever asked.
    fn tell(&mut self) {
        let csr = self.csr();
        let state = self.state(csr.as_deref());
        let board = &self.means.board;
        match state {
            RenewalState::Idle => board.clear(Code::CertificatePending, ""),
            RenewalState::Requested => {
                let text = "a key waits for its certificate; sign the request (`siteward certs csr`, or certificate/request at the hub)";
                board.raise(Code::CertificatePending, "", text);
            }
            RenewalState::Trial => {
                let text = "a new certificate is on trial; the one from before stays in use until the new one is proven";
                board.raise(Code::CertificatePending, "", text);
            }
        }
        match &self.memory.last {
            Some(CertificateOutcome { taken: false, why, .. }) => board.raise(Code::CertificateRefused, "", why.clone()),
            _ => board.clear(Code::CertificateRefused, ""),
        }
        if !self.is_told {
            return;
        }
        let now = clock::now();
        let told = CertificateState {
            schema: 1,
            gateway: self.means.gateway.clone(),
            state,
            request: self.memory.request.clone(),
            csr,
            last: self.memory.last.clone(),
            time: clock::rfc3339(now.unix_ms),
            clock_suspect: now.suspect,
        };
        let posted = self.means.post.post(Letter::Certificate(serde_json::to_vec(&told).expect("plain values").into()));
        if let (Err(error), false) = (&posted, self.owes_state) {
            tracing::warn!("how the renewal stands could not be handed to the uplink, it is tried again every second: {error}");
        }
        self.owes_state = posted.is_err();
    }

    // ---- the control socket ----

    fn asked(&mut self, asked: Asked) {
        let done = match &asked.request {
            Request::Show => Ok(None),
            Request::Renew { trial, .. } => {
                self.renew(None, *trial).map(|()| Some("a new key was made; have the request signed (`siteward certs csr --out FILE`)"))
            }
            Request::Install { chain, .. } => {
                self.install(chain, true).map(|()| Some("the certificate is on trial; `siteward certs show` says what becomes of it"))
            }
            Request::Cancel { .. } => self.cancel().map(|()| Some("no renewal waits any more; the certificate in use is not touched")),
        };
        let view = done.map(|done| self.view(done)).map_err(|error| told(&error));
        asked.answer(view);
    }

    fn cancel(&mut self) -> Result<(), CredentialError> {
        if let Err(why) = self.means.credentials.cancel() {
            self.miss_candidate();
            return Err(why);
        }
        self.end_trial();
        self.memory.last = None;
        self.remember();
        self.tell();
        Ok(())
    }

    fn view(&self, done: Option<&str>) -> View {
        let csr = self.csr();
        let current = self.means.credentials.current();
        View {
            state: self.state(csr.as_deref()),
            request: self.memory.request.clone(),
            csr,
            last: self.memory.last.clone(),
            ends: current.as_ref().and_then(|_| self.means.credentials.current_end()).map(|end| clock::rfc3339(end * 1000)),
            renewed: current.map(|identity| identity.cert.display().to_string()),
            done: done.map(str::to_owned),
        }
    }
}

/// Dates count by a clock that can be believed, as everywhere (I10); else the broker decides, by its own. `end` in seconds since 1970.
pub(super) fn has_not_ended(end: Option<i64>, now_ms: Option<i64>) -> Result<(), CredentialError> {
    match (end, now_ms) {
        (Some(end), Some(now_ms)) if end <= now_ms.div_euclid(1000) => Err(CredentialError::Ended { at: clock::rfc3339(end * 1000) }),
        _ => Ok(()),
    }
}

/// The error with its cause.
fn told(error: &CredentialError) -> String {
    let cause = std::error::Error::source(error).map(|source| format!(" ({source})")).unwrap_or_default();
    format!("{error}{cause}")
}
