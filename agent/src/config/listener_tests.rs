//! What users read when `peers` or `[feed.mllp.tls]` is wrong, asserted word for word.

use std::path::Path;

use super::settings::{ClientSubject, MllpSettings, SourceSettings, TlsKeySource};
use super::*;

const GOOD: &str = r#"[gateway]
site = "s"
id = "g"
timezone = "UTC"
[uplink]
endpoints = ["mqtt://127.0.0.1"]
allow_plaintext = true
[[feed]]
id = "or-usage"
forward = "raw"
phi = "allowed"
[feed.mllp]
listen = "0.0.0.0:2575"
peers = ["10.1.2.0/24", "::ffff:192.168.5.7"]
unframed = true
[feed.mllp.tls]
cert = "listener.pem"
key = "listener.key"
client_ca = "senders.pem"
client_subjects = ["CN=Epic Bridges", "Pump7.St-Marys.example"]
"#;

fn mllp(text: &str) -> MllpSettings {
    let mut settings = parse_text(Path::new("/etc/siteward/siteward.toml"), text).unwrap_or_else(|faults| panic!("{faults}"));
    let SourceSettings::Mllp(mllp) = settings.feeds.remove(0).source else { panic!("an MLLP feed") };
    mllp
}

#[test]
fn who_may_connect_can_be_said() {
    let settings = mllp(GOOD);
    assert_eq!(settings.peers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.2.0/24", "192.168.5.7/32"]);
    assert!(settings.unframed);
    let tls = settings.tls.unwrap();
    assert_eq!(tls.cert, Path::new("/etc/siteward/listener.pem"));
    assert_eq!(tls.key, TlsKeySource::File("/etc/siteward/listener.key".into()));
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("/etc/siteward/senders.pem")));
    let subjects = [ClientSubject::CommonName("Epic Bridges".into()), ClientSubject::DnsName("pump7.st-marys.example".into())];
    assert_eq!(tls.client_subjects, subjects);
    let credential = mllp(&GOOD.replace("key = \"listener.key\"", "credential = \"mllp-key\""));
    assert_eq!(credential.tls.unwrap().key, TlsKeySource::Credential("mllp-key".into()));
    let plain = mllp(GOOD.split("peers").next().unwrap());
    assert!(plain.peers.is_empty() && !plain.unframed && plain.tls.is_none());
}

/// What is replaced in the good configuration, by what, and what is told then.
const FAULTS: &[(&str, &str, &str)] = &[
    (
        "\"10.1.2.0/24\"",
        "\"10.1.2.0/24\", \"10.1.2.7/24\"",
        "14: feed[0].mllp.peers: entry 2 has bits behind its prefix; write the network's first address, or leave out the / for one machine",
    ),
    (
        "\"10.1.2.0/24\"",
        "\"epic.example\"",
        "14: feed[0].mllp.peers: entry 1 is not an address or network; write them like \"10.1.2.0/24\", \"192.168.5.7\" or \"2001:db8::/32\"",
    ),
    (
        "\"10.1.2.0/24\"",
        "\"10.1.2.0/33\"",
        "14: feed[0].mllp.peers: entry 1 has a prefix length out of range: at most 32 for IPv4, 128 for IPv6",
    ),
    (
        "[\"10.1.2.0/24\", \"::ffff:192.168.5.7\"]",
        "\"10.1.2.0/24\"",
        "14: feed[0].mllp.peers: must be a list of texts in brackets, is text",
    ),
    (
        "unframed = true",
        "unframed = true\nframe_timeout = \"1s\"",
        "16: feed[0].mllp.frame_timeout: is too short where unframed = true, which ends messages by a second of silence; give at least \"2s\"",
    ),
    (
        "cert = \"listener.pem\"\n",
        "",
        "16: feed[0].mllp.tls.cert: is missing; give the file of this listener's certificate, with its chain",
    ),
    (
        "key = \"listener.key\"\n",
        "",
        "16: feed[0].mllp.tls.key: is missing; give the file of this listener's private key (or credential = \"mllp-key\")",
    ),
    (
        "key = \"listener.key\"",
        "key = \"listener.key\"\ncredential = \"mllp-key\"",
        "19: feed[0].mllp.tls.credential: stands beside key; keep one of the two",
    ),
    (
        "client_ca = \"senders.pem\"\n",
        "",
        "19: feed[0].mllp.tls.client_subjects: stands without client_ca; add the file of the authority that issues the senders' certificates",
    ),
    (
        "[\"CN=Epic Bridges\", \"Pump7.St-Marys.example\"]",
        "[]",
        "20: feed[0].mllp.tls.client_subjects: must list 1 to 256 subjects; leave it out to take every certificate of client_ca",
    ),
    ("CN=Epic Bridges", "CN=", "20: feed[0].mllp.tls.client_subjects: entry 1 has no usable name behind CN="),
    (
        "CN=Epic Bridges",
        "CN=Epic,O=St Mary",
        "20: feed[0].mllp.tls.client_subjects: entry 1 holds more than a common name; give \"CN=…\" alone, without the rest of the subject",
    ),
    ("Pump7.St-Marys", "*.St-Marys", "20: feed[0].mllp.tls.client_subjects: entry 2 holds a wildcard; names are compared whole, list each"),
    (
        "Pump7.St-Marys",
        "O=Pump",
        "20: feed[0].mllp.tls.client_subjects: entry 2 is neither \"CN=…\" (the common name alone, not the whole subject) nor a DNS name",
    ),
    ("client_ca =", "clientca =", "19: feed[0].mllp.tls.clientca: unknown key; did you mean \"client_ca\"?"),
];

#[test]
fn faults_say_where_and_what_to_do() {
    for (old, new, expected) in FAULTS {
        assert!(GOOD.contains(old), "{old}");
        let told = parse_text(Path::new("siteward.toml"), &GOOD.replacen(old, new, 1)).expect_err("faulty").to_string();
        let first = told.lines().next().unwrap_or_default();
        assert!(told.lines().any(|line| line == format!("siteward.toml:{expected}")), "expected {expected}\n   told {first}");
    }
}

#[test]
fn files_of_a_listener_are_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("siteward.toml");
    std::fs::write(&file, GOOD.replace("[gateway]", "[spool]\nkey = \"auto\"\n[gateway]")).unwrap();
    let told = || load(&file).err().map(|faults| faults.list.iter().map(|f| format!("{}: {}", f.path, f.text)).collect::<Vec<_>>());
    let gone = "names a file that cannot be read: No such file or directory (os error 2); check path and owner";
    let expected = ["cert", "key", "client_ca"].map(|key| format!("feed[0].mllp.tls.{key}: {gone}"));
    assert_eq!(told().unwrap(), expected);
    let made = rcgen::generate_simple_self_signed(["siteward.test".to_owned()]).unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    let write = |name: &str, text: String| {
        std::fs::write(directory.path().join(name), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(directory.path().join(name), mode).unwrap();
    };
    write("listener.pem", made.cert.pem());
    write("senders.pem", made.cert.pem());
    write("listener.key", other.serialize_pem());
    let expected = "feed[0].mllp.tls.key: is not the key of the certificate in feed[0].mllp.tls.cert; give the pair that was made together";
    assert_eq!(told().unwrap(), [expected]);
    write("listener.key", made.signing_key.serialize_pem());
    assert_eq!(told(), None);
}
