//! Secrets: values that a configuration names and never holds.
//!
//! ```text
//!   credential = "lab-key" ──► Reference ── read ──► 1. [[secret]] of the document that runs: sealed to this gateway      (`sealed`)
//!                                                    2. systemd credential of this name: $CREDENTIALS_DIRECTORY/lab-key
//!                                                    3. set on the box: `siteward secret set lab-key`                     (`store`)
//!                                                    else: a sentence that says so
//! ```
//!
//! 1. Validation turns a name into a [`Reference`], which knows where to look. Whoever needs the value (a listener that reads its key, an HTTP feed
//!    that reads its tokens) reads it then, and again when [`Reference::marks`] change; nobody keeps it longer than it takes.
//! 2. What a document seals is part of that document: tried, confirmed and rolled back with it, and never written anywhere else.
//! 3. What is set on the box lies in the spool, sealed with what the spool key gives; `siteward secret set` seals it to the gateway before it goes
//!    over the control socket, so that no buffer on the way holds it. With the agent stopped the command writes the file itself, under the spool's
//!    lock.
//! 4. A value is in no settings, no log, no error and no `Debug`; it is overwritten when it is dropped (I7).
//!
//! The spool key is the root of all of it: a spool that is made anew has another key, and its secrets have to be set and sealed again.

pub mod sealed;
pub mod store;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::files::{Secret, read_secret};
use crate::config::settings::{KeySource, SpoolSettings};
use crate::source::tls::{Mark, mark};
use crate::spool::disk::RealDisk;
use crate::spool::key::{KeyError, SpoolKey};
use store::{Store, StoreError};

/// The bytes of a secret.
pub type Value = Zeroizing<Vec<u8>>;

/// Where a gateway looks for its secrets. Holds none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vault {
    /// Where systemd hands credentials over, if it does.
    pub directory: Option<PathBuf>,
    pub spool: PathBuf,
    pub key: KeySource,
}

/// A secret by its name.
#[derive(Clone)]
pub struct Reference {
    name: String,
    /// Carried by the document that names it.
    sealed: Option<Arc<str>>,
    vault: Option<Arc<Vault>>,
}

/// Two references are equal where they stand for the same value; all of a gateway look in the same places.
impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.sealed == other.sealed
    }
}

impl Eq for Reference {}

impl std::fmt::Debug for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "secret {}", self.name)
    }
}

/// As the configuration shows it.
impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", if self.sealed.is_some() { "sealed" } else { "credential" }, self.name)
    }
}

impl From<&str> for Reference {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), sealed: None, vault: None }
    }
}

impl Reference {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, looked for here; `sealed`: as the document carries it, if it does.
    #[must_use]
    pub fn within(&self, vault: &Arc<Vault>, sealed: Option<Arc<str>>) -> Self {
        Self { name: self.name.clone(), sealed, vault: Some(Arc::clone(vault)) }
    }

    /// The value. The error is the end of a sentence that begins with the key's name. Blocking.
    pub fn read(&self) -> Result<Value, String> {
        match &self.vault {
            Some(vault) => vault.look(&self.name, self.sealed.as_deref(), true).and_then(|value| value.ok_or_else(|| self.missing())),
            None => Err(self.missing()),
        }
    }

    fn missing(&self) -> String {
        missing(&self.name)
    }

    /// Changes when the value may have. Blocking.
    pub fn marks(&self) -> Vec<Option<Mark>> {
        match &self.vault {
            Some(vault) if self.sealed.is_none() => {
                vault.directory.iter().map(|at| mark(&at.join(&self.name))).chain([mark(&vault.spool.join(store::FILE))]).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn missing(name: &str) -> String {
    format!("names the secret `{name}`, which this gateway does not have; set it there: siteward secret set {name}")
}

impl Vault {
    pub fn new(spool: &SpoolSettings, directory: Option<&Path>) -> Self {
        Self { directory: directory.map(Path::to_owned), spool: spool.path.clone(), key: spool.key.clone() }
    }

    /// The value; `Ok(None)`: from here it cannot be told. `here`: this is the agent, so what it cannot find is not there. Blocking.
    pub(crate) fn look(&self, name: &str, sealed: Option<&str>, here: bool) -> Result<Option<Value>, String> {
        if let Some(sealed) = sealed {
            return match self.spool_key() {
                Ok(key) => {
                    sealed::open(&key.exchange(), name, sealed).map(Some).map_err(|why| format!("names the secret `{name}`, which {why}"))
                }
                Err(error) if here => Err(format!("names the secret `{name}`, which is sealed, but {error}")),
                Err(_) => Ok(None),
            };
        }
        if let Some(path) = self.directory.as_ref().map(|directory| directory.join(name)).filter(|path| path.exists()) {
            return read_secret(&path, Secret::Credential).map(Some);
        }
        let is_sure = here || self.directory.is_some();
        let store = match Store::open(&RealDisk, &self.spool) {
            Ok(store) => store,
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied && !here => return Ok(None),
            Err(error) => return Err(format!("names the secret `{name}`, but {error}")),
        };
        if !store.has(name) {
            return if is_sure { Err(missing(name)) } else { Ok(None) };
        }
        match self.spool_key() {
            Ok(key) => match store.value(name, &key) {
                Some(Ok(value)) => Ok(Some(value)),
                _ => Err(format!(
                    "names the secret `{name}`, which was set under another spool key; set it again: siteward secret set {name}"
                )),
            },
            Err(error) if here => Err(format!("names the secret `{name}`, but {error}")),
            Err(_) => Ok(None),
        }
    }

    /// The key of a spool that was opened before.
    pub fn spool_key(&self) -> Result<SpoolKey, KeyError> {
        SpoolKey::load(&self.key, &self.spool, false, &RealDisk).map(|(key, _)| key)
    }

    /// What may be told of the secrets set here.
    pub fn list(&self) -> Result<Vec<store::Known>, StoreError> {
        Store::open(&RealDisk, &self.spool).map(|store| store.list())
    }

    /// The public half of the gateway's own key.
    pub fn public_key(&self) -> Result<String, KeyError> {
        self.spool_key().map(|key| sealed::public_key(&key.exchange()))
    }

    /// Sets a value; durable when this returns. Only for the one writer there is.
    pub fn set(&self, name: &str, value: &Value, owner: Option<(u32, u32)>) -> Result<(), String> {
        let key = self.spool_key().map_err(|error| error.to_string())?;
        let mut store = Store::open(&RealDisk, &self.spool).map_err(|error| error.to_string())?;
        store.set(name, value, crate::clock::now(), &key, owner).map_err(|error| error.to_string())
    }

    /// True: it was there.
    pub fn remove(&self, name: &str, owner: Option<(u32, u32)>) -> Result<bool, String> {
        let mut store = Store::open(&RealDisk, &self.spool).map_err(|error| error.to_string())?;
        store.remove(name, owner).map_err(|error| error.to_string())
    }
}

/// Whether a secret may have this name.
pub fn name_fits(name: &str) -> bool {
    name.len() <= crate::limits::SECRET_NAME_BYTES_MAX && crate::config::credential_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(spool: &Path, directory: Option<&Path>) -> Arc<Vault> {
        let key = spool.join("key-file");
        std::fs::write(&key, [5; 32]).unwrap();
        Arc::new(Vault { directory: directory.map(Path::to_owned), spool: spool.to_owned(), key: KeySource::File(key) })
    }

    /// I7: neither value nor sealed value is shown anywhere.
    #[test]
    fn a_document_goes_before_systemd_and_systemd_before_the_store() {
        let (spool, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let vault = vault(spool.path(), Some(credentials.path()));
        let named = Reference::from("lab").within(&vault, None);
        assert!(named.read().unwrap_err().ends_with("set it there: siteward secret set lab"));
        let marks = named.marks();
        vault.set("lab", &Value::new(b"of the store".to_vec()), None).unwrap();
        assert_ne!(named.marks(), marks, "a running feed looks again");
        assert_eq!(named.read().unwrap().as_slice(), b"of the store");
        std::fs::write(credentials.path().join("lab"), "of systemd").unwrap();
        assert_eq!(named.read().unwrap().as_slice(), b"of systemd");
        let public = sealed::read_public_key(&vault.public_key().unwrap()).unwrap();
        let text = sealed::seal(&public, "lab", b"of the document").unwrap();
        let carried = Reference::from("lab").within(&vault, Some(text.as_str().into()));
        assert_eq!(carried.read().unwrap().as_slice(), b"of the document");
        assert!(carried != named && format!("{carried:?} {carried}") == "secret lab sealed:lab");
        let foreign = Reference::from("other").within(&vault, Some(text.as_str().into())).read().unwrap_err();
        assert!(foreign.contains("seal it again") && !foreign.contains(&text), "{foreign}");
        assert!(vault.remove("lab", None).unwrap());
    }

    #[test]
    fn what_cannot_be_known_from_a_desk_is_no_fault_there() {
        let spool = tempfile::tempdir().unwrap();
        let vault = vault(spool.path(), None);
        assert_eq!(vault.look("lab", None, false), Ok(None), "systemd may have it");
        assert!(vault.look("lab", None, true).is_err());
    }
}
