//! Validation of how a feed's messages are read and answered.

use super::fault::FaultList;
use super::merged::{Feed, Mllp};
use super::reader::Field;
use super::settings::{AnswerSettings, StrictSettings, StrictType};
use crate::limits::{STRICT_ENTRIES_MAX, STRICT_ENTRY_BYTES_MAX};
use crate::source::charset::{Charset, Rule, Unnamed};

pub(super) fn charset(m: &Feed, f: &mut FaultList) -> Option<Rule> {
    let force = m.charset_force.as_ref()?;
    let at = match &m.charset {
        Field::Given(at) => at,
        Field::Bad => return None,
        Field::Absent if force.value => return f.refuse(&force.place, "needs charset beside it, which is what it puts before MSH-18"),
        Field::Absent => return Some(Rule::default()),
    };
    match Charset::named(&at.value) {
        Ok(charset) => Some(Rule { charset: Some(charset), force: force.value }),
        Err(Unnamed::NotTransportable) => {
            f.refuse(&at.place, "cannot be carried by MLLP, whose framing bytes come up inside it; have the sender send UTF-8")
        }
        Err(Unnamed::Unknown) => f.refuse(&at.place, "is not a character set known here; use a name of HL7 table 0211, like \"8859/1\""),
    }
}

pub(super) fn answers(m: &Mllp, f: &mut FaultList) -> Option<AnswerSettings> {
    let strict = &m.strict;
    let types = list(&strict.types, f, "a message type, like \"ADT\" or \"DFT^P03\"", |text| {
        let (code, trigger) = text.split_once('^').map_or((text, None), |(code, trigger)| (code, Some(trigger)));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
        let ok = plain(code) && trigger.is_none_or(plain);
        ok.then(|| StrictType { code: code.to_owned(), trigger: trigger.map(str::to_owned) })
    });
    let versions = list(&strict.versions, f, "a version of HL7, like \"2.5.1\"", |text| {
        let ok = text.starts_with("2.") && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        ok.then(|| text.to_owned())
    });
    let processing_ids = list(&strict.processing_ids, f, "a processing id: \"P\", \"T\" or \"D\"", |text| {
        matches!(text, "P" | "T" | "D").then(|| text.to_owned())
    });
    Some(AnswerSettings {
        allow_missing_control_id: m.allow_missing_control_id.as_ref()?.value,
        app_ack: m.app_ack.as_ref()?.value,
        batch_ack: m.batch_ack.as_ref()?.value,
        strict: StrictSettings { types: types?, versions: versions?, processing_ids: processing_ids? },
    })
}

/// Every entry read, or every faulty one told. A list that is not given takes everything; an empty one would take nothing and is refused.
fn list<T>(field: &Field<Vec<String>>, f: &mut FaultList, what: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let at = match field {
        Field::Given(at) => at,
        Field::Bad => return None,
        Field::Absent => return Some(Vec::new()),
    };
    if at.value.is_empty() || at.value.len() > STRICT_ENTRIES_MAX {
        return f.refuse(&at.place, format!("must list 1 to {STRICT_ENTRIES_MAX} entries; leave it out to take everything"));
    }
    let mut entries = Vec::with_capacity(at.value.len());
    for (index, text) in at.value.iter().enumerate() {
        match Some(text).filter(|text| text.len() <= STRICT_ENTRY_BYTES_MAX).and_then(|text| read(text)) {
            Some(entry) => entries.push(entry),
            None => f.add(&at.place, format!("entry {} is not {what}", index + 1)),
        }
    }
    (entries.len() == at.value.len()).then_some(entries)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{faults, with};

    /// What is replaced in the good configuration, by what, and what is told then.
    const FAULTS: &[(&str, &str, &str)] = &[
        ("listen = \"", "on_invalid = \"accept\"\nlisten = \"", "20: feed[0].mllp.on_invalid: must be \"nak\" or \"close\""),
        ("listen = \"", "app_ack = true\nlisten = \"", "20: feed[0].mllp.app_ack: must be \"none\" or \"same_channel\" or \"aa_only\""),
        ("listen = \"", "batch_ack = \"one\"\nlisten = \"", "20: feed[0].mllp.batch_ack: must be \"batch\" or \"each\""),
        (
            "listen = \"",
            "strict.types = [\"ADT\", \"ADT^\"]\nlisten = \"",
            "20: feed[0].mllp.strict.types: entry 2 is not a message type, like \"ADT\" or \"DFT^P03\"",
        ),
        (
            "listen = \"",
            "strict.versions = [\"3.0\"]\nlisten = \"",
            "20: feed[0].mllp.strict.versions: entry 1 is not a version of HL7, like \"2.5.1\"",
        ),
        (
            "listen = \"",
            "strict.processing_ids = []\nlisten = \"",
            "20: feed[0].mllp.strict.processing_ids: must list 1 to 64 entries; leave it out to take everything",
        ),
        (
            "[feed.mllp]",
            "charset = \"UNICODE UTF-16\"\n[feed.mllp]",
            "19: feed[0].charset: cannot be carried by MLLP, whose framing bytes come up inside it; have the sender send UTF-8",
        ),
        (
            "[feed.mllp]",
            "charset = \"klingon\"\n[feed.mllp]",
            "19: feed[0].charset: is not a character set known here; use a name of HL7 table 0211, like \"8859/1\"",
        ),
        (
            "[feed.mllp]",
            "charset_force = true\n[feed.mllp]",
            "19: feed[0].charset_force: needs charset beside it, which is what it puts before MSH-18",
        ),
    ];

    #[test]
    fn faulty_answer_settings_are_told_with_line_key_and_advice() {
        for (old, new, expected) in FAULTS {
            assert_eq!(faults(&with(old, new)), format!("siteward.toml:{expected}"), "{old:?} replaced by {new:?}");
        }
    }
}
