//! Sources that change, on real ports and a real spool.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::*;
use crate::config;
use crate::spool::{self, Spool};

/// Longer than anything here takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Rig {
    pub(super) directory: tempfile::TempDir,
    pub(super) sources: Sources,
    pub(super) board: Arc<Board>,
    spool: Spool,
    stop: (watch::Sender<bool>, watch::Receiver<bool>),
}

pub(super) fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `id=host:port` with an optional further line of `[feed.mllp]` behind a blank; `id=/directory` for a directory feed; `id=http:port` with an optional
/// further line of `[feed.http]` behind a blank.
fn feeds(written: &[&str]) -> Feeds {
    let mut text = "[gateway]\nsite=\"s\"\nid=\"g\"\ntimezone=\"UTC\"\n[spool]\npath=\"/nowhere\"\n[uplink]\nendpoints=[\"mqtt://h:1\"]\n\
                    allow_plaintext=true\n"
        .to_owned();
    for feed in written {
        let (id, rest) = feed.split_once('=').unwrap();
        text.extend(Some(format!("[[feed]]\nid=\"{id}\"\nstage=\"live\"\nforward=\"raw\"\nphi=\"allowed\"\n")));
        if rest.starts_with('/') {
            text.extend(Some(format!(
                "[feed.directory]\npath=\"{rest}\"\nsplit=\"lines\"\nscan=\"1s\"\nsettle=\"1s\"\nrequire_mount=false\n"
            )));
        } else if let Some(rest) = rest.strip_prefix("http:") {
            let (port, more) = rest.split_once(' ').unwrap_or((rest, ""));
            text.extend(Some(format!("[feed.http]\nlisten=\"127.0.0.1:{port}\"\n{more}\n")));
        } else {
            let (listen, more) = rest.split_once(' ').unwrap_or((rest, ""));
            text.extend(Some(format!("[feed.mllp]\nlisten=\"{listen}\"\n{more}\n")));
        }
    }
    Arc::from(config::parse_text(std::path::Path::new("/etc/t.toml"), &text).unwrap_or_else(|faults| panic!("{faults}\n{text}")).feeds)
}

impl Rig {
    pub(super) async fn new(written: &[&str]) -> Self {
        Self::under(SocketStore::default(), written).await
    }

    /// Where systemd keeps ports.
    pub(super) async fn under(sockets: SocketStore, written: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let board = Board::new([]);
        let first = feeds(written);
        let options = spool::Options {
            path: directory.path().join("spool"),
            max_bytes: Some(limits::SPOOL_BYTES_MIN),
            key: config::settings::KeySource::Auto,
            message_bytes_max: limits::MIB,
            feeds: first.iter().map(|feed| (feed.id.clone(), feed.lane)).collect(),
        };
        let opened = Arc::clone(&board);
        let spool = tokio::task::spawn_blocking(move || spool::open(options, &opened).unwrap()).await.unwrap();
        let (told, _) = watch::channel(Arc::from([]));
        let parts = Parts {
            gateway: crate::record::Name::new("gw1").unwrap(),
            appender: spool.appender.clone(),
            board: Arc::clone(&board),
            message_bytes_max: limits::MIB,
            told,
            sockets,
        };
        let pauses = Pauses::open(Arc::new(spool::disk::RealDisk), &directory.path().join("spool"));
        let (sources, _) = Sources::new(parts, pauses);
        let mut rig = Self { directory, sources, board, spool, stop: watch::channel(false) };
        assert_eq!(rig.apply(written).await, []);
        rig
    }

    pub(super) async fn apply(&mut self, written: &[&str]) -> Vec<FeedFault> {
        self.sources.apply(feeds(written), &self.stop.1).await.unwrap()
    }

    pub(super) fn conditions(&self) -> Vec<(&'static str, String)> {
        self.board.conditions().into_iter().filter(|c| c.code == "listener_down").map(|c| (c.code, c.subject)).collect()
    }

    pub(super) fn head(&self, feed: &str) -> u64 {
        self.spool.reader.head(&FeedId::new(feed).unwrap()).seq
    }
}

pub(super) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a message and takes its answer, off the runtime.
pub(super) async fn exchange(mut stream: TcpStream, id: &str) -> TcpStream {
    let id = id.to_owned();
    tokio::task::spawn_blocking(move || {
        write!(stream, "\x0BMSH|^~\\&|A|B|C|D|||ADT^A01|{id}|P|2.3\r\x1C\r").unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\x1C\r") {
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(String::from_utf8_lossy(&answer).contains(&format!("MSA|AA|{id}")));
        stream
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_feed_keeps_its_connections_while_others_come_change_and_go() {
    let [a, b, c, d] = [port(), port(), port(), port()];
    let [fa, fb, fc] = [format!("a=127.0.0.1:{a}"), format!("b=127.0.0.1:{b}"), format!("c=127.0.0.1:{c}")];
    let mut rig = Rig::new(&[&fa, &fb]).await;
    let steady = exchange(connect(a), "1").await;
    drop(exchange(connect(b), "1").await);
    assert_eq!(rig.apply(&[&fa, &format!("b=127.0.0.1:{d}"), &fc]).await, []);
    let steady = exchange(steady, "2").await;
    assert!(TcpStream::connect(("127.0.0.1", b)).is_err(), "nobody is at the old port");
    drop(exchange(connect(d), "2").await);
    drop(exchange(connect(c), "1").await);
    assert_eq!(rig.apply(&[&fa]).await, []);
    assert!(TcpStream::connect(("127.0.0.1", c)).is_err());
    drop(exchange(steady, "3").await);
    assert_eq!((rig.head("a"), rig.head("b"), rig.head("c")), (3, 2, 1));
    assert!(rig.spool.reader.feeds().iter().any(|feed| feed.id.as_str() == "b" && feed.retired), "it drains");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_feed_closes_its_port_and_no_other_and_comes_back_when_it_is_resumed() {
    let [a, b] = [port(), port()];
    let (fa, fb) = (format!("a=127.0.0.1:{a}"), format!("b=127.0.0.1:{b}"));
    let mut rig = Rig::new(&[&fa, &fb]).await;
    let (mut idle, steady) = (exchange(connect(a), "1").await, exchange(connect(b), "1").await);
    let feed = |name: &str| FeedId::new(name).unwrap();
    let paused = |rig: &Rig| rig.board.conditions().iter().any(|c| c.code == "feed_paused" && c.subject == "a" && c.text.contains("kim"));
    let told = rig.sources.set_paused(&feed("a"), Some(Pause::now("kim", "moving"))).await.unwrap();
    assert!(told.contains("a is paused") && paused(&rig), "{told}");
    assert!(TcpStream::connect(("127.0.0.1", a)).is_err());
    assert_eq!(tokio::task::spawn_blocking(move || idle.read(&mut [0]).unwrap()).await.unwrap(), 0, "its connection was closed");
    let steady = exchange(steady, "2").await;
    assert!(rig.sources.set_paused(&feed("a"), Some(Pause::now("lee", "too"))).await.unwrap().contains("already"));
    assert!(rig.sources.set_paused(&feed("x"), Some(Pause::now("lee", "too"))).await.unwrap_err().contains("no feed `x`"));
    // Neither another configuration nor what is tried again opens it; that it is closed is no fault.
    assert_eq!(rig.apply(&[&format!("{fa} idle_timeout=\"5m\""), &fb]).await, []);
    drop(rig.sources.reconcile(true).await);
    assert!(TcpStream::connect(("127.0.0.1", a)).is_err() && rig.conditions().is_empty());
    assert_eq!(rig.sources.evidence(), LocalEvidence::default());
    assert!(!rig.spool.reader.feeds().iter().any(|feed| feed.retired), "it is configured all the time");
    // Another run begins with what the file says.
    let again = Pauses::open(Arc::new(spool::disk::RealDisk), &rig.directory.path().join("spool"));
    assert!(again.is_paused(&feed("a")) && !again.is_paused(&feed("b")));
    assert_eq!(rig.sources.set_paused(&feed("a"), None).await.unwrap(), "feed a is resumed");
    assert!(!paused(&rig));
    drop(exchange(connect(a), "2").await);
    drop(exchange(steady, "3").await);
    assert_eq!((rig.head("a"), rig.head("b")), (2, 3));
}

/// Whoever resumes a feed hears what else keeps it closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_an_override_pauses_too_is_not_said_to_be_open() {
    let a = port();
    let mut rig = Rig::new(&[&format!("a=127.0.0.1:{a}")]).await;
    let (feed, hour) = (FeedId::new("a").unwrap(), Duration::from_secs(3600));
    rig.sources.set_paused(&feed, Some(Pause::now("kim", "moving"))).await.unwrap();
    let mut overrides = Overrides::default();
    let pause = crate::overrides::Change::Pause;
    let one = crate::overrides::Override::new(
        crate::overrides::Changed { feed: feed.clone(), change: pause },
        ("lee".into(), "too".into()),
        crate::clock::now(),
        hour,
    );
    overrides.set(one).unwrap();
    assert_eq!(rig.sources.lay_over(overrides, &rig.stop.1).await, Ok(vec![]));
    let told = rig.sources.set_paused(&feed, None).await.unwrap();
    assert!(told.contains("an override still pauses it; `siteward override clear --feed a`"), "{told}");
    assert!(TcpStream::connect(("127.0.0.1", a)).is_err());
}

/// Ports are exchanged between feeds, and a port goes over to another address of its own number and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_change_hands() {
    let [a, b] = [port(), port()];
    let mut rig = Rig::new(&[&format!("a=127.0.0.1:{a}"), &format!("b=127.0.0.1:{b}")]).await;
    assert_eq!(rig.apply(&[&format!("a=127.0.0.1:{b}"), &format!("b=127.0.0.1:{a}")]).await, []);
    drop(exchange(connect(b), "1").await);
    assert_eq!((rig.head("a"), rig.head("b")), (1, 0));
    for listen in [format!("0.0.0.0:{b}"), format!("127.0.0.1:{b}")] {
        assert_eq!(rig.apply(&[&format!("a={listen}")]).await, []);
        drop(exchange(connect(b), &listen).await);
    }
    assert_eq!(rig.head("a"), 3);
    // To a feed that is new, from one that is gone.
    assert_eq!(rig.apply(&[&format!("c=127.0.0.1:{b}")]).await, []);
    drop(exchange(connect(b), "1").await);
    assert_eq!(rig.head("c"), 1);
}

/// I6: what cannot be changed goes on as it was, says so, and mends when it can or when the change is taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_fails_leaves_the_feed_as_it_was() {
    let [a, b] = [port(), port()];
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = stranger.local_addr().unwrap().port();
    let (fa, fb) = (format!("a=127.0.0.1:{a}"), format!("b=127.0.0.1:{b}"));
    let mut rig = Rig::new(&[&fa, &fb]).await;
    let steady = exchange(connect(a), "1").await;
    // `b` wants the port that `a` cannot leave.
    let moved = [format!("a=127.0.0.1:{taken}"), format!("b=127.0.0.1:{a}")];
    let moved: Vec<&str> = moved.iter().map(String::as_str).collect();
    let mut faults = rig.apply(&moved).await;
    faults.sort_by(|x, y| x.feed.cmp(&y.feed));
    assert!(faults[0].reason.contains("another program") && faults[1].reason.contains("feed `a`"), "{faults:?}");
    assert_eq!((faults.len(), faults[0].key), (2, "feed.mllp.listen"));
    assert_eq!(rig.sources.evidence().unbound.len(), 2);
    let steady = exchange(steady, "2").await;
    drop(exchange(connect(b), "1").await);
    assert_eq!(rig.conditions().len(), 2);
    assert_eq!(rig.apply(&[&fa, &fb]).await, []);
    assert!(rig.conditions().is_empty());
    drop(exchange(steady, "3").await);
    // The port becomes free: the change is made without being asked for again.
    assert_eq!(rig.apply(&moved).await.len(), 2);
    drop(stranger);
    assert_eq!(rig.sources.reconcile(true).await, []);
    drop(exchange(connect(taken), "4").await);
    drop(exchange(connect(a), "2").await);
    assert_eq!((rig.head("a"), rig.head("b")), (4, 2));
    assert!(rig.conditions().is_empty());
    // An address that is none of this machine is not tried at the cost of the one that works.
    let elsewhere = format!("a=203.0.113.7:{taken}");
    assert_eq!(rig.apply(&[&elsewhere, moved[1]]).await.len(), 1);
    drop(exchange(connect(taken), "5").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_waits_for_peers_that_were_there_and_for_directories() {
    let [a, b] = [port(), port()];
    let (fa, fb) = (format!("a=127.0.0.1:{a}"), format!("b=127.0.0.1:{b}"));
    let mut rig = Rig::new(&[&fa, &fb]).await;
    drop(exchange(connect(a), "1").await);
    let input = rig.directory.path().join("in");
    let directory = format!("files={}", input.display());
    let changed = [format!("{fa} connections_max=9"), format!("{fb} connections_max=9"), directory];
    let changed: Vec<&str> = changed.iter().map(String::as_str).collect();
    assert_eq!(rig.apply(&changed).await, []);
    let evidence = rig.sources.evidence();
    assert_eq!(evidence.waiting_for_peers, [FeedId::new("a").unwrap()], "nobody ever came to `b`");
    assert_eq!(evidence.unreadable, [FeedId::new("files").unwrap()]);
    drop(exchange(connect(a), "2").await);
    std::fs::create_dir(&input).unwrap();
    tokio::time::timeout(PATIENCE, async {
        while rig.sources.evidence() != LocalEvidence::default() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the directory is there now");
}
