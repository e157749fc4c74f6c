//! What is written before and behind a deed, on a disk that takes it and on one that does not.

use super::*;
use crate::spool::disk::RealDisk;

fn book(spool: &Path, board: &Arc<Board>) -> Book {
    Book::open(Arc::new(RealDisk), spool, Name::new("gw1").unwrap(), Incarnation([1; 16]), Arc::clone(board))
}

fn texts(book: &Book) -> Vec<String> {
    book.page(1).unwrap().into_iter().map(|(_, line)| line).collect()
}

#[test]
fn what_is_done_stands_between_intent_and_outcome() {
    let (spool, board) = (tempfile::tempdir().unwrap(), Board::new([]));
    let book = book(spool.path(), &board);
    let intent = book.begin("kim (uid 1000)", "pause_feed", "or-usage", "cable").unwrap();
    assert_eq!(book.standing(), (2, 0), "it is on disk before anything is done");
    book.end(intent, true, "it is paused");
    let texts = texts(&book);
    assert!(texts[1].contains("\"stage\":\"intent\"") && texts[1].contains("cable"), "{texts:?}");
    assert!(texts[2].contains("pause_feed_done") && texts[2].contains("\"of\":2"), "{texts:?}");
    assert!(book.verify().unwrap().is_whole());
}

#[test]
fn where_no_record_can_be_written_nothing_is_done_but_break_glass() {
    let (spool, board) = (tempfile::tempdir().unwrap(), Board::new([]));
    let in_the_way = spool.path().join("audit");
    std::fs::write(&in_the_way, "a file").unwrap();
    let book = book(spool.path(), &board);
    let raised = || board.conditions().iter().any(|condition| condition.code == "audit_write_failed");
    assert!(raised());
    let why = book.begin("kim", "pause_feed", "lab", "x").unwrap_err();
    assert!(why.starts_with("nothing was done") && why.contains("mend the disk"), "{why}");
    let intent = book.begin_anyway("kim", "override_set", "lab", "x");
    book.end(intent, true, "it holds");
    std::fs::remove_file(&in_the_way).unwrap();
    book.catch_up();
    assert!(!raised());
    let texts = texts(&book);
    assert!(texts.len() == 3 && texts[1].contains("override_set\"") && texts[2].contains("override_set_done"), "{texts:?}");
}

/// I4: a disk that is away for days does not fill the memory.
#[test]
fn what_is_owed_is_bounded_and_the_rest_counted() {
    let (spool, board) = (tempfile::tempdir().unwrap(), Board::new([]));
    std::fs::write(spool.path().join("audit"), "a file").unwrap();
    let book = book(spool.path(), &board);
    for _ in 0..AUDIT_OWED_MAX + 5 {
        book.note("siteward", "override_ended", "lab", "its time is over");
    }
    std::fs::remove_file(spool.path().join("audit")).unwrap();
    book.note("siteward", "override_ended", "last", "");
    let texts = texts(&book);
    assert_eq!(texts.len(), 1 + AUDIT_OWED_MAX + 2);
    assert!(texts[1 + AUDIT_OWED_MAX].contains("5 records more"), "{texts:?}");
}

/// I9: records that had to go unsent are a condition, not a line in a log that nobody reads.
#[test]
fn what_was_given_up_unsent_is_a_condition() {
    let (spool, board) = (tempfile::tempdir().unwrap(), Board::new([]));
    let book = book(spool.path(), &board);
    book.place().log.as_mut().unwrap().bound(1);
    let is_told = || board.conditions().iter().any(|condition| condition.code == "audit_incomplete");
    let mut written = 0;
    while !is_told() {
        assert!(written < 2 * crate::limits::AUDIT_SEGMENT_BYTES / 2000, "two segments are full");
        book.note("kim", "pause_feed", "lab", &"x".repeat(2000));
        written += 1;
    }
    assert!(written > 1 && texts(&book).iter().any(|line| line.contains("audit_dropped")));
}

#[test]
fn what_became_of_a_revision_is_said_once_also_after_a_restart() {
    let (spool, board) = (tempfile::tempdir().unwrap(), Board::new([]));
    for _ in 0..2 {
        let book = book(spool.path(), &board);
        for _ in 0..2 {
            book.note_revision("kim", "committed", "7", "");
        }
    }
    let book = book(spool.path(), &board);
    assert_eq!(texts(&book).iter().filter(|line| line.contains("revision_committed")).count(), 1);
    book.note_revision("siteward", "rolled_back", "7", "");
    book.note_revision("kim", "committed", "7", "");
    assert_eq!(texts(&book).iter().filter(|line| line.contains("revision_")).count(), 3, "again, when there was something between");
}

/// An order does not wait until somebody has read the whole log.
#[test]
fn what_reads_the_log_keeps_nobody_from_writing() {
    let (spool, board) = (tempfile::tempdir().unwrap(), Board::new([]));
    let book = book(spool.path(), &board);
    let looking = book.0.verified.lock().unwrap();
    book.note("kim", "pause_feed", "lab", "while somebody verifies");
    drop(looking);
    let snapshot = book.snapshot().unwrap();
    book.note("kim", "pause_feed", "lab", "behind the snapshot");
    let verdict = snapshot.verdict().unwrap();
    assert!(verdict.is_whole() && verdict.chains[0].last == 2, "{}", verdict.text());
    assert_eq!(book.verify().unwrap().chains[0].last, 3);
    book.note("kim", "pause_feed", "lab", "seconds later");
    assert_eq!(book.verify().unwrap().chains[0].last, 3, "told again, not read again");
}

/// An override that was set while nothing could be written, by an agent that is gone, is in the log all the same.
#[test]
fn an_override_that_a_start_finds_is_noted_once() {
    let (spool, board) = (tempfile::tempdir().unwrap(), Board::new([]));
    std::fs::write(spool.path().join("audit"), "a file").unwrap();
    drop(book(spool.path(), &board));
    std::fs::remove_file(spool.path().join("audit")).unwrap();
    for _ in 0..3 {
        book(spool.path(), &board).note_holds("lab peers 0.0.0.0/0 2026-11-01T00:00:00.000Z", "set by kim: x");
    }
    let texts = texts(&book(spool.path(), &board));
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[1].contains("override_holds") && texts[1].contains("0.0.0.0/0"), "{texts:?}");
}

/// Evidence that the hub has not got stands as a condition at every start until it has the record that says so.
#[test]
fn the_log_of_another_gateway_raises_a_condition() {
    let (spool, board) = (tempfile::tempdir().unwrap(), Board::new([]));
    book(spool.path(), &board).note("kim", "drop_quarantine", "x", "y");
    let open = |board: &Arc<Board>| {
        let gateway = Name::new("gw2").unwrap();
        drop(Book::open(Arc::new(RealDisk), spool.path(), gateway, Incarnation([2; 16]), Arc::clone(board)));
    };
    for _ in 0..2 {
        let board = Board::new([]);
        open(&board);
        assert!(board.conditions().iter().any(|condition| condition.code == "audit_incomplete"));
    }
}
