//! Documents that gateways refuse, each with its sentence beside it; and the signatures, attacked.
//!
//! `tests/fixtures/documents/bad/NAME.toml` is signed here and offered, `NAME.dsse` is offered as it is; `NAME.expected` holds the code and the
//! sentence. `SITEWARD_BLESS=1` writes what is told now into the expected files, to be read before it is committed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::document::{BootstrapText, Document, Identity, effective, judge, open};
use super::envelope::{self, DOCUMENT_TYPE};
use super::header::{ConfirmBy, Selector, Version};
use super::refusal::Refusal;
use super::settings::{EndpointOrigin, RenewSettings};
use super::trust::{self, Anchor, Anchors};
use super::{Files, parse_text};
use crate::limits;
use crate::record::Name;

const LOCAL: &str = r#"[gateway]
site = "st-marys"
id = "st-marys-gw1"
groups = ["us-east", "pilot"]
timezone = "America/New_York"
[uplink]
endpoints = ["mqtts://hub.example.org:8883"]
ca = "tls/ca.pem"
cert = "tls/gateway.pem"
key = "tls/gateway.key"
[trust]
keys = ["trust/a.pub", "trust/b.pub"]
[[feed]]
id = "local"
lane = "nonsense"
"#;

const GOOD: &str = r#"[document]
schema_version = 1
revision = 42
gateway = "st-marys-gw1"
author = "A. Engineer"
reason = "new cabinet interface"
[[feed]]
id = "or-usage"
forward = "raw"
phi = "allowed"
[feed.mllp]
listen = "0.0.0.0:2575"
"#;

/// What the gateway of the fixtures runs.
const RUNNING: u64 = 41;

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(seed: u8) -> [u8; 32] {
    pair(seed).public_key().as_ref().try_into().unwrap()
}

fn anchor(seed: u8) -> Anchor {
    Anchor::from_pem(trust::to_pem(&public(seed)).as_bytes()).unwrap()
}

/// Seeds 1 and 2 are trusted, 8 and 9 (both of them) for recovery.
fn anchors(threshold: usize) -> Anchors {
    Anchors::of(vec![anchor(1), anchor(2)], threshold, vec![anchor(8), anchor(9)], 2)
}

fn signature(seed: u8, payload_type: &str, payload: &[u8]) -> (String, Vec<u8>) {
    let signed = pair(seed).sign(&envelope::pae(payload_type, payload));
    (trust::key_id(&public(seed)), signed.as_ref().to_vec())
}

fn signed(payload: &[u8], seeds: &[u8]) -> Vec<u8> {
    let signatures: Vec<_> = seeds.iter().map(|seed| signature(*seed, DOCUMENT_TYPE, payload)).collect();
    envelope::write(DOCUMENT_TYPE, payload, &signatures).into_bytes()
}

fn local() -> BootstrapText {
    BootstrapText { file: "/etc/siteward/siteward.toml".into(), text: LOCAL.to_owned(), moved: None }
}

fn us() -> Identity {
    let name = |text| Name::new(text).unwrap();
    Identity { gateway: name("st-marys-gw1"), groups: vec![name("us-east"), name("pilot")], version: Version(0, 5, 0) }
}

fn noon() -> Timestamp {
    "2026-12-01T12:00:00Z".parse().unwrap()
}

/// The whole way of an envelope.
fn offer(envelope: &[u8]) -> Result<Document, Refusal> {
    let document = open(envelope, &anchors(1))?;
    judge(&document, &us(), RUNNING, Some(noon()))?;
    effective(&local(), Some(&document), Files::NotChecked, None)?;
    Ok(document)
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/documents")
}

fn files(directory: &str) -> Vec<PathBuf> {
    let read = std::fs::read_dir(fixtures().join(directory)).unwrap();
    let mut files: Vec<PathBuf> = read.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// I6: every bad document is refused with its own reason, and the reason names place and remedy.
#[test]
fn every_bad_document_is_refused_with_the_sentence_beside_it() {
    let mut codes = BTreeSet::new();
    let mut count = 0;
    for file in files("bad").into_iter().filter(|file| file.extension().is_some_and(|e| e != "expected")) {
        let bytes = std::fs::read(&file).unwrap();
        let bytes = if file.extension().is_some_and(|e| e == "toml") { signed(&bytes, &[1]) } else { bytes };
        let refusal = offer(&bytes).expect_err(&file.display().to_string());
        let told = format!("{}\n{refusal}\n", refusal.code());
        let expected = file.with_extension("expected");
        if std::env::var_os("SITEWARD_BLESS").is_some() {
            std::fs::write(&expected, &told).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&expected).unwrap_or_default(), told, "{}", file.display());
        codes.insert(refusal.code());
        count += 1;
    }
    assert!(count >= 40, "{count} fixtures were found");
    let missing: Vec<_> = EVERY_CODE.iter().filter(|code| !codes.contains(*code)).collect();
    // Of what has no file: a gateway without anchors, and what only the ledger knows.
    assert_eq!(missing, [&"too_large", &"no_anchors", &"too_few_signatures", &"same_revision_other_content"]);
}

const EVERY_CODE: [&str; 19] = [
    "too_large",
    "not_an_envelope",
    "wrong_payload_type",
    "no_anchors",
    "unknown_key",
    "too_few_signatures",
    "bad_signature",
    "not_utf8",
    "not_toml",
    "schema_version",
    "old_revision",
    "same_revision_other_content",
    "other_gateway",
    "not_yet",
    "expired",
    "agent_too_old",
    "bootstrap_key",
    "secret_literal",
    "invalid",
];

#[test]
fn every_good_document_is_taken() {
    for file in files("good") {
        let document =
            offer(&signed(&std::fs::read(&file).unwrap(), &[2])).unwrap_or_else(|refusal| panic!("{}: {refusal}", file.display()));
        assert!(!document.recovery);
    }
}

#[test]
fn a_document_replaces_the_feeds_and_adds_endpoints_and_nothing_else() {
    let document = open(&signed(GOOD.as_bytes(), &[1]), &anchors(1)).unwrap();
    let header = &document.header;
    assert_eq!((header.revision, header.trial, header.confirm), (42, limits::TRIAL_DEFAULT, ConfirmBy::PeersReturn));
    assert_eq!(header.selector, Selector::Gateway(Name::new("st-marys-gw1").unwrap()));
    let settings = effective(&local(), Some(&document), Files::NotChecked, None).unwrap();
    assert_eq!(Identity { version: Version(0, 5, 0), ..Identity::of(&settings.gateway) }, us(), "groups are of the bootstrap");
    assert_eq!(settings.feeds.iter().map(|feed| feed.id.as_str()).collect::<Vec<_>>(), ["or-usage"], "a faulty local feed does not matter");
    assert_eq!(settings.trust.keys, [Path::new("/etc/siteward/trust/a.pub"), Path::new("/etc/siteward/trust/b.pub")]);
    let sound = LOCAL.replace("lane = \"nonsense\"", "forward = \"raw\"\nphi = \"allowed\"\nmllp = { listen = \"127.0.0.1:9\" }");
    let own = BootstrapText { text: sound.clone(), ..local() };
    let alone = effective(&own, None, Files::NotChecked, None).unwrap();
    assert_eq!(alone, parse_text(&own.file, &sound).unwrap());
    assert_eq!(alone.gateway, settings.gateway);
    assert_eq!(alone.uplink, settings.uplink);
    assert!(matches!(effective(&local(), None, Files::NotChecked, None), Err(Refusal::Invalid(faults)) if faults.file == local().file));
    let more = "[[uplink.endpoint]]\nurl = \"mqtts://hub2.example.org\"\n[uplink.renew]\nrequest = \"2026-11\"\n[[feed]]";
    let plain = GOOD.replace("[[feed]]", more);
    let document = open(&signed(plain.as_bytes(), &[1]), &anchors(1)).unwrap();
    let settings = effective(&local(), Some(&document), Files::NotChecked, None).unwrap();
    assert_eq!(settings.uplink.endpoints[0].to_string(), "mqtts://hub2.example.org:8883");
    assert_eq!(settings.uplink.endpoints[0].origin, EndpointOrigin::Added);
    assert_eq!(settings.uplink.endpoints[1..], alone.uplink.endpoints);
    assert_eq!((settings.renew, alone.renew), (Some(RenewSettings { request: "2026-11".into(), trial: limits::CANDIDATE_TRIAL }), None));
    assert_eq!(settings.uplink.cert, alone.uplink.cert, "what asks for a certificate is none of the uplink's settings");
}

/// I10: a clock that cannot be believed decides nothing.
#[test]
fn dates_are_judged_only_by_a_clock_that_can_be_believed() {
    let dated = GOOD.replace("author", "not_before = 2027-01-01T00:00:00Z\nexpires = \"2027-02-01T00:00:00+01:00\"\nauthor");
    let document = open(&signed(dated.as_bytes(), &[1]), &anchors(1)).unwrap();
    let at = |time: &str| judge(&document, &us(), RUNNING, Some(time.parse().unwrap())).map_err(|refusal| refusal.code());
    assert_eq!(at("2026-12-31T23:59:59Z"), Err("not_yet"));
    assert_eq!(at("2027-01-01T00:00:00Z"), Ok(()));
    assert_eq!(at("2027-01-31T22:59:59Z"), Ok(()));
    assert_eq!(at("2027-01-31T23:00:00Z"), Err("expired"));
    assert_eq!(judge(&document, &us(), RUNNING, None), Ok(()));
}

#[test]
fn revisions_never_go_back_and_groups_are_labels_of_the_bootstrap() {
    let document = open(&signed(GOOD.as_bytes(), &[1]), &anchors(1)).unwrap();
    assert_eq!(judge(&document, &us(), 42, None), Ok(()), "the same again is for the ledger to tell");
    assert_eq!(judge(&document, &us(), 43, None), Err(Refusal::OldRevision { running: 43, offered: 42 }));
    let groups = GOOD.replace("gateway = \"st-marys-gw1\"", "groups = [\"eu\", \"pilot\"]");
    let document = open(&signed(groups.as_bytes(), &[1]), &anchors(1)).unwrap();
    assert_eq!(judge(&document, &us(), 0, None), Ok(()));
    let refusal = judge(&document, &Identity { groups: Vec::new(), ..us() }, 0, None).unwrap_err();
    assert_eq!(refusal.code(), "other_gateway");
}

#[test]
fn a_document_needs_enough_distinct_keys() {
    let payload = GOOD.as_bytes();
    let refused = |seeds: &[u8], threshold| open(&signed(payload, seeds), &anchors(threshold)).map_err(|refusal| refusal.code());
    assert!(refused(&[1, 2], 2).is_ok());
    assert!(refused(&[7, 2, 5, 1], 2).is_ok(), "strangers' signatures do no harm");
    assert_eq!(open(&signed(payload, &[1, 1, 1]), &anchors(2)), Err(Refusal::TooFewSignatures { have: 1, need: 2 }));
    assert_eq!(refused(&[7], 1), Err("unknown_key"));
    assert_eq!(refused(&[], 1), Err("unknown_key"));
    assert_eq!(open(&signed(payload, &[8]), &anchors(1)), Err(Refusal::TooFewSignatures { have: 1, need: 2 }));
    assert_eq!(refused(&[1, 8], 2), Err("too_few_signatures"), "the two sets are not added up");
    assert!(open(&signed(payload, &[8, 9]), &anchors(1)).unwrap().recovery);
    assert_eq!(open(&signed(payload, &[1]), &Anchors::default()), Err(Refusal::NoAnchors));
}

#[test]
fn the_key_id_says_which_key_to_try_and_an_id_of_another_tries_none() {
    let payload = GOOD.as_bytes();
    let (id, bytes) = signature(1, DOCUMENT_TYPE, payload);
    let offer = |id: &str| open(envelope::write(DOCUMENT_TYPE, payload, &[(id.to_owned(), bytes.clone())]).as_bytes(), &anchors(1));
    assert!(offer(&id).is_ok());
    assert!(offer(&id.to_ascii_uppercase()).is_ok());
    assert!(offer("").is_ok(), "an id is optional");
    assert_eq!(offer(&trust::key_id(&public(2))), Err(Refusal::BadSignature));
    assert_eq!(offer("desk"), Err(Refusal::UnknownKey));
    let (other, good) = signature(2, DOCUMENT_TYPE, payload);
    let spoiled = envelope::write(DOCUMENT_TYPE, payload, &[(id, vec![0; 64]), (other, good)]);
    assert!(open(spoiled.as_bytes(), &anchors(1)).is_ok(), "a bad signature does not spoil a good one");
}

#[test]
fn too_large_is_said_before_anything_is_read() {
    let envelope = vec![b'{'; limits::DOCUMENT_BYTES_MAX + 1];
    assert_eq!(open(&envelope, &anchors(1)).unwrap_err().code(), "too_large");
}

/// I6: what was not signed never gets through, whatever is done to an envelope on its way.
#[test]
fn a_document_with_any_bit_of_it_flipped_is_refused() {
    let (id, signature) = signature(1, DOCUMENT_TYPE, GOOD.as_bytes());
    for bit in 0..GOOD.len() * 8 {
        let mut payload = GOOD.as_bytes().to_vec();
        payload[bit / 8] ^= 1 << (bit % 8);
        let envelope = envelope::write(DOCUMENT_TYPE, &payload, &[(id.clone(), signature.clone())]);
        assert_eq!(open(envelope.as_bytes(), &anchors(1)), Err(Refusal::BadSignature), "bit {bit}");
    }
    for bit in 0..signature.len() * 8 {
        let mut bytes = signature.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let envelope = envelope::write(DOCUMENT_TYPE, GOOD.as_bytes(), &[(id.clone(), bytes)]);
        assert_eq!(open(envelope.as_bytes(), &anchors(1)), Err(Refusal::BadSignature), "bit {bit} of the signature");
    }
}

proptest! {
    /// I6: an envelope that was changed anywhere is refused, or says what it said before.
    #[test]
    fn a_mutated_envelope_never_says_anything_else(edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..6)) {
        let mut bytes = signed(GOOD.as_bytes(), &[1]);
        for (at, kind, byte) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        if let Ok(document) = open(&bytes, &anchors(1)) {
            prop_assert_eq!(document.text, GOOD);
        }
    }

    /// Whatever comes is answered, never with a panic.
    #[test]
    fn anything_signed_is_answered(text in "(\\[document\\]|\\[\\[feed\\]\\]|revision|schema_version|gateway|[ =\"\\[\\]{}.,0-9a-z_\\n-]){0,60}") {
        if let Ok(document) = open(&signed(text.as_bytes(), &[1]), &anchors(1)) {
            let _ = effective(&local(), Some(&document), Files::NotChecked, None);
        }
    }
}

#[test]
fn anchors_are_read_from_files_and_told_by_entry_when_they_cannot_be() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(0o644)).unwrap();
    };
    write("a.pub", &trust::to_pem(&public(1)));
    write("b.pub", &trust::to_pem(&public(2)));
    write("again.pub", &trust::to_pem(&public(1)));
    write("bad.pub", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
    let load = |trust: &str| {
        let text = LOCAL.split("[trust]").next().unwrap().to_owned() + "[trust]\n" + trust;
        let settings = parse_text(&dir.path().join("siteward.toml"), &text).map_err(|faults| faults.to_string())?;
        Anchors::load(&settings.trust)
    };
    let two = load("keys = [\"a.pub\", \"b.pub\"]\nthreshold = 2\n").unwrap();
    assert!(open(&signed(GOOD.as_bytes(), &[1, 2]), &two).is_ok() && open(&signed(GOOD.as_bytes(), &[1]), &two).is_err());
    assert!(load("").unwrap().is_empty());
    for (trust, part) in [
        ("keys = [\"a.pub\", \"again.pub\"]", "trust.keys: entry 2 holds a key that is listed already"),
        ("keys = [\"a.pub\", \"bad.pub\"]", "trust.keys: entry 2 names a file that is not an Ed25519 public key"),
        ("keys = [\"no.pub\"]", "trust.keys: entry 1 names a file that cannot be read"),
        ("keys = [\"a.pub\"]\nrecovery_keys = [\"again.pub\"]", "trust.recovery_keys: entry 1 is one of trust.keys too"),
        ("keys = [\"a.pub\"]\nthreshold = 2", "trust.threshold: is out of range; give 1 to the number of keys listed"),
        ("keys = [\"a.pub\", \"a.pub\"]", "trust.keys: lists a file twice"),
        ("keys = []", "trust.keys: must list 1 to 16 files"),
        ("recovery_threshold = 2", "trust.recovery_threshold: stands without the keys it counts"),
        ("command_threshold = 2", "trust.command_threshold: stands without the keys it counts"),
        ("commands = [\"checkpoint\", \"shell\"]", "trust.commands: entry 2 is no command; known are pause_feed, "),
    ] {
        let told = load(trust).unwrap_err();
        assert!(told.contains(part), "{part}: {told}");
    }
    let file = dir.path().join("siteward.toml");
    let settings = |trust: &str| {
        let text = LOCAL.split("[trust]").next().unwrap().to_owned() + "[trust]\n" + trust;
        parse_text(&file, &text).unwrap().trust
    };
    let signs = |trust: &str, seed: u8| {
        let anchors = Anchors::for_commands(&settings(trust)).unwrap();
        anchors.verify(&signed(GOOD.as_bytes(), &[seed]), DOCUMENT_TYPE).is_ok()
    };
    assert!(signs("keys = [\"a.pub\"]", 1) && !signs("keys = [\"a.pub\"]", 2));
    assert!(!signs("keys = [\"a.pub\"]\nrecovery_keys = [\"b.pub\"]", 2), "recovery keys sign no commands");
    let own = "keys = [\"a.pub\"]\ncommand_keys = [\"b.pub\"]";
    assert!(signs(own, 2) && !signs(own, 1), "keys of their own are the only ones");
    assert!(settings("commands = []").commands.is_empty() && !settings("").commands.is_empty());
    std::fs::set_permissions(dir.path().join("a.pub"), PermissionsExt::from_mode(0o666)).unwrap();
    assert!(load("keys = [\"a.pub\"]").unwrap_err().contains("everybody on this machine can change"));
}

/// A feed that names a secret, on a gateway whose spool is in this directory.
fn naming_a_secret(directory: &Path, more: &str) -> (BootstrapText, String) {
    std::fs::create_dir_all(directory.join("spool")).unwrap();
    std::fs::write(directory.join("spool-key"), [7; 32]).unwrap();
    std::fs::set_permissions(directory.join("spool-key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (spool, key) = (directory.join("spool"), directory.join("spool-key"));
    let own = format!("[spool]\npath = {spool:?}\nkey = {key:?}\n[uplink]\nallow_plaintext = true\nendpoints = [\"mqtt://hub\"]\n");
    let text = LOCAL.split("[uplink]").next().unwrap().to_owned() + &own;
    let feed =
        GOOD.replace("[feed.mllp]\nlisten = \"0.0.0.0:2575\"", "[feed.http]\nlisten = \"127.0.0.1:8080\"\ntokens_credential = \"lab\"");
    (BootstrapText { file: directory.join("siteward.toml"), text, moved: None }, format!("{feed}{more}"))
}

/// I6, I7: a secret that the gateway does not have is a fault that names feed, key and remedy; a value comes sealed or from the site, and is shown nowhere.
#[test]
fn a_secret_is_named_and_looked_up_and_one_that_is_missing_is_told() {
    use crate::secrets::{Value, Vault, sealed};
    let directory = tempfile::tempdir().unwrap();
    let lines = format!("lab:{}\n", "ab".repeat(32));
    let try_it = |more: &str, look| {
        let (own, text) = naming_a_secret(directory.path(), more);
        let document = open(&signed(text.as_bytes(), &[1]), &anchors(1)).unwrap();
        effective(&own, Some(&document), look, None)
    };
    let told = try_it("", Files::Checked).unwrap_err();
    let expected = "document-42.toml:13: feed[0].http.tokens_credential: of feed `or-usage` names the secret `lab`, which this gateway does not have; \
                    set it there: siteward secret set lab";
    assert_eq!(told.to_string(), expected);
    assert!(try_it("", Files::OnSite).is_ok() && try_it("", Files::NotChecked).is_ok(), "from a desk it cannot be known");
    let (own, _) = naming_a_secret(directory.path(), "");
    let settings = parse_text(&own.file, &own.text).unwrap();
    let vault = Vault::new(&settings.spool, None);
    vault.set("lab", &Value::new(lines.clone().into_bytes()), None).unwrap();
    let here = try_it("", Files::Checked).unwrap();
    vault.set("lab", &Value::new(b"nonsense".to_vec()), None).unwrap();
    assert!(try_it("", Files::Checked).unwrap_err().to_string().contains("line 1 is not name:sha256"));

    let public = sealed::read_public_key(&vault.public_key().unwrap()).unwrap();
    let section =
        |key: &[u8; 32]| format!("[[secret]]\nname = \"lab\"\nsealed = \"{}\"\n", sealed::seal(key, "lab", lines.as_bytes()).unwrap());
    let carried = try_it(&section(&public), Files::Checked).unwrap();
    assert_ne!(carried.feeds, here.feeds, "another value is another feed");
    let other = try_it(&section(&[9; 32]), Files::Checked).unwrap_err().to_string();
    assert!(other.contains("was not sealed to this gateway") && other.contains("of feed `or-usage`"), "{other}");
    for settings in [&here, &carried] {
        let shown = format!("{settings:?}{}", super::show::render(settings));
        assert!(!shown.contains(&"ab".repeat(32)) && shown.contains("lab"), "{shown}");
    }
    assert!(super::show::render(&carried).contains("tokens_credential = \"lab\" # sealed:lab"));
}

/// I6: a port that the gateway itself has is found before the trial; a document that was proven once does not end for it.
#[test]
fn a_feed_that_would_listen_where_the_status_page_does_is_refused_with_its_line() {
    let plain = LOCAL.split("[uplink]").next().unwrap().to_owned() + "[uplink]\nallow_plaintext = true\nendpoints = [\"mqtt://hub\"]\n";
    let try_it = |page: &str, source: &str, look| {
        let own = BootstrapText { text: format!("{plain}[status]\nlisten = \"{page}\"\npeers = [\"10.0.0.0/8\"]\n"), ..local() };
        let text = GOOD.replace("[feed.mllp]\nlisten = \"0.0.0.0:2575\"", source);
        let document = open(&signed(text.as_bytes(), &[1]), &anchors(1)).unwrap();
        effective(&own, Some(&document), look, None).map(drop).map_err(|refusal| refusal.to_string())
    };
    let mllp = "[feed.mllp]\nlisten = \"0.0.0.0:8090\"";
    let told = try_it("10.1.2.3:8090", mllp, Files::OnSite).unwrap_err();
    let wanted = "feed[0].mllp.listen: is an address of the gateway's status page (10.1.2.3:8090, status.listen of its own file); give the feed another \
                  port";
    assert!(told.contains(wanted) && told.contains("document-42.toml:"), "{told}");
    let http = "[feed.http]\nlisten = \"127.0.0.1:8090\"";
    assert!(
        try_it("0.0.0.0:8090", http, Files::OnSite)
            .unwrap_err()
            .contains("feed[0].http.listen: is an address of the gateway's status page")
    );
    assert_eq!(try_it("10.1.2.3:8090", http, Files::OnSite), Ok(()), "another address");
    assert_eq!(try_it("10.1.2.3:8090", mllp, Files::NotChecked), Ok(()), "a start with what is committed");
}

/// I6: what is proven must be able to count. The document fits the desk's check, and is refused where the recovery keys are.
#[test]
fn a_document_whose_keys_are_among_the_gateways_recovery_keys_is_refused_before_its_trial() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (own, _) = naming_a_secret(directory.path(), "");
    for (name, seed) in [("a.pub", 1), ("r.pub", 8)] {
        std::fs::write(directory.path().join(name), trust::to_pem(&public(seed))).unwrap();
        std::fs::set_permissions(directory.path().join(name), PermissionsExt::from_mode(0o644)).unwrap();
    }
    let text = own.text + "[trust]\nkeys = [\"a.pub\"]\nrecovery_keys = [\"r.pub\"]\n";
    let own = BootstrapText { text, ..own };
    let offer = |seed: u8, look| {
        let text = format!("{GOOD}[bootstrap]\nkeys = [\"\"\"{}\"\"\"]\n", trust::to_pem(&public(seed)));
        let document = open(&signed(text.as_bytes(), &[8]), &Anchors::of(vec![anchor(1)], 1, vec![anchor(8)], 1)).unwrap();
        effective(&own, Some(&document), look, None)
    };
    assert!(offer(5, Files::Checked).is_ok() && offer(8, Files::NotChecked).is_ok());
    let told = offer(8, Files::Checked).unwrap_err().to_string();
    assert!(told.contains("bootstrap") && told.contains("cannot go by: trust.recovery_keys: entry 1 is one of trust.keys too"), "{told}");
}

/// I6: endpoints and anchors change by the recovery keys only; what they changed is repeated by every later document, and none changes it back.
#[test]
fn only_the_recovery_keys_change_the_bootstrap() {
    let key = trust::to_pem(&public(5));
    let section = format!("[bootstrap]\nendpoints = [\"mqtts://hub2.example.org\"]\nkeys = [\"\"\"{key}\"\"\"]\n");
    let of = |revision: u64, section: &str| GOOD.replace("revision = 42", &format!("revision = {revision}")) + section;
    let offer = |text: &str, seeds: &[u8], own: &BootstrapText, anchors: &Anchors| {
        let document = open(&signed(text.as_bytes(), seeds), anchors)?;
        effective(own, Some(&document), Files::NotChecked, None)
    };
    let (text, own) = (of(42, &section), local());
    assert_eq!(offer(&text, &[1, 2], &own, &anchors(1)).unwrap_err().code(), "bootstrap_key");
    let mut settings = offer(&text, &[8, 9], &own, &anchors(1)).unwrap();
    let shown = |settings: &super::settings::Settings| settings.uplink.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&settings), ["mqtts://hub2.example.org:8883", "mqtts://hub.example.org:8883"], "the old one stays until it is proven");
    assert!(settings.settle() && !settings.settle());
    assert_eq!(shown(&settings), ["mqtts://hub2.example.org:8883"]);
    assert!(super::show::render(&settings).contains("endpoints and trust keys come from a document of the recovery keys"));

    let moved = BootstrapText { moved: settings.moved.clone(), ..local() };
    let new = Anchors::of(vec![anchor(5)], 1, vec![anchor(8), anchor(9)], 2);
    assert_eq!(open(&signed(text.as_bytes(), &[1]), &new), Err(Refusal::UnknownKey), "the old keys sign nothing any more");
    assert!(offer(&of(43, &section), &[5], &moved, &new).is_ok());
    let other = section.replace("hub2", "hub3");
    for text in [of(43, ""), of(43, &other)] {
        let told = offer(&text, &[5], &moved, &new).unwrap_err();
        assert!(told.code() == "bootstrap_key" && told.to_string().contains("word for word"), "{told}");
        assert!(offer(&text, &[8, 9], &moved, &new).is_ok());
    }
}
