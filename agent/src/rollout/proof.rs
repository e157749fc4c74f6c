//! What the uplink proves: an acknowledged reported state that was posted after a change, and over which endpoint. Pure but for the channel.

use std::time::Instant;

use tokio::sync::oneshot;

use super::facts::UplinkEvidence;
use crate::config::settings::{Endpoint, EndpointOrigin};
use crate::forward::mail::Delivered;
use crate::limits::PROOF_AGAIN;

/// Follows the reported states of one configuration after the other.
#[derive(Debug, Default)]
pub struct Proof {
    /// Grows with every change of what runs.
    change: u64,
    /// Posted, not answered, and after which change.
    posted: Option<(u64, oneshot::Receiver<Delivered>)>,
    /// When one was posted last, or should have been.
    at: Option<Instant>,
    /// Answered since the change; whether by an endpoint of a document.
    acked: Option<bool>,
}

impl Proof {
    /// Something else runs now: what was posted before proves nothing.
    pub fn changed(&mut self) {
        self.change += 1;
        self.acked = None;
    }

    /// A reported state was posted; the one before it will not be answered.
    pub fn posted(&mut self, answer: oneshot::Receiver<Delivered>) {
        (self.posted, self.at) = (Some((self.change, answer)), Some(Instant::now()));
    }

    /// It could not even be posted.
    pub fn not_posted(&mut self) {
        (self.posted, self.at) = (None, Some(Instant::now()));
    }

    /// No answer to wait for, for a while: what was posted was refused, forgotten or never taken.
    pub fn is_overdue(&self) -> bool {
        self.posted.is_none() && self.at.is_none_or(|at| at.elapsed() >= PROOF_AGAIN)
    }

    /// The next answer; pends while there is none to come. Cancel-safe.
    pub async fn answer(&mut self) -> UplinkEvidence {
        let Some((change, answer)) = &mut self.posted else { return std::future::pending().await };
        let (change, delivered) = (*change, answer.await);
        self.posted = None;
        match delivered {
            Ok(delivered) if delivered.is_acknowledged() => {
                let endpoint_is_new = delivered.endpoint.origin == EndpointOrigin::Added;
                if change == self.change {
                    self.acked = Some(self.acked == Some(true) || endpoint_is_new);
                }
                UplinkEvidence::Up { endpoint_is_new, acked_after_change: change == self.change }
            }
            Ok(delivered) => {
                UplinkEvidence::Up { endpoint_is_new: delivered.endpoint.origin == EndpointOrigin::Added, acked_after_change: false }
            }
            Err(_) => std::future::pending().await, // superseded: the next one answers
        }
    }

    /// As things stand.
    pub fn standing(&self, link: Option<&Endpoint>) -> UplinkEvidence {
        match link {
            None => UplinkEvidence::Down,
            Some(endpoint) => {
                let endpoint_is_new = endpoint.origin == EndpointOrigin::Added;
                UplinkEvidence::Up { endpoint_is_new, acked_after_change: self.acked == Some(endpoint_is_new) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::AckReason;

    fn answered(proof: &mut Proof, endpoint: Endpoint, reason: AckReason) {
        let (sender, receiver) = oneshot::channel();
        proof.posted(receiver);
        sender.send(Delivered { endpoint, reason }).unwrap();
    }

    /// I6: an answer to what was posted before the change says nothing about the change.
    #[tokio::test]
    async fn only_what_was_posted_after_the_change_proves_it() {
        let mut proof = Proof::default();
        let old = Endpoint::new("hub", 8883, true);
        answered(&mut proof, old.clone(), AckReason::Success);
        proof.changed();
        assert_eq!(proof.answer().await, UplinkEvidence::Up { endpoint_is_new: false, acked_after_change: false });
        assert_eq!(proof.standing(Some(&old)), UplinkEvidence::Up { endpoint_is_new: false, acked_after_change: false });
        answered(&mut proof, old.clone(), AckReason::Success);
        assert_eq!(proof.answer().await, UplinkEvidence::Up { endpoint_is_new: false, acked_after_change: true });
        assert_eq!(proof.standing(Some(&old)), UplinkEvidence::Up { endpoint_is_new: false, acked_after_change: true });
        assert_eq!(proof.standing(None), UplinkEvidence::Down);
    }

    #[tokio::test]
    async fn an_endpoint_of_a_document_is_told_from_one_of_the_local_file() {
        let mut proof = Proof::default();
        let (old, new) = (Endpoint::new("hub", 8883, true), Endpoint::new("hub2", 8883, true).added(None));
        answered(&mut proof, old, AckReason::Success);
        assert_eq!(proof.answer().await, UplinkEvidence::Up { endpoint_is_new: false, acked_after_change: true });
        assert_eq!(proof.standing(Some(&new)), UplinkEvidence::Up { endpoint_is_new: true, acked_after_change: false });
        answered(&mut proof, new.clone(), AckReason::NotAuthorized);
        assert_eq!(proof.answer().await, UplinkEvidence::Up { endpoint_is_new: true, acked_after_change: false });
        answered(&mut proof, new, AckReason::Success);
        assert_eq!(proof.answer().await, UplinkEvidence::Up { endpoint_is_new: true, acked_after_change: true });
    }

    /// What was refused, or could not be posted, is posted again after a while, so that one bad moment does not cost a trial.
    #[tokio::test]
    async fn without_an_answer_to_wait_for_another_report_is_due_after_a_while() {
        let mut proof = Proof::default();
        assert!(proof.is_overdue(), "nothing was ever posted");
        answered(&mut proof, Endpoint::new("hub", 8883, true), AckReason::NotAuthorized);
        assert!(!proof.is_overdue(), "its answer is to come");
        proof.answer().await;
        assert!(!proof.is_overdue(), "not at once");
        proof.at = proof.at.and_then(|at| at.checked_sub(PROOF_AGAIN));
        assert!(proof.is_overdue());
        proof.not_posted();
        assert!(!proof.is_overdue());
    }
}
