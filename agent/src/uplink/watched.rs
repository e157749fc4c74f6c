//! What a handshake looked like from our side, for whoever wants to tell (`preflight`): the certificates that were presented, also when they
//! were refused, and whether we were asked for ours.
//!
//! Looks on and decides nothing: the verifier and the credentials behind it are those of every connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::tls::{self, TlsError, TlsFiles};

/// What was seen of one handshake.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    leaf: OnceLock<CertificateDer<'static>>,
    asked: AtomicBool,
}

impl Seen {
    /// The certificate that the other side presented.
    pub fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.leaf.get()
    }

    /// We were asked for ours.
    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

/// As [`tls::client_config`], watched.
pub(crate) fn client_config(files: &TlsFiles, seen: &Arc<Seen>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = tls::client_config_with(files, |inner| Arc::new(Verifier { inner, seen: Arc::clone(seen) }))?;
    config.client_auth_cert_resolver = Arc::new(Resolver { inner: config.client_auth_cert_resolver, seen: Arc::clone(seen) });
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Resolver {
    inner: Arc<dyn ResolvesClientCert>,
    seen: Arc<Seen>,
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.seen.asked.store(true, Ordering::Relaxed);
        self.inner.resolve(hints, schemes)
    }

    /// So that we hear of it even without one.
    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ServerCertVerifier>,
    seen: Arc<Seen>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // One handshake has one leaf.
        let _ = self.seen.leaf.set(end_entity.clone().into_owned());
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
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
