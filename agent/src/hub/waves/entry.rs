//! What is written down of a rollout: one line of JSON each, durable before anything that rests on it is done. Folding the lines gives the rollout
//! back, so that whoever resumes it knows what was published and what became of it.

use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// One line of the journal. `target` counts among the plan's targets; times are milliseconds since 1970 by the desk's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// Everything behind it is of this rollout.
    Plan { plan: Box<Plan>, who: String, at_ms: i64 },
    /// A wave begins.
    Wave { wave: usize, at_ms: i64 },
    /// The document is about to be published for a gateway, for the `times`-th time. `known`: what was the matter there before.
    Push { target: usize, times: u32, known: Vec<String>, at_ms: i64 },
    /// The broker has it.
    Sent { target: usize, at_ms: i64 },
    /// The gateway was there with it for the first time.
    Seen { target: usize, at_ms: i64 },
    /// What became of it.
    Became { target: usize, verdict: Verdict, at_ms: i64 },
    /// Every gateway of the wave is done with; the rest begins.
    Done { wave: usize, at_ms: i64 },
    /// A gateway says that the document is suspect.
    Suspect { target: usize, mark: String, text: String, at_ms: i64 },
    /// The document is about to be taken away from the broker.
    Withdraw { target: usize, at_ms: i64 },
    /// Somebody else published something in its place, which is left alone.
    Overwritten { target: usize, at_ms: i64 },
    /// Nothing is published any more.
    Stopped { why: String, at_ms: i64 },
    /// Somebody goes on. `accepts`: with the failures there are.
    Resumed { who: String, why: String, accepts: bool, at_ms: i64 },
    /// The last wave is done.
    Finished { at_ms: i64 },
}

/// What became of a document at a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing yet.
    #[default]
    Open,
    Confirmed,
    Failed {
        code: String,
        reason: String,
    },
    /// It is there and does not say, however often the document was published.
    Unknown,
}
