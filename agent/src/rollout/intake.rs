//! Documents on their way in: from bytes to an offer to the machine.

use jiff::Timestamp;
use tokio::task::block_in_place;

use super::drive;
use super::facts::{Facts, Memory, Offer, Verdict};
use super::machine::{Action, Input, Machine, Standpoint};
use super::shell::Shell;
use super::start::{Ground, facts, now};
use crate::clock;
use crate::config::document::{self, Document};
use crate::config::refusal::Refusal;
use crate::config::settings::EndpointOrigin;
use crate::config::{Files, diff};

/// Whether a refusal is remembered: not what says nothing about the document, and what may be otherwise another time is judged again. A document
/// that is good but for the files it names may be good when they are there.
pub(super) fn memory(ground: &Ground, document: &Document, refusal: &Refusal) -> Memory {
    match refusal {
        Refusal::OtherGateway { .. } | Refusal::OldRevision { .. } => Memory::Forget,
        Refusal::NotYet { .. } | Refusal::AgentTooOld { .. } => Memory::Again,
        Refusal::Invalid(_) if ground.effective(document, Files::NotChecked).is_ok() => Memory::Again,
        _ => Memory::Final,
    }
}

/// What became of a document so far.
/// An error: it was not taken.
fn said(machine: &Machine, facts: Option<&Facts>) -> Result<String, String> {
    let name = facts.map_or_else(|| "the document".to_owned(), |facts| format!("revision {}", facts.revision));
    Ok(match machine.about(facts) {
        Standpoint::Runs => format!("{name} runs already"),
        Standpoint::Waits => format!("{name} is stored and waits until the trial of another revision is over"),
        Standpoint::Tried(tried) => match tried.state {
            "staged" => format!("{name} is stored; it is put to use now and then on trial, and counts only when it is confirmed"),
            "trial" => format!("{name} is on trial; it counts only when it is confirmed"),
            state if tried.reason.is_empty() => format!("{name}: {state}"),
            state => return Err(format!("{name}: {state} ({}): {}", tried.code, tried.reason)),
        },
        Standpoint::Unknown => return Err(format!("{name} was not taken; look at `siteward config history` and the agent's log")),
    })
}

impl Shell {
    /// A document came, from the hub or from a file. What is durable about it now, for people, and what is to be done next.
    pub(super) fn document(&mut self, envelope: &[u8]) -> (Result<String, String>, Vec<Action>) {
        let input = block_in_place(|| match document::open(envelope, &self.ground.anchors) {
            Ok(document) => Input::Offered(self.offer(&document)),
            Err(refusal) => Input::Unusable { code: refusal.code().to_owned(), why: refusal.to_string() },
        });
        let facts = match &input {
            Input::Offered(offer) => Some(offer.facts.clone()),
            _ => None,
        };
        let at = now(self.start);
        let actions = block_in_place(|| drive(&mut self.machine, &mut self.store, at, input, Some(envelope)));
        (said(&self.machine, facts.as_ref()), actions)
    }

    /// A document that waited, against what runs now.
    pub(super) fn reconsider(&mut self, facts: &Facts) -> (Input, Option<Vec<u8>>) {
        let judged = block_in_place(|| {
            let envelope = self.store.envelope(facts.digest).map_err(|error| error.to_string())?;
            let document = document::open(&envelope, &self.ground.anchors).map_err(|refusal| refusal.to_string())?;
            Ok::<_, String>((self.offer(&document), envelope))
        });
        match judged {
            Ok((offer, envelope)) => (Input::Offered(offer), Some(envelope)),
            Err(why) => {
                let verdict = Verdict::Refused { code: "unreadable".to_owned(), why, memory: Memory::Again };
                (Input::Offered(self.offer_of(facts.clone(), verdict, None)), None)
            }
        }
    }

    fn offer(&self, document: &Document) -> Offer {
        let clock = clock::now();
        let believed = if clock.suspect { None } else { Timestamp::from_millisecond(clock.unix_ms).ok() };
        let running = self.machine.committed().0.revision();
        let judged = document::judge(document, &self.ground.identity, running, believed);
        let judged = judged.and_then(|()| self.ground.effective(document, Files::Checked));
        match judged {
            Ok(wanted) => self.offer_of(facts(document), Verdict::Good, Some(&wanted.settings)),
            Err(refusal) => {
                let memory = memory(&self.ground, document, &refusal);
                let verdict = Verdict::Refused { code: refusal.code().to_owned(), why: refusal.to_string(), memory };
                self.offer_of(facts(document), verdict, None)
            }
        }
    }

    fn offer_of(&self, facts: Facts, verdict: Verdict, wanted: Option<&crate::config::settings::Settings>) -> Offer {
        let changes = wanted.map(|wanted| diff::diff(&self.running.settings, wanted)).unwrap_or_default();
        let is_added = |wanted: &crate::config::settings::Settings| {
            wanted.uplink.endpoints.iter().any(|endpoint| endpoint.origin == EndpointOrigin::Added)
        };
        Offer {
            facts,
            verdict,
            added_feeds: changes.added,
            endpoints_changed: changes.endpoints_changed,
            endpoints_added: wanted.is_some_and(is_added),
            uplink_up: self.link.borrow().is_some(),
        }
    }
}
