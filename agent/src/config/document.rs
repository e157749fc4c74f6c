//! Configuration documents: from the bytes that arrived to the settings they would make. Pure: whoever calls brings the bytes, the anchors, the
//! time and the local file.
//!
//! ```text
//!  bytes ─ open ─► Document ─ judge ─► for us, new, in time ─ effective ─► Settings      nothing is applied here
//!   │ size, envelope, type,      │ revision, selector,           │ bootstrap keys, secrets, every key of the schema,
//!   │ signatures, UTF-8, TOML,   │ dates, version                │ merged with the bootstrap, validated whole
//!   │ schema version, header     ▼                               ▼
//!   └───────────────────────► Refusal: the first reason, in this order, with its code and a sentence
//! ```
//!
//! 1. Nothing of the payload is parsed before its signatures are verified over the raw bytes.
//! 2. [`open`] reads as much of the header as decides; a key that this version does not know is told by [`effective`], so that a document for
//!    newer gateways is refused as such.
//! 3. Dates are judged only by a clock that can be believed (I10): `now` is `None` otherwise.
//! 4. [`effective`] takes everything but feeds and added endpoints from the bootstrap. A fault in the local file's own feeds does not matter
//!    once a document replaces them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use toml::de::DeTable;

use super::envelope::DOCUMENT_TYPE;
use super::fault::{FaultList, Place};
use super::header::{self, Header, SCHEMA_VERSION, Selector, Version};
use super::reader::{Section, duration, pem, text, whole};
use super::refusal::Refusal;
use super::secret::{self, Lookup};
use super::settings::{Endpoint, GatewaySettings, Moved, RenewSettings, Settings, TrustSettings};
use super::trust::{Anchors, Verified};
use super::{Faults, Files, bootstrap, endpoint, files, forbidden, merged, status, validate, written};
use crate::limits::{CANDIDATE_TRIAL, CANDIDATE_TRIAL_RANGE, ENDPOINTS_ADDED_MAX, RENEWAL_REQUEST_BYTES_MAX};
use crate::record::Name;

/// A document with good signatures and a readable header. Whether it is for us, and whether it is any good, is not said yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub header: Header,
    /// SHA-256 of the payload.
    pub digest: [u8; 32],
    /// The TOML that was signed.
    pub text: String,
    /// Signed by the recovery keys.
    pub recovery: bool,
}

impl Document {
    /// What faults call it.
    pub fn name(&self) -> PathBuf {
        PathBuf::from(format!("document-{}.toml", self.header.revision))
    }
}

/// Who a gateway is, as far as documents care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub gateway: Name,
    pub groups: Vec<Name>,
    pub version: Version,
}

impl Identity {
    pub fn of(gateway: &GatewaySettings) -> Self {
        Self { gateway: gateway.id.clone(), groups: gateway.groups.clone(), version: Version::ours() }
    }
}

/// The local file.
#[derive(Clone, Debug)]
pub struct BootstrapText {
    pub file: PathBuf,
    pub text: String,
    /// What a committed document of the recovery keys put in place of some of it.
    pub moved: Option<Moved>,
}

impl BootstrapText {
    pub fn read(file: &Path) -> Result<Self, Faults> {
        Ok(Self { file: file.to_owned(), text: super::read_file(file)?, moved: None })
    }
}

/// Verifies an envelope and reads the header of what is in it.
pub fn open(envelope: &[u8], trust: &Anchors) -> Result<Document, Refusal> {
    trust.verify(envelope, DOCUMENT_TYPE).and_then(read)
}

/// Verifies a stored document by the anchors that it names itself: only for one whose digest says that it was taken here.
pub fn open_by_its_own_anchors(envelope: &[u8], local: &BootstrapText, trust: &TrustSettings) -> Option<Document> {
    let document = open_unverified(envelope).ok()?;
    let moved = effective(local, Some(&document), Files::NotChecked, None).ok()?.moved.filter(|moved| !moved.keys.is_empty())?;
    let trust = TrustSettings { inline_keys: moved.keys, threshold: moved.threshold, ..trust.clone() };
    open(envelope, &Anchors::load(&trust).ok()?).ok()
}

/// Reads a document that was verified when it came, though its signatures do not hold now. Whoever calls knows its digest.
pub fn open_unverified(envelope: &[u8]) -> Result<Document, Refusal> {
    // Whether the recovery keys signed it was judged then, too.
    read_payload(super::envelope::read(envelope)?.payload, true)
}

fn read(verified: Verified) -> Result<Document, Refusal> {
    let recovery = verified.by_recovery();
    read_payload(verified.into_payload(), recovery)
}

/// Reads an unsigned document, where it is written and where it is checked.
pub(crate) fn read_unsigned(payload: Vec<u8>) -> Result<Document, Refusal> {
    read_payload(payload, true) // by whom it will be signed is not known yet
}

fn read_payload(payload: Vec<u8>, recovery: bool) -> Result<Document, Refusal> {
    let digest = Sha256::digest(&payload).into();
    let text = String::from_utf8(payload).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Refusal::NotUtf8 { line: good.split(|b| *b == b'\n').count() }
    })?;
    let file = Path::new("document.toml");
    let header = {
        let table = super::document(file, &text).map_err(Refusal::NotToml)?;
        schema_version(table.get_ref(), file, &text)?;
        let mut faults = FaultList::default();
        match header::read(&mut Section::root(table.get_ref()), &mut faults) {
            Some(header) => header,
            None => return Err(Refusal::Invalid(faults.into_faults(file, &text))),
        }
    };
    Ok(Document { header, digest, text, recovery })
}

/// First of all keys: what the others mean depends on it.
fn schema_version(table: &DeTable<'_>, file: &Path, text: &str) -> Result<(), Refusal> {
    let mut faults = FaultList::default();
    let mut root = Section::root(table);
    if root.has("document").is_none() {
        return Ok(()); // told with the header
    }
    let mut section = root.section(&mut faults, "document");
    let place = section.place.clone();
    let version =
        section.read(&mut faults, "schema_version", whole).required(&mut faults, &place, "schema_version", "write schema_version = 1");
    match version {
        Some(at) if at.value != SCHEMA_VERSION => {
            let line = text.as_bytes()[..at.place.offset].split(|b| *b == b'\n').count();
            Err(Refusal::SchemaVersion { file: file.display().to_string(), line })
        }
        Some(_) => Ok(()),
        None => Err(Refusal::Invalid(faults.into_faults(file, text))),
    }
}

/// Whether a document is for this gateway, not older than what runs (`0`: the local file), in time, and not for a newer version. The same revision
/// again passes; whoever keeps the digest of what runs tells whether it is the same document.
pub fn judge(doc: &Document, who: &Identity, running_revision: u64, now: Option<Timestamp>) -> Result<(), Refusal> {
    let header = &doc.header;
    if header.revision < running_revision {
        return Err(Refusal::OldRevision { running: running_revision, offered: header.revision });
    }
    let (key, is_ours) = match &header.selector {
        Selector::Gateway(gateway) => ("gateway", *gateway == who.gateway),
        Selector::Groups(groups) => ("groups", groups.iter().any(|group| who.groups.contains(group))),
    };
    if !is_ours {
        return Err(Refusal::OtherGateway { key, gateway: who.gateway.to_string() });
    }
    if let Some(now) = now {
        if let Some(not_before) = header.not_before.filter(|at| now < *at) {
            return Err(Refusal::NotYet { not_before });
        }
        if let Some(expires) = header.expires.filter(|at| now >= *at) {
            return Err(Refusal::Expired { expires });
        }
    }
    match header.min_agent_version {
        Some(need) if need > who.version => Err(Refusal::AgentTooOld { have: who.version, need }),
        _ => Ok(()),
    }
}

/// The settings that bootstrap and document make together; without a document, those of the local file alone.
///
/// `credentials`: where systemd hands credentials over, if it does.
pub fn effective(local: &BootstrapText, doc: Option<&Document>, look: Files, credentials: Option<&Path>) -> Result<Settings, Refusal> {
    let Some(doc) = doc else { return super::parse(&local.file, &local.text, look, credentials).map_err(Refusal::Invalid) };
    let name = doc.name();
    let table = super::document(&name, &doc.text).map_err(Refusal::NotToml)?;
    let table = table.get_ref();
    let mut faults = FaultList::default();
    forbidden::bootstrap_keys(table, &mut faults);
    if !faults.is_empty() {
        return Err(Refusal::BootstrapKey(faults.into_faults(&name, &doc.text)));
    }
    forbidden::secrets(table, &doc.text, &mut faults);
    if !faults.is_empty() {
        return Err(Refusal::SecretLiteral(faults.into_faults(&name, &doc.text)));
    }
    let (mut settings, allow_plaintext) = super::bootstrap(&local.file, &local.text, look, credentials).map_err(Refusal::Invalid)?;
    let mut root = Section::root(table);
    let place = root.place.missing("bootstrap");
    let section = root.has("bootstrap").is_some().then(|| root.section(&mut faults, "bootstrap"));
    let place = section.as_ref().map_or(place, |section| section.place.clone());
    let moved = section.and_then(|section| bootstrap::read(section, allow_plaintext, &mut faults));
    if faults.is_empty() {
        bootstrap::judge(moved.as_ref(), local.moved.as_ref(), doc.recovery, &place, &mut faults);
        if !faults.is_empty() {
            return Err(Refusal::BootstrapKey(faults.into_faults(&name, &doc.text)));
        }
    }
    let is_proven = moved == local.moved;
    if let Some(moved) = moved {
        moved.put_into(&mut settings);
        if is_proven {
            settings.settle();
        } else if look == Files::Checked {
            keys_can_count(&settings.trust, &place, &mut faults);
        }
    }
    let base = super::base(&local.file);
    header::read(&mut root, &mut faults);
    let mut uplink = root.section(&mut faults, "uplink");
    let added = uplink.sections(&mut faults, "endpoint").into_iter().map(|s| added(s, allow_plaintext, &mut faults)).collect::<Vec<_>>();
    if added.len() > ENDPOINTS_ADDED_MAX {
        faults.add(
            &uplink.place.missing("endpoint"),
            format!("comes more than {ENDPOINTS_ADDED_MAX} times; a document adds at most so many"),
        );
    }
    let renew = uplink.has("renew").is_some().then(|| uplink.section(&mut faults, "renew")).map(|section| renew(section, &mut faults));
    uplink.finish(&mut faults);
    let carried = secret::read(root.sections(&mut faults, "secret"), &mut faults);
    let vault = secret::vault(&settings.spool, credentials);
    let sections = root.sections(&mut faults, "feed");
    let feeds: Vec<written::Feed> = sections.into_iter().map(|section| written::feed(section, &mut faults)).collect();
    root.finish(&mut faults);
    let feeds: Vec<merged::Feed> = feeds.into_iter().map(|feed| merged::feed(feed, &mut faults)).collect();
    if look != Files::NotChecked {
        let here = look == Files::Checked;
        status::keep_port(&settings.status, &feeds, &mut faults);
        files::check_feeds(&feeds, &base, &Lookup { vault: Arc::clone(&vault), carried: &carried, here }, &mut faults);
    }
    let mut feeds = validate::feeds(&feeds, Some(&settings.gateway.timezone), &base, &mut faults);
    secret::bind(feeds.as_deref_mut().unwrap_or_default(), &vault, &carried, &mut faults);
    match (feeds, added.into_iter().collect::<Option<Vec<_>>>()) {
        (Some(feeds), Some(added)) if faults.is_empty() => {
            settings.feeds = feeds;
            settings.uplink.endpoints.splice(0..0, added);
            settings.renew = renew.flatten();
            Ok(settings)
        }
        _ => Err(Refusal::Invalid(faults.into_faults(&name, &doc.text))),
    }
}

/// Keys that could not count once they are proven must not go on trial. Only the gateway itself has the files of the recovery keys.
fn keys_can_count(trust: &TrustSettings, place: &Place, f: &mut FaultList) {
    if !trust.inline_keys.is_empty()
        && let Err(why) = Anchors::load(trust)
    {
        f.add(place, format!("brings keys that this gateway cannot go by: {why}"));
    }
}

/// `[uplink.renew]`
fn renew(mut s: Section<'_, '_>, f: &mut FaultList) -> Option<RenewSettings> {
    let place = s.place.clone();
    let advice = "write a value that was not used before, like \"2026-11\"; each asks for one new certificate";
    let request = s.read(f, "request", text).required(f, &place, "request", advice);
    let trial = s.read(f, "trial", duration);
    s.finish(f);
    let request = request?;
    let usable = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if request.value.is_empty() || request.value.len() > RENEWAL_REQUEST_BYTES_MAX || !request.value.chars().all(usable) {
        let text = format!("must have 1 to {RENEWAL_REQUEST_BYTES_MAX} letters, digits and . _ -; for instance \"2026-11\"");
        return f.refuse(&request.place, text);
    }
    let trial = match trial.given() {
        Some(at) if !(CANDIDATE_TRIAL_RANGE.0..=CANDIDATE_TRIAL_RANGE.1).contains(&at.value) => {
            return f.refuse(&at.place, "must be from 10s to 24h");
        }
        Some(at) => at.value,
        None => CANDIDATE_TRIAL,
    };
    Some(RenewSettings { request: request.value, trial })
}

/// `[[uplink.endpoint]]`
fn added(mut s: Section<'_, '_>, allow_plaintext: bool, f: &mut FaultList) -> Option<Endpoint> {
    let place = s.place.clone();
    let url = s.read(f, "url", text).required(f, &place, "url", "give the broker's address, like \"mqtts://hub2.example.org:8883\"");
    let ca = s.read(f, "ca_pem", pem);
    s.finish(f);
    let url = url?;
    let endpoint = match endpoint::parse(&url.value) {
        Ok(endpoint) if endpoint.tls || allow_plaintext => endpoint,
        Ok(_) => return f.refuse(&url.place, "has no TLS; use mqtts:// (the gateway's own file does not allow less)"),
        Err(why) => return f.refuse(&url.place, why),
    };
    let ca = match ca.given() {
        Some(at) if !endpoint.tls => return f.refuse(&at.place, "stands beside an mqtt:// address, which has no certificate; remove it"),
        Some(at) => match files::authorities_of(at.value.as_bytes()) {
            Ok(_) => Some(at.value.as_str().into()),
            Err(why) => return f.refuse(&at.place, why.replacen("names a file", "is text", 1)),
        },
        None if ca.is_absent() => None,
        None => return None,
    };
    Some(endpoint.added(ca))
}
