//! What a box and the desk say to each other during enrolment, and how each proves that it knows the bundle's secret. Pure.
//!
//! ```text
//!   verifier = HMAC-SHA256(secret, "siteward enrolment verifier 1")       the desk keeps this, never the secret
//!   request  = HMAC-SHA256(verifier, "request",  bundle, site, gateway, CSR)
//!   answer   = HMAC-SHA256(verifier, "answer",   bundle, site, gateway, key, outcome, chain, code, why)
//!   parts are length-prefixed; key = SHA-256 of the public key that the CSR asks for, in hex
//! ```
//!
//! Both are retained, under a topic that names the key: neither side has to be there when the other is, and a second box with a copy of the bundle
//! can neither hide the first one's answer nor hear another than its own. Whoever reads the desk's state could prove itself too, but needs the enrolment
//! certificate, which only the bundle has.

use hmac::{Hmac, KeyInit as _, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::bundle::{hex, unhex};
use crate::contract::topic::ROOT;
use crate::record::Name;

/// Digits of the key's print in a topic.
const PRINT_DIGITS: usize = 16;

/// What proves knowledge of a secret, without being it. Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Verifier([u8; 32]);

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

impl TryFrom<String> for Verifier {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        unhex(&text).map(Self).ok_or("is not 64 hex digits")
    }
}

impl From<Verifier> for String {
    fn from(verifier: Verifier) -> Self {
        hex(&verifier.0)
    }
}

/// Who enrols as whom.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub bundle: &'a str,
    pub site: &'a Name,
    pub gateway: &'a Name,
}

impl Verifier {
    pub fn of(secret: &[u8; 32]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
        mac.update(b"siteward enrolment verifier 1");
        Self(mac.finalize().into_bytes().into())
    }

    fn mac(&self, label: &str, about: About<'_>, parts: &[&str]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in [label, about.bundle, about.site.as_str(), about.gateway.as_str()].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }
}

/// From the box: a request for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub schema: u32,
    pub bundle: String,
    /// PKCS #10, PEM.
    pub csr: String,
    /// 64 hex digits.
    pub proof: String,
}

impl Request {
    pub fn new(verifier: &Verifier, about: About<'_>, csr: String) -> Self {
        let proof = hex(&verifier.mac("request", about, &[&csr]).finalize().into_bytes());
        Self { schema: 1, bundle: about.bundle.to_owned(), csr, proof }
    }

    pub fn is_proven(&self, verifier: &Verifier, about: About<'_>) -> bool {
        let proof = unhex::<32>(&self.proof);
        proof.is_some_and(|proof| verifier.mac("request", about, &[&self.csr]).verify_slice(&proof).is_ok())
    }
}

/// From the desk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Issued {
        /// The certificate and its intermediates, PEM.
        chain: String,
    },
    /// The certificate comes from an authority elsewhere, later.
    Waiting {},
    Refused {
        /// Stable, for programs.
        code: String,
        /// A sentence.
        why: String,
    },
}

impl Outcome {
    fn parts(&self) -> [&str; 4] {
        match self {
            Self::Issued { chain } => ["issued", chain, "", ""],
            Self::Waiting {} => ["waiting", "", "", ""],
            Self::Refused { code, why } => ["refused", "", code, why],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub schema: u32,
    pub bundle: String,
    /// The print of the key that was asked for.
    pub key: String,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// 64 hex digits.
    pub proof: String,
}

impl Answer {
    pub fn new(verifier: &Verifier, about: About<'_>, key: &str, outcome: Outcome) -> Self {
        let proof = hex(&Self::mac(verifier, about, key, &outcome).finalize().into_bytes());
        Self { schema: 1, bundle: about.bundle.to_owned(), key: key.to_owned(), outcome, proof }
    }

    fn mac(verifier: &Verifier, about: About<'_>, key: &str, outcome: &Outcome) -> Hmac<Sha256> {
        let [kind, chain, code, why] = outcome.parts();
        verifier.mac("answer", about, &[key, kind, chain, code, why])
    }

    /// Whether the desk says this to this key.
    pub fn is_proven(&self, verifier: &Verifier, about: About<'_>, key: &str) -> bool {
        let proof = unhex::<32>(&self.proof);
        self.bundle == about.bundle
            && self.key == key
            && proof.is_some_and(|proof| Self::mac(verifier, about, key, &self.outcome).verify_slice(&proof).is_ok())
    }
}

/// The print of a public key.
pub fn print_of(public_key: &[u8]) -> String {
    hex(&Sha256::digest(public_key))
}

/// Where a box asks.
pub fn request_topic(about: About<'_>, key: &str) -> String {
    format!("{ROOT}/{}/{}/enrol/request/{}", about.site, about.gateway, short(key))
}

/// Where it is answered.
pub fn answer_topic(site: &Name, gateway: &Name, key: &str) -> String {
    format!("{ROOT}/{site}/{gateway}/enrol/answer/{}", short(key))
}

/// Where the desk hears all of them.
pub fn requests_filter() -> String {
    format!("{ROOT}/+/+/enrol/request/+")
}

/// Whose request a topic is for, and for which key.
pub fn read_topic(topic: &str) -> Option<(Name, Name, &str)> {
    let mut levels = topic.strip_prefix(ROOT)?.strip_prefix('/')?.split('/');
    let (site, gateway) = (Name::new(levels.next()?).ok()?, Name::new(levels.next()?).ok()?);
    let fits = levels.next() == Some("enrol") && levels.next() == Some("request");
    let key = levels.next()?;
    (fits && levels.next().is_none()).then_some((site, gateway, key))
}

/// As much of a key's print as a topic holds.
pub fn short(key: &str) -> &str {
    key.get(..PRINT_DIGITS).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_proves_every_part_of_what_it_says() {
        let (site, gateway, other) = (Name::new("s").unwrap(), Name::new("g").unwrap(), Name::new("h").unwrap());
        let (right, wrong) = (Verifier::of(&[1; 32]), Verifier::of(&[2; 32]));
        let about = About { bundle: "b", site: &site, gateway: &gateway };
        let request = Request::new(&right, about, "csr".into());
        assert!(request.is_proven(&right, about) && !request.is_proven(&wrong, about));
        assert!(!request.is_proven(&right, About { gateway: &other, ..about }));
        assert!(!Request { csr: "csR".into(), ..request.clone() }.is_proven(&right, about));
        assert!(!Request { proof: String::new(), ..request }.is_proven(&right, about));
        let refused = Outcome::Refused { code: "used".into(), why: "because".into() };
        for outcome in [Outcome::Issued { chain: "pem".into() }, Outcome::Waiting {}, refused] {
            let answer = Answer::new(&right, about, "key", outcome);
            let read: Answer = serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap();
            assert_eq!(read, answer);
            assert!(read.is_proven(&right, about, "key") && !read.is_proven(&right, about, "kez"));
            let other = Outcome::Refused { code: "used".into(), why: "Because".into() };
            assert!(!Answer { outcome: other, ..answer }.is_proven(&right, about, "key"));
        }
        assert!(!format!("{right:?}").contains('1'));
    }

    #[test]
    fn a_topic_says_whose_request_it_is() {
        let (site, gateway) = (Name::new("s").unwrap(), Name::new("g").unwrap());
        let print = print_of(b"key");
        let topic = request_topic(About { bundle: "b", site: &site, gateway: &gateway }, &print);
        assert_eq!(read_topic(&topic), Some((site, gateway, &print[..16])));
        for other in ["siteward/v1/s/g/enrol/answer/1", "siteward/v1/s/g/enrol/request", "siteward/v1/s/g/enrol/request/1/2", "x"] {
            assert_eq!(read_topic(other), None, "{other}");
        }
    }
}
