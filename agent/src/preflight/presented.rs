//! Whose certificate somebody presented: subject and issuer for people, and whether the issuer's name is one of a product that inspects TLS. Pure.
//!
//! The bytes may come from anybody and were perhaps refused: what cannot be read is not told, what is told is short and printable.

use crate::der::{BMP_STRING, COMMON_NAME, Der, OBJECT_ID, SEQUENCE, SET, take};
use crate::limits::PREFLIGHT_NAME_CHARS_MAX;
use crate::source::tls::certificate;

/// `[0]`, version.
const VERSION: u8 = 0xA0;

/// What is told of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Presented {
    pub subject: String,
    pub issuer: String,
    /// Seconds since 1970.
    pub end: Option<i64>,
}

impl Presented {
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let mut outer = Der(take(&mut Der(certificate), SEQUENCE)?);
        let mut fields = Der(take(&mut outer, SEQUENCE)?);
        let (first, _) = fields.next()?;
        if first == VERSION {
            fields.next()?; // serial number
        }
        take(&mut fields, SEQUENCE)?; // algorithm
        let issuer = name(take(&mut fields, SEQUENCE)?);
        take(&mut fields, SEQUENCE)?; // validity
        let subject = name(take(&mut fields, SEQUENCE)?);
        Some(Self { subject, issuer, end: certificate::not_after(certificate) })
    }
}

/// The parts of a name that people know it by.
fn name(parts: &[u8]) -> String {
    let told = Der(parts).filter(|(tag, _)| *tag == SET).filter_map(|(_, set)| {
        let mut attribute = Der(take(&mut Der(set), SEQUENCE)?);
        let label = match take(&mut attribute, OBJECT_ID)? {
            kind if kind == COMMON_NAME => "CN",
            [0x55, 0x04, 0x0A] => "O",
            [0x55, 0x04, 0x0B] => "OU",
            [0x55, 0x04, 0x06] => "C",
            _ => return None,
        };
        let (tag, value) = attribute.next()?;
        let text = if tag == BMP_STRING {
            let units: Vec<u16> = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16_lossy(&units)
        } else {
            String::from_utf8_lossy(value).into_owned()
        };
        Some(format!("{label}={text}"))
    });
    let text = told.collect::<Vec<_>>().join(", ");
    let shown: String = text.chars().filter(|c| !c.is_control()).take(PREFLIGHT_NAME_CHARS_MAX).collect();
    if shown.is_empty() { "no name".to_owned() } else { shown }
}

/// Words in the issuer's name by which products that inspect TLS are known. A hint and no more.
const PRODUCTS: [&str; 24] = [
    "zscaler",
    "netskope",
    "palo alto",
    "fortinet",
    "fortigate",
    "blue coat",
    "bluecoat",
    "cisco umbrella",
    "secure web",
    "mcafee",
    "skyhigh",
    "forcepoint",
    "websense",
    "sophos",
    "check point",
    "barracuda",
    "watchguard",
    "sonicwall",
    "iboss",
    "squid",
    "mitmproxy",
    "inspection",
    "decrypt",
    "firewall",
];

pub(super) fn product(issuer: &str) -> Option<&'static str> {
    let issuer = issuer.to_lowercase();
    PRODUCTS.into_iter().find(|word| issuer.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::new(["hub".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Zscaler Inc.");
        params.distinguished_name.push(DnType::CommonName, "Interm\u{7}ediate");
        params.not_after = date_time_ymd(2031, 2, 28);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn subject_and_issuer_are_told_and_a_product_is_known_by_its_name() {
        let told = Presented::of(&certificate()).unwrap();
        assert_eq!(told.issuer, "O=Zscaler Inc., CN=Intermediate");
        assert_eq!((told.subject, told.end), (told.issuer.clone(), Some(1_930_003_200)));
        assert_eq!(product(&told.issuer), Some("zscaler"));
        assert_eq!(product("CN=St Mary's hub CA"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let mut der = certificate();
            let at = at.index(der.len());
            der[at] = byte;
            for bytes in [&der, &bytes] {
                if let Some(told) = Presented::of(bytes) {
                    prop_assert!(told.issuer.chars().count() <= PREFLIGHT_NAME_CHARS_MAX);
                }
            }
        }
    }
}
