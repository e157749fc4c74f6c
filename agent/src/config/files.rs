//! Looks at the files a configuration refers to: there, readable, PEM, belonging together, and private keys not open to everybody.
//!
//! Runs beside validation, so that its faults come in the same list. Skipped where the files cannot be there: when central IT checks a
//! configuration at a desk, and for the shipped one. Paths and contents of keys are not repeated (I7).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::fault::{FaultList, Place};
use super::merged::Merged;
use super::settings::KeySource;
use super::validate::key_source;
use crate::limits;

/// `credentials`: the directory systemd hands credentials over in, where there is one. `base`: relative paths are taken from here.
pub(super) fn check(merged: &Merged, base: &Path, credentials: Option<&Path>, f: &mut FaultList) {
    let uplink = &merged.uplink;
    if let Some(at) = uplink.ca.given() {
        authorities(&base.join(&at.value), &at.place, f);
    }
    let chain = uplink.cert.given().and_then(|at| certificates(&base.join(&at.value), &at.place, f));
    let key_file = match (uplink.key.given(), uplink.credential.given(), credentials) {
        (Some(at), _, _) => Some((base.join(&at.value), &at.place, Secret::File)),
        (None, Some(at), Some(directory)) => Some((directory.join(&at.value), &at.place, Secret::Credential)),
        _ => None,
    };
    if let Some((path, place, kind)) = key_file
        && let Some(key) = private_key(&path, place, kind, f)
        && let Some(chain) = chain
    {
        belongs_together(chain, key, place, f);
    }
    spool_key(merged, base, credentials, f);
}

/// Where a secret comes from; systemd looks after the modes of its credentials itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secret {
    File,
    Credential,
}

fn spool_key(merged: &Merged, base: &Path, credentials: Option<&Path>, f: &mut FaultList) {
    let Some(at) = merged.spool.key.as_ref() else { return };
    let (path, kind): (PathBuf, Secret) = match (key_source(&at.value, base), credentials) {
        (Ok(KeySource::File(path)), _) => (path, Secret::File),
        (Ok(KeySource::Credential(name)), Some(directory)) => (directory.join(name), Secret::Credential),
        _ => return,
    };
    if let Err(why) = read_secret(&path, kind) {
        f.add(&at.place, why);
    }
}

/// Reads a regular file up to the limit. The error is a sentence without the path.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let unreadable = |error: std::io::Error| format!("names a file that cannot be read: {error}; check path and owner");
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("does not name a regular file; check the path".to_owned());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(unreadable)?;
    file.take(limits::TLS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limits::TLS_FILE_BYTES_MAX {
        return Err("names a file of more than 1 MiB; that is no key or certificate".to_owned());
    }
    Ok(bytes)
}

fn read_secret(path: &Path, kind: Secret) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = read(path)?;
    let mode = std::fs::metadata(path).map_err(|error| format!("names a file that cannot be read: {error}"))?.permissions().mode();
    if kind == Secret::File && mode & 0o007 != 0 {
        return Err(format!(
            "names a private file that everybody on this machine can open (mode {:04o}); run chmod o= on it",
            mode & 0o7777
        ));
    }
    Ok(bytes)
}

fn certificates(path: &Path, place: &Place, f: &mut FaultList) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = read(path).map_err(|why| f.add(place, why)).ok()?;
    match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
        Ok(list) if !list.is_empty() => Some(list),
        _ => f.refuse(place, "names a file that is not a PEM certificate (-----BEGIN CERTIFICATE-----)"),
    }
}

fn authorities(path: &Path, place: &Place, f: &mut FaultList) {
    let Some(list) = certificates(path, place, f) else { return };
    let mut store = rustls::RootCertStore::empty();
    for (index, certificate) in list.into_iter().enumerate() {
        if store.add(certificate).is_err() {
            f.add(place, format!("names a file whose certificate {} is damaged; make the file again", index + 1));
        }
    }
}

fn private_key(path: &Path, place: &Place, kind: Secret, f: &mut FaultList) -> Option<PrivateKeyDer<'static>> {
    let bytes = read_secret(path, kind).map_err(|why| f.add(place, why)).ok()?;
    match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => Some(key),
        Err(_) => f.refuse(place, "names a file that is not an unencrypted PEM private key (-----BEGIN PRIVATE KEY-----)"),
    }
}

fn belongs_together(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>, place: &Place, f: &mut FaultList) {
    let provider = rustls::crypto::ring::default_provider();
    let why = match rustls::sign::CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => return,
        Err(rustls::Error::InconsistentKeys(_)) => "is not the key of the certificate in uplink.cert; give the pair that was made together",
        Err(_) => "names a key that cannot be used with the certificate in uplink.cert; use RSA, ECDSA P-256/P-384 or Ed25519",
    };
    f.add(place, why);
}
