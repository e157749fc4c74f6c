//! Threads, on a machine that has none left to give: no task ids (`TasksMax=`, `kernel.threads-max`), or no memory for a stack.
//!
//! 1. What the agent cannot do without is taken at its start: workers, a thread for blocking calls, committer, forwarder. [`runtime`] first asks for so
//!    many at once ([`probe`]), because the runtime panics where it gets none. What is missing ends the start with a sentence, and the service manager
//!    tries again ([`SCARCE`]).
//! 2. Later the runtime would panic where it has no thread for a blocking call and gets none. It has one from the start, and those that exist stay
//!    (they are few: `BLOCKING_THREADS_MAX`): where there is no further one, calls wait for their turn, and each caller keeps its own deadline.
//! 3. Threads of later on are asked for by `std`, which gives an error: that of a directory feed is tried again and said on the board, the digest of
//!    a large file is made without one.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::limits::{THREADS_END, THREADS_END_LOOK};

/// What is the matter, and what to do.
pub const SCARCE: &str = "the machine has no task ids or no memory left for a thread; see what holds them (`systemd-cgtop`, `ps -eLf`) and TasksMax= of \
                          the service, which tries again by itself";

/// A runtime that never looks in vain for a thread; `threads`: how many must be there, its own and those of whoever asks. Blocking.
pub fn runtime(builder: &mut Builder, threads: usize) -> io::Result<Runtime> {
    probe(threads, |body| std::thread::Builder::new().spawn(body))?;
    let runtime = builder.enable_all().thread_keep_alive(Duration::MAX).build()?;
    drop(runtime.spawn_blocking(|| ())); // only for its thread
    Ok(runtime)
}

/// Whether so many threads can be had at once; they have ended, and given back what they took, when this returns.
fn probe(count: usize, mut spawn: impl FnMut(Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>) -> io::Result<()> {
    let (before, gate) = (tasks(), Arc::new(Mutex::new(())));
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let threads: Vec<io::Result<JoinHandle<()>>> = (0..count)
        .map(|_| {
            let gate = Arc::clone(&gate);
            spawn(Box::new(move || drop(gate.lock())))
        })
        .collect();
    drop(closed);
    let mut had = Ok(());
    for thread in threads {
        match thread {
            Ok(thread) => drop(thread.join()), // it cannot panic
            Err(error) => had = Err(error),
        }
    }
    // A joined thread counts a moment longer.
    let deadline = Instant::now() + THREADS_END;
    while tasks() > before && Instant::now() < deadline {
        sleep(THREADS_END_LOOK);
    }
    had
}

/// Of this process; none where that cannot be told.
fn tasks() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn threads_are_asked_for_at_once_and_what_is_missing_is_an_error() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let spawn = |body: Box<dyn FnOnce() + Send>| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::Builder::new().spawn(move || {
                body();
                running.fetch_sub(1, Ordering::SeqCst);
            })
        };
        probe(7, spawn).unwrap();
        assert_eq!((most.load(Ordering::SeqCst), running.load(Ordering::SeqCst)), (7, 0));
        let mut left = 3;
        let scarce = |body: Box<dyn FnOnce() + Send>| {
            left -= 1;
            if left >= 0 { spawn(body) } else { Err(io::ErrorKind::WouldBlock.into()) }
        };
        assert_eq!(probe(7, scarce).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(running.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_thread_for_blocking_calls_is_there_before_anybody_needs_one() {
        let kept = runtime(Builder::new_current_thread().thread_name("kept"), 1).unwrap();
        let is_kept = |task: io::Result<std::fs::DirEntry>| {
            let name = task.and_then(|task| std::fs::read_to_string(task.path().join("comm")));
            name.is_ok_and(|name| name.trim_end() == "kept") // one that has ended meanwhile is none
        };
        // It names itself when it runs.
        while !std::fs::read_dir("/proc/self/task").unwrap().any(is_kept) {
            sleep(THREADS_END_LOOK);
        }
        drop(kept);
    }
}
