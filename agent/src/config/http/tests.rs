//! An HTTP feed as written: what it becomes, and what is refused with which words.

use super::*;
use crate::config::settings::TlsKeySource;
use toml::de::DeTable;

fn read_with(lines: &str, f: &mut FaultList) -> Option<HttpSettings> {
    let document = DeTable::parse(lines).unwrap();
    let written = read(Section::root(document.get_ref()), f);
    let merged = merge(written, f);
    validate(&merged, Some(Stage::Live), Path::new("/etc/siteward"), f)
}

/// The settings, or the faults.
fn read_feed(lines: &str) -> Result<HttpSettings, String> {
    let mut f = FaultList::default();
    let settings = read_with(lines, &mut f);
    if f.is_empty() { Ok(settings.expect("without faults there are settings")) } else { Err(format!("{f:?}")) }
}

#[test]
fn the_shortest_feed_is_on_loopback_with_sound_defaults() {
    let feed = read_feed("listen = '127.0.0.1:8443'").unwrap();
    assert_eq!((feed.split, feed.accept.len(), feed.tokens_file, feed.peers.len()), (HttpSplit::Whole, 0, None, 0));
    assert_eq!((feed.connections_max, feed.body_bytes_max, feed.body_timeout), (128, 16 * limits::MIB, Duration::from_secs(60)));
    assert!(feed.tls.is_none() && feed.stage == Stage::Live);
}

#[test]
fn everything_that_is_written_is_used() {
    let feed = read_feed(
        "listen = '0.0.0.0:8443'\nsplit = 'fhir_bundle'\naccept = ['text/csv', 'Application/EDI-X12']\ntokens_file = 'lab.tokens'\n\
         peers = ['10.1.0.0/16']\nconnections_max = 9\nbody_bytes_max = '32MiB'\nbody_timeout = '5s'\n\
         [tls]\ncert = 'c.pem'\nkey = 'k.pem'\nclient_ca = 'ca.pem'\nclient_subjects = ['CN=lab']\n",
    )
    .unwrap();
    assert_eq!(feed.split, HttpSplit::FhirBundle);
    assert_eq!(feed.accept.iter().map(MediaType::essence).collect::<Vec<_>>(), ["text/csv", "application/edi-x12"]);
    assert_eq!(feed.tokens_file.as_deref(), Some(Path::new("/etc/siteward/lab.tokens")));
    assert_eq!((feed.peers.len(), feed.connections_max, feed.body_bytes_max), (1, 9, 32 * limits::MIB));
    assert_eq!(feed.body_timeout, Duration::from_secs(5));
    let tls = feed.tls.unwrap();
    assert_eq!(tls.key, TlsKeySource::File("/etc/siteward/k.pem".into()));
    assert_eq!(tls.client_subjects.len(), 1);
    assert_eq!(read_feed("listen = '[::1]:1'\nsplit = 'json_array'").unwrap().split, HttpSplit::JsonArray);
}

#[test]
fn what_cannot_be_is_refused_with_a_way_out() {
    let tls = "[tls]\ncert = 'c.pem'\nkey = 'k.pem'\n";
    for (lines, words) in [
        ("split = 'whole'", "give address and port"),
        ("listen = '127.0.0.1:0'", "port 0"),
        ("listen = 'localhost:80'", "IP:PORT"),
        ("listen = '0.0.0.0:80'", "whoever reaches 0.0.0.0:80"),
        ("listen = '10.0.0.1:80'\npeers = ['10.0.0.0/8']", "whoever reaches"),
        (&format!("listen = '0.0.0.0:80'\n{tls}"), "whoever reaches"),
        ("listen = '0.0.0.0:80'\ntokens_file = 't'", "readable"),
        ("listen = '127.0.0.1:1'\nsplit = 'csv'", "must be"),
        ("listen = '127.0.0.1:1'\naccept = []", "1 to 32"),
        ("listen = '127.0.0.1:1'\naccept = ['text/csv; header=present']", "without parameters"),
        ("listen = '127.0.0.1:1'\naccept = ['csv']", "not a media type"),
        ("listen = '127.0.0.1:1'\naccept = ['application/fhir+xml']", "XML"),
        ("listen = '127.0.0.1:1'\nconnections_max = 0", "1 to 4096"),
        ("listen = '127.0.0.1:1'\nbody_bytes_max = '1KiB'", "64KiB to 64MiB"),
        ("listen = '127.0.0.1:1'\nbody_timeout = '1h'", "1s"),
        ("listen = '127.0.0.1:1'\npeers = ['x']", "network"),
        ("listen = '127.0.0.1:1'\ntoken_file = 't'", "tokens_file"),
        ("listen = '127.0.0.1:1'\n[tls]\ncert = 'c'", "private key"),
    ] {
        let fault = read_feed(lines).unwrap_err();
        assert!(fault.contains(words), "{lines}: {fault}");
    }
    assert!(read_feed(&format!("listen = '0.0.0.0:80'\ntokens_file = 't'\n{tls}")).is_ok());
    assert!(read_feed(&format!("listen = '0.0.0.0:80'\n{tls}client_ca = 'ca.pem'")).is_ok());
}

#[test]
fn feeds_of_one_port_have_the_same_tls() {
    let plain = read_feed("listen = '127.0.0.1:8443'").unwrap();
    let other = read_feed("listen = '127.0.0.1:8444'").unwrap();
    let tls = read_feed("listen = '127.0.0.1:8443'\n[tls]\ncert = 'c.pem'\nkey = 'k.pem'").unwrap();
    let place = |path: &str| Place { offset: 0, path: path.to_owned() };
    let (mut ports, mut f) = (Ports::default(), FaultList::default());
    ports.join(&plain, &place("feed[0]"), &mut f);
    ports.join(&plain, &place("feed[1]"), &mut f);
    ports.join(&other, &place("feed[2]"), &mut f);
    assert!(f.is_empty());
    ports.join(&tls, &place("feed[3]"), &mut f);
    assert!(format!("{f:?}").contains("shares its port with feed[0]"));
}
