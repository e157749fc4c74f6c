//! The keeper on a spool of its own, tick by tick: time is what the tests say went by. A kill is the end of it without a word; what the next one finds
//! is what the file says.

use std::path::Path;

use super::*;
use crate::alerts::syslog::Target;
use crate::config;
use crate::limits::{ALERT_START, PEER_BACK, PEER_GONE, PEER_STAYS, TIMED_SLICE_RANGE};
use crate::record::{FeedId, Message, Origin, Payload, Stage};
use crate::spool::disk::RealDisk;
use crate::spool::faulty::{Call, Faulty};
use crate::spool::{self, Parts, StateChoice};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

fn feed() -> FeedId {
    FeedId::new("a").unwrap()
}

fn one_feed() -> Feeds {
    let text = "[gateway]\nsite=\"s\"\nid=\"g\"\ntimezone=\"UTC\"\n[uplink]\nendpoints=[\"mqtt://h:1883\"]\nallow_plaintext=true\n\
        [[feed]]\nid=\"a\"\nlane=\"critical\"\nforward=\"raw\"\nphi=\"allowed\"\n[feed.mllp]\nlisten=\"127.0.0.1:1\"\n";
    Arc::from(config::parse_text("/etc/t.toml".as_ref(), text).unwrap_or_else(|faults| panic!("{faults}")).feeds)
}

/// One box: its spool and board outlive the keepers on it.
struct Bench {
    directory: tempfile::TempDir,
    disk: Arc<Faulty>,
    board: Arc<Board>,
    book: Book,
    parts: Parts,
    feeds: watch::Sender<Feeds>,
}

impl Bench {
    fn new() -> Self {
        let (directory, board, feeds) = (tempfile::tempdir().unwrap(), Board::new([feed()]), one_feed());
        let options = spool::Options {
            path: directory.path().join("spool"),
            max_bytes: Some(crate::limits::SPOOL_BYTES_MIN),
            key: config::settings::KeySource::Auto,
            message_bytes_max: crate::limits::MIB,
            feeds: feeds.iter().map(|feed| (feed.id.clone(), feed.lane)).collect(),
        };
        let parts = spool::open_with(options, Arc::new(RealDisk), StateChoice::None, &board).unwrap();
        board.clear(Code::SpoolKeyBesideSpool, "");
        let book = Book::of_rig(&board);
        Self { directory, disk: Arc::default(), board, book, parts, feeds: watch::channel(feeds).0 }
    }

    fn spool(&self) -> &Path {
        self.directory.path()
    }

    /// A process on it. Lines stay in its outbox.
    fn start(&self) -> Keeper {
        let (kept, handle) = Kept::open(Arc::clone(&self.disk) as Arc<dyn Disk>, self.spool());
        drop(handle); // nobody asks but by the keeper's own functions
        let settings = AlertSettings {
            syslog: Some(Target::Unix("/nowhere".into())),
            uplink_after: SECOND * 30,
            peer_after: SECOND * 30,
            oldest_critical_after: SECOND * 60,
            ..AlertSettings::default()
        };
        let name = |text| Name::new(text).unwrap();
        let (board, monitor) = (Arc::clone(&self.board), self.parts.monitor.clone());
        let means = Means {
            site: name("s"),
            gateway: name("g"),
            settings,
            zone: jiff::tz::TimeZone::UTC,
            board,
            monitor,
            feeds: self.feeds.subscribe(),
            book: self.book.clone(),
        };
        kept.keep(means)
    }

    fn memory(&self) -> Memory {
        Store::new(Arc::new(RealDisk), self.spool()).read()
    }

    fn has(&self, code: Code) -> bool {
        self.board.conditions().iter().any(|condition| condition.code == code.as_str())
    }

    fn connections(&self, open: u64) {
        self.board.feed(&feed()).connections.store(open, Ordering::Relaxed);
    }

    /// A record that the hub does not confirm.
    fn captured(&mut self) {
        let message = Message {
            feed: feed(),
            identity: None,
            body: Payload::new("body".into()),
            reply: Payload::new("reply".into()),
            origin: Origin::Peer("127.0.0.1:1".into()),
            received_at_ms: 1_793_491_200_000,
            clock_suspect: false,
            stage: Stage::Live,
            batch_mismatch: false,
        };
        assert!(self.parts.committer.commit(vec![message]).iter().all(Result::is_ok));
    }

    fn recorded(&self, what: &str) -> bool {
        self.book.page(1).unwrap().iter().any(|(_, line)| line.contains(&format!("\"what\":\"{what}\"")))
    }
}

/// So much time goes by, in ticks of this length.
async fn pass(keeper: &mut Keeper, time: Duration, tick: Duration) {
    for _ in 0..time.as_millis().div_ceil(tick.as_millis()) {
        keeper.at = keeper.at.checked_sub(tick).unwrap();
        keeper.written = keeper.written.checked_sub(tick).unwrap();
        keeper.tick().await;
    }
}

fn wish(time: Duration) -> Wish {
    Wish { feed: None, time, at: None, who: "kim".into(), reason: "works".into() }
}

/// What each line that waits says.
fn lines(keeper: &Keeper) -> Vec<String> {
    let outbox = keeper.outbox.as_ref().unwrap();
    std::iter::from_fn(|| {
        let (number, alert, dropped) = outbox.first()?;
        outbox.handed_over(number, dropped);
        Some(format!("{} {} {}", if alert.over { "over" } else { "raised" }, alert.code.as_str(), alert.subject).trim_end().to_owned())
    })
    .collect()
}

/// I10: however often the agent is killed, a window lasts as long as asked and not longer; a kill costs it a slice at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_adds_no_time_to_a_window_and_takes_a_slice_at_most() {
    let bench = Bench::new();
    let mut keeper = bench.start();
    keeper.start(wish(HOUR)).await.unwrap();
    pass(&mut keeper, HOUR / 2, SECOND * 10).await;
    drop(keeper);
    let left = bench.memory().windows.held.list()[0].left;
    assert!(left <= HOUR / 2 && left >= (HOUR / 2).saturating_sub(TIMED_SLICE_RANGE.1 * 2), "{left:?}");
    let mut keeper = bench.start();
    pass(&mut keeper, left + SECOND, SECOND * 10).await;
    assert!(keeper.windows.held.list().is_empty() && bench.recorded("maintenance_ended"), "its end is audited");
    drop(keeper);
    assert!(bench.memory().windows.held.list().is_empty(), "and stays over");
}

/// A window that was said to hold is on the disk; one that the disk did not take does not hold, and one that was not ended there goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_holds_where_the_disk_took_it_and_nowhere_else() {
    let bench = Bench::new();
    let mut keeper = bench.start();
    for call in [Call::Create, Call::Rename] {
        bench.disk.fail(&[call]);
        let why = keeper.start(wish(HOUR)).await.unwrap_err();
        assert!(why.contains("could not be written"), "{why}");
        assert!(keeper.windows.held.list().is_empty() && bench.memory().windows.held.list().is_empty(), "{call:?}");
    }
    keeper.start(wish(HOUR)).await.unwrap();
    assert_eq!(bench.memory().windows.held.list().len(), 1, "it is there when the answer is");
    let id = keeper.windows.held.list()[0].what.id;
    bench.disk.fail(&[Call::Create]);
    keeper.end(id, "kim").await.unwrap_err();
    assert_eq!(keeper.windows.held.list().len(), 1, "nothing was changed");
    keeper.end(id, "kim").await.unwrap();
    assert!(bench.memory().windows.held.list().is_empty());
    for (time, reason) in [(HOUR * 72 + SECOND, "works"), (Duration::ZERO, "works"), (HOUR, " \n")] {
        keeper.start(Wish { reason: reason.into(), ..wish(time) }).await.unwrap_err();
    }
    assert!(keeper.windows.held.list().is_empty());
}

/// At a stop in order the file says exactly what is left, not what a kill would leave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_costs_a_window_nothing() {
    let bench = Bench::new();
    let mut keeper = bench.start();
    keeper.start(wish(HOUR)).await.unwrap();
    assert_eq!(bench.memory().windows.held.list()[0].left, HOUR.saturating_sub(TIMED_SLICE_RANGE.1), "charged ahead");
    let (stop, stopped) = watch::channel(false);
    stop.send_replace(true);
    keeper.run(stopped).await;
    assert!(bench.memory().windows.held.list()[0].left > HOUR.saturating_sub(TIMED_SLICE_RANGE.1));
}

/// I10: how long what is critical has waited goes on over kills, so that an agent that is killed every minute alerts all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_do_not_make_the_oldest_record_young_again() {
    let mut bench = Bench::new();
    bench.captured();
    let mut runs = 0;
    while !bench.has(Code::OldestCritical) {
        runs += 1;
        assert!(runs < 6, "{:?}", bench.memory().oldest);
        let mut keeper = bench.start();
        pass(&mut keeper, SECOND * 25, SECOND).await;
    }
    assert!(runs > 1, "not before its time");
    let mut keeper = bench.start();
    pass(&mut keeper, SECOND, SECOND).await;
    assert!(bench.has(Code::OldestCritical), "nor is it forgotten");
    assert_eq!(lines(&keeper), ["raised oldest_critical"]);
}

/// A hold-down goes on over kills too: held a while in each run, told once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_do_not_put_an_alert_off_for_ever_nor_tell_it_twice() {
    let bench = Bench::new();
    bench.board.raise(Code::UplinkDown, "", "no answer");
    let mut told = Vec::new();
    for _ in 0..8 {
        let mut keeper = bench.start();
        pass(&mut keeper, SECOND * 22, SECOND).await;
        told.extend(lines(&keeper));
        pass(&mut keeper, SECOND, SECOND).await; // what was handed over is written with the next look
    }
    assert_eq!(told, ["raised uplink_down"]);
    bench.board.clear(Code::UplinkDown, "");
    let mut keeper = bench.start();
    pass(&mut keeper, ALERT_START + SECOND, SECOND).await;
    assert_eq!(lines(&keeper), ["over uplink_down"], "it ended while nobody looked");
}

/// Who keeps its connection is remembered over a kill; a feed that is closed on purpose misses nobody; and whoever is back is not missed any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_does_not_come_back_after_a_kill_is_missed() {
    let bench = Bench::new();
    let mut keeper = bench.start();
    bench.connections(1);
    pass(&mut keeper, SECOND * 40, SECOND).await;
    drop(keeper);
    bench.connections(0);
    let mut keeper = bench.start();
    for closed in [Code::FeedPaused, Code::OverrideActive, Code::ListenerDown] {
        bench.board.raise(closed, "a", "closed");
        pass(&mut keeper, PEER_BACK * 2, SECOND * 5).await;
        assert!(!bench.has(Code::PeerLost), "{closed:?}: nobody can be connected");
        bench.board.clear(closed, "a");
    }
    pass(&mut keeper, PEER_GONE + SECOND * 2, SECOND).await;
    assert!(bench.has(Code::PeerLost));
    pass(&mut keeper, SECOND * 40, SECOND).await;
    bench.connections(1);
    pass(&mut keeper, PEER_STAYS + SECOND * 2, SECOND).await;
    assert!(!bench.has(Code::PeerLost));
    assert_eq!(
        lines(&keeper).iter().filter(|line| line.ends_with("peer_lost a")).collect::<Vec<_>>(),
        ["raised peer_lost a", "over peer_lost a"]
    );
}

/// A window keeps the uplink quiet and a loss never, and what it kept quiet is alerted when it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_silences_the_uplink_and_no_loss() {
    let bench = Bench::new();
    let mut keeper = bench.start();
    keeper.start(wish(SECOND * 90)).await.unwrap();
    bench.board.raise(Code::UplinkDown, "", "no answer");
    bench.board.raise(Code::SpoolDamaged, "", "a record is gone");
    pass(&mut keeper, SECOND * 60, SECOND).await;
    assert_eq!(lines(&keeper), ["raised spool_damaged"]);
    pass(&mut keeper, SECOND * 40, SECOND).await;
    assert_eq!(lines(&keeper), ["raised uplink_down"]);
}
