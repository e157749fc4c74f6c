//! Documents on their way in: from bytes to an offer to the machine.

use jiff::Timestamp;
use tokio::task::block_in_place;

use super::facts::{Facts, Memory, Offer, Verdict};
use super::machine::Input;
use super::shell::Shell;
use super::start::facts;
use crate::clock;
use crate::config::document::{self, Document};
use crate::config::refusal::Refusal;
use crate::config::settings::EndpointOrigin;
use crate::config::{Files, diff};

/// Whether a refusal is remembered: not what says nothing about the document, and what may be otherwise another time is judged again.
fn memory(refusal: &Refusal) -> Memory {
    match refusal {
        Refusal::OtherGateway { .. } | Refusal::OldRevision { .. } => Memory::Forget,
        Refusal::NotYet { .. } | Refusal::AgentTooOld { .. } => Memory::Again,
        _ => Memory::Final,
    }
}

impl Shell {
    /// A document came, from the hub or from a file. Says what became of it so far, for people.
    pub(super) async fn document(&mut self, envelope: &[u8]) -> String {
        let input = block_in_place(|| match document::open(envelope, &self.ground.anchors) {
            Ok(document) => Input::Offered(self.offer(&document)),
            Err(refusal) => Input::Unusable { code: refusal.code().to_owned(), why: refusal.to_string() },
        });
        let revision = match &input {
            Input::Offered(offer) => Some(offer.facts.revision),
            _ => None,
        };
        self.input(input, Some(envelope)).await;
        match self.machine.tried() {
            Some(tried) if tried.revision == revision => {
                let name = revision.map_or_else(|| "the document".to_owned(), |revision| format!("revision {revision}"));
                let why = if tried.reason.is_empty() { String::new() } else { format!(" ({}): {}", tried.code, tried.reason) };
                format!("{name}: {}{why}", tried.state)
            }
            _ => "it runs already".to_owned(),
        }
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
                let verdict = Verdict::Refused { code: refusal.code().to_owned(), why: refusal.to_string(), memory: memory(&refusal) };
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
