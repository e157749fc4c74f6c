//! Where a message came from: a peer on the network, or a place in a file.
//!
//! A file feed's progress is the place of its newest durable record ([`FilePlace`]). It travels in record headers, footers, segment headers and
//! heads, so that whatever survives a crash says exactly how far the feed came; nothing else does. Since a hole would be a row lost for good,
//! rows name the place that must be durable before them (`spool::Rows`), and the committer refuses them where that is not so.
//!
//! Names of files may hold a patient's name (I7): they are kept only where a feed's configuration says that its names may be shown.

use serde::{Deserialize, Serialize};

use super::FileFingerprint;

/// A record's place in a file, which is also how far a feed came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePlace {
    pub fingerprint: FileFingerprint,
    /// Number of its piece in the file, from 1; pieces that went to quarantine are numbered too.
    pub index: u64,
    /// The record ends before this byte of the file.
    pub end_offset: u64,
    /// No record comes behind it in the file.
    pub last: bool,
}

/// The newest durable record of a feed that came from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProgress {
    pub seq: u64,
    pub place: FilePlace,
}

/// What kind of bytes a record of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    Octets,
    Hl7V2,
    Csv,
    Text,
    X12,
    Json,
    FhirJson,
}

impl Content {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Octets => "application/octet-stream",
            Self::Hl7V2 => "application/hl7-v2",
            Self::Csv => "text/csv",
            Self::Text => "text/plain",
            Self::X12 => "application/edi-x12",
            Self::Json => "application/json",
            Self::FhirJson => "application/fhir+json",
        }
    }
}

/// A record's origin in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOrigin {
    pub place: FilePlace,
    /// Its first byte in the file.
    pub start_offset: u64,
    /// Base name of the file, cut; empty unless the feed says that names may be shown.
    pub name: String,
    pub content: Content,
    /// The same content was captured before, under another time of change or name.
    pub repeated: bool,
}

/// A record's origin in an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOrigin {
    /// For people: `10.1.2.3:51944`, and behind a blank the name the client has proven, if any.
    pub peer: String,
    /// Of the record: as posted, or of one line or entry of it.
    pub media_type: String,
    /// SHA-256 over the request as a whole, with its key and its client: what one idempotency key stands for; of no other request, where there is no
    /// key. Not stored.
    pub request: [u8; 32],
}

/// Where a message came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// For people: `10.1.2.3:51944`.
    Peer(String),
    File(FileOrigin),
    Http(HttpOrigin),
}

impl Origin {
    /// One word for people: the peer, or the file and the record in it.
    pub fn for_people(&self) -> String {
        match self {
            Self::Peer(peer) => peer.clone(),
            Self::Http(http) => http.peer.clone(),
            Self::File(file) if file.name.is_empty() => {
                format!("file {:.12} piece {}", file.place.fingerprint.to_string(), file.place.index)
            }
            Self::File(file) => format!("{} piece {}", file.name, file.place.index),
        }
    }
}
