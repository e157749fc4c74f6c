//! What a rollout is to do: which document for which gateway, in which waves, with what patience. Made once, written down, never changed. Pure.
//!
//! Waves are given cumulatively (`1,10%,50%,100%`): each ends where so many gateways have the document. Gateways that were online when the plan was
//! made come first, in the order in which they were named: a first wave that nobody is there to try proves nothing.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use crate::config::duration_of;
use crate::limits::{SOAK_DEFAULT, SOAK_MAX, WAVES_MAX};
use crate::record::{DocumentDigest, Name};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Names this rollout in the journal.
    pub id: String,
    pub targets: Vec<Target>,
    /// Where each wave ends among the targets; strictly growing, the last at the end.
    pub waves: Vec<usize>,
    /// The rest after each wave but the last, in seconds.
    pub soak_s: Vec<u64>,
    pub window: Option<Window>,
    pub threshold: Threshold,
    /// How long a gateway that is there may say nothing before the document is published again, in seconds.
    pub grace_s: u64,
}

/// One gateway and what it is to get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub site: Name,
    pub gateway: Name,
    pub revision: u64,
    /// Of the document.
    pub digest: DocumentDigest,
    /// Of the envelope, signatures included: exactly these bytes are published.
    pub envelope: DocumentDigest,
    /// The document's own deadline, in seconds.
    pub trial_s: u64,
    /// IANA name; needed where there is a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl Target {
    pub fn name(&self) -> String {
        format!("{}/{}", self.site, self.gateway)
    }
}

impl Plan {
    /// The gateways of a wave.
    pub fn wave(&self, wave: usize) -> std::ops::Range<usize> {
        let from = if wave == 0 { 0 } else { self.waves[wave - 1] };
        from..self.waves[wave]
    }

    /// The rest after a wave.
    pub fn soak_ms(&self, wave: usize) -> i64 {
        let seconds = self.soak_s.get(wave).or(self.soak_s.last()).copied().unwrap_or(0);
        i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
    }

    /// Whether a gateway may be given something new now.
    pub fn is_open(&self, target: usize, now_ms: i64) -> bool {
        let Some(window) = &self.window else { return true };
        let zone = self.targets[target].zone.as_deref().and_then(zone);
        zone.is_some_and(|zone| window.holds(&zone, now_ms))
    }
}

/// A time zone by its name, from the compiled-in data.
pub fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// A part of the day, in minutes of site time; it may go over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub from: u16,
    pub to: u16,
}

impl Window {
    /// `01:00-05:00`
    pub fn parse(text: &str) -> Result<Self, String> {
        let minute = |text: &str| -> Option<u16> {
            let (hours, minutes) = text.trim().split_once(':')?;
            let plain = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
            let (h, m): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            (plain(hours) && plain(minutes) && h < 24 && m < 60).then_some(h * 60 + m)
        };
        let read = text.split_once('-').and_then(|(from, to)| Some(Self { from: minute(from)?, to: minute(to)? }));
        read.filter(|window| window.from != window.to)
            .ok_or_else(|| format!("{text:?} is not a part of the day; write it like 01:00-05:00"))
    }

    fn holds(self, zone: &TimeZone, now_ms: i64) -> bool {
        let at = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone());
        let minute = u16::try_from(i32::from(at.hour()) * 60 + i32::from(at.minute())).unwrap_or(0);
        if self.from < self.to { (self.from..self.to).contains(&minute) } else { minute >= self.from || minute < self.to }
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}:{:02}-{:02}:{:02}", self.from / 60, self.from % 60, self.to / 60, self.to % 60)
    }
}

/// How many gateways may fail before the rollout stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    Count(usize),
    /// Of the gateways in the waves that have begun, rounded down.
    Percent(u8),
}

impl Threshold {
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a number of gateways nor a percentage below 100; write 0, 3 or 5%");
        match text.strip_suffix('%') {
            Some(percent) => percent.parse::<u8>().ok().filter(|p| *p < 100).map(Self::Percent).ok_or_else(wrong),
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
        }
    }

    pub fn allows(self, begun: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => begun * usize::from(percent) / 100,
        }
    }
}

/// `1,10%,50%,100%` for so many gateways: where each wave ends.
pub fn waves(text: &str, gateways: usize) -> Result<Vec<usize>, String> {
    let mut ends = Vec::new();
    for part in text.split(',').map(str::trim) {
        let wrong = || format!("--waves: {part:?} is neither a number of gateways nor a percentage; write 1,10%,50%,100%");
        let end = match part.strip_suffix('%') {
            Some(percent) => {
                let percent = percent.parse::<usize>().ok().filter(|p| (1..=100).contains(p)).ok_or_else(wrong)?;
                (gateways * percent).div_ceil(100)
            }
            None => part.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(wrong)?.min(gateways),
        };
        match ends.last() {
            Some(last) if end < *last => {
                return Err(format!("--waves: {part:?} is less than the wave before; each says how many gateways have it then"));
            }
            Some(last) if end == *last => {} // few gateways: the waves fall together
            _ => ends.push(end),
        }
    }
    if ends.last() != Some(&gateways) {
        return Err("--waves: the last wave must be 100%".to_owned());
    }
    if ends.len() > WAVES_MAX {
        return Err(format!("--waves: has more than {WAVES_MAX} waves"));
    }
    Ok(ends)
}

/// `24h,1h`: after the first wave, and after each later one.
pub fn soak(text: Option<&str>) -> Result<Vec<u64>, String> {
    let Some(text) = text else { return Ok(SOAK_DEFAULT.map(|soak| soak.as_secs()).to_vec()) };
    let read = |part: &str| {
        let soak = if part.trim() == "0" { Some(Duration::ZERO) } else { duration_of(part.trim()) };
        let soak = soak.filter(|soak| *soak <= SOAK_MAX).map(|soak| soak.as_secs());
        soak.ok_or_else(|| format!("--soak: {part:?} is not a duration of at most 31 days; write 24h,1h"))
    };
    text.split(',').map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_end_where_so_many_gateways_have_the_document() {
        assert_eq!(waves("1,10%,50%,100%", 300), Ok(vec![1, 30, 150, 300]));
        assert_eq!(waves("1,10%,50%,100%", 3), Ok(vec![1, 2, 3]), "small fleets have fewer waves");
        assert_eq!(waves("100%", 1), Ok(vec![1]));
        assert_eq!(waves("5,100%", 3), Ok(vec![3]));
        for bad in ["", "0", "1,50%", "50%,10%,100%", "1,101%", "x", "-1,100%", "0%,100%"] {
            assert!(waves(bad, 300).is_err(), "{bad}");
        }
    }

    #[test]
    fn soak_window_and_threshold_are_read_strictly() {
        assert_eq!(soak(None), Ok(vec![86_400, 3600]));
        assert_eq!(soak(Some("2m,0")), Ok(vec![120, 0]));
        assert!(soak(Some("soon")).is_err() && soak(Some("32d")).is_err());
        assert_eq!(Threshold::parse("5%").unwrap().allows(100), 5);
        assert_eq!(Threshold::parse("5%").unwrap().allows(10), 0, "one canary that fails is one too many");
        assert_eq!(Threshold::parse("2").unwrap().allows(1), 2);
        assert!(Threshold::parse("100%").is_err() && Threshold::parse("some").is_err());
        let night = Window::parse("22:30-05:00").unwrap();
        assert_eq!(night.to_string(), "22:30-05:00");
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        let (berlin, york) = (zone("Europe/Berlin").unwrap(), zone("America/New_York").unwrap());
        assert!(night.holds(&berlin, at("2026-11-23T21:30:00Z")) && night.holds(&berlin, at("2026-11-23T03:59:00Z")));
        assert!(!night.holds(&berlin, at("2026-11-23T04:00:00Z")) && !night.holds(&york, at("2026-11-23T21:30:00Z")));
        for bad in ["", "01:00", "1:00-5:00", "01:00-24:00", "05:00-05:00", "01:00-05:60"] {
            assert!(Window::parse(bad).is_err(), "{bad}");
        }
    }
}
