//! One line of the output: JSON, with everything that is needed to rebuild the ledger and the index from the output alone.
//!
//! | kind | what | counted |
//! |---|---|---|
//! | `start` | first contact: the account begins after `seq` | yes |
//! | `open` | an incarnation and what it `follows` | yes |
//! | `event` | an event; `data_base64` is its payload, `attributes` are all of its attributes | yes |
//! | `exception` | kept back at the gateway, `reason`; an event for it may still come | yes |
//! | `gap` | `first..=seq` will never come | yes |
//! | `lost` | `ranges` are settled at the gateway and not here; the account goes on after `seq` | yes |
//! | `conflict` | an identity that is here already, with another chain value; or `reason` says which chain does not fit | where it has data |
//! | `fork` | `ranges` of incarnation `other` are not in the history that `incarnation` continues | no |
//! | `corrupt` | an event whose payload does not have the digest it claims; kept, asked for again | no |
//! | `reported`, `command_result`, `audit` | `data` is what a gateway says of its configuration, of a command, of who did what; as often as it comes; `reason`: why an audit record does not fit | no |
//! | `malformed` | a publish that is not of the contract; without its content | no |
//!
//! Reading a line back skips the payload.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::account::Followed;
use super::ledger::AccountKey;
use crate::clock;
use crate::contract::Mark;
use crate::record::{Chain, Digest, Incarnation, Name, Position};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineKind {
    Start,
    Open,
    Event,
    Exception,
    Gap,
    Lost,
    Conflict,
    Fork,
    Corrupt,
    Reported,
    #[serde(rename = "certificate_request")]
    CertificateRequest,
    #[serde(rename = "command_result")]
    CommandResult,
    Audit,
    Malformed,
}

/// A line as it is read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub kind: LineKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// Of a gap: its first seq.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_count: Option<u32>,
    /// Of an open: null where the incarnation begins with seq 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follows: Option<Position>,
    /// Of an open: what the index said of that point then. (At replay it may know more, and must not say it.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followed: Option<Followed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<Mark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<Incarnation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When this side wrote it (RFC 3339; for people).
    pub written_at: String,
}

impl Line {
    pub fn new(kind: LineKind, key: Option<&AccountKey>) -> Self {
        Self {
            kind,
            id: None,
            site: key.map(|key| key.site.clone()),
            gateway: key.map(|key| key.gateway.clone()),
            feed: key.map(|key| key.feed.clone()),
            incarnation: None,
            first: None,
            seq: None,
            chain: None,
            digest: None,
            item_index: None,
            item_count: None,
            follows: None,
            followed: None,
            settled: None,
            other: None,
            ranges: Vec::new(),
            reason: None,
            written_at: clock::rfc3339(clock::now().unix_ms),
        }
    }

    /// Whose account it is about.
    pub fn key(&self) -> Option<AccountKey> {
        Some(AccountKey { site: self.site.clone()?, gateway: self.gateway.clone()?, feed: self.feed.clone()? })
    }
}

/// The content of an event, beside its line. Never shown (I7).
#[allow(missing_debug_implementations)] // on purpose
pub struct Content<'a> {
    pub content_type: Option<&'a str>,
    pub attributes: &'a [(String, String)],
    pub data: &'a [u8],
}

#[derive(Serialize)]
struct Full<'a> {
    #[serde(flatten)]
    line: &'a Line,
    #[serde(skip_serializing_if = "Option::is_none")]
    lane: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    attributes: BTreeMap<&'a str, &'a str>,
    data_base64: String,
}

/// Appends a line without content.
pub fn write_line(line: &Line, into: &mut Vec<u8>) {
    serde_json::to_writer(&mut *into, line).expect("writing to memory; all keys are text");
    into.push(b'\n');
}

/// Appends a line with JSON of the gateway's own.
pub fn write_data(line: &Line, data: &serde_json::Value, into: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct WithData<'a> {
        #[serde(flatten)]
        line: &'a Line,
        data: &'a serde_json::Value,
    }
    serde_json::to_writer(&mut *into, &WithData { line, data }).expect("writing to memory; all keys are text");
    into.push(b'\n');
}

/// Appends a line with content. Of attributes given twice the first counts, as when they are read.
pub fn write_content(line: &Line, content: &Content<'_>, into: &mut Vec<u8>) {
    let mut attributes = BTreeMap::new();
    for (name, value) in content.attributes {
        attributes.entry(name.as_str()).or_insert(value.as_str());
    }
    let get = |name: &str| attributes.get(name).copied();
    let full = Full {
        line,
        lane: get("lane"),
        stage: get("stage"),
        time: get("time"),
        event_type: get("type"),
        content_type: content.content_type,
        data_base64: STANDARD.encode(content.data),
        attributes,
    };
    serde_json::to_writer(&mut *into, &full).expect("writing to memory; all keys are text");
    into.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_content_reads_back_without_it() {
        let mut line = Line::new(LineKind::Event, None);
        (line.seq, line.chain, line.ranges) = (Some(u64::MAX), Some(Chain([3; 32])), vec![(1, 2)]);
        let attributes = vec![("lane".to_owned(), "bulk".to_owned()), ("lane".to_owned(), "other".to_owned())];
        let mut bytes = Vec::new();
        write_content(&line, &Content { content_type: None, attributes: &attributes, data: b"\x00\xff\n" }, &mut bytes);
        assert_eq!(bytes.iter().position(|b| *b == b'\n'), Some(bytes.len() - 1));
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((json["lane"].as_str(), json["data_base64"].as_str()), (Some("bulk"), Some("AP8K")));
        assert_eq!(serde_json::from_slice::<Line>(&bytes).unwrap(), line);
    }
}
