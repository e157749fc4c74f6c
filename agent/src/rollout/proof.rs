//! What the uplink proves: an acknowledged reported state that was posted after a change, and over which endpoint. Pure but for the channel.

use tokio::sync::oneshot;

use super::facts::UplinkEvidence;
use crate::config::settings::{Endpoint, EndpointOrigin};
use crate::forward::mail::Delivered;

/// Follows the reported states of one configuration after the other.
#[derive(Debug, Default)]
pub struct Proof {
    /// Grows with every change of what runs.
    change: u64,
    /// Posted, not answered, and after which change.
    posted: Option<(u64, oneshot::Receiver<Delivered>)>,
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
        self.posted = Some((self.change, answer));
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
}
