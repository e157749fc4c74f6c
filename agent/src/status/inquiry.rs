//! The way from the control socket to whoever owns something that changes: a bounded channel of requests, each with its own place for one answer.
//!
//! The desk holds a [`Handle`] and asks from a thread that may block; the owner takes [`Asked`]s between two of its steps. A full channel and an
//! owner that has gone are told at once, a missing answer after a while; a request whose asker went away is still carried out.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Interval;

/// How one owner is asked.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// So many requests may wait.
    pub waiting_max: usize,
    /// So long an answer is waited for.
    pub patience: Duration,
    /// What is said where too many wait already, and where no answer came.
    pub busy: &'static str,
    pub late: &'static str,
}

/// A request with the place for its answer.
#[derive(Debug)]
pub struct Asked<Q, A> {
    pub request: Q,
    answer: SyncSender<Result<A, String>>,
}

impl<Q, A> Asked<Q, A> {
    pub fn answer(self, answer: Result<A, String>) {
        // Fails only where the asker has gone.
        let _ = self.answer.try_send(answer);
    }
}

/// The asking end; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle<Q, A> {
    requests: mpsc::Sender<Asked<Q, A>>,
    terms: Terms,
}

impl<Q, A> Handle<Q, A> {
    pub fn new(terms: Terms) -> (Self, mpsc::Receiver<Asked<Q, A>>) {
        let (requests, asked) = mpsc::channel(terms.waiting_max);
        (Self { requests, terms }, asked)
    }

    /// Asks and waits, at most as long as the terms say. Blocking. The error is a sentence.
    pub fn ask(&self, request: Q) -> Result<A, String> {
        let (answer, answered) = sync_channel(1);
        self.requests.try_send(Asked { request, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => self.terms.busy.to_owned(),
            mpsc::error::TrySendError::Closed(_) => "the agent is stopping; ask again when it runs".to_owned(),
        })?;
        answered.recv_timeout(self.terms.patience).unwrap_or_else(|_| Err(self.terms.late.to_owned()))
    }
}

/// What wakes an owner.
#[derive(Debug)]
pub enum Turn<Q, A> {
    Stop,
    Tick,
    Asked(Asked<Q, A>),
}

/// The next turn of an owner that ticks. Askers that have all gone leave it ticking.
pub async fn turn<Q, A>(asked: &mut mpsc::Receiver<Asked<Q, A>>, tick: &mut Interval, stop: &mut watch::Receiver<bool>) -> Turn<Q, A> {
    tokio::select! {
        biased;
        _ended = stop.wait_for(|stop| *stop) => Turn::Stop,
        _ = tick.tick() => Turn::Tick,
        Some(asked) = asked.recv() => Turn::Asked(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { waiting_max: 3, patience: Duration::from_millis(50), busy: "others wait", late: "no answer" };

    #[test]
    fn a_request_is_answered_by_its_owner() {
        let (handle, mut asked) = Handle::<_, String>::new(Terms { patience: Duration::from_mins(1), ..TERMS });
        let owner = std::thread::spawn(move || {
            let asked = asked.blocking_recv().unwrap();
            let answer = format!("{}, done", asked.request);
            asked.answer(Ok(answer));
        });
        assert_eq!(handle.ask("back"), Ok("back, done".to_owned()));
        owner.join().unwrap();
    }

    /// I4: what waits is bounded; an owner that does not answer, or went away, is told.
    #[test]
    fn a_full_channel_a_missing_answer_and_a_missing_owner_are_told() {
        let (handle, asked) = Handle::<_, ()>::new(TERMS);
        for _ in 0..TERMS.waiting_max {
            assert_eq!(handle.ask(1).unwrap_err(), "no answer");
        }
        assert_eq!(handle.ask(1).unwrap_err(), "others wait");
        drop(asked);
        assert!(handle.ask(1).unwrap_err().contains("stopping"));
    }
}
