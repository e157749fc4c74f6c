//! `[bootstrap]` of a document: other endpoints and other trust anchors in place of the local file's. Only the recovery keys may change it; documents
//! after it, signed by the anchors it names, repeat it word for word, so that every document says all of what holds. Pure.
//!
//! ```text
//!   recovery document, revision 42 ─► trial: its endpoints first, the local file's still behind them; anchors as they were
//!        └─► committed: its endpoints alone; documents and commands are verified by its keys             └─► taken back: all as it was
//!   revision 43, signed by the new keys, with the same section ─► as every document          without it, or with another ─► refused
//! ```
//!
//! The recovery keys themselves, and the local file, are never changed from afar: whoever stands at the box can always go back.

use std::sync::Arc;

use super::fault::{FaultList, Place};
use super::reader::{Section, pem, pems, texts, whole};
use super::settings::{Endpoint, Settings};
use super::trust::Anchor;
use super::{endpoint, files};
use crate::limits::{ENDPOINTS_MAX, TRUST_KEYS_MAX};

/// What a document says of the bootstrap. Two of the same content are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Empty: those of the local file.
    pub endpoints: Vec<Endpoint>,
    /// PEM; empty: those of the local file.
    pub keys: Vec<Arc<str>>,
    pub threshold: usize,
}

impl Moved {
    /// For people: what of the bootstrap comes from a document.
    pub fn what(&self) -> &'static str {
        match (self.endpoints.is_empty(), self.keys.is_empty()) {
            (false, false) => "endpoints and trust keys",
            (false, true) => "endpoints",
            (true, _) => "trust keys",
        }
    }

    /// Puts it into the settings of the local file. Its endpoints go before those, which stay in rotation until [`Settings::settle`].
    pub(super) fn put_into(self, settings: &mut Settings) {
        settings.uplink.endpoints.splice(0..0, self.endpoints.iter().cloned());
        if !self.keys.is_empty() {
            settings.trust.inline_keys.clone_from(&self.keys);
            settings.trust.threshold = self.threshold;
        }
        settings.moved = Some(self);
    }
}

/// Whether a document may say this. `before`: what holds.
pub(super) fn judge(said: Option<&Moved>, before: Option<&Moved>, recovery: bool, place: &Place, f: &mut FaultList) {
    if recovery || said == before {
        return;
    }
    f.add(
        place,
        match (said, before) {
            (Some(_), None) => "changes the bootstrap, which only the recovery keys may; sign it with them, or remove the section",
            (Some(_), Some(_)) => "is not the one that the recovery keys signed; repeat that one word for word, or sign with them",
            (None, _) => "is missing; this gateway's bootstrap was changed by its recovery keys: repeat that section word for word, or sign with them",
        },
    );
}

pub(super) fn read(mut s: Section<'_, '_>, allow_plaintext: bool, f: &mut FaultList) -> Option<Moved> {
    let place = s.place.clone();
    let urls = s.read(f, "endpoints", texts);
    let ca = s.read(f, "ca_pem", pem);
    let keys = s.read(f, "keys", pems);
    let threshold = s.read(f, "threshold", whole);
    s.finish(f);
    if urls.is_absent() && keys.is_absent() {
        return f.refuse(&place, "says nothing; give endpoints (with ca_pem), or keys (with threshold)");
    }
    if let (true, Some(at)) = (urls.is_absent(), ca.given()) {
        return f.refuse(&at.place, "stands without endpoints; add them");
    }
    let ca = match ca.given() {
        Some(at) => match files::authorities_of(at.value.as_bytes()) {
            Ok(_) => Some(Arc::from(at.value.as_str())),
            Err(why) => return f.refuse(&at.place, why.replacen("names a file", "is text", 1)),
        },
        None => None,
    };
    let mut moved = Moved { endpoints: Vec::new(), keys: Vec::new(), threshold: 1 };
    if let Some(at) = urls.given() {
        if at.value.is_empty() || at.value.len() > ENDPOINTS_MAX {
            return f.refuse(&at.place, format!("must list 1 to {ENDPOINTS_MAX} endpoints"));
        }
        for (index, url) in at.value.iter().enumerate() {
            match endpoint::parse(url) {
                Ok(endpoint) if endpoint.tls || allow_plaintext => {
                    let ca = ca.clone().filter(|_| endpoint.tls);
                    moved.endpoints.push(endpoint.added(ca));
                }
                Ok(_) => return f.refuse(&at.place, format!("entry {} has no TLS; use mqtts://", index + 1)),
                Err(why) => return f.refuse(&at.place, format!("entry {} {why}", index + 1)),
            }
        }
    }
    if let Some(at) = keys.given() {
        if at.value.is_empty() || at.value.len() > TRUST_KEYS_MAX {
            return f.refuse(&at.place, format!("must list 1 to {TRUST_KEYS_MAX} public keys in PEM"));
        }
        let mut seen: Vec<Anchor> = Vec::new();
        for (index, key) in at.value.iter().enumerate() {
            match Anchor::from_pem(key.as_bytes()) {
                Ok(anchor) if seen.contains(&anchor) => {
                    return f.refuse(&at.place, format!("entry {} is listed already; remove one", index + 1));
                }
                Ok(anchor) => seen.push(anchor),
                Err(why) => return f.refuse(&at.place, format!("entry {} {why}", index + 1)),
            }
        }
        moved.keys = at.value.iter().map(|key| Arc::from(key.as_str())).collect();
    }
    if let Some(at) = threshold.given() {
        moved.threshold = usize::try_from(at.value).unwrap_or(usize::MAX);
        if moved.threshold == 0 || moved.threshold > moved.keys.len() {
            return f.refuse(&at.place, "must be from 1 to the number of keys");
        }
    }
    let is_bad = urls.given().is_none() && !urls.is_absent() || keys.given().is_none() && !keys.is_absent();
    if is_bad { None } else { Some(moved) }
}
