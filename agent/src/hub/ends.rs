//! Until when what the desk itself needs is good: its own certificates, and the lists of revoked certificates that other authorities end.
//!
//! ```text
//!   PEM files ──────────────────┐
//!   state: identities, lists ───┴─► End { what, at } ─► from 60 days before: a sentence, twice a day ─► log of receive, enroll serve, fleet serve
//!                                                   └─► `fleet serve --metrics`
//! ```
//!
//! Whoever shows a certificate that has ended is refused by the broker, and a list that has ended shuts out every certificate of its authority: then
//! no receipt comes, and gateways hold what they have until they are full. So every long-lived verb of the desk looks at what it needs. A file that
//! cannot be read is said too, and looked at again: it may be under way. Judging and wording are pure.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::enrolment::state::State;
use crate::clock;
use crate::limits::{DESK_END_FILE_BYTES_MAX, DESK_END_LOOK, DESK_END_REPEAT, DESK_END_URGENT, DESK_END_WARNING};
use crate::source::tls::certificate;

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Certificate,
    /// A list of revoked certificates.
    List,
}

/// Something with an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub kind: Kind,
    /// A file, or a name that the desk gave.
    pub what: String,
    /// Seconds since 1970.
    pub at: i64,
}

/// What is said of one, and how loudly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub is_urgent: bool,
    pub text: String,
}

impl End {
    /// `None`: it is good for longer than anybody has to know. `now`: seconds since 1970.
    pub fn told(&self, now: i64) -> Option<Told> {
        let left = self.at.saturating_sub(now);
        if left > DESK_END_WARNING.as_secs().cast_signed() {
            return None;
        }
        let at = clock::rfc3339(self.at.saturating_mul(1000));
        let when = if left <= 0 { format!("has ended at {at}") } else { format!("ends in {} days, at {at}", left / (24 * 3600)) };
        let rest = match self.kind {
            Kind::Certificate => {
                "whoever shows it is refused by the broker then; make the next one with `siteward-hub enroll identity --again`, or have it issued"
            }
            Kind::List => {
                "the broker refuses every certificate of that authority then; get its next list, and run `siteward-hub broker mosquitto` with it"
            }
        };
        let text = format!("{} {when}: {rest} (runbook, \"Rotate keys and secrets\")", self.what);
        Some(Told { is_urgent: left <= DESK_END_URGENT.as_secs().cast_signed(), text })
    }
}

/// The first end of what a PEM file holds. The error is a sentence.
pub fn of_file(path: &Path) -> Result<End, String> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).and_then(|file| file.take(DESK_END_FILE_BYTES_MAX).read_to_end(&mut bytes));
    opened.map_err(|error| format!("{}: cannot be read, so nobody knows when it ends: {error}", path.display()))?;
    of_pem(&path.display().to_string(), &bytes).ok_or_else(|| {
        format!("{}: holds no certificate and no list of revoked certificates with an end (PEM); nobody knows when it ends", path.display())
    })
}

/// The same of PEM text.
pub fn of_pem(what: &str, pem: &[u8]) -> Option<End> {
    let certificates = CertificateDer::pem_slice_iter(pem).flatten().filter_map(|der| certificate::not_after(&der));
    let lists = CertificateRevocationListDer::pem_slice_iter(pem).flatten().filter_map(|der| certificate::next_update(&der));
    let all = certificates.map(|at| (at, Kind::Certificate)).chain(lists.map(|at| (at, Kind::List)));
    all.min_by_key(|(at, _)| *at).map(|(at, kind)| End { kind, what: what.to_owned(), at })
}

/// What the desk's state knows: its identities, and the lists that the broker was given last.
pub fn of_state(state: &State) -> Result<Vec<End>, String> {
    let identities = state.identities()?.into_iter().filter_map(|identity| {
        let at = identity.certificate.not_after?;
        Some(End { kind: Kind::Certificate, what: format!("the certificate of {}", identity.name), at })
    });
    let lists = state.lists()?.into_iter().filter_map(|list| Some(End { kind: Kind::List, what: list.file, at: list.ends? }));
    Ok(identities.chain(lists).collect())
}

/// What a process of the desk looks at.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub files: Vec<PathBuf>,
    pub state: Option<State>,
}

impl Sources {
    /// All ends, each once, and what could not be looked at.
    pub fn look(&self) -> (Vec<End>, Vec<String>) {
        let (mut ends, mut faults) = (Vec::new(), Vec::new());
        match self.state.as_ref().map(of_state) {
            Some(Ok(known)) => ends = known,
            Some(Err(why)) => faults.push(why),
            None => {}
        }
        for file in &self.files {
            match of_file(file) {
                // Our own certificate is one of the identities, as a rule.
                Ok(end) if ends.iter().any(|known| (known.kind, known.at) == (end.kind, end.at)) => {}
                Ok(end) => ends.push(end),
                Err(why) => faults.push(why),
            }
        }
        (ends, faults)
    }
}

/// What is to be said now, the loudest first.
pub fn told(ends: &[End], now: i64) -> Vec<Told> {
    let mut all: Vec<Told> = ends.iter().filter_map(|end| end.told(now)).collect();
    all.sort_by_key(|told| !told.is_urgent);
    all
}

/// Looks for ever: says what ends soon at once and twice a day, and hands every look on. For a task that is ended from outside.
pub async fn watch(sources: Sources, mut seen: impl FnMut(Vec<End>) + Send) {
    let mut said: Option<tokio::time::Instant> = None;
    loop {
        let look = sources.clone();
        // A look that panics is a defect of ours; the next one is an hour away.
        if let Ok((ends, faults)) = tokio::task::spawn_blocking(move || look.look()).await {
            if said.is_none_or(|said| said.elapsed() >= DESK_END_REPEAT.saturating_sub(Duration::from_secs(1))) {
                said = Some(tokio::time::Instant::now());
                for fault in &faults {
                    tracing::warn!("{fault}");
                }
                for told in told(&ends, clock::now().unix_ms / 1000) {
                    if told.is_urgent {
                        tracing::error!("{}", told.text);
                    } else {
                        tracing::warn!("{}", told.text);
                    }
                }
            }
            seen(ends);
        }
        tokio::time::sleep(DESK_END_LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    #[test]
    fn an_end_is_said_from_sixty_days_before() {
        let end = End { kind: Kind::Certificate, what: "receiver.pem".into(), at: 1_900_000_000 };
        assert_eq!(end.told(end.at - 61 * DAY), None);
        let told = end.told(end.at - 60 * DAY).unwrap();
        assert!(!told.is_urgent && told.text.starts_with("receiver.pem ends in 60 days, at 2030-03-17"), "{}", told.text);
        assert!(told.text.contains("enroll identity --again"), "{}", told.text);
        assert!(end.told(end.at - 7 * DAY).unwrap().is_urgent);
        let list = End { kind: Kind::List, ..end };
        let told = list.told(list.at + DAY).unwrap();
        assert!(told.is_urgent && told.text.contains("has ended at") && told.text.contains("every certificate of that authority"));
    }

    #[test]
    fn the_first_end_in_a_file_counts_and_a_file_without_one_is_said() {
        let pem = |year| {
            let mut params = rcgen::CertificateParams::default();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("chain.pem");
        std::fs::write(&file, [pem(2040), pem(2031)].concat()).unwrap();
        let end = of_file(&file).unwrap();
        assert_eq!((end.kind, end.at), (Kind::Certificate, 1_924_992_000));
        std::fs::write(&file, "nothing").unwrap();
        let sources = Sources { files: vec![file, directory.path().join("missing")], state: None };
        let (ends, faults) = sources.look();
        assert_eq!((ends.len(), faults.len()), (0, 2), "{faults:?}");
        assert!(faults[0].contains("holds no certificate") && faults[1].contains("cannot be read"), "{faults:?}");
    }
}
