//! A body that was read whole, into the records it holds. Pure; the splitting itself is `source/split`'s.
//!
//! A body is looked through once before anything of it is stored: one that is cut off, or not what its type says, gives nothing at all. What is
//! wrong in the middle (a line that is no JSON) costs itself only. Records are slices of the body, never copies of it.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::media::Kind;
use crate::limits::{HTTP_BAD_PARTS_MAX, HTTP_RECORDS_MAX, SPLIT_FEED_BYTES};
use crate::source::split::{Piece, PieceKind, SplitLimits, SplitSettings, Splitter, codes};

/// What a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub records: u64,
    pub bad: u64,
}

/// Why nothing of a body is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    Empty,
    /// A code of `source/split`.
    Code(&'static str),
    /// The resource is not of the type that the path names.
    OtherResource,
    TooManyRecords,
    /// For one idempotency key.
    TooManyForKey,
    TooManyBad,
}

#[derive(Deserialize)]
struct Head<'b> {
    #[serde(borrow, rename = "resourceType")]
    resource_type: Option<std::borrow::Cow<'b, str>>,
}

/// Looks through a body. `resource`: the type it must have.
pub(super) fn look(kind: Kind, body: &Bytes, resource: Option<&str>, limits: SplitLimits) -> Result<Look, Unusable> {
    if body.is_empty() {
        return Err(Unusable::Empty);
    }
    if !kind.is_many() || resource.is_some() {
        whole(kind, body, resource)?;
    }
    if !kind.is_many() {
        return Ok(Look { records: 1, bad: 0 });
    }
    let mut parts = Parts::new(kind, body, limits);
    let mut first_bad = None;
    for piece in parts.by_ref() {
        if let (PieceKind::Bad { code, .. }, None) = (piece.kind, first_bad) {
            first_bad = Some(code);
        }
        if piece.index > HTTP_RECORDS_MAX {
            return Err(Unusable::TooManyRecords);
        }
    }
    let verdict = parts.splitter.verdict();
    match (verdict.state.code(), first_bad) {
        (Some(code), _) if verdict.state.holds_file() => Err(Unusable::Code(code)),
        (_, Some(code)) if verdict.records == 0 => Err(Unusable::Code(code)),
        _ if verdict.records == 0 => Err(Unusable::Empty),
        _ if verdict.bad > HTTP_BAD_PARTS_MAX => Err(Unusable::TooManyBad),
        _ => Ok(Look { records: verdict.records, bad: verdict.bad }),
    }
}

/// One JSON value, or bytes.
fn whole(kind: Kind, body: &[u8], resource: Option<&str>) -> Result<(), Unusable> {
    if kind == Kind::Octets {
        return Ok(());
    }
    let Ok(text) = std::str::from_utf8(body) else { return Err(Unusable::Code(codes::JSON_ENCODING)) };
    // What the parser says may quote the content.
    let invalid = |error: serde_json::Error| {
        let code = if error.is_eof() { codes::JSON_CUT } else { codes::JSON_INVALID };
        Unusable::Code(if text.trim_start().starts_with('<') { codes::XML } else { code })
    };
    if matches!(kind, Kind::Resource | Kind::Bundle) {
        let not_object = Unusable::Code(codes::JSON_NOT_OBJECT);
        if text.trim_start().starts_with('[') {
            return Err(not_object);
        }
        // A value of a wrong type rather than of a wrong syntax.
        let head: Head<'_> = serde_json::from_str(text).map_err(|error| if error.is_data() { not_object } else { invalid(error) })?;
        return match (head.resource_type, resource) {
            (None, _) => Err(Unusable::Code(codes::BUNDLE_TYPE)),
            (Some(found), Some(wanted)) if found != wanted => Err(Unusable::OtherResource),
            _ => Ok(()),
        };
    }
    if kind == Kind::Json { serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(invalid) } else { Ok(()) }
}

/// The parts of a body, in order.
#[derive(Debug)]
pub(super) struct Parts {
    splitter: Splitter,
    body: Bytes,
    fed: usize,
    ended: bool,
}

impl Parts {
    pub(super) fn new(kind: Kind, body: &Bytes, limits: SplitLimits) -> Self {
        let settings = match kind {
            Kind::Resource | Kind::Json | Kind::Octets => SplitSettings::Whole,
            Kind::Bundle => SplitSettings::FhirBundle,
            Kind::Array => SplitSettings::JsonArray,
            Kind::Lines(_) => SplitSettings::Ndjson,
        };
        let splitter = Splitter::new(&settings, limits).expect("these ways to split have no settings that could be wrong");
        Self { splitter, body: body.clone(), fed: 0, ended: false }
    }
}

impl Iterator for Parts {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(mut piece) = self.splitter.next_piece() {
                if let PieceKind::Record(bytes) = &mut piece.kind {
                    // Of these formats a record is its range of the body; so the splitter's buffer can go.
                    *bytes = self.body.slice(piece.range.start as usize..piece.range.end as usize);
                }
                return Some(piece);
            }
            if self.ended {
                return None;
            }
            let end = (self.fed + SPLIT_FEED_BYTES).min(self.body.len());
            self.splitter.feed(&self.body[self.fed..end]);
            self.fed = end;
            if end == self.body.len() {
                self.splitter.end();
                self.ended = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MIB;

    fn look_at(kind: Kind, body: &str) -> Result<Look, Unusable> {
        look(kind, &Bytes::from(body.to_owned()), None, SplitLimits::new(MIB))
    }

    fn records(kind: Kind, body: &str) -> Vec<String> {
        let parts = Parts::new(kind, &Bytes::from(body.to_owned()), SplitLimits::new(MIB));
        parts
            .filter_map(|piece| if let PieceKind::Record(bytes) = piece.kind { String::from_utf8(bytes.to_vec()).ok() } else { None })
            .collect()
    }

    #[test]
    fn a_body_is_one_record_or_as_many_as_it_holds() {
        assert_eq!(look_at(Kind::Resource, "{\"resourceType\":\"Device\"}"), Ok(Look { records: 1, bad: 0 }));
        assert_eq!(look_at(Kind::Json, " [1, 2] "), Ok(Look { records: 1, bad: 0 }));
        assert_eq!(look_at(Kind::Octets, "\u{0}<x>"), Ok(Look { records: 1, bad: 0 }));
        let lines = "{\"a\":1}\n{broken\n\n{\"a\":2}\n";
        assert_eq!(look_at(Kind::Lines(false), lines), Ok(Look { records: 2, bad: 1 }));
        assert_eq!(records(Kind::Lines(false), lines), ["{\"a\":1}", "{\"a\":2}"]);
        let bundle = "{\"resourceType\":\"Bundle\",\"type\":\"batch\",\"entry\":[ {\"resource\":{\"id\":1}} ,{\"resource\":{\"id\":2}}]}";
        assert_eq!(look_at(Kind::Bundle, bundle), Ok(Look { records: 2, bad: 0 }));
        assert_eq!(records(Kind::Bundle, bundle), ["{\"resource\":{\"id\":1}}", "{\"resource\":{\"id\":2}}"]);
        let single = "{\"resourceType\":\"Device\",\"id\":\"x\"}\n";
        assert_eq!(look_at(Kind::Bundle, single), Ok(Look { records: 1, bad: 0 }));
        assert_eq!(records(Kind::Array, "[1,{\"x\":[2]}, \"3\"]"), ["1", "{\"x\":[2]}", "\"3\""]);
    }

    #[test]
    fn what_is_cut_or_something_else_gives_nothing() {
        for (kind, body, code) in [
            (Kind::Resource, "{\"resourceType\":\"Dev", codes::JSON_CUT),
            (Kind::Resource, "{\"id\":\"x\"}", codes::BUNDLE_TYPE),
            (Kind::Resource, "[1]", codes::JSON_NOT_OBJECT),
            (Kind::Resource, "<Patient/>", codes::XML),
            (Kind::Json, "{\"a\":}", codes::JSON_INVALID),
            (Kind::Lines(true), "{\"a\":1}\n{\"a\":", codes::NDJSON_CUT),
            (Kind::Lines(true), "broken\n", codes::JSON_INVALID),
            (Kind::Bundle, "{\"resourceType\":\"Bundle\",\"entry\":[{\"a\":1},", codes::JSON_CUT),
            (Kind::Array, "{\"a\":1}", codes::JSON_NOT_ARRAY),
        ] {
            assert_eq!(look_at(kind, body), Err(Unusable::Code(code)), "{body}");
        }
        assert_eq!(look_at(Kind::Json, ""), Err(Unusable::Empty));
        assert_eq!(look_at(Kind::Lines(false), "\n \n"), Err(Unusable::Empty));
        assert_eq!(look_at(Kind::Array, "[]"), Err(Unusable::Empty));
        assert_eq!(
            look(Kind::Json, &Bytes::from_static(b"\"\xff\""), None, SplitLimits::new(MIB)),
            Err(Unusable::Code(codes::JSON_ENCODING))
        );
        assert_eq!(look_at(Kind::Lines(false), &"x\n".repeat(1002)), Err(Unusable::Code(codes::JSON_INVALID)));
        assert_eq!(look_at(Kind::Lines(false), &format!("1\n{}", "x\n".repeat(1002))), Err(Unusable::TooManyBad));
        assert_eq!(look_at(Kind::Lines(false), &"1\n".repeat(HTTP_RECORDS_MAX as usize + 1)), Err(Unusable::TooManyRecords));
    }

    #[test]
    fn the_type_in_the_path_is_the_type_of_the_resource() {
        let of = |kind, wanted| look(kind, &Bytes::from_static(b"{\"resourceType\":\"Device\"}"), Some(wanted), SplitLimits::new(MIB));
        assert!(of(Kind::Resource, "Device").is_ok() && of(Kind::Bundle, "Device").is_ok());
        assert_eq!(of(Kind::Resource, "Patient"), Err(Unusable::OtherResource));
        assert_eq!(of(Kind::Bundle, "Patient"), Err(Unusable::OtherResource));
    }
}
