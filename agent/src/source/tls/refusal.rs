//! Why a TLS handshake failed, in words somebody on site can act upon.
//!
//! `reason` is pure: it sorts the library's errors into the closed list of oddities. `Refusals` tells them: counted each, raised as a
//! condition, and logged once in a while per kind, because a sender that is set up wrong comes back every second.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use rustls::{AlertDescription, CertificateError, Error as Tls, InvalidMessage};
use tokio::time::Instant;

use super::certificate::Names;
use crate::record::FeedId;
use crate::source::oddity::{Oddity, PeerConditions};
use crate::source::port::Limited;
use crate::status::board::FeedCounters;

/// A certificate that is good but not on the list.
#[derive(Debug, thiserror::Error)]
#[error("the certificate's names are not in client_subjects")]
pub(super) struct SubjectUnknown(pub(super) Names);

/// What it was, and details for the log; `None` for a connection that just went away (port checks do that all day).
pub(super) fn reason(error: &io::Error) -> Option<(Oddity, String)> {
    let tls = error.get_ref()?.downcast_ref::<Tls>()?;
    let plain = |oddity| Some((oddity, String::new()));
    let detailed = |oddity| Some((oddity, tls.to_string()));
    match tls {
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => plain(Oddity::PlainOnTlsPort),
        Tls::NoCertificatesPresented => plain(Oddity::NoClientCertificate),
        Tls::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => plain(Oddity::ClientCaUnknown),
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => detailed(Oddity::ClientCertificateDates),
            CertificateError::Other(other) => match other.0.downcast_ref::<SubjectUnknown>() {
                Some(SubjectUnknown(names)) => Some((Oddity::ClientSubjectUnknown, format!("its names: {names}"))),
                None => detailed(Oddity::ClientCertificateUnusable),
            },
            _ => detailed(Oddity::ClientCertificateUnusable),
        },
        Tls::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::DecryptError,
        ) => detailed(Oddity::OurCertificateRefused),
        Tls::PeerIncompatible(_) | Tls::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure) => {
            detailed(Oddity::TlsVersions)
        }
        _ => detailed(Oddity::TlsFailed),
    }
}

/// Whom a refusal concerns.
#[derive(Debug)]
pub struct Told<'a> {
    pub feed: &'a FeedId,
    pub counters: &'a FeedCounters,
    pub conditions: &'a PeerConditions,
}

/// Tells refusals of one listener without letting one peer fill the log.
#[derive(Debug, Default)]
pub struct Refusals {
    lines: Mutex<HashMap<&'static str, Limited>>,
}

impl Refusals {
    pub fn tell(&self, to: &Told<'_>, oddity: Oddity, peer: &str, detail: &str) {
        to.counters.connections_refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.note(to, oddity, peer, detail);
    }

    /// The same for a connection that goes on.
    pub fn note(&self, to: &Told<'_>, oddity: Oddity, peer: &str, detail: &str) {
        to.conditions.raise(oddity, peer, std::time::Instant::now());
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(unsaid) = lines.entry(oddity.name()).or_default().due(Instant::now()) else { return };
        drop(lines);
        tracing::warn!(feed = %to.feed, %peer, oddity = oddity.name(), unsaid, detail, "{}", oddity.text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tls_says_becomes_what_to_do() {
        let of = |tls: Tls| reason(&io::Error::new(io::ErrorKind::InvalidData, tls)).map(|(oddity, _)| oddity);
        assert_eq!(of(Tls::InvalidMessage(InvalidMessage::InvalidContentType)), Some(Oddity::PlainOnTlsPort));
        assert_eq!(of(Tls::NoCertificatesPresented), Some(Oddity::NoClientCertificate));
        assert_eq!(of(Tls::InvalidCertificate(CertificateError::UnknownIssuer)), Some(Oddity::ClientCaUnknown));
        assert_eq!(of(Tls::InvalidCertificate(CertificateError::Expired)), Some(Oddity::ClientCertificateDates));
        assert_eq!(of(Tls::InvalidCertificate(CertificateError::InvalidPurpose)), Some(Oddity::ClientCertificateUnusable));
        assert_eq!(of(Tls::AlertReceived(AlertDescription::UnknownCA)), Some(Oddity::OurCertificateRefused));
        assert_eq!(of(Tls::AlertReceived(AlertDescription::ProtocolVersion)), Some(Oddity::TlsVersions));
        assert_eq!(of(Tls::AlertReceived(AlertDescription::UserCanceled)), Some(Oddity::TlsFailed));
        assert_eq!(reason(&io::ErrorKind::UnexpectedEof.into()), None);
    }
}
