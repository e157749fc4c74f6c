//! A new key and the request for its certificate (PKCS #10), made on the box. Pure but for the random numbers.
//!
//! ECDSA on P-256, which every authority takes. The request is written by hand: it is one fixed structure of a name and a key, and *ring*,
//! which is in the binary anyway, makes the key and the signature; a library for certificates would be four more crates on the device.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

/// 1.2.840.10045.2.1, a public key on a curve
const EC_PUBLIC_KEY: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
/// 1.2.840.10045.3.1.7, the curve P-256
const P256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
/// 1.2.840.10045.4.3.2, ECDSA with SHA-256
const ECDSA_SHA256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]`, attributes; there are none.
const ATTRIBUTES: u8 = 0xA0;

/// A key and the request that goes with it, both PEM.
pub(super) struct Request {
    pub key: Zeroizing<String>,
    pub csr: String,
}

/// No random numbers, or *ring* refuses its own key.
#[derive(Debug, thiserror::Error)]
#[error("no new key could be made; is the machine out of random numbers?")]
pub struct NoKey;

/// A new key, and the request for a certificate with this common name.
pub(super) fn request(common_name: &str) -> Result<Request, NoKey> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(|_| NoKey)?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).map_err(|_| NoKey)?;
    let info = info(common_name, key.public_key().as_ref());
    let signature = key.sign(&random, &info).map_err(|_| NoKey)?;
    let algorithm = der(SEQUENCE, &[&der(OBJECT_ID, &[ECDSA_SHA256])]);
    let csr = der(SEQUENCE, &[&info, &algorithm, &bits(signature.as_ref())]);
    Ok(Request { key: Zeroizing::new(pem("PRIVATE KEY", document.as_ref())), csr: pem("CERTIFICATE REQUEST", &csr) })
}

fn info(common_name: &str, public_key: &[u8]) -> Vec<u8> {
    let attribute = der(SEQUENCE, &[&der(OBJECT_ID, &[COMMON_NAME]), &der(UTF8_STRING, &[common_name.as_bytes()])]);
    let subject = der(SEQUENCE, &[&der(SET, &[&attribute])]);
    let kind = der(SEQUENCE, &[&der(OBJECT_ID, &[EC_PUBLIC_KEY]), &der(OBJECT_ID, &[P256])]);
    let key = der(SEQUENCE, &[&kind, &bits(public_key)]);
    der(SEQUENCE, &[&der(INTEGER, &[&[0]]), &subject, &key, &der(ATTRIBUTES, &[])])
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    der(BIT_STRING, &[&[0], bytes])
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..=0x7F) => bytes.push(short),
        Ok(long) => bytes.extend([0x81, long]),
        Err(_) => {
            let length = u16::try_from(length).expect("a request is a name of 200 bytes, a key of 65 and a signature of 72");
            bytes.push(0x82);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(parts.iter().copied().flatten());
    bytes
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use rustls_pki_types::CertificateSigningRequestDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn a_request_is_signed_by_the_key_it_asks_for() {
        let Request { key, csr } = request("st-marys.st-marys-gw1").unwrap();
        let csr = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap();
        let key = rcgen::KeyPair::from_pem(&key).unwrap();
        let (info, rest) = element(&csr.as_ref()[3..]);
        assert_eq!(csr.as_ref()[..2], [SEQUENCE, 0x81]);
        let (_, signature) = element(rest);
        let public = rcgen::PublicKeyData::der_bytes(&key);
        assert!(info.windows(public.len()).any(|window| window == public));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public).verify(info, &signature[3..]).unwrap();
        assert!(String::from_utf8_lossy(info).contains("st-marys.st-marys-gw1"));
    }

    /// The first element with its head, and the rest.
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (head, length) = if der[1] < 0x80 { (2, usize::from(der[1])) } else { (3, usize::from(der[2])) };
        der.split_at(head + length)
    }
}
