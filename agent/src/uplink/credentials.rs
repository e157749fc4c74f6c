//! The gateway's own certificate: a new one is a candidate first, and replaces the old one only after it was proven.
//!
//! ```text
//!   request: new key, CSR ──► candidate.key ── certificate comes: install ──► candidate.pem ── connection and acknowledged publish ──► current.pem
//!   enterprise CA: files ─────────────────────────────────── adopt ─────────────┘        └── not by the deadline: give_up, the old one stays
//! ```
//!
//! 1. Key and request are made on the box; the key never leaves it.
//! 2. A certificate must be for the candidate's key, or it is refused.
//! 3. While the candidate is on trial every TLS endpoint stands twice in the rotation, first with the candidate, then as it was
//!    ([`with_candidate`]): one that is refused costs an attempt and no connection.
//! 4. An acknowledged publish over an endpoint with the candidate proves it ([`Trial`]); one rename makes it current.
//! 5. Without that by the deadline it is removed, and the reason told.
//!
//! Certificate and key lie in one file (`<spool>/tls/current.pem`, 0600), because two files cannot be replaced in one step: a crash in between
//! would leave a key that does not fit. Each write is temp, sync, rename, sync of the directory. What a crash leaves is either the old or the
//! new; a candidate that lies there at a start is on trial again. `cert` and `key` of the bootstrap count while there is no `current.pem`, and
//! stay in the rotation behind it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::csr::{self, NoKey};
use crate::config::settings::{ClientIdentity, Endpoint, UplinkSettings};
use crate::forward::mail::Delivered;
use crate::limits::{CANDIDATE_TRIAL, TLS_FILE_BYTES_MAX};
use crate::spool::disk::Disk;

const CURRENT: &str = "current.pem";
const CANDIDATE: &str = "candidate.pem";
const CANDIDATE_KEY: &str = "candidate.key";
const FRESH: &str = "fresh";

/// Why a certificate is not taken or not kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error(transparent)]
    Key(#[from] NoKey),
    #[error("{}: cannot be written or read; check the disk of the spool", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("no key waits for a certificate; ask for a renewal first")]
    NothingAsked,
    #[error("what came holds no certificate in PEM (BEGIN CERTIFICATE); send the gateway's certificate and its intermediates")]
    NoCertificate,
    #[error("the key is not a private key in PEM (BEGIN PRIVATE KEY)")]
    NoKeyFound,
    #[error("certificate and key do not belong together; issue it for the request that this gateway published last")]
    Mismatch(#[source] rustls::Error),
    #[error("the certificate has more than {TLS_FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("no candidate lies there")]
    NoCandidate,
}

/// The files below `<spool>/tls`.
#[derive(Clone, Debug)]
pub struct Credentials {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
}

impl Credentials {
    pub fn open(disk: Arc<dyn Disk>, spool: &Path) -> Result<Self, CredentialError> {
        let directory = spool.join("tls");
        let file = |source| CredentialError::File { path: directory.clone(), source };
        disk.create_dir(&directory).map_err(file)?;
        disk.sync_dir(spool).map_err(file)?;
        Ok(Self { disk, directory })
    }

    /// A new key; the request for its certificate (PEM), to be published. An earlier candidate is forgotten.
    pub fn request(&self, common_name: &str) -> Result<String, CredentialError> {
        let made = csr::request(common_name)?;
        self.remove(CANDIDATE)?;
        self.write(CANDIDATE_KEY, made.key.as_bytes())?;
        Ok(made.csr)
    }

    /// The certificate for the last request came: it is a candidate now.
    pub fn install(&self, chain: &str) -> Result<ClientIdentity, CredentialError> {
        let key = self.read(CANDIDATE_KEY)?.ok_or(CredentialError::NothingAsked)?;
        let key = Zeroizing::new(String::from_utf8_lossy(&key).into_owned());
        self.adopt(chain, &key)
    }

    /// A certificate with its key, from files: it is a candidate now.
    pub fn adopt(&self, chain: &str, key: &str) -> Result<ClientIdentity, CredentialError> {
        if chain.len() + key.len() > usize::try_from(TLS_FILE_BYTES_MAX).unwrap_or(usize::MAX) {
            return Err(CredentialError::TooLarge);
        }
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().map_err(|_| CredentialError::NoCertificate)?;
        if certificates.is_empty() {
            return Err(CredentialError::NoCertificate);
        }
        let parsed = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| CredentialError::NoKeyFound)?;
        CertifiedKey::from_der(certificates.clone(), parsed, &ring::default_provider()).map_err(CredentialError::Mismatch)?;
        let mut both = Zeroizing::new(key.to_owned());
        if !both.ends_with('\n') {
            both.push('\n');
        }
        // Only certificates: whatever else the text held stays outside.
        for certificate in &certificates {
            both.push_str(&csr::pem("CERTIFICATE", certificate));
        }
        self.write(CANDIDATE, both.as_bytes())?;
        Ok(self.identity(CANDIDATE))
    }

    /// The candidate was proven: it is the gateway's certificate from here on.
    pub fn promote(&self) -> Result<ClientIdentity, CredentialError> {
        if self.candidate().is_none() {
            return Err(CredentialError::NoCandidate);
        }
        self.rename(CANDIDATE, CURRENT)?;
        self.remove(CANDIDATE_KEY)?;
        Ok(self.identity(CURRENT))
    }

    /// The candidate was not proven: the old one stays alone.
    pub fn give_up(&self) -> Result<(), CredentialError> {
        self.remove(CANDIDATE)?;
        self.remove(CANDIDATE_KEY)
    }

    /// A certificate on trial.
    pub fn candidate(&self) -> Option<ClientIdentity> {
        self.exists(CANDIDATE).then(|| self.identity(CANDIDATE))
    }

    /// One that was proven; without it the bootstrap's counts.
    pub fn current(&self) -> Option<ClientIdentity> {
        self.exists(CURRENT).then(|| self.identity(CURRENT))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn identity(&self, name: &str) -> ClientIdentity {
        ClientIdentity { cert: self.path(name), key: self.path(name) }
    }

    fn exists(&self, name: &str) -> bool {
        self.disk.open_read(&self.path(name)).is_ok()
    }

    fn failed(&self, name: &str) -> impl FnOnce(io::Error) -> CredentialError {
        let path = self.path(name);
        move |source| CredentialError::File { path, source }
    }

    fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, CredentialError> {
        let file = match self.disk.open_read(&self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(name)(error)),
        };
        let length = file.len().map_err(self.failed(name))?.min(TLS_FILE_BYTES_MAX);
        let mut bytes = Zeroizing::new(vec![0; usize::try_from(length).unwrap_or(0)]);
        let read = file.read_at(0, &mut bytes).map_err(self.failed(name))?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CredentialError> {
        self.remove(FRESH)?;
        let fresh = self.disk.create(&self.path(FRESH), 0).map_err(self.failed(FRESH))?;
        fresh.write_at(0, bytes).and_then(|()| fresh.sync_data()).map_err(self.failed(FRESH))?;
        self.rename(FRESH, name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), CredentialError> {
        self.disk.rename(&self.path(from), &self.path(to)).map_err(self.failed(to))?;
        self.disk.sync_dir(&self.directory).map_err(self.failed(to))
    }

    fn remove(&self, name: &str) -> Result<(), CredentialError> {
        match self.disk.remove(&self.path(name)) {
            Ok(()) => self.disk.sync_dir(&self.directory).map_err(self.failed(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.failed(name)(error)),
        }
    }
}

/// The settings with every TLS endpoint listed `identity` first, then as it was.
pub fn with_candidate(settings: &UplinkSettings, identity: &ClientIdentity) -> UplinkSettings {
    let tried = settings.endpoints.iter().filter(|endpoint| endpoint.tls).cloned().map(|endpoint| endpoint.with_identity(identity.clone()));
    UplinkSettings { endpoints: tried.chain(settings.endpoints.iter().cloned()).collect(), ..settings.clone() }
}

/// A candidate on trial. Pure.
#[derive(Debug)]
pub struct Trial {
    identity: ClientIdentity,
    until: Instant,
}

/// What is to be done with the candidate.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Wait,
    Promote,
    /// `give_up`, and report why.
    GiveUp(String),
}

impl Trial {
    pub fn new(identity: ClientIdentity, now: Instant) -> Self {
        Self { identity, until: now + CANDIDATE_TRIAL }
    }

    /// The endpoint is reached with the candidate.
    pub fn uses(&self, endpoint: &Endpoint) -> bool {
        endpoint.identity.as_deref() == Some(&self.identity)
    }

    /// `delivered`: the answer to a publish since the trial began; `last_error`: what the uplink said last.
    pub fn judge(&self, delivered: Option<&Delivered>, last_error: Option<&str>, now: Instant) -> Verdict {
        if delivered.is_some_and(|delivered| self.uses(&delivered.endpoint) && delivered.is_acknowledged()) {
            return Verdict::Promote;
        }
        if now < self.until {
            return Verdict::Wait;
        }
        let minutes = CANDIDATE_TRIAL.as_secs() / 60;
        let cause = last_error.map(|error| format!("; the uplink's last error: {error}")).unwrap_or_default();
        Verdict::GiveUp(format!(
            "no publish was acknowledged over a connection with the new certificate within {minutes} minutes: the old one stays{cause}"
        ))
    }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
