//! A new key and the request for its certificate (PKCS #10), made on the box. Pure but for the random numbers.
//!
//! ECDSA on P-256, which every authority takes. The request is written by hand: it is one fixed structure of a name and a key, and *ring*,
//! which is in the binary anyway, makes the key and the signature; a library for certificates would be four more crates on the device.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SystemRandom;
#[cfg(any(test, feature = "hub"))]
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

#[cfg(any(test, feature = "hub"))]
use crate::der::{BIT_STRING, Der, take};
use crate::der::{COMMON_NAME, INTEGER, OBJECT_ID, SEQUENCE, SET, UTF8_STRING, bits, element};
#[cfg(any(test, feature = "hub"))]
use crate::source::tls::certificate::common_name_of;

/// 1.2.840.10045.2.1, a public key on a curve
const EC_PUBLIC_KEY: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
/// 1.2.840.10045.3.1.7, the curve P-256
const P256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
/// 1.2.840.10045.4.3.2, ECDSA with SHA-256
const ECDSA_SHA256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];
/// `[0]`, attributes; there are none.
const ATTRIBUTES: u8 = 0xA0;

/// No random numbers, or *ring* refuses its own key.
#[derive(Debug, thiserror::Error)]
#[error("no new key could be made; is the machine out of random numbers?")]
pub struct NoKey;

/// A new key, PEM.
pub(crate) fn key() -> Result<Zeroizing<String>, NoKey> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).map_err(|_| NoKey)?;
    Ok(Zeroizing::new(pem("PRIVATE KEY", document.as_ref())))
}

/// The request (PEM) for a certificate of this key (PKCS #8) with this common name.
pub(crate) fn request(key: &[u8], common_name: &str) -> Result<String, NoKey> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key, &random).map_err(|_| NoKey)?;
    let info = info(common_name, key.public_key().as_ref());
    let signature = key.sign(&random, &info).map_err(|_| NoKey)?;
    let algorithm = element(SEQUENCE, &[&element(OBJECT_ID, &[ECDSA_SHA256])]);
    Ok(pem("CERTIFICATE REQUEST", &element(SEQUENCE, &[&info, &algorithm, &bits(signature.as_ref())])))
}

fn info(common_name: &str, public_key: &[u8]) -> Vec<u8> {
    let attribute = element(SEQUENCE, &[&element(OBJECT_ID, &[COMMON_NAME]), &element(UTF8_STRING, &[common_name.as_bytes()])]);
    let subject = element(SEQUENCE, &[&element(SET, &[&attribute])]);
    let kind = element(SEQUENCE, &[&element(OBJECT_ID, &[EC_PUBLIC_KEY]), &element(OBJECT_ID, &[P256])]);
    let key = element(SEQUENCE, &[&kind, &bits(public_key)]);
    element(SEQUENCE, &[&element(INTEGER, &[&[0]]), &subject, &key, &element(ATTRIBUTES, &[])])
}

/// The public half of a key (PKCS #8), as certificates and requests carry it.
pub(crate) fn public_key(key: &[u8]) -> Result<Vec<u8>, NoKey> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key, &SystemRandom::new()).map_err(|_| NoKey)?;
    Ok(key.public_key().as_ref().to_vec())
}

/// What a request for a certificate says.
#[cfg(any(test, feature = "hub"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub common_name: String,
    /// The point on P-256, as certificates carry it.
    pub public_key: Vec<u8>,
}

/// Reads a request (PEM) of the form that [`request`] writes and verifies that whoever made it has the key. The error is the end of a sentence.
#[cfg(any(test, feature = "hub"))]
pub(crate) fn read(pem: &str) -> Result<Asked, &'static str> {
    use rustls_pki_types::CertificateSigningRequestDer;
    use rustls_pki_types::pem::PemObject as _;
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| "is no request in PEM (CERTIFICATE REQUEST)")?;
    let mut fields = Der(take(&mut Der(der.as_ref()), SEQUENCE).ok_or("is not as PKCS #10 has it")?);
    let mut part = || take(&mut fields, SEQUENCE);
    let (info, algorithm) = part().zip(part()).ok_or("is not as PKCS #10 has it")?;
    let signature = take(&mut fields, BIT_STRING).and_then(|bits| bits.strip_prefix(&[0])).ok_or("carries no signature")?;
    let mut info_fields = Der(info);
    take(&mut info_fields, INTEGER).ok_or("is not as PKCS #10 has it")?;
    let subject = take(&mut info_fields, SEQUENCE).ok_or("names nobody")?;
    let key = take(&mut info_fields, SEQUENCE).ok_or("carries no key")?;
    let mut key_fields = Der(key);
    let kind = take(&mut key_fields, SEQUENCE).ok_or("carries no key")?;
    let is_p256 = kind == [element(OBJECT_ID, &[EC_PUBLIC_KEY]), element(OBJECT_ID, &[P256])].concat();
    let is_sha256 = take(&mut Der(algorithm), OBJECT_ID) == Some(ECDSA_SHA256);
    if !is_p256 || !is_sha256 {
        return Err("is for a key of another kind than gateways make (ECDSA on P-256 with SHA-256)");
    }
    let public_key = take(&mut key_fields, BIT_STRING).and_then(|bits| bits.strip_prefix(&[0])).ok_or("carries no key")?.to_vec();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &public_key)
        .verify(&element(SEQUENCE, &[info]), signature)
        .map_err(|_| "is not signed by the key that it asks for")?;
    let common_name = common_name_of(subject).ok_or("has no common name, or more than one")?;
    Ok(Asked { common_name, public_key })
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer};

    use super::*;

    #[test]
    fn a_request_is_signed_by_the_key_it_asks_for() {
        let key = key().unwrap();
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let csr = request(der.secret_der(), "st-marys.st-marys-gw1").unwrap();
        let csr = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap();
        let mut fields = Der(take(&mut Der(csr.as_ref()), SEQUENCE).unwrap());
        let info = element(SEQUENCE, &[take(&mut fields, SEQUENCE).unwrap()]);
        take(&mut fields, SEQUENCE).unwrap(); // algorithm
        let signature = take(&mut fields, BIT_STRING).unwrap();
        let pair = rcgen::KeyPair::from_pem(&key).unwrap();
        let public = rcgen::PublicKeyData::der_bytes(&pair);
        assert!(info.windows(public.len()).any(|window| window == public));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public).verify(&info, &signature[1..]).unwrap();
        assert!(String::from_utf8_lossy(&info).contains("st-marys.st-marys-gw1"));
    }

    #[test]
    fn a_request_is_read_only_when_its_own_key_signed_it() {
        let key = key().unwrap();
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let csr = request(der.secret_der(), "st-marys.gw1.0a1b2c3d").unwrap();
        let asked = read(&csr).unwrap();
        assert_eq!(asked.common_name, "st-marys.gw1.0a1b2c3d");
        assert_eq!(asked.public_key, public_key(der.secret_der()).unwrap());
        let bytes = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert!(read(&pem("CERTIFICATE REQUEST", &changed)).is_err(), "byte {at}");
        }
        assert!(read("nothing").is_err());
    }

    #[test]
    fn what_is_no_key_makes_no_request() {
        assert!(request(b"nothing", "gw1").is_err());
    }
}
