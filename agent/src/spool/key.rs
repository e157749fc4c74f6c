//! The spool key and what is derived from it.
//!
//! One secret of 32 bytes per spool. From it come, by HKDF-SHA-256, a subkey per segment (so that two segments never share a key and a nonce)
//! and a key for fingerprints (so that the state database cannot be searched by guessing messages). Bodies are sealed with
//! XChaCha20-Poly1305; the record header is associated data; the 24-byte nonce is the record's random 16 bytes and its offset in the segment.
//! It is put together of its two parts, HChaCha20 (a key for each body) and ChaCha20-Poly1305, so that the second can be the one that is written
//! for the machine: bodies are short, and sealing them is most of what a record costs.
//! A place in a segment is written at most once, so a nonce is used at most once even if the random bytes were bad.
//!
//! `auto` keeps the key beside the spool (`spool.key`, mode 0600): that protects a disk that is sent in for repair without the file, not a
//! stolen box; the condition `spool_key_beside_spool` says so.

use std::path::{Path, PathBuf};

use chacha20::{R20, hchacha};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce as ShortNonce, Tag, UnboundKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::disk::Disk;
use super::format::SegmentId;
use super::small;
use crate::config::settings::KeySource;
use crate::record::{FeedId, MessageIdentity, Nonce};

/// Bytes the seal adds to a body.
pub const SEAL_BYTES: usize = 16;
const KEY_FILE: &str = "spool.key";
const KEY_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the spool key {path}: {source}; check that the file exists and belongs to the service's user")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot make the spool key {path}: {source}; check that the spool directory is writable")]
    Make { path: PathBuf, source: std::io::Error },
    #[error("the spool key {path} is damaged or not a key; restore it from its backup, without it the stored messages cannot be read")]
    Damaged { path: PathBuf },
    #[error(
        "the spool key is a systemd credential `{0}`, but CREDENTIALS_DIRECTORY is not set; add LoadCredentialEncrypted={0} to the unit"
    )]
    NoCredentials(String),
    #[error("no random numbers from the system: {0}")]
    Random(#[from] getrandom::Error),
}

/// The secret, and the operations that need it.
pub struct SpoolKey {
    secret: Zeroizing<[u8; KEY_BYTES]>,
    fingerprint: Zeroizing<[u8; KEY_BYTES]>,
}

impl std::fmt::Debug for SpoolKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpoolKey")
    }
}

/// Two keyed hashes of a message: who it says it is, and the whole of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint {
    pub identity: [u8; 16],
    pub body: [u8; 16],
}

impl SpoolKey {
    pub fn from_bytes(secret: [u8; KEY_BYTES]) -> Self {
        let secret = Zeroizing::new(secret);
        let mut fingerprint = Zeroizing::new([0u8; KEY_BYTES]);
        expand(&secret, b"siteward fingerprint v1", &mut *fingerprint);
        Self { secret, fingerprint }
    }

    /// Reads the key, or makes it where the source is `auto` and the spool is new. The second value is true where the key lies beside the spool.
    pub fn load(source: &KeySource, spool: &Path, spool_is_new: bool, disk: &dyn Disk) -> Result<(Self, bool), KeyError> {
        match source {
            KeySource::Auto => {
                let path = spool.join(KEY_FILE);
                let known = match read_key_file(disk, &path) {
                    Err(KeyError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound && spool_is_new => None,
                    Err(KeyError::Damaged { .. }) if spool_is_new => None,
                    other => Some(other?),
                };
                match known {
                    // As long as nothing is sealed with it, a key that was read may stand in the page cache only: it is written once more.
                    Some(key) if spool_is_new => make_key_file(disk, &path, Some(&key)),
                    Some(key) => Ok(key),
                    None => make_key_file(disk, &path, None),
                }
                .map(|key| (key, true))
            }
            KeySource::Credential(name) => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| KeyError::NoCredentials(name.clone()))?;
                read_secret_file(&Path::new(&directory).join(name)).map(|key| (key, false))
            }
            KeySource::File(path) => read_secret_file(path).map(|key| (key, false)),
        }
    }

    /// A short value that tells whether this is the key a spool was written with.
    pub fn check_value(&self) -> [u8; 8] {
        let mut out = [0u8; 8];
        expand(&self.secret, b"siteward key check v1", &mut out);
        out
    }

    pub fn sealer(&self, segment: &SegmentId) -> Sealer {
        let mut subkey = Zeroizing::new([0u8; KEY_BYTES]);
        let info = [&b"siteward segment v1 "[..], &segment.0].concat();
        expand(&self.secret, &info, &mut *subkey);
        Sealer(subkey)
    }

    /// Seals what the site sets locally (`secrets`); a place in this sealer is a random number, used once.
    pub fn secrets(&self) -> Sealer {
        let mut subkey = Zeroizing::new([0u8; KEY_BYTES]);
        expand(&self.secret, b"siteward secrets v1", &mut *subkey);
        Sealer(subkey)
    }

    /// The gateway's own X25519 key, to whose public half secrets are sealed (`secrets::sealed`): as old as the spool, and as lasting.
    pub fn exchange(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut key = Zeroizing::new([0u8; KEY_BYTES]);
        expand(&self.secret, b"siteward x25519 v1", &mut *key);
        key
    }

    pub fn fingerprint(&self, feed: &FeedId, identity: &MessageIdentity, body: &[u8]) -> Fingerprint {
        let mac = Hmac::<Sha256>::new_from_slice(&*self.fingerprint).expect("HMAC takes a key of any length");
        let mut who = mac.clone();
        for part in [feed.as_str().as_bytes(), &identity.application, &identity.facility, &identity.control_id] {
            who.update(&(part.len() as u64).to_be_bytes());
            who.update(part);
        }
        let mut whole = mac;
        whole.update(body);
        Fingerprint { identity: first_half(&who.finalize().into_bytes().into()), body: first_half(&whole.finalize().into_bytes().into()) }
    }
}

fn first_half(hash: &[u8; 32]) -> [u8; 16] {
    let mut half = [0u8; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

fn expand(secret: &[u8; KEY_BYTES], info: &[u8], out: &mut [u8]) {
    Hkdf::<Sha256>::new(None, secret).expand(info, out).expect("32 bytes are a permitted length");
}

fn read_key_file(disk: &dyn Disk, path: &Path) -> Result<SpoolKey, KeyError> {
    let failed = |source| KeyError::Read { path: path.to_owned(), source };
    let file = disk.open_read(path).map_err(failed)?;
    let mut bytes = Zeroizing::new([0u8; KEY_BYTES + 4]);
    let n = file.read_at(0, &mut *bytes).map_err(failed)?;
    let (secret, crc) = bytes.split_at(KEY_BYTES);
    if n != bytes.len() || crc32c::crc32c(secret).to_le_bytes() != crc || secret.iter().all(|b| *b == 0) {
        return Err(KeyError::Damaged { path: path.to_owned() });
    }
    Ok(SpoolKey::from_bytes(secret.try_into().expect("split at its length")))
}

/// Writes a new key, or a known one again, under another name and moves it into place.
fn make_key_file(disk: &dyn Disk, path: &Path, known: Option<&SpoolKey>) -> Result<SpoolKey, KeyError> {
    let mut bytes = Zeroizing::new([0u8; KEY_BYTES + 4]);
    match known {
        Some(key) => bytes[..KEY_BYTES].copy_from_slice(&*key.secret),
        None => getrandom::fill(&mut bytes[..KEY_BYTES])?,
    }
    let crc = crc32c::crc32c(&bytes[..KEY_BYTES]).to_le_bytes();
    bytes[KEY_BYTES..].copy_from_slice(&crc);
    let fresh = path.with_extension("key.new");
    small::replace(disk, &fresh, path, &*bytes).map_err(|source| KeyError::Make { path: path.to_owned(), source })?;
    read_key_file(disk, path)
}

/// A key from outside the spool: 32 bytes, or 64 hexadecimal digits.
fn read_secret_file(path: &Path) -> Result<SpoolKey, KeyError> {
    let bytes = Zeroizing::new(std::fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?);
    if let Ok(secret) = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
        return Ok(SpoolKey::from_bytes(secret));
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    let digest: crate::record::Digest = text.parse().map_err(|_| KeyError::Damaged { path: path.to_owned() })?;
    Ok(SpoolKey::from_bytes(digest.0))
}

/// Seals and opens the bodies of one segment, or what is sealed like them.
pub struct Sealer(Zeroizing<[u8; KEY_BYTES]>);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

/// The seal of a body is broken: damaged, moved, or not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenSeal;

impl Sealer {
    /// Under a key that was agreed on.
    pub fn of(key: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(key)
    }

    /// Key and nonce of ChaCha20-Poly1305 for the body at this place: the first 16 of XChaCha20's 24 bytes make the key, the last 8 the nonce.
    fn parts(&self, nonce: &Nonce, offset: u64) -> (LessSafeKey, ShortNonce) {
        let key = Zeroizing::new(<[u8; KEY_BYTES]>::from(hchacha::<R20>((&*self.0).into(), (&nonce.0).into())));
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*key).expect("a key of its length");
        let mut short = [0u8; 12];
        short[4..].copy_from_slice(&offset.to_le_bytes());
        (LessSafeKey::new(key), ShortNonce::assume_unique_for_key(short))
    }

    /// Encrypts `body` in place; the tag is returned.
    pub fn seal(&self, nonce: &Nonce, offset: u64, header: &[u8], body: &mut [u8]) -> [u8; SEAL_BYTES] {
        let (key, short) = self.parts(nonce, offset);
        let tag = key.seal_in_place_separate_tag(short, Aad::from(header), body);
        let tag = tag.expect("a body is far below the cipher's limit of 256 GiB");
        tag.as_ref().try_into().expect("a tag has 16 bytes")
    }

    /// Decrypts in place what `seal` made.
    pub fn open(&self, nonce: &Nonce, offset: u64, header: &[u8], body: &mut [u8], tag: &[u8]) -> Result<(), BrokenSeal> {
        let tag = Tag::try_from(tag).map_err(|_| BrokenSeal)?;
        let (key, short) = self.parts(nonce, offset);
        key.open_in_place_separate_tag(short, Aad::from(header), tag, body, 0..).map(drop).map_err(|_| BrokenSeal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is on disk is XChaCha20-Poly1305 as everybody else has it.
    #[test]
    fn the_seal_is_that_of_the_cipher_it_is_named_after() {
        use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce, aead::AeadInOut as _};
        let sealer = SpoolKey::from_bytes([3; 32]).sealer(&SegmentId([1; 16]));
        let theirs = XChaCha20Poly1305::new((&*sealer.0).into());
        for len in (0..300).chain([1000, 4096, 65_537]) {
            let body: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let (nonce, offset) = (Nonce([len as u8; 16]), len as u64 * 7919);
            let mut nonce24 = [0; 24];
            nonce24[..16].copy_from_slice(&nonce.0);
            nonce24[16..].copy_from_slice(&offset.to_le_bytes());
            let header = &body[..len / 3];
            let (mut a, mut b) = (body.clone(), body.clone());
            let tag = sealer.seal(&nonce, offset, header, &mut a);
            let other = theirs.encrypt_inout_detached(&XNonce::from(nonce24), header, b.as_mut_slice().into()).unwrap();
            assert!(a == b && tag[..] == other[..], "{len}");
            sealer.open(&nonce, offset, header, &mut a, &tag).unwrap();
            assert!(a == body, "{len}");
        }
    }

    #[test]
    fn a_body_opens_only_under_its_own_header_place_and_segment() {
        let key = SpoolKey::from_bytes([3; 32]);
        let sealer = key.sealer(&SegmentId([1; 16]));
        let nonce = Nonce([9; 16]);
        let mut body = b"MSH|^~\\&|synthetic".to_vec();
        let tag = sealer.seal(&nonce, 4096, b"header", &mut body);
        let sealed = body.clone();
        assert_ne!(sealed, b"MSH|^~\\&|synthetic");
        let open = |sealer: &Sealer, offset, header: &[u8]| {
            let mut copy = sealed.clone();
            sealer.open(&nonce, offset, header, &mut copy, &tag).map(|()| copy)
        };
        assert_eq!(open(&sealer, 4096, b"header").unwrap(), b"MSH|^~\\&|synthetic");
        assert_eq!(open(&sealer, 4097, b"header"), Err(BrokenSeal));
        assert_eq!(open(&sealer, 4096, b"Header"), Err(BrokenSeal));
        assert_eq!(open(&key.sealer(&SegmentId([2; 16])), 4096, b"header"), Err(BrokenSeal));
    }
}
