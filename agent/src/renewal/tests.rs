//! Renewals against a mailbox and a disk: what is asked, taken, proven, given up, remembered and told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio::time::Instant;

use super::handle::{self, Handle, Request};
use super::keeper::{Keeper, Means, has_not_ended};
use super::memory::Memory;
use super::trial::{Trial, Verdict};
use crate::clock::RELEASED_AT_MS;
use crate::config::settings::{ClientIdentity, Endpoint, RenewSettings};
use crate::contract::{CertificateState, RenewalState};
use crate::der::{Der, SEQUENCE, take};
use crate::forward::mail::{Errand, Letter, Office, Post, office};
use crate::record::Name;
use crate::spool::disk::{Disk, RealDisk};
use crate::spool::faulty::{Call, Faulty};
use crate::status::board::Board;
use crate::uplink::credentials::{Credentials, Identities};
use crate::uplink::scripted::some_settings;

fn hub() -> Endpoint {
    Endpoint::new("hub", 8883, true)
}

#[test]
fn only_an_acknowledged_publish_over_the_candidate_proves_it() {
    let identity = ClientIdentity { cert: "c".into(), key: "c".into(), is_candidate: true };
    let (start, time) = (Instant::now(), Duration::from_mins(15));
    let mut trial = Trial::new(identity.clone(), time);
    let (old, new) = (hub(), hub().with_identity(identity));
    assert_eq!(trial.judge(Some(&old), Some(&old), start), Verdict::Wait);
    assert_eq!(trial.judge(Some(&new), None, start), Verdict::Wait, "a connection alone proves nothing");
    assert_eq!(trial.judge(Some(&new), Some(&new), start), Verdict::Promote);
}

/// An outage says nothing against a certificate, however long it is and wherever the rotation comes back first.
#[test]
fn only_time_over_the_old_certificate_counts_and_an_outage_uses_up_none() {
    let identity = ClientIdentity { cert: "c".into(), key: "c".into(), is_candidate: true };
    let (start, time) = (Instant::now(), Duration::from_mins(15));
    let mut trial = Trial::new(identity.clone(), time);
    let (old, new) = (hub(), hub().with_identity(identity));
    let at = |minutes: u64| start + Duration::from_mins(minutes);
    assert_eq!(trial.judge(None, None, at(150)), Verdict::Wait);
    assert_eq!(trial.judge(Some(&old), Some(&old), at(151)), Verdict::Wait);
    assert_eq!(trial.judge(Some(&old), Some(&old), at(161)), Verdict::Wait, "ten minutes are spent");
    assert_eq!(trial.judge(None, None, at(162)), Verdict::Wait);
    assert_eq!(trial.judge(Some(&old), Some(&old), at(900)), Verdict::Wait, "back on an old endpoint after an outage of hours");
    assert_eq!(trial.judge(Some(&new), None, at(901)), Verdict::Wait);
    assert_eq!(trial.judge(Some(&old), Some(&old), at(902)), Verdict::Wait);
    assert_eq!(trial.judge(Some(&old), Some(&old), at(906)), Verdict::Wait, "fourteen");
    assert_eq!(trial.judge(Some(&old), Some(&old), at(907)), Verdict::GiveUp);
}

/// I10: ten years ahead, and nobody vouches for the clock.
#[test]
fn only_a_clock_that_is_believed_refuses_a_certificate_that_has_ended() {
    let end = RELEASED_AT_MS / 1000;
    assert!(has_not_ended(Some(end), None).is_ok());
    assert!(has_not_ended(Some(end), Some(RELEASED_AT_MS - 1)).is_ok());
    let told = has_not_ended(Some(end), Some(RELEASED_AT_MS)).unwrap_err().to_string();
    assert!(told.contains("at 2026-11-01"), "{told}");
}

#[test]
fn certificates_that_follow_each_other_share_the_time_of_one_trial() {
    let identity = |name: &str| ClientIdentity { cert: name.into(), key: name.into(), is_candidate: true };
    let (start, time) = (Instant::now(), Duration::from_mins(15));
    let mut trial = Trial::new(identity("a"), time);
    let mut verdicts = (0..=15).map(|minute| {
        trial.pass_on(identity("b"));
        trial.judge(Some(&hub()), None, start + Duration::from_mins(minute))
    });
    assert!(verdicts.by_ref().take(15).all(|verdict| verdict == Verdict::Wait));
    assert_eq!(verdicts.next(), Some(Verdict::GiveUp));
    assert!(!trial.had_all() && Trial::new(identity("a"), time).had_all(), "the last of them is not barred");
}

#[test]
fn what_is_remembered_is_bounded_and_damage_is_nothing() {
    let mut memory = Memory::default();
    for number in 0..100 {
        memory.asked(Some(&number.to_string()), Duration::from_secs(10));
        memory.refuse(&[number]);
    }
    assert!(memory.has_answered("99") && !memory.has_answered("1"));
    assert!(memory.has_refused(&[99]) && !memory.has_refused(&[98]), "another key, other certificates");
    assert_eq!(Memory::read(&memory.bytes()), memory);
    assert_eq!(Memory::read(b"{\"answered\":"), Memory::default());
}

/// A keeper, and everything around it.
struct Bench {
    spool: tempfile::TempDir,
    office: Office,
    board: Arc<Board>,
    renew: watch::Sender<Option<RenewSettings>>,
    handle: Handle,
    stop: watch::Sender<bool>,
    post: Post,
    task: tokio::task::JoinHandle<()>,
    authority: Issuer<'static, KeyPair>,
}

/// The key that a request asks for.
struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

async fn wait_until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn credentials(spool: &Path) -> Credentials {
    Credentials::open(Arc::new(RealDisk), spool)
}

impl Bench {
    fn open() -> Self {
        Self::on(tempfile::tempdir().unwrap())
    }

    fn on(spool: tempfile::TempDir) -> Self {
        Self::with(spool, Arc::new(RealDisk))
    }

    fn with(spool: tempfile::TempDir, disk: Arc<dyn Disk>) -> Self {
        let credentials = Credentials::open(disk, spool.path());
        let (mut mail, office) = office(some_settings(), credentials.identities());
        let (renew, wanted) = watch::channel(None);
        let (handle, asked) = handle::open();
        let board = Board::new([]);
        let (stop, stopped) = watch::channel(false);
        let post = mail.way_out();
        let means = Means {
            site: Name::new("s").unwrap(),
            gateway: Name::new("gw1").unwrap(),
            cert: None,
            credentials,
            post: mail.way_out(),
            book: crate::audit::Book::of_rig(&board),
            certificates: mail.certificates.take().unwrap(),
            wanted,
            asked,
            board: Arc::clone(&board),
        };
        let task = tokio::spawn(Keeper::new(means).run(stopped));
        let authority = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
        Self { spool, office, board, renew, handle, stop, post, task, authority }
    }

    /// The same spool under a new keeper.
    async fn again(self) -> Self {
        self.stop.send_replace(true);
        self.task.await.unwrap();
        Self::on(self.spool)
    }

    fn ask(&self, request: &str) {
        self.renew.send_replace(Some(RenewSettings { request: request.into(), trial: Duration::from_secs(1) }));
    }

    /// The next state that is published.
    async fn told(&mut self) -> CertificateState {
        loop {
            if let Letter::Certificate(payload) = self.office.letter().await {
                return serde_json::from_slice(&payload).unwrap();
            }
        }
    }

    fn sign(&self, csr: &str) -> String {
        let csr = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap();
        let mut info = Der(take(&mut Der(take(&mut Der(&csr), SEQUENCE).unwrap()), SEQUENCE).unwrap());
        let mut key = Der(info.nth(2).unwrap().1);
        let point = Point(key.nth(1).unwrap().1[1..].to_vec());
        CertificateParams::default().signed_by(&point, &self.authority).unwrap().pem()
    }

    fn identities(&self) -> Identities {
        credentials(self.spool.path()).identities()
    }

    /// Without opening the files as a start does, which would finish a promotion.
    fn has_current(&self) -> bool {
        self.spool.path().join("tls/current.pem").exists()
    }

    fn codes(&self) -> Vec<&'static str> {
        self.board.conditions().iter().map(|condition| condition.code).collect()
    }

    async fn show(&self) -> super::handle::View {
        let handle = self.handle.clone();
        tokio::task::spawn_blocking(move || handle.ask(Request::Show)).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_asks_once_and_a_proven_certificate_is_promoted() {
    let mut bench = Bench::open();
    bench.ask("2026-11");
    let asked = bench.told().await;
    assert_eq!((asked.state, asked.request.as_deref()), (RenewalState::Requested, Some("2026-11")));
    assert_eq!(bench.codes(), ["certificate_pending"]);
    // Redelivered, and after a restart: nothing new.
    let mut bench = bench.again().await;
    assert_eq!(bench.told().await.state, RenewalState::Requested, "what waits is told again");
    bench.ask("2026-11");
    let csr = bench.show().await.csr.unwrap();
    bench.office.certificate(&Bytes::from(bench.sign(&csr)));
    assert_eq!(bench.told().await.state, RenewalState::Trial);
    let candidate = bench.identities().candidate.unwrap();
    bench.office.stands(hub().with_identity(candidate));
    let done = bench.told().await;
    assert_eq!((done.state, done.last.map(|last| last.taken)), (RenewalState::Idle, Some(true)));
    assert!(bench.identities().current.is_some() && bench.identities().candidate.is_none());
    assert_eq!(bench.codes(), [""; 0]);
    // Back to an older document, and to the same.
    let mut bench = bench.again().await;
    assert_eq!(bench.told().await.state, RenewalState::Idle);
    bench.ask("2026-11");
    assert_eq!(bench.show().await.csr, None);
    bench.ask("2026-12");
    assert_eq!(bench.told().await.request.as_deref(), Some("2026-12"));
}

/// What failed once behind the rename is done a second later, and told as what it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_failed_behind_its_rename_ends_as_taken_wherever_the_connection_is_by_then() {
    let disk = Arc::new(Faulty::default());
    let mut bench = Bench::with(tempfile::tempdir().unwrap(), Arc::clone(&disk) as Arc<dyn Disk>);
    bench.ask("a");
    let csr = bench.told().await.csr.unwrap();
    bench.office.certificate(&Bytes::from(bench.sign(&csr)));
    assert_eq!(bench.told().await.state, RenewalState::Trial);
    disk.fail(&[Call::SyncDir]);
    let candidate = bench.identities().candidate.unwrap();
    bench.office.stands(hub().with_identity(candidate));
    wait_until(|| bench.has_current()).await;
    bench.office.stands(hub());
    let done = bench.told().await;
    assert_eq!((done.state, done.last.map(|last| last.taken)), (RenewalState::Idle, Some(true)));
    assert_eq!(bench.codes(), [""; 0]);
}

/// The forwarder has no room for a moment: the uplink must not go on with a file that is gone, and the hub must hear how it ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_uplink_had_no_room_for_is_handed_over_later() {
    let mut bench = Bench::open();
    bench.ask("a");
    let csr = bench.told().await.csr.unwrap();
    bench.office.certificate(&Bytes::from(bench.sign(&csr)));
    assert_eq!(bench.told().await.state, RenewalState::Trial);
    while bench.post.checkpoint().is_ok() {} // no room
    let candidate = bench.identities().candidate.unwrap();
    bench.office.stands(hub().with_identity(candidate));
    wait_until(|| bench.has_current()).await;
    let (mut followed, mut told) = (false, false);
    while !(followed && told) {
        match bench.office.errand().await {
            Errand::Replace(settings) => {
                followed = settings.endpoints.iter().all(|endpoint| endpoint.identity.as_ref().is_none_or(|own| !own.is_candidate));
            }
            Errand::Post(_, Letter::Certificate(payload)) => {
                let state: CertificateState = serde_json::from_slice(&payload).unwrap();
                told = state.last.is_some_and(|last| last.taken);
            }
            _ => {}
        }
    }
}

/// Whoever may publish there can have the public key of our request signed as often as he likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_certificates_that_fit_costs_one_trial_and_the_newest_waits() {
    let mut bench = Bench::open();
    bench.ask("a");
    let csr = bench.told().await.csr.unwrap();
    bench.office.certificate(&Bytes::from(bench.sign(&csr)));
    assert_eq!(bench.told().await.state, RenewalState::Trial);
    let before = std::fs::read(bench.identities().candidate.unwrap().cert).unwrap();
    for _ in 0..20 {
        bench.office.certificate(&Bytes::from(bench.sign(&csr)));
        wait_until(|| bench.office.is_read()).await;
        assert_eq!(bench.show().await.state, RenewalState::Trial);
    }
    assert_eq!(std::fs::read(bench.identities().candidate.unwrap().cert).unwrap(), before, "nothing was written");
    assert!(bench.office.is_idle(), "nothing was asked of the uplink");
    bench.office.stands(hub());
    assert_eq!(bench.told().await.state, RenewalState::Requested, "and the trial ended when it had to");
}

/// The candidate went with its key, and the rest failed: nothing is on trial, and that is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_failed_half_way_leaves_no_trial_without_a_candidate() {
    let disk = Arc::new(Faulty::default());
    let mut bench = Bench::with(tempfile::tempdir().unwrap(), Arc::clone(&disk) as Arc<dyn Disk>);
    bench.ask("a");
    let csr = bench.told().await.csr.unwrap();
    bench.office.certificate(&Bytes::from(bench.sign(&csr)));
    assert_eq!(bench.told().await.state, RenewalState::Trial);
    disk.fail(&[Call::Create]);
    let handle = bench.handle.clone();
    let again = Request::Renew { by: "kim".to_owned(), trial: Duration::from_secs(10) };
    let refused = tokio::task::spawn_blocking(move || handle.ask(again)).await.unwrap().unwrap_err();
    assert!(refused.contains("cannot be written"), "{refused}");
    assert_eq!(bench.told().await.state, RenewalState::Requested, "the key from before waits on");
    assert_eq!(bench.show().await.state, RenewalState::Requested);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_fit_is_refused_and_told_and_the_key_waits_on() {
    let mut bench = Bench::open();
    bench.ask("a");
    let csr = bench.told().await.csr.unwrap();
    let other = CertificateParams::new(["gw1".to_owned()]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    bench.office.certificate(&Bytes::from(other));
    let refused = bench.told().await;
    assert_eq!(refused.state, RenewalState::Requested);
    assert!(refused.last.is_some_and(|last| !last.taken && last.why.contains("do not belong together")));
    assert_eq!(bench.codes(), ["certificate_pending", "certificate_refused"]);
    bench.office.certificate(&Bytes::from(bench.sign(&csr)));
    assert_eq!(bench.told().await.state, RenewalState::Trial, "the right one is still taken");
    assert_eq!(bench.show().await.state, RenewalState::Trial);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_not_proven_is_given_up_with_the_reason_and_not_tried_twice() {
    let mut bench = Bench::open();
    bench.ask("a");
    let csr = bench.told().await.csr.unwrap();
    let certificate = Bytes::from(bench.sign(&csr));
    bench.office.certificate(&certificate);
    bench.told().await;
    let candidate = bench.identities().candidate.unwrap();
    bench.board.set_identity_fault(&candidate.cert, "mqtts://hub:8883: refused");
    bench.office.stands(hub());
    let told = bench.told().await;
    assert_eq!(told.state, RenewalState::Requested);
    assert!(told.last.is_some_and(|last| last.why.contains("within 1 s") && last.why.ends_with("mqtts://hub:8883: refused")));
    assert_eq!(bench.identities(), Identities::default());
    bench.office.certificate(&certificate);
    assert_eq!(bench.show().await.state, RenewalState::Requested);
    assert_eq!(bench.codes(), ["certificate_pending", "certificate_refused"]);
}

/// Whoever may publish there can send what he likes, as often as he likes.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_for_changes_nothing_and_is_not_told() {
    let bench = Bench::open();
    let other = CertificateParams::new(["gw1".to_owned()]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    bench.office.certificate(&Bytes::from(other));
    assert_eq!(bench.show().await.state, RenewalState::Idle);
    assert_eq!((bench.codes(), bench.identities()), (Vec::new(), Identities::default()));
    assert!(bench.spool.path().read_dir().unwrap().next().is_none(), "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_on_site_asks_installs_and_cancels() {
    let mut bench = Bench::open();
    let handle = bench.handle.clone();
    let ask = move |request: Request| {
        let handle = handle.clone();
        async move { tokio::task::spawn_blocking(move || handle.ask(request)).await.unwrap() }
    };
    let by = || "kim on site".to_owned();
    let nothing = ask(Request::Install { by: by(), chain: "x".into() }).await.unwrap_err();
    assert!(nothing.contains("no certificate in PEM"), "{nothing}");
    let view = ask(Request::Renew { by: by(), trial: Duration::from_secs(10) }).await.unwrap();
    let chain = bench.sign(&view.csr.unwrap());
    assert_eq!(bench.told().await.request, None);
    let view = ask(Request::Install { by: by(), chain }).await.unwrap();
    assert_eq!(view.state, RenewalState::Trial);
    let view = ask(Request::Cancel { by: by() }).await.unwrap();
    assert_eq!((view.state, view.csr), (RenewalState::Idle, None));
    assert_eq!((bench.codes(), bench.identities()), (Vec::new(), Identities::default()));
}
