//! Orders at the desk: by the right door, between their two records, and not without them.

use super::super::access::{Door, Group};
use super::*;
use crate::config::settings::{KeySource, SpoolSettings};
use crate::record::{Incarnation, Name};
use crate::secrets::Vault;
use crate::spool::disk::RealDisk;
use crate::{alerts, config, overrides, spool};

struct Rig {
    desk: Arc<Desk>,
    directory: tempfile::TempDir,
    _spool: (spool::Lock, spool::Appender, spool::Reader),
}

fn feeds() -> Feeds {
    let text = "[gateway]\nsite=\"s\"\nid=\"g\"\ntimezone=\"UTC\"\n[uplink]\nendpoints=[\"mqtt://h:1883\"]\nallow_plaintext=true\n\
        [[feed]]\nid=\"lab\"\nforward=\"raw\"\nphi=\"allowed\"\n[feed.mllp]\nlisten=\"127.0.0.1:1\"\n";
    Arc::from(config::parse_text("/etc/t.toml".as_ref(), text).unwrap_or_else(|faults| panic!("{faults}")).feeds)
}

impl Rig {
    fn new() -> Self {
        let (directory, configured) = (tempfile::tempdir().unwrap(), feeds());
        let board = Board::new([configured[0].id.clone()]);
        let path = directory.path().join("spool");
        let options = spool::Options {
            path: path.clone(),
            max_bytes: Some(crate::limits::SPOOL_BYTES_MIN),
            key: KeySource::Auto,
            message_bytes_max: crate::limits::MIB,
            feeds: configured.iter().map(|feed| (feed.id.clone(), feed.lane)).collect(),
        };
        let spool = spool::open(options, &board).unwrap();
        let name = |text| Name::new(text).unwrap();
        // A log of its own, so that it can be in the way of nobody else.
        let book = Book::open(Arc::new(RealDisk), directory.path(), name("g"), Incarnation([1; 16]), Arc::clone(&board));
        let settings = SpoolSettings { path, max_bytes: None, key: KeySource::Auto, message_bytes_max: crate::limits::MIB };
        let vault = Arc::new(Vault::new(&settings, None));
        let on_site = OnSite::new(vault, overrides::handle::open().0, alerts::handle::open().0, book.clone());
        let desk = Arc::new(Desk {
            reporter: Reporter::new(name("s"), name("g"), Arc::clone(&board), spool.monitor.clone()),
            board,
            monitor: spool.monitor,
            recent: spool.recent,
            resends: spool.resends,
            rollout: None,
            renewal: None,
            book,
            kept: spool.kept,
            on_site,
            feeds: watch::channel(configured).1,
            pace: std::sync::Mutex::default(),
        });
        std::thread::spawn(move || spool.closer.close()).join().unwrap();
        Self { desk, directory, _spool: (spool.lock, spool.appender, spool.reader) }
    }

    fn ask(&self, door: Door, request: &str) -> String {
        let request: Request = serde_json::from_str(request).unwrap();
        match self.desk.answer(request, Peer { uid: Some(4711), door }) {
            Answer::Now(text) => text,
            Answer::Later(make) => make(),
            Answer::Watch(_) => panic!("nobody watches"),
        }
    }

    /// Stage, who and what of every record, but for the one that says that the log was begun.
    fn records(&self) -> Vec<(String, String, String)> {
        let of = |(_, line): &(u64, String)| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |member: &str| record[member].as_str().unwrap().to_owned();
            (text("stage"), text("who"), text("what"))
        };
        self.desk.book.page(2).unwrap().iter().map(of).collect()
    }

    fn takes_resends(&self) -> bool {
        self.desk.resends.is_open(&feeds()[0].id, Instant::now())
    }

    /// From here on the log cannot be written.
    fn break_log(&self) {
        let (log, aside) = (self.directory.path().join("audit"), self.directory.path().join("aside"));
        std::fs::rename(&log, &aside).unwrap();
        std::fs::write(&log, "in the way").unwrap();
        self.desk.book.forget();
    }
}

const RESEND: &str = r#"{"do":"accept_resend","feed":"lab","for_s":60,"by":"kim","why":"lost"}"#;

/// Done or not, an order has its two records, which say who it was as the kernel knows, for whom, and what became of it.
#[test]
fn every_order_stands_between_its_intent_and_its_outcome() {
    let rig = Rig::new();
    assert!(!rig.ask(Door::Owner, RESEND).contains("error"));
    assert!(rig.ask(Door::Owner, r#"{"do":"secret_remove","name":"nothing","by":"kim"}"#).contains("no secret of this name"));
    assert!(rig.ask(Door::Owner, r#"{"do":"accept_resend","feed":"lob","for_s":60}"#).contains("did you mean `lab`"));
    let record = |stage: &str, who: &str, what: &str| (stage.to_owned(), format!("{who} on site"), what.to_owned());
    let by_kim = "uid 4711 for kim";
    // What names no feed there is could only fail, and is not written.
    let expected = [
        record("intent", by_kim, "accept_resend"),
        record("outcome", by_kim, "accept_resend_done"),
        record("intent", by_kim, "secret_removed"),
        record("outcome", by_kim, "secret_removed_failed"),
    ];
    assert_eq!(rig.records(), expected);
}

/// The record comes first: where it cannot be written, nothing has been done.
#[test]
fn without_its_record_an_order_is_not_carried_out() {
    let rig = Rig::new();
    rig.break_log();
    assert!(rig.ask(Door::Owner, RESEND).contains("nothing was done"));
    assert!(!rig.takes_resends());
    std::fs::remove_file(rig.directory.path().join("audit")).unwrap();
    assert!(!rig.ask(Door::Owner, RESEND).contains("error"));
    assert!(rig.takes_resends());
}

/// Whoever got through a door of the kernel's gets through it for its own requests only, whatever the program at the other end asks.
#[test]
fn each_door_lets_its_own_requests_through() {
    let rig = Rig::new();
    for group in [Group::View, Group::Phi] {
        assert!(rig.ask(Door::Of(group), RESEND).contains("needs the group siteward-operate"), "{group:?}");
    }
    let unseal = r#"{"do":"unseal","entry":"00","offset":0,"by":"kim","why":"x"}"#;
    for group in [Group::View, Group::Operate] {
        assert!(rig.ask(Door::Of(group), unseal).contains("needs the group siteward-phi"), "{group:?}");
        assert!(rig.ask(Door::Of(group), r#"{"get":"status"}"#).contains("\"gateway\":\"g\""));
    }
    assert!(!rig.takes_resends() && rig.records().is_empty());
    assert!(rig.ask(Door::Of(Group::Phi), unseal).contains("no entry 00 is in quarantine"));
    assert!(!rig.ask(Door::Of(Group::Operate), RESEND).contains("error"));
}

/// A reason is asked for here too: what talks to the socket need not be our own command.
#[test]
fn content_and_feeds_are_not_touched_without_a_reason() {
    let rig = Rig::new();
    for why in ["", " \n"] {
        let request = serde_json::json!({ "do": "unseal", "entry": "00", "offset": 0, "by": "kim", "why": why }).to_string();
        assert!(rig.ask(Door::Owner, &request).contains("say why"), "{why:?}");
        let request = serde_json::json!({ "do": "pause_feed", "feed": "lab", "by": "kim", "why": why }).to_string();
        assert!(rig.ask(Door::Owner, &request).contains("say who asks and why"), "{why:?}");
    }
}

/// Whoever retires a gateway is told whether the hub's broker has the record, and not that it has while it has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_retirement_is_reported_is_said_when_it_is() {
    let rig = Arc::new(Rig::new());
    let retire = |rig: &Arc<Rig>| {
        let rig = Arc::clone(rig);
        tokio::task::spawn_blocking(move || rig.ask(Door::Owner, r#"{"do":"retire","reason":"closed","lost":""}"#))
    };
    assert!(retire(&rig).await.unwrap().contains("could not be told in time"));
    let asking = retire(&rig);
    while !asking.is_finished() {
        rig.desk.book.all_sent();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(asking.await.unwrap().contains(super::super::on_site::RETIREMENT_REPORTED));
}
