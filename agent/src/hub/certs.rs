//! Certificates of gateways at the desk: the request is fetched, signed elsewhere by whatever authority the hospital group has, and what was issued
//! is sent.
//!
//! Both are retained at the broker, so neither side has to be there when the other is. Nothing here decides anything: the gateway takes only what
//! belongs to its key, and uses it only once it is proven.

use std::path::Path;

use tokio::time::Instant;

use super::config::Push;
use super::connection::{publish, retained};
use super::receive::RuntimeDirectory;
use crate::contract::topic::Topics;
use crate::contract::{CertificateState, RenewalState};
use crate::limits::{CERTIFICATE_BYTES_MAX, CONNECT_TIMEOUT};
use crate::uplink::credentials::chain_of;

fn directory() -> Result<RuntimeDirectory, String> {
    let socket = std::env::temp_dir().join(format!("siteward-certs-{}", std::process::id()));
    RuntimeDirectory::new(&socket).map_err(|error| error.to_string())
}

/// The request that a gateway published, PEM.
pub async fn fetch(whom: &Push) -> Result<String, String> {
    let (directory, topic) = (directory()?, Topics::new(&whom.site, &whom.gateway).certificate_request());
    let deadline = Instant::now() + 2 * CONNECT_TIMEOUT;
    let payload = retained(&whom.broker, whom.tls.as_ref(), (&whom.client_id, directory.path()), &topic, deadline).await?;
    let gateway = &whom.gateway;
    let Some(payload) = payload else {
        return Err(format!("{gateway} asks for no certificate; ask it to, by [uplink.renew] in its document or `siteward certs renew`"));
    };
    let state: CertificateState =
        serde_json::from_slice(&payload).map_err(|_| format!("what {gateway} published is not as the contract says"))?;
    match (state.state, state.csr) {
        (RenewalState::Requested | RenewalState::Trial, Some(csr)) => Ok(csr),
        _ => Err(format!("{gateway} asks for no certificate now; its renewals so far are through")),
    }
}

/// Sends the certificate in a file.
pub async fn issue(whom: &Push, file: &Path) -> Result<(), String> {
    let failed = |why: &str| format!("{}: {why}", file.display());
    let length = std::fs::metadata(file).map_err(|error| failed(&format!("cannot be read: {error}")))?.len();
    if length > CERTIFICATE_BYTES_MAX as u64 {
        return Err(failed("is too large for a certificate with its intermediates"));
    }
    let chain = std::fs::read_to_string(file).map_err(|error| failed(&format!("cannot be read as PEM: {error}")))?;
    if chain.contains("PRIVATE KEY-----") {
        return Err(failed("holds a private key; send the certificate and its intermediates only"));
    }
    chain_of(&chain).map_err(|error| failed(&error.to_string()))?;
    let (directory, topic) = (directory()?, Topics::new(&whom.site, &whom.gateway).certificate_issued());
    let deadline = Instant::now() + 2 * CONNECT_TIMEOUT;
    publish(&whom.broker, whom.tls.as_ref(), (&whom.client_id, directory.path()), (topic, chain.into_bytes()), deadline).await
}
