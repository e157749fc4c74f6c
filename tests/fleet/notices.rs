//! What a network operations centre is told, what Prometheus reads, and what a watch shows.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::fleet::{Fleet, gateway, site};
use harness::net;
use harness::noc::Noc;
use harness::process::Process;
use harness::site::Site;
use harness::wait;
use serde_json::Value;

fn get(mut stream: impl Read + Write, accept: &str) -> Option<String> {
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.starts_with("HTTP/1.1 200") && head.contains(accept)).then(|| body.to_owned())
}

fn metric(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The page is as Prometheus wants it, in its own words.
fn promtool_agrees(page: &str) {
    let Ok(mut child) = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        println!("skipped: promtool is not installed, the metrics are not checked by it");
        return;
    };
    child.stdin.take().expect("piped").write_all(page.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "promtool says: {said}");
}

fn serve(fleet: &Fleet, noc: &Noc, metrics: &str) -> Process {
    let (directory, list) = (fleet.directory.path(), fleet.list().display().to_string());
    let headers = directory.join("headers");
    std::fs::write(&headers, "Authorization: Bearer s3cret\n").expect("the headers are written");
    let (alarms, headers) = (directory.join("alarms").display().to_string(), headers.display().to_string());
    let url = noc.url();
    let arguments = [
        &["fleet", "serve", "--metrics", metrics, "--webhook", &url, "--alarms", &alarms][..],
        &["--webhook-headers", &headers, "--expect", &list, "--offline-after", "1", "--runbook", "https://desk.example/RUNBOOK.md#"],
    ];
    super::desk(fleet, &arguments.concat(), &directory.join("serve.log"))
}

fn told(noc: &Noc, what: &str) {
    assert!(wait::try_until(wait::SOON, || noc.taken().iter().any(|told| told == what)), "{what} is not among {:?}", noc.taken());
}

/// Raised once each, also over a kill of whoever tells and over a receiver that was away; metrics say the same.
#[test]
fn a_noc_is_told_once_of_each_alarm_and_prometheus_reads_the_same() {
    let mut fleet = Fleet::new(3);
    fleet.assign_ports(); // and holds them: no gateway can listen
    fleet.sites.iter().for_each(Site::write_configuration);
    fleet.start(&[0, 1]);
    let noc = Noc::start();
    let port = net::free_port();
    let serving = serve(&fleet, &noc, &port.to_string());
    told(&noc, &format!("raise gateway_offline {}", gateway(2)));
    told(&noc, &format!("raise listener_down {}", gateway(0)));
    let first = noc.came().into_iter().find(|came| came.body["code"] == "gateway_offline").expect("told");
    assert_eq!((first.authorization.as_str(), first.path.as_str()), ("Bearer s3cret", "/hook?token=s3cret"));
    assert_eq!((&first.body["key"], &first.body["severity"]), (&first.key.as_str().into(), &"error".into()));
    assert_eq!(first.body["runbook"], "https://desk.example/RUNBOOK.md#gateway_offline");
    fleet.sites[1].kill();
    told(&noc, &format!("raise gateway_offline {}", gateway(1)));

    let page = get(TcpStream::connect(net::loopback(port)).expect("the port"), "text/plain").expect("a page");
    promtool_agrees(&page);
    let labels = |number: usize| format!("{{site=\"{}\",gateway=\"{}\"}}", site(number), gateway(number));
    assert_eq!(metric(&page, &format!("siteward_fleet_gateway_online{}", labels(0))), Some(1.0));
    assert_eq!(metric(&page, &format!("siteward_fleet_gateway_online{}", labels(1))), Some(0.0));
    assert_eq!(metric(&page, "siteward_fleet_gateways{state=\"never_seen\"}"), Some(1.0));
    let open = get(TcpStream::connect(net::loopback(port)).expect("the port"), "application/openmetrics-text").expect("a page");
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE siteward_fleet_messages counter\nsiteward_fleet_messages_total "));

    // Somebody works on the line of a gateway, which then is gone.
    let output = fleet.sites[0].command(&["maintenance", "start", "--gateway", "--for", "4h", "--reason", "works on the line"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let reads = |what: &str, number: usize| {
        let page = get(TcpStream::connect(net::loopback(port)).expect("the port"), "text/plain").expect("a page");
        metric(&page, &format!("siteward_fleet_gateway_{what}{}", labels(number)))
    };
    wait::wait_until("the desk knows of the window", wait::SOON, || reads("maintenance", 0) == Some(1.0));
    fleet.sites[0].kill();
    wait::wait_until("it is gone", wait::SOON, || reads("online", 0) == Some(0.0));
    assert_eq!([reads("maintenance", 0), reads("maintenance", 1)], [Some(1.0), Some(0.0)]);

    // Killed, and its receiver is away: what holds is not raised again, what is new waits.
    drop(serving);
    let before = noc.taken().len();
    noc.answers(503);
    let socket = fleet.directory.path().join("metrics.sock");
    let serving = serve(&fleet, &noc, &format!("unix:{}", socket.display()));
    fleet.start(&[2]);
    let refused = || noc.came().iter().filter(|came| came.status == 503).map(|came| came.key.clone()).collect::<Vec<_>>();
    wait::wait_until("the receiver refuses a notice twice", wait::SOON, || refused().len() >= 2);
    assert!(refused().windows(2).all(|pair| pair[0] == pair[1]), "one notice at a time, under one key");
    noc.answers(302);
    wait::wait_until("a redirect", wait::SOON, || noc.came().iter().any(|came| came.status == 302));
    noc.answers(200);
    told(&noc, &format!("raise listener_down {}", gateway(2)));
    assert!(noc.came().iter().all(|came| came.path.starts_with("/hook")), "a redirect was followed");
    let mut keys: Vec<String> = noc.came().iter().filter(|came| came.status == 200).map(|came| came.key.clone()).collect();
    let taken = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!((keys.len(), noc.taken().iter().filter(|told| told.ends_with(&gateway(0))).count()), (taken, 1), "{:?}", noc.taken());
    let page = get(UnixStream::connect(&socket).expect("the socket"), "text/plain").expect("a page");
    assert_eq!(metric(&page, &format!("siteward_fleet_gateway_maintenance{}", labels(0))), Some(1.0), "it outlives the kill of the desk");
    assert_eq!(metric(&page, "siteward_fleet_notices_waiting"), Some(0.0));
    if harness::long() {
        told_long(&noc, &format!("clear gateway_offline {}", gateway(2)));
    }
    let log = std::fs::read_to_string(fleet.directory.path().join("serve.log")).unwrap_or_default();
    assert!(!log.contains("s3cret"), "a secret is in the log");
    println!("notices: {before} before a kill, {} after it, each key taken once", taken - before);
    drop(serving);
}

/// An alarm is cleared a minute after it is over.
fn told_long(noc: &Noc, what: &str) {
    assert!(
        wait::try_until(Duration::from_mins(3), || noc.taken().iter().any(|told| told == what)),
        "{what} is not among {:?}",
        noc.taken()
    );
}

fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// One line for each change: who goes, who comes, what is the matter, which revision runs.
#[test]
fn a_watch_says_what_changes_and_nothing_else() {
    let mut fleet = Fleet::new(2);
    fleet.start(&[0, 1]);
    let log = fleet.directory.path().join("watch.jsonl");
    let watching = super::desk(&fleet, &["fleet", "watch", "--json"], &log);
    let state = |number: usize, state: &str| {
        let is = |line: &&Value| line["gateway"] == gateway(number).as_str() && line["what"] == "state" && line["state"] == state;
        lines(&log).iter().filter(is).count()
    };
    wait::wait_until("both are seen", wait::SOON, || state(0, "online") == 1 && state(1, "online") == 1);
    fleet.sites[1].kill();
    wait::wait_until("one is lost", wait::SOON, || state(1, "offline") == 1);
    fleet.start(&[1]);
    wait::wait_until("and comes back", wait::SOON, || state(1, "online") == 2);
    let envelope = fleet.document(0, 7, net::free_port());
    assert!(fleet.push(0, &envelope, &fleet.desk).status.success());
    let runs = || lines(&log).iter().any(|line| line["gateway"] == gateway(0).as_str() && line["config"] == "7");
    wait::wait_until("the revision", wait::SOON, runs);
    assert_eq!((state(0, "online"), state(0, "offline")), (1, 0), "nothing is said twice");
    drop(watching);
}
