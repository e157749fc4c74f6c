//! HTTP feeds end to end: curl and a client of our own, a real broker and hub, and an agent that is killed.
//!
//! What was answered with success is at the hub, byte for byte and once; what is too much, too slow or from a stranger is told so and costs nobody
//! else. `SITEWARD_LONG=1` takes more posts and kills, and FHIR clients that others wrote (`tests/clients/fhir`, from PyPI).

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::files::{FileEvent, read_events};
use harness::gateway::Gateway;
use harness::http::{Answer, HttpFeed, connect};
use harness::mosquitto;
use harness::pki::{Identity, Pki};
use harness::scene::{Directory, Scene};
use harness::wait;

const FHIR: &str = "application/fhir+json";
const MIB: usize = 1 << 20;

/// A running scene with one HTTP feed.
fn scene(lines: &str) -> (Scene, HttpFeed) {
    let feed = HttpFeed::new("fhir");
    let section = feed.section(lines);
    let mut scene =
        Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| configuration.sections.push(section));
    scene.start();
    listening(&feed);
    (scene, feed)
}

fn gateway(lines: &str, adjust: impl FnOnce(&mut harness::site::Configuration)) -> (Gateway, HttpFeed) {
    let feed = HttpFeed::new("fhir");
    let section = feed.section(lines);
    let gateway = Gateway::start(|configuration| {
        configuration.sections.push(section);
        adjust(configuration);
    });
    listening(&feed);
    (gateway, feed)
}

fn listening(feed: &HttpFeed) {
    wait::wait_until("the HTTP port", wait::EVENTUALLY, || harness::net::listening(feed.addr()));
}

fn events(scene: &Scene, enough: usize) -> Vec<FileEvent> {
    let out = scene.hub.out();
    let found = wait::try_until(wait::EVENTUALLY, || read_events(&out, "fhir").0.len() >= enough);
    let (events, complaints) = read_events(&out, "fhir");
    assert!(found, "{} of {enough} events; the agent's log ends with:\n{}", events.len(), scene.site.log_tail());
    assert_eq!(complaints, Vec::<String>::new());
    events
}

fn device(number: u64, padding: usize) -> String {
    format!("{{\"resourceType\":\"Device\",\"id\":\"{number}\",\"note\":[{{\"text\":\"{}\"}}]}}", "x".repeat(padding))
}

/// Status, head and body as curl saw them.
fn curl(url: &str, arguments: &[&str], body: &Path) -> (u16, String, Output) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--include", "--max-time", "60", "--data-binary"]).arg(format!("@{}", body.display()));
    let output = command.args(arguments).arg(url).output().expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().filter(|line| line.starts_with("HTTP/1.1 ")).rfind(|line| !line.contains(" 100 "));
    (last.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0), text, output)
}

fn write(directory: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).expect("a file for curl");
    path
}

/// I1: what curl posts is at the hub byte for byte: a resource, a Bundle by entries, NDJSON by lines with a bad one in quarantine, bytes.
#[test]
fn what_curl_posts_is_at_the_hub_byte_for_byte() {
    let (mut scene, feed) = scene("split = \"fhir_bundle\"\naccept = [\"text/csv\"]");
    let directory = scene.directory.path().to_owned();
    let url = feed.url("http");
    let entries: Vec<String> =
        (10..40).map(|n| format!("{{ \"resource\" : {},\n\"request\":{{\"method\":\"POST\"}}}}", device(n, 2000))).collect();
    let bundle = format!("\n{{\"resourceType\":\"Bundle\",\"type\":\"transaction\",\"entry\":[ {} ]}}\n", entries.join(" ,\n"));
    let lines = format!("{}\r\n\n{{\"n\":\n  {}  \n{{broken}}\n{}\n", device(1, 5), device(2, 100_000), device(3, 0));
    let csv = b"id;item\r\n1;\"a\r\nb\"\r\n\0\xff".to_vec();
    let large = device(4, 9 * MIB);
    let typed = |media_type: &str| format!("Content-Type: {media_type}");
    for (name, media_type, path, content, accepted) in [
        ("single", FHIR, "/Device", device(0, 10).into_bytes(), 1),
        ("bundle", FHIR, "", bundle.into_bytes(), 30),
        ("lines", "application/fhir+ndjson", "", lines.into_bytes(), 3),
        ("csv", "text/csv", "", csv.clone(), 1),
        ("large", "application/json", "", large.clone().into_bytes(), 1),
    ] {
        let file = write(&directory, name, &content);
        let (status, text, output) = curl(&format!("{url}{path}"), &["--header", &typed(media_type)], &file);
        assert_eq!(status, 202, "{name}: {text} {}", String::from_utf8_lossy(&output.stderr));
        let told = text.contains(&format!("stored for forwarding: {accepted} ")) || text.contains(&format!("\"accepted\":{accepted},"));
        assert!(told && text.contains("st-marys-gw1/fhir/"), "{name}: {text}");
        assert_eq!(text.contains("set apart as unusable: 2"), name == "lines", "{name}: {text}");
    }
    let mut expected: Vec<Vec<u8>> = vec![device(0, 10).into_bytes()];
    expected.extend(entries.into_iter().map(String::into_bytes));
    expected.extend([device(1, 5), device(2, 100_000), device(3, 0)].map(String::into_bytes));
    expected.extend([csv, large.into_bytes()]);
    let events = events(&scene, expected.len());
    assert_eq!(events.len(), expected.len());
    for (event, expected) in events.iter().zip(&expected) {
        assert!(event.body == *expected, "record {} is not what was posted", event.seq);
    }
    assert_eq!(events[0].content_type, FHIR);
    assert_eq!(events[expected.len() - 2].content_type, "text/csv");
    let quarantine = String::from_utf8_lossy(&scene.site.command(&["quarantine", "list", "--json"]).stdout).into_owned();
    assert!(quarantine.contains("line 3") && quarantine.contains("line 5") && quarantine.contains("json_"), "{quarantine}");
    let feeds = String::from_utf8_lossy(&scene.site.command(&["feeds", "--feed", "fhir"]).stdout).into_owned();
    assert!(feeds.contains("202 1") && feeds.contains("/feeds/fhir") && feeds.contains("parts_unusable 1"), "{feeds}");
    scene.site.stop();
}

/// I1, I8: kills in the middle of posts; every client repeats under its key until it is told success, and everything is at the hub once.
#[test]
fn posts_survive_kills_once_each() {
    let (clients, posts, kills) = if harness::long() { (8, 400, 30) } else { (4, 40, 4) };
    let (mut scene, feed) = scene("");
    let (accepted, running) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
    let ids = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..clients)
        .map(|client| {
            let (feed, accepted, running, ids) = (feed.clone(), Arc::clone(&accepted), Arc::clone(&running), Arc::clone(&ids));
            std::thread::spawn(move || {
                for post in 0..posts {
                    let number = client * 1_000_000 + post * 10;
                    let key = format!("{client}-{post}");
                    // Every third is a body of many records.
                    let (media_type, body) = match post % 3 {
                        0 => ("application/fhir+ndjson", (0..5).map(|line| device(number + line, 300) + "\n").collect::<String>()),
                        _ => (FHIR, device(number, 1000)),
                    };
                    while running.load(Ordering::Relaxed) {
                        match feed.post(media_type, Some(&key), body.as_bytes()) {
                            Ok(answer) if answer.status == 202 => {
                                ids.lock().unwrap().push(answer.body);
                                break;
                            }
                            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.body),
                            Err(_) => {}
                        }
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let all = clients * posts;
    for kill in 1..=kills {
        wait::wait_while_growing("posts before a kill", wait::EVENTUALLY, || accepted.load(Ordering::Relaxed), all * kill / (kills + 1));
        std::thread::sleep(Duration::from_millis(3 * kill));
        scene.site.kill();
        scene.site.start();
    }
    for thread in threads {
        thread.join().expect("a client ends");
    }
    running.store(false, Ordering::Relaxed);
    let mut expected: Vec<String> = Vec::new();
    for (client, post) in (0..clients).flat_map(|client| (0..posts).map(move |post| (client, post))) {
        let number = client * 1_000_000 + post * 10;
        match post % 3 {
            0 => expected.extend((0..5).map(|line| device(number + line, 300))),
            _ => expected.push(device(number, 1000)),
        }
    }
    let events = events(&scene, expected.len());
    let mut found: Vec<String> = events.iter().map(|event| String::from_utf8_lossy(&event.body).into_owned()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found.len(), expected.len(), "each once");
    assert!(found == expected, "each as it was posted");
    // The ids that were told are those the hub knows.
    let known: std::collections::BTreeSet<&str> = events.iter().map(|event| event.attribute("id").trim_end_matches("/raw")).collect();
    for body in ids.lock().unwrap().iter() {
        let mut told =
            body.split(|c: char| !(c.is_ascii_alphanumeric() || "/-".contains(c))).filter(|word| word.contains("/fhir/")).peekable();
        assert!(told.peek().is_some() && told.all(|id| known.contains(id)), "{body}");
    }
    scene.site.stop();
}

/// A key holds across a restart: the same answer and no second record; another body under it is refused.
#[test]
fn a_key_gives_the_same_answer_after_a_restart() {
    let (mut gateway, feed) = gateway("", |_| {});
    let post = |body: &str| feed.post(FHIR, Some("order-4711"), body.as_bytes()).expect("an answer");
    let first = post(&device(1, 10));
    assert_eq!(first.status, 202, "{}", first.body);
    for kill in [false, true] {
        if kill {
            gateway.site.kill();
        } else {
            gateway.site.stop();
        }
        gateway.site.start();
        listening(&feed);
        let again = post(&device(1, 10));
        assert_eq!((again.status, &again.body), (202, &first.body));
        assert_eq!(post(&device(2, 10)).status, 422);
        let more = feed.post("application/fhir+ndjson", Some("order-4711"), format!("{0}\n{0}\n{0}\n", device(3, 10)).as_bytes());
        assert_eq!(more.expect("an answer").status, 422);
    }
    assert_eq!(gateway.site.feed_status("fhir")["head"].as_u64().or(gateway.site.feed_status("fhir")["queued"].as_u64()), Some(1));
    gateway.site.stop();
}

/// I4: bodies that do not end are cut at the bound while they are read; memory stays where it was.
#[test]
fn a_body_above_the_bound_is_refused_while_it_is_read() {
    let (mut gateway, feed) = gateway("body_bytes_max = \"4MiB\"", |configuration| {
        configuration.spool_lines.push("message_bytes_max = \"4MiB\"".into());
    });
    let before = gateway.site.process().resident_peak_kib();
    let clients: Vec<_> = (0..12)
        .map(|client| {
            let addr = feed.addr();
            std::thread::spawn(move || {
                let mut stream = connect(addr).expect("a connection");
                let media_type = if client % 2 == 0 { "application/x-ndjson" } else { "application/octet-stream" };
                let head = format!(
                    "POST /feeds/fhir HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).expect("the head");
                let chunk = [format!("{MIB:x}\r\n").as_bytes(), &vec![b'1'; MIB], b"\r\n"].concat();
                for _ in 0..32 {
                    if stream.write_all(&chunk).is_err() {
                        break; // it was told enough
                    }
                }
                Answer::read(&mut stream).expect("an answer to a body that is too large").status
            })
        })
        .collect();
    let statuses: Vec<u16> = clients.into_iter().map(|client| client.join().expect("a client ends")).collect();
    assert!(statuses.iter().all(|status| [413, 429].contains(status)) && statuses.contains(&413), "{statuses:?}");
    let grown = gateway.site.process().resident_peak_kib().saturating_sub(before);
    println!("12 bodies of 32 MiB against a bound of 4 MiB: peak memory grew by {grown} KiB, answers {statuses:?}");
    assert!(grown < 40 * 1024, "memory grew by {grown} KiB");
    let announced = format!(
        "POST /feeds/fhir HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        5 * MIB
    );
    let mut stream = connect(feed.addr()).expect("a connection");
    stream.write_all(announced.as_bytes()).expect("the head");
    assert_eq!(Answer::read(&mut stream).expect("an answer without any body").status, 413);
    gateway.site.condition("frame_over_limit", wait::SOON);
    gateway.site.stop();
}

/// A full spool answers 503 with Retry-After; nothing that was answered with success is lost by it.
#[test]
fn a_full_spool_tells_clients_to_come_again() {
    let (mut gateway, feed) = gateway("", |configuration| configuration.max_bytes = "17MiB".into());
    let mut stored = 0;
    let refused = loop {
        let answer = feed.post("application/octet-stream", None, &vec![7; MIB]).expect("an answer");
        if answer.status != 202 {
            break answer;
        }
        stored += 1;
        assert!(stored < 40, "a spool of 17 MiB took {stored} MiB");
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("30")), "{}", refused.body);
    gateway.site.condition("spool_full", wait::SOON);
    assert_eq!(gateway.site.feed_status("fhir")["queued"].as_u64(), Some(stored));
    gateway.site.stop();
}

/// TLS, client certificates and tokens, by curl as an administrator would try them.
#[test]
fn clients_prove_who_they_are_by_certificate_or_token() {
    let directory = Directory::new();
    let pki = Pki::new(&directory.path().join("pki"), "hospital CA");
    let foreign = Pki::new(&directory.path().join("foreign"), "foreign CA");
    let (server, lab, other, stranger) = (pki.server(), pki.client("lab"), pki.client("other"), foreign.client("lab"));
    let tokens = directory.path().join("tokens");
    // of `letmein`, by  printf %s letmein | sha256sum
    fs::write(&tokens, "pump:1c8bfe8f801d79745c4631d09fff36c82aa37fc4cce4fc946683d7b336b63032\n").unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o640)).unwrap();
    let tls = format!("[feed.http.tls]\ncert = \"{}\"\nkey = \"{}\"\n", server.cert.display(), server.key.display());
    let proven = format!("{tls}client_ca = \"{}\"\nclient_subjects = [\"CN=lab\"]", pki.ca.display());
    let by_token = HttpFeed::new("token");
    let section = by_token.section(&format!("tokens_file = \"{}\"\n{tls}", tokens.display()));
    let (mut gateway, feed) = gateway(&proven, |configuration| configuration.sections.push(section));
    listening(&by_token);
    let body = write(directory.path(), "body", device(1, 10).as_bytes());
    let trusts = ["--cacert", pki.ca.to_str().unwrap(), "--header", "Content-Type: application/fhir+json"];
    let shows = |identity: &Identity| {
        let mut arguments: Vec<String> = trusts.map(str::to_owned).to_vec();
        arguments.extend([
            "--cert".to_owned(),
            identity.cert.display().to_string(),
            "--key".to_owned(),
            identity.key.display().to_string(),
        ]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        curl(&feed.url("https"), &arguments, &body).0
    };
    assert_eq!(shows(&lab), 202);
    assert_eq!((shows(&other), shows(&stranger), curl(&feed.url("https"), &trusts, &body).0), (0, 0, 0), "no handshake, no answer");
    let with_token = |token: &str| {
        let header = format!("Authorization: Bearer {token}");
        curl(&by_token.url("https"), &[&trusts[..], &["--header", &header]].concat(), &body)
    };
    let (status, text, output) = with_token("letmein");
    assert_eq!(status, 202, "{text} {}", String::from_utf8_lossy(&output.stderr));
    let (status, text, _) = with_token("letmeout");
    assert!(status == 401 && text.to_ascii_lowercase().contains("www-authenticate: bearer"), "{text}");
    gateway.site.condition("tls_refused", wait::SOON);
    // Withdrawn while it runs.
    fs::write(&tokens, format!("pump:{}\n", "0".repeat(64))).unwrap();
    wait::wait_until("the new tokens", wait::SOON, || with_token("letmein").0 == 401);
    let feeds = String::from_utf8_lossy(&gateway.site.command(&["feeds"]).stdout).into_owned();
    assert!(feeds.contains(" lab ") && feeds.contains(" pump "), "who posted is shown: {feeds}");
    assert!(!gateway.site.log().contains("letme"), "no token in the log");
    gateway.site.stop();
}

/// Slow heads, half bodies and idle connections end by themselves while others are served.
#[test]
fn slow_clients_hold_up_nobody() {
    let (mut gateway, feed) = gateway("body_timeout = \"1s\"\nconnections_max = 4", |_| {});
    let mut slow = connect(feed.addr()).expect("a connection");
    slow.write_all(b"POST /feeds/fhir HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[1").unwrap();
    let half = connect(feed.addr()).expect("a connection");
    (&half).write_all(b"POST /feeds/fhir HTTP/1.1\r\nHo").unwrap();
    assert_eq!(feed.post("application/json", None, b"1").expect("an answer").status, 202);
    assert_eq!(Answer::read(&mut slow).expect("an answer").status, 408);
    let idle: Vec<_> = (0..4).map(|_| connect(feed.addr()).expect("a connection")).collect();
    let crowded = feed.post("application/json", None, b"1").expect("an answer");
    assert_eq!((crowded.status, crowded.header("retry-after")), (429, Some("5")), "{}", crowded.body);
    let ended =
        wait::try_until(Duration::from_mins(2), || feed.post("application/json", None, b"2").is_ok_and(|answer| answer.status == 202));
    assert!(ended, "idle connections give their places back");
    drop((idle, half));
    gateway.site.stop();
}

/// The FHIR part of the corpus, posted as it is: bytes identical at the hub.
#[test]
fn the_corpus_arrives_byte_for_byte() {
    let folder = std::env::var_os("SITEWARD_CORPUS").map_or_else(|| harness::repository().join("../shared/corpus"), PathBuf::from);
    let folder = folder.join("fhir-supply");
    if !folder.is_dir() {
        println!("skipped: there is no corpus; SITEWARD_CORPUS names its folder");
        return;
    }
    let (mut scene, feed) = scene("");
    let (mut expected, mut refused) = (Vec::new(), Vec::new());
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let content = fs::read(path).unwrap();
        let answer = feed.post(FHIR, Some(&format!("corpus-{}", expected.len() + refused.len())), &content).expect("an answer");
        match answer.status {
            202 => expected.push(content),
            400 => refused.push(format!("{name}: {}", answer.body)),
            status => panic!("{name}: {status} {}", answer.body),
        }
    }
    let events = events(&scene, expected.len());
    assert!(events.len() == expected.len() && events.iter().zip(&expected).all(|(event, expected)| event.body == *expected));
    println!("{} files byte for byte; {} refused:\n{}", expected.len(), refused.len(), refused.join("\n"));
    assert!(expected.len() > 50, "most of it are resources");
    scene.site.stop();
}

/// FHIR clients that others wrote create resources and send Bundles; each must report success.
#[test]
fn fhir_clients_of_others_succeed() {
    if !harness::long() {
        println!("skipped: installs clients of others; SITEWARD_LONG=1 runs it");
        return;
    }
    let (mut gateway, feed) = gateway("", |_| {});
    let output =
        Command::new(harness::repository().join("tests/clients/fhir")).arg(feed.url("http")).output().expect("tests/clients/fhir runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().filter(|line| line.ends_with(": ok")).count(), 5, "{said}");
    assert_eq!(gateway.site.feed_status("fhir")["captured"].as_u64(), Some(5), "every resource and Bundle once");
    let mut rest = Vec::new();
    drop(fs::File::open(gateway.site.log_file()).and_then(|mut file| file.read_to_end(&mut rest)));
    assert!(!String::from_utf8_lossy(&rest).contains("Pump seven"), "no content in the log");
    gateway.site.stop();
}
