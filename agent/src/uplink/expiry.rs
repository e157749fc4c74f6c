//! Watches the ends of the uplink's certificates: our own chain, and the authorities the broker's is checked against.
//!
//! Life cycle: runs beside the connections for as long as the uplink does, looks at every file once an hour and at other settings at once.
//! A file's earliest end counts. Told 60, 30, 7 days and 1 day before (`certificate_expiring`, then `certificate_ending`), each step with a
//! text of its own; a renewed file clears it. While the clock cannot be believed nothing is judged (I10). A file that cannot be read is the
//! next connection's business, which says so.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;

use super::supervisor::tls_files;
use super::tls::{CaSource, TlsFiles};
use crate::clock;
use crate::config::settings::{Endpoint, UplinkSettings};
use crate::limits::{CERTIFICATE_LOOK, CERTIFICATE_STEPS_DAYS};
use crate::source::tls::certificate;
use crate::status::board::Board;
use crate::status::condition::Code;

const DAY: i64 = 24 * 3600;

/// The condition and its text, `left` seconds before `end` (both since 1970). Each step has one text, so that it is told once.
fn step(left: i64, end: i64) -> Option<(Code, String)> {
    let within = CERTIFICATE_STEPS_DAYS.iter().rev().find(|days| left <= **days * DAY)?;
    let when = clock::rfc3339(end * 1000);
    let text = if left <= 0 {
        format!("a certificate in this file has ended, at {when}; renew it now")
    } else {
        format!("a certificate in this file ends within {within} days, at {when}; renew it before")
    };
    let urgent = *within <= CERTIFICATE_STEPS_DAYS[2];
    Some((if urgent { Code::CertificateEnding } else { Code::CertificateExpiring }, text))
}

/// The earliest end in PEM text.
fn earliest(pem: &[u8]) -> Option<i64> {
    CertificateDer::pem_slice_iter(pem).flatten().filter_map(|der| certificate::not_after(&der)).min()
}

/// Looks at everything the settings name; the subjects that were told about.
fn look(settings: &UplinkSettings, board: &Board, told: &BTreeSet<String>) -> BTreeSet<String> {
    if clock::now().suspect {
        return told.clone();
    }
    let now = clock::now().unix_ms.div_euclid(1000);
    let mut seen = BTreeSet::new();
    for endpoint in settings.endpoints.iter().filter(|endpoint| endpoint.tls) {
        let Ok(TlsFiles { ca, cert, .. }) = tls_files(settings, endpoint) else { continue };
        let authority = match &ca {
            CaSource::File(path) => (path.display().to_string(), read(path)),
            CaSource::Inline(pem) => (format!("ca_pem of {endpoint}"), pem.as_bytes().to_vec()),
        };
        let own = cert.filter(|_| counts(settings, endpoint)).map(|path| (path.display().to_string(), read(&path)));
        for (subject, pem) in std::iter::once(authority).chain(own) {
            let found = earliest(&pem).and_then(|end| step(end - now, end));
            for code in [Code::CertificateExpiring, Code::CertificateEnding] {
                match &found {
                    Some((due, text)) if *due == code => board.raise(code, &subject, text.clone()),
                    _ => board.clear(code, &subject),
                }
            }
            seen.insert(subject);
        }
    }
    for gone in told.difference(&seen) {
        board.clear(Code::CertificateExpiring, gone);
        board.clear(Code::CertificateEnding, gone);
    }
    seen
}

/// When our own certificate ends, the earliest where there are several.
fn own_end(settings: &UplinkSettings) -> Option<i64> {
    let ours = settings.endpoints.iter().filter(|endpoint| endpoint.tls && counts(settings, endpoint));
    let files = ours.filter_map(|endpoint| tls_files(settings, endpoint).ok()?.cert);
    files.filter_map(|path| earliest(&read(&path))).min()
}

/// Whether our certificate for this endpoint is one that something depends on: not a candidate, and not the one that a renewal has replaced.
fn counts(settings: &UplinkSettings, endpoint: &Endpoint) -> bool {
    let renewed = |other: &Endpoint| other.identity.as_ref().is_some_and(|identity| !identity.is_candidate);
    match &endpoint.identity {
        Some(identity) => !identity.is_candidate,
        None => !settings.endpoints.iter().any(renewed),
    }
}

/// Certificates only; a key beside them in the file is not looked at.
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

/// Runs for ever.
pub(super) async fn watch(mut wanted: watch::Receiver<Arc<UplinkSettings>>, board: Arc<Board>) {
    let mut told = BTreeSet::new();
    loop {
        let settings = Arc::clone(&wanted.borrow_and_update());
        board.uplink_counters.set_certificate_end(own_end(&settings));
        told = look(&settings, &board, &told);
        tokio::select! {
            Ok(()) = wanted.changed() => {}
            () = tokio::time::sleep(CERTIFICATE_LOOK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::uplink::scripted::some_settings;

    #[test]
    fn each_step_has_one_text_and_the_last_ones_are_errors() {
        let end = 1_930_003_200;
        let told = |days: i64| step(days * DAY, end).map(|(code, text)| (code, text.split(" days").next().unwrap_or_default().to_owned()));
        assert_eq!(told(61), None);
        let within = |days: u8| format!("a certificate in this file ends within {days}");
        assert_eq!(told(60), Some((Code::CertificateExpiring, within(60))));
        assert_eq!(told(31), told(60));
        assert_eq!(told(30), Some((Code::CertificateExpiring, within(30))));
        assert_eq!(told(7), Some((Code::CertificateEnding, within(7))));
        assert_eq!(told(1), Some((Code::CertificateEnding, within(1))));
        assert!(step(0, end).unwrap().1.contains("has ended"));
    }

    #[test]
    fn a_certificate_that_ends_is_told_and_a_renewed_one_clears_it() {
        let key = KeyPair::generate().unwrap();
        let until = |year| {
            let mut params = CertificateParams::new(["hub".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 1, 1);
            params.self_signed(&key).unwrap().pem()
        };
        let (board, mut settings) = (Board::new([]), some_settings());
        let codes = |board: &Board| board.conditions().iter().map(|condition| condition.code).collect::<Vec<_>>();
        let hub = |pem: String| vec![Endpoint::new("hub", 8883, true).added(Some(pem.into()))];
        settings.endpoints = hub(until(2001));
        let told = look(&settings, &board, &BTreeSet::new());
        assert_eq!(codes(&board), ["certificate_ending"]);
        settings.endpoints = hub(until(4000));
        let told = look(&settings, &board, &told);
        assert_eq!(codes(&board), [""; 0]);
        settings.endpoints = hub(until(2001));
        let told = look(&settings, &board, &told);
        settings.endpoints = vec![Endpoint::new("hub", 1883, false)];
        look(&settings, &board, &told);
        assert_eq!(codes(&board), [""; 0], "an endpoint that is gone is nobody's worry");
    }
}
