//! HTTP feeds on a real spool and real sockets of loopback: what is answered, what is stored, who is let in, and how a feed stops.

use super::*;
use crate::config::settings::KeySource;
use crate::limits::{GIB, MESSAGE_BYTES_MAX_RANGE};
use crate::record::{Lane, Record};
use crate::spool::{self, Item, Spool};
use std::os::unix::fs::PermissionsExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(30);

/// A spool with feeds `a` and `b`.
struct Bench {
    directory: tempfile::TempDir,
    board: Arc<Board>,
    spool: Spool,
    slots: LargeFrameSlots,
    ports: HttpPorts,
}

fn feed(name: &str) -> FeedId {
    FeedId::new(name).unwrap()
}

fn open(directory: &std::path::Path, board: &Arc<Board>) -> Spool {
    let options = spool::Options {
        path: directory.join("spool"),
        max_bytes: Some(GIB),
        key: KeySource::Auto,
        message_bytes_max: MESSAGE_BYTES_MAX_RANGE.0,
        feeds: vec![(feed("a"), Lane::Normal), (feed("b"), Lane::Normal)],
    };
    spool::open(options, board).unwrap()
}

fn settings() -> HttpSettings {
    HttpSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        split: HttpSplit::Whole,
        accept: Vec::new(),
        tokens_file: None,
        tokens_credential: None,
        peers: Vec::new(),
        connections_max: 8,
        body_bytes_max: 128 * 1024,
        body_timeout: PATIENCE,
        tls: None,
        stage: Stage::Live,
    }
}

struct Running {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").unwrap();
    }
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let board = Board::new([feed("a"), feed("b")]);
        let spool = open(directory.path(), &board);
        Self { directory, board, spool, slots: LargeFrameSlots::new(), ports: HttpPorts::default() }
    }

    /// The same spool after a restart.
    async fn reopened(self) -> Self {
        let Self { directory, board, spool, .. } = self;
        let Spool { appender, reader, closer, recent, lock, .. } = spool;
        drop((appender, reader));
        tokio::task::spawn_blocking(move || {
            recent.stop();
            closer.close();
        })
        .await
        .unwrap();
        drop(lock);
        let spool = open(directory.path(), &board);
        Self { directory, board, spool, slots: LargeFrameSlots::new(), ports: HttpPorts::default() }
    }

    fn start(&self, name: &str, settings: HttpSettings) -> Running {
        let bound = HttpFeed::bind(Parts {
            feed: feed(name),
            gateway: feed("gw"),
            settings,
            message_bytes_max: MESSAGE_BYTES_MAX_RANGE.0,
            appender: self.spool.appender.clone(),
            slots: &self.slots,
            board: &self.board,
            ports: &self.ports,
        })
        .unwrap();
        let addr = bound.local_addr();
        let (stop, stopped) = watch::channel(false);
        Running { addr, stop, task: tokio::spawn(bound.run(stopped)) }
    }

    fn tokens(&self, name: &str, lines: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, lines).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn records(&mut self, name: &str) -> Vec<Record> {
        let (mut after, mut records) = (0, Vec::new());
        while let Some(item) = self.spool.reader.next(&feed(name), after).unwrap() {
            let Item::Record(record) = item else { panic!("a gap") };
            after = record.seq;
            records.push(record);
        }
        records
    }
}

/// Status and everything of one answer.
async fn send(addr: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request).await.unwrap();
    answer(&mut stream).await
}

async fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // A reset behind the answer is as good as an end.
    drop(read.expect("an answer in time"));
    let text = String::from_utf8(bytes).unwrap();
    let status = text.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {text}")).parse().unwrap();
    (status, text)
}

fn post(path: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}").into_bytes()
}

const FHIR: &str = "Content-Type: application/fhir+json\r\n";
const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";
const DEVICE: &str = "{\"resourceType\":\"Device\",\"id\":\"7\"}";

fn ids(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '/' || c == '-')).filter(|word| word.starts_with("gw/a/")).collect()
}

/// I1: an id is told only of what the journal holds, byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_with_success_is_in_the_journal() {
    let mut bench = Bench::new();
    let running = bench.start("a", settings());
    let (status, text) = send(running.addr, &post("/feeds/a/Device", FHIR, DEVICE)).await;
    assert_eq!(status, 202, "{text}");
    let (status, lines) = send(running.addr, &post("/feeds/a", NDJSON, "{\"n\":1}\nbroken\n{\"n\":2}\n")).await;
    assert!(status == 202 && lines.contains("\"accepted\":2") && lines.contains("\"quarantined\":1"), "{lines}");
    let octets = "Content-Type: application/octet-stream\r\n";
    assert_eq!(send(running.addr, &post("/feeds/a", octets, "\u{1}<x>")).await.0, 202);
    running.stop().await;
    let records = bench.records("a");
    let bodies: Vec<&[u8]> = records.iter().map(|record| &record.body.expose()[..]).collect();
    assert_eq!(bodies, [DEVICE.as_bytes(), b"{\"n\":1}", b"{\"n\":2}", "\u{1}<x>".as_bytes()]);
    assert!(text.contains("OperationOutcome") && text.contains(&format!("gw/a/{}/1", records[0].incarnation)), "{text}");
    let types: Vec<&str> = records.iter().map(crate::contract::event::media_type).collect();
    assert_eq!(types, ["application/fhir+json", "application/json", "application/json", "application/octet-stream"]);
    let (entries, _) = bench.spool.monitor.quarantined(None, 10).unwrap();
    assert!(entries.len() == 1 && entries[0].peer.ends_with("line 2") && entries[0].code == "json_invalid", "{entries:?}");
}

/// I8: one key, one request, one set of ids, whatever happens in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_one_request_also_after_a_restart() {
    let mut bench = Bench::new();
    let keyed = format!("{NDJSON}Idempotency-Key: \"k-1\"\r\n");
    let request = post("/feeds/a", &keyed, "1\n2\nbad\n3\n");
    let running = bench.start("a", settings());
    let (status, first) = send(running.addr, &request).await;
    assert_eq!(status, 202, "{first}");
    assert_eq!(ids(&send(running.addr, &request).await.1), ids(&first));
    let other = send(running.addr, &post("/feeds/a", &keyed, "1\n2\nbad\n3\n4\n")).await;
    assert_eq!(other.0, 422, "{}", other.1);
    running.stop().await;
    let mut bench = {
        bench.records("a");
        bench.reopened().await
    };
    let running = bench.start("a", settings());
    let (status, again) = send(running.addr, &request).await;
    assert_eq!((status, ids(&again)), (202, ids(&first)), "the same answer");
    assert_eq!(send(running.addr, &post("/feeds/a", &keyed, "5\n")).await.0, 422);
    assert_eq!(send(running.addr, &post("/feeds/a", &format!("{keyed}Idempotency-Key: b\r\n"), "5\n")).await.0, 400);
    // Without a key every POST is a new one.
    for _ in 0..2 {
        assert_eq!(send(running.addr, &post("/feeds/a", NDJSON, "1\n")).await.0, 202);
    }
    running.stop().await;
    let records = bench.records("a");
    assert_eq!(records.len(), 5, "three of the key, two without");
    let keys: Vec<&[u8]> = records.iter().map(|record| &record.control_id[..]).collect();
    assert_eq!(keys[..4], [&b"k-1"[..], b"k-1#2", b"k-1#3", b""]);
    assert_eq!(bench.spool.monitor.quarantined(None, 10).unwrap().1, 1, "the unusable line once");
}

/// I8: of another request under a key no record is stored, however many more it holds and wherever its first record stands.
#[tokio::test(flavor = "multi_thread")]
async fn another_request_under_a_key_leaves_nothing() {
    let mut bench = Bench::new();
    let running = bench.start("a", settings());
    let keyed = format!("{NDJSON}Idempotency-Key: k\r\n");
    assert_eq!(send(running.addr, &post("/feeds/a", &keyed, "1\n")).await.0, 202);
    for body in ["1\n2\n3\n", "bad\n2\n3\n", "4\n"] {
        let (status, text) = send(running.addr, &post("/feeds/a", &keyed, body)).await;
        assert!(status == 422 && text.contains("\"durable\":0") && text.contains("no record of this one was stored"), "{status} {text}");
    }
    // Under another key the same body is taken.
    let other = format!("{NDJSON}Idempotency-Key: k2\r\n");
    assert_eq!(send(running.addr, &post("/feeds/a", &other, "1\n2\n3\n")).await.0, 202);
    running.stop().await;
    let bodies: Vec<Vec<u8>> = bench.records("a").iter().map(|record| record.body.expose().to_vec()).collect();
    assert_eq!(bodies, [b"1", b"1", b"2", b"3"]);
}

/// I8: under a key nothing is taken of which the beginning could be forgotten before the end is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_no_more_records_than_are_remembered() {
    let mut bench = Bench::new();
    let running = bench.start("a", settings());
    let keyed = |key: &str| format!("{NDJSON}Idempotency-Key: {key}\r\n");
    let most = crate::limits::HTTP_KEYED_RECORDS_MAX as usize;
    let (status, text) = send(running.addr, &post("/feeds/a", &keyed("k"), &"1\n".repeat(most + 1))).await;
    assert!(status == 413 && text.contains("under one Idempotency-Key"), "{status} {text}");
    for _ in 0..2 {
        assert_eq!(send(running.addr, &post("/feeds/a", &keyed("l"), &"1\n".repeat(most))).await.0, 202);
    }
    assert_eq!(send(running.addr, &post("/feeds/a", NDJSON, &"1\n".repeat(most + 1))).await.0, 202);
    running.stop().await;
    assert_eq!(bench.records("a").len(), 2 * most + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_prove_who_they_are_learn_which_feeds_there_are() {
    let bench = Bench::new();
    let hash = |token: &str| crate::record::Digest(<sha2::Sha256 as sha2::Digest>::digest(token.as_bytes()).into());
    let [mine, yours] = ["mine", "yours"].map(|who| bench.tokens(who, &format!("{who}:{}\n", hash(who))));
    let a = bench.start("a", HttpSettings { tokens_file: Some(mine), ..settings() });
    let b = bench.start("b", HttpSettings { listen: "127.0.0.1:0".parse().unwrap(), tokens_file: Some(yours), ..settings() });
    assert_eq!(a.addr, b.addr, "one port");
    let with = |token: &str| format!("{FHIR}Authorization: Bearer {token}\r\n");
    for (path, fields, expected) in [
        ("/feeds/a", FHIR.to_owned(), 401),
        ("/feeds/a", with("wrong"), 401),
        ("/feeds/nobody", with("wrong"), 401),
        ("/", FHIR.to_owned(), 401),
        ("/feeds/a", with("yours"), 403),
        ("/feeds/nobody", with("mine"), 404),
        ("/feeds/a", with("mine"), 202),
        ("/feeds/b", with("yours"), 202),
    ] {
        let (status, text) = send(a.addr, &post(path, &fields, DEVICE)).await;
        assert_eq!(status, expected, "{path} {fields}: {text}");
        assert_eq!(text.contains("www-authenticate: Bearer"), status == 401, "{text}");
    }
    let view = bench.board.feed(&feed("a")).registry.view(10);
    let shown = view.open.iter().chain(&view.ended).find(|connection| connection.acks.contains_key("202")).expect("it is shown");
    assert!(shown.peer.ends_with(" mine"), "{shown:?}");
    assert!(bench.board.conditions().iter().any(|condition| condition.code == "tls_refused"));
    a.stop().await;
    assert_eq!(send(b.addr, &post("/feeds/b", &with("yours"), DEVICE)).await.0, 202, "the port stays for the other feed");
    let addr = b.addr;
    b.stop().await;
    assert!(TcpStream::connect(addr).await.is_err(), "the last one closes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_status() {
    let bench = Bench::new();
    let running = bench.start("a", HttpSettings { split: HttpSplit::FhirBundle, ..settings() });
    let large = "x".repeat(MESSAGE_BYTES_MAX_RANGE.0 as usize + 1);
    let octets = "Content-Type: application/octet-stream\r\n";
    let chunked = |body: &str| {
        let size = body.len();
        let head = format!("POST /feeds/a HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{octets}\r\n");
        format!("{head}{size:x}\r\n{body}\r\n0\r\n\r\n").into_bytes()
    };
    for (request, expected, words) in [
        (post("/feeds/a", "Content-Type: application/fhir+xml\r\n", "<Device/>"), 415, "XML is not taken"),
        (post("/feeds/a", "Content-Type: text/plain\r\n", "x"), 415, "media type"),
        (post("/feeds/a", "", DEVICE), 415, "Content-Type"),
        (post("/feeds/a", &format!("{FHIR}Content-Encoding: gzip\r\n"), DEVICE), 415, "Content-Encoding"),
        (post("/feeds/a", FHIR, "{\"resourceType\":\"Bundle\",\"entry\":[{},"), 400, "json_cut"),
        (post("/feeds/a", FHIR, ""), 400, "empty"),
        (post("/feeds/a/Patient", FHIR, DEVICE), 400, "type in the path"),
        (post("/feeds/a", octets, &large), 413, "larger than"),
        (chunked(&large), 413, "larger than"),
        (b"GET /feeds/a HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n".to_vec(), 405, "allow: POST"),
        (b"PUT /feeds/a/Device/7 HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n".to_vec(), 404, "no such feed"),
        (b"nonsense\r\n\r\n".to_vec(), 400, ""),
        (chunked("as announced"), 202, "accepted"),
    ] {
        let (status, text) = send(running.addr, &request).await;
        assert_eq!(status, expected, "{words}: {text}");
        assert!(text.contains(words), "{words}: {text}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_end_costs_its_client_only() {
    let bench = Bench::new();
    let running = bench.start("a", HttpSettings { body_timeout: Duration::from_millis(300), connections_max: 1, ..settings() });
    let mut slow = TcpStream::connect(running.addr).await.unwrap();
    slow.write_all(b"POST /feeds/a HTTP/1.1\r\nHost: gw\r\nContent-Length: 10\r\nContent-Type: application/json\r\n\r\n[1").await.unwrap();
    let (status, text) = send(running.addr, &post("/feeds/a", "Content-Type: application/json\r\n", "1")).await;
    assert!(status == 429 && text.contains("retry-after: 5"), "above connections_max: {text}");
    assert_eq!(answer(&mut slow).await.0, 408);
    assert!(bench.board.conditions().iter().any(|condition| condition.code == "frame_unusable"));
    running.stop().await;
}

/// I1: whoever is told nothing keeps the message; whoever is under way at a stop is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_answered_at_stop_and_the_next_told_to_come_again() {
    let mut bench = Bench::new();
    let running = bench.start("a", settings());
    let mut slow = TcpStream::connect(running.addr).await.unwrap();
    slow.write_all(b"POST /feeds/a HTTP/1.1\r\nHost: gw\r\nContent-Length: 3\r\nContent-Type: application/json\r\n\r\n[").await.unwrap();
    let counters = bench.board.feed(&feed("a"));
    let shared = bench.ports_feed("a");
    while shared.under_way.borrow().requests == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.stop.send_replace(true);
    while !shared.under_way.borrow().stopping {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (status, text) = send(running.addr, &post("/feeds/a", "Content-Type: application/json\r\n", "1")).await;
    assert!(status == 503 && text.contains("retry-after: 10"), "{text}");
    slow.write_all(b"1]").await.unwrap();
    assert_eq!(answer(&mut slow).await.0, 202);
    running.stop().await;
    assert_eq!(bench.records("a").len(), 1);
    assert_eq!(counters.connections.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// A feed that is replaced while it serves, on its port or on another, leaves its successor the conditions that are its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_feed_takes_nothing_from_its_successor() {
    let bench = Bench::new();
    let raised = |code: &str| bench.board.conditions().iter().any(|condition| condition.code == code && condition.subject == "a");
    let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap();
    let open = |listen| HttpSettings { listen, ..settings() };
    let first = bench.start("a", open(port));
    assert!(raised("listener_open"));
    // Its successor is as open: on the same port, then on another one.
    let second = bench.start("a", HttpSettings { connections_max: 9, ..open(port) });
    first.stop().await;
    assert!(raised("listener_open"), "the second is open as well");
    let third = bench.start("a", open("0.0.0.0:0".parse().unwrap()));
    second.stop().await;
    assert!(raised("listener_open"), "the third is open as well");
    // Its successor asks for tokens, so it is not; and its tokens break.
    let text = format!("lab:{}\n", "0".repeat(64));
    let file = bench.tokens("tokens", &text);
    let fourth = bench.start("a", HttpSettings { tokens_file: Some(file.clone()), ..settings() });
    assert!(!raised("listener_open"));
    third.stop().await;
    std::fs::write(&file, "broken").unwrap();
    while !raised("feed_tokens_invalid") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The fifth has whole ones, and its predecessor's end does not bring that back.
    let fifth = bench.start("a", HttpSettings { tokens_file: Some(bench.tokens("others", &text)), ..settings() });
    assert!(!raised("feed_tokens_invalid"));
    fourth.stop().await;
    assert!(!raised("feed_tokens_invalid") && !raised("listener_open"));
    let last = bench.start("a", open(port));
    fifth.stop().await;
    assert!(raised("listener_open"));
    last.stop().await;
    assert!(!raised("listener_open"), "nobody serves any more");
}

impl Bench {
    fn ports_feed(&self, name: &str) -> Arc<Shared> {
        self.ports.feed(name).expect("it has joined")
    }
}
