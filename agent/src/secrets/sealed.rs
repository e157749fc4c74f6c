//! Secrets sealed to a gateway: anybody who has its public key can seal, only that gateway can open. Pure.
//!
//! ```text
//!   1 ‖ ephemeral X25519 key 32 ‖ XChaCha20-Poly1305(value) ‖ tag 16            in base64
//!   key = HKDF-SHA-256(salt: ephemeral ‖ gateway's key, shared secret, info: "siteward sealed secret v1" ‖ name)
//! ```
//!
//! Each sealing makes a key of its own, so the nonce may be constant. The name goes into the key: a sealed value under another name does not open,
//! nor does one that was sealed to another gateway, nor one with a changed byte.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::Value;
use crate::limits::{SECRET_BYTES_MAX, SECRET_SEALED_CHARS_MAX};
use crate::record::Nonce;
use crate::spool::key::{SEAL_BYTES, Sealer};

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const HEAD_BYTES: usize = 1 + KEY_BYTES;
const NONCE: Nonce = Nonce([0; 16]);

/// A gateway's public key, as it is shown and reported: base64 of 32 bytes.
pub fn public_key(secret: &Zeroizing<[u8; KEY_BYTES]>) -> String {
    BASE64_STANDARD.encode(PublicKey::from(&StaticSecret::from(**secret)).as_bytes())
}

/// The key from its text.
pub fn read_public_key(text: &str) -> Result<[u8; KEY_BYTES], &'static str> {
    let bytes = BASE64_STANDARD.decode(text.trim()).ok().and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
    bytes.ok_or("is not the key of a gateway; give the 44 characters that `siteward secret key` shows")
}

fn sealer(shared: &[u8], ephemeral: &PublicKey, gateway: &PublicKey, name: &str) -> Sealer {
    let salt = [ephemeral.as_bytes().as_slice(), gateway.as_bytes()].concat();
    let info = [b"siteward sealed secret v1".as_slice(), name.as_bytes()].concat();
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    Hkdf::<Sha256>::new(Some(&salt), shared).expand(&info, &mut *key).expect("32 bytes are a permitted length");
    Sealer::of(key)
}

/// Seals a value for the gateway with this key, under this name.
pub fn seal(gateway: &[u8; KEY_BYTES], name: &str, value: &[u8]) -> Result<String, &'static str> {
    if value.is_empty() || value.len() > SECRET_BYTES_MAX {
        return Err("the secret must have 1 to 16384 bytes");
    }
    let mut random = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(&mut *random).map_err(|_| "the system gives no random numbers")?;
    let secret = StaticSecret::from(*random);
    let (ephemeral, gateway) = (PublicKey::from(&secret), PublicKey::from(*gateway));
    let shared = secret.diffie_hellman(&gateway);
    if !shared.was_contributory() {
        return Err("this is not the key of a gateway; give the one that `siteward secret key` shows");
    }
    let mut sealed = Vec::with_capacity(HEAD_BYTES + value.len() + SEAL_BYTES);
    sealed.push(VERSION);
    sealed.extend_from_slice(ephemeral.as_bytes());
    sealed.extend_from_slice(value);
    let tag = sealer(shared.as_bytes(), &ephemeral, &gateway, name).seal(&NONCE, 0, &[VERSION], &mut sealed[HEAD_BYTES..]);
    sealed.extend_from_slice(&tag);
    Ok(BASE64_STANDARD.encode(sealed))
}

/// The bytes of a sealed value, as far as anybody can tell without the key. The error is the end of a sentence that begins with the key's name.
pub fn read(text: &str) -> Result<Vec<u8>, &'static str> {
    if text.len() > SECRET_SEALED_CHARS_MAX {
        return Err("is longer than a sealed secret can be (16384 bytes before sealing)");
    }
    let bytes = BASE64_STANDARD.decode(text).unwrap_or_default();
    let is_whole = bytes.first() == Some(&VERSION) && bytes.len() > HEAD_BYTES + SEAL_BYTES;
    if is_whole { Ok(bytes) } else { Err("is not a sealed secret; make it with `siteward-hub secret seal`") }
}

/// Opens a value with the gateway's own key.
pub fn open(secret: &Zeroizing<[u8; KEY_BYTES]>, name: &str, text: &str) -> Result<Value, &'static str> {
    let bytes = read(text)?;
    let foreign = "was not sealed to this gateway under this name; seal it again with the key that `siteward secret key` shows";
    let secret = StaticSecret::from(**secret);
    let (head, body) = bytes.split_at(HEAD_BYTES);
    let ephemeral = PublicKey::from(<[u8; KEY_BYTES]>::try_from(&head[1..]).expect("split at its length"));
    let shared = secret.diffie_hellman(&ephemeral);
    let (body, tag) = body.split_at(body.len() - SEAL_BYTES);
    let mut value = Zeroizing::new(body.to_vec());
    let sealer = sealer(shared.as_bytes(), &ephemeral, &PublicKey::from(&secret), name);
    let opened = sealer.open(&NONCE, 0, &[VERSION], &mut value, tag);
    if opened.is_err() || !shared.was_contributory() { Err(foreign) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Zeroizing<[u8; 32]> {
        Zeroizing::new([byte; 32])
    }

    #[test]
    fn only_the_gateway_it_was_sealed_to_opens_it_and_only_under_its_name() {
        let public = read_public_key(&public_key(&key(7))).unwrap();
        let text = seal(&public, "lab-key", b"hunter2").unwrap();
        assert_eq!(open(&key(7), "lab-key", &text).unwrap().as_slice(), b"hunter2");
        assert!(open(&key(8), "lab-key", &text).unwrap_err().contains("not sealed to this gateway"));
        assert!(open(&key(7), "lab-kez", &text).is_err());
        assert_ne!(text, seal(&public, "lab-key", b"hunter2").unwrap(), "every sealing is another");
        let bytes = BASE64_STANDARD.decode(&text).unwrap();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(open(&key(7), "lab-key", &BASE64_STANDARD.encode(&other)).is_err(), "byte {at}");
            assert!(open(&key(7), "lab-key", &BASE64_STANDARD.encode(&bytes[..at])).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn what_is_no_key_and_no_sealed_secret_is_refused_without_being_repeated() {
        for text in ["", "AAAA", "hunter2", &"A".repeat(SECRET_SEALED_CHARS_MAX + 4)] {
            let why = read(text).unwrap_err();
            assert!(!why.contains("hunter2") && open(&key(7), "n", text).is_err());
        }
        for text in ["", "AAAA", "hunter2"] {
            assert!(read_public_key(text).is_err());
        }
        let public = [7; 32];
        assert!(seal(&public, "n", b"").is_err() && seal(&public, "n", &vec![0; SECRET_BYTES_MAX + 1]).is_err());
        assert!(seal(&[0; 32], "n", b"x").is_err(), "a key of low order would let anybody open it");
    }
}
