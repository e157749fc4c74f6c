//! Where a request goes and under which key: `/feeds/{feed}` or, as FHIR clients do it, `/feeds/{feed}/{ResourceType}`. Pure.

use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'p> {
    pub feed: &'p str,
    /// The type that the posted resource must have.
    pub resource: Option<&'p str>,
}

/// `None`: no path of ours.
pub(super) fn target(path: &str) -> Option<Target<'_>> {
    let rest = path.strip_prefix("/feeds/")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (feed, resource) = match rest.split_once('/') {
        Some((feed, resource)) => (feed, Some(resource)),
        None => (rest, None),
    };
    let is_type = |name: &str| (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphabetic());
    (!feed.is_empty() && resource.is_none_or(is_type)).then_some(Target { feed, resource })
}

/// The key of an `Idempotency-Key` header: a string in quotes, as the draft has it, or bare.
pub(super) fn key(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok()?.trim();
    let bare = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => text,
    };
    let plain = bare.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b','));
    ((1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&bare.len()) && plain).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_feed_and_perhaps_a_resource_type() {
        assert_eq!(target("/feeds/lab"), Some(Target { feed: "lab", resource: None }));
        assert_eq!(target("/feeds/lab/"), Some(Target { feed: "lab", resource: None }));
        assert_eq!(target("/feeds/lab/SupplyDelivery"), Some(Target { feed: "lab", resource: Some("SupplyDelivery") }));
        for other in ["/", "/feeds", "/feeds/", "/feed/lab", "/feeds/lab/Patient/7", "/feeds/lab/_history", "feeds/lab", "/feeds//Patient"]
        {
            assert_eq!(target(other), None, "{other}");
        }
    }

    #[test]
    fn a_key_is_a_short_text_in_quotes_or_bare() {
        assert_eq!(key(b"\"8e03978e-40d5\""), Some("8e03978e-40d5"));
        assert_eq!(key(b" 8e03978e-40d5 "), Some("8e03978e-40d5"));
        let long = "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX);
        assert_eq!(key(long.as_bytes()), Some(long.as_str()));
        for other in [&b""[..], b"\"\"", b"\"open", b"two words", b"a,b", "\u{e9}".as_bytes(), b"\xff", format!("{long}k").as_bytes()] {
            assert_eq!(key(other), None);
        }
    }
}
