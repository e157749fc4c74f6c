//! The bundle: one signed file that makes a gateway of a box. Pure.
//!
//! A DSSE envelope over JSON. It carries the anchors by which it is verified, so a good signature says only that nothing was changed since whoever
//! holds those keys made it; [`Opened::is_signed_by`] is what a person has to answer for. It holds a secret and a private key (for enrolment only):
//! neither is in any Debug.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::envelope;
use crate::config::trust::{Anchor, Anchors};
use crate::limits::{BUNDLE_BYTES_MAX, FINGERPRINT_DIGITS_MIN, SUBJECT_CHARS_MAX, TRUST_KEYS_MAX};
use crate::record::Name;

/// What a bundle is signed as.
pub const BUNDLE_TYPE: &str = "application/vnd.siteward.enrolment.v1+json";
/// Of the bundle's JSON.
pub const SCHEMA: u32 = 1;

/// Whose signatures the gateway will take: public keys in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    pub keys: Vec<String>,
    pub threshold: usize,
    #[serde(default)]
    pub recovery_keys: Vec<String>,
    #[serde(default = "one")]
    pub recovery_threshold: usize,
    #[serde(default)]
    pub command_keys: Vec<String>,
    #[serde(default = "one")]
    pub command_threshold: usize,
}

fn one() -> usize {
    1
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    pub schema: u32,
    /// 32 hex digits.
    pub bundle: String,
    pub site: Name,
    pub gateway: Name,
    pub timezone: String,
    /// By which documents may mean it among others.
    #[serde(default)]
    pub groups: Vec<Name>,
    /// `mqtts://host:port`, in order of preference.
    pub endpoints: Vec<String>,
    /// The way out where nothing leaves except through an HTTP proxy: `http://host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The name of a secret (`user:password`) for it; the secret itself is never in a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_credential: Option<String>,
    /// Who issued the broker's certificate.
    pub ca_pem: String,
    pub trust: Trust,
    /// The common name that the gateway's certificate is to have.
    pub subject: String,
    /// Who will issue the gateway's certificate, where that is known beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_pem: Option<String>,
    /// 64 hex digits.
    pub secret: String,
    /// For enrolment only.
    pub enrolment_cert_pem: String,
    pub enrolment_key_pem: String,
    /// Seconds since 1970.
    pub issued_at: i64,
    pub not_after: i64,
    /// The bundle of the box that this one takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({} for {}/{})", self.bundle, self.site, self.gateway)
    }
}

impl Bundle {
    /// The secret, which only bundle and desk know.
    pub fn secret(&self) -> Option<Zeroizing<[u8; 32]>> {
        unhex(&self.secret).map(Zeroizing::new)
    }

    /// What every part is checked for; the error is a sentence.
    pub fn check(&self) -> Result<(), &'static str> {
        let is_hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let lists = [&self.trust.keys, &self.trust.recovery_keys, &self.trust.command_keys];
        if self.schema != SCHEMA {
            Err("it is of another version than this program knows; update siteward on this box")
        } else if !is_hex(&self.bundle, 32) || !is_hex(&self.secret, 64) || self.replaces.as_deref().is_some_and(|id| !is_hex(id, 32)) {
            Err("its id or secret is not as it has to be; ask central IT for a new one")
        } else if self.endpoints.is_empty() || self.endpoints.iter().any(|url| !url.starts_with("mqtts://")) {
            Err("it names no broker, or one without TLS; ask central IT for a new one")
        } else if !fits_subject(&self.subject) {
            Err("the name for the certificate in it cannot be used; ask central IT for a new one")
        } else if lists.iter().any(|list| list.len() > TRUST_KEYS_MAX) {
            Err("it lists more keys than a gateway takes; ask central IT for a new one")
        } else {
            Ok(())
        }
    }
}

/// Whether this can be a common name: it is a line in files of brokers too.
pub fn fits_subject(name: &str) -> bool {
    (1..=SUBJECT_CHARS_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// A bundle that is whole, with who signed it.
#[derive(Clone, Debug)]
pub struct Opened {
    pub bundle: Bundle,
    /// Ids of the keys that signed, of those it lists itself.
    pub signers: Vec<String>,
}

impl Opened {
    /// Whether a fingerprint that somebody typed is that of a key that signed. Blanks and colons do not count; the beginning is enough.
    pub fn is_signed_by(&self, typed: &str) -> Result<bool, String> {
        let digits: String =
            typed.chars().filter(|c| !c.is_whitespace() && !matches!(c, ':' | '-')).collect::<String>().to_ascii_lowercase();
        if digits.len() < FINGERPRINT_DIGITS_MIN || digits.len() > 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!(
                "a fingerprint has {FINGERPRINT_DIGITS_MIN} to 64 digits 0-9 and a-f; type it as central IT gave it to you"
            ));
        }
        Ok(self.signers.iter().any(|id| id.starts_with(&digits)))
    }
}

/// A fingerprint as people compare it.
pub fn grouped(id: &str) -> String {
    id.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group)).collect::<Vec<_>>().join(" ")
}

/// Reads a bundle and verifies that enough of the keys it lists signed it. The error is a sentence.
pub fn open(bytes: &[u8]) -> Result<Opened, String> {
    if bytes.len() > BUNDLE_BYTES_MAX {
        return Err(format!("is no bundle: it has more than {BUNDLE_BYTES_MAX} bytes"));
    }
    let foreign = "is no enrolment bundle, or a part of one; copy the file again, as central IT sent it";
    let envelope = envelope::read(bytes).map_err(|_| foreign.to_owned())?;
    if envelope.payload_type != BUNDLE_TYPE {
        return Err("is signed as something else than an enrolment bundle; ask central IT for the right file".to_owned());
    }
    let bundle: Bundle = serde_json::from_slice(&envelope.payload).map_err(|_| foreign.to_owned())?;
    bundle.check().map_err(|why| format!("cannot be used: {why}"))?;
    let read = |pem: &String| Anchor::from_pem(pem.as_bytes()).map_err(|why| format!("cannot be used: a key in it {why}"));
    let keys: Vec<Anchor> = bundle.trust.keys.iter().map(read).collect::<Result<_, _>>()?;
    let by = |keys: Vec<Anchor>, threshold| Anchors::of(keys, threshold, Vec::new(), 1).verify(bytes, BUNDLE_TYPE);
    by(keys.clone(), bundle.trust.threshold.max(1)).map_err(|_| {
        "was changed since it was signed, or too few of the keys it lists signed it; do not use it, and tell central IT".to_owned()
    })?;
    let signers = keys.iter().filter(|key| by(vec![(*key).clone()], 1).is_ok()).map(|key| key.id().to_owned()).collect();
    Ok(Opened { bundle, signers })
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// The other way round, for as many bytes as are wanted.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0_u8; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::config::trust;

    pub(crate) fn bundle(key: &Ed25519KeyPair) -> Bundle {
        let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
        Bundle {
            schema: SCHEMA,
            bundle: "0123456789abcdef0123456789abcdef".into(),
            site: Name::new("st-marys").unwrap(),
            gateway: Name::new("st-marys-gw1").unwrap(),
            timezone: "America/New_York".into(),
            groups: vec![Name::new("east").unwrap()],
            endpoints: vec!["mqtts://hub.example.org:8883".into()],
            proxy: None,
            proxy_credential: None,
            ca_pem: "ca".into(),
            trust: Trust { keys: vec![trust::to_pem(&public)], threshold: 1, ..Trust::default() },
            subject: "st-marys.st-marys-gw1.01234567".into(),
            issuer_pem: None,
            secret: "11".repeat(32),
            enrolment_cert_pem: "cert".into(),
            enrolment_key_pem: "key".into(),
            issued_at: 1_800_000_000,
            not_after: 1_801_000_000,
            replaces: None,
        }
    }

    pub(crate) fn key() -> Ed25519KeyPair {
        Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref()).unwrap()
    }

    pub(crate) fn signed(bundle: &Bundle, key: &Ed25519KeyPair) -> String {
        let payload = serde_json::to_vec(bundle).unwrap();
        let signature = key.sign(&envelope::pae(BUNDLE_TYPE, &payload)).as_ref().to_vec();
        let id = trust::key_id(&key.public_key().as_ref().try_into().unwrap());
        envelope::write(BUNDLE_TYPE, &payload, &[(id, signature)])
    }

    #[test]
    fn a_bundle_is_opened_as_it_was_signed_and_not_after_any_change() {
        let key = key();
        let text = signed(&bundle(&key), &key);
        let opened = open(text.as_bytes()).unwrap();
        assert_eq!(opened.bundle, bundle(&key));
        let id = &opened.signers[0];
        assert_eq!(opened.is_signed_by(&grouped(id)), Ok(true));
        assert_eq!(opened.is_signed_by(&id[..20].to_uppercase()), Ok(true));
        assert_eq!(opened.is_signed_by(&"0".repeat(20)), Ok(false));
        assert!(opened.is_signed_by(&id[..19]).is_err());
        assert!(!format!("{opened:?}").contains("1111"), "no secret is shown");
        let payload = serde_json::to_string(&bundle(&key)).unwrap();
        let other = payload.replace("st-marys-gw1", "st-marys-gw2");
        let envelope = envelope::read(text.as_bytes()).unwrap();
        let tampered = envelope::write(BUNDLE_TYPE, other.as_bytes(), &[(id.clone(), envelope.signatures[0].bytes.clone())]);
        assert!(open(tampered.as_bytes()).unwrap_err().contains("was changed"));
        for cut in (0..text.len() - 2).step_by(97) {
            assert!(open(&text.as_bytes()[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_bundle_that_others_signed_or_that_a_gateway_could_not_use_is_refused() {
        let (key, other) = (key(), self::key());
        assert!(open(signed(&bundle(&key), &other).as_bytes()).unwrap_err().contains("too few"));
        let mut two = bundle(&key);
        two.trust.threshold = 2;
        assert!(open(signed(&two, &key).as_bytes()).is_err(), "one of two");
        for spoil in [
            (|b: &mut Bundle| b.schema = 2) as fn(&mut Bundle),
            |b| b.bundle = "../../../etc".into(),
            |b| b.endpoints = vec!["mqtt://hub.example.org".into()],
            |b| b.endpoints.clear(),
            |b| b.subject = "gw1\ntopic readwrite #".into(),
            |b| b.secret = "12".into(),
        ] {
            let mut bad = bundle(&key);
            spoil(&mut bad);
            assert!(open(signed(&bad, &key).as_bytes()).unwrap_err().contains("cannot be used"));
        }
    }
}
