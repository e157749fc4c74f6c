//! What a feed says about itself: who owns it, how much it matters, and what was promised. Shown, never acted on.

use std::time::Duration;

use jiff::civil::Date;
use toml::de::DeValue;

use super::fault::FaultList;
use super::header::remark;
use super::reader::{Field, Section, choice, duration};
use super::validate::{ranged, within};
use crate::limits::DELIVERY_OBJECTIVE_RANGE;

/// All of it optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Whom to call.
    pub owner: Option<String>,
    pub criticality: Option<Criticality>,
    /// The oldest message that the hub has not confirmed is to be no older than this.
    pub delivery_objective: Option<Duration>,
    pub data_class: Option<DataClass>,
    /// Of the interface agreement with the sender.
    pub contract_version: Option<String>,
    /// The day from which the feed is not needed any more.
    pub sunset: Option<Date>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criticality {
    High,
    Medium,
    Low,
}

impl Criticality {
    pub const WORDS: [(&'static str, Self); 3] = [("high", Self::High), ("medium", Self::Medium), ("low", Self::Low)];

    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize].0
    }
}

/// What is in its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataClass {
    /// Patient data.
    Phi,
    Confidential,
    Internal,
    Public,
}

impl DataClass {
    pub const WORDS: [(&'static str, Self); 4] =
        [("phi", Self::Phi), ("confidential", Self::Confidential), ("internal", Self::Internal), ("public", Self::Public)];

    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize].0
    }
}

#[derive(Debug)]
pub(super) struct Written {
    owner: Field<String>,
    criticality: Field<Criticality>,
    delivery_objective: Field<Duration>,
    data_class: Field<DataClass>,
    contract_version: Field<String>,
    sunset: Field<Date>,
}

/// The keys stand in `[[feed]]` itself.
pub(super) fn read(s: &mut Section<'_, '_>, f: &mut FaultList) -> Written {
    Written {
        owner: s.read(f, "owner", remark),
        criticality: s.read(f, "criticality", choice(&Criticality::WORDS)),
        delivery_objective: s.read(f, "delivery_objective", duration),
        data_class: s.read(f, "data_class", choice(&DataClass::WORDS)),
        contract_version: s.read(f, "contract_version", remark),
        sunset: s.read(f, "sunset", date),
    }
}

/// Nothing in it has a default, so this is the only stage behind reading.
pub(super) fn validate(w: &Written, f: &mut FaultList) -> About {
    let objective = w.delivery_objective.given();
    About {
        owner: w.owner.given().map(|at| at.value.clone()),
        criticality: w.criticality.given().map(|at| at.value),
        delivery_objective: ranged(objective, within(DELIVERY_OBJECTIVE_RANGE), "\"1s\" to \"30d\"", f),
        data_class: w.data_class.given().map(|at| at.value),
        contract_version: w.contract_version.given().map(|at| at.value.clone()),
        sunset: w.sunset.given().map(|at| at.value),
    }
}

/// As text or as TOML's own date.
fn date(value: &DeValue<'_>) -> Result<Date, String> {
    let text = match value {
        DeValue::Datetime(at) => at.to_string(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    if text.len() != 10 {
        return Err("is not a day; write one like \"2028-06-30\"".to_owned());
    }
    text.parse().map_err(|_| "is not a day; write one like \"2028-06-30\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_text;
    use crate::config::tests::{faults, with};

    #[test]
    fn a_feed_says_what_it_is_asked_and_no_nonsense() {
        let all = "owner = \"OR desk\"\ncriticality = \"high\"\ndelivery_objective = \"15m\"\ndata_class = \"phi\"\ncontract_version = \"2.1\"\n\
                   sunset = 2028-06-30\n[feed.mllp]";
        let settings = parse_text("siteward.toml".as_ref(), &with("[feed.mllp]", all)).unwrap();
        let about = About {
            owner: Some("OR desk".into()),
            criticality: Some(Criticality::High),
            delivery_objective: Some(Duration::from_mins(15)),
            data_class: Some(DataClass::Phi),
            contract_version: Some("2.1".into()),
            sunset: Some(jiff::civil::date(2028, 6, 30)),
        };
        assert_eq!(settings.feeds[0].about, about);
        for (line, told) in [
            ("sunset = \"30 June\"", "is not a day"),
            ("sunset = 2028-06-30T00:00:00Z", "is not a day"),
            ("sunset = 7", "is not a day"),
            ("delivery_objective = \"0s\"", "is out of range"),
            ("criticality = 1", "must be \"high\" or \"medium\" or \"low\""),
        ] {
            let found = faults(&with("[feed.mllp]", &format!("{line}\n[feed.mllp]")));
            assert!(found.contains(told) && !found.contains('\n'), "{found}");
        }
        for (index, (word, meaning)) in Criticality::WORDS.into_iter().enumerate() {
            assert_eq!((meaning.as_str(), meaning as usize), (word, index));
        }
        for (index, (word, meaning)) in DataClass::WORDS.into_iter().enumerate() {
            assert_eq!((meaning.as_str(), meaning as usize), (word, index));
        }
    }
}
