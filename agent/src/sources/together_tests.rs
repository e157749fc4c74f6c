//! HTTP feeds and listeners that need each other's ports, kinds of source that change, and sources that end by themselves.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::tests::{PATIENCE, Rig, connect, exchange, port};

/// Status of a POST without TLS; 0 where nobody understands it.
async fn post(port: u16, feed: &str) -> u16 {
    let request = format!(
        "POST /feeds/{feed} HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n1"
    );
    tokio::task::spawn_blocking(move || {
        let mut stream = connect(port);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end.
        drop(stream.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    })
    .await
    .unwrap()
}

/// A certificate and its key; their lines of a `tls` section.
fn tls(directory: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!("[feed.http.tls]\ncert=\"{}\"\nkey=\"{}\"", cert.display(), key.display())
}

/// TLS of a port that two feeds share changes for both at once, while they run; not for one of them, and not at the cost of what runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_port_gets_tls_for_all_of_its_feeds() {
    let p = port();
    let (fa, fb) = (format!("a=http:{p}"), format!("b=http:{p}"));
    let mut rig = Rig::new(&[&fa, &fb]).await;
    let tls = tls(rig.directory.path());
    let (ta, tb) = (format!("{fa} {tls}"), format!("{fb} {tls}"));
    // Certificates that are not there interrupt nobody.
    let missing = tls.replace("cert.pem", "none.pem");
    let faults = rig.apply(&[&format!("{fa} {missing}"), &format!("{fb} {missing}")]).await;
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert_eq!((post(p, "a").await, post(p, "b").await), (202, 202), "they go on as they were");
    assert_eq!(rig.apply(&[&ta, &tb]).await, []);
    assert_eq!((post(p, "a").await, rig.conditions()), (0, vec![]), "plain text is not understood any more");
    assert_eq!(rig.apply(&[&fa, &fb]).await, []);
    assert_eq!((post(p, "a").await, post(p, "b").await), (202, 202));
    assert_eq!((rig.head("a"), rig.head("b")), (2, 2));
}

/// I6: what can only change together and cannot is put back together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_exchanged_between_kinds_or_all_is_put_back() {
    let [p, q, r] = [port(), port(), port()];
    let (fa, fb) = (format!("a=http:{p}"), format!("b=127.0.0.1:{q}"));
    let mut rig = Rig::new(&[&fa, &fb]).await;
    // One leaves what the other one takes.
    let (ma, mb) = (format!("a=http:{r}"), format!("b=127.0.0.1:{p}"));
    assert_eq!(rig.apply(&[&ma, &mb]).await, []);
    assert_eq!(post(r, "a").await, 202);
    drop(exchange(connect(p), "1").await);
    // The other way round, and then a real exchange.
    assert_eq!(rig.apply(&[&fa, &fb]).await, []);
    let (ma, mb) = (format!("a=http:{q}"), format!("b=127.0.0.1:{p}"));
    assert_eq!(rig.apply(&[&ma, &mb]).await, []);
    assert_eq!(post(q, "a").await, 202);
    drop(exchange(connect(p), "2").await);
    assert_eq!((rig.head("a"), rig.head("b"), rig.conditions()), (2, 2, vec![]));
    // A stranger keeps one of them from its new place: both stay where they are.
    let stranger = std::net::TcpListener::bind(("127.0.0.2", q)).unwrap();
    let faults = rig.apply(&[&fa, &format!("b=0.0.0.0:{q}")]).await;
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert_eq!(post(q, "a").await, 202);
    drop(exchange(connect(p), "3").await);
    let told = rig.board.conditions();
    assert!(told.iter().filter(|c| c.code == "listener_down").all(|c| c.text.contains("goes on as it was")), "{told:?}");
    drop(stranger);
    assert_eq!(rig.apply(&[&ma, &mb]).await, []);
    assert!(rig.conditions().is_empty());
}

/// A feed becomes another kind of source on its own port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_changes_its_kind_on_its_port() {
    let p = port();
    let (http, mllp) = (format!("a=http:{p}"), format!("a=127.0.0.1:{p}"));
    let mut rig = Rig::new(&[&http]).await;
    assert_eq!(rig.apply(&[&mllp]).await, []);
    drop(exchange(connect(p), "1").await);
    assert_eq!(rig.apply(&[&http]).await, []);
    assert_eq!(post(p, "a").await, 202);
    let directory = format!("a={}", rig.directory.path().display());
    assert_eq!(rig.apply(&[&directory, &format!("b=127.0.0.1:{p}")]).await, []);
    drop(exchange(connect(p), "1").await);
    assert_eq!((rig.head("a"), rig.head("b"), rig.conditions()), (2, 1, vec![]));
}

/// I6: a directory feed whose new port somebody else has goes on as a directory feed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_cannot_be_had_leaves_the_one_before() {
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = stranger.local_addr().unwrap().port();
    let input = tempfile::tempdir().unwrap();
    let directory = format!("a={}", input.path().display());
    let mut rig = Rig::new(&[&directory]).await;
    for wanted in [format!("a=127.0.0.1:{taken}"), format!("a=http:{taken}")] {
        assert_eq!(rig.apply(&[&wanted]).await.len(), 1);
        assert_eq!(rig.sources.reconcile(true).await.len(), 1);
        let told = rig.board.conditions();
        assert!(told.iter().any(|c| c.code == "listener_down" && c.text.contains("goes on as it was")), "{told:?}");
        let before = rig.head("a");
        std::fs::write(input.path().join(format!("{before}.txt")), "a row\n").unwrap();
        tokio::time::timeout(PATIENCE, async {
            while rig.head("a") == before {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("the directory is read");
    }
}

/// A change that needs the feed's port waits for a slow body under way, longer than a listener takes to let go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_upload_does_not_keep_its_port_from_changing() {
    let p = port();
    let http = format!("a=http:{p} body_timeout=\"7s\"");
    let mut rig = Rig::new(&[&http]).await;
    let mut slow = connect(p);
    slow.write_all(b"POST /feeds/a HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n1").unwrap();
    while rig.sources.http_ports.requests("a") == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tls = tls(rig.directory.path());
    assert_eq!(rig.apply(&[&format!("{http}\n{tls}")]).await, []);
    assert_eq!((post(p, "a").await, rig.conditions()), (0, vec![]), "it asks for TLS now");
    drop(slow);
}

/// A source that has ended without being told to does not count as running, and is started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_whose_port_has_ended_is_opened_again() {
    let p = port();
    let http = format!("a=http:{p}");
    let mut rig = Rig::new(&[&http]).await;
    rig.sources.http_ports.end_all();
    tokio::time::timeout(PATIENCE, async {
        while rig.sources.evidence().unbound.is_empty() {
            rig.sources.drop_ended();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("its end is seen");
    assert_eq!(rig.conditions().len(), 1, "and told");
    assert_eq!(rig.sources.reconcile(true).await, []);
    assert_eq!((post(p, "a").await, rig.conditions()), (202, vec![]));
}
