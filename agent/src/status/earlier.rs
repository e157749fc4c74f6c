//! Outages of earlier runs of the agent, so that the page can tell of them after a power cut: one small file, `<spool>/outages` (see `spool::small`).
//!
//! ```text
//!   start: read ─► the board's history        a change, every quarter of an hour, the stop ─► earlier runs and this one ─► written
//! ```
//!
//! 1. A run is a stretch of which all outages are known. Between two runs nothing ran, so nothing is known, and that is shown.
//! 2. Times in the file are of the wall clock, as it was believed when they were written; while it cannot be believed nothing is written, and
//!    nothing of the file is shown (I10). A clock that was set makes an earlier run appear at the wrong time; nothing but the drawing hangs on it.
//! 3. Bounded (I4): runs, outages and the length of a cause; the oldest go first, and what is older than the page shows.
//! 4. Nobody waits for the disk: a power cut costs at most what came since the last writing, and is shown as not known. A disk that hangs or is full
//!    costs the drawing, nothing else.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::{JoinHandle, block_in_place, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::board::Board;
use crate::clock;
use crate::limits::{
    OUTAGE_WHY_FILED_CHARS_MAX, OUTAGES_FILE_BYTES_MAX, OUTAGES_FILED, OUTAGES_FILED_FOR, OUTAGES_TICK, OUTAGES_WRITE_DEADLINE,
    OUTAGES_WRITE_INTERVAL, RUNS_FILED,
};
use crate::spool::disk::Disk;
use crate::spool::small::{Kind, SmallFile};

const KIND: Kind = Kind {
    name: "outages",
    magic: *b"SWOUTAG1",
    bytes_max: OUTAGES_FILE_BYTES_MAX,
    says: "the outages of earlier runs",
    without: "the timeline begins with this start",
};

/// A stretch of which all is known; milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub from_ms: i64,
    pub to_ms: i64,
    /// The oldest first.
    pub outages: Vec<Past>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub from_ms: i64,
    pub to_ms: i64,
    pub why: String,
}

#[derive(Debug, Serialize, Deserialize)]
enum Content {
    V1(Vec<Run>),
}

/// What is worth writing of all runs, the oldest first: what the page can show, and not more than the file may hold.
fn fitted(mut runs: Vec<Run>, now_ms: i64) -> Vec<Run> {
    let since = now_ms.saturating_sub_unsigned(u64::try_from(OUTAGES_FILED_FOR.as_millis()).unwrap_or(u64::MAX));
    runs.retain(|run| run.to_ms > since);
    runs.drain(..runs.len().saturating_sub(RUNS_FILED));
    let mut beyond = runs.iter().map(|run| run.outages.len()).sum::<usize>().saturating_sub(OUTAGES_FILED);
    for run in &mut runs {
        let gone = beyond.min(run.outages.len());
        beyond -= gone;
        // Before the end of an outage that is left out not all is known.
        run.from_ms = run.outages[..gone].last().map_or(run.from_ms, |outage| outage.to_ms.max(run.from_ms));
        run.outages.drain(..gone);
        for outage in &mut run.outages {
            outage.why = outage.why.chars().take(OUTAGE_WHY_FILED_CHARS_MAX).collect();
        }
    }
    runs
}

/// The file, and what it said at the start.
#[derive(Debug)]
pub struct Earlier {
    file: SmallFile,
    runs: Vec<Run>,
}

impl Earlier {
    /// Reads it; the board shows it from now on.
    pub fn open(disk: Arc<dyn Disk>, spool: &Path, board: &Board) -> Self {
        let file = SmallFile::new(disk, spool, &KIND);
        let Content::V1(runs) = block_in_place(|| file.read()).unwrap_or(Content::V1(Vec::new()));
        board.remember_runs(runs.clone());
        Self { file, runs }
    }

    /// Until told to stop.
    pub async fn keep(self, board: Arc<Board>, mut stop: watch::Receiver<bool>) {
        let mut tick = interval(OUTAGES_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut at, mut fails, mut under_way) = (0, Instant::now(), false, None);
        loop {
            let ends = tokio::select! {
                _ended = stop.wait_for(|stop| *stop) => true,
                _ = tick.tick() => false,
            };
            let changes = board.outage_changes();
            if ends || changes != seen || at.elapsed() >= OUTAGES_WRITE_INTERVAL {
                let error = self.write(&board, &mut under_way).await.err();
                if let Some(error) = error.as_ref().filter(|_| !fails) {
                    tracing::warn!("outages could not be written down ({error}); after a restart the page lacks them");
                }
                (seen, at, fails) = (if error.is_none() { changes } else { seen }, Instant::now(), error.is_some());
            }
            if ends {
                return;
            }
        }
    }

    /// At most so long, and at most one is under way: a disk that hangs keeps one thread.
    async fn write(&self, board: &Board, under_way: &mut Option<JoinHandle<io::Result<()>>>) -> Result<(), String> {
        if under_way.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return Err("the disk does not answer".to_owned());
        }
        let now = clock::now();
        let Some(run) = board.run(now) else { return Ok(()) };
        let content = Content::V1(fitted(self.runs.iter().cloned().chain([run]).collect(), now.unix_ms));
        let file = self.file.clone();
        let writing = under_way.insert(spawn_blocking(move || file.write(Some(&content))));
        let ended = timeout(OUTAGES_WRITE_DEADLINE, writing).await.map_err(|_| "the disk does not answer".to_owned())?;
        *under_way = None;
        ended.map_err(|_| "it broke off".to_owned())?.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::disk::RealDisk;

    const DAY: i64 = 86_400_000;

    fn run(from_ms: i64, to_ms: i64, outages: i64) -> Run {
        let step = (to_ms - from_ms) / (outages + 1);
        let past = |n| Past { from_ms: from_ms + n * step, to_ms: from_ms + n * step + 1, why: "x".repeat(999) };
        Run { from_ms, to_ms, outages: (1..=outages).map(past).collect() }
    }

    /// I4: whatever happens, the file is bounded, and what is left out of it is said to be unknown.
    #[test]
    fn what_is_written_is_bounded_and_whole_from_its_begin_on() {
        let now = 100 * DAY;
        assert_eq!(fitted(vec![run(0, 50 * DAY, 3), run(99 * DAY, now, 0)], now), [run(99 * DAY, now, 0)], "nobody sees what is older");
        let many = (0..200).map(|n| run(99 * DAY + n * 1000, 99 * DAY + n * 1000 + 900, 40)).collect();
        let kept = fitted(many, now);
        assert_eq!(kept.len(), RUNS_FILED);
        assert_eq!(kept.iter().map(|run| run.outages.len()).sum::<usize>(), OUTAGES_FILED);
        let cut = kept.iter().find(|run| !run.outages.is_empty()).unwrap();
        assert!(cut.outages.iter().all(|outage| outage.from_ms >= cut.from_ms && outage.why.len() == OUTAGE_WHY_FILED_CHARS_MAX));
        let bytes = crate::spool::format::encode_block(KIND.magic, &Content::V1(kept)).len() as u64;
        assert!(bytes < OUTAGES_FILE_BYTES_MAX, "{bytes}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_next_run_shows_the_outages_of_this_one_and_the_time_between_as_not_known() {
        use crate::status::board::UplinkState::{Connected, Down};
        let directory = tempfile::tempdir().unwrap();
        let open = |board: &Board| Earlier::open(Arc::new(RealDisk), directory.path(), board);
        let first = Board::new([]);
        let earlier = open(&first);
        for (state, error) in [(Connected, None), (Down, Some("no route")), (Connected, None), (Down, Some("reset"))] {
            first.set_uplink(state, "mqtts://hub", error.map(str::to_owned));
        }
        let (stop, stopped) = watch::channel(true);
        earlier.keep(Arc::clone(&first), stopped).await;
        drop(stop);
        let second = Board::new([]);
        drop(open(&second));
        let view = second.history();
        assert_eq!(view.outages.iter().map(|outage| outage.why.as_str()).collect::<Vec<_>>(), ["reset", "no route"]);
        assert!(view.outages.iter().all(|outage| outage.ended_ago.is_some_and(|ended| ended >= view.known)), "{view:?}");
        assert_eq!(view.earlier.len(), 1);
        std::fs::write(directory.path().join("outages"), b"SWOUTAG1 torn").unwrap();
        let third = Board::new([]);
        drop(open(&third));
        assert!(third.history().earlier.is_empty());
    }
}
