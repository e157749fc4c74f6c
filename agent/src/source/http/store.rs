//! Records of one request into the spool, in order, bundle by bundle; what is none into quarantine, synced, before anything behind it.
//!
//! The first refusal ends it: what was durable before stays, and the same request again under its key passes over it. A success is said only
//! with ids out of `Durable`s (I1).

use bytes::Bytes;

use super::Shared;
use super::answer::{Refusal, Stored};
use super::media::{Kind, MediaType};
use super::parts::Parts;
use crate::clock;
use crate::limits::{FILE_BUNDLE_BYTES, FILE_BUNDLE_RECORDS};
use crate::record::{FileFingerprint, HttpOrigin, Message, MessageIdentity, Origin, Payload, record_id};
use crate::source::split::{PieceKind, SplitLimits};
use crate::spool::{AppendError, Durable, QuarantineError, Row};
use sha2::{Digest as _, Sha256};

/// A request that was read and looked through.
#[derive(Debug)]
pub(super) struct Posted<'a> {
    pub kind: Kind,
    pub media_type: &'a MediaType,
    pub body: &'a Bytes,
    pub key: Option<&'a str>,
    /// Whom the client has proven to be; empty where nobody asked.
    pub client: &'a str,
    /// For people.
    pub peer: &'a str,
}

impl Posted<'_> {
    /// Which request it is: the same again under its key; without one, a new one every time.
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(self.client).chain_update([0]);
        if let Some(key) = self.key {
            hash.update(key);
        } else {
            let mut salt = [0; 32];
            getrandom::fill(&mut salt).expect("the kernel gives random numbers once it has started");
            hash.update(salt);
        }
        hash.chain_update([0]).chain_update(self.media_type.essence()).chain_update([0]).chain_update(self.body).finalize().into()
    }

    /// Of its `number`th record; the first has the key alone, as most requests hold one. Every request that holds a record holds a first one, which
    /// is how another request under a key is told.
    fn identity(&self, number: u64) -> Option<MessageIdentity> {
        let key = self.key?;
        let (application, control_id) = match number {
            1 => ("http", key.to_owned()),
            _ => ("http part", format!("{key}#{number}")),
        };
        let copied = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Some(MessageIdentity { application: copied(application), facility: copied(self.client), control_id: control_id.into() })
    }
}

/// What is stored so far.
#[derive(Debug, Default)]
struct Progress {
    records: u64,
    quarantined: u64,
    first: Option<String>,
    last: Option<String>,
    bundle: Vec<Message>,
    bundle_bytes: usize,
}

/// Stores all of it, or says how far it came.
pub(super) async fn store(shared: &Shared, posted: &Posted<'_>) -> Result<Stored, Refusal> {
    let limits = SplitLimits::new(shared.message_bytes_max);
    let request = posted.digest();
    // Keeps what is unusable from being put away twice under one key.
    let fingerprint = FileFingerprint(request);
    let media_type = posted.kind.of_records().unwrap_or(posted.media_type.essence());
    let mut progress = Progress::default();
    let mut number = 0;
    for piece in Parts::new(posted.kind, posted.body, limits) {
        match piece.kind {
            PieceKind::Record(bytes) => {
                if progress.bundle.len() >= FILE_BUNDLE_RECORDS || progress.bundle_bytes + bytes.len() > FILE_BUNDLE_BYTES {
                    progress.append(shared).await?;
                }
                let now = clock::now();
                number += 1;
                progress.bundle_bytes += bytes.len();
                progress.bundle.push(Message {
                    feed: shared.feed.clone(),
                    identity: posted.identity(number),
                    body: Payload::new(bytes),
                    reply: Payload::new(Bytes::new()),
                    origin: Origin::Http(HttpOrigin { peer: posted.peer.to_owned(), media_type: media_type.to_owned(), request }),
                    received_at_ms: now.unix_ms,
                    clock_suspect: now.suspect,
                    stage: shared.settings.stage,
                    batch_mismatch: false,
                });
            }
            PieceKind::Bad { code, bytes } => {
                progress.append(shared).await?;
                let part = piece.row.map_or_else(|| format!("part {}", piece.index), |row| format!("line {row}"));
                let origin = format!("{} {part}", posted.peer);
                let row = Row {
                    feed: shared.feed.clone(),
                    file: fingerprint,
                    offset: piece.range.start,
                    code,
                    origin,
                    bytes: Payload::new(bytes),
                };
                shared.appender.quarantine_part(row).await.map_err(|error| progress.refused_part(shared, &error))?;
                progress.quarantined += 1;
            }
        }
    }
    progress.append(shared).await?;
    let Progress { records, quarantined, first, last, .. } = progress;
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    Ok(Stored { records, quarantined, first, last })
}

impl Progress {
    async fn append(&mut self, shared: &Shared) -> Result<(), Refusal> {
        if self.bundle.is_empty() {
            return Ok(());
        }
        self.bundle_bytes = 0;
        let mut first_error = None;
        for outcome in shared.appender.append_several(std::mem::take(&mut self.bundle)).await {
            match outcome {
                Ok(durable) => self.note(shared, &durable),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(()), |error| Err(self.refused(shared, &error)))
    }

    fn note(&mut self, shared: &Shared, durable: &Durable) {
        let id = record_id(&shared.gateway, &shared.feed, durable.incarnation(), durable.seq());
        self.records += 1;
        self.first.get_or_insert_with(|| id.clone());
        self.last = Some(id);
    }

    fn refused(&self, shared: &Shared, error: &AppendError) -> Refusal {
        let durable = self.records;
        match error {
            AppendError::IdentityReused => Refusal::KeyReused { durable },
            AppendError::Stopping if durable == 0 => Refusal::Stopping,
            AppendError::TooLarge { .. } => Refusal::TooLarge { limit: shared.message_bytes_max },
            AppendError::Full(_) => Refusal::StoreFailed { durable, full: true },
            AppendError::Store(_) | AppendError::UnknownFeed(_) | AppendError::Stopping => Refusal::StoreFailed { durable, full: false },
        }
    }

    fn refused_part(&self, shared: &Shared, error: &QuarantineError) -> Refusal {
        tracing::warn!(feed = %shared.feed, "unusable parts of a request could not be kept: {error}");
        match error {
            QuarantineError::Full => Refusal::QuarantineFull { durable: self.records },
            QuarantineError::Store(_) => Refusal::StoreFailed { durable: self.records, full: false },
        }
    }
}
