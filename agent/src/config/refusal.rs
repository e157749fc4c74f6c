//! Why a document is refused. Each reason has a code that stays the same (it is reported and counted) and a sentence that says what is wrong,
//! where, and what to do. Values are never repeated (I7).

use std::path::Path;

use jiff::Timestamp;

use super::header::Version;
use super::{Fault, Faults};
use crate::limits::DOCUMENT_BYTES_MAX;

/// In the order in which a document is looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the document has {bytes} bytes, the most is {DOCUMENT_BYTES_MAX}; split the site's feeds among gateways or shorten it")]
    TooLarge { bytes: usize },
    #[error("this is not a signed document (a DSSE envelope): {what}; sign it with `siteward-hub config sign`")]
    NotAnEnvelope { what: &'static str },
    #[error("the envelope was signed as something other than {need}; sign it with `siteward-hub config sign`")]
    WrongPayloadType { need: &'static str },
    #[error("this gateway has no trust anchors, so it takes no documents; put the public keys into [trust] keys of its local file")]
    NoAnchors,
    #[error(
        "none of the signatures is by a key that this gateway trusts; sign with a key whose public half is in [trust] keys of its local file"
    )]
    UnknownKey,
    #[error("the document has {have} of the {need} signatures that this gateway asks for; have it signed by further keys of [trust]")]
    TooFewSignatures { have: usize, need: usize },
    #[error(
        "a signature by a key that this gateway trusts does not fit the document: it was changed after signing, or the key's id is wrong; sign it again"
    )]
    BadSignature,
    #[error("line {line} of the document is not UTF-8 text; save the file as UTF-8 and sign it again")]
    NotUtf8 { line: usize },
    #[error("{0}")]
    NotToml(Faults),
    #[error(
        "{file}:{line}: document.schema_version: is not 1, the only one that this version of siteward reads; update the gateway or write for 1"
    )]
    SchemaVersion { file: String, line: usize },
    #[error("document.revision: {offered} is older than {running}, which this gateway runs; give every new document a higher revision")]
    OldRevision { running: u64, offered: u64 },
    #[error("document.revision: this gateway runs another document of revision {revision}; give every new document a higher revision")]
    SameRevisionOtherContent { revision: u64 },
    #[error(
        "document.{key}: does not name this gateway ({gateway}); sign a document for it, or put its group into [gateway] groups of its local file"
    )]
    OtherGateway { key: &'static str, gateway: String },
    #[error("document.not_before: is {not_before}, which is still to come; offer it again then")]
    NotYet { not_before: Timestamp },
    #[error("document.expires: was {expires}; sign a new revision")]
    Expired { expires: Timestamp },
    #[error("document.min_agent_version: asks for {need}, this gateway runs {have}; update it first")]
    AgentTooOld { have: Version, need: Version },
    #[error("{0}")]
    BootstrapKey(Faults),
    #[error("{0}")]
    SecretLiteral(Faults),
    #[error("{0}")]
    Invalid(Faults),
}

impl Refusal {
    /// The gateway names documents by revision; at a desk and on site they have files.
    pub fn in_file(self, file: &Path) -> Faults {
        match self {
            Self::NotToml(faults) | Self::BootstrapKey(faults) | Self::SecretLiteral(faults) | Self::Invalid(faults) => {
                Faults { file: file.to_owned(), ..faults }
            }
            Self::SchemaVersion { line, .. } => {
                let text = Self::SchemaVersion { file: String::new(), line }.to_string();
                let text = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest).to_owned();
                let (path, text) = text.split_once(": ").unwrap_or(("", &text));
                Faults { file: file.to_owned(), list: vec![Fault { line: Some(line), path: path.to_owned(), text: text.to_owned() }] }
            }
            other => Faults { file: file.to_owned(), list: vec![Fault { line: None, path: String::new(), text: other.to_string() }] },
        }
    }

    /// Stable; reported to the hub.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::NotAnEnvelope { .. } => "not_an_envelope",
            Self::WrongPayloadType { .. } => "wrong_payload_type",
            Self::NoAnchors => "no_anchors",
            Self::UnknownKey => "unknown_key",
            Self::TooFewSignatures { .. } => "too_few_signatures",
            Self::BadSignature => "bad_signature",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotToml(_) => "not_toml",
            Self::SchemaVersion { .. } => "schema_version",
            Self::OldRevision { .. } => "old_revision",
            Self::SameRevisionOtherContent { .. } => "same_revision_other_content",
            Self::OtherGateway { .. } => "other_gateway",
            Self::NotYet { .. } => "not_yet",
            Self::Expired { .. } => "expired",
            Self::AgentTooOld { .. } => "agent_too_old",
            Self::BootstrapKey(_) => "bootstrap_key",
            Self::SecretLiteral(_) => "secret_literal",
            Self::Invalid(_) => "invalid",
        }
    }
}
