//! What the client is told: a closed list of outcomes, each with its status, its sentence, and when to come again. Pure.
//!
//! FHIR clients get an OperationOutcome, all others a small JSON object. Nothing of the body is ever repeated (I7). Success can only be said
//! with the ids that durable records have got (I1), see `store`.

use std::time::Duration;

use serde_json::{Value, json};

use super::media::Unsupported;
use super::parts::Unusable;
use crate::limits::{HTTP_KEYED_RECORDS_MAX, HTTP_RECORDS_MAX, HTTP_RETRY_BUSY, HTTP_RETRY_STOPPING, HTTP_RETRY_STORE};
use crate::source::split::codes;

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub records: u64,
    pub quarantined: u64,
    /// Ids of the first and the last record.
    pub first: String,
    pub last: String,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No token, or one that nobody has.
    NotAuthorized,
    /// A token of another feed.
    NotYours,
    PeerRefused,
    /// Only told to those who have proven who they are.
    UnknownFeed,
    Method,
    MediaType(Unsupported),
    Encoding,
    Key,
    /// So many of its records are durable all the same: the first of them came when its key was forgotten.
    KeyReused {
        durable: u64,
    },
    Unusable(Unusable),
    TooLarge {
        limit: u64,
    },
    Timeout,
    Lost,
    Busy,
    /// So many of its records are durable; a repetition under its key goes on behind them.
    StoreFailed {
        durable: u64,
        full: bool,
    },
    QuarantineFull {
        durable: u64,
    },
    Stopping,
}

impl Refusal {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } | Self::Unusable(Unusable::TooManyRecords | Unusable::TooManyForKey) => 413,
            Self::Key | Self::Lost | Self::Unusable(_) => 400,
            Self::NotAuthorized => 401,
            Self::NotYours | Self::PeerRefused => 403,
            Self::UnknownFeed => 404,
            Self::Method => 405,
            Self::Timeout => 408,
            Self::MediaType(_) | Self::Encoding => 415,
            Self::KeyReused { .. } => 422,
            Self::Busy => 429,
            Self::StoreFailed { .. } | Self::QuarantineFull { .. } | Self::Stopping => 503,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy => Some(HTTP_RETRY_BUSY),
            Self::StoreFailed { .. } | Self::QuarantineFull { .. } => Some(HTTP_RETRY_STORE),
            Self::Stopping => Some(HTTP_RETRY_STOPPING),
            _ => None,
        }
    }

    /// Code of FHIR's value set issue-type.
    fn issue(&self) -> &'static str {
        match self {
            Self::NotAuthorized => "login",
            Self::NotYours | Self::PeerRefused => "forbidden",
            Self::UnknownFeed => "not-found",
            Self::Method | Self::MediaType(_) | Self::Encoding => "not-supported",
            Self::Key => "value",
            Self::KeyReused { .. } => "duplicate",
            Self::Unusable(Unusable::TooManyRecords | Unusable::TooManyForKey | Unusable::TooManyBad) | Self::TooLarge { .. } => {
                "too-costly"
            }
            Self::Unusable(_) => "structure",
            Self::Timeout | Self::Lost => "timeout",
            Self::Busy => "throttled",
            Self::StoreFailed { .. } | Self::QuarantineFull { .. } | Self::Stopping => "transient",
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::NotAuthorized => "show a token of this feed: Authorization: Bearer …".to_owned(),
            Self::NotYours => "this token is for another feed".to_owned(),
            Self::PeerRefused => "this address may not post here".to_owned(),
            Self::UnknownFeed => "no such feed; post to /feeds/NAME".to_owned(),
            Self::Method => "this feed takes POST only; what is stored here is forwarded and cannot be read or changed".to_owned(),
            Self::MediaType(Unsupported::Missing) => "give a Content-Type".to_owned(),
            Self::MediaType(Unsupported::Xml) => "XML is not taken: nothing here reads it; post application/fhir+json".to_owned(),
            Self::MediaType(Unsupported::Other) => "this media type is not taken by this feed".to_owned(),
            Self::Encoding => "a Content-Encoding is not taken; post the bytes as they are".to_owned(),
            Self::Key => "Idempotency-Key must be one text of 1 to 160 visible characters".to_owned(),
            Self::KeyReused { durable: 0 } => {
                "this Idempotency-Key was used for another request; no record of this one was stored".to_owned()
            }
            Self::KeyReused { durable } => {
                format!("this Idempotency-Key was used for another request; {durable} records of this one are stored, the others are not")
            }
            Self::Unusable(unusable) => self::unusable(*unusable),
            Self::TooLarge { limit } => format!("the body is larger than {limit} bytes; nothing was stored, send less at once"),
            Self::Timeout => "the body did not come in time; nothing was stored".to_owned(),
            Self::Lost => "the body did not come to its end; nothing was stored".to_owned(),
            Self::Busy => "too much at once; nothing was stored, try again".to_owned(),
            Self::StoreFailed { durable, full } => {
                let why = if *full { "the store is full" } else { "the store failed" };
                format!("{why}; {durable} records of this request are stored. {}", again(*durable))
            }
            Self::QuarantineFull { durable } => {
                format!("there is no room for what is unusable in it; {durable} records of this request are stored. {}", again(*durable))
            }
            Self::Stopping => "the gateway stops or restarts; send the request again".to_owned(),
        }
    }
}

fn again(durable: u64) -> &'static str {
    if durable == 0 { "Send the request again" } else { "Send the whole request again; under an Idempotency-Key nothing is stored twice" }
}

fn unusable(unusable: Unusable) -> String {
    match unusable {
        Unusable::Empty => "the body is empty".to_owned(),
        Unusable::OtherResource => "the resource is not of the type in the path; nothing was stored".to_owned(),
        Unusable::TooManyRecords => format!("the body holds more than {HTTP_RECORDS_MAX} records; nothing was stored, send less at once"),
        Unusable::TooManyForKey => format!(
            "the body holds more than {HTTP_KEYED_RECORDS_MAX} records, the most under one Idempotency-Key; nothing was stored, send less at once"
        ),
        Unusable::TooManyBad => "too many parts of the body are unusable; nothing was stored".to_owned(),
        Unusable::Code(code) => format!("{}; nothing was stored ({code})", codes::meaning(code)),
    }
}

/// The body of an answer.
pub(super) fn body(is_fhir: bool, outcome: &Result<Stored, Refusal>) -> Vec<u8> {
    let document = match outcome {
        Ok(stored) if is_fhir => operation_outcome("information", "informational", &told(stored)),
        Ok(stored) => {
            json!({ "accepted": stored.records, "quarantined": stored.quarantined, "first": stored.first, "last": stored.last })
        }
        Err(refusal) if is_fhir => operation_outcome("error", refusal.issue(), &refusal.text()),
        Err(refusal) => json!({ "error": refusal.text(), "durable": refusal.durable() }),
    };
    document.to_string().into_bytes()
}

impl Refusal {
    fn durable(&self) -> u64 {
        match self {
            Self::KeyReused { durable } | Self::StoreFailed { durable, .. } | Self::QuarantineFull { durable } => *durable,
            _ => 0,
        }
    }
}

fn told(stored: &Stored) -> String {
    let Stored { records, quarantined, first, last } = stored;
    let ids = if first == last { first.clone() } else { format!("{first} to {last}") };
    match quarantined {
        0 => format!("stored for forwarding: {records} ({ids})"),
        n => format!("stored for forwarding: {records} ({ids}); set apart as unusable: {n}"),
    }
}

fn operation_outcome(severity: &str, code: &str, diagnostics: &str) -> Value {
    json!({ "resourceType": "OperationOutcome", "issue": [{ "severity": severity, "code": code, "diagnostics": diagnostics }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(is_fhir: bool, outcome: &Result<Stored, Refusal>) -> String {
        String::from_utf8(body(is_fhir, outcome)).unwrap()
    }

    #[test]
    fn success_names_the_records() {
        let stored = Ok(Stored { records: 3, quarantined: 1, first: "gw/f/ab/5".into(), last: "gw/f/ab/7".into() });
        assert_eq!(text(false, &stored), r#"{"accepted":3,"first":"gw/f/ab/5","last":"gw/f/ab/7","quarantined":1}"#);
        let fhir: Value = serde_json::from_str(&text(true, &stored)).unwrap();
        assert_eq!(fhir["resourceType"], "OperationOutcome");
        assert_eq!(fhir["issue"][0]["severity"], "information");
        assert_eq!(fhir["issue"][0]["diagnostics"], "stored for forwarding: 3 (gw/f/ab/5 to gw/f/ab/7); set apart as unusable: 1");
    }

    #[test]
    fn whoever_must_come_again_is_told_when() {
        for refusal in [Refusal::Busy, Refusal::StoreFailed { durable: 2, full: true }, Refusal::Stopping] {
            assert!(refusal.retry_after().is_some() && [429, 503].contains(&refusal.status()), "{refusal:?}");
        }
        for refusal in
            [Refusal::KeyReused { durable: 0 }, Refusal::NotAuthorized, Refusal::Unusable(Unusable::Empty), Refusal::TooLarge { limit: 1 }]
        {
            assert!(refusal.retry_after().is_none() && refusal.status() < 500, "{refusal:?}");
        }
        let half = text(true, &Err(Refusal::StoreFailed { durable: 2, full: true }));
        assert!(half.contains("2 records of this request are stored") && half.contains("transient"), "{half}");
    }
}
