//! A new certificate: only what fits and was proven replaces the old one, whatever step a crash comes in.

use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::config::settings::Endpoint;
use crate::spool::disk::RealDisk;
use crate::spool::faulty::{Call, Faulty};
use crate::uplink::scripted::some_settings;

fn credentials() -> (Credentials, TempDir) {
    let spool = tempfile::tempdir().unwrap();
    (Credentials::open(Arc::new(RealDisk), spool.path()), spool)
}

fn certificate(key: &KeyPair) -> String {
    CertificateParams::new(["gw1".to_owned()]).unwrap().self_signed(key).unwrap().pem()
}

fn candidate_key(credentials: &Credentials) -> KeyPair {
    let pem = credentials.read(CANDIDATE_KEY).unwrap().unwrap();
    KeyPair::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap()
}

#[test]
fn a_certificate_for_the_request_becomes_a_candidate_and_after_its_proof_the_current_one() {
    let (credentials, spool) = credentials();
    assert_eq!((credentials.request("s.gw1").unwrap(), spool.path().read_dir().unwrap().count()), (None, 0), "nothing was made yet");
    credentials.make_key().unwrap();
    assert!(credentials.request("s.gw1").unwrap().unwrap().contains("BEGIN CERTIFICATE REQUEST"));
    assert_eq!((credentials.candidate(), credentials.current()), (None, None));
    let chain = certificate(&candidate_key(&credentials));
    let identity = credentials.install(&chain).unwrap();
    assert_eq!((credentials.candidate(), credentials.current()), (Some(identity.clone()), None));
    assert!(identity.is_candidate && credentials.holds(&chain_of(&chain).unwrap()[0]));
    assert_eq!(std::fs::metadata(&identity.key).unwrap().permissions().mode() & 0o777, 0o600);
    CertificateDer::from_pem_file(&identity.cert).unwrap();
    PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    let current = credentials.promote().unwrap();
    assert!(!current.is_candidate && credentials.current_end().is_some() && credentials.holds(&chain_of(&chain).unwrap()[0]));
    assert_eq!(credentials.identities(), Identities { candidate: None, current: Some(current) });
    assert_eq!(credentials.request("s.gw1").unwrap(), None);
}

#[test]
fn a_certificate_for_another_key_is_refused_and_the_current_one_untouched() {
    let (credentials, _spool) = credentials();
    let other = KeyPair::generate().unwrap();
    assert!(matches!(credentials.install(&certificate(&other)), Err(CredentialError::NothingAsked)));
    credentials.make_key().unwrap();
    credentials.install(&certificate(&candidate_key(&credentials))).unwrap();
    let current = credentials.promote().unwrap();
    let before = std::fs::read(&current.cert).unwrap();
    credentials.make_key().unwrap();
    assert!(matches!(credentials.install(&certificate(&other)), Err(CredentialError::Mismatch(_))));
    let old = credentials.install(include_str!("../../../tests/fixtures/certificates/version-1.pem")).unwrap_err();
    assert!(old.to_string().starts_with("what came is an X.509 version 1 certificate"), "{old}");
    assert!(matches!(credentials.install("nothing"), Err(CredentialError::NoCertificate)));
    assert!(matches!(credentials.install(&" ".repeat(CERTIFICATE_BYTES_MAX + 1)), Err(CredentialError::TooLarge)));
    assert!(matches!(credentials.promote(), Err(CredentialError::NoCandidate)));
    assert_eq!(std::fs::read(&current.cert).unwrap(), before);
}

/// A useless certificate, which anybody may send, does not cost us the renewal.
#[test]
fn a_candidate_that_is_given_up_leaves_the_old_one_alone_and_its_key_waits_on() {
    let (credentials, _spool) = credentials();
    credentials.make_key().unwrap();
    let key = candidate_key(&credentials);
    credentials.install(&certificate(&key)).unwrap();
    credentials.give_up().unwrap();
    assert_eq!(credentials.identities(), Identities::default());
    credentials.install(&certificate(&key)).unwrap();
    credentials.cancel().unwrap();
    assert_eq!((credentials.candidate(), credentials.request("s.gw1").unwrap()), (None, None));
}

#[test]
fn a_promotion_that_a_crash_cut_short_is_finished_at_the_next_start() {
    let (credentials, spool) = credentials();
    credentials.make_key().unwrap();
    credentials.install(&certificate(&candidate_key(&credentials))).unwrap();
    credentials.rename(CANDIDATE, CURRENT).unwrap();
    let credentials = Credentials::open(Arc::new(RealDisk), spool.path());
    assert!(credentials.current().is_some());
    assert_eq!(credentials.request("s.gw1").unwrap(), None, "nothing waits");
    credentials.make_key().unwrap();
    let credentials = Credentials::open(Arc::new(RealDisk), spool.path());
    assert!(credentials.request("s.gw1").unwrap().is_some(), "another key is none of that promotion's");
}

/// The rename came through, and what follows it did not: asked again, a promotion is finished, and a start is not needed.
#[test]
fn a_promotion_that_failed_behind_its_rename_is_finished_when_it_is_asked_for_again() {
    let failures: [&[Call]; 4] = [&[Call::Rename], &[Call::SyncDir, Call::SyncDir], &[Call::Remove], &[Call::SyncDir, Call::Remove]];
    for calls in failures {
        let spool = tempfile::tempdir().unwrap();
        let disk = Arc::new(Faulty::default());
        let credentials = Credentials::open(Arc::clone(&disk) as Arc<dyn Disk>, spool.path());
        credentials.make_key().unwrap();
        let chain = certificate(&candidate_key(&credentials));
        credentials.install(&chain).unwrap();
        disk.fail(calls);
        for _ in calls {
            assert!(matches!(credentials.promote(), Err(CredentialError::File { .. })), "{calls:?}");
        }
        let current = credentials.promote().unwrap();
        assert_eq!(credentials.identities(), Identities { candidate: None, current: Some(current) });
        assert!(credentials.holds(&chain_of(&chain).unwrap()[0]) && !credentials.is_waiting(), "{calls:?}");
    }
}

#[test]
fn a_candidate_stands_before_every_tls_endpoint_and_replaces_none() {
    let mut settings = some_settings();
    settings.endpoints = vec![Endpoint::new("a", 8883, true), Endpoint::new("b", 1883, false)];
    let identity = |name: &str| ClientIdentity { cert: name.into(), key: name.into(), is_candidate: name == "new" };
    let ours = Identities { candidate: Some(identity("new")), current: Some(identity("now")) };
    let with = |name| Endpoint::new("a", 8883, true).with_identity(identity(name));
    assert_eq!(ours.apply(&settings).endpoints, [vec![with("new"), with("now")], settings.endpoints.clone()].concat());
    assert_eq!(Identities::default().apply(&settings), settings);
}
