//! Third stage: merged values become [`Settings`], or faults. Pure: touches no file, no socket, no environment.
//!
//! Every check runs, whatever failed before it; a function gives `None` when something it needs is faulty, and then its fault has been told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::about;
use super::alerts;
use super::answers;
use super::directory;
use super::endpoint;
use super::expect;
use super::fault::{FaultList, Place};
use super::header;
use super::http;
use super::listener;
use super::merged::{Feed, Gateway, Merged, Mllp, Spool, Trust, Uplink};
use super::reader::{At, Field, nearest};
use super::settings::{
    Endpoint, FeedSettings, GatewaySettings, KeySource, MllpSettings, Proxy, Settings, SourceSettings, SpoolSettings, TlsKeySource,
    TrustSettings, UplinkSettings,
};
use super::status;
use super::written::{Forward, Phi};
use crate::limits;
use crate::record::{FeedId, Name, Stage};
use crate::rollout::command::{Allowed, VerbName};

/// `Some` only without faults. `base`: relative paths are taken from here.
pub(super) fn validate(merged: &Merged, base: &Path, f: &mut FaultList) -> Option<Settings> {
    let gateway = gateway(&merged.gateway, &merged.spool, base, f);
    let spool = spool(&merged.spool, base, f);
    let uplink = uplink(&merged.uplink, base, f);
    let trust = trust(&merged.trust, base, f);
    let alerts = alerts::validate(&merged.alerts, f);
    let zone = merged.gateway.timezone.as_ref().map(|at| at.value.as_str());
    let feeds = feeds(&merged.feeds, zone, base, f);
    let socket = gateway.as_ref().map(|gateway| gateway.control_socket.as_path());
    let status = status::validate(&merged.status, socket, feeds.as_deref().unwrap_or_default(), base, f);
    if !f.is_empty() {
        return None;
    }
    Some(Settings {
        gateway: gateway?,
        spool: spool?,
        uplink: uplink?,
        trust: trust?,
        status: status?,
        alerts: alerts?,
        renew: None,
        moved: None,
        feeds: feeds?,
    })
}

fn gateway(m: &Gateway, spool: &Spool, base: &Path, f: &mut FaultList) -> Option<GatewaySettings> {
    let site = name(m.site.as_ref(), f);
    let id = name(m.id.as_ref(), f);
    let timezone = m.timezone.as_ref().and_then(|at| timezone(at, f));
    let control_socket = control_socket(m, spool, base, f);
    let access_directory = access_directory(m, base, f);
    let groups = match &m.groups {
        Field::Given(at) => header::groups(at, f),
        Field::Bad => None,
        Field::Absent => Some(Vec::new()),
    };
    let clock_synchronised_file = m.clock_synchronised_file.as_ref().map(|at| base.join(&at.value));
    Some(GatewaySettings {
        site: site?,
        id: id?,
        groups: groups?,
        timezone: timezone?,
        control_socket: control_socket?,
        access_directory: access_directory?,
        clock_synchronised_file: clock_synchronised_file?,
    })
}

fn trust(m: &Trust, base: &Path, f: &mut FaultList) -> Option<TrustSettings> {
    let keys = quorum(&m.keys, m.threshold.as_ref(), base, f);
    let recovery = quorum(&m.recovery_keys, m.recovery_threshold.as_ref(), base, f);
    let command = quorum(&m.command_keys, m.command_threshold.as_ref(), base, f);
    let commands = commands(&m.commands, f);
    let ((keys, threshold), (recovery_keys, recovery_threshold)) = (keys?, recovery?);
    let (command_keys, command_threshold) = command?;
    Some(TrustSettings {
        keys,
        inline_keys: Vec::new(),
        threshold,
        recovery_keys,
        recovery_threshold,
        commands: commands?,
        command_keys,
        command_threshold,
    })
}

/// The commands this gateway takes.
fn commands(m: &Field<Vec<String>>, f: &mut FaultList) -> Option<Allowed> {
    let at = match m {
        Field::Given(at) => at,
        Field::Bad => return None,
        Field::Absent => return Some(Allowed::default()),
    };
    match Allowed::of(at.value.iter().map(String::as_str)) {
        Ok(allowed) => Some(allowed),
        Err(index) => f.refuse(&at.place, format!("entry {} is no command; known are {}", index + 1, VerbName::list())),
    }
}

/// Keys and how many of them it takes.
fn quorum(keys: &Field<Vec<String>>, threshold: Option<&At<u64>>, base: &Path, f: &mut FaultList) -> Option<(Vec<PathBuf>, usize)> {
    let threshold = threshold?;
    let at = match keys {
        Field::Given(at) => at,
        Field::Bad => return None,
        Field::Absent if threshold.value == 1 => return Some((Vec::new(), 1)),
        Field::Absent => return f.refuse(&threshold.place, "stands without the keys it counts; list them, or remove it"),
    };
    if at.value.is_empty() || at.value.len() > limits::TRUST_KEYS_MAX {
        return f.refuse(&at.place, format!("must list 1 to {} files of public keys (PEM)", limits::TRUST_KEYS_MAX));
    }
    let files: Vec<PathBuf> = at.value.iter().map(|file| base.join(file)).collect();
    if files.iter().enumerate().any(|(index, file)| files[..index].contains(file)) {
        return f.refuse(&at.place, "lists a file twice; remove one");
    }
    let threshold = ranged(Some(threshold), 1..=files.len() as u64, "1 to the number of keys listed", f)?;
    Some((files, threshold as usize))
}

/// Where the running agent listens for members of its groups.
pub(super) fn access_directory(m: &Gateway, base: &Path, f: &mut FaultList) -> Option<PathBuf> {
    let at = match &m.access_directory {
        Field::Given(at) => at,
        Field::Bad => return None,
        Field::Absent => return Some(PathBuf::from(super::DEFAULT_ACCESS)),
    };
    let directory = base.join(&at.value);
    let bytes = directory.as_os_str().len() + 1 + crate::status::access::Group::Operate.socket().len();
    if bytes > limits::SOCKET_PATH_BYTES_MAX {
        let max = limits::SOCKET_PATH_BYTES_MAX;
        return f.refuse(&at.place, format!("makes socket paths of {bytes} bytes, the system takes {max}; give a shorter one"));
    }
    Some(directory)
}

/// Where the running agent listens for `status`.
pub(super) fn control_socket(m: &Gateway, spool: &Spool, base: &Path, f: &mut FaultList) -> Option<PathBuf> {
    let (socket, place) = match &m.control_socket {
        Field::Given(at) => (base.join(&at.value), &at.place),
        Field::Bad => return None,
        Field::Absent => {
            let path = spool.path.as_ref()?;
            (base.join(&path.value).join("control.sock"), &path.place)
        }
    };
    let bytes = socket.as_os_str().len();
    if bytes > limits::SOCKET_PATH_BYTES_MAX {
        let max = limits::SOCKET_PATH_BYTES_MAX;
        return f.refuse(
            place,
            format!("makes a control socket path of {bytes} bytes, the system takes {max}; set gateway.control_socket to a shorter one"),
        );
    }
    Some(socket)
}

fn spool(m: &Spool, base: &Path, f: &mut FaultList) -> Option<SpoolSettings> {
    let path = m.path.as_ref().map(|at| base.join(&at.value));
    let key = m.key.as_ref().and_then(|at| key_source(&at.value, base).map_err(|why| f.add(&at.place, why)).ok());
    let (least, most) = limits::MESSAGE_BYTES_MAX_RANGE;
    let message_bytes_max = ranged(m.message_bytes_max.as_ref(), least..=most, "64KiB to 64MiB", f);
    if let Some(at) = m.max_bytes.given() {
        if at.value < limits::SPOOL_BYTES_MIN {
            f.add(&at.place, "is too small; give at least \"16MiB\", better enough for days without the hub");
        } else if message_bytes_max.is_some_and(|largest| at.value < largest) {
            f.add(&at.place, "is smaller than spool.message_bytes_max, so the largest message could never be stored; raise it");
        }
    }
    let max_bytes = m.max_bytes.given().map(|at| at.value);
    Some(SpoolSettings { path: path?, max_bytes, key: key?, message_bytes_max: message_bytes_max? })
}

/// Reads `spool.key`; the text itself is never repeated.
pub(super) fn key_source(text: &str, base: &Path) -> Result<KeySource, &'static str> {
    match text.split_once(':') {
        _ if text == "auto" => Ok(KeySource::Auto),
        Some(("credential", name)) if credential_name(name) => Ok(KeySource::Credential(name.to_owned())),
        Some(("credential", _)) => Err("has no usable credential name after credential: (letters, digits, - _ .)"),
        _ if text.contains('/') => Ok(KeySource::File(base.join(text))),
        _ => Err("must be \"auto\", \"credential:NAME\" or the path of a file, with a / in it"),
    }
}

pub(crate) fn credential_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.bytes().all(plain)
}

fn uplink(m: &Uplink, base: &Path, f: &mut FaultList) -> Option<UplinkSettings> {
    let endpoints = endpoints(m, f);
    if endpoints.as_ref().is_some_and(|list| list.iter().any(|e| e.tls)) {
        let missing = |key: &str, what: &str, f: &mut FaultList| {
            f.add(&m.place.missing(key), format!("is missing; an mqtts:// endpoint needs {what}"));
        };
        if m.ca.is_absent() {
            missing("ca", "the file of certificates that the broker's is checked against", f);
        }
        if m.cert.is_absent() {
            missing("cert", "the file of the gateway's certificate", f);
        }
        if m.key.is_absent() && m.credential.is_absent() {
            missing("key", "the file of the gateway's private key (or credential = \"uplink-key\")", f);
        }
    }
    let key = tls_key((&m.key, &m.credential), "uplink.key", base, f);
    let proxy = proxy(m, f);
    let (least, most) = limits::IN_FLIGHT_RANGE;
    let in_flight = ranged(m.in_flight.as_ref(), least as u64..=most as u64, "1 to 1000", f);
    let receipt_timeout = ranged(m.receipt_timeout.as_ref(), within(limits::RECEIPT_TIMEOUT_RANGE), "\"1s\" to \"1h\"", f);
    Some(UplinkSettings {
        endpoints: endpoints?,
        ca: m.ca.given().map(|at| base.join(&at.value)),
        cert: m.cert.given().map(|at| base.join(&at.value)),
        key,
        proxy: proxy?,
        in_flight: in_flight? as usize,
        confirm: m.confirm.as_ref()?.value,
        receipt_timeout: receipt_timeout?,
        on_no_subscriber: m.on_no_subscriber.as_ref()?.value,
    })
}

/// `Some(None)`: there is none.
#[allow(clippy::option_option)] // faulty, absent, given
fn proxy(m: &Uplink, f: &mut FaultList) -> Option<Option<Proxy>> {
    let credential = match &m.proxy_credential {
        Field::Given(at) if m.proxy.is_absent() => return f.refuse(&at.place, "stands without proxy; add it, or remove this"),
        Field::Given(at) if !credential_name(&at.value) => {
            return f.refuse(&at.place, "is not the name of a secret; use letters, digits, - _ .");
        }
        Field::Given(at) => Some(at.value.as_str().into()),
        Field::Bad => return None,
        Field::Absent => None,
    };
    match &m.proxy {
        Field::Given(at) => match endpoint::proxy(&at.value) {
            Ok((host, port)) => Some(Some(Proxy { host, port, credential })),
            Err(why) => f.refuse(&at.place, why),
        },
        Field::Bad => None,
        Field::Absent => Some(None),
    }
}

/// `beside`: what the key's file is called in the fault about both being there.
pub(super) fn tls_key(
    (key, credential): (&Field<PathBuf>, &Field<String>),
    beside: &str,
    base: &Path,
    f: &mut FaultList,
) -> Option<TlsKeySource> {
    match (key.given(), credential.given()) {
        (Some(_), Some(credential)) => f.refuse(&credential.place, format!("stands beside {beside}; keep one of the two")),
        (Some(key), None) => Some(TlsKeySource::File(base.join(&key.value))),
        (None, Some(at)) if credential_name(&at.value) => Some(TlsKeySource::Credential(at.value.as_str().into())),
        (None, Some(at)) => f.refuse(&at.place, "is not a credential name; use letters, digits, - _ ."),
        (None, None) => None,
    }
}

fn endpoints(m: &Uplink, f: &mut FaultList) -> Option<Vec<Endpoint>> {
    let written = m.endpoints.as_ref()?;
    let place = &written.place;
    if written.value.is_empty() || written.value.len() > limits::ENDPOINTS_MAX {
        return f.refuse(place, format!("must list 1 to {} endpoints", limits::ENDPOINTS_MAX));
    }
    let mut endpoints = Vec::new();
    let mut faulty = false;
    for (index, url) in written.value.iter().enumerate() {
        let why = match endpoint::parse(url) {
            Ok(endpoint) if endpoints.contains(&endpoint) => "is listed twice; remove one",
            Ok(endpoint) => {
                let refused = !endpoint.tls && m.allow_plaintext.as_ref().is_some_and(|at| !at.value);
                endpoints.push(endpoint);
                if !refused {
                    continue;
                }
                "has no TLS; use mqtts://, or set uplink.allow_plaintext = true if every wire to it is trusted"
            }
            Err(why) => why,
        };
        faulty = true;
        f.add(place, format!("entry {} {why}", index + 1));
    }
    (!faulty).then_some(endpoints)
}

pub(super) fn feeds(written: &[Feed], zone: Option<&str>, base: &Path, f: &mut FaultList) -> Option<Vec<FeedSettings>> {
    if let Some(extra) = written.get(limits::FEEDS_MAX) {
        f.add(&extra.place, format!("is one feed too many; a gateway has at most {}", limits::FEEDS_MAX));
    }
    let mut seen: BTreeMap<FeedId, &Place> = BTreeMap::new();
    let mut listening: Vec<(SocketAddr, &Place, bool)> = Vec::new();
    let mut watched: Vec<(PathBuf, &Place)> = Vec::new();
    let mut ports = http::Ports::default();
    let mut feeds = Vec::new();
    for m in written {
        let settings = feed(m, zone, base, f);
        if let Some((id, at)) = m.id.as_ref().and_then(|at| Some((Name::new(&at.value).ok()?, at))) {
            if let Some(first) = seen.get(&id) {
                f.add(&at.place, format!("is the id of another feed ({}); give each feed its own", first.path));
            } else {
                seen.insert(id, &at.place);
            }
        }
        let is_http = m.http.is_some();
        if let Some((address, place)) = listen(m) {
            // HTTP feeds may share a port; whether these may is looked at with the ports.
            let shared = |other: SocketAddr, other_is_http: bool| is_http && other_is_http && other == address;
            if let Some((_, first, _)) = listening.iter().find(|(other, _, http)| collide(*other, address) && !shared(*other, *http)) {
                f.add(place, format!("is an address another feed listens on ({}); give each feed its own port", first.path));
            }
            listening.push((address, place, is_http));
        }
        if let Some(FeedSettings { source: SourceSettings::Directory(directory), .. }) = &settings {
            if let Some((_, first)) = watched.iter().find(|(other, _)| *other == directory.path) {
                let text =
                    format!("watches a directory that another feed watches ({}); both would move its files: give each its own", first.path);
                f.add(&m.place, text);
            }
            watched.push((directory.path.clone(), &m.place));
        }
        if let Some(FeedSettings { source: SourceSettings::Http(http), .. }) = &settings {
            ports.join(http, &m.place, f);
        }
        feeds.push(settings);
    }
    feeds.into_iter().collect()
}

/// Where a feed listens.
pub(super) fn listen(m: &Feed) -> Option<(SocketAddr, &Place)> {
    let at = m.mllp.as_ref().and_then(|mllp| mllp.listen.as_ref()).or(m.http.as_ref().and_then(http::Merged::listen))?;
    Some((at.value.parse().ok()?, &at.place))
}

/// Whether two listeners cannot both have their address: same port, and same or catch-all IP.
pub(crate) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// `zone`: the gateway's.
fn feed(m: &Feed, zone: Option<&str>, base: &Path, f: &mut FaultList) -> Option<FeedSettings> {
    let id = name(m.id.as_ref(), f);
    if let Some(at) = m.forward.as_ref().filter(|at| at.value != Forward::Raw) {
        f.add(&at.place, "must be \"raw\" in this version: \"event\" (the default) and \"both\" need profiles, which do not exist yet");
    }
    let raw = m.forward.as_ref().is_some_and(|at| at.value == Forward::Raw);
    if let Some(at) = m.phi.as_ref().filter(|at| raw && at.value != Phi::Allowed) {
        f.add(&at.place, "must be \"allowed\" where forward = \"raw\": messages then leave as received, with the patient data in them");
    }
    if let Some(at) = m.profile.given() {
        f.add(&at.place, "is not supported by this version; remove it");
    }
    if let Some(at) = m.timezone.given() {
        timezone(at, f);
    }
    let charset = answers::charset(m, f);
    let source = source(m, base, f);
    let zone = if m.timezone.is_absent() { zone } else { m.timezone.given().map(|at| at.value.as_str()) };
    let expect = m.expect.as_ref().map(|expect| expect::validate(expect, zone, base, f));
    let (lane, stage) = (m.lane.as_ref()?.value, m.stage.as_ref()?.value);
    let about = about::validate(&m.about, f);
    Some(FeedSettings { id: id?, lane, stage, charset: charset?, about, source: source?, expect: expect::flat(expect)? })
}

/// The one source of a feed.
fn source(m: &Feed, base: &Path, f: &mut FaultList) -> Option<SourceSettings> {
    let stage = m.stage.as_ref().map(|at| at.value);
    match [m.mllp.is_some(), m.directory.is_some(), m.http.is_some()].into_iter().filter(|is_there| *is_there).count() {
        1 => {}
        0 => f.add(
            &m.place,
            "has no source; add [feed.mllp] with listen = \"0.0.0.0:2575\", [feed.directory] with path and split, or [feed.http] with listen",
        ),
        _ => f.add(&m.place, "has more than one source; make it as many feeds"),
    }
    let mllp = m.mllp.as_ref().and_then(|mllp| self::mllp(mllp, stage, base, f)).map(SourceSettings::Mllp);
    let directory = m.directory.as_ref().and_then(|directory| directory::validate(directory, stage, f));
    let http = m.http.as_ref().and_then(|http| http::validate(http, stage, base, f));
    let directory = directory.map(|directory| SourceSettings::Directory(Box::new(directory)));
    mllp.or(directory).or(http.map(|http| SourceSettings::Http(Box::new(http))))
}

fn mllp(m: &Mllp, stage: Option<Stage>, base: &Path, f: &mut FaultList) -> Option<MllpSettings> {
    let listen = m.listen.as_ref().and_then(|at| match at.value.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => f.refuse(&at.place, "has port 0; give the port that senders connect to"),
        Ok(address) => Some(address),
        Err(_) => f.refuse(&at.place, "is not an address and port; write IP:PORT, like \"0.0.0.0:2575\" or \"[::]:2575\""),
    });
    let (least, most) = limits::CONNECTIONS_PER_FEED_RANGE;
    let connections = ranged(m.connections_max.as_ref(), least as u64..=most as u64, "1 to 4096", f);
    let frame_timeout = ranged(m.frame_timeout.as_ref(), within(limits::FRAME_TIMEOUT_RANGE), "\"1s\" to \"10m\"", f);
    if let Some(at) = m.idle_timeout.given() {
        ranged(Some(at), within(limits::IDLE_TIMEOUT_RANGE), "\"1s\" to \"7d\"; leave it out to never close", f);
    }
    if m.unframed.as_ref().is_some_and(|at| at.value)
        && let Some(at) = m.frame_timeout.as_ref().filter(|at| at.value < 2 * limits::UNFRAMED_SILENCE)
    {
        f.add(&at.place, "is too short where unframed = true, which ends messages by a second of silence; give at least \"2s\"");
    }
    let peers = listener::peers(m.peers.given(), f);
    let tls = listener::tls(m.tls.as_ref(), base, f);
    let answers = answers::answers(m, f);
    Some(MllpSettings {
        listen: listen?,
        on_store_failure: m.on_store_failure.as_ref()?.value,
        stage: stage?,
        on_invalid: m.on_invalid.as_ref()?.value,
        answers: answers?,
        connections_max: connections? as usize,
        frame_timeout: frame_timeout?,
        idle_timeout: m.idle_timeout.given().map(|at| at.value),
        peers: peers?,
        unframed: m.unframed.as_ref()?.value,
        tls: tls?,
    })
}

fn name(at: Option<&At<String>>, f: &mut FaultList) -> Option<Name> {
    let at = at?;
    Name::new(&at.value).map_err(|_| f.add(&at.place, "is not a name; use 1 to 63 of a-z, 0-9 and -")).ok()
}

/// The zone under its proper name.
fn timezone(at: &At<String>, f: &mut FaultList) -> Option<String> {
    let zones = jiff::tz::TimeZoneDatabase::bundled();
    if let Ok(zone) = zones.get(&at.value) {
        return Some(zone.iana_name().unwrap_or(&at.value).to_owned());
    }
    let names: Vec<String> = zones.available().map(|name| name.as_str().to_owned()).collect();
    let advice = match nearest(&at.value, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => "use a name of the IANA data, like \"America/New_York\"".to_owned(),
    };
    f.refuse(&at.place, format!("is not a known time zone; {advice}"))
}

pub(super) fn within((least, most): (Duration, Duration)) -> RangeInclusive<Duration> {
    least..=most
}

pub(super) fn ranged<T: PartialOrd + Copy>(at: Option<&At<T>>, range: RangeInclusive<T>, shown: &str, f: &mut FaultList) -> Option<T> {
    let at = at?;
    if range.contains(&at.value) { Some(at.value) } else { f.refuse(&at.place, format!("is out of range; give {shown}")) }
}
