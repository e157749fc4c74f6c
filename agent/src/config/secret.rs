//! `[[secret]]` of a document (values sealed to the gateway), and which names of the feeds they stand for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;

use super::fault::{FaultList, Place};
use super::reader::{At, Section, text};
use super::settings::{FeedSettings, SourceSettings, TlsKeySource, UplinkSettings};
use crate::limits::SECRETS_MAX;
use crate::secrets::{Reference, Value, Vault, name_fits, sealed};

/// What a document carries, by name.
#[derive(Debug, Default)]
pub(super) struct Carried(BTreeMap<String, (At<()>, Arc<str>)>);

/// Reads the sections.
pub(super) fn read(sections: Vec<Section<'_, '_>>, f: &mut FaultList) -> Carried {
    let mut carried = Carried::default();
    for (index, mut s) in sections.into_iter().enumerate() {
        let place = s.place.clone();
        if index == SECRETS_MAX {
            f.add(&place, format!("is one more than the {SECRETS_MAX} secrets that a document may carry; set the others on the gateway"));
        }
        let name = s.read(f, "name", text).required(f, &place, "name", "give the name that the feeds use: credential = \"its-name\"");
        let value = s.read(f, "sealed", text).required(f, &place, "sealed", "give what `siteward-hub secret seal` printed");
        s.finish(f);
        let (Some(name), Some(value)) = (name, value) else { continue };
        if let Err(why) = sealed::read(&value.value) {
            f.add(&value.place, why);
        } else if !name_fits(&name.value) {
            f.add(&name.place, "is not the name of a secret; use 1 to 64 letters, digits, - _ .");
        } else if let Entry::Vacant(entry) = carried.0.entry(name.value) {
            entry.insert((At { value: (), place: value.place }, value.value.as_str().into()));
        } else {
            f.add(&name.place, "is there twice; keep one");
        }
    }
    carried
}

/// Where the secrets of feeds are looked up.
#[derive(Debug)]
pub(super) struct Lookup<'a> {
    pub vault: Arc<Vault>,
    pub carried: &'a Carried,
    /// By the agent: what is not found is not there.
    pub here: bool,
}

impl Lookup<'_> {
    /// `Ok(None)`: from here it cannot be told.
    pub fn find(&self, name: &str) -> Result<Option<Value>, String> {
        let sealed = self.carried.0.get(name).map(|(_, sealed)| &**sealed);
        self.vault.look(name, sealed, self.here)
    }
}

/// The names that a feed's settings hold, each of a value that is looked up when it is needed.
fn references(feed: &mut FeedSettings) -> Vec<&mut Reference> {
    let (tls, tokens) = match &mut feed.source {
        SourceSettings::Mllp(mllp) => (mllp.tls.as_mut(), None),
        SourceSettings::Http(http) => (http.tls.as_mut(), http.tokens_credential.as_mut()),
        SourceSettings::Directory(_) => (None, None),
    };
    let key = tls.and_then(|tls| match &mut tls.key {
        TlsKeySource::Credential(secret) => Some(secret),
        TlsKeySource::File(_) => None,
    });
    key.into_iter().chain(tokens).collect()
}

/// Tells every reference where to look. What a document carries and nobody names is a fault.
pub(super) fn bind(feeds: &mut [FeedSettings], vault: &Arc<Vault>, carried: &Carried, f: &mut FaultList) {
    let mut unused: BTreeMap<&str, &Place> = carried.0.iter().map(|(name, (at, _))| (name.as_str(), &at.place)).collect();
    for secret in feeds.iter_mut().flat_map(references) {
        unused.remove(secret.name());
        *secret = secret.within(vault, carried.0.get(secret.name()).map(|(_, sealed)| Arc::clone(sealed)));
    }
    for place in unused.into_values() {
        f.add(place, "is used by no feed; name it there (credential = \"its-name\"), or remove it");
    }
}

/// The same for what the uplink of the local file names.
pub(super) fn bind_proxy(uplink: &mut UplinkSettings, vault: &Arc<Vault>) {
    if let Some(credential) = uplink.proxy.as_mut().and_then(|proxy| proxy.credential.as_mut()) {
        *credential = credential.within(vault, None);
    }
}

/// The place where a gateway of these settings looks.
pub(super) fn vault(spool: &super::settings::SpoolSettings, credentials: Option<&Path>) -> Arc<Vault> {
    Arc::new(Vault::new(spool, credentials))
}
