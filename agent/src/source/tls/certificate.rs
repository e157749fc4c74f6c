//! What a listener has to know of a certificate: until when it is valid, and by which names its holder goes. Pure.
//!
//! rustls verifies certificates and tells neither. This reads the few fields of DER that are needed and nothing else; the bytes of clients
//! come here only after their signature was verified against the site's own authority. Whatever is not as X.509 has it reads as "not there",
//! which means: no name matches.

use crate::config::settings::ClientSubject;
#[cfg(any(test, feature = "hub"))]
use crate::der::BIT_STRING;
use crate::der::{BMP_STRING, COMMON_NAME, Der, GENERALIZED_TIME, INTEGER, OBJECT_ID, OCTET_STRING, SEQUENCE, SET, UTC_TIME, take};

/// `[0]`, version.
const VERSION: u8 = 0xA0;
/// `[3]`, extensions.
const EXTENSIONS: u8 = 0xA3;
/// `[2]` of GeneralName.
const DNS_NAME: u8 = 0x82;
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];

/// The parts of a certificate that are looked at.
struct Parts<'d> {
    issuer: &'d [u8],
    not_after: (u8, &'d [u8]),
    subject: &'d [u8],
    #[cfg(any(test, feature = "hub"))]
    public_key: Option<&'d [u8]>,
    extensions: Option<&'d [u8]>,
}

fn parts(certificate: &[u8]) -> Option<Parts<'_>> {
    let mut outer = Der(take(&mut Der(certificate), SEQUENCE)?);
    let mut fields = Der(take(&mut outer, SEQUENCE)?);
    let (first, _) = fields.next()?;
    if first == VERSION {
        fields.next()?; // serial number
    }
    take(&mut fields, SEQUENCE)?; // algorithm
    let issuer = take(&mut fields, SEQUENCE)?;
    let not_after = Der(take(&mut fields, SEQUENCE)?).nth(1)?;
    let subject = take(&mut fields, SEQUENCE)?;
    #[cfg(any(test, feature = "hub"))]
    let public_key = take(&mut fields, SEQUENCE);
    let extensions = fields.find(|(tag, _)| *tag == EXTENSIONS).and_then(|(_, wrapped)| take(&mut Der(wrapped), SEQUENCE));
    Some(Parts {
        issuer,
        not_after,
        subject,
        #[cfg(any(test, feature = "hub"))]
        public_key,
        extensions,
    })
}

/// The version of X.509 that a certificate is of: 1, 2 or 3. TLS takes 3 only.
pub(crate) fn version(certificate: &[u8]) -> Option<u8> {
    let mut outer = Der(take(&mut Der(certificate), SEQUENCE)?);
    match Der(take(&mut outer, SEQUENCE)?).next()? {
        (VERSION, wrapped) => take(&mut Der(wrapped), INTEGER)?.first()?.checked_add(1),
        _ => Some(1), // left out
    }
}

/// What is said of a certificate that is not of version 3; the end of a sentence that begins with what it is.
pub(crate) fn too_old(certificate: &[u8]) -> Option<String> {
    let version = version(certificate).filter(|version| *version < 3)?;
    Some(format!(
        "is an X.509 version {version} certificate, which TLS does not take; have it signed as version 3 (`openssl x509 -req` makes that with \
         -extfile FILE, where FILE has a line like extendedKeyUsage = clientAuth, serverAuth)"
    ))
}

/// Seconds since 1970 at which the certificate ends.
pub(crate) fn not_after(certificate: &[u8]) -> Option<i64> {
    seconds(parts(certificate)?.not_after)
}

/// Seconds since 1970 by which a list of revoked certificates (DER) has to be followed by another; `None`: it names no end, or is no such list.
#[cfg(any(test, feature = "hub"))]
pub(crate) fn next_update(list: &[u8]) -> Option<i64> {
    let mut outer = Der(take(&mut Der(list), SEQUENCE)?);
    let fields = Der(take(&mut outer, SEQUENCE)?);
    // version, algorithm, issuer, this update, next update
    fields.filter(|(tag, _)| matches!(*tag, UTC_TIME | GENERALIZED_TIME)).nth(1).and_then(seconds)
}

fn seconds((tag, digits): (u8, &[u8])) -> Option<i64> {
    let digits = std::str::from_utf8(digits).ok()?.strip_suffix('Z')?;
    let number = |from: usize, to: usize| digits.get(from..to)?.parse::<i16>().ok();
    let (year, at) = match tag {
        UTC_TIME => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let two = |index: usize| i8::try_from(number(at + 2 * index, at + 2 * index + 2)?).ok();
    let moment = jiff::civil::DateTime::new(year, two(0)?, two(1)?, two(2)?, two(3)?, two(4)?, 0).ok()?;
    Some(moment.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// The common name of a certificate's subject.
pub(crate) fn subject(certificate: &[u8]) -> Option<String> {
    Names::of(certificate).common
}

/// The common name of whoever issued a certificate, as it claims. Nothing of it was verified: for people only, short and in one line.
pub(crate) fn issuer(certificate: &[u8]) -> Option<String> {
    let name = Der(parts(certificate)?.issuer).filter(|(tag, _)| *tag == SET).find_map(|(_, set)| common_name(set))?;
    Some(name.chars().filter(|c| !c.is_control()).take(64).collect())
}

/// The key that a certificate is for: the bits of its SubjectPublicKeyInfo.
#[cfg(any(test, feature = "hub"))]
pub(crate) fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let mut fields = Der(parts(certificate)?.public_key?);
    take(&mut fields, SEQUENCE)?; // its kind
    take(&mut fields, BIT_STRING)?.strip_prefix(&[0])
}

/// The one common name in the content of a Name; `None` where there is none, or more than one.
#[cfg(any(test, feature = "hub"))]
pub(crate) fn common_name_of(name: &[u8]) -> Option<String> {
    let mut all = Der(name).filter(|(tag, _)| *tag == SET).filter_map(|(_, set)| common_name(set));
    all.next().filter(|_| all.next().is_none())
}

/// The names by which a list of subjects may know a certificate.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Of a subject with exactly one; with several it would be a matter of taste which counts.
    common: Option<String>,
    dns: Vec<String>,
}

/// Names told in a log line.
const NAMES_TOLD: usize = 8;

impl Names {
    pub(super) fn of(certificate: &[u8]) -> Self {
        let Some(parts) = parts(certificate) else { return Self::default() };
        let mut common: Vec<String> = Der(parts.subject).filter(|(tag, _)| *tag == SET).filter_map(|(_, set)| common_name(set)).collect();
        Self { common: common.pop().filter(|_| common.is_empty()), dns: parts.extensions.map(dns_names).unwrap_or_default() }
    }

    /// One name for people: the common name, else the first DNS name.
    pub fn one(&self) -> Option<&str> {
        self.common.as_deref().or(self.dns.first().map(String::as_str))
    }

    pub(super) fn are_among(&self, subjects: &[ClientSubject]) -> bool {
        subjects.iter().any(|subject| match subject {
            ClientSubject::CommonName(name) => self.common.as_ref() == Some(name),
            ClientSubject::DnsName(name) => self.dns.iter().any(|dns| dns.eq_ignore_ascii_case(name)),
        })
    }
}

/// As they would be written in `client_subjects`.
impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let common = self.common.iter().map(|name| format!("CN={name}"));
        let all: Vec<String> = common.chain(self.dns.iter().cloned()).take(NAMES_TOLD).map(|name| format!("{name:?}")).collect();
        f.write_str(&if all.is_empty() { "none".to_owned() } else { all.join(", ") })
    }
}

fn common_name(set: &[u8]) -> Option<String> {
    let mut attribute = Der(take(&mut Der(set), SEQUENCE)?);
    if take(&mut attribute, OBJECT_ID)? != COMMON_NAME {
        return None;
    }
    let (tag, value) = attribute.next()?;
    if tag == BMP_STRING {
        let units: Vec<u16> = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        return String::from_utf16(&units).ok();
    }
    std::str::from_utf8(value).ok().map(str::to_owned)
}

fn dns_names(extensions: &[u8]) -> Vec<String> {
    let mut all = Der(extensions).filter(|(tag, _)| *tag == SEQUENCE);
    let value = all.find_map(|(_, extension)| {
        let mut fields = Der(extension);
        (take(&mut fields, OBJECT_ID)? == SUBJECT_ALT_NAME).then_some(())?;
        fields.find(|(tag, _)| *tag == OCTET_STRING).map(|(_, value)| value)
    });
    let names = value.and_then(|value| take(&mut Der(value), SEQUENCE)).unwrap_or_default();
    Der(names).filter(|(tag, _)| *tag == DNS_NAME).filter_map(|(_, name)| std::str::from_utf8(name).ok().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, date_time_ymd};

    fn certificate(adjust: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(["Pump7.st-marys.example".to_owned(), "10.0.0.7".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        adjust(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_end_are_read() {
        let der = certificate(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "St Mary's");
            params.distinguished_name.push(DnType::CommonName, "Épic Bridges");
            params.not_after = date_time_ymd(2031, 2, 28);
        });
        assert_eq!(not_after(&der), Some(1_930_003_200));
        let names = Names::of(&der);
        assert_eq!(names.to_string(), "\"CN=Épic Bridges\", \"Pump7.st-marys.example\"");
        let among = |subject| names.are_among(&[ClientSubject::CommonName("x".into()), subject]);
        assert!(among(ClientSubject::CommonName("Épic Bridges".into())));
        assert!(among(ClientSubject::DnsName("pump7.st-marys.example".into())));
        for other in ["épic bridges", "Épic", "Épic Bridges ", "Pump7.st-marys.example", "St Mary's"] {
            assert!(!among(ClientSubject::CommonName(other.into())), "{other}");
        }
        for other in ["st-marys.example", "Épic Bridges", "10.0.0.7", "*.st-marys.example"] {
            assert!(!among(ClientSubject::DnsName(other.into())), "{other}");
        }
        assert!(!names.are_among(&[]));
    }

    #[test]
    fn a_certificate_of_version_1_is_named_as_one() {
        let der = certificate(|_| {});
        assert_eq!((version(&der), too_old(&der)), (Some(3), None));
        // As `openssl x509 -req` makes it without extensions: no version is written, which means 1.
        let old = [SEQUENCE, 5, SEQUENCE, 3, INTEGER, 1, 7];
        assert_eq!(version(&old), Some(1));
        assert!(too_old(&old).unwrap().contains("version 1 certificate"));
        assert_eq!(version(b"nothing"), None);
    }

    #[test]
    fn the_end_of_a_list_of_revoked_certificates_is_read() {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
        let issuer = rcgen::Issuer::new(params, KeyPair::generate().unwrap());
        let list = rcgen::CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2031, 2, 28),
            crl_number: rcgen::SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        assert_eq!(next_update(list.signed_by(&issuer).unwrap().der()), Some(1_930_003_200));
        assert_eq!(next_update(&certificate(|_| {})), None, "a certificate is none");
    }

    #[test]
    fn other_kinds_of_text_and_years_are_read_and_two_common_names_are_none() {
        let der = certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, DnValue::BmpString("Ω".try_into().unwrap()));
            params.not_after = date_time_ymd(2061, 1, 1);
        });
        assert!(Names::of(&der).are_among(&[ClientSubject::CommonName("Ω".into())]));
        assert_eq!(not_after(&der), Some(2_871_763_200));
        let pair: Vec<u8> =
            [b"a", b"b"].iter().flat_map(|cn| [&[SET, 10, SEQUENCE, 8, OBJECT_ID, 3, 0x55, 4, 3, 0x0C, 1][..], *cn].concat()).collect();
        let commons: Vec<String> = Der(&pair).filter_map(|(_, set)| common_name(set)).collect();
        assert_eq!(commons, ["a", "b"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let mut der = certificate(|_| {});
            let at = at.index(der.len());
            der[at] = byte;
            for bytes in [&der, &bytes] {
                let _either = (not_after(bytes), Names::of(bytes), version(bytes), next_update(bytes));
            }
        }
    }
}
