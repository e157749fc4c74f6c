//! The TLS side of a connection: certificate files in, `rustls::ClientConfig` out.
//!
//! Life cycle: the uplink calls [`client_config`] before every attempt to connect, so a certificate that was replaced on disk is used by the
//! next connection without a restart. Nothing is cached and nothing is kept: key bytes live in the configuration that rustls holds, as long
//! as the connection does.
//!
//! Decisions: *ring* as the only provider (named here, never the process default), TLS 1.3 and 1.2, the CA file as the only trust anchors
//! (a hub of a hospital group has its own CA; the public ones have no say). Errors name the file and what to do about it, never its content.
//!
//! A box without a battery boots in 1970 (I10). Dates are judged by our own time source and its one rule (`clock::dates`): where the clock cannot
//! be believed, they alone do not refuse the hub. Names, chain and signatures are always checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::clock::dates::{self, OwnTime, Whose};
use crate::source::tls::certificate;

/// Where the certificates are. `cert` and `key` belong together: both or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: CaSource,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Where the trust anchors are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaSource {
    File(PathBuf),
    /// PEM text that came with a document.
    Inline(Arc<str>),
}

impl CaSource {
    /// For messages.
    pub(crate) fn name(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Inline(_) => PathBuf::from("`ca_pem` of the document's endpoint"),
        }
    }

    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        match self {
            Self::File(path) => certificates(path),
            Self::Inline(text) => some(CertificateDer::pem_slice_iter(text.as_bytes()).collect(), &self.name()),
        }
    }
}

impl From<PathBuf> for CaSource {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: cannot be read; check that the file exists and that siteward's user may read it", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: is not a PEM file of the expected kind; export it again as PEM", path.display())]
    Pem { path: PathBuf, source: pem::Error },
    #[error("{}: holds no certificate; it must contain at least one BEGIN CERTIFICATE block", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{}: holds a certificate that cannot be used as a trust anchor; put the CA's own certificate here", path.display())]
    Anchor { path: PathBuf, source: rustls::Error },
    #[error("`cert` and `key` belong together; set both, or none where the hub asks for no client certificate")]
    HalfIdentity,
    #[error("{} and {} cannot be used together; the key must be the one the certificate was made for", cert.display(), key.display())]
    Identity { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("{}: the trust anchors cannot be used; put the CA's own certificate here", ca.display())]
    Verifier { ca: PathBuf, source: rustls::client::VerifierBuilderError },
    #[error("the TLS library refuses its own protocol versions; this is a fault in siteward, please report it")]
    Versions(#[source] rustls::Error),
}

/// Reads the files and makes the configuration of one connection.
pub fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_with(files, |verifier| verifier).map(Arc::new)
}

/// The same, with something around its verifier.
pub(super) fn client_config_with(
    files: &TlsFiles,
    around: impl FnOnce(Arc<dyn ServerCertVerifier>) -> Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = around(Arc::new(ByOwnTime { inner: verifier(&files.ca, &provider)? }));
    let builder = ClientConfig::builder_with_details(provider, Arc::new(OwnTime))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Versions)?
        .dangerous() // its only departure from the usual checks is the rule for dates
        .with_custom_certificate_verifier(verifier);
    let config = match (&files.cert, &files.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|source| TlsError::Identity { cert: cert.clone(), key: key.clone(), source })?,
        _ => return Err(TlsError::HalfIdentity),
    };
    Ok(config)
}

/// What a listener on the port of HTTPS tells MQTT by (ALPN, as registered). Only there: elsewhere nobody else lives on the port, and a listener
/// that has an ALPN list of its own would have to refuse a name it does not know.
pub(super) fn for_port(config: Arc<ClientConfig>, port: u16) -> Arc<ClientConfig> {
    if port != HTTPS_PORT {
        return config;
    }
    let mut named = ClientConfig::clone(&config);
    named.alpn_protocols = vec![b"mqtt".to_vec()];
    Arc::new(named)
}

const HTTPS_PORT: u16 = 443;

pub(super) fn verifier(ca: &CaSource, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for anchor in ca.certificates()? {
        roots.add(anchor).map_err(|source| TlsError::Anchor { path: ca.name(), source })?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|source| TlsError::Verifier { ca: ca.name(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    some(CertificateDer::pem_file_iter(path).and_then(Iterator::collect), path)
}

fn some(found: Result<Vec<CertificateDer<'static>>, pem::Error>, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = found.map_err(|error| pem_error(path, error))?;
    if found.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| pem_error(path, error))
}

fn pem_error(path: &Path, error: pem::Error) -> TlsError {
    match error {
        pem::Error::Io(source) => TlsError::Read { path: path.to_owned(), source },
        source => TlsError::Pem { path: path.to_owned(), source },
    }
}

/// Who claims to have issued a certificate that our CA did not issue: a proxy that inspects TLS is known by it.
#[derive(Debug, thiserror::Error)]
#[error("it was not issued by our CA but by {0:?}")]
pub(super) struct ForeignIssuer(String);

fn named(error: rustls::Error, end_entity: &CertificateDer<'_>) -> rustls::Error {
    match (&error, certificate::issuer(end_entity)) {
        (rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer), Some(issuer)) => {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(ForeignIssuer(issuer)))))
        }
        _ => error,
    }
}

/// The usual checks, with the rule for dates.
#[derive(Debug)]
struct ByOwnTime {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for ByOwnTime {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let check = |at| self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at);
        dates::check(Whose::Hub, now, check).map_err(|error| named(error, end_entity))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
