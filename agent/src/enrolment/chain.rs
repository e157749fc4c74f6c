//! Whether a certificate that came is the one that was asked for: for our key, in our name, in time, and of the authority that the bundle
//! names.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider as _;

use crate::clock::dates::{self, OwnTime, Whose};
use crate::source::tls::certificate;
use crate::uplink::credentials::chain_of;

/// The error is a sentence.
pub(crate) fn check(chain: &str, key_pem: &[u8], subject: &str, issuer_pem: Option<&str>) -> Result<(), String> {
    const AGAIN: &str = "tell central IT, and enrol again when it has issued the right one";
    let certificates = chain_of(chain).map_err(|error| error.to_string())?;
    if let Some(why) = certificate::too_old(&certificates[0]) {
        return Err(format!("the certificate that came {why}; {AGAIN}"));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| "the key of this box is damaged; remove its directory and enrol again")?;
    if CertifiedKey::from_der(certificates.clone(), key, &ring::default_provider()).is_err() {
        return Err(format!("the certificate that came is not for the key of this box; {AGAIN}"));
    }
    match certificate::subject(&certificates[0]) {
        Some(name) if name == subject => {}
        _ => return Err(format!("the certificate that came is not in the name that the bundle gives this box, {subject}; {AGAIN}")),
    }
    let Some(issuer_pem) = issuer_pem else { return Ok(()) };
    let mut roots = RootCertStore::empty();
    for anchor in CertificateDer::pem_slice_iter(issuer_pem.as_bytes()) {
        let anchor = anchor.map_err(|_| "the authority in the bundle is not in PEM; ask central IT for a new bundle")?;
        roots.add(anchor).map_err(|_| "the authority in the bundle cannot be used; ask central IT for a new bundle")?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .map_err(|_| "the authority in the bundle cannot be used; ask central IT for a new bundle")?;
    let now = OwnTime.current_time().unwrap_or(UnixTime::since_unix_epoch(std::time::Duration::ZERO));
    let verify = |at| verifier.verify_client_cert(&certificates[0], &certificates[1..], at);
    dates::check(Whose::Hub, now, verify)
        .map(|_| ())
        .map_err(|error| format!("the certificate that came is not good for the authority that the bundle names ({error}); {AGAIN}"))
}
