//! What gateways say of themselves that a rollout goes by: the reported state and the status, as far as they matter. Pure; both come from outside and
//! are bounded and read leniently, since older and newer gateways say less and more.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::contract::{GatewayState, OnlineState};
use crate::limits::{LETTER_BYTES_MAX, REASON_SHOWN_CHARS};
use crate::record::{DocumentDigest, Name};
use crate::status::condition::Code;

/// `config/reported`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Reported {
    pub gateway: Name,
    #[serde(default)]
    pub version: String,
    pub running: Running,
    #[serde(default)]
    pub tried: Option<Tried>,
    #[serde(default)]
    pub timezone: Option<String>,
    #[serde(default)]
    pub groups: Vec<Name>,
    #[serde(default)]
    pub document_schema: Option<u64>,
    #[serde(default)]
    pub trust: Option<Trust>,
    #[serde(default)]
    pub time: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Running {
    pub revision: u64,
    #[serde(default)]
    pub digest: Option<DocumentDigest>,
    #[serde(default)]
    pub since: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Tried {
    #[serde(default)]
    pub revision: Option<u64>,
    #[serde(default)]
    pub digest: Option<DocumentDigest>,
    pub state: String,
    #[serde(default)]
    pub code: Option<String>,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub at: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Trust {
    pub keys: Vec<String>,
    pub threshold: usize,
    #[serde(default)]
    pub recovery_keys: Vec<String>,
}

impl Reported {
    /// `None`: it is no reported state.
    pub fn read(payload: &[u8]) -> Option<Self> {
        if payload.len() > LETTER_BYTES_MAX {
            return None;
        }
        serde_json::from_slice(payload).ok()
    }
}

/// What a reported state says about one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// It runs, proven.
    Runs,
    /// It is looked at, on trial, or waits for the hub to be reached.
    Tries,
    /// It was refused or taken back.
    Not {
        code: String,
        reason: String,
    },
    /// Something was refused of which the gateway cannot say what it was; `mark` names the occasion.
    Unnamed {
        code: String,
        reason: String,
        mark: String,
    },
    Nothing,
}

impl Reported {
    pub fn about(&self, revision: u64, digest: DocumentDigest) -> About {
        let runs = self.running.digest == Some(digest);
        let Some(tried) = &self.tried else { return if runs { About::Runs } else { About::Nothing } };
        let text = |field: &Option<String>| field.as_deref().map(|text| shown(text, REASON_SHOWN_CHARS)).unwrap_or_default();
        let (code, reason) = (text(&tried.code), text(&tried.reason));
        let is_ours = tried.digest == Some(digest) || tried.digest.is_none() && tried.revision == Some(revision);
        match tried.state.as_str() {
            // Taken back after it ran, or refused; a repetition of what runs is told as what runs.
            "refused" | "rolled_back" if is_ours && !(runs && tried.state == "refused") => About::Not { code, reason },
            "committed" if is_ours && runs => About::Runs,
            "staged" | "trial" | "committed_local" if is_ours => About::Tries,
            _ if runs => About::Runs,
            "refused" if tried.revision.is_none() && tried.digest.is_none() => {
                About::Unnamed { code, reason, mark: format!("refused {}", shown(&tried.at, 40)) }
            }
            _ => About::Nothing,
        }
    }
}

/// The retained status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    pub online: bool,
    /// One mark for each feed of which the gateway says that the document is suspect, with its sentence.
    pub suspects: BTreeSet<(String, String)>,
}

impl Presence {
    pub fn read(payload: &[u8]) -> Option<Self> {
        if payload.len() > LETTER_BYTES_MAX {
            return None;
        }
        let state: GatewayState = serde_json::from_slice(payload).ok()?;
        let suspects = state.conditions.iter().filter(|condition| condition.code == Code::DocumentSuspect.as_str());
        let mark = |condition: &crate::contract::ConditionTold| {
            (
                format!("suspect {} {}", shown(&condition.subject, 63), shown(&condition.since, 40)),
                shown(&condition.text, REASON_SHOWN_CHARS),
            )
        };
        Some(Self { online: state.state == OnlineState::Online, suspects: suspects.map(mark).collect() })
    }
}

/// Text from outside, short and without control characters.
pub fn shown(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}
