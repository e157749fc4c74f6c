//! The shell by itself: real sources, spool and ledger in a directory of their own, and a forwarder that is played by the test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::signal::unix::{SignalKind, signal};

use super::super::orders::Orders;
use super::super::report;
use super::*;
use crate::config::envelope::{self, DOCUMENT_TYPE};
use crate::config::trust::{self, Anchor, Anchors};
use crate::config::{self, Files, document};
use crate::forward::mail::{Errand, PostOffice, mail};
use crate::rollout::executor::Executor;
use crate::rollout::handle::{self, Handle};
use crate::rollout::start;
use crate::sources::paused::Pauses;
use crate::sources::{Parts, Sources};
use crate::spool::disk::{Disk, DiskFile, RealDisk, Space};
use crate::spool::{self, Spool};
use crate::status::condition::Code;
use crate::uplink::AckReason;
use crate::uplink::credentials::Identities;

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(seed: u8) -> [u8; 32] {
    key(seed).public_key().as_ref().try_into().unwrap()
}

fn trusting(seeds: &[u8]) -> Anchors {
    let anchor = |seed: &u8| Anchor::from_pem(trust::to_pem(&public(*seed)).as_bytes()).unwrap();
    Anchors::of(seeds.iter().map(anchor).collect(), 1, vec![], 1)
}

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn feed(id: &str, port: u16) -> String {
    format!("[[feed]]\nid = \"{id}\"\nforward = \"raw\"\nphi = \"allowed\"\n[feed.mllp]\nlisten = \"127.0.0.1:{port}\"\n")
}

fn local(directory: &Path, broker: u16, own: u16) -> PathBuf {
    let file = directory.join("siteward.toml");
    let spool = directory.join("spool");
    let text = format!(
        "[gateway]\nsite = \"s\"\nid = \"gw1\"\ntimezone = \"UTC\"\n[spool]\npath = \"{}\"\n[uplink]\nendpoints = [\"mqtt://127.0.0.1:{broker}\"]\n\
         allow_plaintext = true\n{}",
        spool.display(),
        feed("own", own)
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// A signed document; `more` is its uplink and its feeds.
fn signed(revision: u64, seed: u8, more: &str) -> Vec<u8> {
    let text = format!(
        "[document]\nschema_version = 1\nrevision = {revision}\ngateway = \"gw1\"\nauthor = \"kim\"\nreason = \"test\"\n[rollout]\ntrial = \"1h\"\n{more}"
    );
    let signature = key(seed).sign(&envelope::pae(DOCUMENT_TYPE, text.as_bytes()));
    envelope::write(DOCUMENT_TYPE, text.as_bytes(), &[(trust::key_id(&public(seed)), signature.as_ref().to_vec())]).into_bytes()
}

const ADDED: &str = "[[uplink.endpoint]]\nurl = \"mqtt://127.0.0.1:2\"\n";
const ACKED: UplinkEvidence = UplinkEvidence::Up { endpoint_is_new: false, acked_after_change: true };

struct Rig {
    directory: tempfile::TempDir,
    own: u16,
    shell: Shell,
    office: PostOffice,
    handle: Handle,
    board: Arc<Board>,
    spool: (spool::Appender, spool::Reader),
    _rest: (spool::Closer, spool::Lock, watch::Sender<bool>),
}

impl Rig {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = port();
        let board = Board::new([]);
        let started = started(directory.path(), own, Arc::new(RealDisk), &board);
        let feeds = &started.running.settings.feeds;
        let options = spool::Options {
            path: directory.path().join("spool"),
            max_bytes: Some(crate::limits::SPOOL_BYTES_MIN),
            key: config::settings::KeySource::Auto,
            message_bytes_max: crate::limits::MIB,
            feeds: feeds.iter().map(|feed| (feed.id.clone(), feed.lane)).collect(),
        };
        let opened = Arc::clone(&board);
        let Spool { appender, reader, closer, monitor, kept, resends, lock, .. } =
            tokio::task::spawn_blocking(move || spool::open(options, &opened).unwrap()).await.unwrap();
        let parts = Parts {
            gateway: crate::record::Name::new("gw1").unwrap(),
            appender: appender.clone(),
            board: Arc::clone(&board),
            message_bytes_max: crate::limits::MIB,
            told: watch::channel(Arc::from([])).0,
            sockets: crate::systemd::sockets::SocketStore::default(),
        };
        let (stop, stopped) = watch::channel(false);
        let pauses = Pauses::open(Arc::new(RealDisk), &directory.path().join("spool"));
        let (mut sources, source_handle) = Sources::new(parts, pauses);
        assert_eq!(sources.apply(Arc::from(feeds.as_slice()), &stopped).await, Ok(vec![]));
        tokio::spawn(sources.run(stopped));
        let uplink = started.ground.local_settings.uplink.clone();
        let (mail, office) = mail(uplink, Identities::default());
        let (handle, asked) = handle::open();
        let hangup = signal(SignalKind::hangup()).unwrap();
        let (renew, _) = watch::channel(None);
        let executor = Executor::bare(&mail, source_handle.clone(), &board, (monitor.clone(), kept, resends));
        let orders = Orders::new(&started.ground.local_settings, 0, executor);
        let local = report::Local { overrides: watch::channel(Vec::new()).1, secret_key: None };
        let means = Means { sources: source_handle, mail, board: Arc::clone(&board), monitor, asked, hangup, orders, renew, local };
        let shell = Shell::new(started, means, Instant::now());
        Self { directory, own, shell, office, handle, board, spool: (appender, reader), _rest: (closer, lock, stop) }
    }

    fn own_feed(&self) -> String {
        feed("own", self.own)
    }

    async fn take_in(&mut self, envelope: &[u8]) -> String {
        let (said, actions) = self.shell.document(envelope);
        self.shell.carry_out(actions).await;
        said.unwrap_or_else(|why| why)
    }

    async fn commit(&mut self, envelope: &[u8]) {
        self.take_in(envelope).await;
        assert_eq!(self.shell.machine.run_state(), RunState::Trial, "{:?}", self.shell.machine.tried());
        self.shell.evidence(ACKED).await;
        assert_eq!(self.shell.machine.run_state(), RunState::Committed);
    }

    async fn go_back(&mut self) {
        self.shell.input(Input::RollbackAsked { who: "kim".into(), why: "test".into() }, None).await;
    }

    /// What the forwarder was told to do since.
    async fn errands(&mut self) -> Vec<Errand> {
        let mut errands = Vec::new();
        loop {
            tokio::select! {
                biased;
                errand = self.office.errand() => errands.extend(errand),
                () = std::future::ready(()) => return errands,
            }
        }
    }

    /// The id of the reported state that was posted last, if any was.
    async fn reported(&mut self) -> Option<u64> {
        self.errands().await.into_iter().rev().find_map(|errand| match errand {
            Errand::Post(id, Letter::Reported(_)) => Some(id),
            _ => None,
        })
    }

    /// The feeds that drain, as reported last since.
    async fn retired_reported(&mut self) -> Option<Vec<String>> {
        let reported = self.errands().await.into_iter().rev().find_map(|errand| match errand {
            Errand::Post(_, Letter::Reported(payload)) => Some(payload),
            _ => None,
        });
        let reported: serde_json::Value = serde_json::from_slice(&reported?).unwrap();
        Some(reported["retired_feeds"].as_array().unwrap().iter().map(|feed| feed.as_str().unwrap().to_owned()).collect())
    }

    /// The forwarder takes no more.
    fn stuff(&self) {
        while self.shell.mail.post(Letter::Audit(Bytes::new())).is_ok() {}
    }

    fn endpoints(&self) -> usize {
        self.shell.running.settings.uplink.endpoints.len()
    }

    fn has(&self, code: Code) -> bool {
        self.board.conditions().iter().any(|condition| condition.code == code.as_str())
    }
}

fn started(directory: &Path, own: u16, disk: Arc<dyn Disk>, board: &Board) -> Started {
    let file = local(directory, 1, own);
    std::fs::create_dir_all(directory.join("spool")).unwrap();
    let settings = config::load(&file).unwrap_or_else(|faults| panic!("{faults}"));
    let mut ground = Ground::new(&file, settings).unwrap();
    ground.anchors = trusting(&[1, 2]);
    start::start(disk, ground, board, now(Instant::now())).unwrap()
}

/// I6: after a rollback the uplink gets its old endpoints back, however busy the forwarder was at the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uplink_settings_that_could_not_be_handed_back_are_handed_back_later() {
    let mut rig = Rig::new().await;
    rig.take_in(&signed(1, 1, &format!("{ADDED}{}", rig.own_feed()))).await;
    assert_eq!((rig.shell.machine.run_state(), rig.endpoints()), (RunState::Trial, 2));
    rig.stuff();
    rig.go_back().await;
    assert_eq!(rig.shell.machine.run_state(), RunState::Local);
    assert_eq!(rig.endpoints(), 2, "what runs is what the uplink has");
    rig.shell.tick().await;
    assert!(rig.shell.owed.is_some(), "no room yet");
    rig.errands().await;
    rig.shell.tick().await;
    assert!(rig.shell.owed.is_none() && rig.endpoints() == 1);
    let errands = rig.errands().await;
    assert!(matches!(&errands[0], Errand::Replace(uplink) if uplink.endpoints.len() == 1), "{errands:?}");
    assert!(errands.iter().any(|errand| matches!(errand, Errand::Post(_, Letter::Reported(_)))), "and it is reported as it is now");
}

/// I6: a trial never runs half: where the uplink does not take its settings the document is taken back with that as the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_whose_endpoints_cannot_be_handed_over_is_taken_back() {
    let mut rig = Rig::new().await;
    rig.stuff();
    rig.take_in(&signed(1, 1, &format!("{ADDED}{}", rig.own_feed()))).await;
    let tried = rig.shell.machine.tried().unwrap();
    assert_eq!((tried.state, tried.code.as_str(), rig.endpoints()), ("rolled_back", "not_applied", 1));
    assert_eq!(tried.reason, "it could not be put to use: the uplink did not take its settings: the forwarder takes no more letters now");
}

/// I6: a connection that comes and goes costs no trial: each new one is asked for the acknowledgement that is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_is_proven_over_the_connection_that_comes_back() {
    let mut rig = Rig::new().await;
    let (old, new) = (Endpoint::new("127.0.0.1", 1, false), Endpoint::new("127.0.0.1", 2, false).added(None));
    rig.office.up(old.clone());
    rig.take_in(&signed(1, 1, &format!("{ADDED}{}", rig.own_feed()))).await;
    let id = rig.reported().await.expect("the trial is reported");
    rig.office.answered(id, AckReason::Success);
    let uplink = rig.shell.proof.answer().await;
    rig.shell.evidence(uplink).await;
    assert_eq!(rig.shell.machine.run_state(), RunState::Trial, "the document's own endpoint has to answer");
    for endpoint in [old, new] {
        rig.office.down();
        rig.shell.linked().await;
        assert_eq!(rig.reported().await, None, "nobody is there");
        rig.office.up(endpoint);
        rig.shell.linked().await;
        let Some(id) = rig.reported().await else { continue }; // it has answered before
        rig.office.answered(id, AckReason::Success);
        let uplink = rig.shell.proof.answer().await;
        rig.shell.evidence(uplink).await;
    }
    assert_eq!(rig.shell.machine.run_state(), RunState::Committed);
}

/// I6: sources that do not answer cost the trial and no more; what ran before is put back as soon as they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_that_do_not_answer_end_the_trial_and_what_ran_is_owed() {
    let mut rig = Rig::new().await;
    let (deaf, _unheard) = SourcesHandle::deaf(Duration::from_millis(50));
    let real = std::mem::replace(&mut rig.shell.sources, deaf);
    rig.take_in(&signed(1, 1, &format!("{}{}", rig.own_feed(), feed("lab", port())))).await;
    let tried = rig.shell.machine.tried().unwrap();
    assert_eq!((tried.state, tried.code.as_str()), ("rolled_back", "not_applied"));
    assert!(tried.reason.starts_with("it could not be put to use: the feeds did not follow in 120 s; check"), "{}", tried.reason);
    assert!(rig.shell.owed.is_some());
    rig.shell.sources = real;
    rig.shell.tick().await;
    assert!(rig.shell.owed.is_none());
    rig.commit(&signed(2, 1, &rig.own_feed())).await;
    rig.shell.sources = SourcesHandle::deaf(Duration::from_millis(50)).0;
    rig.shell.evidence(ACKED).await; // comes back
}

/// A technician is answered when the document is durable; that its feeds take their time is no reason to say that nothing came of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_handed_over_on_site_is_answered_before_it_is_put_to_use() {
    let mut rig = Rig::new().await;
    let (deaf, _unheard) = SourcesHandle::deaf(Duration::from_mins(1));
    rig.shell.sources = deaf;
    let [first, second] = [1, 2].map(|revision| signed(revision, 1, &rig.own_feed()));
    let (stop, stopped) = watch::channel(false);
    let handle = rig.handle.clone();
    let running = tokio::spawn(rig.shell.run(stopped));
    let ask = move |envelope: Vec<u8>| {
        let (handle, envelope) = (handle.clone(), String::from_utf8(envelope).unwrap());
        tokio::task::spawn_blocking(move || handle.ask(Request::Apply { envelope }))
    };
    let done = "revision 1 is stored; it is put to use now and then on trial, and counts only when it is confirmed".to_owned();
    assert_eq!(ask(first).await.unwrap(), Ok(Response::Done { done }));
    assert!(ask(second).await.unwrap().unwrap_err().contains("is being worked on"), "the next one waits in the queue");
    running.abort();
    drop(stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hands_a_document_over_is_told_what_became_of_this_one() {
    let mut rig = Rig::new().await;
    let [first, second] = [1, 2].map(|revision| signed(revision, 1, &rig.own_feed()));
    rig.take_in(&first).await;
    assert_eq!(rig.take_in(&first).await, "revision 1 is on trial; it counts only when it is confirmed");
    assert_eq!(rig.take_in(&second).await, "revision 2 is stored and waits until the trial of another revision is over");
    let said = rig.take_in(b"{}").await;
    assert!(said.starts_with("the document: refused (not_an_envelope): "), "{said}");
    let other = signed(1, 1, &format!("{}{}", rig.own_feed(), feed("lab", port())));
    let said = rig.take_in(&other).await;
    assert!(said.starts_with("revision 1: refused (same_revision_other_content): "), "{said}");
    rig.shell.evidence(ACKED).await;
    rig.shell.evidence(ACKED).await;
    assert_eq!(rig.shell.machine.committed().0.revision(), 2);
    assert_eq!(rig.take_in(&second).await, "revision 2 runs already");
    assert!(rig.take_in(&first).await.starts_with("revision 1: refused (old_revision): "));
}

/// What is looked at is not what runs: `config_unverified` is about the latter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn showing_the_generation_before_says_nothing_about_what_runs() {
    let mut rig = Rig::new().await;
    rig.commit(&signed(1, 1, &rig.own_feed())).await;
    rig.commit(&signed(2, 2, &rig.own_feed())).await;
    rig.shell.ground.anchors = trusting(&[2]);
    let texts = rig.shell.texts().unwrap();
    assert_eq!((texts.committed.revision, texts.previous.map(|text| text.revision)), (2, Some(1)));
    assert!(!rig.has(Code::ConfigUnverified), "revision 2 runs, and its signature holds");
    rig.go_back().await;
    assert!(rig.has(Code::ConfigUnverified), "now revision 1 runs");
    rig.shell.texts().unwrap();
    assert!(rig.has(Code::ConfigUnverified));
    rig.commit(&signed(3, 2, &rig.own_feed())).await;
    assert!(!rig.has(Code::ConfigUnverified));
}

/// Nobody knows what sources run that gave no answer in time: they may have done what was asked. What is said to run is put to use again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_the_sources_do_not_answer_leaves_what_ran_owed() {
    let mut rig = Rig::new().await;
    let (ran, before) = (rig.shell.running.settings.feeds.clone(), local(rig.directory.path(), 1, port()));
    let (deaf, _unheard) = SourcesHandle::deaf(Duration::from_millis(50));
    let able = std::mem::replace(&mut rig.shell.sources, deaf);
    rig.shell.reload().await;
    assert!(before.exists() && rig.shell.owed.is_some());
    assert_eq!(rig.shell.running.settings.feeds, ran, "as it was, as far as is known");
    rig.shell.sources = able;
    rig.shell.tick().await;
    assert!(rig.shell.owed.is_none());
    assert_eq!(rig.shell.running.settings.feeds, ran);
}

/// I6: either both or neither: anchors that count, and the section that later documents have to repeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anchors_that_cannot_be_had_are_tried_until_they_can() {
    let mut rig = Rig::new().await;
    let before = rig.shell.ground.anchors.clone();
    let settings = &mut rig.shell.running.settings;
    let key: Arc<str> = trust::to_pem(&public(5)).into();
    settings.moved = Some(config::settings::Moved { endpoints: Vec::new(), keys: vec![key.clone()], threshold: 1 });
    settings.trust.inline_keys = vec!["no key".into()];
    rig.shell.settle().await;
    assert!(rig.shell.unsettled.as_ref().is_some_and(|why| why.contains("bootstrap.keys")), "{:?}", rig.shell.unsettled);
    assert_eq!((&rig.shell.ground.anchors, &rig.shell.ground.local.moved), (&before, &None));
    rig.shell.running.settings.trust.inline_keys = vec![key];
    rig.shell.settle().await;
    assert_eq!((&rig.shell.ground.anchors, &rig.shell.unsettled), (&trusting(&[5]), &None));
    assert!(rig.shell.ground.local.moved.is_some());
}

/// What SIGHUP does not put to use must not come into use by the next document.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_after_a_reload_is_merged_with_the_local_file_of_the_start() {
    let mut rig = Rig::new().await;
    local(rig.directory.path(), 9, port());
    rig.shell.reload().await;
    assert!(rig.shell.texts().unwrap().committed.text.contains("mqtt://127.0.0.1:9"), "as the file is now");
    assert_eq!(rig.shell.running.settings.uplink.endpoints[0].port, 1);
    let document = document::open(&signed(1, 1, &rig.own_feed()), &rig.shell.ground.anchors).unwrap();
    let wanted = rig.shell.ground.effective(&document, Files::NotChecked).unwrap();
    assert_eq!(wanted.settings.uplink.endpoints[0].port, 1, "as at the start");
}

/// The retained state names the feeds that drain for as long as they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retired_feed_is_reported_until_it_has_drained() {
    let mut rig = Rig::new().await;
    let gone = crate::record::FeedId::new("gone").unwrap();
    rig.commit(&signed(1, 1, &format!("{}{}", rig.own_feed(), feed("gone", port())))).await;
    rig.spool.0.append(message(&gone)).await.unwrap();
    rig.commit(&signed(2, 1, &rig.own_feed())).await;
    rig.shell.tick().await;
    assert_eq!(rig.retired_reported().await, Some(vec!["gone".to_owned()]));
    rig.shell.tick().await;
    assert_eq!(rig.retired_reported().await, None, "nothing new");
    let head = rig.spool.1.head(&gone);
    tokio::task::block_in_place(|| rig.spool.1.settle(&gone, crate::contract::Mark { seq: head.seq, chain: head.chain }));
    rig.shell.tick().await;
    assert_eq!(rig.retired_reported().await, Some(vec![]));
}

fn message(feed: &crate::record::FeedId) -> crate::record::Message {
    crate::record::Message {
        feed: feed.clone(),
        identity: None,
        body: crate::record::Payload::new(Bytes::from_static(b"x")),
        reply: crate::record::Payload::new(Bytes::new()),
        origin: crate::record::Origin::Peer("127.0.0.1:1".into()),
        received_at_ms: 1_793_491_200_000,
        clock_suspect: false,
        stage: crate::record::Stage::Live,
        batch_mismatch: false,
    }
}

/// What is missing on the gateway may be there another time: the same document is judged again when it comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_names_a_missing_file_is_judged_again() {
    let mut rig = Rig::new().await;
    let made = rcgen::generate_simple_self_signed(["siteward.test".to_owned()]).unwrap();
    let (cert, key) = (rig.directory.path().join("cert.pem"), rig.directory.path().join("key.pem"));
    let tls = format!("{}[feed.mllp.tls]\ncert = \"{}\"\nkey = \"{}\"\n", rig.own_feed(), cert.display(), key.display());
    let envelope = signed(1, 1, &tls);
    rig.take_in(&envelope).await;
    let tried = |rig: &Rig| rig.shell.machine.tried().map(|tried| (tried.state, tried.code.clone()));
    assert_eq!(tried(&rig), Some(("refused", "invalid".to_owned())));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    rig.take_in(&envelope).await;
    assert_eq!(rig.shell.machine.run_state(), RunState::Trial, "{:?}", tried(&rig));
    // What is wrong in the document itself stays wrong.
    rig.go_back().await;
    let wrong = rig.own_feed().replace("raw", "cooked");
    let document = document::open(&signed(2, 1, &wrong), &rig.shell.ground.anchors).unwrap();
    let refusal = rig.shell.ground.effective(&document, Files::Checked).unwrap_err();
    assert_eq!(super::super::intake::memory(&rig.shell.ground, &document, &refusal), super::super::facts::Memory::Final);
}

/// A disk on which documents cannot be read for some time.
#[derive(Debug)]
struct Flaky(AtomicU32);

impl Disk for Flaky {
    fn open_read(&self, path: &Path) -> std::io::Result<Box<dyn DiskFile>> {
        let is_document = path.extension().is_some_and(|extension| extension == "dsse");
        if is_document && self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(std::io::Error::other("the device did not answer"));
        }
        RealDisk.open_read(path)
    }
    fn create(&self, path: &Path, len: u64) -> std::io::Result<Box<dyn DiskFile>> {
        RealDisk.create(path, len)
    }
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> std::io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn list(&self, path: &Path) -> std::io::Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn space(&self, path: &Path) -> std::io::Result<Space> {
        RealDisk.space(path)
    }
}

/// I6: a disk that does not answer for a moment at the start costs no configuration; one that lost the document does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passing_read_error_at_the_start_is_no_lost_configuration() {
    let mut rig = Rig::new().await;
    rig.commit(&signed(1, 1, &rig.own_feed())).await;
    let start = |failures| {
        let started = started(rig.directory.path(), rig.own, Arc::new(Flaky(AtomicU32::new(failures))), &rig.board);
        started.machine.committed().0.revision()
    };
    assert_eq!(start(2), 1);
    assert_eq!(start(u32::MAX), 0);
}
