//! What a renewal remembers through restarts; beside the certificates, as JSON. Pure.
//!
//! It holds no promise: lost or damaged, a document's request is made once more, and a certificate that was refused is tried once more.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::contract::CertificateOutcome;
use crate::limits::{CANDIDATE_TRIAL, RENEWALS_REMEMBERED};
use crate::record::Digest;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Values of `request` that were answered, the newest last.
    pub answered: Vec<String>,
    /// The one that the key was made for; `None`: asked on site.
    pub request: Option<String>,
    /// How long a certificate for it may take to prove itself.
    pub trial_s: Option<u64>,
    /// SHA-256 of certificates for this key that are not tried again.
    pub refused: Vec<Digest>,
    pub last: Option<CertificateOutcome>,
}

impl Memory {
    /// What cannot be read is nothing.
    pub fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain values")
    }

    pub fn trial(&self) -> Duration {
        self.trial_s.map_or(CANDIDATE_TRIAL, Duration::from_secs)
    }

    /// A new key was made: for this value, or on site.
    pub fn asked(&mut self, request: Option<&str>, trial: Duration) {
        if let Some(request) = request {
            keep(&mut self.answered, request.to_owned());
        }
        self.request = request.map(str::to_owned);
        self.trial_s = Some(trial.as_secs());
        self.refused.clear();
    }

    pub fn has_answered(&self, request: &str) -> bool {
        self.answered.iter().any(|known| known == request)
    }

    pub fn refuse(&mut self, certificate: &[u8]) {
        keep(&mut self.refused, print(certificate));
    }

    pub fn has_refused(&self, certificate: &[u8]) -> bool {
        self.refused.contains(&print(certificate))
    }
}

/// Remembers one more, of the last so many.
fn keep<T: PartialEq>(list: &mut Vec<T>, value: T) {
    list.retain(|known| *known != value);
    list.push(value);
    list.drain(..list.len().saturating_sub(RENEWALS_REMEMBERED));
}

fn print(certificate: &[u8]) -> Digest {
    Digest(Sha256::digest(certificate).into())
}
