//! DSSE v1 envelopes: reads one, within bounds, and says which bytes its signatures are over. Pure.
//!
//! ```text
//! {"payload": base64, "payloadType": text, "signatures": [{"keyid": text, "sig": base64}, …]}
//!
//! signed bytes = PAE(type, payload) = "DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload        LEN: decimal, in bytes
//! ```
//!
//! 1. [`read`] is called with bytes from anywhere (the broker, a file): size, nesting and number of signatures are bounded before anything is
//!    built, and nothing in the payload is looked at. Members that are not known are passed over, as the format asks; one that comes twice is
//!    refused. Base64 may be the standard or the url-safe alphabet, padded or not.
//! 2. `trust` verifies the signatures over [`pae`]. The payload type is among the signed bytes, so that what was signed as something else can
//!    never be taken for a document.

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::refusal::Refusal;
use crate::limits::{DOCUMENT_BYTES_MAX, ENVELOPE_DEPTH_MAX, ENVELOPE_SIGNATURES_MAX};

/// What a configuration document is signed as.
pub const DOCUMENT_TYPE: &str = "application/vnd.siteward.config.v1+toml";

/// An envelope as read: nothing in it is verified.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub payload_type: String,
    pub payload: Vec<u8>,
    pub signatures: Vec<Signature>,
}

#[derive(Debug)]
pub(crate) struct Signature {
    /// Lower case; empty where none was given.
    pub key_id: String,
    pub bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    payload: std::borrow::Cow<'a, str>,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WrittenSignature>,
}

#[derive(Deserialize)]
struct WrittenSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// Reads an envelope.
pub(crate) fn read(bytes: &[u8]) -> Result<Envelope, Refusal> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(Refusal::TooLarge { bytes: bytes.len() });
    }
    if depth(bytes) > ENVELOPE_DEPTH_MAX {
        return Err(Refusal::NotAnEnvelope { what: "its JSON is nested too deep" });
    }
    let written: Written<'_> = serde_json::from_slice(bytes).map_err(|error| Refusal::NotAnEnvelope { what: what(&error) })?;
    if written.signatures.len() > ENVELOPE_SIGNATURES_MAX {
        return Err(Refusal::NotAnEnvelope { what: "it carries more than 16 signatures" });
    }
    let payload = base64(&written.payload).ok_or(Refusal::NotAnEnvelope { what: "its payload is not base64" })?;
    let signature = |written: WrittenSignature| {
        let bytes = base64(&written.sig).ok_or(Refusal::NotAnEnvelope { what: "a signature in it is not base64" })?;
        Ok(Signature { key_id: written.keyid.to_ascii_lowercase(), bytes })
    };
    let signatures = written.signatures.into_iter().map(signature).collect::<Result<_, _>>()?;
    Ok(Envelope { payload_type: written.payload_type, payload, signatures })
}

/// In our own words: serde's would repeat what it read.
fn what(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Data => {
            "it is JSON without payload, payloadType or signatures, or with one of them twice or of another kind"
        }
        serde_json::error::Category::Eof => "it is JSON that ends too early",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is not JSON",
    }
}

/// How deep brackets are nested outside of strings.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let engine = |alphabet: &Alphabet| {
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        GeneralPurpose::new(alphabet, config).decode(text).ok()
    };
    engine(&STANDARD).or_else(|| engine(&URL_SAFE))
}

/// The bytes that are signed.
pub(crate) fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Writes an envelope; each signature with the id of its key. For whoever signs.
#[cfg(any(test, feature = "hub"))]
pub(crate) fn write(payload_type: &str, payload: &[u8], signatures: &[(String, Vec<u8>)]) -> String {
    use base64::prelude::BASE64_STANDARD;
    let signatures: Vec<serde_json::Value> =
        signatures.iter().map(|(id, sig)| serde_json::json!({ "keyid": id, "sig": BASE64_STANDARD.encode(sig) })).collect();
    let envelope = serde_json::json!({ "payloadType": payload_type, "payload": BASE64_STANDARD.encode(payload), "signatures": signatures });
    format!("{envelope}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    /// The example of the DSSE protocol page: its envelope, its key (ECDSA P-256) and its signed bytes.
    #[test]
    fn the_vector_of_the_dsse_specification_is_read_and_verifies() {
        let text = r#"{
            "payload": "aGVsbG8gd29ybGQ=",
            "payloadType": "http://example.com/HelloWorld",
            "signatures": [{"sig": "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]
        }"#;
        let envelope = read(text.as_bytes()).unwrap();
        assert_eq!(envelope.payload, b"hello world");
        let signed = pae(&envelope.payload_type, &envelope.payload);
        assert_eq!(signed, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        let x = "46950820868899156662930047687818585632848591499744589407958293238635476079160";
        let y = "5640078356564379163099075877009565129882514886557779369047442380624545832820";
        let mut key = vec![4];
        key.extend(decimal(x));
        key.extend(decimal(y));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(&signed, &envelope.signatures[0].bytes).unwrap();
    }

    fn decimal(digits: &str) -> [u8; 32] {
        let mut number = [0_u8; 32];
        for digit in digits.bytes() {
            let mut carry = u32::from(digit - b'0');
            for byte in number.iter_mut().rev() {
                carry += u32::from(*byte) * 10;
                *byte = carry as u8;
                carry >>= 8;
            }
        }
        number
    }

    #[test]
    fn base64_is_taken_in_both_alphabets_and_with_or_without_padding() {
        for text in ["+/+/+w==", "-_-_-w==", "+/+/+w", "-_-_-w"] {
            assert_eq!(base64(text).unwrap(), [0xFB, 0xFF, 0xBF, 0xFB], "{text}");
        }
        for text in ["+/-_", "+/+/+x==", "a", "AA=A", "AA AA", "AAAA\n"] {
            assert_eq!(base64(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_an_envelope_is_refused_with_the_reason() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let many = format!("{{\"payload\":\"\",\"payloadType\":\"\",\"signatures\":[{}]}}", vec!["{\"sig\":\"\"}"; 17].join(","));
        for (bytes, part) in [
            ("", "ends too early"),
            ("[document]\nrevision = 1\n", "not JSON"),
            ("{\"payload\":\"\"}", "without payload"),
            ("{\"payload\":\"\",\"payload\":\"\",\"payloadType\":\"\",\"signatures\":[]}", "twice"),
            ("{\"payload\":\"*\",\"payloadType\":\"\",\"signatures\":[]}", "payload is not base64"),
            ("{\"payload\":\"\",\"payloadType\":\"\",\"signatures\":[{\"sig\":\"*\"}]}", "signature in it is not base64"),
            ("{\"payload\":\"\",\"payloadType\":\"\",\"signatures\":[]} {}", "not JSON"),
            (&deep, "nested too deep"),
            (&many, "more than 16"),
        ] {
            let refusal = read(bytes.as_bytes()).unwrap_err();
            assert_eq!(refusal.code(), "not_an_envelope");
            assert!(refusal.to_string().contains(part), "{part}: {refusal}");
        }
        assert_eq!(read(&vec![b' '; DOCUMENT_BYTES_MAX + 1]).unwrap_err(), Refusal::TooLarge { bytes: DOCUMENT_BYTES_MAX + 1 });
    }

    #[test]
    fn unknown_members_are_passed_over_and_brackets_in_text_do_not_count() {
        let text = r#"{"payload":"AAAA","payloadType":"[[[[[[[[[[\"[","signatures":[{"sig":"","note":{"a":1}}],"more":[{"x":[1]}]}"#;
        assert_eq!(read(text.as_bytes()).unwrap().payload, [0, 0, 0]);
    }
}
