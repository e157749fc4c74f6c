//! Second stage: as written, merged with the defaults. What is required and missing is told here; every default has its one place here.
//!
//! A value that is `None` after this stage is faulty and already in the fault list. `Field` remains only where a key is truly optional.

use std::path::PathBuf;
use std::time::Duration;

use super::about;
use super::alerts;
use super::directory;
use super::expect;
use super::fault::{FaultList, Place};
use super::http;
use super::reader::{At, Field};
use super::settings::{AppAck, BatchAck, Confirm, OnInvalid, OnNoSubscriber, OnStoreFailure};
use super::status;
use super::written::{self, Forward, Phi, Written};
use crate::clock::SYNCHRONISED_FILE;
use crate::limits;
use crate::record::{Lane, Stage};

#[derive(Debug)]
pub(super) struct Merged {
    pub gateway: Gateway,
    pub spool: Spool,
    pub uplink: Uplink,
    pub trust: Trust,
    pub status: status::Written,
    pub alerts: alerts::Merged,
    pub feeds: Vec<Feed>,
}

#[derive(Debug)]
pub(super) struct Gateway {
    pub site: Option<At<String>>,
    pub id: Option<At<String>>,
    pub timezone: Option<At<String>>,
    /// Default: `control.sock` in the spool.
    pub control_socket: Field<PathBuf>,
    /// Default: what the service's unit makes.
    pub access_directory: Field<PathBuf>,
    pub clock_synchronised_file: Option<At<PathBuf>>,
    /// Default: none.
    pub groups: Field<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Trust {
    /// Default: nobody is trusted.
    pub keys: Field<Vec<String>>,
    pub threshold: Option<At<u64>>,
    pub recovery_keys: Field<Vec<String>>,
    pub recovery_threshold: Option<At<u64>>,
    /// Default: what neither publishes nor ends anything that was kept back.
    pub commands: Field<Vec<String>>,
    /// Default: those of documents.
    pub command_keys: Field<Vec<String>>,
    pub command_threshold: Option<At<u64>>,
}

#[derive(Debug)]
pub(super) struct Spool {
    pub path: Option<At<PathBuf>>,
    /// Default: a share of the volume, found out when the spool is opened.
    pub max_bytes: Field<u64>,
    pub key: Option<At<String>>,
    pub message_bytes_max: Option<At<u64>>,
}

#[derive(Debug)]
pub(super) struct Uplink {
    pub place: Place,
    pub endpoints: Option<At<Vec<String>>>,
    pub allow_plaintext: Option<At<bool>>,
    pub ca: Field<PathBuf>,
    pub cert: Field<PathBuf>,
    pub key: Field<PathBuf>,
    pub credential: Field<String>,
    /// Default: endpoints are dialled directly.
    pub proxy: Field<String>,
    pub proxy_credential: Field<String>,
    pub in_flight: Option<At<u64>>,
    pub confirm: Option<At<Confirm>>,
    pub receipt_timeout: Option<At<Duration>>,
    pub on_no_subscriber: Option<At<OnNoSubscriber>>,
}

#[derive(Debug)]
pub(super) struct Feed {
    pub place: Place,
    pub id: Option<At<String>>,
    pub lane: Option<At<Lane>>,
    pub stage: Option<At<Stage>>,
    pub forward: Option<At<Forward>>,
    pub phi: Option<At<Phi>>,
    pub profile: Field<String>,
    pub timezone: Field<String>,
    /// Default: MSH-18, else what the bytes look like.
    pub charset: Field<String>,
    pub charset_force: Option<At<bool>>,
    pub about: about::Written,
    pub mllp: Option<Mllp>,
    pub directory: Option<directory::Merged>,
    pub http: Option<http::Merged>,
    /// Default: nothing is expected.
    pub expect: Option<expect::Merged>,
}

#[derive(Debug)]
pub(super) struct Mllp {
    pub listen: Option<At<String>>,
    pub on_store_failure: Option<At<OnStoreFailure>>,
    pub allow_missing_control_id: Option<At<bool>>,
    pub connections_max: Option<At<u64>>,
    pub frame_timeout: Option<At<Duration>>,
    /// Default: never closed for idleness.
    pub idle_timeout: Field<Duration>,
    pub on_invalid: Option<At<OnInvalid>>,
    pub app_ack: Option<At<AppAck>>,
    pub batch_ack: Option<At<BatchAck>>,
    /// Default: everything is taken.
    pub strict: written::Strict,
    /// Default: everybody.
    pub peers: Field<Vec<String>>,
    pub unframed: Option<At<bool>>,
    pub tls: Option<MllpTls>,
}

#[derive(Debug)]
pub(super) struct MllpTls {
    pub cert: Option<At<PathBuf>>,
    /// One of the two; `None` where neither is there.
    pub key: Field<PathBuf>,
    pub credential: Field<String>,
    /// Default: senders need no certificate.
    pub client_ca: Field<PathBuf>,
    /// Default: every certificate of `client_ca`.
    pub client_subjects: Field<Vec<String>>,
}

impl<T> Field<T> {
    pub(super) fn or(self, default: T, section: &Place, key: &str) -> Option<At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Bad => None,
            Self::Absent => Some(At { value: default, place: section.missing(key) }),
        }
    }

    pub(super) fn required(self, faults: &mut FaultList, section: &Place, key: &str, advice: &str) -> Option<At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Bad => None,
            Self::Absent => faults.refuse(&section.missing(key), format!("is missing; {advice}")),
        }
    }
}

pub(super) fn merge(written: Written, f: &mut FaultList) -> Merged {
    Merged {
        gateway: gateway(written.gateway, f),
        spool: spool(written.spool),
        uplink: uplink(written.uplink, f),
        trust: trust(written.trust),
        status: written.status,
        alerts: alerts::merge(written.alerts),
        feeds: written.feeds.into_iter().map(|w| feed(w, f)).collect(),
    }
}

fn gateway(w: written::Gateway, f: &mut FaultList) -> Gateway {
    let at = &w.place;
    Gateway {
        site: w.site.required(f, at, "site", "name the site, like \"st-marys\""),
        id: w.id.required(f, at, "id", "name this gateway, like \"st-marys-gw1\"; no two gateways of a hub may share a name"),
        timezone: w.timezone.required(f, at, "timezone", "name the zone of the site's clocks, like \"America/New_York\""),
        control_socket: w.control_socket,
        access_directory: w.access_directory,
        clock_synchronised_file: w.clock_synchronised_file.or(PathBuf::from(SYNCHRONISED_FILE), at, "clock_synchronised_file"),
        groups: w.groups,
    }
}

fn trust(w: written::Trust) -> Trust {
    let at = &w.place;
    Trust {
        keys: w.keys,
        threshold: w.threshold.or(1, at, "threshold"),
        recovery_keys: w.recovery_keys,
        recovery_threshold: w.recovery_threshold.or(1, at, "recovery_threshold"),
        commands: w.commands,
        command_keys: w.command_keys,
        command_threshold: w.command_threshold.or(1, at, "command_threshold"),
    }
}

fn spool(w: written::Spool) -> Spool {
    let at = &w.place;
    Spool {
        path: w.path.or(PathBuf::from("/var/lib/siteward"), at, "path"),
        max_bytes: w.max_bytes,
        key: w.key.or("auto".to_owned(), at, "key"),
        message_bytes_max: w.message_bytes_max.or(limits::MESSAGE_BYTES_MAX_DEFAULT, at, "message_bytes_max"),
    }
}

fn uplink(w: written::Uplink, f: &mut FaultList) -> Uplink {
    let at = &w.place;
    Uplink {
        endpoints: w.endpoints.required(f, at, "endpoints", "list the hub's brokers, like [\"mqtts://hub.example.org:8883\"]"),
        allow_plaintext: w.allow_plaintext.or(false, at, "allow_plaintext"),
        in_flight: w.in_flight.or(limits::IN_FLIGHT_DEFAULT as u64, at, "in_flight"),
        confirm: w.confirm.or(Confirm::Receipt, at, "confirm"),
        receipt_timeout: w.receipt_timeout.or(limits::RECEIPT_TIMEOUT_DEFAULT, at, "receipt_timeout"),
        on_no_subscriber: w.on_no_subscriber.or(OnNoSubscriber::Hold, at, "on_no_subscriber"),
        ca: w.ca,
        cert: w.cert,
        key: w.key,
        credential: w.credential,
        proxy: w.proxy,
        proxy_credential: w.proxy_credential,
        place: w.place,
    }
}

pub(super) fn feed(w: written::Feed, f: &mut FaultList) -> Feed {
    let at = &w.place;
    Feed {
        id: w.id.required(f, at, "id", "name the feed, like \"or-usage\""),
        lane: w.lane.or(Lane::Normal, at, "lane"),
        stage: w.stage.or(Stage::Test, at, "stage"),
        forward: w.forward.or(Forward::Event, at, "forward"),
        phi: w.phi.or(Phi::Forbidden, at, "phi"),
        profile: w.profile,
        timezone: w.timezone,
        charset: w.charset,
        charset_force: w.charset_force.or(false, at, "charset_force"),
        about: w.about,
        mllp: w.mllp.map(|m| mllp(m, f)),
        directory: w.directory.map(|d| directory::merge(d, f)),
        http: w.http.map(|h| http::merge(h, f)),
        expect: w.expect.map(expect::merge),
        place: w.place,
    }
}

fn mllp(w: written::Mllp, f: &mut FaultList) -> Mllp {
    let at = &w.place;
    Mllp {
        listen: w.listen.required(f, at, "listen", "give address and port, like \"0.0.0.0:2575\""),
        on_store_failure: w.on_store_failure.or(OnStoreFailure::Close, at, "on_store_failure"),
        allow_missing_control_id: w.allow_missing_control_id.or(false, at, "allow_missing_control_id"),
        connections_max: w.connections_max.or(limits::CONNECTIONS_PER_FEED_DEFAULT as u64, at, "connections_max"),
        frame_timeout: w.frame_timeout.or(limits::FRAME_TIMEOUT, at, "frame_timeout"),
        idle_timeout: w.idle_timeout,
        on_invalid: w.on_invalid.or(OnInvalid::Nak, at, "on_invalid"),
        app_ack: w.app_ack.or(AppAck::None, at, "app_ack"),
        batch_ack: w.batch_ack.or(BatchAck::Batch, at, "batch_ack"),
        strict: w.strict,
        peers: w.peers,
        unframed: w.unframed.or(false, at, "unframed"),
        tls: w.tls.map(|tls| mllp_tls(tls, f)),
    }
}

pub(super) fn mllp_tls(w: written::MllpTls, f: &mut FaultList) -> MllpTls {
    let at = &w.place;
    if w.key.is_absent() && w.credential.is_absent() {
        f.add(&at.missing("key"), "is missing; give the file of this listener's private key (or credential = \"mllp-key\")");
    }
    MllpTls {
        cert: w.cert.required(f, at, "cert", "give the file of this listener's certificate, with its chain"),
        key: w.key,
        credential: w.credential,
        client_ca: w.client_ca,
        client_subjects: w.client_subjects,
    }
}
