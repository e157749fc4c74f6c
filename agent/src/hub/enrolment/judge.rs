//! What becomes of a request to enrol. Pure: a record, a request and a time in, a verdict out.

use super::state::{Record, Used};
use crate::clock;
use crate::enrolment::proof::{About, Request, print_of, short};
use crate::record::Name;
use crate::uplink::csr::{self, Asked};

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came<'a> {
    pub site: &'a Name,
    pub gateway: &'a Name,
    /// As the topic has it.
    pub key: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody we know says so: no answer. The sentence is for the desk.
    Ignore(&'static str),
    /// Told to the box.
    Refuse { key: String, code: &'static str, why: String },
    /// This key was given a certificate before; it gets the same.
    Again { key: String, chain: String },
    /// This key waits for another authority.
    Waiting { key: String },
    /// A new key may have a certificate.
    Issue { key: String, asked: Asked },
}

/// See the module. `now`: seconds since 1970.
pub(super) fn judge(record: Option<&Record>, came: Came<'_>, request: &Request, now: i64) -> Verdict {
    let Some(record) = record else { return Verdict::Ignore("names a bundle that this desk did not make") };
    let about = About { bundle: &record.bundle, site: &record.site, gateway: &record.gateway };
    if (came.site, came.gateway) != (&record.site, &record.gateway) {
        return Verdict::Ignore("names a bundle of another gateway");
    }
    if !request.is_proven(&record.verifier, about) {
        return Verdict::Ignore("does not prove the secret of its bundle; it was changed on its way, or somebody tries");
    }
    let asked = match csr::read(&request.csr) {
        Ok(asked) => asked,
        Err(why) => return Verdict::Refuse { key: came.key.to_owned(), code: "request_unusable", why: format!("the request {why}") },
    };
    let key = print_of(&asked.public_key);
    if short(&key) != came.key {
        return Verdict::Ignore("came under the name of another key");
    }
    let refuse = |code, why| Verdict::Refuse { key: key.clone(), code, why };
    if let Some(retired) = &record.retired {
        let at = rfc3339(retired.at);
        return refuse("bundle_retired", format!("this bundle was withdrawn at {at} ({}); use the newest one of central IT", retired.why));
    }
    if asked.common_name != record.subject {
        return refuse("other_name", format!("the request is in another name than {}; enrol with the bundle as it is", record.subject));
    }
    match &record.used {
        Some(Used { key: first, at, .. }) if *first != key => refuse(
            "bundle_used",
            format!(
                "this bundle was used by another box at {}, key {}; if that was not you, tell central IT at once. Ask them for a new bundle",
                rfc3339(*at),
                short(first)
            ),
        ),
        Some(Used { chain: Some(chain), .. }) => Verdict::Again { key, chain: chain.clone() },
        Some(Used { chain: None, .. }) => Verdict::Waiting { key },
        None if now > record.not_after => {
            refuse("bundle_expired", format!("this bundle ended at {}; ask central IT for a new one", rfc3339(record.not_after)))
        }
        None => Verdict::Issue { key, asked },
    }
}

fn rfc3339(seconds: i64) -> String {
    clock::rfc3339(seconds.saturating_mul(1000))
}

#[cfg(test)]
pub(crate) mod tests {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::super::state::Retired;
    use super::*;
    use crate::enrolment::proof::Verifier;

    pub(crate) fn record() -> Record {
        Record {
            schema: 1,
            bundle: "0123456789abcdef0123456789abcdef".into(),
            site: Name::new("st-marys").unwrap(),
            gateway: Name::new("st-marys-gw1").unwrap(),
            subject: "st-marys.st-marys-gw1.01234567".into(),
            enrolment_subject: "enrol.0123456789abcdef".into(),
            enrolment_serial: "40".repeat(16),
            verifier: Verifier::of(&[7; 32]),
            issued_at: 1_800_000_000,
            not_after: 1_801_000_000,
            by: "kim".into(),
            outside: false,
            replaces: None,
            used: None,
            csr: None,
            certificates: Vec::new(),
            retired: None,
        }
    }

    fn request(record: &Record, subject: &str) -> (Request, String) {
        let key = csr::key().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let print = print_of(&csr::public_key(key.secret_der()).unwrap());
        let about = About { bundle: &record.bundle, site: &record.site, gateway: &record.gateway };
        (Request::new(&record.verifier, about, csr::request(key.secret_der(), subject).unwrap()), print)
    }

    fn code(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Ignore(_) => "ignore",
            Verdict::Refuse { code, .. } => code,
            Verdict::Again { .. } => "again",
            Verdict::Waiting { .. } => "waiting",
            Verdict::Issue { .. } => "issue",
        }
    }

    #[test]
    fn a_bundle_counts_once_in_time_and_for_its_own_gateway() {
        let record = record();
        let (request, print) = request(&record, &record.subject);
        let came = Came { site: &record.site, gateway: &record.gateway, key: short(&print) };
        let judged = |record: &Record, came, request: &Request, now| code(&judge(Some(record), came, request, now));
        let now = record.not_after;
        assert_eq!(judged(&record, came, &request, now), "issue");
        assert_eq!(judged(&record, came, &request, now + 1), "bundle_expired");
        assert_eq!(code(&judge(None, came, &request, now)), "ignore");
        let other = Name::new("other").unwrap();
        assert_eq!(judged(&record, Came { gateway: &other, ..came }, &request, now), "ignore");
        assert_eq!(judged(&record, Came { key: "0011223344556677", ..came }, &request, now), "ignore");
        let changed = Request { csr: request.csr.replacen('A', "B", 1), ..request.clone() };
        assert_eq!(judged(&record, came, &changed, now), "ignore");
        let used = |chain: Option<&str>| Some(Used { at: now, key: print.clone(), chain: chain.map(str::to_owned) });
        let mut mine = Record { used: used(Some("pem")), ..record.clone() };
        assert_eq!(judged(&mine, came, &request, now + 99), "again", "the same box may ask for ever");
        mine.used = used(None);
        assert_eq!(judged(&mine, came, &request, now), "waiting");
        mine.used = Some(Used { at: now, key: "another".into(), chain: None });
        assert_eq!(judged(&mine, came, &request, now), "bundle_used");
        mine.retired = Some(Retired { at: now, by: "kim".into(), why: "lost".into() });
        assert_eq!(judged(&mine, came, &request, now), "bundle_retired");
    }

    #[test]
    fn a_request_in_another_name_or_of_no_use_is_refused() {
        let record = record();
        let (request, print) = request(&record, "st-marys.st-marys-gw2.01234567");
        let came = Came { site: &record.site, gateway: &record.gateway, key: short(&print) };
        assert_eq!(code(&judge(Some(&record), came, &request, 0)), "other_name");
        let about = About { bundle: &record.bundle, site: &record.site, gateway: &record.gateway };
        let nonsense = Request::new(&record.verifier, about, "nonsense".into());
        assert_eq!(code(&judge(Some(&record), came, &nonsense, 0)), "request_unusable");
    }
}
