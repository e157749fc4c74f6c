//! The page through its real server: what is answered to whom, and what hostile peers cost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use super::times::Now;
use super::*;
use crate::alerts::view::Window;
use crate::clock::{self, WallTime};
use crate::config::settings::{Network, StatusListen};
use crate::limits::{PAGE_CONNECTIONS_MAX, PAGE_HEAD_BYTES_MAX, PAGE_HEAD_FIELDS_MAX};
use crate::record::Name;
use crate::spool;
use crate::status::board::{ConfigTried, ExpectedView, UplinkState};
use crate::status::history::{EventView, Kind, OutageView};
use crate::status::snapshot::tests::example;
use std::time::Duration;

const NOW: WallTime = WallTime { unix_ms: clock::RELEASED_AT_MS + 3_600_000, suspect: false };

fn rendered(snapshot: &Snapshot, history: &HistoryView) -> String {
    render::page(snapshot, history, &Now { wall: NOW, zone: &TimeZone::UTC, zone_name: "UTC" })
}

#[test]
fn the_page_says_what_the_status_says() {
    let html = rendered(&example(), &HistoryView::default());
    for part in [
        "<title>✕ st-marys-gw1: 1 error, 1 warning</title>",
        "at <b>st-marys</b>",
        "mqtts://hub.example.org:8883",
        "Last error, overcome",
        "full in 2 h 0 min",
        "href=\"/runbook/listener_down\"",
        "port 2575 is in use",
        "old <small class=\"tag\">retired, drains</small>",
        "the local file",
        "<time datetime=\"2026-11-01T00:00:00.000Z\"",
        "1 h 0 min ago",
        "2026-11-01 01:00:00 UTC",
    ] {
        assert!(html.contains(part), "{part} is not in\n{html}");
    }
    let mut quiet = example();
    quiet.conditions.clear();
    assert!(rendered(&quiet, &HistoryView::default()).contains("<title>✓ st-marys-gw1: All is well</title>"));
}

fn window() -> Window {
    let at = clock::rfc3339(clock::RELEASED_AT_MS);
    let (who, reason) = ("kim".to_owned(), "line works".to_owned());
    Window { id: 1, feed: None, from: None, who, reason, set_at: at.clone(), for_s: 14_400, left_s: 7200, until: at }
}

/// Whoever looks at a quiet page is told that it is quiet because somebody silenced it, who, why and for how long; and of a document that was not kept.
#[test]
fn what_is_silenced_and_what_was_not_kept_is_said() {
    let mut snapshot = example();
    snapshot.maintenance = vec![window(), Window { id: 2, feed: Some(Name::new("or-usage").unwrap()), ..window() }];
    let reason = Some("feed `lab`: port 2575 is in use".to_owned());
    let at = clock::rfc3339(clock::RELEASED_AT_MS);
    snapshot.config.tried = Some(ConfigTried { revision: Some(9), state: "rolled_back".into(), code: None, reason, at });
    let html = rendered(&snapshot, &HistoryView::default());
    for part in [
        "Maintenance of <b>this gateway</b>",
        "Maintenance of <b>or-usage</b>",
        "for 2 h 0 min more. kim: line works",
        "revision 9: <b>rolled back</b>",
        "feed `lab`: port 2575 is in use",
    ] {
        assert!(html.contains(part), "{part} is not in\n{html}");
    }
}

/// I7, and nothing that came from outside becomes markup: names of endpoints, texts of errors, subjects, reasons.
#[test]
fn hostile_texts_are_shown_as_text() {
    const EVIL: &str = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>\u{202e}\u{1b}[2J";
    let mut snapshot = example();
    snapshot.uplink.endpoint = Some(EVIL.into());
    snapshot.uplink.last_error = Some(EVIL.into());
    snapshot.uplink.since = EVIL.into();
    for condition in &mut snapshot.conditions {
        (condition.subject, condition.text, condition.code, condition.since) = (EVIL.into(), EVIL.into(), EVIL.into(), EVIL.into());
    }
    snapshot.config.state = EVIL.into();
    snapshot.feeds[0].last_message_at = Some(EVIL.into());
    snapshot.feeds[0].lane = EVIL.into();
    snapshot.version = EVIL.into();
    snapshot.feeds[0].expected = Some(ExpectedView { silent: true, next: Some(EVIL.into()), last_arrival: None });
    snapshot.config.tried =
        Some(ConfigTried { revision: Some(9), state: EVIL.into(), code: None, reason: Some(EVIL.into()), at: EVIL.into() });
    snapshot.maintenance = vec![Window { who: EVIL.into(), reason: EVIL.into(), ..window() }];
    let history = HistoryView {
        known: Duration::from_hours(1),
        outages: vec![OutageView { began_ago: Duration::from_mins(3), ended_ago: None, why: EVIL.into() }],
        events: vec![EventView { ago: Duration::ZERO, kind: Kind::Configured, subject: EVIL.into(), text: EVIL.into() }],
        ..HistoryView::default()
    };
    let html = rendered(&snapshot, &history);
    assert!(!html.contains("<img") && !html.contains("<script>") && !html.contains('\u{1b}') && !html.contains('\u{202e}'), "{html}");
    assert!(!html.contains("\"'>"), "no attribute is left");
    assert!(html.matches("&lt;img src=x onerror=alert(1)&gt;").count() >= 16);
    let inline = html.matches("style=").count() + html.matches("onclick=").count() + html.matches("javascript:").count();
    assert_eq!(inline, 0, "the policy of the page forbids it");
}

/// I10: while the clock cannot be believed nothing is said of how long ago something was.
#[test]
fn a_clock_that_cannot_be_believed_is_said() {
    assert!(rendered(&example(), &HistoryView::default()).contains("class=\"ago\">, "), "it is said otherwise");
    for unix_ms in [5, NOW.unix_ms] {
        let wall = WallTime { unix_ms, suspect: true };
        let html = render::page(&example(), &HistoryView::default(), &Now { wall, zone: &TimeZone::UTC, zone_name: "UTC" });
        assert!(html.contains("by a clock that cannot be believed"));
        assert!(!html.contains("class=\"ago\">, "), "{html}");
    }
}

/// The colours of the style sheet by name, in the light and in the dark scheme.
fn palettes() -> [std::collections::BTreeMap<&'static str, [f64; 3]>; 2] {
    let css = include_str!("style.css");
    let (light, rest) = css.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let dark = rest.split_once("\n}\n").unwrap().0;
    [light, dark].map(|part| {
        let colours = part.lines().filter_map(|line| line.trim().strip_prefix("--")?.split_once(": #"));
        let channel = |hex: &str, at: usize| f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
        colours.map(|(name, hex)| (name, [0, 2, 4].map(|at| channel(hex, at)))).collect()
    })
}

fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
    let luminance = |[r, g, b]: [f64; 3]| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// WCAG AA: 4.5 for text on everything it stands on, 3 for what is drawn.
#[test]
fn every_text_and_every_drawing_has_contrast_in_both_schemes() {
    let text = [
        ("text", &["page", "card", "warning-back", "error-back"][..]),
        ("soft", &["page", "card"]),
        ("link", &["page", "card", "warning-back", "error-back"]),
        ("well", &["page", "card", "well-back"]),
        ("warning", &["page", "card", "warning-back"]),
        ("error", &["page", "card", "error-back"]),
    ];
    let drawn =
        [("bar-up", &["card"][..]), ("bar-down", &["card", "bar-up"][..1]), ("bar-unknown", &["card"]), ("bar-used", &["bar-room"])];
    for (scheme, palette) in palettes().iter().enumerate() {
        assert!(palette.len() >= 17, "{palette:?}");
        for (pairs, least) in [(&text[..], 4.5), (&drawn[..], 3.0)] {
            for (front, backs) in pairs {
                for back in *backs {
                    let ratio = contrast(palette[front], palette[back]);
                    assert!(ratio >= least, "{front} on {back} in scheme {scheme}: {ratio:.2}, needs {least}");
                }
            }
        }
    }
}

/// Of an empty spool; without the condition that its key lies beside it.
pub(super) fn source() -> Arc<Source> {
    let board = Board::new([]);
    let directory = tempfile::tempdir().unwrap();
    let options = spool::Options {
        path: directory.path().to_owned(),
        max_bytes: Some(64 * crate::limits::MIB),
        key: crate::config::settings::KeySource::Auto,
        message_bytes_max: crate::limits::MESSAGE_BYTES_MAX_RANGE.0,
        feeds: Vec::new(),
    };
    let spool = spool::open(options, &board).unwrap();
    board.clear(Code::SpoolKeyBesideSpool, "");
    board.set_uplink(UplinkState::Connected, "mqtts://hub", None);
    let name = |text| Name::new(text).unwrap();
    let reporter = Reporter::new(name("s"), name("g"), Arc::clone(&board), spool.monitor.clone());
    // It waits for the committer, which must not be done on a thread of the runtime.
    std::thread::spawn(move || spool.closer.close()).join().unwrap();
    Source::new(reporter, board, "UTC")
}

struct Served {
    address: SocketAddr,
    source: Arc<Source>,
    _serving: tokio::task::JoinHandle<()>,
}

fn settings(listen: StatusListen) -> StatusSettings {
    StatusSettings { listen, peers: Vec::new(), names: vec!["gw1.example".into()] }
}

fn served(adjust: impl FnOnce(&mut StatusSettings)) -> Served {
    let mut settings = settings(StatusListen::Tcp("127.0.0.1:0".parse().unwrap()));
    adjust(&mut settings);
    let listener = Listener::open(&settings.listen).unwrap().unwrap();
    let (address, source) = (listener.local_addr().unwrap(), source());
    let serving = tokio::spawn(server::serve(listener, settings, Arc::clone(&source)));
    Served { address, source, _serving: serving }
}

fn ask(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A reset behind the answer is an end too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

async fn asked(address: SocketAddr, request: &'static str) -> String {
    tokio::task::spawn_blocking(move || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        ask(stream, request)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_is_answered_and_nothing_can_be_done() {
    let served = served(|_| {});
    for (path, status, type_) in [
        ("/", 200, "text/html"),
        ("/status.json", 200, "application/json"),
        ("/healthz", 200, "text/plain"),
        ("/runbook", 200, "text/html"),
        ("/runbook/uplink_down", 200, "text/html"),
        ("/style.css", 200, "text/css"),
        ("/page.js", 200, "text/javascript"),
        ("/icon.svg", 200, "image/svg+xml"),
        ("/runbook/nothing", 404, "text/plain"),
        ("/../etc/passwd", 404, "text/plain"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = asked(served.address, request.leak()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
        for header in
            [&format!("content-type: {type_}")[..], "default-src 'none'", "nosniff", "cache-control: no-store", "connection: close"]
        {
            assert!(head.contains(header), "{path}: {header} is not in {head}");
        }
        assert!(!head.contains("access-control") && !head.contains("set-cookie") && !head.contains("unsafe"), "{head}");
        assert!(!body.is_empty());
    }
    let json = asked(served.address, "GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let snapshot: Snapshot = serde_json::from_str(json.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(snapshot.gateway.as_str(), "g");
    let head = asked(served.address, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let answer = asked(served.address, request.leak()).await;
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"), "{method}: {answer}");
    }
    served.source.board.raise(Code::UplinkDown, "", "a warning");
    tokio::time::sleep(PAGE_FRESH).await;
    let health = asked(served.address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("ok\n"), "nobody has to act on a warning: {health}");
    served.source.board.raise(Code::ListenerDown, "a", "port");
    tokio::time::sleep(PAGE_FRESH).await;
    let health = asked(served.address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(health.starts_with("HTTP/1.1 503") && health.ends_with("listener_down\n"), "{health}");
}

/// A scraper gets the dialect that it asks for, and the type says which one it is.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_answered_in_the_dialect_that_is_asked_for() {
    let served = served(|_| {});
    let plain = asked(served.address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 200") && plain.contains("content-type: text/plain; version=0.0.4"), "{plain}");
    assert!(plain.contains("\nsiteward_uplink_up 1\n") && !plain.contains("# EOF"), "{plain}");
    let asks = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";
    let open = asked(served.address, asks).await;
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0") && open.ends_with("# EOF\n"), "{open}");
}

/// However many ask at a time, the status is put together once.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_made_once_for_all_who_ask_at_a_time() {
    let source = source();
    let mut shared = 0;
    for _ in 0..50 {
        let began = Instant::now();
        let (first, second) = (source.snapshot(), source.snapshot());
        // It may have been old enough for another one at the second time; then it is not at the next.
        shared += u32::from(Arc::ptr_eq(&first, &second) || began.elapsed() >= PAGE_FRESH);
    }
    assert!(shared >= 40, "{shared} of 50");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_ours_is_not_answered() {
    let served = served(|_| {});
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: gw1.example:8090\r\n\r\n", "200"),
        ("GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", "200"),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
        ("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", "421"),
        ("GET /status.json HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
        ("GET /style.css HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", "421"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "400"),
        ("\u{16}\u{3}\u{1}\u{2}", "400"),
        ("GET\r\n\r\n", "400"),
    ] {
        let answer = asked(served.address, request).await;
        assert!(answer.split(' ').nth(1).unwrap_or_default() == status, "{request}: {answer}");
        assert!(status == "200" || !answer.contains("st-marys"), "{answer}");
    }
}

/// I4: whoever connects and says nothing, or says too much, takes nothing from others.
#[tokio::test(flavor = "multi_thread")]
async fn idle_and_endless_peers_leave_the_page_to_others() {
    let served = served(|_| {});
    let idle: Vec<TcpStream> = (0..4 * PAGE_CONNECTIONS_MAX).map(|_| TcpStream::connect(served.address).unwrap()).collect();
    for mut stream in idle.iter().skip(1).step_by(2) {
        // Reset already: its place was wanted.
        let _ = stream.write_all(b"GET / HT");
    }
    let answer = asked(served.address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(2 * PAGE_HEAD_BYTES_MAX));
    let answer = asked(served.address, head.leak()).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: x\r\n".repeat(2 * PAGE_HEAD_FIELDS_MAX));
    let answer = asked(served.address, many.leak()).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_among_the_peers_gets_nothing() {
    let network = crate::config::network_of("10.0.0.0/8").unwrap();
    let served = served(|settings| settings.peers = vec![network]);
    assert_eq!(asked(served.address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await, "");
    let everybody: Network = crate::config::network_of("0.0.0.0/0").unwrap();
    let served = super::tests::served(|settings| settings.peers = vec![everybody]);
    assert!(asked(served.address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_moves_with_the_settings_and_says_where_it_cannot_be_served() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("status.sock");
    let source = source();
    let (change, settings_at) = watch::channel(settings(StatusListen::Unix(socket.clone())));
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(run(Arc::clone(&source), settings_at, stopped));
    let until = |what: &'static str, ask: Box<dyn Fn() -> bool + Send>| async move {
        for _ in 0..3000 {
            if ask() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain: {what}");
    };
    let path = socket.clone();
    until("the socket", Box::new(move || path.exists())).await;
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let path = socket.clone();
    let answer =
        tokio::task::spawn_blocking(move || ask(UnixStream::connect(path).unwrap(), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert!(answer.await.unwrap().ends_with("ok\n"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    change.send_replace(settings(StatusListen::Tcp(taken.local_addr().unwrap())));
    let board = Arc::clone(&source.board);
    let is_told = move || board.conditions().iter().any(|condition| condition.code == "status_page_down");
    until("the condition", Box::new(is_told.clone())).await;
    assert!(!socket.exists(), "the old one is gone");
    change.send_replace(settings(StatusListen::Off));
    until("its end", Box::new(move || !is_told())).await;
    change.send_replace(settings(StatusListen::Unix(socket.clone())));
    let path = socket.clone();
    until("the socket again", Box::new(move || path.exists())).await;
    stop.send_replace(true);
    running.await.unwrap();
    assert!(!socket.exists());
}
