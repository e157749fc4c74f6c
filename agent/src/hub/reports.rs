//! What gateways report, as the broker keeps it: the reported state and the status of every gateway, read in one visit.
//!
//! The visit ends when the broker has been silent for a while: MQTT does not say where the retained messages end. Whoever is not among them has
//! never reported to this broker, or the broker has forgotten; which of the two cannot be known, and is said so.

use std::collections::BTreeMap;

use tokio::time::{Instant, timeout_at};

use super::connection::live::{Live, News};
use super::receive::RuntimeDirectory;
use super::waves::heard::{Presence, Reported};
use crate::config::settings::Endpoint;
use crate::contract::topic::{self, Kind, ROOT};
use crate::limits::{CONNECT_TIMEOUT, RETAINED_QUIET, ROLLOUT_GATEWAYS_MAX};
use crate::record::Name;
use crate::uplink::tls::TlsFiles;

/// Which broker, and who we are there.
#[derive(Clone, Debug)]
pub struct Door {
    pub broker: Endpoint,
    pub tls: Option<TlsFiles>,
    pub client_id: String,
}

/// A gateway by site and name.
pub type GatewayKey = (Name, Name);

/// What is known of one gateway.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub reported: Option<Reported>,
    pub presence: Option<Presence>,
    /// A reported state came that cannot be read.
    pub unreadable: bool,
}

/// Of all of them.
pub type Reports = BTreeMap<GatewayKey, Known>;

/// The subscriptions for all gateways.
pub fn filters() -> Vec<String> {
    ["config/reported", "status"].map(|name| format!("{ROOT}/+/+/{name}")).to_vec()
}

/// A message as something known of a gateway; `None`: not of these kinds, empty, or not readable.
#[derive(Clone, Debug)]
pub enum Word {
    Reported(Box<Reported>),
    Presence(Presence),
    Unreadable,
}

pub fn read(topic: &str, payload: &[u8]) -> Option<(GatewayKey, Word)> {
    let parsed = topic::parse(topic)?;
    if payload.is_empty() {
        return None;
    }
    let word = match parsed.kind {
        // A report under another gateway's topic is nobody's.
        Kind::Reported => match Reported::read(payload).filter(|reported| reported.gateway == parsed.gateway) {
            Some(reported) => Word::Reported(Box::new(reported)),
            None => Word::Unreadable,
        },
        Kind::Status => Word::Presence(Presence::read(payload)?),
        _ => return None,
    };
    Some(((parsed.site, parsed.gateway), word))
}

/// Takes a word in; gateways beyond the bound are left out.
pub fn take(reports: &mut Reports, key: GatewayKey, word: Word) {
    if reports.len() >= ROLLOUT_GATEWAYS_MAX && !reports.contains_key(&key) {
        return;
    }
    let known = reports.entry(key).or_default();
    match word {
        Word::Reported(reported) => known.reported = Some(*reported),
        Word::Presence(presence) => known.presence = Some(presence),
        Word::Unreadable => known.unreadable = true,
    }
}

/// A directory for the socket of a connection of this process.
pub(super) fn runtime_directory(verb: &str) -> Result<RuntimeDirectory, String> {
    let socket = std::env::temp_dir().join(format!("siteward-{verb}-{}", std::process::id()));
    RuntimeDirectory::new(&socket).map_err(|error| error.to_string())
}

/// Reads what the broker keeps. The error is a sentence.
pub async fn collect(door: &Door) -> Result<Reports, String> {
    let directory = runtime_directory("reports")?;
    let mut live = Live::open(&door.broker, door.tls.as_ref(), (&door.client_id, directory.path()), &filters()).await?;
    let deadline = Instant::now() + 3 * CONNECT_TIMEOUT;
    let mut reports = Reports::new();
    let mut patience = Instant::now() + CONNECT_TIMEOUT;
    loop {
        match timeout_at(patience.min(deadline), live.news.recv()).await {
            Ok(Some(News::Up)) => patience = Instant::now() + RETAINED_QUIET,
            Ok(Some(News::Heard { topic, payload })) => {
                patience = Instant::now() + RETAINED_QUIET;
                if let Some((key, word)) = read(&topic, &payload) {
                    take(&mut reports, key, word);
                }
            }
            Ok(Some(News::Lost(why) | News::Refused(_, why))) => return Err(why),
            Ok(Some(News::TakenOver)) => return Err(taken_over(&door.client_id)),
            Ok(Some(News::Sent(_))) => {}
            Ok(None) => return Err(format!("{}: the connection ended", door.broker)),
            Err(_) => return Ok(reports),
        }
    }
}

/// Two clients of one name.
pub fn taken_over(client_id: &str) -> String {
    format!("another client connected as {client_id}: somebody else is at work with this tool; agree with them, or use --client-id")
}
