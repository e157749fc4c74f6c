//! Validation of what decides who may connect to an MLLP listener: `peers` and `[feed.mllp.tls]`. Pure, part of the third stage.

use std::path::Path;

use super::fault::FaultList;
use super::merged::MllpTls;
use super::network;
use super::reader::At;
use super::settings::{ClientSubject, ListenerTls, Network};
use super::validate::tls_key;
use crate::limits::{CLIENT_SUBJECT_BYTES_MAX, CLIENT_SUBJECTS_MAX, PEERS_MAX};

/// `None`: faulty.
pub(super) fn peers(written: Option<&At<Vec<String>>>, f: &mut FaultList) -> Option<Vec<Network>> {
    let Some(at) = written else { return Some(Vec::new()) };
    if at.value.len() > PEERS_MAX {
        return f.refuse(&at.place, format!("lists more than {PEERS_MAX} entries; write networks in place of single addresses"));
    }
    let entries = at.value.iter().enumerate().map(|(index, text)| match network::parse(text) {
        Ok(network) => Some(network),
        Err(why) => f.refuse(&at.place, format!("entry {} {why}", index + 1)),
    });
    let networks: Vec<Option<Network>> = entries.collect(); // every entry is looked at
    networks.into_iter().collect()
}

/// `None`: faulty. `Some(None)`: without TLS.
#[allow(clippy::option_option)] // as said
pub(super) fn tls(written: Option<&MllpTls>, base: &Path, f: &mut FaultList) -> Option<Option<ListenerTls>> {
    let Some(m) = written else { return Some(None) };
    let key = tls_key((&m.key, &m.credential), "key", base, f);
    let client_subjects = client_subjects(m, f);
    Some(Some(ListenerTls {
        cert: base.join(&m.cert.as_ref()?.value),
        key: key?,
        client_ca: m.client_ca.given().map(|at| base.join(&at.value)),
        client_subjects: client_subjects?,
    }))
}

fn client_subjects(m: &MllpTls, f: &mut FaultList) -> Option<Vec<ClientSubject>> {
    let Some(at) = m.client_subjects.given() else { return Some(Vec::new()) };
    if m.client_ca.is_absent() {
        f.add(&at.place, "stands without client_ca; add the file of the authority that issues the senders' certificates");
    }
    if at.value.is_empty() || at.value.len() > CLIENT_SUBJECTS_MAX {
        let why = format!("must list 1 to {CLIENT_SUBJECTS_MAX} subjects; leave it out to take every certificate of client_ca");
        return f.refuse(&at.place, why);
    }
    let entries = at.value.iter().enumerate().map(|(index, text)| match subject(text) {
        Ok(subject) => Some(subject),
        Err(why) => f.refuse(&at.place, format!("entry {} {why}", index + 1)),
    });
    let subjects: Vec<Option<ClientSubject>> = entries.collect(); // every entry is looked at
    subjects.into_iter().collect()
}

fn subject(text: &str) -> Result<ClientSubject, &'static str> {
    if text.len() > CLIENT_SUBJECT_BYTES_MAX {
        return Err("is longer than a name can be; give the common name (\"CN=…\") or a DNS name");
    }
    if let Some(name) = text.strip_prefix("CN=") {
        if name.is_empty() || name.trim() != name {
            return Err("has no usable name behind CN=");
        }
        // Somebody pasted a whole subject; a common name that holds such text is not worth the doubt.
        if name.split(',').skip(1).any(|part| part.trim_start().split_once('=').is_some_and(|(key, _)| key.len() <= 2)) {
            return Err("holds more than a common name; give \"CN=…\" alone, without the rest of the subject");
        }
        return Ok(ClientSubject::CommonName(name.to_owned()));
    }
    let label = |l: &str| !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if text.contains('*') {
        return Err("holds a wildcard; names are compared whole, list each");
    }
    if !text.split('.').all(label) {
        return Err("is neither \"CN=…\" (the common name alone, not the whole subject) nor a DNS name");
    }
    Ok(ClientSubject::DnsName(text.to_ascii_lowercase()))
}
