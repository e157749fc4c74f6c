//! Certificates of another authority: a request goes out as a file, what was issued comes back as one. And renewals, signed by our own.

use sha2::{Digest as _, Sha256};

use super::authority::{Authority, Wanted};
use super::state::{Held, Issued, Record, State};
use crate::clock;
use crate::enrolment::bundle::hex;
use crate::limits::GATEWAY_CERTIFICATE_DAYS;
use crate::record::Name;
use crate::source::tls::certificate;
use crate::uplink::credentials::chain_of;
use crate::uplink::csr;

/// The request of a gateway that enrols, PEM.
pub fn export(state: &State, site: &Name, gateway: &Name) -> Result<String, String> {
    let ours = |record: &Record| record.is_admitted() && (&record.site, &record.gateway) == (site, gateway);
    let records = state.records()?;
    let record = records.iter().rfind(|record| ours(record)).ok_or_else(|| format!("no bundle was made for {gateway} at {site}"))?;
    match (&record.csr, record.outside) {
        (Some(csr), _) => Ok(csr.clone()),
        (None, true) => Err(format!("{gateway} has not asked yet; run `siteward enroll` there and `siteward-hub enroll approve` here")),
        (None, false) => Err(format!("{gateway} has its certificate from this desk; there is nothing to sign elsewhere")),
    }
}

/// Takes a certificate for a request that waits; whose it is says its key. The box gets it from the next `enroll approve` or `serve`.
pub fn import(held: &Held<'_>, chain: &str) -> Result<Record, String> {
    let certificates = chain_of(chain).map_err(|error| error.to_string())?;
    let leaf = &certificates[0];
    if let Some(why) = certificate::too_old(leaf) {
        return Err(why);
    }
    let key = certificate::public_key(leaf).ok_or("is a certificate that cannot be read")?;
    let asks = |record: &Record| record.csr.as_deref().and_then(|csr| csr::read(csr).ok()).is_some_and(|asked| asked.public_key == key);
    let records = held.state().records()?;
    let mut record = records
        .into_iter()
        .find(asks)
        .ok_or("is not for the key of any request that waits here; does the first certificate in it belong to the gateway?")?;
    if !record.is_admitted() {
        return Err(format!("is for {}, which is retired", record.subject));
    }
    if certificate::subject(leaf).as_deref() != Some(&record.subject) {
        return Err(format!("is in another name than {}; the authority has to issue it in the name of the request", record.subject));
    }
    let now = clock::now();
    let not_after = certificate::not_after(leaf);
    if not_after.is_some_and(|end| !now.suspect && end <= now.unix_ms / 1000) {
        return Err("has ended already".to_owned());
    }
    let fingerprint = hex(&Sha256::digest(leaf));
    record.certificates.push(Issued { at: now.unix_ms / 1000, fingerprint, serial: None, not_after });
    let used = record.used.as_mut().ok_or("is for a request that is damaged; restore the desk's state")?;
    used.chain = Some(chain.to_owned());
    held.save(&record)?;
    Ok(record)
}

/// Signs the request of a gateway that renews its certificate.
pub fn renew(held: &Held<'_>, authority: &Authority, csr_pem: &str) -> Result<(String, Record), String> {
    let asked = csr::read(csr_pem)?;
    let ours = |record: &Record| record.subject == asked.common_name && record.used.is_some();
    let mut record = held.state().records()?.into_iter().find(ours).ok_or("is in the name of no gateway that was enrolled here")?;
    if !record.is_admitted() {
        return Err(format!("is in the name of {}, which is retired", record.subject));
    }
    let until = clock::now().unix_ms / 1000 + (GATEWAY_CERTIFICATE_DAYS * 24 * 3600).cast_signed();
    let (pem, issued) = authority.issue(Wanted { subject: &record.subject, public_key: &asked.public_key, until })?;
    record.certificates.push(issued);
    held.save(&record)?;
    Ok((pem, record))
}
