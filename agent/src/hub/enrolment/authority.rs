//! The desk's own authority: one key that issues certificates for enrolment, for gateways (where no other authority does) and for the hub's own clients, and
//! signs the list of those that count no more.
//!
//! ECDSA on P-256. The private key lies sealed with a passphrase beside its certificate, like the keys that sign documents. Certificates are for clients
//! only (`clientAuth`), so that none of them can pretend to be a broker. The list has no end: a file that nobody renewed must not lock out a fleet,
//! and whoever can hold back a newer list can hold back any.

use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, RevocationReason, RevokedCertParams, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::state::{Held, Issued, State};
use crate::clock;
use crate::enrolment::bundle::{hex, unhex};
use crate::hub::keys::{self, Passphrase};
use crate::limits::CERTIFICATE_BACKDATE;

const ABOUT: &str = "authority.json";
const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";

/// What is kept of it beside its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct About {
    schema: u32,
    name: String,
    /// Of the list written last, and when it was, in seconds since 1970: both only grow.
    list_number: u64,
    list_at: i64,
}

/// See the module.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A key that is known by its public half only.
struct Public<'k>(&'k [u8]);

impl PublicKeyData for Public<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn failed(error: &rcgen::Error) -> String {
    format!("the authority cannot do that ({error}); please report this")
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::Sha256;
    params
}

fn at(seconds: i64) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs())
}

fn serial() -> Result<SerialNumber, String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    bytes[0] = bytes[0] & 0x7F | 0x40; // positive, and as long as it looks
    Ok(SerialNumber::from(bytes.to_vec()))
}

/// Makes the authority. There is only ever one in a state.
pub fn make(held: &Held<'_>, name: &str, passphrase: &Passphrase) -> Result<(), String> {
    let path = held.state().path(ABOUT);
    if path.exists() {
        return Err(format!("{}: an authority is there already; nothing is ever written over", path.display()));
    }
    if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
        return Err("--name: must have 1 to 64 characters, like \"St Mary's gateways\"".to_owned());
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| failed(&error))?;
    let sealed = keys::seal_new(key.serialized_der(), passphrase)?;
    let now = clock::now().unix_ms / 1000;
    let mut params = params(name);
    params.serial_number = Some(serial()?);
    (params.not_before, params.not_after) = (at(now - CERTIFICATE_BACKDATE.as_secs().cast_signed()).into(), date_time_ymd(2099, 12, 31));
    let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
    held.write(KEY, sealed.as_bytes())?;
    held.write(CERTIFICATE, certificate.pem().as_bytes())?;
    held.write_json(ABOUT, &About { schema: 1, name: name.to_owned(), list_number: 0, list_at: 0 }) // last: it is there only when all is
}

fn about(state: &State) -> Result<About, String> {
    state
        .read(ABOUT)?
        .ok_or_else(|| format!("{}: is not there; make the desk's authority with `siteward-hub enroll init`", state.path(ABOUT).display()))
}

/// The authority's certificate, PEM.
pub fn certificate(state: &State) -> Result<String, String> {
    let path = state.path(CERTIFICATE);
    std::fs::read_to_string(&path).map_err(|error| format!("{}: cannot be read: {error}; is this the desk's state?", path.display()))
}

/// What a certificate is to say.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub subject: &'a str,
    /// The point on P-256.
    pub public_key: &'a [u8],
    /// Seconds since 1970.
    pub until: i64,
}

impl Authority {
    /// Opens the sealed key.
    pub fn open(state: &State, passphrase: &Passphrase) -> Result<Self, String> {
        let about = about(state)?;
        let path = state.path(KEY);
        let pkcs8 = keys::unseal_file(&path, passphrase)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(&**pkcs8), &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| format!("{}: is not the key of an authority; restore the desk's state from its backup", path.display()))?;
        Ok(Self { issuer: Issuer::new(params(&about.name), key) })
    }

    /// A certificate for a client, PEM, and what is kept of it.
    pub fn issue(&self, wanted: Wanted<'_>) -> Result<(String, Issued), String> {
        let now = clock::now().unix_ms / 1000;
        let serial = serial()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, wanted.subject);
        params.serial_number = Some(serial.clone());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = at(now - CERTIFICATE_BACKDATE.as_secs().cast_signed()).into();
        params.not_after = at(wanted.until).into();
        let certificate = params.signed_by(&Public(wanted.public_key), &self.issuer).map_err(|error| failed(&error))?;
        let issued = Issued {
            at: now,
            fingerprint: hex(&Sha256::digest(certificate.der())),
            serial: Some(hex(serial.as_ref())),
            not_after: Some(wanted.until),
        };
        Ok((certificate.pem(), issued))
    }

    /// The list of certificates that count no more (serial numbers in hex, when they ceased to), PEM.
    pub fn list(&self, held: &Held<'_>, revoked: &[(String, i64)]) -> Result<String, String> {
        let mut about = about(held.state())?;
        about.list_number += 1;
        // Back-dated, for brokers whose clocks are behind: a list from the future counts as none, and none as a refusal of everybody.
        about.list_at = (clock::now().unix_ms / 1000 - CERTIFICATE_BACKDATE.as_secs().cast_signed()).max(about.list_at + 1);
        let one = |(serial, since): &(String, i64)| {
            let bytes: [u8; 16] = unhex(serial).ok_or_else(|| format!("serial number {serial} is damaged; restore the desk's state"))?;
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(bytes.to_vec()),
                revocation_time: at(*since).into(),
                reason_code: Some(RevocationReason::CessationOfOperation),
                invalidity_date: None,
            })
        };
        let params = CertificateRevocationListParams {
            this_update: at(about.list_at).into(),
            next_update: date_time_ymd(2099, 12, 31),
            crl_number: SerialNumber::from(about.list_number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(one).collect::<Result<_, String>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        held.write_json(ABOUT, &about)?;
        let list = params.signed_by(&self.issuer).map_err(|error| failed(&error))?;
        list.pem().map_err(|error| failed(&error))
    }
}
