//! Looks at the files a configuration refers to: there, readable, PEM, belonging together, and private keys not open to everybody.
//!
//! Runs beside validation, so that its faults come in the same list. Skipped where the files cannot be there: when central IT checks a
//! configuration at a desk, and for the shipped one. Paths and contents of keys are not repeated (I7).
//!
//! The readers of single files serve running listeners too, which look at their certificates again and again: what `check` accepts is what
//! they accept, and they complain in the same words. Those words are the end of a sentence that begins with the key's name.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::fault::{FaultList, Place};
use super::merged::{Feed, Merged, MllpTls};
use super::reader::{At, Field};
use super::secret::{Carried, Lookup};
use super::settings::KeySource;
use super::validate::key_source;
use crate::limits;
use crate::secrets::{Value, Vault};
use crate::source::http::tokens::Tokens;
use crate::source::tls::certificate;
use crate::status::cadence::read_holidays;

/// The site of the file that a package brings, and what its gateway's id begins with.
const DEFAULT_SITE: &str = "change-me";

/// Site and id, where they are still those of the file that a package brings.
pub(super) fn not_named(merged: &Merged) -> impl Iterator<Item = (&At<String>, &'static str)> {
    let site = merged.gateway.site.iter().filter(|at| at.value == DEFAULT_SITE).map(|at| (at, "name the site, like \"st-marys\""));
    let id =
        merged.gateway.id.iter().filter(|at| at.value.starts_with(DEFAULT_SITE)).map(|at| (at, "name the gateway, like \"st-marys-gw1\""));
    site.chain(id)
}

/// `credentials`: the directory systemd hands credentials over in, where there is one. `base`: relative paths are taken from here.
pub(super) fn check(merged: &Merged, base: &Path, credentials: Option<&Path>, f: &mut FaultList) {
    for (at, advice) in not_named(merged) {
        f.add(&at.place, format!("is still that of the default file; {advice}; it is part of every record, so set it before the first"));
    }
    let uplink = &merged.uplink;
    check_authorities(&uplink.ca, base, f);
    let handed_over = |name: &str| credentials.map(|at| read_secret(&at.join(name), Secret::Credential)).transpose();
    check_pair(uplink.cert.given(), (&uplink.key, &uplink.credential), base, &handed_over, f);
    spool_key(merged, base, credentials, f);
    let (path, key) = (merged.spool.path.as_ref(), merged.spool.key.as_ref().and_then(|at| key_source(&at.value, base).ok()));
    if let (Some(path), Some(key)) = (path, key) {
        let vault = Arc::new(Vault { directory: credentials.map(Path::to_owned), spool: base.join(&path.value), key });
        check_feeds(&merged.feeds, base, &Lookup { vault, carried: &Carried::default(), here: false }, f);
    }
    for keys in [&merged.trust.keys, &merged.trust.recovery_keys, &merged.trust.command_keys] {
        check_anchors(keys, base, f);
    }
}

fn check_anchors(keys: &Field<Vec<String>>, base: &Path, f: &mut FaultList) {
    let Some(at) = keys.given() else { return };
    let mut seen: Vec<super::trust::Anchor> = Vec::new();
    for (index, file) in at.value.iter().enumerate() {
        match super::trust::anchor(&base.join(file)) {
            Ok(anchor) if seen.contains(&anchor) => {
                f.add(&at.place, format!("entry {} holds a key that is listed already; remove one", index + 1));
            }
            Ok(anchor) => seen.push(anchor),
            Err(why) => f.add(&at.place, format!("entry {} {why}", index + 1)),
        }
    }
}

/// What the feeds refer to.
pub(super) fn check_feeds(feeds: &[Feed], base: &Path, secrets: &Lookup<'_>, f: &mut FaultList) {
    for at in feeds.iter().filter_map(|feed| feed.expect.as_ref()?.holidays_file.given()) {
        if let Err(why) = read_holidays(&base.join(&at.value)) {
            f.add(&at.place, why);
        }
    }
    for feed in feeds {
        let id = feed.id.as_ref().map(|id| id.value.as_str()).unwrap_or_default();
        let find = |name: &str| secrets.find(name).map_err(|why| format!("of feed `{id}` {why}"));
        if let Some(tls) = feed.mllp.as_ref().and_then(|mllp| mllp.tls.as_ref()) {
            check_listener(tls, base, &find, f);
        }
        let Some(http) = &feed.http else { continue };
        if let Some(tls) = &http.tls {
            check_listener(tls, base, &find, f);
        }
        if let Some(at) = http.tokens_file.given() {
            told(Tokens::load(&base.join(&at.value)), &at.place, f);
        }
        if let Some(at) = http.tokens_credential.given()
            && let Some(Some(value)) = told(find(&at.value), &at.place, f)
        {
            told(Tokens::of(&value), &at.place, f);
        }
    }
}

/// A secret by its name; `Ok(None)`: from here it cannot be told.
type Find<'a> = dyn Fn(&str) -> Result<Option<Value>, String> + 'a;

fn check_listener(tls: &MllpTls, base: &Path, find: &Find<'_>, f: &mut FaultList) {
    check_authorities(&tls.client_ca, base, f);
    check_pair(tls.cert.as_ref(), (&tls.key, &tls.credential), base, find, f);
}

fn check_authorities(ca: &Field<PathBuf>, base: &Path, f: &mut FaultList) {
    if let Some(at) = ca.given()
        && let Err(why) = authorities(&base.join(&at.value))
    {
        f.add(&at.place, why);
    }
}

fn check_pair(
    cert: Option<&At<PathBuf>>,
    (key, credential): (&Field<PathBuf>, &Field<String>),
    base: &Path,
    find: &Find<'_>,
    f: &mut FaultList,
) {
    let chain = cert.and_then(|at| told(certificates(&base.join(&at.value)), &at.place, f));
    let (key, place) = match (key.given(), credential.given()) {
        (Some(at), _) => (told(private_key(&base.join(&at.value), Secret::File), &at.place, f), &at.place),
        (None, Some(at)) => match told(find(&at.value), &at.place, f) {
            Some(Some(value)) => (told(private_key_of(&value), &at.place, f), &at.place),
            _ => return,
        },
        _ => return,
    };
    if let (Some(chain), Some(key), Some(cert)) = (chain, key, cert) {
        told(pair(chain, key, &cert.place.path), place, f);
    }
}

/// The value, or its fault told.
fn told<T>(result: Result<T, String>, place: &Place, f: &mut FaultList) -> Option<T> {
    result.map_err(|why| f.add(place, why)).ok()
}

/// Where a secret comes from; systemd looks after the modes of its credentials itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
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
    told(read_secret(&path, kind), &at.place, f);
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

/// Reads a file that not everybody may open.
pub(crate) fn read_secret(path: &Path, kind: Secret) -> Result<Zeroizing<Vec<u8>>, String> {
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

/// Reads a file that anybody may read, but not everybody may write.
pub(super) fn read_public(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = read(path)?;
    let mode = std::fs::metadata(path).map_err(|error| format!("names a file that cannot be read: {error}"))?.permissions().mode();
    if mode & 0o002 != 0 {
        return Err(format!("names a file that everybody on this machine can change (mode {:04o}); run chmod o-w on it", mode & 0o7777));
    }
    Ok(bytes)
}

/// The certificates of a PEM file; at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_of(&read(path)?)
}

fn certificates_of(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>() {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err("names a file that is not a PEM certificate (-----BEGIN CERTIFICATE-----)".to_owned()),
    }
}

/// The trust anchors of a PEM file.
pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, String> {
    authorities_of(&read(path)?)
}

/// The same from PEM text; the error speaks of a file all the same.
pub(crate) fn authorities_of(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates_of(pem)?.into_iter().enumerate() {
        let damaged = |_| format!("names a file whose certificate {} is damaged; make the file again", index + 1);
        store.add(certificate).map_err(damaged)?;
    }
    Ok(store)
}

/// The key of a PEM file.
pub(crate) fn private_key(path: &Path, kind: Secret) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read_secret(path, kind)?;
    let foreign = "names a file that is not an unencrypted PEM private key (-----BEGIN PRIVATE KEY-----)";
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| foreign.to_owned())
}

/// The same from a secret.
pub(crate) fn private_key_of(value: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let foreign = "names a secret that is not an unencrypted PEM private key (-----BEGIN PRIVATE KEY-----)";
    PrivateKeyDer::from_pem_slice(value).map_err(|_| foreign.to_owned())
}

/// Certificate and key, if they belong together. `cert`: what the certificate's key is called in the configuration.
pub(crate) fn pair(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>, cert: &str) -> Result<CertifiedKey, String> {
    if let Some(why) = chain.first().and_then(|leaf| certificate::too_old(leaf)) {
        return Err(format!("cannot be used: what {cert} names {why}"));
    }
    match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
        Ok(pair) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(format!("is not the key of the certificate in {cert}; give the pair that was made together"))
        }
        Err(_) => Err(format!("names a key that cannot be used with the certificate in {cert}; use RSA, ECDSA P-256/P-384 or Ed25519")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `openssl x509 -req` signs without an extension file: the key is as good as any, and the certificate is what is at fault.
    #[test]
    fn a_certificate_of_version_1_is_named_and_not_its_key() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/certificates");
        let (chain, key) = (certificates(&fixtures.join("version-1.pem")), PrivateKeyDer::from_pem_file(fixtures.join("version-1.key")));
        let why = pair(chain.unwrap(), key.unwrap(), "uplink.cert").unwrap_err();
        assert!(why.starts_with("cannot be used: what uplink.cert names is an X.509 version 1 certificate"), "{why}");
        assert!(why.contains("-extfile") && !why.contains("P-256"), "{why}");
    }
}
