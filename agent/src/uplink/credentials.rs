//! The gateway's own certificate: a new one is a candidate first, and replaces the old one only after it was proven.
//!
//! ```text
//!   request: new key, CSR ──► candidate.key ── certificate comes: install ──► candidate.pem ── connection and acknowledged publish ──► current.pem
//!                                   ▲                                               └── not by the deadline: give_up, the old one stays
//!                                   └──────── the key waits for another certificate ──────┘
//! ```
//!
//! 1. Key and request are made on the box; the key never leaves it.
//! 2. A certificate must be for the candidate's key, or it is refused.
//! 3. While the candidate is on trial every TLS endpoint stands in the rotation with it first, then as before ([`Identities`]): one that is refused
//!    costs an attempt and no connection.
//! 4. An acknowledged publish over an endpoint with the candidate proves it; one rename makes it current. Who watches that is `renewal`.
//! 5. Without that by the deadline it is removed, and the reason told. Its key stays: whoever knows the broker's password could send a useless
//!    certificate for our request (the request is no secret), and must not cost us the renewal by it.
//!
//! Certificate and key lie in one file (`<spool>/tls/current.pem`, 0600), because two files cannot be replaced in one step: a crash in between
//! would leave a key that does not fit. Each write is temp, sync, rename, sync of the directory. What a crash leaves is either the old or the
//! new; a candidate that lies there at a start is on trial again, a key without one waits again, and a key that `current.pem` has already is what
//! a crash left of a promotion: it is removed at the start. `cert` and `key` of the bootstrap count while there is no `current.pem`, and stay in
//! the rotation behind it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::csr::{self, NoKey};
use crate::config::settings::{ClientIdentity, UplinkSettings};
use crate::limits::{CERTIFICATE_BYTES_MAX, TLS_FILE_BYTES_MAX};
use crate::source::tls::certificate;
use crate::spool::disk::Disk;

const CURRENT: &str = "current.pem";
const CANDIDATE: &str = "candidate.pem";
const CANDIDATE_KEY: &str = "candidate.key";
const MEMORY: &str = "renewal.json";
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
    #[error("{}: is not a private key in PEM; ask for a renewal again, which makes a new one", path.display())]
    NoKeyFound { path: PathBuf },
    #[error("certificate and key do not belong together; issue it for the request that this gateway published last")]
    Mismatch(#[source] rustls::Error),
    #[error("what came {why}")]
    OldVersion { why: String },
    #[error("what came has more than {CERTIFICATE_BYTES_MAX} bytes; send the gateway's certificate and its intermediates, nothing else")]
    TooLarge,
    #[error("the certificate has ended already, at {at}; issue a new one")]
    Ended { at: String },
    #[error(
        "the certificate from before it is proven and could not be made the current one yet; check the disk of the spool, then try again"
    )]
    Unpromoted,
    #[error("no candidate lies there")]
    NoCandidate,
}

/// The certificates in PEM text, at least one.
pub fn chain_of(chain: &str) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    if chain.len() > CERTIFICATE_BYTES_MAX {
        return Err(CredentialError::TooLarge);
    }
    let all: Vec<_> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().map_err(|_| CredentialError::NoCertificate)?;
    if all.is_empty() { Err(CredentialError::NoCertificate) } else { Ok(all) }
}

/// The files below `<spool>/tls`.
#[derive(Clone, Debug)]
pub struct Credentials {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
}

impl Credentials {
    /// Nothing is made before something is to be kept.
    pub fn open(disk: Arc<dyn Disk>, spool: &Path) -> Self {
        let credentials = Self { disk, directory: spool.join("tls") };
        if let Err(error) = credentials.finish_promotion() {
            tracing::warn!("what a crash left of a renewed certificate stays where it is: {error}");
        }
        credentials
    }

    /// As they lie there; nothing is tidied up. For tools beside the agent.
    pub fn look(disk: Arc<dyn Disk>, spool: &Path) -> Self {
        Self { disk, directory: spool.join("tls") }
    }

    /// A crash behind the rename of a promotion leaves the key, which waits for nothing any more.
    fn finish_promotion(&self) -> Result<(), CredentialError> {
        if self.has_replaced()? { self.remove(CANDIDATE_KEY) } else { Ok(()) }
    }

    /// Whether the certificate for the key that waits is the current one already.
    fn has_replaced(&self) -> Result<bool, CredentialError> {
        let (key, current) = (self.read(CANDIDATE_KEY)?, self.read(CURRENT)?);
        Ok(matches!((key, current), (Some(key), Some(current)) if current.starts_with(&key)))
    }

    /// A new key. An earlier candidate is forgotten.
    pub fn make_key(&self) -> Result<(), CredentialError> {
        let key = csr::key()?;
        self.remove(CANDIDATE)?;
        self.write(CANDIDATE_KEY, key.as_bytes())
    }

    /// The request (PEM) for a certificate of the key that waits, made anew each time; `None`: no key waits.
    pub fn request(&self, common_name: &str) -> Result<Option<String>, CredentialError> {
        let Some(key) = self.read(CANDIDATE_KEY)? else { return Ok(None) };
        let parsed = PrivateKeyDer::from_pem_slice(&key).map_err(|_| CredentialError::NoKeyFound { path: self.path(CANDIDATE_KEY) })?;
        Ok(Some(csr::request(parsed.secret_der(), common_name)?))
    }

    /// Whether a key waits for its certificate.
    pub fn is_waiting(&self) -> bool {
        self.exists(CANDIDATE_KEY)
    }

    /// The key that waits, and the certificates in PEM text, of which the first is for that key.
    #[allow(clippy::type_complexity)] // two plain lists
    fn fitting(&self, chain: &str) -> Result<(Zeroizing<Vec<u8>>, Vec<CertificateDer<'static>>), CredentialError> {
        let key = self.read(CANDIDATE_KEY)?.ok_or(CredentialError::NothingAsked)?;
        let certificates = chain_of(chain)?;
        if let Some(why) = certificate::too_old(&certificates[0]) {
            return Err(CredentialError::OldVersion { why });
        }
        let parsed = PrivateKeyDer::from_pem_slice(&key).map_err(|_| CredentialError::NoKeyFound { path: self.path(CANDIDATE_KEY) })?;
        CertifiedKey::from_der(certificates.clone(), parsed, &ring::default_provider()).map_err(CredentialError::Mismatch)?;
        Ok((key, certificates))
    }

    /// Whether a certificate is for the key that waits.
    pub fn fits(&self, chain: &str) -> bool {
        self.fitting(chain).is_ok()
    }

    /// The certificate for the last request came: it is a candidate now.
    pub fn install(&self, chain: &str) -> Result<ClientIdentity, CredentialError> {
        let (key, certificates) = self.fitting(chain)?;
        // Only certificates: whatever else the text held stays outside. As large as it gets at once: a buffer that grows leaves copies of the key.
        let mut both = Zeroizing::new(Vec::with_capacity(key.len() + 2 * chain.len()));
        both.extend_from_slice(&key);
        for certificate in &certificates {
            both.extend_from_slice(csr::pem("CERTIFICATE", certificate).as_bytes());
        }
        self.write(CANDIDATE, &both)?;
        Ok(self.identity(CANDIDATE))
    }

    /// Whether this is the certificate that is current, or on trial.
    pub fn holds(&self, leaf: &CertificateDer<'_>) -> bool {
        let holds = |name| {
            let bytes = self.read(name).ok().flatten()?;
            CertificateDer::pem_slice_iter(&bytes).next()?.ok()
        };
        [CURRENT, CANDIDATE].into_iter().filter_map(holds).any(|known| known == *leaf)
    }

    /// When the certificate in use ends (seconds since 1970), where it is one that was renewed.
    pub fn current_end(&self) -> Option<i64> {
        let bytes = self.read(CURRENT).ok().flatten()?;
        CertificateDer::pem_slice_iter(&bytes).flatten().filter_map(|der| certificate::not_after(&der)).min()
    }

    /// The candidate was proven: it is the gateway's certificate from here on. Asked again after an error it goes on behind what was done.
    pub fn promote(&self) -> Result<ClientIdentity, CredentialError> {
        if self.read(CANDIDATE)?.is_some() {
            self.rename(CANDIDATE, CURRENT)?;
        } else if self.has_replaced()? {
            self.disk.sync_dir(&self.directory).map_err(self.failed(CURRENT))?;
        } else {
            return Err(CredentialError::NoCandidate);
        }
        match self.remove(CANDIDATE_KEY) {
            Err(why) if self.is_waiting() => Err(why),
            // Gone is gone: should a crash bring it back, the next start removes it again.
            _ => Ok(self.identity(CURRENT)),
        }
    }

    /// The candidate was not proven: the old one stays alone, the key waits for another.
    pub fn give_up(&self) -> Result<(), CredentialError> {
        self.remove(CANDIDATE)
    }

    /// No renewal is wanted any more.
    pub fn cancel(&self) -> Result<(), CredentialError> {
        self.remove(CANDIDATE)?;
        self.remove(CANDIDATE_KEY)
    }

    /// What was remembered by [`Self::remember`].
    pub fn memory(&self) -> Result<Option<Vec<u8>>, CredentialError> {
        Ok(self.read(MEMORY)?.map(|bytes| bytes.to_vec()))
    }

    /// Keeps the renewal's memory beside the certificates.
    pub fn remember(&self, bytes: &[u8]) -> Result<(), CredentialError> {
        self.write(MEMORY, bytes)
    }

    /// Candidate and current certificate.
    pub fn identities(&self) -> Identities {
        Identities { candidate: self.candidate(), current: self.current() }
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
        ClientIdentity { cert: self.path(name), key: self.path(name), is_candidate: name == CANDIDATE }
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
        if self.disk.list(&self.directory).is_err() {
            let spool = self.directory.parent().unwrap_or(&self.directory);
            self.disk.create_dir(&self.directory).and_then(|()| self.disk.sync_dir(spool)).map_err(self.failed(""))?;
        }
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

/// Our certificates beside that of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    pub candidate: Option<ClientIdentity>,
    pub current: Option<ClientIdentity>,
}

impl Identities {
    /// The settings with every TLS endpoint listed with the candidate first, then with the current certificate, then as it was.
    pub fn apply(&self, settings: &UplinkSettings) -> UplinkSettings {
        let each = |identity: &ClientIdentity| {
            let endpoints = settings.endpoints.iter().filter(|endpoint| endpoint.tls).cloned();
            endpoints.map(|endpoint| endpoint.with_identity(identity.clone())).collect::<Vec<_>>()
        };
        let ours = self.candidate.iter().chain(&self.current).flat_map(each);
        UplinkSettings { endpoints: ours.chain(settings.endpoints.iter().cloned()).collect(), ..settings.clone() }
    }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
