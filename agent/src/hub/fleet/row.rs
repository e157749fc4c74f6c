//! What is shown of one gateway, and which gateways are asked for. Pure.

use serde::Serialize;

use super::told::{Told, Window};
use super::{Fleet, Id, Member};
use crate::clock::rfc3339;
use crate::limits::FLEET_STALE;
use crate::record::Name;
use crate::status::condition::{Code, Severity};

/// How a gateway stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Online,
    /// It says online, and that is too old to be believed.
    Stale,
    Offline,
    /// It has said something, and there is no status of it (or none that can be read).
    Unknown,
    /// It should be there, and has never said anything.
    NeverSeen,
}

impl State {
    pub const ALL: [Self; 5] = [Self::Online, Self::Stale, Self::Offline, Self::Unknown, Self::NeverSeen];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Stale => "stale",
            Self::Offline => "offline",
            Self::Unknown => "unknown",
            Self::NeverSeen => "never_seen",
        }
    }
}

/// A condition as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    pub code: String,
    pub severity: Severity,
    pub subject: String,
    pub text: String,
    pub since: Option<String>,
    /// The gateway says that nobody is to be alerted of it: its hold-down is not over, or a maintenance window holds.
    pub quiet: bool,
}

impl From<&Told> for Shown {
    fn from(told: &Told) -> Self {
        let Told { severity, code, subject, text, since_ms, quiet } = told.clone();
        Self { code, severity, subject, text, since: since_ms.map(rfc3339), quiet }
    }
}

/// A maintenance window that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Maintenance {
    /// RFC 3339.
    pub until: String,
    pub reason: String,
}

/// The newest document, where it is not simply the one that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    pub revision: Option<u64>,
    pub state: String,
    pub code: Option<String>,
    pub reason: Option<String>,
}

/// One gateway. Members are added, never changed; null: not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub site: Name,
    pub gateway: Name,
    pub state: State,
    /// Online or offline since.
    pub since: Option<String>,
    pub version: Option<String>,
    pub revision: Option<u64>,
    pub tried: Option<Tried>,
    /// The worst first; null while it is not online and nothing was heard of it before.
    pub conditions: Option<Vec<Shown>>,
    /// Conditions that the gateway had no room to tell.
    pub conditions_left_out: u64,
    pub queued: Option<u64>,
    pub oldest_queued: Option<String>,
    pub time_to_full_s: Option<u64>,
    pub spool_bytes: Option<u64>,
    pub spool_max_bytes: Option<u64>,
    /// When it told its status last, by its own clock.
    pub told_at: Option<String>,
    /// Age of that when the row was made, by the later of its clock and our ear.
    pub told_age_s: Option<u64>,
    /// A window of the gateway as a whole holds, as it told before it went.
    pub maintenance: Option<Maintenance>,
    /// What is not known, and why.
    pub notes: Vec<String>,
}

/// Which gateways are asked for; everything that is said must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub site: Option<Name>,
    pub condition: Option<String>,
    /// Only those that are not online.
    pub offline: bool,
    pub version: Option<String>,
    pub revision: Option<u64>,
}

impl Filter {
    pub fn takes(&self, row: &Row) -> bool {
        let has = |code: &String| row.conditions.iter().flatten().any(|condition| condition.code == *code);
        self.site.as_ref().is_none_or(|site| *site == row.site)
            && self.condition.as_ref().is_none_or(has)
            && (!self.offline || row.state != State::Online)
            && self.version.as_ref().is_none_or(|version| row.version.as_ref() == Some(version))
            && self.revision.is_none_or(|revision| row.revision == Some(revision))
    }
}

impl Member {
    /// How old what it said last of itself is, in ms: its own clock and our ear, whichever is later.
    fn age_ms(&self, now_ms: i64) -> Option<i64> {
        let status = self.status.as_ref()?;
        let heard = (!status.retained).then_some(status.at_ms);
        Some(now_ms.saturating_sub(heard.max(status.told.at_ms)?).max(0))
    }

    pub fn state(&self, now_ms: i64) -> State {
        let stale = || self.age_ms(now_ms).is_some_and(|age| age > FLEET_STALE.as_millis() as i64);
        match &self.status {
            Some(status) if status.told.online && stale() => State::Stale,
            Some(status) if status.told.online => State::Online,
            Some(_) => State::Offline,
            None if self.reported.is_some() || self.status_refused.is_some() || self.reported_refused.is_some() => State::Unknown,
            None => State::NeverSeen,
        }
    }

    /// Since when it is online or offline: as it said, else as we heard it happen.
    pub fn since_ms(&self) -> Option<i64> {
        let status = self.status.as_ref()?;
        status.told.since_ms.or_else(|| (!status.told.online && !status.retained).then_some(status.at_ms))
    }

    /// What is the matter, as far as it is known.
    pub fn conditions(&self) -> Option<&[Told]> {
        match &self.status {
            Some(status) if status.told.online => Some(&status.told.conditions),
            _ => self.last_conditions.as_deref(),
        }
    }
}

impl Fleet {
    /// The row of a gateway that is known.
    pub fn row(&self, id: &Id, now_ms: i64) -> Option<Row> {
        let member = self.members().get(id)?;
        let (status, reported) = (member.status.as_ref().map(|heard| &heard.told), member.reported.as_ref().map(|heard| &heard.told));
        let spool = status.and_then(|status| status.spool);
        let mut conditions: Option<Vec<Shown>> = member.conditions().map(|told| told.iter().map(Shown::from).collect());
        for site in self.twins(id) {
            let text = format!("a gateway of site {site} has the same id; records of both would have the same identity");
            let code = Code::GatewayIdInUse.as_str().to_owned();
            let twin = Shown { code, severity: Severity::Error, subject: site.to_string(), text, since: None, quiet: false };
            conditions.get_or_insert_default().insert(0, twin);
        }
        let holding = self.windows(id).iter().filter(|window| window.holds(now_ms)).max_by_key(|window| window.until_ms);
        Some(Row {
            site: id.site.clone(),
            gateway: id.gateway.clone(),
            state: member.state(now_ms),
            since: member.since_ms().map(rfc3339),
            version: status.map(|status| status.version.clone()),
            revision: reported.map(|reported| reported.revision),
            tried: reported.and_then(|reported| reported.tried.clone()).map(|t| Tried {
                revision: t.revision,
                state: t.state,
                code: t.code,
                reason: t.reason,
            }),
            conditions,
            conditions_left_out: status.map_or(0, |status| status.conditions_left_out),
            queued: spool.map(|spool| spool.queued),
            oldest_queued: spool.and_then(|spool| spool.oldest_ms).map(rfc3339),
            time_to_full_s: spool.and_then(|spool| spool.time_to_full_s),
            spool_bytes: spool.map(|spool| spool.bytes),
            spool_max_bytes: spool.map(|spool| spool.max_bytes),
            told_at: status.and_then(|status| status.at_ms).map(rfc3339),
            told_age_s: member.age_ms(now_ms).map(|ms| ms.unsigned_abs() / 1000),
            maintenance: holding.map(|window| Maintenance { until: rfc3339(window.until_ms), reason: window.reason.clone() }),
            notes: self.notes(member, holding, now_ms),
        })
    }

    /// All that the filter takes, by site and gateway.
    pub fn rows(&self, filter: &Filter, now_ms: i64) -> Vec<Row> {
        self.members().keys().filter_map(|id| self.row(id, now_ms)).filter(|row| filter.takes(row)).collect()
    }

    fn notes(&self, member: &Member, holding: Option<&Window>, now_ms: i64) -> Vec<String> {
        let mut notes = Vec::new();
        let mut say = |text: String| notes.push(text);
        // What is stale comes first: it is the text of an alarm.
        let maintenance = holding.map(|window| format!("maintenance until {}: {}", rfc3339(window.until_ms), window.reason));
        match member.state(now_ms) {
            State::Online if member.age_ms(now_ms).is_none() => {
                say("its status does not say when it was written (an older version); whether it still holds is not known".into());
            }
            State::Stale => {
                let stale = FLEET_STALE.as_secs() / 60;
                say(format!(
                    "says online, but last said so more than {stale} minutes ago and should every 5: perhaps the broker lost its end"
                ));
            }
            State::Offline => {
                if member.since_ms().is_none() {
                    say("offline since when is not known: the broker keeps its last will, which does not tell".into());
                }
                say(match member.last_conditions {
                    Some(_) => "conditions are those from before it went offline".into(),
                    None => "what is the matter there is not known while it is offline".into(),
                });
            }
            State::Unknown if member.status_refused.is_none() => {
                say("the broker keeps no status of it: never connected to this broker, or the broker dropped it".into());
            }
            State::NeverSeen => say("is on the list, and the broker keeps nothing of it".into()),
            State::Online | State::Unknown => {}
        }
        if let Some(why) = &member.status_refused {
            say(format!("its last status was refused: {why}"));
        }
        if let Some(why) = &member.reported_refused {
            say(format!("its last reported state was refused: {why}"));
        }
        if member.reported.is_none() && member.reported_refused.is_none() && member.status.is_some() {
            say("the broker keeps no reported state of it, so its revision is not known".into());
        }
        if member.reported.as_ref().is_some_and(|heard| heard.told.clock_suspect) {
            say("its clock could not be believed when it reported; its times may be wrong".into());
        }
        if self.is_listed() && !member.expected {
            say("is not on the list".into());
        }
        notes.extend(maintenance);
        notes
    }
}
