//! Signed commands of central IT: which are carried out, at most once, and what is answered. Pure.
//!
//! ```text
//!   command topic ─► receive: signature ─► gateway ─► counter ─► challenge ─► allow-list ─┬─► Accept ─► counter durable ─► begin ─► execute ─► finish ─► result
//!                                                                                         └─► Answer (refused, known, in doubt) ─────────────────────► result
//! ```
//!
//! 1. A command is a DSSE envelope of [`COMMAND_TYPE`] around JSON: `gateway`, `counter`, `challenge`, `verb`, `args`, `author`, `reason`. The
//!    signature is verified over the raw bytes before anything is parsed.
//! 2. The counter must be above the highest one ever accepted here (gaps are fine). The caller makes it durable *before* execution, and only
//!    then calls [`CommandDesk::begin`]: so after a crash at any point the command is never executed a second time.
//! 3. The challenge must be the current one: random, published in the reported state, new at every start and after every accepted command. It
//!    is the command's expiry without a clock (I10): what was signed for an earlier state of this gateway is worth nothing now.
//! 4. The verb must be on the allow-list of the bootstrap. The list is closed; there is no verb that runs a program or reads a file.
//! 5. A redelivered command is answered again from memory. One whose result nobody knows any more, because the agent ended between accepting
//!    and answering it, is *in doubt*: it is not executed, and the answer says so.
//!
//! Nothing here waits, writes or executes. A refusal tells its author what the gateway expects, never what was in the payload (I7).

mod verb;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::clock::{self, WallTime};
use crate::limits::{COMMAND_RESULTS_KEPT, COMMAND_TEXT_BYTES_MAX, DOCUMENT_BYTES_MAX};
use crate::record::Name;
pub use verb::{Allowed, LogLevel, Verb, VerbName};

/// Payload type of a command's envelope.
pub const COMMAND_TYPE: &str = "application/vnd.siteward.command.v1+json";

/// What a command must quote: 16 random bytes, as 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge(String);

impl Challenge {
    pub fn of(random: [u8; 16]) -> Self {
        Self(random.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')).collect())
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A command that may be carried out, once its counter is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub counter: u64,
    pub verb: Verb,
    pub author: String,
    pub reason: String,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    /// Executed, without the effect that was asked for; `text` says why.
    Failed,
    /// Not executed.
    Refused,
    /// Accepted before the agent ended; whether it was executed is not known, it is not executed again.
    InDoubt,
}

/// Payload of `command/result`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub schema: u32,
    pub gateway: Name,
    /// Absent where the command could not be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub counter: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verb: Option<VerbName>,
    pub outcome: Outcome,
    /// Stable, for programs.
    pub code: String,
    /// A sentence, for people.
    pub text: String,
    /// What `diagnose` found; absent elsewhere.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data: Option<serde_json::Value>,
    /// What the next command must quote and exceed.
    pub challenge: String,
    pub highest_counter: u64,
    pub time: String,
    pub clock_suspect: bool,
}

/// What to do with a command that arrived.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // one at a time
pub enum Decision {
    /// Make the counter durable, `begin`, execute, `finish`.
    Accept(Command),
    /// Nothing is executed; publish this.
    Answer(Answer),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    gateway: String,
    counter: u64,
    challenge: String,
    verb: String,
    #[serde(default)]
    args: serde_json::Map<String, serde_json::Value>,
    author: String,
    reason: String,
}

/// Judges commands and remembers what was answered in this run.
#[derive(Debug)]
pub struct CommandDesk {
    gateway: Name,
    allowed: Allowed,
    challenge: Challenge,
    /// The highest counter when the agent started: the one command that may be in doubt.
    highest_at_start: u64,
    running: Option<(u64, VerbName)>,
    answered: VecDeque<Answer>,
}

const BUSY: &str = "something else is being carried out; send the command again when that is done";

/// Not executed, and why.
struct Refused {
    code: &'static str,
    text: String,
}

fn refused(code: &'static str, text: impl Into<String>) -> Refused {
    Refused { code, text: text.into() }
}

impl CommandDesk {
    /// At a start. `highest`: the highest counter in the ledger. `random`: new random bytes.
    pub fn new(gateway: Name, allowed: Allowed, highest: u64, random: [u8; 16]) -> Self {
        let challenge = Challenge::of(random);
        Self { gateway, allowed, challenge, highest_at_start: highest, running: None, answered: VecDeque::new() }
    }

    /// For the reported state.
    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// Decides about an envelope. `verify` gives the payload of an envelope of a type if enough of our anchors signed it. `highest`: the highest
    /// counter in the ledger now.
    pub fn receive<E: std::fmt::Display>(
        &self,
        envelope: &[u8],
        verify: impl FnOnce(&[u8], &'static str) -> Result<Vec<u8>, E>,
        highest: u64,
        now: WallTime,
    ) -> Decision {
        let mut about = (None, None);
        let verdict = match verify(envelope, COMMAND_TYPE) {
            _ if envelope.len() > DOCUMENT_BYTES_MAX => {
                Err(refused("too_large", format!("the command has more than {DOCUMENT_BYTES_MAX} bytes; nothing was read of it")))
            }
            Err(error) => Err(refused("not_verified", format!("the command is not signed as this gateway demands: {error}"))),
            Ok(payload) => self.judge(&payload, highest, &mut about),
        };
        match verdict {
            Ok(Ok(command)) => Decision::Accept(command),
            Ok(Err(known)) => Decision::Answer(Answer { challenge: self.challenge.0.clone(), highest_counter: highest, ..known }),
            Err(Refused { code, text }) => {
                let outcome = if code == "in_doubt" { Outcome::InDoubt } else { Outcome::Refused };
                Decision::Answer(self.answer(about, outcome, code, text, highest, now))
            }
        }
    }

    /// The command, or the answer it had.
    fn judge(&self, payload: &[u8], highest: u64, about: &mut (Option<u64>, Option<VerbName>)) -> Result<Result<Command, Answer>, Refused> {
        let written: Written = serde_json::from_slice(payload).map_err(|error| {
            let place = (error.line(), error.column());
            refused(
                "malformed",
                format!("the command is not as the contract says (line {}, column {}); see `command` there", place.0, place.1),
            )
        })?;
        if written.gateway != self.gateway.as_str() {
            return Err(refused("other_gateway", format!("the command is for another gateway; this one is {}", self.gateway)));
        }
        about.0 = Some(written.counter);
        about.1 = VerbName::read(&written.verb);
        if let Some(known) = self.answered.iter().find(|answer| answer.counter == Some(written.counter)) {
            return Ok(Err(known.clone()));
        }
        self.check_counter(written.counter, highest)?;
        if written.challenge != self.challenge.0 {
            return Err(refused(
                "old_challenge",
                "the command quotes another challenge than the current one; sign it again with the one reported",
            ));
        }
        for (name, text) in [("author", &written.author), ("reason", &written.reason)] {
            if text.trim().is_empty() || text.len() > COMMAND_TEXT_BYTES_MAX {
                return Err(refused(
                    "malformed",
                    format!("`{name}` must have 1 to {COMMAND_TEXT_BYTES_MAX} bytes; say who wants this and why"),
                ));
            }
        }
        let Some(name) = about.1 else {
            return Err(refused("unknown_verb", format!("the verb is not known here; known are {}", VerbName::list())));
        };
        if !self.allowed.contains(name) {
            let text = format!("{name} is not in `commands` under [trust] of this gateway's local file; allow it there or do it on site");
            return Err(refused("not_allowed", text));
        }
        let verb = Verb::read(name, written.args).map_err(|why| refused("malformed", format!("{name}: {why}")))?;
        let Written { counter, author, reason, .. } = written;
        Ok(Ok(Command { counter, verb, author, reason }))
    }

    fn check_counter(&self, counter: u64, highest: u64) -> Result<(), Refused> {
        if self.running.is_some_and(|(running, _)| running == counter) {
            return Err(refused("running", "the command is being executed; its answer follows"));
        }
        if counter > highest {
            return match self.running {
                None => Ok(()),
                Some(_) => Err(refused("busy", BUSY)),
            };
        }
        if counter == self.highest_at_start && counter > 0 {
            let text = "the command was accepted before the agent ended, and whether it was executed is not known; it is not executed again: \
                        look whether it had its effect, and send a new one if not";
            return Err(refused("in_doubt", text));
        }
        Err(refused("old_counter", format!("counter {counter} was used before; the next one must be above {highest}")))
    }

    /// A command that the broker kept: whoever subscribes gets it, again and again, so it is none.
    pub fn retained(&self, highest: u64, now: WallTime) -> Answer {
        let text = "the command was retained, and a retained one is never carried out; clear the topic and send it again, not retained";
        self.answer((None, None), Outcome::Refused, "retained", text, highest, now)
    }

    /// The command may be carried out, and not now.
    pub fn busy(&self, command: &Command, highest: u64, now: WallTime) -> Answer {
        self.answer((Some(command.counter), Some(command.verb.name())), Outcome::Refused, "busy", BUSY, highest, now)
    }

    /// Which verbs are taken, for the reported state.
    pub fn allowed(&self) -> &Allowed {
        &self.allowed
    }

    /// The counter of an accepted command is durable: from here on it counts as executed. `random`: new random bytes.
    pub fn begin(&mut self, command: &Command, random: [u8; 16]) {
        self.running = Some((command.counter, command.verb.name()));
        self.challenge = Challenge::of(random);
    }

    /// The accepted command could not be made durable: it was not executed and may come again.
    pub fn abandoned(&self, command: &Command, why: &str, highest: u64, now: WallTime) -> Answer {
        let text =
            format!("the command was not executed, its counter could not be written: {why}; check the disk of the spool, send it again");
        self.answer((Some(command.counter), Some(command.verb.name())), Outcome::Refused, "not_durable", text, highest, now)
    }

    /// The command that was begun has ended.
    pub fn finish(&mut self, outcome: Outcome, text: impl Into<String>, data: Option<serde_json::Value>, now: WallTime) -> Option<Answer> {
        let (counter, verb) = self.running.take()?;
        let code = match outcome {
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::Refused => "refused",
            Outcome::InDoubt => "in_doubt",
        };
        let answer = Answer { data, ..self.answer((Some(counter), Some(verb)), outcome, code, text, counter, now) };
        if self.answered.len() == COMMAND_RESULTS_KEPT {
            self.answered.pop_front();
        }
        // Without the data: a redelivery is told that it was done, not all of it again.
        self.answered.push_back(Answer { data: None, ..answer.clone() });
        Some(answer)
    }

    fn answer(
        &self,
        (counter, verb): (Option<u64>, Option<VerbName>),
        outcome: Outcome,
        code: &str,
        text: impl Into<String>,
        highest: u64,
        now: WallTime,
    ) -> Answer {
        Answer {
            schema: 1,
            gateway: self.gateway.clone(),
            counter,
            verb,
            outcome,
            code: code.to_owned(),
            text: text.into(),
            data: None,
            challenge: self.challenge.0.clone(),
            highest_counter: highest,
            time: clock::rfc3339(now.unix_ms),
            clock_suspect: now.suspect,
        }
    }
}
