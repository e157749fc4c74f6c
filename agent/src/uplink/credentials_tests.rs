//! A new certificate: only what fits and was proven replaces the old one.

use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::spool::disk::RealDisk;
use crate::uplink::AckReason;
use crate::uplink::scripted::some_settings;

fn credentials() -> (Credentials, TempDir) {
    let spool = tempfile::tempdir().unwrap();
    (Credentials::open(Arc::new(RealDisk), spool.path()).unwrap(), spool)
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
    let (credentials, _spool) = credentials();
    assert!(credentials.request("s.gw1").unwrap().contains("BEGIN CERTIFICATE REQUEST"));
    assert_eq!((credentials.candidate(), credentials.current()), (None, None));
    let identity = credentials.install(&certificate(&candidate_key(&credentials))).unwrap();
    assert_eq!((credentials.candidate(), credentials.current()), (Some(identity.clone()), None));
    assert_eq!(std::fs::metadata(&identity.key).unwrap().permissions().mode() & 0o777, 0o600);
    CertificateDer::from_pem_file(&identity.cert).unwrap();
    PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    let current = credentials.promote().unwrap();
    assert_eq!((credentials.candidate(), credentials.current()), (None, Some(current)));
    assert!(credentials.read(CANDIDATE_KEY).unwrap().is_none());
}

#[test]
fn a_certificate_for_another_key_is_refused_and_the_current_one_untouched() {
    let (credentials, _spool) = credentials();
    let other = KeyPair::generate().unwrap();
    assert!(matches!(credentials.install(&certificate(&other)), Err(CredentialError::NothingAsked)));
    credentials.adopt(&certificate(&other), &other.serialize_pem()).unwrap();
    let current = credentials.promote().unwrap();
    let before = std::fs::read(&current.cert).unwrap();
    credentials.request("s.gw1").unwrap();
    assert!(matches!(credentials.install(&certificate(&other)), Err(CredentialError::Mismatch(_))));
    assert!(matches!(credentials.install("nothing"), Err(CredentialError::NoCertificate)));
    assert!(matches!(credentials.adopt(&certificate(&other), "nothing"), Err(CredentialError::NoKeyFound)));
    assert!(matches!(credentials.promote(), Err(CredentialError::NoCandidate)));
    assert_eq!(std::fs::read(&current.cert).unwrap(), before);
}

#[test]
fn a_candidate_that_is_given_up_leaves_the_old_one_alone() {
    let (credentials, _spool) = credentials();
    let key = KeyPair::generate().unwrap();
    credentials.adopt(&certificate(&key), &key.serialize_pem()).unwrap();
    credentials.give_up().unwrap();
    assert_eq!((credentials.candidate(), credentials.current()), (None, None));
}

#[test]
fn only_an_acknowledged_publish_over_the_candidate_proves_it() {
    let identity = ClientIdentity { cert: "c".into(), key: "c".into() };
    let start = Instant::now();
    let trial = Trial::new(identity.clone(), start);
    let plain = Endpoint::new("hub", 8883, true);
    let over = |endpoint: &Endpoint, reason| Delivered { endpoint: endpoint.clone(), reason };
    let tried = plain.clone().with_identity(identity);
    assert_eq!(trial.judge(Some(&over(&plain, AckReason::Success)), None, start), Verdict::Wait);
    assert_eq!(trial.judge(Some(&over(&tried, AckReason::NotAuthorized)), None, start), Verdict::Wait);
    assert_eq!(trial.judge(Some(&over(&tried, AckReason::Success)), None, start), Verdict::Promote);
    match trial.judge(None, Some("mqtts://hub:8883: refused"), start + CANDIDATE_TRIAL) {
        Verdict::GiveUp(why) => assert!(why.contains("the old one stays") && why.ends_with("mqtts://hub:8883: refused"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_candidate_stands_before_every_tls_endpoint_and_replaces_none() {
    let mut settings = some_settings();
    settings.endpoints = vec![Endpoint::new("a", 8883, true), Endpoint::new("b", 1883, false)];
    let identity = ClientIdentity { cert: "c".into(), key: "c".into() };
    let with = with_candidate(&settings, &identity);
    let tried = Endpoint::new("a", 8883, true).with_identity(identity);
    assert_eq!(with.endpoints, [vec![tried], settings.endpoints].concat());
}
