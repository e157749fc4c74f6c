//! The desk with boxes that are not there: what they would say is said by the test, and nothing goes over a network.

use std::path::Path;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::answer::Answering;
use super::authority::{self, Authority};
use super::identity;
use super::issue::{self, Made, Wish};
use super::mosquitto;
use super::outside;
use super::state::{List, Role, State};
use crate::enrolment::bundle::{self, Bundle, Trust};
use crate::enrolment::proof::{self, About, Answer, Outcome, Request, Verifier};
use crate::hub::keys::{self, Passphrase, Signer};
use crate::record::Name;
use crate::uplink::csr;

struct Desk {
    state: State,
    answering: Answering,
    signer: Signer,
    ca: String,
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let words = directory.path().join("words");
        std::fs::write(&words, "correct horse battery\n").unwrap();
        let passphrase = Passphrase::File(words);
        let state = State::make(&directory.path().join("state")).unwrap();
        authority::make(&state.hold("test").unwrap(), "test authority", &passphrase).unwrap();
        let again = authority::make(&state.hold("test").unwrap(), "another", &passphrase).unwrap_err();
        assert!(again.contains("nothing is ever written over"), "{again}");
        let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/documents/keys/openssl.key");
        let (signer, _) = keys::open(&key, &Passphrase::Terminal).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let answering = Answering { authority: Authority::open(&state, &passphrase).unwrap(), state: state.clone() };
        Self { state, answering, signer, ca, directory }
    }

    fn wish(&self) -> Wish {
        Wish {
            site: Name::new("st-marys").unwrap(),
            gateway: Name::new("st-marys-gw1").unwrap(),
            timezone: "America/New_York".into(),
            groups: Vec::new(),
            endpoints: vec!["mqtts://hub.example.org".into()],
            proxy: None,
            proxy_credential: None,
            ca_pem: self.ca.clone(),
            trust: Trust {
                keys: vec![self.signer.public_pem()],
                threshold: 1,
                recovery_threshold: 1,
                command_threshold: 1,
                ..Trust::default()
            },
            days: 14,
            replace: false,
            outside: None,
        }
    }

    fn make(&self, wish: &Wish) -> Result<Made, String> {
        let signers = [Signer::from_pkcs8(&Self::pkcs8()).unwrap()];
        issue::make(&self.state.hold("test").unwrap(), &self.answering.authority, wish, &signers)
    }

    fn pkcs8() -> Vec<u8> {
        let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/documents/keys/openssl.key");
        PrivateKeyDer::from_pem_file(key).unwrap().secret_der().to_vec()
    }

    /// What the desk answers to a key that asks with this bundle.
    fn ask(&self, bundle: &Bundle, key: &str) -> (Option<Outcome>, String) {
        let parsed = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let print = proof::print_of(&csr::public_key(parsed.secret_der()).unwrap());
        let (verifier, about) =
            (Verifier::of(&bundle.secret().unwrap()), About { bundle: &bundle.bundle, site: &bundle.site, gateway: &bundle.gateway });
        let request = Request::new(&verifier, about, csr::request(parsed.secret_der(), &bundle.subject).unwrap());
        let mut told = String::new();
        let topic = proof::request_topic(about, &print);
        let said = self.answering.hear(&topic, &serde_json::to_vec(&request).unwrap(), &mut |line| told.push_str(line));
        let outcome = said.map(|said| {
            assert_eq!(said.topic, proof::answer_topic(&bundle.site, &bundle.gateway, &print));
            let answer: Answer = serde_json::from_slice(&said.payload).unwrap();
            assert!(said.retain && answer.is_proven(&verifier, about, &print));
            answer.outcome
        });
        (outcome, told)
    }
}

fn opened(made: &Made) -> Bundle {
    bundle::open(made.envelope.as_bytes()).unwrap().bundle
}

fn code(outcome: Option<Outcome>) -> String {
    match outcome {
        None => "nothing".into(),
        Some(Outcome::Issued { .. }) => "issued".into(),
        Some(Outcome::Waiting {}) => "waiting".into(),
        Some(Outcome::Refused { code, .. }) => code,
    }
}

#[test]
fn a_bundle_gives_one_certificate_to_one_key_and_a_replaced_box_loses_its_name() {
    let desk = Desk::new();
    let made = desk.make(&desk.wish()).unwrap();
    let (bundle, ours, other) = (opened(&made), csr::key().unwrap(), csr::key().unwrap());
    let (Some(Outcome::Issued { chain }), told) = desk.ask(&bundle, &ours) else { panic!("it is given one") };
    assert!(told.contains("is given a certificate"), "{told}");
    crate::enrolment::check_chain(&chain, ours.as_bytes(), &bundle.subject, bundle.issuer_pem.as_deref()).unwrap();
    let foreign = crate::enrolment::check_chain(&chain, other.as_bytes(), &bundle.subject, None).unwrap_err();
    assert!(foreign.contains("not for the key"), "{foreign}");
    assert_eq!(desk.ask(&bundle, &ours).0, Some(Outcome::Issued { chain }), "the same again");
    assert_eq!(code(desk.ask(&bundle, &other).0), "bundle_used");
    let forged = Bundle { secret: "22".repeat(32), ..bundle.clone() };
    let (answer, told) = desk.ask(&forged, &ours);
    assert!(answer.is_none() && told.contains("does not prove"), "{told}");
    assert!(desk.ask(&Bundle { bundle: "0".repeat(32), ..bundle.clone() }, &ours).1.contains("did not make"));

    let refused = desk.make(&desk.wish()).unwrap_err();
    assert!(refused.contains("say --replace"), "{refused}");
    let elsewhere = Wish { site: Name::new("st-johns").unwrap(), replace: true, ..desk.wish() };
    assert!(desk.make(&elsewhere).unwrap_err().contains("ids of gateways are unique"));
    let replacing = desk.make(&Wish { replace: true, ..desk.wish() }).unwrap();
    assert_eq!(replacing.replaced.len(), 1);
    assert_eq!(opened(&replacing).replaces.as_deref(), Some(bundle.bundle.as_str()));
    assert_eq!(code(desk.ask(&bundle, &ours).0), "bundle_retired");
    let records = desk.state.records().unwrap();
    let access = mosquitto::access(&records, &[], made.record.issued_at);
    assert!(!access.contains(&bundle.subject) && access.contains(&replacing.record.subject), "{access}");
    let revoked = mosquitto::revoked(&records, &[]);
    assert_eq!(revoked.len(), 2, "the certificate for enrolment and that of the gateway");
    let held = desk.state.hold("test").unwrap();
    assert!(desk.answering.authority.list(&held, &revoked).unwrap().contains("BEGIN X509 CRL"));
    drop(held);
    // One that nobody used is made anew without a word about replacing.
    assert_eq!(desk.make(&desk.wish()).unwrap().withdrawn.len(), 1);
}

/// Without it the whole fleet would stop after 13 months: the receiver's certificate is made anew under the same name, and the old one counts no more.
#[test]
fn an_identity_is_made_again_under_its_name_and_its_old_certificate_is_revoked() {
    let desk = Desk::new();
    let held = desk.state.hold("test").unwrap();
    let out = |name: &str| {
        let out = desk.directory.path().join(name);
        std::fs::create_dir_all(&out).unwrap();
        out
    };
    let (first, second) = (out("first"), out("second"));
    let wish = |role, again, out| identity::Wish { name: "receiver", role, again, out };
    let make = |wish| identity::make(&held, &desk.answering.authority, wish);
    let none_yet = make(wish(Role::Receiver, true, &first)).unwrap_err();
    assert!(none_yet.contains("there is no receiver yet"), "{none_yet}");
    make(wish(Role::Receiver, false, &first)).unwrap();
    let old = desk.state.identities().unwrap().remove(0);
    for (tried, words) in [
        (wish(Role::Receiver, false, &second), "say --again"),
        (wish(Role::Desk, true, &second), "has the other role"),
        (wish(Role::Receiver, true, &first), "nothing is ever written over"),
        (wish(Role::Receiver, true, Path::new("/nowhere")), "is no directory"),
    ] {
        let why = make(tried).unwrap_err();
        assert!(why.contains(words), "{words}: {why}");
    }
    assert_eq!(desk.state.identities().unwrap(), std::slice::from_ref(&old), "nothing was recorded");
    make(wish(Role::Receiver, true, &second)).unwrap();
    let identities = desk.state.identities().unwrap();
    let revoked: Vec<String> = mosquitto::revoked(&[], &identities).into_iter().map(|(serial, _)| serial).collect();
    assert_eq!(Some(revoked), old.certificate.serial.map(|serial| vec![serial]));
    let read = |out: &Path, name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_ne!(read(&first, "receiver.key"), read(&second, "receiver.key"), "a new key");
    let access = mosquitto::access(&[], &identities, 0);
    assert_eq!(access.matches("user receiver\n").count(), 1, "{access}");
    let ends = crate::hub::ends::of_state(&desk.state).unwrap();
    assert_eq!((ends.len(), Some(ends[0].at)), (1, identities[0].certificate.not_after), "its end is known at the desk");
}

/// A list of revoked certificates that ends shuts out a whole group: the desk knows its end from when the broker got it.
#[test]
fn the_end_of_another_authoritys_list_is_known_at_the_desk() {
    let desk = Desk::new();
    assert_eq!(crate::hub::ends::of_state(&desk.state), Ok(vec![]));
    let lists = [List { file: "group-crl.pem".into(), ends: Some(1_900_000_000) }, List { file: "endless.pem".into(), ends: None }];
    desk.state.hold("test").unwrap().save_lists(&lists).unwrap();
    let ends = crate::hub::ends::of_state(&desk.state).unwrap();
    assert_eq!((ends.len(), ends[0].what.as_str(), ends[0].at), (1, "group-crl.pem", 1_900_000_000));
}

#[test]
fn a_certificate_from_elsewhere_must_be_for_the_request_and_in_its_name() {
    let desk = Desk::new();
    let made = desk.make(&Wish { outside: Some(None), ..desk.wish() }).unwrap();
    let (bundle, key) = (opened(&made), csr::key().unwrap());
    assert_eq!(code(desk.ask(&bundle, &key).0), "waiting");
    assert_eq!(code(desk.ask(&bundle, &key).0), "waiting");
    let csr = outside::export(&desk.state, &bundle.site, &bundle.gateway).unwrap();
    let asked = csr::read(&csr).unwrap();
    let issue = |subject: &str| {
        let until = made.record.not_after;
        desk.answering.authority.issue(authority::Wanted { subject, public_key: &asked.public_key, until }).unwrap().0
    };
    let held = desk.state.hold("test").unwrap();
    assert!(outside::import(&held, &issue("somebody")).unwrap_err().contains("in another name"));
    assert!(outside::import(&held, &desk.ca).unwrap_err().contains("not for the key of any request"));
    let chain = issue(&bundle.subject);
    outside::import(&held, &chain).unwrap();
    drop(held);
    assert_eq!(desk.ask(&bundle, &key).0, Some(Outcome::Issued { chain }));
}

#[test]
fn what_a_box_could_not_use_is_no_bundle() {
    let desk = Desk::new();
    for (wish, words) in [
        (Wish { timezone: "Mars/Olympus".into(), ..desk.wish() }, "timezone"),
        (Wish { endpoints: vec!["mqtts://a:b:c".into()], ..desk.wish() }, "endpoints"),
        (Wish { ca_pem: "nothing".into(), ..desk.wish() }, "--ca"),
        (Wish { trust: Trust { threshold: 2, ..desk.wish().trust }, ..desk.wish() }, "have to sign"),
        (Wish { trust: Trust { keys: vec![], ..desk.wish().trust }, ..desk.wish() }, "not among those of --trust"),
    ] {
        let why = desk.make(&wish).unwrap_err();
        assert!(why.contains(words), "{words}: {why}");
    }
    assert_eq!(desk.state.records().unwrap(), [], "nothing was recorded");
    drop(desk.directory);
}

#[test]
fn a_second_operator_waits_and_is_told_for_whom() {
    let desk = Desk::new();
    let held = desk.state.hold("enroll serve").unwrap();
    let state = desk.state.clone();
    let other = std::thread::spawn(move || state.hold("enroll").map(|_| ()));
    std::thread::sleep(std::time::Duration::from_millis(120));
    drop(held);
    other.join().unwrap().unwrap();
}
