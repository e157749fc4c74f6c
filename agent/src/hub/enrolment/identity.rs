//! Clients of the broker that are no gateways: the receiver and the desk. Their keys are made here, once.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::authority::{Authority, Wanted};
use super::state::{Held, Identity, Role};
use crate::clock;
use crate::enrolment::bundle::fits_subject;
use crate::limits::GATEWAY_CERTIFICATE_DAYS;
use crate::uplink::csr;

/// Makes `NAME.key` (0600) and `NAME.pem` in a directory that is there. Never writes over a file.
pub fn make(held: &Held<'_>, authority: &Authority, name: &str, role: Role, out: &Path) -> Result<(), String> {
    if !fits_subject(name) || name.starts_with(['.', '-']) {
        return Err("--name: must be a plain name, like receiver-1".to_owned());
    }
    let taken = held.state().identities()?.iter().any(|identity| identity.name == name);
    let records = held.state().records()?;
    if taken || records.iter().any(|record| record.subject == name || record.enrolment_subject == name) {
        return Err(format!("--name: {name} is in use; names are given once"));
    }
    let key = csr::key().map_err(|error| error.to_string())?;
    let parsed = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "a key was made that cannot be read; please report this")?;
    let public_key = csr::public_key(parsed.secret_der()).map_err(|error| error.to_string())?;
    let until = clock::now().unix_ms / 1000 + (GATEWAY_CERTIFICATE_DAYS * 24 * 3600).cast_signed();
    let (pem, certificate) = authority.issue(Wanted { subject: name, public_key: &public_key, until })?;
    write_new(&out.join(format!("{name}.key")), 0o600, &key)?;
    write_new(&out.join(format!("{name}.pem")), 0o644, &pem)?;
    held.write_json(&format!("identities/{name}.json"), &Identity { name: name.to_owned(), role, certificate })
}

fn write_new(file: &Path, mode: u32, text: &str) -> Result<(), String> {
    let written = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file).and_then(|mut open| {
        open.write_all(text.as_bytes())?;
        open.sync_all()
    });
    written.map_err(|error| {
        format!("{}: cannot be written: {error}; its directory has to be there, and nothing is ever written over", file.display())
    })
}
