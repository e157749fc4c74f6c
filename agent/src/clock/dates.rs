//! The one rule for the dates of certificates, the hub's and the senders'.
//!
//! A certificate is checked at our own time. Refused for its dates alone, it is checked at the last time that the hub confirmed, where there is
//! one; and where our clock cannot be believed, at a time within its dates: a wrong clock must not cost a site its hub or a feed its senders
//! (I10). A believed clock refuses what has ended. Names, chain and signatures are always checked; a certificate that is refused for anything
//! else stays refused.

use std::time::{Duration, Instant};

use rustls::CertificateError;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::{own, system_ms};

/// Our own time, for rustls.
#[derive(Debug)]
pub(crate) struct OwnTime;

fn unix(unix_ms: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(unix_ms.max(0).unsigned_abs()))
}

impl TimeProvider for OwnTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(own().times(system_ms(), Instant::now()).0))
    }
}

/// Whose certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Hub,
    Sender,
}

/// The time at which a certificate refused for its dates was good, if dates were the reason.
fn a_time_within(error: &rustls::Error) -> Option<UnixTime> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => Some(*not_before),
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => Some(*not_after),
        _ => None,
    }
}

/// Certificates in a chain have different dates; each retry moves the time into the dates of one more.
const DATE_RETRIES: usize = 4;

/// How a certificate passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    InTime,
    /// Its dates were forgiven.
    Forgiven,
}

/// Pure but for `check`.
pub(crate) fn judge<T>(
    believed: bool,
    now: UnixTime,
    confirmed: Option<UnixTime>,
    check: impl Fn(UnixTime) -> Result<T, rustls::Error>,
) -> Result<(T, Passed), rustls::Error> {
    let mut verdict = check(now);
    if believed {
        return verdict.map(|good| (good, Passed::InTime));
    }
    if let (Err(error), Some(at)) = (&verdict, confirmed)
        && a_time_within(error).is_some()
        && let Ok(good) = check(at)
    {
        return Ok((good, Passed::InTime));
    }
    let mut passed = Passed::InTime;
    for _ in 0..DATE_RETRIES {
        let Some(at) = verdict.as_ref().err().and_then(a_time_within) else { break };
        (verdict, passed) = (check(at), Passed::Forgiven);
    }
    verdict.map(|good| (good, passed))
}

/// Checks a certificate by the rule above; `now` is what rustls has from [`OwnTime`].
pub(crate) fn check<T>(whose: Whose, now: UnixTime, check: impl Fn(UnixTime) -> Result<T, rustls::Error>) -> Result<T, rustls::Error> {
    let (system, instant) = (system_ms(), Instant::now());
    let (believed, confirmed) = {
        let own = own();
        (own.believed(system, instant), own.times(system, instant).1)
    };
    let (good, passed) = judge(believed, now, confirmed.map(unix), check)?;
    let forgiven = passed == Passed::Forgiven;
    match whose {
        Whose::Hub => own().hub_checked(forgiven),
        Whose::Sender if forgiven => own().sender_forgiven(instant),
        Whose::Sender => {}
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    /// A chain of which one certificate is good from 10 to 20 and the other from 15 to 30.
    fn chain(time: UnixTime) -> Result<(), rustls::Error> {
        for (not_before, not_after) in [(10, 20), (15, 30)] {
            let error = if time < at(not_before) {
                CertificateError::NotValidYetContext { time, not_before: at(not_before) }
            } else if time > at(not_after) {
                CertificateError::ExpiredContext { time, not_after: at(not_after) }
            } else {
                continue;
            };
            return Err(rustls::Error::InvalidCertificate(error));
        }
        Ok(())
    }

    /// I10: 1970 and far in the future; and nothing is taken by a clock that can be believed.
    #[test]
    fn dates_alone_refuse_nobody_unless_the_clock_is_believed() {
        for time in [0, 12, 25, 1000] {
            assert_eq!(judge(false, at(time), None, chain).unwrap().1, Passed::Forgiven, "{time}");
            assert!(judge(true, at(time), Some(at(17)), chain).is_err(), "{time}");
        }
        assert_eq!(judge(false, at(17), None, chain).unwrap().1, Passed::InTime);
        assert_eq!(judge(true, at(17), None, chain).unwrap().1, Passed::InTime);
        assert_eq!(judge(false, at(1000), Some(at(17)), chain).unwrap().1, Passed::InTime, "by the last confirmed time");
    }

    #[test]
    fn whatever_else_is_wrong_stays_wrong() {
        let wrong = |time| match chain(time) {
            Ok(()) => Err::<(), _>(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)),
            other => other,
        };
        for believed in [true, false] {
            for time in [0, 17, 1000] {
                assert!(judge(believed, at(time), Some(at(17)), wrong).is_err());
            }
        }
    }
}
