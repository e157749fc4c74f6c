//! The shell over real sockets, against a store that does what the test says.

mod answers;
mod handover;

use super::*;
use crate::config::settings::{AnswerSettings, OnInvalid, OnStoreFailure};
use crate::limits::{MESSAGE_BYTES_MAX_RANGE, SOCKET_READ_BYTES};
use crate::record::{Message, Payload, Stage};
use crate::source::ack::Reply;
use crate::spool::AppendError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Longer than anything here takes; a test that needs it hangs otherwise.
const PATIENCE: Duration = Duration::from_secs(20);
const LIMIT: u64 = MESSAGE_BYTES_MAX_RANGE.0 * 4;

#[derive(Clone, Debug)]
enum Behaviour {
    Store,
    Fail(AppendError),
    Panic,
}

type Quarantined = Vec<(&'static str, Vec<u8>)>;

/// Shared between the listener and its test.
#[derive(Clone, Debug)]
pub(super) struct FakeStore {
    behaviour: Arc<Mutex<Behaviour>>,
    /// One permit lets one append end.
    gate: Arc<Semaphore>,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Stage, and whether the batch does not add up.
    stages: Arc<Mutex<Vec<(Stage, bool)>>>,
    quarantined: Arc<Mutex<Quarantined>>,
    appending: Arc<AtomicU64>,
}

impl FakeStore {
    fn new() -> Self {
        Self {
            behaviour: Arc::new(Mutex::new(Behaviour::Store)),
            gate: Arc::new(Semaphore::new(1_000_000)),
            bodies: Arc::default(),
            stages: Arc::default(),
            quarantined: Arc::default(),
            appending: Arc::default(),
        }
    }

    fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
        what.lock().unwrap()
    }

    fn set(&self, behaviour: Behaviour) {
        *Self::lock(&self.behaviour) = behaviour;
    }

    fn close_gate(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    pub(super) async fn append(&self, message: Message) -> Result<Reply, AppendError> {
        self.appending.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        let behaviour = Self::lock(&self.behaviour).clone();
        match behaviour {
            Behaviour::Store => {
                Self::lock(&self.stages).push((message.stage, message.batch_mismatch));
                Self::lock(&self.bodies).push(message.body.expose().to_vec());
                Ok(Reply::for_tests(message.reply))
            }
            Behaviour::Fail(error) => Err(error),
            Behaviour::Panic => panic!("a defect"),
        }
    }

    pub(super) fn quarantine(&self, _peer: &str, code: &'static str, bytes: &Payload) {
        Self::lock(&self.quarantined).push((code, bytes.expose().to_vec()));
    }
}

struct Rig {
    store: FakeStore,
    address: SocketAddr,
    board: Arc<Board>,
    feed: FeedId,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

fn settings() -> MllpSettings {
    MllpSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        on_store_failure: OnStoreFailure::Close,
        stage: Stage::Live,
        on_invalid: OnInvalid::Nak,
        answers: AnswerSettings::default(),
        connections_max: 16,
        frame_timeout: PATIENCE,
        idle_timeout: None,
        peers: Vec::new(),
        unframed: false,
        tls: None,
    }
}

fn listener(store: &FakeStore, settings: MllpSettings, board: &Arc<Board>, feed: &FeedId) -> MllpListener {
    let store = Store::Fake(store.clone());
    bind_to(store, feed.clone(), settings, board).unwrap()
}

fn bind_to(store: Store, feed: FeedId, settings: MllpSettings, board: &Arc<Board>) -> Result<MllpListener, BindError> {
    let port = Port::open(&crate::systemd::sockets::SocketStore::default(), &feed, settings.listen)?;
    MllpListener::on_to(&port, store, feed, settings, LIMIT, &LargeFrameSlots::new(), board)
}

impl Rig {
    fn new(settings: MllpSettings) -> Self {
        let (store, feed) = (FakeStore::new(), FeedId::new("f").unwrap());
        let board = Board::new([feed.clone()]);
        let listener = listener(&store, settings, &board, &feed);
        let (address, shared) = (listener.local_addr().unwrap(), Arc::clone(&listener.shared));
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(listener.run(stopped));
        Self { store, address, board, feed, shared, stop, running }
    }

    async fn peer(&self) -> Peer {
        Peer { stream: TcpStream::connect(self.address).await.unwrap() }
    }

    fn refused(&self) -> u64 {
        self.board.feed(&self.feed).refused.load(Ordering::Relaxed)
    }

    fn conditions(&self) -> Vec<&'static str> {
        self.board.conditions().iter().map(|c| c.code).collect()
    }

    fn quarantined(&self) -> Quarantined {
        FakeStore::lock(&self.store.quarantined).clone()
    }

    fn stored(&self) -> usize {
        FakeStore::lock(&self.store.bodies).len()
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let wait = async {
            while !what(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("it comes");
    }
}

struct Peer {
    stream: TcpStream,
}

fn framed(body: &[u8]) -> Vec<u8> {
    [b"\x0B", body, b"\x1C\r"].concat()
}

fn message(id: &str) -> Vec<u8> {
    framed(format!("MSH|^~\\&|A|B|C|D|||ADT^A01|{id}|P|2.3\rPID|1||CANARY\r").as_bytes())
}

fn large(id: &str, bytes: usize) -> Vec<u8> {
    let mut message = message(id);
    let end = message.split_off(message.len() - 2);
    message.resize(bytes, b'x');
    message.extend_from_slice(&end);
    message
}

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("it is read").unwrap();
    }

    /// MSA-1 and MSA-2 of the next reply.
    async fn answer(&mut self) -> String {
        let reply = async {
            let mut reply = Vec::new();
            while !reply.ends_with(b"\x1C\r") {
                reply.push(self.stream.read_u8().await.expect("a reply"));
            }
            reply
        };
        let reply = timeout(PATIENCE, reply).await.expect("an answer");
        let text = String::from_utf8(reply).unwrap();
        let msa = text.split('\r').find(|line| line.starts_with("MSA|")).expect("MSA");
        msa.split('|').skip(1).take(2).collect::<Vec<_>>().join(" ")
    }

    /// What comes before the other side closes. A reset counts as closing.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("it is closed");
        assert!(read.is_ok() || read.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));
        rest
    }

    async fn nothing_comes(&mut self) -> bool {
        timeout(Duration::from_millis(50), self.stream.read_u8()).await.is_err()
    }
}

/// I1: nothing is said before the store has the message.
#[tokio::test]
async fn a_sender_is_answered_only_after_the_store_has_its_message() {
    let rig = Rig::new(settings());
    rig.store.close_gate();
    let mut peer = rig.peer().await;
    peer.send(&message("1")).await;
    rig.until(|r| r.store.appending.load(Ordering::SeqCst) == 1).await;
    assert!(peer.nothing_comes().await);
    rig.store.gate.add_permits(1);
    assert_eq!(peer.answer().await, "AA 1");
    assert_eq!(FakeStore::lock(&rig.store.bodies)[0], message("1")[1..message("1").len() - 2], "stored as received");
}

#[tokio::test]
async fn frames_sent_at_once_are_answered_one_by_one_in_order_also_to_a_sender_that_closed_its_side() {
    let rig = Rig::new(settings());
    let mut peer = rig.peer().await;
    let all: Vec<u8> = (0..50).flat_map(|i| message(&i.to_string())).collect();
    peer.send(&all).await;
    peer.stream.shutdown().await.unwrap();
    for i in 0..50 {
        assert_eq!(peer.answer().await, format!("AA {i}"));
    }
    assert!(peer.rest().await.is_empty());
}

#[tokio::test]
async fn a_store_failure_closes_without_an_answer_and_new_connections_wait() {
    let rig = Rig::new(settings());
    let (mut first, mut second) = (rig.peer().await, rig.peer().await);
    second.send(&message("0")).await;
    assert_eq!(second.answer().await, "AA 0");
    rig.store.set(Behaviour::Fail(AppendError::Full("quota".into())));
    first.send(&message("1")).await;
    assert!(first.rest().await.is_empty());
    let mut third = rig.peer().await;
    third.send(&message("3")).await;
    rig.store.set(Behaviour::Store);
    assert!(third.nothing_comes().await, "it is not accepted yet");
    assert!(!rig.shared.pause.borrow().is_idle());
    second.send(&message("2")).await;
    assert_eq!(second.answer().await, "AA 2");
    assert_eq!(third.answer().await, "AA 3", "the store works again, so the pause is over");
    assert_eq!(rig.refused(), 1);
}

#[tokio::test]
async fn a_store_failure_is_answered_where_the_feed_says_so() {
    let rig = Rig::new(MllpSettings { on_store_failure: OnStoreFailure::Nak, ..settings() });
    let mut peer = rig.peer().await;
    rig.store.set(Behaviour::Fail(AppendError::Store("disk".into())));
    peer.send(&message("1")).await;
    assert_eq!(peer.answer().await, "AR 1");
    rig.store.set(Behaviour::Fail(AppendError::TooLarge { bytes: 1 }));
    peer.send(&message("2")).await;
    assert_eq!(peer.answer().await, "AR 2");
    rig.store.set(Behaviour::Store);
    peer.send(&message("3")).await;
    assert_eq!(peer.answer().await, "AA 3");
    assert!(rig.shared.pause.borrow().is_idle());
    rig.store.set(Behaviour::Fail(AppendError::Stopping));
    peer.send(&message("4")).await;
    assert!(peer.rest().await.is_empty(), "stopping is no reason to refuse anything");
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_and_the_next_one_is_taken() {
    let rig = Rig::new(settings());
    let mut peer = rig.peer().await;
    peer.send(&large("1", 5 * LIMIT as usize)).await;
    assert_eq!(peer.answer().await, "AR 1");
    peer.send(&message("2")).await;
    assert_eq!(peer.answer().await, "AA 2");
    assert_eq!((rig.refused(), rig.conditions(), rig.quarantined()[0].0), (1, vec!["frame_over_limit"], "over_limit"));
}

/// I4: more large frames than slots wait for each other, and all are taken.
#[tokio::test]
async fn large_frames_share_the_slots() {
    let rig = Rig::new(settings());
    rig.store.close_gate();
    let peers: Vec<_> = (0..8).map(|_| TcpStream::connect(rig.address)).collect();
    let mut senders = Vec::new();
    for (i, connecting) in peers.into_iter().enumerate() {
        let mut peer = Peer { stream: connecting.await.unwrap() };
        senders.push(tokio::spawn(async move {
            peer.send(&large(&i.to_string(), 200_000)).await;
            assert_eq!(peer.answer().await, format!("AA {i}"));
            peer.send(&message("small")).await;
            assert_eq!(peer.answer().await, "AA small");
        }));
    }
    rig.until(|r| r.store.appending.load(Ordering::SeqCst) == 3).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.store.appending.load(Ordering::SeqCst), 3, "one slot of its own and two shared");
    rig.store.gate.add_permits(1000);
    for sender in senders {
        sender.await.unwrap();
    }
}

#[tokio::test]
async fn half_a_frame_then_silence_is_closed_unanswered_and_kept() {
    let rig = Rig::new(MllpSettings { frame_timeout: Duration::from_millis(50), ..settings() });
    let mut peer = rig.peer().await;
    peer.send(b"\x0BMSH|^~\\&|half").await;
    assert!(peer.rest().await.is_empty());
    assert_eq!(rig.quarantined(), vec![("frame_timeout", b"MSH|^~\\&|half".to_vec())]);
    let mut peer = rig.peer().await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    peer.send(&message("1")).await;
    assert_eq!(peer.answer().await, "AA 1", "silence between frames costs nothing");
    assert_eq!(rig.conditions(), vec!["frame_unusable"]);
}

#[tokio::test]
async fn an_idle_connection_is_closed_only_where_the_feed_says_so() {
    let rig = Rig::new(MllpSettings { idle_timeout: Some(Duration::from_millis(50)), ..settings() });
    assert!(rig.peer().await.rest().await.is_empty());
}

#[tokio::test]
async fn half_a_frame_then_close_or_a_new_start_is_kept_and_not_answered() {
    let rig = Rig::new(settings());
    let mut peer = rig.peer().await;
    peer.send(&[b"\x0BMSH|first half", &message("1")[..]].concat()).await;
    assert_eq!(peer.answer().await, "AA 1");
    peer.send(b"\x0BMSH|second half").await;
    peer.stream.shutdown().await.unwrap();
    assert!(peer.rest().await.is_empty());
    let kept = vec![("frame_restarted", b"MSH|first half".to_vec()), ("connection_lost_in_frame", b"MSH|second half".to_vec())];
    assert_eq!(rig.quarantined(), kept);
}

#[tokio::test]
async fn what_is_not_mllp_is_closed_or_skipped_and_never_answered() {
    let rig = Rig::new(settings());
    for stranger in [&b"\x16\x03\x01\x00\xA5hello"[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &vec![b'z'; 70_000]] {
        let mut peer = rig.peer().await;
        // The other side may close before it has read everything.
        let _reset = peer.stream.write_all(stranger).await;
        assert!(peer.rest().await.is_empty());
    }
    let mut peer = rig.peer().await;
    peer.send(&[b"noise", &message("1")[..], b"\r\nnoise\0\0", &message("2")[..]].concat()).await;
    assert_eq!((peer.answer().await, peer.answer().await), ("AA 1".into(), "AA 2".into()));
    assert_eq!((rig.stored(), rig.conditions()), (2, vec!["frame_unusable"]));
}

#[tokio::test]
async fn frames_that_are_no_message_are_refused_and_kept_and_acknowledgements_are_dropped() {
    let rig = Rig::new(settings());
    let mut peer = rig.peer().await;
    peer.send(&framed(b"no header here")).await;
    assert_eq!(peer.answer().await, "AR ");
    peer.send(&framed(b"MSH|^~\\&|A|B|C|D|||ADT^A01||P|2.3\r")).await;
    assert_eq!(peer.answer().await, "AE ");
    peer.send(&framed(b"MSH|^~\\&|A|B|C|D|||ACK|9|P|2.3\rMSA|AA|1\r")).await;
    peer.send(&framed(b"\x06")).await;
    peer.send(&framed(b"MSH|^~\\&|A|B|C|D|||ADT|8|P|2.3|||NE|NE\r")).await;
    peer.send(&message("1")).await;
    assert_eq!(peer.answer().await, "AA 1", "nothing was said to the three before");
    assert_eq!((rig.stored(), rig.refused()), (2, 2));
    assert_eq!(rig.quarantined().iter().map(|(code, _)| *code).collect::<Vec<_>>(), ["no_header", "no_control_id"]);
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_takes_nothing_more() {
    let rig = Rig::new(settings());
    rig.store.close_gate();
    let (mut busy, mut idle) = (rig.peer().await, rig.peer().await);
    busy.send(&[message("1"), message("2")].concat()).await;
    rig.until(|r| r.store.appending.load(Ordering::SeqCst) == 1).await;
    rig.until(|r| r.board.feed(&r.feed).connections.load(Ordering::Relaxed) == 2).await;
    rig.stop.send_replace(true);
    assert!(idle.rest().await.is_empty());
    rig.store.gate.add_permits(10);
    assert_eq!(busy.answer().await, "AA 1");
    assert!(busy.rest().await.is_empty());
    timeout(PATIENCE, rig.running).await.expect("the listener ends").unwrap();
    assert!(TcpStream::connect(rig.address).await.is_err());
    assert_eq!(FakeStore::lock(&rig.store.bodies).len(), 1);
    assert_eq!(rig.board.feed(&rig.feed).connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn above_the_limit_the_connection_idle_longest_makes_room() {
    let rig = Rig::new(MllpSettings { connections_max: 2, ..settings() });
    let (mut first, mut second) = (rig.peer().await, rig.peer().await);
    for (i, peer) in [(1, &mut second), (0, &mut first)] {
        peer.send(&message(&i.to_string())).await;
        assert_eq!(peer.answer().await, format!("AA {i}"));
    }
    let mut third = rig.peer().await;
    assert!(second.rest().await.is_empty());
    for (i, peer) in [(2, &mut third), (0, &mut first)] {
        peer.send(&message(&i.to_string())).await;
        assert_eq!(peer.answer().await, format!("AA {i}"));
    }
}

#[tokio::test]
async fn a_panic_on_one_connection_leaves_the_others_and_the_listener_alone() {
    let rig = Rig::new(settings());
    let (mut first, mut second) = (rig.peer().await, rig.peer().await);
    rig.store.set(Behaviour::Panic);
    first.send(&message("1")).await;
    assert!(first.rest().await.is_empty());
    rig.store.set(Behaviour::Store);
    for peer in [&mut second, &mut rig.peer().await] {
        peer.send(&message("2")).await;
        assert_eq!(peer.answer().await, "AA 2");
    }
    rig.until(|r| r.board.feed(&r.feed).connections.load(Ordering::Relaxed) == 2).await;
}

#[tokio::test]
async fn a_peer_that_never_reads_its_replies_is_closed_and_its_message_is_safe() {
    let (store, feed) = (FakeStore::new(), FeedId::new("f").unwrap());
    let mut listener = listener(&store, settings(), &Board::new([feed.clone()]), &feed);
    Arc::get_mut(&mut listener.shared).unwrap().reply_timeout = Duration::from_millis(20);
    let (mut peer, ours) = tokio::io::duplex(40);
    let (seat, _) = listener.seats.take(1).unwrap();
    let serving = tokio::spawn(connection::serve(ours, "peer".into(), seat, listener.shared));
    let sending: Vec<u8> = (0..3).flat_map(|i| message(&i.to_string())).collect();
    // The other side stops reading in the middle of this.
    let _broken = timeout(PATIENCE, peer.write_all(&sending)).await.expect("the connection ends");
    timeout(PATIENCE, serving).await.expect("the connection ends").unwrap();
    assert_eq!(FakeStore::lock(&store.bodies).len(), 1, "the first message was stored before its reply was due");
}

#[test]
fn control_ids_of_replies_leave_room_for_two_more_letters_and_are_never_the_same() {
    let ids = ControlIds::new(u64::MAX);
    let some: std::collections::HashSet<String> = (0..100).map(|_| ids.next()).collect();
    assert_eq!(some.len(), 100);
    assert!(some.iter().all(|id| id.len() == 18 && id.bytes().all(|b| b.is_ascii_alphanumeric())));
}

/// I4: what is held for a connection is bounded by its allowance and one read.
#[test]
fn the_allowance_of_a_connection_covers_one_read() {
    const { assert!(crate::limits::FRAME_OWN_BYTES >= SOCKET_READ_BYTES) };
}
