//! What a body is, by its `Content-Type`: a closed list of kinds, and what the feed lists in `accept`. Pure.
//!
//! | media type | kind |
//! |---|---|
//! | `application/fhir+json`, `application/json+fhir` | a FHIR resource or Bundle |
//! | `application/fhir+ndjson` | FHIR resources, one a line |
//! | `application/ndjson`, `application/x-ndjson`, `application/jsonl` | JSON values, one a line |
//! | `application/json` | JSON; FHIR where the feed splits Bundles |
//! | `application/octet-stream` and those in `accept` | bytes |
//!
//! XML is refused by name: nothing here reads it, and a FHIR server's clients can all be told to send JSON.

use super::HttpSplit;
use crate::limits::MEDIA_TYPE_BYTES_MAX;

/// `type/subtype` in lower case, without parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType(String);

impl MediaType {
    /// `None` for what is no media type. Parameters are passed over.
    pub fn parse(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        let token = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
        let (kind, subtype) = essence.split_once('/')?;
        (essence.len() <= MEDIA_TYPE_BYTES_MAX && token(kind) && token(subtype)).then(|| Self(essence.to_ascii_lowercase()))
    }

    pub fn essence(&self) -> &str {
        &self.0
    }
}

pub fn is_xml(media_type: &MediaType) -> bool {
    media_type.0.ends_with("+xml") || media_type.0.ends_with("/xml") || media_type.0 == "application/xml+fhir"
}

/// What a body is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One FHIR resource, a Bundle as it stands included.
    Resource,
    /// A Bundle, entry by entry; another resource as it stands.
    Bundle,
    /// One JSON value.
    Json,
    /// A JSON array, element by element.
    Array,
    /// JSON values, one a line; `true`: FHIR.
    Lines(bool),
    /// Bytes nobody here looks into.
    Octets,
}

impl Kind {
    /// Many records may come of one body.
    pub fn is_many(self) -> bool {
        matches!(self, Self::Bundle | Self::Array | Self::Lines(_))
    }

    /// Its sender expects an OperationOutcome.
    pub fn is_fhir(self) -> bool {
        matches!(self, Self::Resource | Self::Bundle | Self::Lines(true))
    }

    /// Media type of its records; `None`: as posted.
    pub fn of_records(self) -> Option<&'static str> {
        match self {
            Self::Resource | Self::Bundle | Self::Lines(true) => Some("application/fhir+json"),
            Self::Json | Self::Array | Self::Lines(false) => Some("application/json"),
            Self::Octets => None,
        }
    }
}

/// Why a body is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    Missing,
    Xml,
    Other,
}

/// What comes under this `Content-Type`.
pub fn kind(header: Option<&str>, split: HttpSplit, accept: &[MediaType]) -> Result<(Kind, MediaType), Unsupported> {
    let media_type = MediaType::parse(header.ok_or(Unsupported::Missing)?).ok_or(Unsupported::Other)?;
    let kind = match media_type.essence() {
        "application/fhir+json" | "application/json+fhir" if split == HttpSplit::FhirBundle => Kind::Bundle,
        "application/fhir+json" | "application/json+fhir" => Kind::Resource,
        "application/json" => match split {
            HttpSplit::Whole => Kind::Json,
            HttpSplit::FhirBundle => Kind::Bundle,
            HttpSplit::JsonArray => Kind::Array,
        },
        "application/fhir+ndjson" => Kind::Lines(true),
        "application/ndjson" | "application/x-ndjson" | "application/jsonl" => Kind::Lines(false),
        "application/octet-stream" => Kind::Octets,
        _ if accept.contains(&media_type) => Kind::Octets,
        _ if is_xml(&media_type) => return Err(Unsupported::Xml),
        _ => return Err(Unsupported::Other),
    };
    Ok((kind, media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_says_what_a_body_is() {
        let csv = [MediaType::parse("text/csv").unwrap()];
        let of = |header: &str, split| kind(Some(header), split, &csv).map(|(kind, _)| kind);
        for (header, split, expected) in [
            ("application/fhir+json; charset=utf-8; fhirVersion=4.0", HttpSplit::Whole, Kind::Resource),
            ("Application/FHIR+JSON", HttpSplit::FhirBundle, Kind::Bundle),
            ("application/json", HttpSplit::Whole, Kind::Json),
            ("application/json", HttpSplit::FhirBundle, Kind::Bundle),
            ("application/json", HttpSplit::JsonArray, Kind::Array),
            ("application/fhir+ndjson", HttpSplit::Whole, Kind::Lines(true)),
            ("application/x-ndjson", HttpSplit::JsonArray, Kind::Lines(false)),
            ("application/octet-stream", HttpSplit::FhirBundle, Kind::Octets),
            ("text/csv;header=present", HttpSplit::Whole, Kind::Octets),
        ] {
            assert_eq!(of(header, split), Ok(expected), "{header}");
        }
        for xml in ["application/fhir+xml", "text/xml", "application/xml; charset=utf-8"] {
            assert_eq!(of(xml, HttpSplit::Whole), Err(Unsupported::Xml), "{xml}");
        }
        for other in ["text/plain", "json", "", "a/b/c", "multipart/form-data; boundary=x"] {
            assert_eq!(of(other, HttpSplit::Whole), Err(Unsupported::Other), "{other}");
        }
        assert_eq!(kind(None, HttpSplit::Whole, &csv), Err(Unsupported::Missing));
    }
}
