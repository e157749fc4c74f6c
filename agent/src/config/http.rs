//! `[feed.http]` through its three stages: as written, merged with the defaults, validated (`source::http::HttpSettings`).
//!
//! Feeds with the same `listen` share one port; what belongs to the port rather than to the feed must then be the same ([`Ports`]). A feed that
//! asks nobody for a proof of who they are is served on loopback only, and bearer tokens never travel in the clear between machines.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault::{FaultList, Place};
use super::listener;
use super::merged::{self, MllpTls};
use super::reader::{At, Field, Section, choice, duration, path, size, text, texts, whole};
use super::settings::ListenerTls;
use super::validate::{ranged, within};
use super::written;
use crate::limits;
use crate::record::Stage;
use crate::secrets::name_fits;
use crate::source::http::media::{self, MediaType};
use crate::source::http::{HttpSettings, HttpSplit};

#[derive(Debug)]
pub(super) struct Written {
    place: Place,
    listen: Field<String>,
    split: Field<HttpSplit>,
    accept: Field<Vec<String>>,
    tokens_file: Field<PathBuf>,
    tokens_credential: Field<String>,
    peers: Field<Vec<String>>,
    connections_max: Field<u64>,
    body_bytes_max: Field<u64>,
    body_timeout: Field<Duration>,
    tls: Option<written::MllpTls>,
}

#[derive(Debug)]
pub(super) struct Merged {
    place: Place,
    listen: Option<At<String>>,
    split: Option<At<HttpSplit>>,
    /// Default: FHIR, JSON and octets only.
    accept: Field<Vec<String>>,
    /// Default: no token is asked for.
    pub tokens_file: Field<PathBuf>,
    pub tokens_credential: Field<String>,
    /// Default: everybody.
    peers: Field<Vec<String>>,
    connections_max: Option<At<u64>>,
    body_bytes_max: Option<At<u64>>,
    body_timeout: Option<At<Duration>>,
    pub tls: Option<MllpTls>,
}

impl Merged {
    pub(super) fn listen(&self) -> Option<&At<String>> {
        self.listen.as_ref()
    }
}

pub(super) fn read(mut s: Section<'_, '_>, f: &mut FaultList) -> Written {
    let splits = [("whole", HttpSplit::Whole), ("fhir_bundle", HttpSplit::FhirBundle), ("json_array", HttpSplit::JsonArray)];
    let written = Written {
        place: s.place.clone(),
        listen: s.read(f, "listen", text),
        split: s.read(f, "split", choice(&splits)),
        accept: s.read(f, "accept", texts),
        tokens_file: s.read(f, "tokens_file", path),
        tokens_credential: s.read(f, "tokens_credential", text),
        peers: s.read(f, "peers", texts),
        connections_max: s.read(f, "connections_max", whole),
        body_bytes_max: s.read(f, "body_bytes_max", size),
        body_timeout: s.read(f, "body_timeout", duration),
        tls: s.has("tls").is_some().then(|| s.section(f, "tls")).map(|section| written::mllp_tls(section, f)),
    };
    s.finish(f);
    written
}

pub(super) fn merge(w: Written, f: &mut FaultList) -> Merged {
    let at = &w.place;
    Merged {
        listen: w.listen.required(f, at, "listen", "give address and port, like \"0.0.0.0:8443\""),
        split: w.split.or(HttpSplit::Whole, at, "split"),
        connections_max: w.connections_max.or(limits::HTTP_CONNECTIONS_DEFAULT as u64, at, "connections_max"),
        body_bytes_max: w.body_bytes_max.or(limits::HTTP_BODY_BYTES_MAX_DEFAULT, at, "body_bytes_max"),
        body_timeout: w.body_timeout.or(limits::HTTP_BODY_TIMEOUT_DEFAULT, at, "body_timeout"),
        accept: w.accept,
        tokens_file: w.tokens_file,
        tokens_credential: w.tokens_credential,
        peers: w.peers,
        tls: w.tls.map(|tls| merged::mllp_tls(tls, f)),
        place: w.place,
    }
}

pub(super) fn validate(m: &Merged, stage: Option<Stage>, base: &Path, f: &mut FaultList) -> Option<HttpSettings> {
    let listen = m.listen.as_ref().and_then(|at| match at.value.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => f.refuse(&at.place, "has port 0; give the port that clients connect to"),
        Ok(address) => Some(address),
        Err(_) => f.refuse(&at.place, "is not an address and port; write IP:PORT, like \"0.0.0.0:8443\" or \"[::]:8443\""),
    });
    let (least, most) = limits::CONNECTIONS_PER_FEED_RANGE;
    let connections = ranged(m.connections_max.as_ref(), least as u64..=most as u64, "1 to 4096", f);
    let (least, most) = limits::MESSAGE_BYTES_MAX_RANGE;
    let body_bytes_max = ranged(m.body_bytes_max.as_ref(), least..=most, "64KiB to 64MiB", f);
    let body_timeout = ranged(m.body_timeout.as_ref(), within(limits::HTTP_BODY_TIMEOUT_RANGE), "\"1s\" to \"10m\"", f);
    let accept = accept(m, f);
    let peers = listener::peers(m.peers.given(), f);
    let tls = listener::tls(m.tls.as_ref(), base, f);
    let tokens_credential = m.tokens_credential.given().and_then(|at| {
        if !m.tokens_file.is_absent() {
            return f.refuse(&at.place, "stands beside tokens_file; keep one of the two");
        }
        let fits = name_fits(&at.value);
        if fits { Some(at.value.as_str().into()) } else { f.refuse(&at.place, "is not the name of a secret; use letters, digits, - _ .") }
    });
    if let Some(listen) = listen.filter(|listen| !listen.ip().to_canonical().is_loopback()) {
        proof(m, listen, f);
    }
    Some(HttpSettings {
        listen: listen?,
        split: m.split.as_ref()?.value,
        accept: accept?,
        tokens_file: m.tokens_file.given().map(|at| base.join(&at.value)),
        tokens_credential,
        peers: peers?,
        connections_max: connections? as usize,
        body_bytes_max: body_bytes_max?,
        body_timeout: body_timeout?,
        tls: tls?,
        stage: stage?,
    })
}

/// Who can be reached by others asks them who they are.
fn proof(m: &Merged, listen: SocketAddr, f: &mut FaultList) {
    let asks_for_certificates = m.tls.as_ref().is_some_and(|tls| !tls.client_ca.is_absent());
    match (m.tokens_file.is_absent() && m.tokens_credential.is_absent(), m.tls.is_some()) {
        (true, _) if !asks_for_certificates => f.add(
            &m.place,
            format!("would take messages from whoever reaches {listen}; give tokens_file or tokens_credential, or client_ca in [feed.http.tls], or listen on 127.0.0.1"),
        ),
        (false, false) => f.add(
            &m.place.missing("tls"),
            format!("is missing; without it the tokens of clients travel readable to {listen}: add [feed.http.tls], or listen on 127.0.0.1"),
        ),
        _ => {}
    }
}

fn accept(m: &Merged, f: &mut FaultList) -> Option<Vec<MediaType>> {
    let Some(at) = m.accept.given() else { return Some(Vec::new()) };
    if at.value.is_empty() || at.value.len() > limits::HTTP_ACCEPT_MAX {
        return f.refuse(&at.place, format!("must list 1 to {} media types, like [\"text/csv\"]", limits::HTTP_ACCEPT_MAX));
    }
    let entries = at.value.iter().enumerate().map(|(index, text)| match MediaType::parse(text) {
        Some(media_type) if media::is_xml(&media_type) => {
            f.refuse(&at.place, format!("entry {} is XML, which is not taken: nothing here reads it; have clients post JSON", index + 1))
        }
        Some(media_type) if media_type.essence() == text.to_ascii_lowercase() => Some(media_type),
        _ => f.refuse(&at.place, format!("entry {} is not a media type; write it like \"text/csv\", without parameters", index + 1)),
    });
    let types: Vec<Option<MediaType>> = entries.collect(); // every entry is looked at
    types.into_iter().collect()
}

/// The ports of all HTTP feeds.
#[derive(Debug, Default)]
pub(super) struct Ports {
    known: Vec<(SocketAddr, Option<ListenerTls>, String)>,
}

impl Ports {
    pub(super) fn join(&mut self, settings: &HttpSettings, place: &Place, f: &mut FaultList) {
        let Some((_, tls, first)) = self.known.iter().find(|(listen, ..)| *listen == settings.listen) else {
            self.known.push((settings.listen, settings.tls.clone(), place.path.clone()));
            return;
        };
        if *tls != settings.tls {
            f.add(
                place,
                format!("shares its port with {first}, but has another [feed.http.tls]; make the sections equal, or use another port"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
