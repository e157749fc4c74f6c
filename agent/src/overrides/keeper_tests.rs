//! The keeper on a disk that fails for a moment: what the file says in the end is what holds.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Change;
use super::handle::{Handle, Request, Response};
use super::keeper::Kept;
use super::store::Store;
use crate::config;
use crate::forward::Feeds;
use crate::forward::mail::{Mail, Office, office};
use crate::limits::OVERRIDE_TICK;
use crate::record::{FeedId, Name};
use crate::sources::paused::Pauses;
use crate::sources::{Parts, Sources};
use crate::spool::disk::{Disk, RealDisk};
use crate::spool::faulty::{Call, Faulty};
use crate::spool::{self, Spool};
use crate::status::board::{Board, ConfigView};
use crate::uplink::credentials::Identities;
use crate::uplink::scripted::some_settings;

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn one_feed() -> Feeds {
    let text = format!(
        "[gateway]\nsite=\"s\"\nid=\"g\"\ntimezone=\"UTC\"\n[uplink]\nendpoints=[\"mqtt://h:1883\"]\nallow_plaintext=true\n\
         [[feed]]\nid=\"a\"\nforward=\"raw\"\nphi=\"allowed\"\n[feed.mllp]\nlisten=\"127.0.0.1:{}\"\n",
        port()
    );
    Arc::from(config::parse_text("/etc/t.toml".as_ref(), &text).unwrap_or_else(|faults| panic!("{faults}")).feeds)
}

/// A keeper over one feed.
struct Bench {
    directory: tempfile::TempDir,
    disk: Arc<Faulty>,
    board: Arc<Board>,
    handle: Handle,
    feeds: watch::Sender<Feeds>,
    _rest: (Mail, Office, Spool, watch::Sender<bool>, watch::Receiver<Vec<super::handle::View>>),
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (board, feeds) = (Board::new([]), one_feed());
        let path = directory.path().join("spool");
        let options = spool::Options {
            path: path.clone(),
            max_bytes: Some(crate::limits::SPOOL_BYTES_MIN),
            key: config::settings::KeySource::Auto,
            message_bytes_max: crate::limits::MIB,
            feeds: feeds.iter().map(|feed| (feed.id.clone(), feed.lane)).collect(),
        };
        let opened = Arc::clone(&board);
        let spool = tokio::task::spawn_blocking(move || spool::open(options, &opened).unwrap()).await.unwrap();
        let gateway = Name::new("g").unwrap();
        let (told, _) = watch::channel(Arc::from([]));
        let (appender, message_bytes_max) = (spool.appender.clone(), crate::limits::MIB);
        let parts = Parts {
            gateway: gateway.clone(),
            appender,
            board: Arc::clone(&board),
            message_bytes_max,
            told,
            sockets: crate::systemd::sockets::SocketStore::default(),
        };
        let (mut sources, source_handle) = Sources::new(parts, Pauses::open(Arc::new(RealDisk), &path));
        let (stop, stopped) = watch::channel(false);
        assert_eq!(sources.apply(Arc::clone(&feeds), &stopped).await, Ok(vec![]));
        tokio::spawn(sources.run(stopped.clone()));
        let disk = Arc::new(Faulty::default());
        let (kept, handle) = Kept::open(Arc::clone(&disk) as Arc<dyn Disk>, &path);
        let (feeds, running) = watch::channel(feeds);
        let (mail, office) = office(some_settings(), Identities::default());
        let (keeper, views) = kept.keep(source_handle, running, &board, crate::audit::Book::of_rig(&board));
        tokio::spawn(keeper.run(stopped));
        let bench = Self { directory, disk, board, handle, feeds, _rest: (mail, office, spool, stop, views) };
        assert_eq!(bench.holding().await, 0, "it has begun");
        bench
    }

    fn spool(&self) -> std::path::PathBuf {
        self.directory.path().join("spool")
    }

    async fn ask(&self, request: Request) -> Result<Response, String> {
        let handle = self.handle.clone();
        tokio::task::spawn_blocking(move || handle.ask(request)).await.unwrap()
    }

    async fn pause(&self, time: Duration) -> Result<Response, String> {
        let (who, reason) = ("kim".to_owned(), "moved".to_owned());
        self.ask(Request::Set { feed: feed(), change: Change::Pause, time, who, reason }).await
    }

    async fn clear(&self) -> Result<Response, String> {
        self.ask(Request::Clear { feed: feed(), kind: None, who: "kim".to_owned() }).await
    }

    async fn holding(&self) -> usize {
        match self.ask(Request::List).await {
            Ok(Response::List { overrides }) => overrides.len(),
            other => panic!("{other:?}"),
        }
    }

    /// What a start would find.
    fn written(&self) -> usize {
        written(&self.spool())
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn feed() -> FeedId {
    FeedId::new("a").unwrap()
}

fn written(spool: &Path) -> usize {
    Store::new(Arc::new(RealDisk), spool).read().list().len()
}

/// A kill must not bring back what is over, nor give it time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_while_the_disk_took_nothing_is_gone_from_it_as_soon_as_it_does() {
    let bench = Bench::new().await;
    bench.pause(Duration::from_secs(1)).await.unwrap();
    assert_eq!(bench.written(), 1);
    bench.disk.fail(&[Call::Remove; 1000]);
    while bench.holding().await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.written(), 1, "the disk takes nothing");
    bench.disk.heal();
    bench.until(|bench| bench.written() == 0).await;
}

/// The rename came through and the sync behind it did not: whatever is answered, a start finds what holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_failed_half_way_is_undone_on_the_disk_too() {
    let bench = Bench::new().await;
    let hour = Duration::from_secs(3600);
    bench.disk.fail(&[Call::SyncDir]);
    let told = bench.pause(hour).await.unwrap_err();
    assert!(told.contains("nothing was changed"), "{told}");
    assert_eq!((bench.holding().await, bench.written()), (0, 0));
    bench.pause(hour).await.unwrap();
    bench.disk.fail(&[Call::SyncDir]);
    let told = bench.clear().await.unwrap_err();
    assert!(told.contains("nothing was changed"), "{told}");
    assert_eq!((bench.holding().await, bench.written()), (1, 1));
    bench.disk.fail(&[Call::SyncDir, Call::Create]);
    let told = bench.clear().await.unwrap_err();
    assert!(told.contains("until it is written back"), "{told}");
    bench.until(|bench| bench.written() == 1).await;
    assert_eq!(bench.holding().await, 1);
}

/// A rollback is decided, and the sources have not followed yet: the feed that the trial left out comes back, and its override with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_outlives_a_feed_that_is_owed() {
    let bench = Bench::new().await;
    bench.pause(Duration::from_secs(3600)).await.unwrap();
    bench.board.set_config(ConfigView { is_owed: true, ..ConfigView::local("") });
    let feeds = bench.feeds.send_replace(Arc::from([]));
    for _ in 0..2 {
        tokio::time::sleep(OVERRIDE_TICK).await;
        assert_eq!(bench.holding().await, 1);
    }
    bench.feeds.send_replace(feeds);
    bench.board.set_config(ConfigView::local(""));
    tokio::time::sleep(OVERRIDE_TICK * 2).await;
    assert_eq!(bench.holding().await, 1);
    bench.feeds.send_replace(Arc::from([]));
    while bench.holding().await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
