//! What is shown of a configuration in which every key is set, and of one in which hardly any is.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::super::document::{BootstrapText, effective, read_unsigned};
use super::super::{Files, parse_text};
use super::*;

const FILE: &str = "/etc/siteward/siteward.toml";

/// Every key of the reader, with a value that is not its default.
const EVERY: &str = r#"
[gateway]
site = "st-marys"
id = "gw1"
groups = ["pilot"]
timezone = "America/New_York"
control_socket = "/run/s/control.sock"
access_directory = "/run/s"
clock_synchronised_file = "/run/synchronised"
[spool]
path = "/srv/spool"
max_bytes = "64MiB"
key = "credential:spool-key"
message_bytes_max = "1MiB"
[uplink]
endpoints = ["mqtts://hub.example.org:8883", "mqtt://10.0.0.1:1883"]
allow_plaintext = true
ca = "/etc/ca.pem"
cert = "/etc/gw.pem"
credential = "uplink-key"
proxy = "http://proxy.example.org:3128"
proxy_credential = "proxy-password"
in_flight = 7
confirm = "puback"
receipt_timeout = "7s"
on_no_subscriber = "accept"
[trust]
keys = ["/etc/a.pem", "/etc/b.pem"]
threshold = 2
recovery_keys = ["/etc/c.pem", "/etc/d.pem"]
recovery_threshold = 2
commands = ["pause_feed"]
command_keys = ["/etc/e.pem", "/etc/f.pem"]
command_threshold = 2
[status]
listen = "0.0.0.0:8090"
peers = ["10.0.0.0/8"]
names = ["gw1.example.org"]
[alerts]
syslog = "udp://10.1.2.3:514"
runbook = "https://wiki.example.org/r"
uplink_after = "1m"
peer_after = "2m"
oldest_critical_after = "3m"
[[feed]]
id = "a"
lane = "critical"
stage = "live"
forward = "raw"
phi = "allowed"
timezone = "Europe/Berlin"
charset = "8859/1"
charset_force = true
owner = "the lab"
criticality = "high"
delivery_objective = "5m"
data_class = "phi"
contract_version = "2"
sunset = "2030-01-31"
[feed.mllp]
listen = "0.0.0.0:2575"
on_store_failure = "nak"
allow_missing_control_id = true
connections_max = 9
frame_timeout = "10s"
idle_timeout = "1h"
on_invalid = "close"
app_ack = "aa_only"
batch_ack = "each"
peers = ["10.1.0.0/16"]
unframed = true
[feed.mllp.strict]
types = ["ADT", "DFT^P03"]
versions = ["2.3"]
processing_ids = ["P"]
[feed.mllp.tls]
cert = "/etc/l.pem"
key = "/etc/l.key"
client_ca = "/etc/lca.pem"
client_subjects = ["CN=Lab 1", "or.example.org"]
[feed.expect]
every = "4h"
by = ["06:00", "14:30"]
from = "04:00"
days = ["mon", "sun"]
holidays = ["2026-12-25"]
holidays_file = "/etc/holidays.txt"
between = "06:00-24:00"
grace = "5m"
[[feed]]
id = "b"
forward = "raw"
phi = "allowed"
[feed.directory]
path = "/srv/b"
patterns = ["*.csv", "a?"]
subfolders = true
order = "mtime"
complete = "marker"
marker = ".done"
settle = "7s"
scan = "7m"
split = "csv"
done = "move"
retention_days = 7
retention_bytes = "7MiB"
require_mount = true
name_in_events = true
[feed.directory.csv]
delimiter = "tab"
quote = "none"
header = false
encoding = "8859/1"
[[feed]]
id = "c"
forward = "raw"
phi = "allowed"
[feed.directory]
path = "/mnt/c"
order = "number"
complete = "rename"
split = "fixed"
done = "leave"
require_mount = false
[feed.directory.fixed]
widths = [3, 5]
record_len = 10
trimmed_ends = true
encoding = "UNICODE UTF-8"
[[feed]]
id = "d"
forward = "raw"
phi = "allowed"
[feed.directory]
path = "/mnt/d"
complete = "trailer"
split = "x12"
[feed.directory.x12]
level = "interchange"
[[feed]]
id = "e"
forward = "raw"
phi = "allowed"
[feed.http]
listen = "0.0.0.0:8443"
split = "fhir_bundle"
accept = ["text/csv"]
tokens_file = "/etc/tokens"
peers = ["10.2.0.0/16"]
connections_max = 8
body_bytes_max = "2MiB"
body_timeout = "9s"
[feed.http.tls]
cert = "/etc/h.pem"
credential = "http-key"
client_ca = "/etc/hca.pem"
client_subjects = ["CN=Lab 2"]
[[feed]]
id = "f"
forward = "raw"
phi = "allowed"
[feed.mllp]
listen = "0.0.0.0:2576"
[feed.mllp.tls]
cert = "/etc/l.pem"
credential = "lab-key"
[[feed]]
id = "g"
forward = "raw"
phi = "allowed"
[feed.http]
listen = "127.0.0.1:8444"
split = "json_array"
tokens_credential = "lab-tokens"
[feed.http.tls]
cert = "/etc/h.pem"
key = "/etc/h.key"
"#;

/// Hardly any.
const FEW: &str = r#"
[gateway]
site = "st-marys"
id = "gw1"
timezone = "America/New_York"
[uplink]
endpoints = ["mqtts://hub.example.org:8883"]
ca = "/etc/siteward/ca.pem"
cert = "/etc/siteward/gw.pem"
credential = "uplink-key"
[[feed]]
id = "or-usage"
forward = "raw"
phi = "allowed"
[feed.mllp]
listen = "0.0.0.0:2575"
[[feed]]
id = "cabinet"
forward = "raw"
phi = "allowed"
[feed.directory]
path = "/srv/feeds/cabinet"
split = "lines"
"#;

const UNKNOWN: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";

/// Keys that are read and cannot be set: profiles do not exist yet.
const REFUSED: [&str; 1] = ["feed.profile"];

fn settings(text: &str) -> Settings {
    parse_text(FILE.as_ref(), text).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

fn tree(text: &str) -> Table {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Calls `each` with every table, its path in the tree (`feed.0.mllp`) and in the schema (`feed.mllp`).
fn tables(table: &Table, at: &[String], path: &str, each: &mut impl FnMut(&Table, &[String], &str)) {
    each(table, at, path);
    for (key, value) in table {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let at = |more: &[&str]| at.iter().cloned().chain(more.iter().map(ToString::to_string)).collect::<Vec<_>>();
        match value {
            Value::Table(table) => tables(table, &at(&[key]), &inner, each),
            Value::Array(list) => {
                for (index, table) in list.iter().enumerate().filter_map(|(index, value)| Some((index, value.as_table()?))) {
                    tables(table, &at(&[key, &index.to_string()]), &inner, each);
                }
            }
            _ => {}
        }
    }
}

/// Every key that is set, by its path in the schema.
fn keys(text: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    tables(&tree(text), &[], "", &mut |table, _, path| {
        keys.extend(table.keys().map(|key| if path.is_empty() { key.clone() } else { format!("{path}.{key}") }));
    });
    keys
}

/// Every key that the reader knows in the sections of this text: where one is unknown, it lists them.
fn known(text: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    tables(&tree(text), &[], "", &mut |_, at, path| {
        let mut tree = Value::Table(tree(text));
        let table = at.iter().fold(&mut tree, |value, part| match value {
            Value::Array(list) => &mut list[part.parse::<usize>().unwrap()],
            other => &mut other[part.as_str()],
        });
        table.as_table_mut().unwrap().insert(UNKNOWN.to_owned(), Value::Boolean(true));
        let faults = parse_text(FILE.as_ref(), &toml::to_string(&tree).unwrap()).expect_err("a key is unknown");
        let listed = faults.list.iter().find_map(|fault| fault.text.strip_prefix("unknown key; known here: "));
        let listed = listed.unwrap_or_else(|| panic!("{path}: {faults}"));
        keys.extend(listed.split(", ").map(|key| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }));
    });
    keys
}

/// Whatever key is added to the reader has to be set here, and what is set is shown.
#[test]
fn every_key_there_is_is_shown_in_words_that_mean_the_same() {
    let mut every = BTreeSet::new();
    for text in [EVERY.to_owned(), EVERY.replace("credential = \"uplink-key\"", "key = \"/etc/gw.key\"")] {
        let (set, settings) = (keys(&text), settings(&text));
        let shown = render(&settings);
        assert_eq!(self::settings(&shown), settings, "{shown}");
        let shown = keys(&shown);
        assert_eq!(set.symmetric_difference(&shown).collect::<Vec<_>>(), [""; 0], "set and not shown, or the other way round");
        every.extend(set);
    }
    let known = known(EVERY);
    assert_eq!(known.symmetric_difference(&every).collect::<Vec<_>>(), REFUSED, "read and not set here, or the other way round");
    println!("{} keys are shown", every.len());
}

#[test]
fn defaults_are_shown_and_mean_the_same_when_they_are_written() {
    let settings = settings(FEW);
    let shown = render(&settings);
    assert_eq!(self::settings(&shown), settings, "{shown}");
    for line in [
        "endpoints = [\"mqtts://hub.example.org:8883\"]",
        "credential = \"uplink-key\" # credential:uplink-key",
        "in_flight = 100",
        "confirm = \"receipt\"",
        "stage = \"test\"",
        "on_store_failure = \"close\"",
        "peers = []",
        "# idle_timeout = never",
        "# max_bytes = 70 % of the volume",
        "forward = \"raw\"",
        "phi = \"allowed\"",
        "require_mount = true # at or below /srv/feeds",
        "[trust]",
        "# keys = none, no document is taken",
        "[status]",
        "listen = \"unix:/var/lib/siteward/status.sock\"",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
}

/// Of a document every section is shown but those that are no settings: its header, its rollout, what it seals (values), and [bootstrap], whose
/// endpoints and keys stand in the place of the local file's.
#[test]
fn every_key_of_the_schema_of_documents_is_shown() {
    let ca = rcgen::generate_simple_self_signed(["siteward.test".to_owned()]).unwrap().cert.pem();
    let text = format!(
        "[document]\nschema_version = 1\nrevision = 2\ngateway = \"gw1\"\nauthor = \"a\"\nreason = \"r\"\n\
         [uplink]\nrenew = {{ request = \"2026-11\", trial = \"1h\" }}\n[[uplink.endpoint]]\nurl = \"mqtts://hub2.example.org:8883\"\nca_pem = '''\n{ca}'''\n"
    );
    let local = BootstrapText { file: FILE.into(), text: FEW.to_owned(), moved: None };
    let document = read_unsigned(text.into_bytes()).unwrap();
    let shown = render(&effective(&local, Some(&document), Files::NotChecked, None).unwrap());
    assert!(shown.contains("# ca_pem = its own, ") && !shown.contains("BEGIN"), "{shown}");
    let shown = &keys(&shown.replace("# ca_pem = its own, ", "ca_pem = '' # ")) | &keys(&render(&settings(EVERY)));
    let schema: Json = serde_json::from_str(include_str!("../../../contract/schemas/document.json")).unwrap();
    let mut count = 0;
    let mut waiting = vec![(String::new(), &schema)];
    while let Some((path, node)) = waiting.pop() {
        let node = if node["items"].is_object() { &node["items"] } else { node };
        for (key, inner) in node["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if ["document", "rollout", "secret", "bootstrap"].contains(&path.as_str()) || REFUSED.contains(&path.as_str()) {
                continue;
            }
            assert!(shown.contains(&path), "{path} is not shown");
            count += 1;
            waiting.push((path, inner));
        }
    }
    assert!(count > 80, "{count} keys");
}
