//! Keys that sign documents: made, sealed with a passphrase, opened.
//!
//! ```text
//!   NAME.pub   -----BEGIN PUBLIC KEY-----             goes into [trust] keys of every gateway
//!   NAME.key   -----BEGIN SITEWARD SEALED KEY-----    stays at the desk
//!
//!   sealed = "SWK1" ‖ memory KiB, passes, lanes (u32 little-endian each) ‖ salt 16 ‖ nonce 24 ‖ XChaCha20-Poly1305(PKCS#8)
//!   key = Argon2id(passphrase, salt); everything before the ciphertext is associated data
//! ```
//!
//! A key that is not sealed (PKCS#8, as `openssl genpkey -algorithm ed25519` writes it) is taken too; the caller warns. Costs in a sealed key are
//! bounded before they are spent. Keys and passphrases are wiped from memory when dropped and are in no Debug.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::config::trust;
use crate::limits::{KIB, MIB, PASSPHRASE_CHARS_MIN, TLS_FILE_BYTES_MAX};

const MAGIC: &[u8; 4] = b"SWK1";
const HEAD_BYTES: usize = 4 + 12 + 16 + 24;
const BEGIN: &str = "-----BEGIN SITEWARD SEALED KEY-----";
const END: &str = "-----END SITEWARD SEALED KEY-----";
/// RFC 9106's second choice, with one lane.
const COST: Cost = Cost { memory_kib: (64 * MIB / KIB) as u32, passes: 3, lanes: 1 };
/// Most that is spent on a key somebody hands us.
const COST_MAX: Cost = Cost { memory_kib: (1024 * MIB / KIB) as u32, passes: 16, lanes: 16 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Where the passphrase comes from.
#[derive(Clone, Debug)]
pub enum Passphrase {
    /// The first line of a file.
    File(PathBuf),
    /// Asked for on the terminal.
    Terminal,
}

impl Passphrase {
    /// `SITEWARD_HUB_PASSPHRASE_FILE`, else the terminal.
    pub fn usual() -> Self {
        std::env::var_os("SITEWARD_HUB_PASSPHRASE_FILE").map_or(Self::Terminal, |file| Self::File(file.into()))
    }

    fn read(&self, prompt: &str) -> Result<Zeroizing<String>, String> {
        let line = match self {
            Self::File(file) => {
                let open = File::open(file).map_err(|error| format!("{}: the passphrase cannot be read: {error}", file.display()))?;
                first_line(open).map_err(|error| format!("{}: the passphrase cannot be read: {error}", file.display()))?
            }
            Self::Terminal => ask(prompt).map_err(|error| {
                format!("the passphrase cannot be asked for ({error}); set SITEWARD_HUB_PASSPHRASE_FILE to a file that holds it")
            })?,
        };
        if line.is_empty() { Err("the passphrase is empty".to_owned()) } else { Ok(line) }
    }
}

fn first_line(source: impl Read) -> std::io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(4096));
    BufReader::new(source.take(4096)).read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Reads a line from the terminal without showing it.
fn ask(prompt: &str) -> std::io::Result<Zeroizing<String>> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes -= LocalModes::ECHO;
    terminal.write_all(prompt.as_bytes())?;
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let line = first_line(&terminal);
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    terminal.write_all(b"\n")?;
    line
}

/// A private key, ready to sign.
pub struct Signer {
    pair: Ed25519KeyPair,
    id: String,
    public: [u8; 32],
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.id)
    }
}

impl Signer {
    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, String> {
        let foreign = |_| "is not an Ed25519 private key; make one with `siteward-hub keys generate`".to_owned();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(foreign)?;
        let public = pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes");
        Ok(Self { id: trust::key_id(&public), pair, public })
    }

    /// As gateways know it.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn public_pem(&self) -> String {
        trust::to_pem(&self.public)
    }

    /// The key's id and its signature.
    pub(crate) fn sign(&self, message: &[u8]) -> (String, Vec<u8>) {
        (self.id.clone(), self.pair.sign(message).as_ref().to_vec())
    }
}

/// Opens a private key. `true`: it was sealed.
pub fn open(file: &Path, passphrase: &Passphrase) -> Result<(Signer, bool), String> {
    let told = |why: String| format!("{}: {why}", file.display());
    let mut bytes = Zeroizing::new(Vec::new());
    let source = File::open(file).map_err(|error| told(format!("the key cannot be read: {error}")))?;
    source.take(TLS_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| told(format!("the key cannot be read: {error}")))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| told("is not a key in PEM".to_owned()))?;
    if text.trim_start().starts_with(BEGIN) {
        let passphrase = passphrase.read(&format!("passphrase of {}: ", file.display()))?;
        let pkcs8 = unseal(text, &passphrase).map_err(told)?;
        return Ok((Signer::from_pkcs8(&pkcs8).map_err(told)?, true));
    }
    let foreign = |_| told("is neither a sealed key of siteward-hub nor a private key in PEM (-----BEGIN PRIVATE KEY-----)".to_owned());
    let key = PrivatePkcs8KeyDer::from_pem_slice(&bytes).map_err(foreign)?;
    Ok((Signer::from_pkcs8(key.secret_pkcs8_der()).map_err(told)?, false))
}

/// The id of the public key in a file (PEM).
pub fn public_id(file: &Path) -> Result<String, String> {
    let mut pem = Vec::new();
    let source = File::open(file).map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    source.take(TLS_FILE_BYTES_MAX).read_to_end(&mut pem).map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    trust::Anchor::from_pem(&pem).map(|anchor| anchor.id().to_owned()).map_err(|why| format!("{}: {why}", file.display()))
}

/// Makes a pair: `NAME.key` (0600, sealed) and `NAME.pub` in a directory that is there. Never writes over a file. Gives the key's id.
pub fn generate(out: &Path, name: &str, passphrase: &Passphrase) -> Result<String, String> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err("--name: must be a plain name, like \"desk-2027\"".to_owned());
    }
    let (private, public) = (out.join(format!("{name}.key")), out.join(format!("{name}.pub")));
    let words = new_words(passphrase)?;
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| "the system gives no random numbers".to_owned())?;
    let signer = Signer::from_pkcs8(pkcs8.as_ref())?;
    write_new(&private, 0o600, &seal(pkcs8.as_ref(), &words, COST)?)?;
    write_new(&public, 0o644, &signer.public_pem())?;
    Ok(signer.id)
}

/// A passphrase for something new.
fn new_words(passphrase: &Passphrase) -> Result<Zeroizing<String>, String> {
    let words = passphrase.read("passphrase for the new key: ")?;
    if words.chars().count() < PASSPHRASE_CHARS_MIN {
        return Err(format!("the passphrase is too short; use at least {PASSPHRASE_CHARS_MIN} characters, better several words"));
    }
    if matches!(passphrase, Passphrase::Terminal) && *passphrase.read("again: ")? != *words {
        return Err("the two passphrases are not the same; nothing was made".to_owned());
    }
    Ok(words)
}

/// Seals another kind of key (PKCS#8) under a passphrase that is asked for now.
pub(super) fn seal_new(pkcs8: &[u8], passphrase: &Passphrase) -> Result<String, String> {
    seal(pkcs8, &new_words(passphrase)?, COST)
}

/// Opens what [`seal_new`] made, in a file.
pub(super) fn unseal_file(file: &Path, passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, String> {
    let told = |why: String| format!("{}: {why}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| told(format!("the key cannot be read: {error}")))?;
    let words = passphrase.read(&format!("passphrase of {}: ", file.display()))?;
    unseal(&text, &words).map_err(told)
}

fn write_new(file: &Path, mode: u32, text: &str) -> Result<(), String> {
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(file).and_then(|mut open| {
        open.write_all(text.as_bytes())?;
        open.sync_all()
    });
    written.map_err(|error| {
        format!("{}: cannot be written: {error}; its directory has to be there, and nothing is ever written over", file.display())
    })
}

fn cipher(passphrase: &str, salt: &[u8], cost: Cost) -> Result<XChaCha20Poly1305, String> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_| "says impossible costs".to_owned())?;
    let mut key = Zeroizing::new([0_u8; 32]);
    let derive = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    derive
        .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
        .map_err(|_| "there is not enough memory to open the key".to_owned())?;
    Ok(XChaCha20Poly1305::new((&*key).into()))
}

fn seal(pkcs8: &[u8], passphrase: &str, cost: Cost) -> Result<String, String> {
    let mut random = [0_u8; 40];
    getrandom::fill(&mut random).map_err(|_| "the system gives no random numbers".to_owned())?;
    let mut sealed = MAGIC.to_vec();
    for number in [cost.memory_kib, cost.passes, cost.lanes] {
        sealed.extend_from_slice(&number.to_le_bytes());
    }
    sealed.extend_from_slice(&random);
    let (salt, nonce) = random.split_at(16);
    let nonce = XNonce::try_from(nonce).expect("24 bytes are left");
    let payload = Payload { msg: pkcs8, aad: &sealed };
    let body = cipher(passphrase, salt, cost)?.encrypt(&nonce, payload).map_err(|_| "the key cannot be sealed".to_owned())?;
    sealed.extend_from_slice(&body);
    let text = BASE64_STANDARD.encode(sealed);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
    Ok(format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")))
}

fn unseal(pem: &str, passphrase: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let damaged = || "is a sealed key that is damaged; use a copy".to_owned();
    let body = pem.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or_else(damaged)?;
    let body: String = body.split_ascii_whitespace().collect();
    let sealed = BASE64_STANDARD.decode(body).map_err(|_| damaged())?;
    if sealed.len() <= HEAD_BYTES || !sealed.starts_with(MAGIC) {
        return Err(damaged());
    }
    let (head, body) = sealed.split_at(HEAD_BYTES);
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let cost = Cost { memory_kib: number(4), passes: number(8), lanes: number(12) };
    if cost.memory_kib > COST_MAX.memory_kib || cost.passes > COST_MAX.passes || cost.lanes > COST_MAX.lanes {
        return Err("asks for more memory or time than a key ever needs; use a copy".to_owned());
    }
    let nonce = XNonce::try_from(&head[32..]).expect("the head ends with 24 bytes of it");
    let opened = cipher(passphrase, &head[16..32], cost)?.decrypt(&nonce, Payload { msg: body, aad: head });
    opened.map(Zeroizing::new).map_err(|_| "does not open: the passphrase is wrong, or the file was changed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_only_and_not_after_any_change() {
        let sealed = seal(b"key", "correct horse", CHEAP).unwrap();
        assert_eq!(*unseal(&sealed, "correct horse").unwrap(), b"key");
        assert!(unseal(&sealed, "correct horsf").unwrap_err().contains("passphrase is wrong"));
        let bytes = BASE64_STANDARD.decode(sealed.lines().filter(|l| !l.starts_with('-')).collect::<String>()).unwrap();
        for at in (0..bytes.len()).filter(|at| !(4..16).contains(at)) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let pem = format!("{BEGIN}\n{}\n{END}\n", BASE64_STANDARD.encode(changed));
            assert!(unseal(&pem, "correct horse").is_err(), "byte {at}");
        }
        let mut greedy = bytes;
        greedy[7] = 0xFF;
        let pem = format!("{BEGIN}\n{}\n{END}\n", BASE64_STANDARD.encode(greedy));
        assert!(unseal(&pem, "correct horse").unwrap_err().contains("more memory"));
    }

    #[test]
    fn a_pair_is_made_once_private_and_opens_again() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let words = dir.path().join("words");
        std::fs::write(&words, "correct horse battery\n").unwrap();
        let passphrase = Passphrase::File(words.clone());
        let id = generate(dir.path(), "desk", &passphrase).unwrap();
        let private = dir.path().join("desk.key");
        assert_eq!(std::fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        let (signer, sealed) = open(&private, &passphrase).unwrap();
        assert!(sealed && signer.id() == id);
        let anchor = trust::Anchor::from_pem(&std::fs::read(dir.path().join("desk.pub")).unwrap()).unwrap();
        assert_eq!(anchor.id(), id);
        assert!(generate(dir.path(), "desk", &passphrase).unwrap_err().contains("nothing is ever written over"));
        std::fs::write(&words, "short\n").unwrap();
        assert!(generate(dir.path(), "other", &passphrase).unwrap_err().contains("too short"));
        std::fs::write(&words, "\n").unwrap();
        assert!(open(&private, &passphrase).unwrap_err().contains("empty"));
    }

    /// Made by `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`.
    #[test]
    fn a_key_made_by_openssl_is_taken_and_has_the_id_of_its_public_half() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k.pem");
        std::fs::write(&file, include_str!("../../../tests/fixtures/documents/keys/openssl.key")).unwrap();
        let (signer, sealed) = open(&file, &Passphrase::Terminal).unwrap();
        assert!(!sealed);
        assert_eq!(signer.public_pem(), include_str!("../../../tests/fixtures/documents/keys/openssl.pub"));
        assert!(!format!("{signer:?}").contains("Ed25519"));
    }
}
