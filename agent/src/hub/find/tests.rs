//! A search through an output that was written by the receiver's own lines.

use super::around::Beside;
use super::text::{records, text};
use super::{Query, Wanted, parse_event_id, search};
use crate::hub::desk::{Arrival, Desk};
use crate::hub::ledger::AccountKey;
use crate::record::{Chain, Digest, Incarnation, Name, Nonce};

const SECRET: &[u8] = b"PID|1||SECRET-MRN";

struct Hub {
    dir: tempfile::TempDir,
    chains: std::collections::BTreeMap<String, Chain>,
}

impl Hub {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), chains: std::collections::BTreeMap::new() }
    }

    fn out(&self) -> std::path::PathBuf {
        self.dir.path().join("out.jsonl")
    }

    /// The events of a gateway's feed with these control ids, from seq 1 on; `None`: it does not arrive.
    fn receive(&mut self, gateway: &str, ids: &[Option<&str>]) {
        let mut desk = Desk::open(&self.out()).unwrap();
        let zero = format!(r#"{{"seq":0,"chain":"{}"}}"#, Chain([0; 32]));
        let incarnation = Incarnation([gateway.as_bytes()[0]; 16]);
        let open = format!(r#"{{"kind":"open","feed":"f","incarnation":"{incarnation}","follows":null,"settled":{zero}}}"#);
        let checkpoint = format!("siteward/v1/s/{gateway}/checkpoint");
        desk.take(&Arrival::new(&checkpoint, open.into_bytes())).unwrap();
        let mut chain = Chain([0; 32]);
        for (at, id) in ids.iter().enumerate() {
            let (seq, nonce) = (at as u64 + 1, Nonce([9; 16]));
            let digest = Digest::of(&nonce, SECRET);
            chain = chain.after(seq, &digest);
            let Some(id) = id else { continue };
            let mut arrival = Arrival::new(&format!("siteward/v1/s/{gateway}/event/f"), SECRET);
            let attribute = |name: &str, value: String| (name.to_owned(), value);
            arrival.attributes = vec![
                attribute("id", format!("{gateway}/f/{incarnation}/{seq}/raw")),
                attribute("incarnation", incarnation.to_string()),
                attribute("sequence", seq.to_string()),
                attribute("chain", chain.to_string()),
                attribute("recorddigest", digest.to_string()),
                attribute("nonce", nonce.to_string()),
                attribute("itemindex", "0".into()),
                attribute("itemcount", "1".into()),
                attribute("controlid", (*id).to_owned()),
                attribute("time", "2026-11-01T00:00:00.000Z".into()),
                attribute("stage", "live".into()),
                attribute("patient", "SECRET".into()),
            ];
            desk.take(&arrival).unwrap();
        }
        let seq = ids.len();
        let head = format!(
            r#"{{"kind":"head","feed":"f","incarnation":"{incarnation}","seq":{seq},"chain":"{chain}","count":{seq},"settled":{zero}}}"#
        );
        desk.take(&Arrival::new(&checkpoint, head.into_bytes())).unwrap();
        desk.commit().unwrap();
        desk.save();
        self.chains.insert(gateway.to_owned(), chain);
    }

    fn query(&self, wanted: Wanted) -> Query {
        Query { out: self.out(), wanted, site: None, gateway: None, budget: u64::MAX, from: None }
    }
}

fn control(id: &str) -> Wanted {
    Wanted::ControlId(id.to_owned())
}

#[test]
fn one_message_is_followed_across_gateways_without_its_content() {
    let mut hub = Hub::new();
    hub.receive("a", &[Some("M1"), Some("M2")]);
    hub.receive("b", &[Some("M2"), Some("M1\",\"x")]);
    let found = search(&hub.query(control("M2"))).unwrap();
    let place: Vec<(&str, u64)> = found.findings.iter().map(|f| (f.gateway.as_str(), f.seq)).collect();
    assert_eq!(place, [("a", 2), ("b", 1)]);
    assert!(found.is_whole() && found.unreadable == 0);
    let beside = Beside::open(&hub.out());
    let around: Vec<_> = records(&found).iter().map(|(key, seq)| beside.around(key, *seq, found.file_bytes)).collect();
    let text = text(&control("M2"), &found, &around);
    assert!(text.contains("s/a/f seq 2") && text.contains("the feed is complete through seq 2") && text.contains("stage live"), "{text}");
    assert!(text.contains("held around it: 1 record, 2 record, 3 -"), "{text}");
    for shown in [text, serde_json::to_string(&(&found, &around)).unwrap()] {
        assert!(!shown.contains("SECRET"), "content is shown: {shown}");
    }
    // A control id that looks like JSON is one control id.
    assert_eq!(search(&hub.query(control("M1\",\"x"))).unwrap().findings.len(), 1);
    assert_eq!(search(&hub.query(control("M1"))).unwrap().findings.len(), 1);
}

#[test]
fn a_seq_is_found_with_what_is_missing_around_it() {
    let mut hub = Hub::new();
    hub.receive("a", &[Some("M1"), None, Some("M3")]);
    let feed = Name::new("f").unwrap();
    let found = search(&hub.query(Wanted::Seq { feed: feed.clone(), seq: 3, incarnation: None })).unwrap();
    assert_eq!(found.findings.len(), 1);
    let key = AccountKey { site: Name::new("s").unwrap(), gateway: Name::new("a").unwrap(), feed };
    let around = Beside::open(&hub.out()).around(&key, 3, found.file_bytes);
    assert_eq!(around.feed.as_ref().map(|feed| (feed.through_seq, feed.missing.clone())), Some((1, vec![(2, 2)])));
    let shown = text(&control("x"), &found, &[around]);
    assert!(shown.contains("NOT complete here: missing 2-2"), "{shown}");
    let (gateway, wanted) = parse_event_id(&format!("a/f/{}/3/raw", Incarnation([b'a'; 16]))).unwrap();
    assert_eq!(search(&Query { gateway: Some(gateway), ..hub.query(wanted) }).unwrap().findings.len(), 1);
    let other = Wanted::Seq { feed: Name::new("f").unwrap(), seq: 3, incarnation: Some(Incarnation([7; 16])) };
    assert!(search(&hub.query(other)).unwrap().findings.is_empty());
    assert!(parse_event_id("a/f/3").is_err() && parse_event_id("a/f/x/3/raw/more/still").is_err());
}

#[test]
fn gaps_losses_and_forks_count_for_every_seq_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let line = |kind: &str, more: &str| {
        format!(
            "{{\"kind\":\"{kind}\",\"site\":\"s\",\"gateway\":\"a\",\"feed\":\"f\",\"incarnation\":\"{}\",{more},\"written_at\":\"x\"}}\n",
            "01".repeat(16)
        )
    };
    let text = [
        line("gap", "\"first\":3,\"seq\":9"),
        line("lost", "\"seq\":20,\"ranges\":[[4,6]]"),
        line("fork", "\"other\":\"02020202020202020202020202020202\",\"ranges\":[[1,100]]"),
        line("open", "\"seq\":5"),
        line("exception", "\"seq\":5,\"reason\":\"too_large\\u001b[2J\""),
    ]
    .concat();
    std::fs::write(&out, text + "{\"kind\":\"event\",\"feed\":\"f\",\"seq\":5,\"half").unwrap();
    let query = Query {
        out: out.clone(),
        wanted: Wanted::Seq { feed: Name::new("f").unwrap(), seq: 5, incarnation: None },
        site: None,
        gateway: None,
        budget: u64::MAX,
        from: None,
    };
    let found = search(&query).unwrap();
    let kinds: Vec<String> = found.findings.iter().map(|f| serde_json::to_string(&f.kind).unwrap()).collect();
    assert_eq!(kinds, ["\"gap\"", "\"lost\"", "\"fork\"", "\"exception\""]);
    let around = Beside::open(&out).around(&records(&found)[0].0, 5, found.file_bytes);
    assert!(around.doubts.iter().any(|doubt| doubt.contains("no ledger")) && around.neighbours.is_none());
    let shown = super::text::text(&query.wanted, &found, &[around]);
    assert!(!shown.contains('\u{1b}') && shown.contains("too_large[2J"), "{shown}");
}

/// I4: the budget bounds what is read; what is left out is said, and the next part can be asked for.
#[test]
fn a_large_file_is_read_from_its_end_within_the_budget() {
    let mut hub = Hub::new();
    hub.receive("a", &[Some("M1"), Some("M2"), Some("M3"), Some("M4")]);
    let whole = search(&hub.query(control("M4"))).unwrap();
    let last = whole.findings[0].offset;
    let query = Query { budget: whole.file_bytes - last + 10, ..hub.query(control("M4")) };
    let found = search(&query).unwrap();
    assert!(found.findings.len() == 1 && found.read_from > 0 && !found.is_whole());
    assert!(search(&Query { wanted: control("M1"), ..query.clone() }).unwrap().findings.is_empty());
    let first = search(&Query { wanted: control("M1"), from: Some(0), budget: last, ..query }).unwrap();
    assert_eq!(first.findings.len(), 1);
    assert!(text(&control("M1"), &first, &[]).contains("goes on"), "what was not read is said");
}
