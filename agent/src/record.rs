//! What everything else talks about: names, identities, digests, and the bytes nobody may print.
//!
//! A **record** is a message made durable. Its identity is `{gateway}/{feed}/{incarnation}/{seq}` (I8): `seq` counts per feed without gaps,
//! and every opening of the spool for append is a new random `incarnation`, so an identity cannot come up twice even when a spool is restored
//! from an old image or cloned. Completeness is proven by a hash chain per feed:
//!
//! ```text
//! digest_n = SHA-256(nonce16 ‖ body)
//! chain_n  = SHA-256(chain_{n-1} ‖ seq as u64 big-endian ‖ digest_n)        chain_0 = 32 zero bytes
//! ```
//!
//! The nonce keeps a short body from being guessed from its digest; it travels only where the body does.
//!
//! `Payload` holds message bytes. It has no `Display` and its `Debug` shows a length (I7).

mod origin;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use self::origin::{Content, FileOrigin, FilePlace, FileProgress, HttpOrigin, Origin};
use crate::limits::NAME_BYTES_MAX;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: 1 to 63 of a-z, 0-9 and -")]
pub struct NameError(pub String);

fn checked_name(name: &str) -> Result<Arc<str>, NameError> {
    let ok =
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if ok { Ok(Arc::from(name)) } else { Err(NameError(name.chars().take(80).collect())) }
}

/// A site, gateway or feed name: `[a-z0-9-]{1,63}`; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// The id of a feed.
pub type FeedId = Name;

impl Name {
    pub fn new(name: &str) -> Result<Self, NameError> {
        checked_name(name).map(Self)
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(&name)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.to_string()
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Share and priority class of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    Critical,
    Normal,
    Bulk,
}

impl Lane {
    /// All lanes, most urgent first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Normal, Self::Bulk];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }
    /// Position in [`Lane::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a feed stands in its life; carried on every event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Test,
    Shadow,
    Live,
}

impl Stage {
    pub const ALL: [Self; 3] = [Self::Test, Self::Shadow, Self::Live];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Shadow => "shadow",
            Self::Live => "live",
        }
    }
}

macro_rules! bytes_as_hex {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let mut text = [0; 2 * $len];
                for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
                    pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
                }
                f.write_str(std::str::from_utf8(&text).expect("hexadecimal digits are ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = HexError;
            fn from_str(text: &str) -> Result<Self, HexError> {
                let mut out = [0u8; $len];
                unhex(text, &mut out)?;
                Ok(Self(out))
            }
        }

        // Text where people read (JSON), plain bytes where they do not (postcard).
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; $len]>::deserialize(d).map(Self)
                }
            }
        }
    };
}

/// A text that should have been hexadecimal digits of a certain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the expected number of hexadecimal digits")]
pub struct HexError;

fn unhex(text: &str, out: &mut [u8]) -> Result<(), HexError> {
    if text.len() != out.len() * 2 || !text.is_ascii() {
        return Err(HexError);
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |b: u8| char::from(b).to_digit(16).ok_or(HexError);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Ok(())
}

bytes_as_hex!(
    /// One opening of the spool for append: 128 random bits, 32 hexadecimal digits.
    Incarnation,
    16
);
bytes_as_hex!(
    /// Random bytes that go into a record's digest.
    Nonce,
    16
);
bytes_as_hex!(
    /// SHA-256 over nonce and body of a record.
    Digest,
    32
);
bytes_as_hex!(
    /// The chain value of a feed at a seq.
    Chain,
    32
);
bytes_as_hex!(
    /// What identifies a file: SHA-256 of path below the feed's directory, size, time of change, and digest of the content.
    FileFingerprint,
    32
);
bytes_as_hex!(
    /// SHA-256 over the text of a configuration document.
    DocumentDigest,
    32
);

impl DocumentDigest {
    pub fn of(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }
}

impl Digest {
    pub fn of(nonce: &Nonce, body: &[u8]) -> Self {
        Self(Sha256::new().chain_update(nonce.0).chain_update(body).finalize().into())
    }
}

impl Chain {
    /// Before the first record of a feed.
    pub const GENESIS: Self = Self([0; 32]);

    /// The chain value after `seq`.
    #[must_use]
    pub fn after(&self, seq: u64, digest: &Digest) -> Self {
        let mut input = [0; 72];
        input[..32].copy_from_slice(&self.0);
        input[32..40].copy_from_slice(&seq.to_be_bytes());
        input[40..].copy_from_slice(&digest.0);
        Self(Sha256::digest(input).into())
    }
}

/// A place in a feed's history: the record `seq` made durable by `incarnation`, and the chain there. `seq` 0 is "before the first record".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub incarnation: Incarnation,
    pub seq: u64,
    pub chain: Chain,
}

/// How an incarnation is tied to the one before, for one feed: its first record there is `follows.seq + 1`.
/// `None`: the feed's first record ever is this incarnation's seq 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub incarnation: Incarnation,
    pub follows: Option<Position>,
}

impl Link {
    /// The seq before this incarnation's first.
    pub fn base_seq(&self) -> u64 {
        self.follows.map_or(0, |p| p.seq)
    }
    /// The chain before this incarnation's first record.
    pub fn base_chain(&self) -> Chain {
        self.follows.map_or(Chain::GENESIS, |p| p.chain)
    }
}

/// Message bytes. Never shown: `Debug` gives the length (I7).
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }
    /// The bytes, for the few places that store, seal, send or scan them.
    pub fn expose(&self) -> &Bytes {
        &self.0
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

/// What a sender sent, on its way to the journal.
#[derive(Clone, Debug)]
pub struct Message {
    pub feed: FeedId,
    /// The sender's identity of it (MSH-3, MSH-4, MSH-10), where it has one; without it nothing is ever taken for a duplicate.
    pub identity: Option<MessageIdentity>,
    pub body: Payload,
    /// The positive answer, stored with the record so that a duplicate gets the same one again. Empty where none is due.
    pub reply: Payload,
    pub origin: Origin,
    pub received_at_ms: i64,
    pub clock_suspect: bool,
    /// The feed's when the message came; `test` whatever the feed's is where MSH-11 says that it is not for production.
    pub stage: Stage,
    /// A batch whose counts do not add up, or without its end.
    pub batch_mismatch: bool,
}

/// MSH-3, MSH-4 and MSH-10 as received, byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageIdentity {
    pub application: Bytes,
    pub facility: Bytes,
    pub control_id: Bytes,
}

impl fmt::Debug for MessageIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageIdentity")
    }
}

/// A record as read back from the journal.
#[derive(Clone, Debug)]
pub struct Record {
    pub feed: FeedId,
    pub incarnation: Incarnation,
    pub seq: u64,
    pub digest: Digest,
    pub chain: Chain,
    pub nonce: Nonce,
    /// MSH-10, cut to 199 bytes; empty where there was none.
    pub control_id: Bytes,
    pub origin: Origin,
    pub received_at_ms: i64,
    pub clock_suspect: bool,
    /// Same sender identity as an earlier record, other body.
    pub control_id_reused: bool,
    /// As in [`Message`].
    pub stage: Stage,
    pub batch_mismatch: bool,
    /// The earlier record of the same message, where this one was let in as a deliberate resend.
    pub resend_of: Option<u64>,
    pub body: Payload,
}

/// `{gateway}/{feed}/{incarnation}/{seq}`.
pub fn record_id(gateway: &Name, feed: &FeedId, incarnation: Incarnation, seq: u64) -> String {
    format!("{gateway}/{feed}/{incarnation}/{seq}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_letters_digits_and_hyphens() {
        assert!(Name::new("or-usage-2").is_ok());
        for bad in ["", "A", "a b", "ä", "a/b", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    /// I7: message bytes cannot be printed by accident.
    #[test]
    fn a_payload_shows_only_its_length() {
        let payload = Payload::new(Bytes::from_static(b"PID|1||CANARY"));
        assert_eq!(format!("{payload:?}"), "[13 bytes]");
    }

    #[test]
    fn the_chain_is_as_the_contract_says() {
        let nonce = Nonce([7; 16]);
        let digest = Digest::of(&nonce, b"body");
        let by_hand: [u8; 32] = Sha256::digest([&[7u8; 16][..], b"body"].concat()).into();
        assert_eq!(digest.0, by_hand);
        let chain = Chain::GENESIS.after(1, &digest);
        let by_hand: [u8; 32] = Sha256::digest([&[0u8; 32][..], &1u64.to_be_bytes(), &digest.0].concat()).into();
        assert_eq!(chain.0, by_hand);
    }

    #[test]
    fn hexadecimal_goes_there_and_back() {
        let id = Incarnation([0xAB; 16]);
        assert_eq!(id.to_string().parse::<Incarnation>(), Ok(id));
        assert!("zz".parse::<Incarnation>().is_err());
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<Incarnation>(&json).unwrap(), id);
    }
}
