//! Independent messages through the running agent: every file of a corpus that has an MSH is sent over MLLP, must come out at the hub byte for
//! byte, and must be answered so that its sender matches the answer. Two other parsers' opinions are held against it, with a rule of HL7.md
//! for every difference.
//!
//! The corpus is no part of the project: `SITEWARD_CORPUS`, else `../shared/corpus` beside the repository; without it the test says so and
//! passes. Contents of its files never appear in the output, names do.

#[path = "corpus/facts.rs"]
mod facts;
#[path = "corpus/oracle.rs"]
mod oracle;
#[path = "corpus/python.rs"]
mod python;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use base64::Engine;
use harness::message;
use harness::mosquitto;
use harness::scene::Scene;
use harness::sender::Wire;

use facts::{Facts, Msh};
use oracle::{Case, Opinion, Reply, Tally};

fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("SITEWARD_CORPUS").map_or_else(|| harness::repository().join("../shared/corpus"), PathBuf::from);
    folder.join("index.tsv").is_file().then_some(folder)
}

/// A table of text with a heading: the wanted columns of each row.
fn table<const N: usize>(path: &Path, columns: [&str; N]) -> Vec<[String; N]> {
    let text = String::from_utf8_lossy(&std::fs::read(path).expect("a table of the corpus")).into_owned();
    let mut lines = text.split('\n').filter(|line| !line.is_empty());
    let names: Vec<&str> = lines.next().expect("a heading").split('\t').collect();
    let places = columns.map(|column| names.iter().position(|name| *name == column).expect("a column of the table"));
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.trim_end_matches('\r').split('\t').collect();
        places.map(|place| cells.get(place).copied().unwrap_or_default().to_owned())
    });
    rows.collect()
}

fn files(folder: &Path) -> Vec<Facts> {
    let rows = table(&folder.join("index.tsv"), ["file", "kind", "messages"]);
    let hl7 = rows.into_iter().filter(|[_, kind, messages]| (kind == "hl7" || kind == "fuzz") && messages != "0");
    hl7.map(|[file, ..]| Facts::read(folder, &file)).collect()
}

fn opinions(folder: &Path) -> BTreeMap<String, Opinion> {
    let columns = ["file", "python_hl7", "python_hl7_msh10", "hapi_generic", "hapi_msh10", "hapi_ack_or_error"];
    let rows = table(&folder.join("oracle.tsv"), columns).into_iter();
    let opinion = |[file, python, python_id, hapi, hapi_id, hapi_reply]: [String; 6]| {
        (file, Opinion { python, python_id, hapi, hapi_id, hapi_reply })
    };
    rows.map(opinion).collect()
}

/// A segment of a reply by its name, as fields; `fields[n]` as in [`Msh`].
fn segments_of(reply: &[u8]) -> Vec<(Vec<u8>, Msh)> {
    let lines = reply.split(|b| *b == b'\r').filter(|line| line.len() > 3);
    lines.map(|line| (line[..3].to_vec(), Msh::of_line(line))).collect()
}

/// What the sender of a file must be told: MSA-1 and MSA-2 of each acknowledgement; one for all where they are too many.
fn expected(facts: &Facts) -> Vec<(String, Vec<u8>)> {
    let due = facts.messages.iter().filter(|m| !m.is_acknowledgement()).filter_map(|m| Some((m.code()?.to_owned(), m.get(10).to_vec())));
    due.collect()
}

/// Holds one reply to what is due; gives its parts.
fn check(facts: &Facts, reply: &[u8]) -> Vec<Reply> {
    let file = &facts.file;
    let segments = segments_of(reply);
    let acks: Vec<Reply> = segments
        .windows(2)
        .filter(|pair| pair[0].0 == b"MSH" && pair[1].0 == b"MSA")
        .map(|pair| Reply { msh: pair[0].1.clone(), code: shown(pair[1].1.msa(1)), id: pair[1].1.msa(2).to_vec() })
        .collect();
    let told: Vec<(String, Vec<u8>)> = acks.iter().map(|ack| (ack.code.clone(), ack.id.clone())).collect();
    let due = expected(facts);
    let covers_all = told.len() == 1 && due.len() > 10 && told[0].1 == facts.batch_id;
    assert!(told == due || covers_all, "{file}: not answered as HL7.md 2 says ({} of {} acknowledgements)", told.len(), due.len());
    assert!(reply.len() + 3 < 4096, "{file}: a reply of {} bytes", reply.len());
    assert_eq!(reply.starts_with(b"BHS"), facts.several, "{file}: a batch is answered by a batch, and nothing else is");
    acks
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Payloads of all events at the hub.
fn payloads(scene: &Scene) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(scene.hub.out()).expect("the hub's output");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
    let events = lines.filter(|line| line["kind"] == "event");
    let engine = base64::engine::general_purpose::STANDARD;
    events.map(|line| engine.decode(line["data_base64"].as_str().expect("a payload")).expect("base64")).collect()
}

/// Sends every file on one connection; gives each file's reply. A reply that is missing or not due shows at the next one, and at the probe.
fn send_all(scene: &Scene, files: &[Facts], opinions: &BTreeMap<String, Opinion>) -> Vec<Vec<Reply>> {
    let mut wire: Wire = scene.site.wire();
    let mut replies = Vec::new();
    for facts in files {
        wire.send(&facts.body).expect("the agent reads");
        let is_due = !facts.has_header() || !expected(facts).is_empty();
        let reply = if is_due { wire.frame() } else { Ok(Vec::new()) };
        replies.push(reply.unwrap_or_else(|error| panic!("{}: no reply: {error}", facts.file)));
    }
    let probe = wire.exchange(&message::build(1, 1, 500)).expect("the probe is answered");
    assert!(probe.positive() && probe.control_id == message::control_id(1, 1).as_bytes(), "one reply too many or too few");
    python::check(scene.directory.path(), files, &replies, opinions);
    files.iter().zip(&replies).map(|(facts, reply)| if reply.is_empty() { Vec::new() } else { check(facts, reply) }).collect()
}

/// I1, I3: every message that has a header is captured whole, answered as its sender expects, and at the hub byte for byte.
#[test]
fn every_message_of_the_corpus_is_captured_whole_and_answered_as_its_sender_expects() {
    let Some(folder) = corpus() else {
        println!("skipped: no corpus");
        return;
    };
    let files = files(&folder);
    assert!(!files.is_empty(), "the corpus holds HL7 files");
    let mut scene = Scene::new(mosquitto::Options::default(), |c| c.feeds[0].mllp.push("allow_missing_control_id = true".into()));
    scene.start();
    let opinions = opinions(&folder);
    let replies = send_all(&scene, &files, &opinions);

    let stored = files.iter().filter(|f| f.has_header() && !f.messages.iter().all(Msh::is_acknowledgement));
    let sent: Vec<&Vec<u8>> = stored.map(|f| &f.body).collect();
    let distinct: HashSet<&Vec<u8>> = sent.iter().copied().collect();
    scene.hub.wait_for_events(distinct.len() as u64 + 1);
    let received: HashSet<Vec<u8>> = payloads(&scene).into_iter().collect();
    let missing: Vec<&str> =
        files.iter().filter(|f| distinct.contains(&f.body) && !received.contains(&f.body)).map(|f| &f.file[..]).collect();
    assert!(missing.is_empty(), "not at the hub, or changed on the way: {missing:?}");
    assert_eq!(received.len(), distinct.len() + 1, "nothing but what was sent, and the probe");

    let mut tally = Tally::default();
    for (facts, replies) in files.iter().zip(&replies) {
        let (Some(opinion), Some(message)) = (opinions.get(&facts.file), facts.messages.first()) else { continue };
        tally.judge(&Case { facts, message, opinion, reply: replies.first() });
    }
    let answered = replies.iter().filter(|replies| !replies.is_empty()).count();
    println!(
        "files {}, distinct at the hub {}, answered {answered}, silent by MSH-15/16 {}",
        files.len(),
        distinct.len(),
        files.len() - answered
    );
    for ((section, why, difference), count) in &tally.explained {
        println!("{count:5} {difference:?}: HL7.md {section}: {why}");
    }
    let shown: Vec<&(String, oracle::Difference)> = tally.unexplained.iter().take(40).collect();
    assert!(tally.unexplained.is_empty(), "{} differences without a rule: {shown:#?}", tally.unexplained.len());
}
