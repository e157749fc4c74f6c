//! First stage: the configuration as written. Every key optional, every value with its place; nothing judged but its type.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::about;
use super::alerts;
use super::directory;
use super::expect;
use super::fault::{FaultList, Place};
use super::http;
use super::reader::{Field, Section, choice, duration, flag, path, size, text, texts, whole};
use super::settings::{AppAck, BatchAck, Confirm, OnInvalid, OnNoSubscriber, OnStoreFailure};
use super::status;
use crate::record::{Lane, Stage};

#[derive(Debug)]
pub(super) struct Written {
    pub gateway: Gateway,
    pub spool: Spool,
    pub uplink: Uplink,
    pub trust: Trust,
    pub status: status::Written,
    pub alerts: alerts::Written,
    pub feeds: Vec<Feed>,
}

#[derive(Debug)]
pub(super) struct Gateway {
    pub place: Place,
    pub site: Field<String>,
    pub id: Field<String>,
    pub timezone: Field<String>,
    pub control_socket: Field<PathBuf>,
    pub access_directory: Field<PathBuf>,
    pub clock_synchronised_file: Field<PathBuf>,
    pub groups: Field<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Trust {
    pub place: Place,
    pub keys: Field<Vec<String>>,
    pub threshold: Field<u64>,
    pub recovery_keys: Field<Vec<String>>,
    pub recovery_threshold: Field<u64>,
    pub commands: Field<Vec<String>>,
    pub command_keys: Field<Vec<String>>,
    pub command_threshold: Field<u64>,
}

#[derive(Debug)]
pub(super) struct Spool {
    pub place: Place,
    pub path: Field<PathBuf>,
    pub max_bytes: Field<u64>,
    pub key: Field<String>,
    pub message_bytes_max: Field<u64>,
}

#[derive(Debug)]
pub(super) struct Uplink {
    pub place: Place,
    pub endpoints: Field<Vec<String>>,
    pub allow_plaintext: Field<bool>,
    pub ca: Field<PathBuf>,
    pub cert: Field<PathBuf>,
    pub key: Field<PathBuf>,
    pub credential: Field<String>,
    pub proxy: Field<String>,
    pub proxy_credential: Field<String>,
    pub in_flight: Field<u64>,
    pub confirm: Field<Confirm>,
    pub receipt_timeout: Field<Duration>,
    pub on_no_subscriber: Field<OnNoSubscriber>,
}

/// In which form a feed's messages leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forward {
    Event,
    Raw,
    Both,
}

/// Whether patient data may leave with a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phi {
    Forbidden,
    Allowed,
}

#[derive(Debug)]
pub(super) struct Feed {
    pub place: Place,
    pub id: Field<String>,
    pub lane: Field<Lane>,
    pub stage: Field<Stage>,
    pub forward: Field<Forward>,
    pub phi: Field<Phi>,
    pub profile: Field<String>,
    pub timezone: Field<String>,
    pub charset: Field<String>,
    pub charset_force: Field<bool>,
    pub about: about::Written,
    pub mllp: Option<Mllp>,
    pub directory: Option<directory::Written>,
    pub http: Option<http::Written>,
    pub expect: Option<expect::Written>,
}

#[derive(Debug)]
pub(super) struct Mllp {
    pub place: Place,
    pub listen: Field<String>,
    pub on_store_failure: Field<OnStoreFailure>,
    pub allow_missing_control_id: Field<bool>,
    pub connections_max: Field<u64>,
    pub frame_timeout: Field<Duration>,
    pub idle_timeout: Field<Duration>,
    pub peers: Field<Vec<String>>,
    pub unframed: Field<bool>,
    pub tls: Option<MllpTls>,
    pub on_invalid: Field<OnInvalid>,
    pub app_ack: Field<AppAck>,
    pub batch_ack: Field<BatchAck>,
    pub strict: Strict,
}

#[derive(Debug)]
pub(super) struct Strict {
    pub types: Field<Vec<String>>,
    pub versions: Field<Vec<String>>,
    pub processing_ids: Field<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct MllpTls {
    pub place: Place,
    pub cert: Field<PathBuf>,
    pub key: Field<PathBuf>,
    pub credential: Field<String>,
    pub client_ca: Field<PathBuf>,
    pub client_subjects: Field<Vec<String>>,
}

/// Reads the whole document; faults of type and unknown keys go to `faults`.
pub(super) fn read(document: &DeTable<'_>, faults: &mut FaultList) -> Written {
    let mut root = Section::root(document);
    let written = Written {
        gateway: gateway(root.section(faults, "gateway"), faults),
        spool: spool(root.section(faults, "spool"), faults),
        uplink: uplink(root.section(faults, "uplink"), faults),
        trust: trust(root.section(faults, "trust"), faults),
        status: status::read(root.section(faults, "status"), faults),
        alerts: alerts::read(root.section(faults, "alerts"), faults),
        feeds: root.sections(faults, "feed").into_iter().map(|section| feed(section, faults)).collect(),
    };
    root.finish(faults);
    written
}

fn gateway(mut s: Section<'_, '_>, f: &mut FaultList) -> Gateway {
    let gateway = Gateway {
        place: s.place.clone(),
        site: s.read(f, "site", text),
        id: s.read(f, "id", text),
        timezone: s.read(f, "timezone", text),
        control_socket: s.read(f, "control_socket", path),
        access_directory: s.read(f, "access_directory", path),
        clock_synchronised_file: s.read(f, "clock_synchronised_file", path),
        groups: s.read(f, "groups", texts),
    };
    s.finish(f);
    gateway
}

fn trust(mut s: Section<'_, '_>, f: &mut FaultList) -> Trust {
    let trust = Trust {
        place: s.place.clone(),
        keys: s.read(f, "keys", texts),
        threshold: s.read(f, "threshold", whole),
        recovery_keys: s.read(f, "recovery_keys", texts),
        recovery_threshold: s.read(f, "recovery_threshold", whole),
        commands: s.read(f, "commands", texts),
        command_keys: s.read(f, "command_keys", texts),
        command_threshold: s.read(f, "command_threshold", whole),
    };
    s.finish(f);
    trust
}

fn spool(mut s: Section<'_, '_>, f: &mut FaultList) -> Spool {
    let spool = Spool {
        place: s.place.clone(),
        path: s.read(f, "path", path),
        max_bytes: s.read(f, "max_bytes", size),
        key: s.read(f, "key", text),
        message_bytes_max: s.read(f, "message_bytes_max", size),
    };
    s.finish(f);
    spool
}

fn uplink(mut s: Section<'_, '_>, f: &mut FaultList) -> Uplink {
    let uplink = Uplink {
        place: s.place.clone(),
        endpoints: s.read(f, "endpoints", texts),
        allow_plaintext: s.read(f, "allow_plaintext", flag),
        ca: s.read(f, "ca", path),
        cert: s.read(f, "cert", path),
        key: s.read(f, "key", path),
        credential: s.read(f, "credential", text),
        proxy: s.read(f, "proxy", text),
        proxy_credential: s.read(f, "proxy_credential", text),
        in_flight: s.read(f, "in_flight", whole),
        confirm: s.read(f, "confirm", choice(&[("receipt", Confirm::Receipt), ("puback", Confirm::Puback)])),
        receipt_timeout: s.read(f, "receipt_timeout", duration),
        on_no_subscriber: s.read(f, "on_no_subscriber", choice(&[("hold", OnNoSubscriber::Hold), ("accept", OnNoSubscriber::Accept)])),
    };
    s.finish(f);
    uplink
}

pub(super) fn feed(mut s: Section<'_, '_>, f: &mut FaultList) -> Feed {
    let stages = Stage::ALL.map(|stage| (stage.as_str(), stage));
    let feed = Feed {
        place: s.place.clone(),
        id: s.read(f, "id", text),
        lane: s.read(f, "lane", choice(&Lane::ALL.map(|lane| (lane.as_str(), lane)))),
        stage: s.read(f, "stage", choice(&stages)),
        forward: s.read(f, "forward", choice(&[("event", Forward::Event), ("raw", Forward::Raw), ("both", Forward::Both)])),
        phi: s.read(f, "phi", choice(&[("forbidden", Phi::Forbidden), ("allowed", Phi::Allowed)])),
        profile: s.read(f, "profile", text),
        timezone: s.read(f, "timezone", text),
        charset: s.read(f, "charset", text),
        charset_force: s.read(f, "charset_force", flag),
        about: about::read(&mut s, f),
        mllp: s.has("mllp").is_some().then(|| s.section(f, "mllp")).map(|section| mllp(section, f)),
        directory: s.has("directory").is_some().then(|| s.section(f, "directory")).map(|section| directory::read(section, f)),
        http: s.has("http").is_some().then(|| s.section(f, "http")).map(|section| http::read(section, f)),
        expect: s.has("expect").is_some().then(|| s.section(f, "expect")).map(|section| expect::read(section, f)),
    };
    s.finish(f);
    feed
}

fn mllp(mut s: Section<'_, '_>, f: &mut FaultList) -> Mllp {
    let mllp = Mllp {
        place: s.place.clone(),
        listen: s.read(f, "listen", text),
        on_store_failure: s.read(f, "on_store_failure", choice(&[("close", OnStoreFailure::Close), ("nak", OnStoreFailure::Nak)])),
        allow_missing_control_id: s.read(f, "allow_missing_control_id", flag),
        connections_max: s.read(f, "connections_max", whole),
        frame_timeout: s.read(f, "frame_timeout", duration),
        idle_timeout: s.read(f, "idle_timeout", duration),
        on_invalid: s.read(f, "on_invalid", choice(&[("nak", OnInvalid::Nak), ("close", OnInvalid::Close)])),
        app_ack: s.read(f, "app_ack", choice(&APP_ACKS)),
        batch_ack: s.read(f, "batch_ack", choice(&[("batch", BatchAck::Batch), ("each", BatchAck::Each)])),
        strict: strict(s.section(f, "strict"), f),
        peers: s.read(f, "peers", texts),
        unframed: s.read(f, "unframed", flag),
        tls: s.has("tls").is_some().then(|| s.section(f, "tls")).map(|section| mllp_tls(section, f)),
    };
    s.finish(f);
    mllp
}

const APP_ACKS: [(&str, AppAck); 3] = [("none", AppAck::None), ("same_channel", AppAck::SameChannel), ("aa_only", AppAck::AaOnly)];

fn strict(mut s: Section<'_, '_>, f: &mut FaultList) -> Strict {
    let strict = Strict {
        types: s.read(f, "types", texts),
        versions: s.read(f, "versions", texts),
        processing_ids: s.read(f, "processing_ids", texts),
    };
    s.finish(f);
    strict
}

pub(super) fn mllp_tls(mut s: Section<'_, '_>, f: &mut FaultList) -> MllpTls {
    let tls = MllpTls {
        place: s.place.clone(),
        cert: s.read(f, "cert", path),
        key: s.read(f, "key", path),
        credential: s.read(f, "credential", text),
        client_ca: s.read(f, "client_ca", path),
        client_subjects: s.read(f, "client_subjects", texts),
    };
    s.finish(f);
    tls
}
