//! The thread's work on a real spool and a real directory, round by round, without the thread.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::doorbell::{Button, Doorbell};
use super::pulse::Pulse;
use super::read::{self, Broken, Reading, Sender, Subject};
use super::report::Report;
use super::share::Share;
use super::worker::Worker;
use super::*;
use crate::config::settings::KeySource;
use crate::record::{Lane, Name};
use crate::source::split::CsvSettings;
use crate::spool::{self, Options, Spool};

struct Rig {
    directory: tempfile::TempDir,
    board: Arc<Board>,
    spool: Spool,
    bell: Doorbell,
}

fn feed() -> FeedId {
    Name::new("cabinet").unwrap()
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("in")).unwrap();
        let (board, spool) = Self::open(directory.path());
        Self { directory, board, spool, bell: Doorbell::new(Button::new().unwrap()) }
    }

    fn open(directory: &Path) -> (Arc<Board>, Spool) {
        let board = Board::new([feed()]);
        let options = Options {
            path: directory.join("spool"),
            max_bytes: Some(limits::SPOOL_BYTES_MIN),
            key: KeySource::Auto,
            message_bytes_max: limits::MIB,
            feeds: vec![(feed(), Lane::Normal)],
        };
        let spool = spool::open(options, &board).unwrap();
        (board, spool)
    }

    fn input(&self) -> PathBuf {
        self.directory.path().join("in")
    }

    fn put(&self, name: &str, content: &str) {
        std::fs::write(self.input().join(name), content).unwrap();
    }

    fn worker(&self, adjust: impl FnOnce(&mut DirectorySettings)) -> Worker {
        let mut settings = DirectorySettings {
            path: self.input(),
            patterns: vec![Pattern::new("*").unwrap()],
            subfolders: false,
            order: Order::Name,
            complete: Completion::Rename,
            settle: Duration::from_secs(1),
            scan: Duration::from_secs(1),
            split: SplitSettings::Csv(CsvSettings::default()),
            done: DoneRule::Move(Retention { days: 1, bytes: limits::MIB }),
            require_mount: None,
            name_in_events: false,
            stage: Stage::Live,
        };
        adjust(&mut settings);
        let report = Report::new(Arc::clone(&self.board), feed(), settings.name_in_events);
        let split_limits = SplitLimits::new(limits::MIB);
        Worker::new(feed(), settings, split_limits, self.spool.appender.clone(), self.board.feed(&feed()), Arc::default(), report)
    }

    /// Last lines of the records, in order.
    fn rows(&mut self) -> Vec<String> {
        let (mut rows, mut after) = (Vec::new(), 0);
        while let Some(spool::Item::Record(record)) = self.spool.reader.next(&feed(), after).unwrap() {
            after = record.seq;
            let text = String::from_utf8_lossy(record.body.expose()).into_owned();
            rows.push(text.lines().last().unwrap_or_default().to_owned());
        }
        rows
    }

    fn condition(&self, code: Code) -> Option<String> {
        self.board.conditions().into_iter().find(|condition| condition.code == code.as_str()).map(|condition| condition.text)
    }
}

#[test]
fn files_are_captured_in_order_and_moved() {
    let mut rig = Rig::new();
    rig.put("b.csv", "h\nb1\nb2\n");
    rig.put("a.csv", "h\na1\n");
    rig.put("empty.csv", "");
    let mut worker = rig.worker(|_| {});
    worker.round(&mut rig.bell).unwrap();
    assert_eq!(rig.rows(), ["a1", "b1", "b2"]);
    assert!(["a.csv", "b.csv", "empty.csv"].iter().all(|name| rig.input().join(DONE).join(name).exists()));
    worker.round(&mut rig.bell).unwrap();
    assert_eq!(rig.rows().len(), 3);
}

/// I3: what was captured stays known when the file cannot be moved, also to the next process.
#[test]
fn a_file_that_cannot_be_moved_is_never_captured_again() {
    let mut rig = Rig::new();
    rig.put("a.csv", "h\na1\n");
    rig.put(DONE, "in the way");
    rig.worker(|_| {}).round(&mut rig.bell).unwrap();
    assert!(rig.condition(Code::FileStuck).is_some_and(|text| !text.contains("a.csv")), "I7: its name is not shown");
    drop(std::fs::remove_file(rig.input().join(DONE)));
    rig.worker(|_| {}).round(&mut rig.bell).unwrap();
    assert_eq!(rig.rows(), ["a1"]);
    assert!(rig.input().join(DONE).join("a.csv").exists());
}

/// I1: a move is owed of the file that was captured, not of the one that took its name since: that one is captured first.
#[test]
fn a_file_that_replaces_one_whose_move_is_owed_is_captured() {
    let mut rig = Rig::new();
    rig.put("a.csv", "h\na1\n");
    rig.put(DONE, "in the way");
    let mut worker = rig.worker(|_| {});
    worker.round(&mut rig.bell).unwrap();
    assert!(rig.condition(Code::FileStuck).is_some());
    std::fs::remove_file(rig.input().join(DONE)).unwrap();
    rig.put(".a.csv", "h\nb1\n");
    std::fs::rename(rig.input().join(".a.csv"), rig.input().join("a.csv")).unwrap();
    worker.round(&mut rig.bell).unwrap();
    assert_eq!(rig.rows(), ["a1", "b1"]);
    assert_eq!(std::fs::read(rig.input().join(DONE).join("a.csv")).unwrap(), b"h\nb1\n");
    assert_eq!(rig.condition(Code::FileStuck), None);
}

#[test]
fn what_is_left_is_known_by_what_it_is() {
    let mut rig = Rig::new();
    let leave = |settings: &mut DirectorySettings| settings.done = DoneRule::Leave;
    rig.put("a.csv", "h\na1\n");
    rig.worker(leave).round(&mut rig.bell).unwrap();
    // Its inode and its change of name are others, as after another mount; path, size, time and content are the same.
    let path = rig.input().join("a.csv");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::remove_file(&path).unwrap();
    rig.put("a.csv", "h\na1\n");
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    rig.worker(leave).round(&mut rig.bell).unwrap();
    assert_eq!(rig.rows(), ["a1"]);
    // Other content under the same size and time is another file.
    std::fs::write(&path, "h\nz1\n").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    rig.worker(leave).round(&mut rig.bell).unwrap();
    assert_eq!(rig.rows(), ["a1", "z1"]);
}

#[test]
fn a_file_with_hardly_a_good_row_is_refused_as_a_whole() {
    let mut rig = Rig::new();
    let rubbish: String =
        std::iter::once("a,b\n1,2\n".to_owned()).chain((0..=limits::FILE_BAD_PIECES_MAX).map(|n| format!("{n}\n"))).collect();
    rig.put("rubbish.csv", &rubbish);
    rig.put("few.csv", "a,b\n1,2\nonly\n");
    rig.worker(|settings| settings.name_in_events = true).round(&mut rig.bell).unwrap();
    assert_eq!(rig.rows(), ["1,2"], "the other file is taken");
    let reason = std::fs::read_to_string(rig.input().join(FAILED).join("rubbish.csv.reason.txt")).unwrap();
    assert!(reason.contains("1001 rows"), "{reason}");
    assert!(rig.condition(Code::FileRefused).is_some_and(|text| text.starts_with("rubbish.csv: ")));
    let kept = std::fs::read_dir(rig.directory.path().join("spool/journal/quarantine")).unwrap().count();
    assert_eq!(kept, 1, "the bad row of the other file");
}

/// I1, I3: bad rows behind the last record are in quarantine before that record is stored: once it is, the file counts as done after a kill.
#[test]
fn the_last_record_waits_for_the_bad_rows_behind_it() {
    let mut rig = Rig::new();
    rig.put("a.csv", "a,b\n1,2\nonly\n3,4\nlonely\n");
    let quarantine = rig.directory.path().join("spool/journal/quarantine");
    let break_it = || {
        std::fs::remove_dir_all(&quarantine).unwrap();
        std::fs::write(&quarantine, "in the way").unwrap();
    };
    let mend_it = || {
        std::fs::remove_file(&quarantine).unwrap();
        std::fs::create_dir(&quarantine).unwrap();
    };
    break_it();
    let mut worker = rig.worker(|_| {});
    assert!(worker.round(&mut rig.bell).is_err());
    assert_eq!(rig.rows(), ["1,2"], "those before the first bad row do not wait");
    let told = rig.condition(Code::QuarantineWriteFailed).expect("the feed stands still, and that is said");
    assert!(told.contains("check the disk"), "{told}");
    mend_it();
    worker.round(&mut rig.bell).unwrap();
    assert_eq!(rig.rows(), ["1,2", "3,4"]);
    assert_eq!(std::fs::read_dir(&quarantine).unwrap().count(), 2);
    assert_eq!(rig.condition(Code::QuarantineWriteFailed), None);
    break_it();
    rig.put("b.csv", "a,b\n5,6\nlonely\n");
    assert!(worker.round(&mut rig.bell).is_err());
    assert_eq!(rig.rows().len(), 2, "the last record is not stored before the row behind it is kept");
    mend_it();
    worker.round(&mut rig.bell).unwrap();
    assert_eq!(rig.rows().len(), 3);
}

/// I3: `split` changes while a file is half stored: the rest of it comes as it was begun, the next file as it is split now.
#[test]
fn a_file_is_finished_as_it_was_begun() {
    use super::read::content_of;
    let mut rig = Rig::new();
    rig.put("a.csv", "h\na1\na2\na3\n");
    let mut worker = rig.worker(|_| {});
    // As a crash leaves it: begun, two rows stored.
    let share = Share::open(&rig.input()).unwrap();
    let (pulse, split, name) = (Pulse::default(), SplitSettings::Csv(CsvSettings::default()), feed());
    let reading = Reading { feed: &name, split: &split, limits: SplitLimits::new(limits::MIB), stage: Stage::Live, pulse: &pulse };
    let path = Path::new("a.csv");
    let stat = share.stat(path).unwrap();
    let look = read::look(&reading, &share, path, stat.seen).unwrap();
    let fingerprint = memory::fingerprint(path, stat.seen.size, stat.seen.modified, &look.digest);
    let digest = look.digest[..16].try_into().unwrap();
    let known = crate::spool::filelist::KnownFile { glance: memory::glance(path, &stat), fingerprint, digest };
    let (list, notes) = rig.spool.appender.file_list(&feed()).unwrap();
    memory::Memory::open(list, notes, None, &split).unwrap().begin(vec![known], None).unwrap();
    worker.settings.split = split.clone();
    let place = |index| crate::record::FilePlace { fingerprint, index, end_offset: 2 + 3 * index, last: false };
    let of = crate::spool::RowsOf {
        feed: feed(),
        file: fingerprint,
        name: String::new(),
        content: content_of(&split),
        repeated: false,
        stage: Stage::Live,
        batch_mismatch: false,
        received_at_ms: 1,
        clock_suspect: false,
    };
    let (mut run, mut nonces) = (crate::spool::Rows::new(of, None), crate::spool::Nonces::default());
    for index in 1..=2 {
        let body = crate::record::Payload::new(bytes::Bytes::from(format!("h\na{index}\n")));
        run.push(&mut nonces, &place(index), 0, body);
    }
    rig.spool.appender.append_files(vec![run]).unwrap().wait().unwrap();
    drop(worker);
    rig.put("b.csv", "h\nb1\n");
    rig.worker(|settings| settings.split = SplitSettings::Lines).round(&mut rig.bell).unwrap();
    assert_eq!(rig.rows(), ["a1", "a2", "a3", "h", "b1"]);
}

/// I3: a file whose content changed between the passes, with size and time as they were, is not done: its last record is not stored.
#[test]
fn content_that_changes_unseen_between_the_passes_is_noticed_before_the_last_record() {
    let rig = Rig::new();
    rig.put("a.csv", "h\na1\na2\na3\n");
    let (share, pulse, split) = (Share::open(&rig.input()).unwrap(), Pulse::default(), SplitSettings::Csv(CsvSettings::default()));
    let name = feed();
    let reading = Reading { feed: &name, split: &split, limits: SplitLimits::new(limits::MIB), stage: Stage::Live, pulse: &pulse };
    let path = Path::new("a.csv");
    let seen = share.stat(path).unwrap().seen;
    let look = read::look(&reading, &share, path, seen).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(seen.modified.0).unwrap(), seen.modified.1);
    std::fs::write(rig.input().join(path), "h\na1\nX2\na3\n").unwrap();
    std::fs::File::options().write(true).open(rig.input().join(path)).unwrap().set_modified(time).unwrap();
    let fingerprint = memory::fingerprint(path, seen.size, seen.modified, &look.digest);
    let subject = Subject { path, seen, fingerprint, look: &look, through: 0, name: "", label: "", repeated: false };
    let mut sender = Sender::new(&rig.spool.appender, None);
    assert!(matches!(read::capture(&reading, &share, &subject, &mut sender, |_| {}), Err(Broken::Changed)));
    sender.give_up();
    assert!(rig.spool.appender.file_progress(&feed()).is_none_or(|place| !place.last));
}

/// I3: a file that changes while its batch is captured is left out with every row of it, and those behind it do not overtake those before it.
#[test]
fn a_file_at_fault_is_left_out_and_the_others_keep_their_order() {
    let mut rig = Rig::new();
    let mut worker = rig.worker(|_| {});
    worker.round(&mut rig.bell).unwrap();
    for name in ["a", "b", "c"] {
        rig.put(name, &format!("h\n{name}1\n{name}2\n"));
    }
    let share = Share::open(&rig.input()).unwrap();
    let mut batch = Vec::new();
    for name in ["a", "b", "c"] {
        let candidate = scan::Candidate { path: name.into(), stat: share.stat(Path::new(name)).unwrap(), marker: None };
        batch.extend(worker.look(&share, &candidate).unwrap());
    }
    // Under the same size and time, so that it is noticed at its end.
    let path = rig.input().join("b");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, "h\nX1\nX2\n").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    worker.capture(&share, &batch).unwrap();
    assert_eq!(rig.rows(), ["a1", "a2", "c1", "c2"]);
    worker.round(&mut rig.bell).unwrap();
    assert_eq!(rig.rows(), ["a1", "a2", "c1", "c2", "X1", "X2"]);
    assert!(["a", "b", "c"].iter().all(|name| rig.input().join(DONE).join(name).exists()));
}

/// I7: what a scan left out is told without the names of folders, unless they may be shown.
#[test]
fn what_a_scan_left_out_is_told() {
    let rig = Rig::new();
    let folder = |name: &str| (PathBuf::from(name), std::io::Error::from(std::io::ErrorKind::PermissionDenied));
    let found = scan::Found { unreadable: vec![folder("Mrs Smith"), folder("other")], ..scan::Found::default() };
    let told = rig.worker(|_| {}).left_out(&found).unwrap();
    assert!(!told.contains("Smith") && told.contains("(1 other folders likewise)"), "I7: {told}");
    let told = rig.worker(|settings| settings.name_in_events = true).left_out(&found).unwrap();
    assert!(told.contains("Mrs Smith"), "{told}");
    let told = rig.worker(|_| {}).left_out(&scan::Found { is_cut: true, ..scan::Found::default() }).unwrap();
    assert!(told.contains("more than 100000 names"), "{told}");
    assert_eq!(rig.worker(|_| {}).left_out(&scan::Found::default()), None);
}

/// I3: a record that does not follow what is durable is refused, and everything behind it.
#[test]
fn a_record_is_stored_only_behind_the_one_before_it() {
    use crate::record::{Content, FileFingerprint, FilePlace, Payload};
    use crate::spool::{Nonces, Rows, RowsOf};
    let rig = Rig::new();
    let file = FileFingerprint([1; 32]);
    let place = |index| FilePlace { fingerprint: file, index, end_offset: index, last: false };
    let append = |indices: std::ops::RangeInclusive<u64>, follows| {
        let of = RowsOf {
            feed: feed(),
            file,
            name: String::new(),
            content: Content::Csv,
            repeated: false,
            stage: Stage::Live,
            batch_mismatch: false,
            received_at_ms: 1,
            clock_suspect: false,
        };
        let (mut run, mut nonces) = (Rows::new(of, follows), Nonces::default());
        indices.for_each(|index| run.push(&mut nonces, &place(index), 0, Payload::new(bytes::Bytes::from_static(b"row"))));
        rig.spool.appender.append_files(vec![run]).unwrap().wait()
    };
    assert!(append(1..=2, None).is_ok());
    assert!(append(4..=5, Some(place(3))).is_err());
    assert!(append(1..=1, None).is_err(), "not twice");
    assert_eq!(rig.spool.appender.file_progress(&feed()), Some(place(2)));
    assert!(append(3..=3, Some(place(2))).is_ok());
}
