//! Whose signatures count: the trust anchors of the bootstrap, and the only way to a verified payload.
//!
//! ```text
//! [trust] keys = [PEM files], threshold      ──► Anchors ── verify(envelope, type) ──► Verified { payload }
//!         recovery_keys, recovery_threshold          │                                    nobody else can make one
//!                                                    └── k distinct keys of n, over the raw bytes, before anything in them is parsed
//! ```
//!
//! 1. A key's id is the SHA-256 of its SubjectPublicKeyInfo (DER), in hex. The id beside a signature is a hint: it picks the key to try. A
//!    signature under an id that is not ours is passed over; one without an id is tried with every key.
//! 2. Enough distinct keys of `keys`, or of `recovery_keys`: verified. Signatures that are not good do not spoil the others; they are the reason
//!    told where the rest is not enough.
//! 3. Without `[trust]` there are no anchors and every document is refused: a gateway takes orders from nobody unless told whom.
//! 4. Commands are signed by the usual keys too, or by `command_keys` where these are listed; never by those for recovery.
//! 5. Files are read when the anchors are loaded, at start. They are never changed by a document.

use std::path::Path;

use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest as _, Sha256};

use super::envelope::{self, Signature};
use super::files;
use super::refusal::Refusal;
use super::settings::TrustSettings;

/// The SubjectPublicKeyInfo of an Ed25519 key is this and the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The id of a key: 64 hex digits.
pub(crate) fn key_id(key: &[u8; 32]) -> String {
    let digest = Sha256::new().chain_update(SPKI_PREFIX).chain_update(key).finalize();
    digest.iter().fold(String::with_capacity(64), |mut id, byte| {
        use std::fmt::Write as _;
        write!(id, "{byte:02x}").expect("a String takes everything");
        id
    })
}

/// The public key as PEM, as `openssl pkey -pubout` writes it.
#[cfg(any(test, feature = "hub"))]
pub(crate) fn to_pem(key: &[u8; 32]) -> String {
    use base64::Engine as _;
    let der = [&SPKI_PREFIX[..], &key[..]].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64::prelude::BASE64_STANDARD.encode(der))
}

/// A public key that may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    id: String,
    key: [u8; 32],
}

impl Anchor {
    /// Reads a PEM public key. The error is the end of a sentence that begins with where the PEM came from.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        const FOREIGN: &str = "is not an Ed25519 public key in PEM (-----BEGIN PUBLIC KEY-----, as `openssl pkey -pubout` writes it)";
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| FOREIGN.to_owned())?;
        let key: [u8; 32] = der.strip_prefix(&SPKI_PREFIX[..]).and_then(|key| key.try_into().ok()).ok_or_else(|| FOREIGN.to_owned())?;
        Ok(Self { id: key_id(&key), key })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.key).verify(message, signature).is_ok()
    }
}

/// Some keys, and how many of them it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Quorum {
    keys: Vec<Anchor>,
    threshold: usize,
}

impl Quorum {
    fn load(files: &[std::path::PathBuf], threshold: usize, name: &str) -> Result<Self, String> {
        let mut keys: Vec<Anchor> = Vec::with_capacity(files.len());
        for (index, file) in files.iter().enumerate() {
            let entry = index + 1;
            let anchor = anchor(file).map_err(|why| format!("trust.{name}: entry {entry} {why}"))?;
            if keys.contains(&anchor) {
                return Err(format!("trust.{name}: entry {entry} holds a key that is listed already; remove one"));
            }
            keys.push(anchor);
        }
        Ok(Self { keys, threshold })
    }

    /// Those of the local file, or those that a document of the recovery keys put in their place.
    fn usual(settings: &TrustSettings) -> Result<Self, String> {
        if settings.inline_keys.is_empty() {
            return Self::load(&settings.keys, settings.threshold, "keys");
        }
        let keys = settings
            .inline_keys
            .iter()
            .map(|pem| Anchor::from_pem(pem.as_bytes()).map_err(|why| format!("bootstrap.keys: an entry {why}")));
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, threshold: settings.threshold })
    }

    /// How many of the keys signed.
    fn count(&self, message: &[u8], signatures: &[Signature]) -> usize {
        let signed = |anchor: &&Anchor| {
            let meant = |signature: &&Signature| signature.key_id.is_empty() || signature.key_id == anchor.id;
            signatures.iter().filter(meant).any(|signature| anchor.signed(message, &signature.bytes))
        };
        self.keys.iter().filter(signed).count()
    }

    fn is_met(&self, count: usize) -> bool {
        !self.keys.is_empty() && count >= self.threshold.max(1)
    }

    fn ids(&self) -> (Vec<String>, usize) {
        (self.keys.iter().map(|anchor| anchor.id.clone()).collect(), self.threshold.max(1))
    }

    fn knows(&self, signature: &Signature) -> bool {
        !self.keys.is_empty() && (signature.key_id.is_empty() || self.keys.iter().any(|anchor| anchor.id == signature.key_id))
    }
}

/// Reads the key in a file.
pub(super) fn anchor(file: &Path) -> Result<Anchor, String> {
    let pem = files::read_public(file)?;
    Anchor::from_pem(&pem).map_err(|why| format!("names a file that {why}"))
}

/// The trust anchors of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anchors {
    usual: Quorum,
    recovery: Quorum,
}

/// A payload whose signatures are good. Made by [`Anchors::verify`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    payload: Vec<u8>,
    recovery: bool,
}

impl Verified {
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }
    /// Signed by the recovery keys.
    pub fn by_recovery(&self) -> bool {
        self.recovery
    }
}

impl Anchors {
    /// Reads the files of the keys. The error is a sentence that names key and entry.
    pub fn load(settings: &TrustSettings) -> Result<Self, String> {
        let usual = Quorum::usual(settings)?;
        let recovery = Quorum::load(&settings.recovery_keys, settings.recovery_threshold, "recovery_keys")?;
        match recovery.keys.iter().position(|key| usual.keys.contains(key)) {
            Some(index) => Err(format!("trust.recovery_keys: entry {} is one of trust.keys too; keep them apart", index + 1)),
            None => Ok(Self { usual, recovery }),
        }
    }

    /// Who may sign commands: keys of their own where the local file lists some, else the usual keys of documents. Those for recovery are kept
    /// apart from daily work and sign none.
    pub fn for_commands(settings: &TrustSettings) -> Result<Self, String> {
        let usual = match settings.command_keys.as_slice() {
            [] => Quorum::usual(settings)?,
            own => Quorum::load(own, settings.command_threshold, "command_keys")?,
        };
        Ok(Self { usual, recovery: Quorum::default() })
    }

    /// Of keys that are at hand already.
    pub fn of(keys: Vec<Anchor>, threshold: usize, recovery_keys: Vec<Anchor>, recovery_threshold: usize) -> Self {
        let usual = Quorum { keys, threshold };
        Self { usual, recovery: Quorum { keys: recovery_keys, threshold: recovery_threshold } }
    }

    /// The ids of the usual keys, and how many of them have to sign.
    pub fn usual_ids(&self) -> (Vec<String>, usize) {
        self.usual.ids()
    }

    /// The same for recovery.
    pub fn recovery_ids(&self) -> (Vec<String>, usize) {
        self.recovery.ids()
    }

    pub fn is_empty(&self) -> bool {
        self.usual.keys.is_empty() && self.recovery.keys.is_empty()
    }

    /// The payload of an envelope, if it is of this type and enough of the keys signed it.
    pub fn verify(&self, envelope: &[u8], payload_type: &'static str) -> Result<Verified, Refusal> {
        let envelope = envelope::read(envelope)?;
        if envelope.payload_type != payload_type {
            return Err(Refusal::WrongPayloadType { need: payload_type });
        }
        if self.is_empty() {
            return Err(Refusal::NoAnchors);
        }
        let known: Vec<&Signature> = envelope.signatures.iter().filter(|s| self.usual.knows(s) || self.recovery.knows(s)).collect();
        if known.is_empty() {
            return Err(Refusal::UnknownKey);
        }
        let message = envelope::pae(payload_type, &envelope.payload);
        let usual = self.usual.count(&message, &envelope.signatures);
        let recovery = self.recovery.count(&message, &envelope.signatures);
        if self.usual.is_met(usual) || self.recovery.is_met(recovery) {
            // A document that satisfies both is the recovery's: it may do more, and the history says who it was.
            return Ok(Verified { payload: envelope.payload, recovery: self.recovery.is_met(recovery) });
        }
        let is_good = |signature: &&Signature| {
            let keys = self.usual.keys.iter().chain(&self.recovery.keys);
            keys.filter(|anchor| signature.key_id.is_empty() || signature.key_id == anchor.id).any(|a| a.signed(&message, &signature.bytes))
        };
        if !known.iter().all(is_good) {
            return Err(Refusal::BadSignature);
        }
        let (have, need) = if usual == 0 { (recovery, self.recovery.threshold) } else { (usual, self.usual.threshold) };
        Err(Refusal::TooFewSignatures { have, need })
    }
}
