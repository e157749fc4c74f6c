//! Speed of directory feeds in ratios, measured in one run on one machine. Prints, asserts nothing.
//!
//! | measured | against |
//! |---|---|
//! | a CSV of 5 million rows, 1 GB: from the rename to `done/` (durable, split, repeats looked for) | `cp` and `fsync` of the same file; the journal's bytes written in the journal's manner (16 MiB segments, allocated, one `fdatasync` a commit) with nothing computed; the same records appended to a spool without any file |
//! | 10,000 small files dropped by rename | a minute |
//! | 50 feeds with nothing to do | one core |
//!
//! The sides take turns, because a disk that others use too is fast at one time and slow at another. `SITEWARD_ROWS` takes another number of rows.
//! Run: `cargo build --profile fast --bins && cargo bench -p siteward-tests --profile fast --bench files`.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::files::{Folder, csv};
use harness::mosquitto;
use harness::scene::Scene;
use harness::site::{Configuration, Site};
use harness::wait;
use siteward::config::settings::KeySource;
use siteward::record::{Content, FeedId, FileFingerprint, FilePlace, Lane, Payload, Stage};
use siteward::spool::{self, Nonces, Rows, RowsOf};
use siteward::status::board::Board;

const ROUNDS: usize = 3;
const SEGMENT: u64 = 16 << 20;
const LONG: Duration = Duration::from_mins(10);

fn main() {
    // `cargo test` runs benches too, to see that they work; it does not want to wait for them
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let only = std::env::var("SITEWARD_BENCH").unwrap_or_default();
    let wanted = |what: &str| only.is_empty() || only == what;
    let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on disk");
    if wanted("rows") {
        rows(directory.path());
    }
    if wanted("small") {
        small_files();
    }
    if wanted("idle") {
        idle(&directory.path().join("idle"));
    }
}

/// A cabinet's export: 200 bytes a row, ends of lines included.
fn write_rows(path: &Path, rows: u64) {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).expect("a file"));
    file.write_all(b"row,cabinet,item,lot,expires,quantity,user,case,description\r\n").expect("room on the disk");
    let filling = "intraocular lens, foldable, hydrophobic, single piece, sterile, for one use, keep dry and away from light";
    for row in 1..=rows {
        let text = format!("{row:09},CAB-{:04},ITEM-{:08},L{:06},2027-{:02}-01", row % 400, row % 90_001, row % 77_777, row % 12 + 1);
        let text = format!("{text},{},U{:05},C{:09},\"{filling}", row % 10, row % 4000, row / 7);
        writeln!(file, "{text:x<197}\"\r").expect("room on the disk");
    }
    file.into_inner().expect("written").sync_all().expect("synced");
}

struct Captured {
    seconds: f64,
    journal_bytes: u64,
    resident_peak_kib: u64,
    cpu_seconds: f64,
}

fn rows(directory: &Path) {
    let rows: u64 = std::env::var("SITEWARD_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000_000);
    let file = directory.join("export.csv");
    write_rows(&file, rows);
    let size = fs::metadata(&file).expect("the file").len();
    println!("a CSV of {rows} rows, {} MB; {ROUNDS} rounds, sides in turn", size / 1_000_000);
    println!(
        "round | cp+fsync s | siteward s | ratio | journal MB | its bytes alone s | ratio | appended only s | ratio | peak KiB | CPU s"
    );
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let copied = copy(&file, &directory.join("copy"));
        let ours = capture(&directory.join(format!("site-{round}")), &file, rows);
        let plain = plain_commits(&directory.join("plain"), ours.journal_bytes);
        let appended = append_only(&directory.join("spool"), rows, size / rows);
        ratios.push(copied / ours.seconds);
        println!(
            "{round} | {copied:.1} | {:.1} | {:.2} | {} | {plain:.1} | {:.2} | {appended:.1} | {:.2} | {} | {:.1}",
            ours.seconds,
            copied / ours.seconds,
            ours.journal_bytes / 1_000_000,
            plain / ours.seconds,
            appended / ours.seconds,
            ours.resident_peak_kib,
            ours.cpu_seconds,
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("median against cp+fsync: {:.2}", ratios[ratios.len() / 2]);
}

fn copy(from: &Path, to: &Path) -> f64 {
    let began = Instant::now();
    let status = std::process::Command::new("cp").arg(from).arg(to).status().expect("cp");
    assert!(status.success());
    File::open(to).expect("the copy").sync_all().expect("synced");
    let seconds = began.elapsed().as_secs_f64();
    fs::remove_file(to).expect("removed");
    seconds
}

/// A site with one directory feed and no hub anywhere, so that nothing else is at work.
fn capture(directory: &Path, file: &Path, rows: u64) -> Captured {
    let mut configuration = Configuration::new(directory);
    configuration.max_bytes = "8GiB".into();
    let folder = Folder::new(&directory.join("in"), "cabinet");
    configuration.sections.push(folder.section(&["split = \"csv\"", "complete = \"rename\""]));
    let mut site = Site::new(directory, configuration);
    site.start();
    let began = Instant::now();
    fs::rename(file, folder.file("export.csv")).expect("the same file system");
    wait::wait_until("the file is in done/", LONG, || folder.is_done("export.csv"));
    let seconds = began.elapsed().as_secs_f64();
    let (resident_peak_kib, cpu_seconds) = (site.process().resident_peak_kib(), site.process().cpu_seconds());
    assert_eq!(site.feed_status("cabinet")["captured"], rows);
    let journal_bytes = bytes_below(&directory.join("spool/journal"));
    site.stop();
    fs::rename(folder.file("done/export.csv"), file).expect("the same file system");
    fs::remove_dir_all(directory).expect("removed");
    Captured { seconds, journal_bytes, resident_peak_kib, cpu_seconds }
}

fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().map(|entry| {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory { bytes_below(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) }
    });
    sizes.sum()
}

/// The least that a journal of this manner could do.
fn plain_commits(directory: &Path, bytes: u64) -> f64 {
    fs::create_dir_all(directory).expect("a directory");
    let block = vec![0x5Au8; siteward::limits::BATCH_BYTES_MAX as usize];
    let began = Instant::now();
    let mut done = 0;
    for number in 0.. {
        if done >= bytes {
            break;
        }
        let file = File::create(directory.join(number.to_string())).expect("a file");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SEGMENT).expect("room on the disk");
        for at in (0..SEGMENT).step_by(block.len()) {
            file.write_all_at(&block, at).expect("written");
            file.sync_data().expect("synced");
        }
        done += SEGMENT;
    }
    let seconds = began.elapsed().as_secs_f64();
    fs::remove_dir_all(directory).expect("removed");
    seconds
}

/// So many records of that size through the spool's door for files: numbered, chained, sealed, checked, synced; no file is read.
fn append_only(directory: &Path, rows: u64, bytes: u64) -> f64 {
    let feed = FeedId::new("cabinet").expect("a name");
    let options = spool::Options {
        path: directory.to_owned(),
        max_bytes: Some(8 << 30),
        key: KeySource::Auto,
        message_bytes_max: 1 << 20,
        feeds: vec![(feed.clone(), Lane::Normal)],
    };
    fs::create_dir_all(directory).expect("a directory");
    let opened = spool::open(options, &Board::new([feed.clone()])).expect("a spool");
    let body = Payload::new(Bytes::from(vec![b'x'; bytes as usize + 61]));
    let began = Instant::now();
    let (mut under_way, mut follows) = (std::collections::VecDeque::new(), None);
    let (file, mut nonces) = (FileFingerprint([7; 32]), Nonces::default());
    let each = 2048;
    for first in (0..rows).step_by(each) {
        let of = RowsOf {
            feed: feed.clone(),
            file,
            name: String::new(),
            content: Content::Csv,
            repeated: false,
            stage: Stage::Live,
            batch_mismatch: false,
            received_at_ms: 1,
            clock_suspect: false,
        };
        let mut run = Rows::new(of, follows);
        for index in first + 1..=rows.min(first + each as u64) {
            let place = FilePlace { fingerprint: file, index, end_offset: index * bytes, last: index == rows };
            run.push(&mut nonces, &place, place.end_offset - bytes, body.clone());
            follows = Some(place);
        }
        under_way.push_back(opened.appender.append_files(vec![run]).expect("the spool runs"));
        if under_way.len() > 8 {
            under_way.pop_front().expect("not empty").wait().expect("stored");
        }
    }
    for appending in under_way {
        appending.wait().expect("stored");
    }
    let seconds = began.elapsed().as_secs_f64();
    opened.closer.close();
    fs::remove_dir_all(directory).expect("removed");
    seconds
}

fn small_files() {
    const FILES: u64 = 10_000;
    let mut folder = None;
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| {
        let made = Folder::new(&configuration.spool.with_file_name("in"), "small");
        configuration.sections.push(made.section(&["split = \"csv\"", "complete = \"rename\""]));
        folder = Some(made);
    });
    let folder = folder.expect("made");
    scene.start();
    let began = Instant::now();
    for n in 1..=FILES {
        folder.put(&format!("f{n:06}.csv"), &csv(n, n));
    }
    let dropped = began.elapsed().as_secs_f64();
    wait::wait_until("all are in done/", LONG, || folder.names("done").len() as u64 == FILES);
    let moved = began.elapsed().as_secs_f64();
    wait::wait_until("all are at the hub", LONG, || scene.hub.events() >= FILES);
    let arrived = began.elapsed().as_secs_f64();
    println!(
        "{FILES} files of one row: dropped in {dropped:.1} s, all in done/ after {moved:.1} s, at the hub after {arrived:.1} s: {:.0} files a minute; peak {} KiB",
        FILES as f64 / moved.max(arrived) * 60.0,
        scene.site.process().resident_peak_kib()
    );
    scene.site.stop();
}

fn idle(directory: &Path) {
    const FEEDS: usize = 50;
    const WATCHED: Duration = Duration::from_mins(1);
    for (scan, files) in [("10s", 0), ("10s", 20), ("1s", 20)] {
        let directory = directory.join(format!("{scan}-{files}"));
        let mut configuration = Configuration::new(&directory);
        for n in 0..FEEDS {
            let folder = Folder::new(&directory.join("in"), &format!("feed-{n}"));
            (0..files).for_each(|file| folder.put(&format!("f{file}.csv"), &csv(1, 1)));
            let section = folder.section(&["split = \"csv\"", "complete = \"rename\"", "done = \"leave\""]);
            configuration.sections.push(section.replace("scan = \"1s\"", &format!("scan = \"{scan}\"")));
        }
        let mut site = Site::new(&directory, configuration);
        site.start();
        // what is there is captured, the first rounds are over
        std::thread::sleep(Duration::from_secs(15));
        let before = site.process().cpu_seconds();
        std::thread::sleep(WATCHED);
        let used = site.process().cpu_seconds() - before;
        println!(
            "{FEEDS} idle feeds, {files} files left in each, a scan every {scan}: {used:.2} s of {} s, {:.2} % of one core; resident {} KiB",
            WATCHED.as_secs(),
            used / WATCHED.as_secs_f64() * 100.0,
            site.process().resident_kib()
        );
        site.stop();
    }
}
