//! A new key and the request for its certificate (PKCS #10), made on the box. Pure but for the random numbers.
//!
//! ECDSA on P-256, which every authority takes. The request is written by hand: it is one fixed structure of a name and a key, and *ring*,
//! which is in the binary anyway, makes the key and the signature; a library for certificates would be four more crates on the device.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::der::{COMMON_NAME, INTEGER, OBJECT_ID, SEQUENCE, SET, UTF8_STRING, bits, element};

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
pub(super) fn key() -> Result<Zeroizing<String>, NoKey> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).map_err(|_| NoKey)?;
    Ok(Zeroizing::new(pem("PRIVATE KEY", document.as_ref())))
}

/// The request (PEM) for a certificate of this key (PKCS #8) with this common name.
pub(super) fn request(key: &[u8], common_name: &str) -> Result<String, NoKey> {
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

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer};

    use super::*;
    use crate::der::{BIT_STRING, Der, take};

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
    fn what_is_no_key_makes_no_request() {
        assert!(request(b"nothing", "gw1").is_err());
    }
}
