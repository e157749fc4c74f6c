//! The power-loss model: random histories of a spool on a disk that forgets what was not synced, against what it promised.
//!
//! ```text
//!   history   open ─► steps: append batches, read, settle, sync marks, quarantine ─► end ─► open ─► …
//!   ends      clean stop · kill (page cache kept) · power cut · the power goes at the k-th operation, also while opening
//!   faults    any write, sync, length, creation, rename, removal, directory sync or read fails, once or several times
//!   damage    a copy of the heads, or both, garbled between two processes
//! ```
//!
//! After every opening everything is verified ([`Ledger::verify`]). A failure prints its seed and the history; `SITEWARD_SEED=n` plays one seed
//! again, `SITEWARD_LONG=1` plays twenty times as many.

#[path = "power_loss/audit.rs"]
mod audit;
#[path = "power_loss/directed.rs"]
mod directed;
#[path = "power_loss/files.rs"]
mod files;
#[path = "power_loss/history.rs"]
mod history;
#[path = "power_loss/on_site.rs"]
mod on_site;
#[path = "power_loss/rollout.rs"]
mod rollout;
#[path = "power_loss/rollout_directed.rs"]
mod rollout_directed;
#[path = "power_loss/steps.rs"]
mod steps;

use history::History;
use siteward::record::{FeedId, Lane};
use std::path::PathBuf;

/// What a check found wrong, in words.
type Check = Result<(), String>;

/// What a kind of history is made of.
#[derive(Clone, Copy)]
struct Mix {
    histories: u64,
    /// Steps between two openings.
    steps: u64,
    openings: u64,
    /// Percent of steps that arm a fault.
    faults: u64,
    /// Percent of openings that are themselves cut.
    cut_openings: u64,
    /// Percent of ends that are followed by damage to the heads.
    head_damage: u64,
    /// Percent of openings with other lanes, or a feed left out.
    reshaping: u64,
    /// Percent of appends that are large.
    large: u64,
    sled: bool,
}

const PLAIN: Mix =
    Mix { histories: 0, steps: 25, openings: 5, faults: 0, cut_openings: 0, head_damage: 0, reshaping: 0, large: 4, sled: false };

fn all_feeds() -> Vec<(FeedId, Lane)> {
    let feed_id = harness::sim::model::feed_id;
    vec![
        (feed_id("or-usage"), Lane::Critical),
        (feed_id("lab"), Lane::Normal),
        (feed_id("archive"), Lane::Bulk),
        (feed_id("icu"), Lane::Critical),
    ]
}

/// Plays the histories of a mix; `theme` keeps the seeds of different tests apart.
fn play(theme: u64, mix: Mix) {
    let long = std::env::var_os("SITEWARD_LONG").is_some();
    let only: Option<u64> = std::env::var("SITEWARD_SEED").ok().and_then(|seed| seed.parse().ok());
    let count = if long { mix.histories * 20 } else { mix.histories };
    let first = theme * 1_000_000;
    let seeds: Vec<u64> = match only {
        Some(seed) if seed / 1_000_000 == theme => vec![seed],
        Some(_) => return,
        None => (first..first + count).collect(),
    };
    println!("seeds {first}..{}", first + count);
    for seed in seeds {
        let directory = mix.sled.then(|| tempfile::tempdir().expect("a temporary directory"));
        let root = directory.as_ref().map_or_else(|| PathBuf::from("/var/lib/siteward"), |d| d.path().join("spool"));
        let mut history = History::new(seed, mix, &root);
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history.play()));
        match played {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("{}", history.report(&error)),
            Err(payload) => {
                eprintln!("{}", history.report("panicked"));
                std::panic::resume_unwind(payload);
            }
        }
    }
}

/// I1, I3, I8: kills, power cuts and clean stops in any order, also in the middle of an operation.
#[test]
fn acknowledged_records_survive_kills_and_power_cuts() {
    play(1, Mix { histories: 600, ..PLAIN });
}

/// I1: the power goes while the spool recovers from the last time, again and again.
#[test]
fn recovery_may_be_cut_as_often_as_it_likes() {
    play(2, Mix { histories: 400, cut_openings: 90, openings: 6, steps: 15, ..PLAIN });
}

/// I1, I8: every kind of operation fails at any time; a failed batch leaves no gap and gives no seq away.
#[test]
fn failing_operations_cost_refusals_and_nothing_else() {
    play(3, Mix { histories: 600, faults: 12, cut_openings: 15, steps: 30, ..PLAIN });
}

/// I1, I3: segments fill, roll and are released all the time.
#[test]
fn large_records_roll_segments_without_loss() {
    play(4, Mix { histories: 120, large: 50, faults: 4, cut_openings: 15, ..PLAIN });
}

/// I1, I9: a copy of the heads is torn, or both are gone: marks may be forgotten, records may not.
#[test]
fn damaged_heads_cost_marks_but_no_record() {
    play(5, Mix { histories: 300, head_damage: 60, cut_openings: 10, faults: 2, ..PLAIN });
}

/// I1, I3, I8: feeds come, move between lanes and are left out of the configuration while they still hold records, between two openings and while
/// the spool is open: the first record of a new feed survives or was never acknowledged.
#[test]
fn feeds_that_come_move_or_retire_keep_their_records() {
    play(6, Mix { histories: 350, reshaping: 60, faults: 3, cut_openings: 10, ..PLAIN });
}

/// I1, I3: a feed leaves a lane in which a write has just failed: what reached the disk of it never counts beside what was given its number.
#[test]
fn feeds_that_leave_a_failed_lane_keep_their_records() {
    play(8, Mix { histories: 500, reshaping: 90, faults: 20, cut_openings: 10, steps: 30, ..PLAIN });
}

/// A resent message is recognised while the window is whole, and never when its record is not durable.
#[test]
fn resends_are_recognised_across_kills_and_power_cuts() {
    play(7, Mix { histories: 25, sled: true, steps: 20, openings: 4, ..PLAIN });
}
