//! What is kept, found, forgotten and dropped.

use super::*;

struct Rig {
    recent: Recent,
    notes: Arc<Notes>,
    feed: FeedId,
    _directory: tempfile::TempDir,
}

fn rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let db = sled::Config::new().path(directory.path().join("db")).open().unwrap();
    let notes = Arc::<Notes>::default();
    notes.is_open.store(true, Ordering::Relaxed);
    let recent = Recent::without_thread(&notes, Arc::new(Mutex::new(state::State::with(Some(db)))));
    Rig { recent, notes, feed: FeedId::new("f").unwrap(), _directory: directory }
}

impl Rig {
    fn stored(&self, seq: u64, id: &str) {
        self.notes.push(Note::Stored {
            feed: self.feed.clone(),
            seq,
            received_at_ms: seq.cast_signed() * 10,
            peer: "p:1".into(),
            control_id: id.as_bytes().into(),
            ack: AckCode::Aa,
            ack_at_ms: Some(seq.cast_signed() * 10 + 1),
            resend_of: None,
        });
    }
    fn find(&self, wanted: &Wanted) -> Vec<(u64, Outcome)> {
        self.recent.find(&self.feed, wanted, u64::MAX, 100).outcomes
    }
}

#[test]
fn a_record_collects_its_times_in_any_order_and_over_several_turns() {
    let rig = rig();
    let feed = || rig.feed.clone();
    rig.notes.push(Note::Published { feed: feed(), seq: 1, at_ms: 12 });
    rig.stored(1, "ID1");
    rig.stored(2, "ID2");
    assert_eq!(rig.find(&Wanted::All).len(), 2, "and a turn was made");
    rig.notes.push(Note::Acked { feed: feed(), seq: 1, at_ms: 13 });
    rig.notes.push(Note::Settled { feed: feed(), seq: 1, at_ms: 14 });
    let found = rig.find(&Wanted::ControlId(b"ID1".to_vec()));
    assert_eq!(found.len(), 1);
    let one = &found[0].1;
    assert_eq!(
        (one.received_at_ms, one.ack_at_ms, one.published_at_ms, one.acked_at_ms, one.settled_at_ms),
        (Some(10), Some(11), Some(12), Some(13), Some(14))
    );
    assert_eq!(rig.find(&Wanted::Seq(2))[0].1.settled_at_ms, None, "settled through 1 says nothing of 2");
    assert_eq!(rig.find(&Wanted::Since(15)).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2]);
}

#[test]
fn duplicates_are_listed_newest_first_and_bounded() {
    let rig = rig();
    for n in 0..RECENT_DUPLICATES_PER_FEED + 50 {
        let feed = rig.feed.clone();
        let control_id = format!("ID{n}").into_bytes().into();
        rig.notes.push(Note::Repeated { feed, seq: n, at_ms: n.cast_signed(), peer: "p".into(), control_id, ack: AckCode::Ca });
        if n % 200 == 0 {
            rig.recent.turn();
        }
    }
    let all = rig.recent.duplicates(&rig.feed, usize::MAX, |_| true).unwrap();
    assert_eq!(all.len() as u64, RECENT_DUPLICATES_PER_FEED);
    assert_eq!(all[0].control_id, format!("ID{}", RECENT_DUPLICATES_PER_FEED + 49).into_bytes());
}

/// I4: what is kept and what waits are both bounded; what does not fit is counted.
#[test]
fn the_oldest_go_and_what_does_not_fit_is_counted() {
    let rig = rig();
    for seq in 1..=RECENT_PER_FEED + 100 {
        rig.stored(seq, "x");
        if seq % 200 == 0 {
            rig.recent.turn();
        }
    }
    assert_eq!(rig.recent.find(&rig.feed, &Wanted::All, u64::MAX, usize::MAX).outcomes.len() as u64, RECENT_PER_FEED);
    assert!(rig.find(&Wanted::Seq(100)).is_empty());
    assert_eq!(rig.find(&Wanted::Seq(101)).len(), 1);
    for seq in 0..RECENT_NOTES_MAX as u64 + 7 {
        rig.stored(seq, "x");
    }
    assert_eq!(rig.recent.dropped(), 7);
}

#[test]
fn without_a_database_nothing_is_kept_and_it_is_said() {
    let rig = rig();
    *state::lock(&rig.recent.state) = state::State::with(None);
    rig.stored(1, "x");
    let found = rig.recent.find(&rig.feed, &Wanted::All, u64::MAX, 10);
    assert!(!found.is_available && found.outcomes.is_empty());
    assert_eq!(rig.recent.dropped(), 1);
    assert!(rig.recent.duplicates(&rig.feed, 1, |_| true).is_none());
}

#[test]
fn the_thread_keeps_notes_by_itself_and_stops_with_nothing_left() {
    let rig = rig();
    let recent = Recent::start(&rig.notes, rig.recent.state.clone()).unwrap();
    rig.stored(1, "x");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !rig.notes.waiting().is_empty() {
        assert!(std::time::Instant::now() < deadline, "the thread takes them");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    rig.stored(2, "y");
    recent.stop();
    assert_eq!(rig.find(&Wanted::All).len(), 2);
    rig.stored(3, "z");
    assert!(rig.notes.waiting().is_empty(), "nobody takes notes any more");
}
