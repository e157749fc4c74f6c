//! An event: CloudEvents 1.0 in MQTT 5 binary mode. Attributes are user properties under their own names, the content type is MQTT's, the
//! payload is the data unchanged.
//!
//! | attribute | value |
//! |---|---|
//! | `specversion` | `1.0` |
//! | `id` | `{gateway}/{feed}/{incarnation}/{seq}/raw` |
//! | `source` | `siteward://{site}/{gateway}/{feed}` |
//! | `type` | `siteward.message.raw.v1` |
//! | `time` | when the message was received (RFC 3339, UTC) |
//! | `sequence`, `incarnation`, `chain`, `recorddigest`, `nonce` | place in the feed and its proof (see `record`) |
//! | `itemindex`, `itemcount` | `0`, `1` for raw bytes |
//! | `lane` | of the feed |
//! | `stage` | of the feed when the message came; `test` for a message whose MSH-11 is T or D, whatever the feed's was |
//! | `charset`, `charsetfrom` | how the gateway would read the bytes, and why: `forced`, `declared`, `setting`, `detected`, `assumed` |
//! | `controlid` | MSH-10, where it is printable ASCII; of a record posted over HTTP: its idempotency key, then `#` and its number where one
//! | | request held several |
//! | `file`, `fileindex`, `filestart`, `fileend` | of a record from a file: fingerprint of the file, number of the piece in it (from 1), byte range |
//! | `filelast`, `filerepeated` | `true`, else absent: last record of the file; the same content was captured before |
//! | `filename` | base name, only where the feed says `name_in_events` |
//! | `clocksuspect`, `controlidreused`, `batchmismatch` | `true`, else absent |
//! | `resendof` | of a deliberate resend: the `sequence` of the earlier record of the same message; else absent |

use crate::record::{Chain, Digest, FeedId, FileOrigin, Incarnation, Lane, Name, Nonce, Origin, Record, record_id};
use crate::source::charset;

/// Content type of HL7 v2 bytes as received.
pub const HL7_V2: &str = "application/hl7-v2";
/// Event type of a message forwarded as received.
pub const TYPE_RAW: &str = "siteward.message.raw.v1";

/// The attributes of a raw event, in the order they are sent.
pub fn raw_attributes(site: &Name, gateway: &Name, lane: Lane, charset: charset::Rule, record: &Record) -> Vec<(String, String)> {
    let feed = &record.feed;
    let charset = charset::of_message(charset, record.body.expose());
    let mut attributes: Vec<(&str, String)> = vec![
        ("specversion", "1.0".into()),
        ("id", format!("{}/raw", record_id(gateway, feed, record.incarnation, record.seq))),
        ("source", format!("siteward://{site}/{gateway}/{feed}")),
        ("type", TYPE_RAW.into()),
        ("time", crate::clock::rfc3339(record.received_at_ms)),
        ("sequence", record.seq.to_string()),
        ("incarnation", record.incarnation.to_string()),
        ("chain", record.chain.to_string()),
        ("recorddigest", record.digest.to_string()),
        ("nonce", record.nonce.to_string()),
        ("itemindex", "0".into()),
        ("itemcount", "1".into()),
        ("lane", lane.as_str().into()),
        ("stage", record.stage.as_str().into()),
        ("charset", charset.charset.name().into()),
        ("charsetfrom", charset.origin.as_str().into()),
    ];
    if let Some(id) = printable(&record.control_id) {
        attributes.push(("controlid", id));
    }
    if record.clock_suspect {
        attributes.push(("clocksuspect", "true".into()));
    }
    if record.control_id_reused {
        attributes.push(("controlidreused", "true".into()));
    }
    if record.batch_mismatch {
        attributes.push(("batchmismatch", "true".into()));
    }
    if let Origin::File(file) = &record.origin {
        file_attributes(file, &mut attributes);
    }
    if let Some(earlier) = record.resend_of {
        attributes.push(("resendof", earlier.to_string()));
    }
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn file_attributes(file: &FileOrigin, attributes: &mut Vec<(&str, String)>) {
    attributes.extend([
        ("file", file.place.fingerprint.to_string()),
        ("fileindex", file.place.index.to_string()),
        ("filestart", file.start_offset.to_string()),
        ("fileend", file.place.end_offset.to_string()),
    ]);
    if file.place.last {
        attributes.push(("filelast", "true".into()));
    }
    if file.repeated {
        attributes.push(("filerepeated", "true".into()));
    }
    if !file.name.is_empty() && file.name.chars().all(|c| !c.is_control()) {
        attributes.push(("filename", file.name.clone()));
    }
}

/// The content type of a record's bytes.
pub fn media_type(record: &Record) -> &str {
    match &record.origin {
        Origin::Peer(_) => HL7_V2,
        Origin::File(file) => file.content.media_type(),
        Origin::Http(http) => &http.media_type,
    }
}

/// A control id that can travel as text: not empty, printable ASCII only.
fn printable(id: &[u8]) -> Option<String> {
    let ok = !id.is_empty() && id.iter().all(|b| (0x20..0x7F).contains(b));
    ok.then(|| String::from_utf8_lossy(id).into_owned())
}

/// What the hub needs of an event's attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHead {
    pub id: String,
    pub feed: FeedId,
    pub incarnation: Incarnation,
    pub seq: u64,
    pub chain: Chain,
    pub digest: Digest,
    pub nonce: Nonce,
    pub item_index: u32,
    pub item_count: u32,
}

/// Why attributes do not make an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("attribute `{0}` is missing or not as the contract says")]
pub struct BadAttribute(pub &'static str);

impl EventHead {
    /// Reads the attributes of an event that arrived under `feed`'s topic.
    pub fn read(feed: &FeedId, attributes: &[(String, String)]) -> Result<Self, BadAttribute> {
        fn get<T: std::str::FromStr>(attributes: &[(String, String)], name: &'static str) -> Result<T, BadAttribute> {
            let value = attributes.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).ok_or(BadAttribute(name))?;
            value.parse().map_err(|_| BadAttribute(name))
        }
        Ok(Self {
            id: get(attributes, "id")?,
            feed: feed.clone(),
            incarnation: get(attributes, "incarnation")?,
            seq: get(attributes, "sequence")?,
            chain: get(attributes, "chain")?,
            digest: get(attributes, "recorddigest")?,
            nonce: get(attributes, "nonce")?,
            item_index: get(attributes, "itemindex")?,
            item_count: get(attributes, "itemcount")?,
        })
    }
}
