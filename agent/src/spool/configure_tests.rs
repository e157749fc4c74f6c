//! Feeds that come, go and move while the spool is open, on a real disk. Crashes in between are in `tests/power_loss`.

use std::sync::Arc;

use super::disk::RealDisk;
use super::tests::{Bench, drain, feed, mark_at, message};
use super::*;

fn lanes(names: &[(&str, Lane)]) -> Vec<(FeedId, Lane)> {
    names.iter().map(|(name, lane)| (feed(name), *lane)).collect()
}

fn reopen(bench: &Bench, feeds: Vec<(FeedId, Lane)>) -> Parts {
    let board = Board::new([]);
    open_with(Options { feeds, ..bench.options() }, Arc::new(RealDisk), StateChoice::Sled, &board).unwrap()
}

/// I3, I8: a feed that comes at run time has its identity on disk before its first record, and goes on after a restart.
#[test]
fn a_new_feed_can_be_appended_to_and_is_there_after_a_restart() {
    let bench = Bench::new();
    let mut parts = bench.open();
    let early = parts.committer.commit(vec![message("a", "1", "one"), message("c", "2", "two")]);
    assert!(early[0].is_ok() && matches!(early[1], Err(AppendError::UnknownFeed(_))));
    let all = lanes(&[("a", Lane::Critical), ("b", Lane::Normal), ("c", Lane::Critical)]);
    let shape = parts.reader.shape();
    parts.committer.configure(&all).unwrap();
    assert_ne!(parts.reader.shape(), shape);
    assert_eq!(parts.reader.lineage(&feed("c")).len(), 1);
    assert!(parts.committer.commit(vec![message("c", "2", "two")])[0].as_ref().is_ok_and(|durable| durable.seq() == 1));
    let first = parts.reader.head(&feed("c"));
    drop(parts); // no clean stop
    let mut parts = reopen(&bench, all);
    assert_eq!(drain(&mut parts.reader, "c"), [(1, "two".to_owned())]);
    let lineage = parts.reader.lineage(&feed("c"));
    assert_eq!(lineage.len(), 2);
    assert_eq!(lineage[1].follows, Some(first));
}

/// I3: a feed that is taken away takes no message and keeps what it has; when it comes back it goes on there.
#[test]
fn a_feed_that_comes_back_goes_on_where_it_ended() {
    let bench = Bench::new();
    let mut parts = bench.open();
    assert!(parts.committer.commit(vec![message("a", "1", "one"), message("a", "2", "two")]).iter().all(Result::is_ok));
    parts.committer.configure(&lanes(&[("b", Lane::Normal)])).unwrap();
    assert!(matches!(parts.committer.commit(vec![message("a", "3", "three")])[0], Err(AppendError::UnknownFeed(_))));
    assert!(parts.reader.feeds().iter().any(|info| info.id == feed("a") && info.retired), "it drains");
    let mark = mark_at(&mut parts.reader, "a", 2);
    parts.reader.settle(&feed("a"), mark);
    parts.reader.sync_marks(true);
    assert!(parts.reader.feeds().iter().all(|info| info.id != feed("a")), "it has drained");
    parts.committer.close();
    drop(parts);
    let mut parts = reopen(&bench, lanes(&[("b", Lane::Normal)]));
    parts.committer.configure(&lanes(&[("a", Lane::Bulk), ("b", Lane::Normal)])).unwrap();
    assert!(parts.committer.commit(vec![message("a", "3", "three")])[0].as_ref().is_ok_and(|durable| durable.seq() == 3));
    assert_eq!(drain(&mut parts.reader, "a"), [(3, "three".to_owned())]);
}

/// I3: records of two lanes come out in order of their numbers; what was stored before the move does not wait for it.
#[test]
fn a_feed_that_changes_its_lane_keeps_its_order() {
    let bench = Bench::new();
    let mut parts = bench.open();
    for (round, lane) in [Lane::Critical, Lane::Bulk, Lane::Critical, Lane::Normal].into_iter().enumerate() {
        parts.committer.configure(&lanes(&[("a", lane), ("b", Lane::Normal)])).unwrap();
        let id = format!("{round}");
        assert!(parts.committer.commit(vec![message("a", &id, &id), message("b", &id, &id)]).iter().all(Result::is_ok));
        assert!(parts.reader.feeds().iter().any(|info| info.id == feed("a") && info.lane == lane));
    }
    let expected: Vec<(u64, String)> = (0..4).map(|n| (n + 1, n.to_string())).collect();
    assert_eq!(drain(&mut parts.reader, "a"), expected);
    drop(parts);
    let mut parts = bench.open();
    assert_eq!(drain(&mut parts.reader, "a"), expected);
}

/// I5: the positions of all feeds that were ever configured fit into the heads, and the live ones into a segment's header.
#[test]
fn feeds_are_bounded_and_too_many_change_nothing() {
    let bench = Bench::new();
    let mut parts = bench.open();
    let many = |from: usize, count: usize| -> Vec<(FeedId, Lane)> {
        (from..from + count).map(|n| (feed(&format!("{n:0>63}")), Lane::Normal)).collect()
    };
    assert_eq!(parts.committer.configure(&many(0, limits::FEEDS_MAX + 1)), Err(ConfigureError::TooManyFeeds));
    assert!(parts.committer.commit(vec![message("a", "1", "one")])[0].is_ok());
    let mut known = 2;
    while known + limits::FEEDS_MAX <= limits::FEEDS_KNOWN_MAX {
        let mut feeds = many(known, limits::FEEDS_MAX - 1);
        feeds.push((feed("a"), Lane::Critical));
        parts.committer.configure(&feeds).unwrap();
        known += limits::FEEDS_MAX - 1;
        assert!(parts.committer.commit(vec![message("a", &format!("k{known}"), "one")])[0].is_ok());
    }
    assert_eq!(parts.committer.configure(&many(known, limits::FEEDS_MAX - 1)), Err(ConfigureError::TooManyKnown));
    parts.committer.close();
    drop(parts);
    let mut parts = bench.open();
    assert_eq!(drain(&mut parts.reader, "a").len(), 1 + (known - 2) / (limits::FEEDS_MAX - 1));
}
