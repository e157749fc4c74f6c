//! Clients of the broker that are no gateways: the receiver and the desk. Their keys are made here: once, and again under the same name before the
//! certificate ends.
//!
//! The record is durable before the files are written, so that no certificate exists that could not be revoked. What a crash or a full disk leaves is
//! made again with `--again`, which revokes it. Until the broker has its new files the certificate from before goes on to be admitted: whoever uses it
//! changes over in between.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::authority::{Authority, Wanted};
use super::state::{Former, Held, Identity, Role};
use crate::clock;
use crate::enrolment::bundle::fits_subject;
use crate::limits::GATEWAY_CERTIFICATE_DAYS;
use crate::uplink::csr;

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    pub name: &'a str,
    pub role: Role,
    /// It has a certificate already, and gets a new key and the next one.
    pub again: bool,
    /// A directory that is there, without files of this name.
    pub out: &'a Path,
}

/// Makes `NAME.key` (0600) and `NAME.pem`. Never writes over a file.
pub fn make(held: &Held<'_>, authority: &Authority, wish: Wish<'_>) -> Result<(), String> {
    let Wish { name, role, out, .. } = wish;
    if !fits_subject(name) || name.starts_with(['.', '-']) {
        return Err("--name: must be a plain name, like receiver-1".to_owned());
    }
    let former = before(held, wish)?;
    let (key_file, certificate_file) = (free(out, &format!("{name}.key"))?, free(out, &format!("{name}.pem"))?);
    let key = csr::key().map_err(|error| error.to_string())?;
    let parsed = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "a key was made that cannot be read; please report this")?;
    let public_key = csr::public_key(parsed.secret_der()).map_err(|error| error.to_string())?;
    let until = clock::now().unix_ms / 1000 + (GATEWAY_CERTIFICATE_DAYS * 24 * 3600).cast_signed();
    let (pem, certificate) = authority.issue(Wanted { subject: name, public_key: &public_key, until })?;
    held.write_json(&format!("identities/{name}.json"), &Identity { name: name.to_owned(), role, certificate, former })?;
    let written = write_new(&key_file, 0o600, &key).and_then(|()| write_new(&certificate_file, 0o644, &pem));
    written.map_err(|why| format!("{why}; then run it again with --again"))
}

/// What the name had before; an error where it may not be given.
fn before(held: &Held<'_>, Wish { name, role, again, .. }: Wish<'_>) -> Result<Vec<Former>, String> {
    let known = held.state().identities()?.into_iter().find(|identity| identity.name == name);
    let records = held.state().records()?;
    match known {
        Some(identity) if again && identity.role == role => {
            let since = clock::now().unix_ms / 1000;
            let last = identity.certificate.serial.map(|serial| Former { serial, since });
            Ok(identity.former.into_iter().chain(last).collect())
        }
        Some(_) if again => Err(format!("--role: {name} has the other role; give that, or another name")),
        Some(_) => Err(format!("--name: {name} is in use; say --again if its certificate is to be made anew, with a new key")),
        None if records.iter().any(|record| record.subject == name || record.enrolment_subject == name) => {
            Err(format!("--name: {name} is in use; names are given once"))
        }
        None if again => Err(format!("--again: there is no {name} yet; leave it out")),
        None => Ok(Vec::new()),
    }
}

/// Looked at before anything is recorded.
fn free(out: &Path, name: &str) -> Result<PathBuf, String> {
    let file = out.join(name);
    if !out.is_dir() {
        return Err(format!("{}: is no directory; make it first", out.display()));
    }
    if file.symlink_metadata().is_ok() {
        return Err(format!("{}: is there, and nothing is ever written over; give another directory", file.display()));
    }
    Ok(file)
}

fn write_new(file: &Path, mode: u32, text: &str) -> Result<(), String> {
    let written = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file).and_then(|mut open| {
        open.write_all(text.as_bytes())?;
        open.sync_all()
    });
    written.map_err(|error| format!("{}: cannot be written: {error}; check the disk and the rights of this user", file.display()))
}
