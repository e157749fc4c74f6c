//! What users read when a configuration is wrong, asserted word for word.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::settings::{
    AnswerSettings, AppAck, BatchAck, Confirm, KeySource, OnInvalid, OnNoSubscriber, OnStoreFailure, SourceSettings, StrictSettings,
    StrictType, TlsKeySource,
};
use super::*;
use crate::record::{Lane, Stage};
use crate::source::charset::{self, Charset};

const GOOD: &str = r#"[gateway]
site = "st-marys"
id = "st-marys-gw1"
timezone = "America/New_York"

[spool]
path = "/var/lib/siteward"

[uplink]
endpoints = ["mqtts://hub.example.org:8883"]
ca = "/etc/siteward/tls/ca.pem"
cert = "/etc/siteward/tls/gateway.pem"
key = "/etc/siteward/tls/gateway.key"

[[feed]]
id = "or-usage"
forward = "raw"
phi = "allowed"
[feed.mllp]
listen = "0.0.0.0:2575"
"#;

pub(super) fn faults(text: &str) -> String {
    parse_text(Path::new("siteward.toml"), text).expect_err("faulty").to_string()
}

/// The good configuration with `old` replaced.
pub(super) fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replacen(old, new, 1)
}

#[test]
fn a_minimal_configuration_gets_every_default() {
    let settings = parse_text(Path::new("/etc/siteward/siteward.toml"), GOOD).unwrap();
    assert_eq!(settings.gateway.site.as_str(), "st-marys");
    assert_eq!(settings.gateway.control_socket, Path::new("/var/lib/siteward/control.sock"));
    assert_eq!(settings.gateway.access_directory, Path::new("/run/siteward"));
    assert_eq!(settings.gateway.clock_synchronised_file, Path::new(crate::clock::SYNCHRONISED_FILE));
    assert_eq!((settings.spool.max_bytes, &settings.spool.key), (None, &KeySource::Auto));
    assert_eq!(settings.spool.message_bytes_max, limits::MESSAGE_BYTES_MAX_DEFAULT);
    let uplink = &settings.uplink;
    assert_eq!(uplink.endpoints[0].to_string(), "mqtts://hub.example.org:8883");
    assert_eq!(uplink.key, Some(TlsKeySource::File("/etc/siteward/tls/gateway.key".into())));
    assert_eq!((uplink.in_flight, uplink.confirm, uplink.on_no_subscriber), (100, Confirm::Receipt, OnNoSubscriber::Hold));
    assert_eq!(uplink.receipt_timeout, limits::RECEIPT_TIMEOUT_DEFAULT);
    let feed = &settings.feeds[0];
    assert_eq!((feed.lane, feed.stage), (Lane::Normal, Stage::Test));
    let SourceSettings::Mllp(mllp) = &feed.source else { panic!("another source") };
    assert_eq!((mllp.on_store_failure, mllp.on_invalid), (OnStoreFailure::Close, OnInvalid::Nak));
    assert_eq!((&mllp.answers, mllp.stage, feed.charset), (&AnswerSettings::default(), Stage::Test, charset::Rule::default()));
    assert_eq!((mllp.connections_max, mllp.frame_timeout, mllp.idle_timeout), (512, Duration::from_secs(30), None));
}

#[test]
fn every_key_can_be_set() {
    let text = r#"
        [gateway]
        site = "s"
        id = "g"
        timezone = "europe/berlin"
        control_socket = "run/control.sock"
        access_directory = "run/access"
        clock_synchronised_file = "/run/chrony/synchronised"
        [spool]
        path = "spool"
        max_bytes = "20GiB"
        key = "credential:spool-key"
        message_bytes_max = 1048576
        [uplink]
        endpoints = ["mqtt://[::1]:1884", "mqtt://127.0.0.1"]
        allow_plaintext = true
        credential = "uplink-key"
        in_flight = 7
        confirm = "puback"
        receipt_timeout = "2m"
        on_no_subscriber = "accept"
        [[feed]]
        id = "a"
        lane = "critical"
        stage = "live"
        forward = "raw"
        phi = "allowed"
        timezone = "UTC"
        mllp = { listen = "[::]:2575", on_store_failure = "nak", allow_missing_control_id = true, connections_max = 9, frame_timeout = "10s", idle_timeout = "1h", on_invalid = "close", app_ack = "aa_only", batch_ack = "each", strict = { types = ["ADT", "DFT^P03"], versions = ["2.3", "2.5.1"], processing_ids = ["P"] } }
        charset = "8859/1"
        charset_force = true
    "#;
    let settings = parse_text(Path::new("/etc/siteward/siteward.toml"), text).unwrap();
    assert_eq!(settings.gateway.timezone, "Europe/Berlin");
    assert_eq!(settings.gateway.control_socket, Path::new("/etc/siteward/run/control.sock"), "relative to the file");
    assert_eq!(settings.gateway.access_directory, Path::new("/etc/siteward/run/access"));
    assert_eq!(settings.gateway.clock_synchronised_file, Path::new("/run/chrony/synchronised"));
    assert_eq!(settings.spool.path, Path::new("/etc/siteward/spool"));
    assert_eq!(settings.spool.max_bytes, Some(20 * limits::GIB));
    assert_eq!(settings.spool.key, KeySource::Credential("spool-key".into()));
    assert_eq!(
        settings.uplink.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["mqtt://[::1]:1884", "mqtt://127.0.0.1:1883"]
    );
    assert_eq!(settings.uplink.key, Some(TlsKeySource::Credential("uplink-key".into())));
    assert_eq!((settings.uplink.in_flight, settings.uplink.confirm), (7, Confirm::Puback));
    let SourceSettings::Mllp(mllp) = &settings.feeds[0].source else { panic!("another source") };
    assert_eq!(
        (mllp.on_store_failure, mllp.on_invalid, mllp.stage, mllp.connections_max),
        (OnStoreFailure::Nak, OnInvalid::Close, Stage::Live, 9)
    );
    let types = vec![StrictType { code: "ADT".into(), trigger: None }, StrictType { code: "DFT".into(), trigger: Some("P03".into()) }];
    let strict = StrictSettings { types, versions: vec!["2.3".into(), "2.5.1".into()], processing_ids: vec!["P".into()] };
    let answers = AnswerSettings { allow_missing_control_id: true, app_ack: AppAck::AaOnly, batch_ack: BatchAck::Each, strict };
    assert_eq!(mllp.answers, answers);
    assert_eq!(settings.feeds[0].charset, charset::Rule { charset: Some(Charset::Latin1), force: true });
    assert_eq!(mllp.idle_timeout, Some(Duration::from_hours(1)));
}

/// What is replaced in the good configuration, by what, and what is told then.
const FAULTS: &[(&str, &str, &str)] = &[
    ("site = \"st-marys\"", "", "1: gateway.site: is missing; name the site, like \"st-marys\""),
    ("site = \"st-marys\"", "site = 3", "2: gateway.site: must be text in quotes, is a whole number"),
    ("site = \"st-marys\"", "site = \"St Mary\"", "2: gateway.site: is not a name; use 1 to 63 of a-z, 0-9 and -"),
    ("id = \"st-marys-gw1\"", "id = \"\"", "3: gateway.id: is empty"),
    (
        "timezone = \"America/New_York\"",
        "timezone = \"America/New_Yorc\"",
        "4: gateway.timezone: is not a known time zone; did you mean \"America/New_York\"?",
    ),
    (
        "timezone = \"America/New_York\"",
        "timezone = \"Mars\"",
        "4: gateway.timezone: is not a known time zone; use a name of the IANA data, like \"America/New_York\"",
    ),
    ("[spool]", "[spol]", "6: spol: unknown key; did you mean \"spool\"?"),
    (
        "path = \"/var",
        "max_bytes = \"20GB\"\npath = \"/var",
        "7: spool.max_bytes: is not a size; write bytes as a number, or text like \"512MiB\" or \"20GiB\"",
    ),
    (
        "path = \"/var",
        "max_bytes = 1\npath = \"/var",
        "7: spool.max_bytes: is too small; give at least \"16MiB\", better enough for days without the hub",
    ),
    (
        "path = \"/var",
        "max_bytes = \"17MiB\"\nmessage_bytes_max = \"18MiB\"\npath = \"/var",
        "7: spool.max_bytes: is smaller than spool.message_bytes_max, so the largest message could never be stored; raise it",
    ),
    ("path = \"/var", "message_bytes_max = \"1GiB\"\npath = \"/var", "7: spool.message_bytes_max: is out of range; give 64KiB to 64MiB"),
    (
        "path = \"/var",
        "key = \"automatic\"\npath = \"/var",
        "7: spool.key: must be \"auto\", \"credential:NAME\" or the path of a file, with a / in it",
    ),
    ("[\"mqtts://hub.example.org:8883\"]", "[]", "10: uplink.endpoints: must list 1 to 16 endpoints"),
    ("[\"mqtts://hub.example.org:8883\"]", "\"mqtts://hub\"", "10: uplink.endpoints: must be a list of texts in brackets, is text"),
    (
        "mqtts://hub.example.org:8883",
        "mqtt://hub.example.org",
        "10: uplink.endpoints: entry 1 has no TLS; use mqtts://, or set uplink.allow_plaintext = true if every wire to it is trusted",
    ),
    ("mqtts://hub.example.org:8883\"", "mqtts://hub\", \"mqtts://hub:8883\"", "10: uplink.endpoints: entry 2 is listed twice; remove one"),
    (
        "ca = \"/etc/siteward/tls/ca.pem\"\n",
        "",
        "9: uplink.ca: is missing; an mqtts:// endpoint needs the file of certificates that the broker's is checked against",
    ),
    (
        "key = \"/etc/siteward/tls/gateway.key\"\n",
        "",
        "9: uplink.key: is missing; an mqtts:// endpoint needs the file of the gateway's private key (or credential = \"uplink-key\")",
    ),
    ("key = \"/etc", "credential = \"k\"\nkey = \"/etc", "13: uplink.credential: stands beside uplink.key; keep one of the two"),
    ("ca = ", "in_flight = 0\nca = ", "11: uplink.in_flight: is out of range; give 1 to 1000"),
    ("ca = ", "in_flight = -1\nca = ", "11: uplink.in_flight: must be a whole number that is not negative"),
    ("ca = ", "confirm = \"yes\"\nca = ", "11: uplink.confirm: must be \"receipt\" or \"puback\""),
    ("ca = ", "receipt_timeout = 30\nca = ", "11: uplink.receipt_timeout: is not a duration; write text like \"30s\", \"5m\" or \"2h\""),
    ("ca = ", "receipt_timeout = \"2h\"\nca = ", "11: uplink.receipt_timeout: is out of range; give \"1s\" to \"1h\""),
    ("ca = ", "allow_plaintext = \"yes\"\nca = ", "11: uplink.allow_plaintext: must be true or false without quotes, is text"),
    ("ca = ", "in-flight = 5\nca = ", "11: uplink.in-flight: unknown key; did you mean \"in_flight\"?"),
    ("[[feed]]", "[feed]", "15: feed: must be written as [[feed]], once for each"),
    ("id = \"or-usage\"\n", "", "15: feed[0].id: is missing; name the feed, like \"or-usage\""),
    ("id = \"or-usage\"", "id = \"or-usage\"\nlane = \"fast\"", "17: feed[0].lane: must be \"critical\" or \"normal\" or \"bulk\""),
    ("id = \"or-usage\"", "id = \"or-usage\"\nlanes = \"bulk\"", "17: feed[0].lanes: unknown key; did you mean \"lane\"?"),
    ("id = \"or-usage\"", "id = \"or-usage\"\nprofile = \"p\"", "17: feed[0].profile: is not supported by this version; remove it"),
    (
        "forward = \"raw\"",
        "forward = \"event\"",
        "17: feed[0].forward: must be \"raw\" in this version: \"event\" (the default) and \"both\" need profiles, which do not exist yet",
    ),
    (
        "forward = \"raw\"\n",
        "",
        "15: feed[0].forward: must be \"raw\" in this version: \"event\" (the default) and \"both\" need profiles, which do not exist yet",
    ),
    (
        "phi = \"allowed\"\n",
        "",
        "15: feed[0].phi: must be \"allowed\" where forward = \"raw\": messages then leave as received, with the patient data in them",
    ),
    (
        "[feed.mllp]\nlisten = \"0.0.0.0:2575\"\n",
        "",
        "15: feed[0]: has no source; add [feed.mllp] with listen = \"0.0.0.0:2575\", [feed.directory] with path and split, or [feed.http] with listen",
    ),
    (
        "[feed.mllp]\nlisten = \"0.0.0.0:2575\"\n",
        "[feed.http]\n",
        "19: feed[0].http.listen: is missing; give address and port, like \"0.0.0.0:8443\"",
    ),
    ("listen = \"0.0.0.0:2575\"\n", "", "19: feed[0].mllp.listen: is missing; give address and port, like \"0.0.0.0:2575\""),
    (
        "\"0.0.0.0:2575\"",
        "\"2575\"",
        "20: feed[0].mllp.listen: is not an address and port; write IP:PORT, like \"0.0.0.0:2575\" or \"[::]:2575\"",
    ),
    ("\"0.0.0.0:2575\"", "\"0.0.0.0:0\"", "20: feed[0].mllp.listen: has port 0; give the port that senders connect to"),
    ("listen = \"", "connections_max = 0\nlisten = \"", "20: feed[0].mllp.connections_max: is out of range; give 1 to 4096"),
    ("listen = \"", "frame_timeout = \"1h\"\nlisten = \"", "20: feed[0].mllp.frame_timeout: is out of range; give \"1s\" to \"10m\""),
    (
        "listen = \"",
        "idle_timeout = \"1ms\"\nlisten = \"",
        "20: feed[0].mllp.idle_timeout: is out of range; give \"1s\" to \"7d\"; leave it out to never close",
    ),
    (
        "listen = \"",
        "port = 1\nlisten = \"",
        "20: feed[0].mllp.port: unknown key; known here: listen, on_store_failure, allow_missing_control_id, connections_max, frame_timeout, idle_timeout, on_invalid, app_ack, batch_ack, strict, peers, unframed, tls",
    ),
];

#[test]
fn each_fault_is_told_with_line_key_and_advice() {
    for (old, new, expected) in FAULTS {
        assert_eq!(faults(&with(old, new)), format!("siteward.toml:{expected}"), "{old:?} replaced by {new:?}");
    }
}

#[test]
fn all_faults_are_listed_at_once_in_file_order() {
    let text = r#"[gateway]
id = "UPPER"
[uplink]
endpoints = ["mqtt://hub"]
[[feed]]
id = "a"
forward = "raw"
phi = "allowed"
mllp.listen = "0.0.0.0:2575"
[[feed]]
id = "a"
forward = "raw"
phi = "allowed"
mllp.listen = "10.0.0.1:2575"
[[feed]]
id = "b"
extra = 1
"#;
    let expected = r#"siteward.toml:1: gateway.site: is missing; name the site, like "st-marys"
siteward.toml:1: gateway.timezone: is missing; name the zone of the site's clocks, like "America/New_York"
siteward.toml:2: gateway.id: is not a name; use 1 to 63 of a-z, 0-9 and -
siteward.toml:4: uplink.endpoints: entry 1 has no TLS; use mqtts://, or set uplink.allow_plaintext = true if every wire to it is trusted
siteward.toml:11: feed[1].id: is the id of another feed (feed[0].id); give each feed its own
siteward.toml:14: feed[1].mllp.listen: is an address another feed listens on (feed[0].mllp.listen); give each feed its own port
siteward.toml:15: feed[2].forward: must be "raw" in this version: "event" (the default) and "both" need profiles, which do not exist yet
siteward.toml:15: feed[2]: has no source; add [feed.mllp] with listen = "0.0.0.0:2575", [feed.directory] with path and split, or [feed.http] with listen
siteward.toml:17: feed[2].extra: unknown key; known here: id, lane, stage, forward, phi, profile, timezone, charset, charset_force, owner, criticality, delivery_objective, data_class, contract_version, sunset, mllp, directory, http, expect"#;
    assert_eq!(faults(text), expected);
}

#[test]
fn text_that_is_not_toml_is_told_with_its_line() {
    let listed = faults("[gateway]\nsite = \n[spool\nid = 'x'\nid = 'y'\n");
    for (line, expected) in
        listed.lines().zip(["siteward.toml:2: is not TOML: ", "siteward.toml:3: is not TOML: ", "siteward.toml:5: is not TOML: "])
    {
        assert!(line.starts_with(expected), "{listed}");
    }
    assert_eq!(faults("site = 1\nsite = 2\n"), "siteward.toml:2: is not TOML: duplicate key");
}

#[test]
fn a_file_that_cannot_be_read_is_told_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("siteward.toml");
    let shown = file.display();
    assert_eq!(
        load(&file).unwrap_err().to_string(),
        format!("{shown}: cannot be read: No such file or directory (os error 2); check the path and the rights of this user")
    );
    let folder = directory.path().display();
    assert_eq!(
        load(directory.path()).unwrap_err().to_string(),
        format!("{folder}: is a directory; give the path of the configuration file")
    );
    std::fs::write(&file, b"# ok\n\xff\n").unwrap();
    assert_eq!(load(&file).unwrap_err().to_string(), format!("{shown}:2: is not UTF-8 text; save the file as UTF-8"));
    std::fs::write(&file, vec![b'#'; limits::CONFIG_BYTES_MAX as usize + 1]).unwrap();
    assert_eq!(load(&file).unwrap_err().to_string(), format!("{shown}: is larger than 1 MiB; that is no configuration of siteward"));
}

#[test]
fn a_control_socket_whose_path_the_system_cannot_take_is_refused() {
    let long = "x".repeat(100);
    let told = faults(&with("/var/lib/siteward", &format!("/var/{long}")));
    let expected = "siteward.toml:7: spool.path: makes a control socket path of 118 bytes, the system takes 107; set gateway.control_socket to a shorter one";
    assert_eq!(told, expected);
    let moved = with("/var/lib/siteward", &format!("/var/{long}")).replace("[spool]", "control_socket = \"/run/s.sock\"\n[spool]");
    assert!(parse_text(Path::new("siteward.toml"), &moved).is_ok());
}

/// I7: what stands in a place for secrets, or in a wrong place, is never repeated.
#[test]
fn faults_never_repeat_values() {
    let canary = "CANARY-7f3a";
    let places = [
        with("mqtts://hub.example.org:8883", &format!("mqtts://user:{canary}@hub")),
        with("/etc/siteward/tls/gateway.key", &format!("-----BEGIN PRIVATE KEY-----\\n{canary}")),
        with("[spool]", &format!("[spool]\nkey = \"{canary}\"")),
        with("[spool]", &format!("[spool]\nkey = \"credential:{canary}/\"")),
        with("key = ", &format!("credential = \"{canary} x\"\n#")),
        with("key = ", &format!("in_flight = \"{canary}\"\nkey = ")),
        with("key = ", &format!("confirm = \"{canary}\"\nkey = ")),
        with("key = ", &format!("key = {canary}\n#")),
        with("key = ", &format!("key = \"{canary}\n#")),
        with("key = ", &format!("password = \"{canary}\"\nkey = ")),
        with("\"st-marys\"", &format!("\"{canary}\"")),
        with("\"America/New_York\"", &format!("\"{canary}\"")),
    ];
    for text in places {
        let told = faults(&text);
        assert!(!told.contains(canary), "{told}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("siteward.toml");
    std::fs::write(&file, with("/etc/siteward/tls/gateway.key", canary)).unwrap();
    assert!(!load(&file).unwrap_err().to_string().contains(canary));
}

#[test]
fn status_finds_the_socket_in_a_faulty_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("siteward.toml");
    std::fs::write(&file, "[gateway]\nid = \"WRONG\"\n[spool]\npath = \"/var/lib/siteward\"\nunknown = 1\n").unwrap();
    assert_eq!(control_socket(&file).unwrap(), Path::new("/var/lib/siteward/control.sock"));
    std::fs::write(&file, "[spool]\npath = 3\n").unwrap();
    assert!(control_socket(&file).unwrap_err().to_string().contains(":2: spool.path: must be text in quotes, is a whole number"));
}

const SHIPPED: &str = include_str!("../../../systemd/siteward.toml");

#[test]
fn shipped_configuration_is_valid() {
    let settings = parse_text(Path::new("/etc/siteward/siteward.toml"), SHIPPED).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(settings.feeds.is_empty(), "nothing listens before somebody decided so");
}

/// A line `#key = value` or `#[section]`, without a space after `#`, is an example: it must be valid too, and no key may be left out.
#[test]
fn shipped_configuration_shows_every_key() {
    let uncomment =
        |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#']) && !rest.is_empty()).unwrap_or(line).to_owned();
    let lines: Vec<String> = SHIPPED
        .lines()
        .map(uncomment)
        .filter(|line| !line.starts_with("credential =") && !line.starts_with("tokens_credential ="))
        .collect();
    let text = lines.join("\n");
    let settings = parse_text(Path::new("/etc/siteward/siteward.toml"), &text).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(!settings.feeds.is_empty());
    let keys = "site id timezone control_socket access_directory clock_synchronised_file path max_bytes key message_bytes_max endpoints allow_plaintext ca cert credential in_flight confirm \
                receipt_timeout on_no_subscriber lane stage forward phi listen on_store_failure allow_missing_control_id connections_max \
                frame_timeout idle_timeout charset charset_force on_invalid app_ack batch_ack types versions processing_ids \
                 peers unframed client_ca client_subjects \
                tokens_file tokens_credential split patterns subfolders order complete marker settle scan done retention_days retention_bytes require_mount name_in_events \
                delimiter quote header encoding widths record_len trimmed_ends level \
                every by from days holidays holidays_file between grace";
    for key in keys.split_whitespace() {
        let shown = SHIPPED.lines().any(|line| line.trim_start_matches('#').starts_with(&format!("{key} =")));
        assert!(shown, "{key} is not shown");
    }
}

mod referenced_files {
    use super::*;

    /// A certificate, its key, and a key that is not its own.
    fn pair() -> (String, String, String) {
        let made = rcgen::generate_simple_self_signed(["siteward.test".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem(), rcgen::KeyPair::generate().unwrap().serialize_pem())
    }

    /// What is told about files with this content; `None` is a file that is not there.
    fn told(ca: Option<&str>, cert: Option<&str>, key: Option<&str>, key_mode: u32) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in [("ca.pem", ca), ("gateway.pem", cert), ("gateway.key", key)] {
            if let Some(content) = content {
                std::fs::write(directory.path().join(name), content).unwrap();
            }
        }
        if key.is_some() {
            std::fs::set_permissions(directory.path().join("gateway.key"), std::fs::Permissions::from_mode(key_mode)).unwrap();
        }
        let file = directory.path().join("siteward.toml");
        std::fs::write(&file, GOOD.replace("/etc/siteward/tls/", "")).unwrap();
        match load(&file) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.list.iter().map(|fault| format!("{}: {}", fault.path, fault.text)).collect(),
        }
    }

    #[test]
    fn good_files_are_no_fault() {
        let (cert, key, _) = pair();
        assert_eq!(told(Some(&cert), Some(&cert), Some(&key), 0o600), Vec::<String>::new());
        assert_eq!(told(Some(&cert), Some(&cert), Some(&key), 0o640), Vec::<String>::new());
    }

    #[test]
    fn files_that_are_not_there_are_each_told() {
        let gone = "names a file that cannot be read: No such file or directory (os error 2); check path and owner";
        let expected = ["uplink.ca", "uplink.cert", "uplink.key"].map(|key| format!("{key}: {gone}"));
        assert_eq!(told(None, None, None, 0), expected);
    }

    #[test]
    fn files_that_are_not_pem_are_each_told() {
        let expected = [
            "uplink.ca: names a file that is not a PEM certificate (-----BEGIN CERTIFICATE-----)",
            "uplink.cert: names a file that is not a PEM certificate (-----BEGIN CERTIFICATE-----)",
            "uplink.key: names a file that is not an unencrypted PEM private key (-----BEGIN PRIVATE KEY-----)",
        ];
        let (cert, key, _) = pair();
        assert_eq!(told(Some("x"), Some(&key), Some(&cert), 0o600), expected);
    }

    #[test]
    fn a_private_key_that_everybody_can_open_is_refused() {
        let expected = "uplink.key: names a private file that everybody on this machine can open (mode 0644); run chmod o= on it";
        let (cert, key, _) = pair();
        assert_eq!(told(Some(&cert), Some(&cert), Some(&key), 0o644), [expected]);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let expected = "uplink.key: is not the key of the certificate in uplink.cert; give the pair that was made together";
        let (cert, _, other_key) = pair();
        assert_eq!(told(Some(&cert), Some(&cert), Some(&other_key), 0o600), [expected]);
    }

    #[test]
    fn credentials_are_looked_for_where_systemd_puts_them() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        let (cert, key, _) = pair();
        for (name, content) in [("ca.pem", &cert), ("gateway.pem", &cert), ("uplink-key", &key)] {
            std::fs::write(base.join(name), content).unwrap();
        }
        let text = GOOD.replace("/etc/siteward/tls/", "").replace("key = \"gateway.key\"", "credential = \"uplink-key\"");
        let text = text.replace("[spool]", "[spool]\nkey = \"credential:spool-key\"");
        let file = base.join("siteward.toml");
        let told = parse(&file, &text, Files::Checked, Some(base)).unwrap_err();
        assert_eq!(told.list.len(), 1, "{told}");
        assert_eq!(told.list[0].path, "spool.key");
        std::fs::write(base.join("spool-key"), [7; 32]).unwrap();
        assert!(parse(&file, &text, Files::Checked, Some(base)).is_ok());
        assert!(parse(&file, &text, Files::Checked, None).is_ok(), "outside the service there are no credentials to look at");
    }
}
