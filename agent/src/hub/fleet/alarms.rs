//! What a network operations centre is told, and when. Pure; time is passed in.
//!
//! ```text
//!            raised                        4 h                 over, and over for a minute
//!   (none) ─────────► Raised: "raise" ─────────► "again" ─ … ─────────────────────────────► "clear" ─► (none)
//!                        ▲    over, raised again within the minute: the same alarm  │
//!                        └──────────────────────────────────────────────────────────┘
//! ```
//!
//! 1. An alarm is (site, gateway, code, subject). Conditions of gateways are alarms, both severities, once their gateway does not call them quiet (hold-down,
//!    maintenance) any more, and unless somebody chose or ordered what they tell of; so are [`OFFLINE`] and [`STALE`], which are
//!    seen here. While a gateway is not online its conditions are not known: their alarms stay as they are.
//!    One that is neither online nor on the list of those that there should be, or of which nothing is known at all, is nobody's: what is raised
//!    of it is over.
//! 2. Every notice has a key: the alarm's own id and what is told. The same notice has the same key however often it is sent, so a receiver can
//!    tell one that came twice.
//! 3. Each receiver has its own line of notices, in order. Above `NOTICES_MAX` the oldest are dropped and counted. A "raise" that still waits when
//!    its alarm is over is sent all the same, and the "clear" behind it: a receiver that was away hears what was.
//! 4. All of it is in one value that is written to a file before anything is sent ([`journal`](super::journal)): a restart raises nothing again.
//!    A crash between an answer and the next writing sends a notice twice, under the same key.
//! 5. Our clock may be wrong or set (I10): only "again" and the minute hang on it, never whether something is told at all. After a jump
//!    backwards, times in the future are taken for now.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::row::{Row, Shown, State};
use super::told::Window;
use crate::clock::rfc3339;
use crate::limits::{ALARM_AGAIN_AFTER, ALARM_CLEAR_AFTER, ALARMS_MAX, NOTICES_MAX};
use crate::record::Name;
use crate::status::condition::{Code, Severity};

/// Conditions that only the desk can see.
pub const OFFLINE: &str = "gateway_offline";
pub const STALE: &str = "gateway_stale";

/// What an alarm is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    pub site: Name,
    pub gateway: Name,
    pub code: String,
    pub subject: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Alarm {
    about: Subject,
    /// Its own name, random enough to be met once.
    id: String,
    severity: Severity,
    text: String,
    /// As the gateway told it, RFC 3339; null where it did not.
    since: Option<String>,
    raised_ms: i64,
    told_ms: i64,
    /// How often it was told again.
    again: u32,
    /// It is over since then, and not told yet.
    over_ms: Option<i64>,
}

/// What is told of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Raise,
    Again,
    Clear,
}

/// The body of a notice. Receivers rely on it: members are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub schema: u32,
    /// The same for the same notice, however often it comes.
    pub key: String,
    /// The same for all notices of one alarm.
    pub alarm: String,
    pub kind: Kind,
    pub code: String,
    pub severity: Severity,
    pub site: Name,
    pub gateway: Name,
    /// The feed, endpoint or file it is about; empty: the gateway as a whole.
    pub subject: String,
    pub text: String,
    /// RFC 3339, by the gateway's clock; null where it did not say.
    pub since: Option<String>,
    /// RFC 3339, by our clock: when it was raised here, and when this was written.
    pub raised: String,
    pub time: String,
    pub runbook: String,
}

/// A notice in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    number: u64,
    notice: Notice,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarms {
    #[serde(with = "flat")]
    raised: BTreeMap<Gateway, Vec<Alarm>>,
    /// What each receiver has not taken yet, by its address.
    lines: BTreeMap<String, VecDeque<Waiting>>,
    /// Notices so far; each has its number.
    told: u64,
    /// Maintenance windows that gateways told of, so that a restart knows of them while the gateway is away.
    #[serde(default)]
    windows: Vec<(Name, Name, Window)>,
    /// How often a notice was dropped, and an alarm not told, since the file was made.
    pub dropped: u64,
    pub beyond: u64,
}

/// Site and gateway.
type Gateway = (Name, Name);

/// A list in the file.
mod flat {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Alarm, BTreeMap, Gateway};

    pub(super) fn serialize<S: Serializer>(alarms: &BTreeMap<Gateway, Vec<Alarm>>, to: S) -> Result<S::Ok, S::Error> {
        alarms.values().flatten().collect::<Vec<&Alarm>>().serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<BTreeMap<Gateway, Vec<Alarm>>, D::Error> {
        let mut alarms: BTreeMap<Gateway, Vec<Alarm>> = BTreeMap::new();
        for alarm in Vec::<Alarm>::deserialize(from)? {
            alarms.entry((alarm.about.site.clone(), alarm.about.gateway.clone())).or_default().push(alarm);
        }
        Ok(alarms)
    }
}

/// How alarms are made.
#[derive(Clone, Debug)]
pub struct Rules {
    /// A gateway that is offline for so long is an alarm.
    pub offline_after_ms: i64,
    /// What is written in front of a code to make a link to its page.
    pub runbook: String,
}

/// What holds at a gateway, as an alarm would have it.
struct Holds {
    code: String,
    subject: String,
    severity: Severity,
    text: String,
    since: Option<String>,
    /// It is no alarm (yet); one that was raised is not over by it.
    quiet: bool,
}

impl Alarms {
    /// The receivers there are now; what waits for others is dropped.
    pub fn address(&mut self, receivers: &[String]) {
        let gone = |(address, line): (&String, &VecDeque<Waiting>)| if receivers.contains(address) { 0 } else { line.len() as u64 };
        self.dropped += self.lines.iter().map(gone).sum::<u64>();
        self.lines.retain(|address, _| receivers.contains(address));
        for receiver in receivers {
            self.lines.entry(receiver.clone()).or_default();
        }
    }

    pub fn len(&self) -> usize {
        self.raised.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.raised.is_empty()
    }

    pub fn waiting(&self) -> usize {
        self.lines.values().map(VecDeque::len).sum()
    }

    /// How many notices there were so far.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// The next notice for a receiver, of the first so many.
    pub fn next(&self, receiver: &str, of: u64) -> Option<&Notice> {
        let first = self.lines.get(receiver)?.front()?;
        (first.number < of).then_some(&first.notice)
    }

    /// A receiver took a notice, or never will (`dropped`). Only the one at the front counts: another was told meanwhile that it is gone.
    pub fn done(&mut self, receiver: &str, key: &str, dropped: bool) -> bool {
        let Some(line) = self.lines.get_mut(receiver) else { return false };
        let first = line.front().is_some_and(|first| first.notice.key == key);
        if first {
            line.pop_front();
            self.dropped += u64::from(dropped);
        }
        first
    }

    /// What a gateway's maintenance windows are. True: something is to be kept otherwise.
    pub fn maintain(&mut self, (site, gateway): &Gateway, windows: &[Window], now_ms: i64) -> bool {
        let mine = |kept: &&(Name, Name, Window)| kept.0 == *site && kept.1 == *gateway;
        let current = || windows.iter().filter(|window| window.until_ms > now_ms);
        if self.windows.iter().filter(mine).map(|kept| &kept.2).eq(current()) {
            return false;
        }
        self.windows.retain(|kept| !mine(&kept));
        self.windows.extend(current().map(|window| (site.clone(), gateway.clone(), window.clone())));
        true
    }

    /// As they were kept.
    pub fn windows(&self) -> &[(Name, Name, Window)] {
        &self.windows
    }

    /// Looks at a gateway. True: something is to be told.
    pub fn observe(&mut self, row: &Row, rules: &Rules, mut fresh_id: impl FnMut() -> String, now_ms: i64) -> bool {
        let gateway = (row.site.clone(), row.gateway.clone());
        let mut mine = self.raised.remove(&gateway).unwrap_or_default();
        let holds = holds(row, rules, now_ms);
        for alarm in &mut mine {
            match holds.iter().find(|h| h.code == alarm.about.code && h.subject == alarm.about.subject) {
                Some(h) => {
                    (alarm.over_ms, alarm.severity) = (None, h.severity);
                    alarm.text.clone_from(&h.text);
                }
                // Of its own conditions nothing is known while it is not online.
                None if is_ours(&alarm.about.code) || row.state == State::Online => {
                    alarm.over_ms.get_or_insert(now_ms);
                }
                None => {}
            }
        }
        let known = mine.len();
        let others = self.len();
        for Holds { code, subject, severity, text, since, .. } in holds.into_iter().filter(|holds| !holds.quiet) {
            if mine[..known].iter().any(|alarm| alarm.about.code == code && alarm.about.subject == subject) {
                continue;
            }
            if others + mine.len() >= ALARMS_MAX {
                self.beyond += 1;
                continue;
            }
            let about = Subject { site: row.site.clone(), gateway: row.gateway.clone(), code, subject };
            let alarm = Alarm { about, id: fresh_id(), severity, text, since, raised_ms: now_ms, told_ms: now_ms, again: 0, over_ms: None };
            self.tell(&alarm, Kind::Raise, rules, now_ms);
            mine.push(alarm);
        }
        let told = mine.len() > known;
        if !mine.is_empty() {
            self.raised.insert(gateway, mine);
        }
        told
    }

    /// Gateways of which something is raised.
    pub fn gateways(&self) -> impl Iterator<Item = &(Name, Name)> {
        self.raised.keys()
    }

    /// Nobody expects anything of a gateway any more: what is raised of it is over, and the "clear" says why.
    pub fn dismiss(&mut self, gateway: &(Name, Name), why: &str, now_ms: i64) {
        for alarm in self.raised.get_mut(gateway).into_iter().flatten() {
            alarm.over_ms.get_or_insert(now_ms);
            why.clone_into(&mut alarm.text);
        }
    }

    /// What time alone brings: told again, and cleared. True: something is to be told.
    pub fn tick(&mut self, rules: &Rules, now_ms: i64) -> bool {
        let mut told = false;
        for (gateway, mut alarms) in std::mem::take(&mut self.raised) {
            alarms.retain_mut(|alarm| {
                // A clock that was set back.
                alarm.told_ms = alarm.told_ms.min(now_ms);
                alarm.over_ms = alarm.over_ms.map(|over| over.min(now_ms));
                let over = alarm.over_ms.is_some_and(|over| now_ms - over >= ALARM_CLEAR_AFTER.as_millis() as i64);
                let again = alarm.over_ms.is_none() && now_ms - alarm.told_ms >= ALARM_AGAIN_AFTER.as_millis() as i64;
                if again {
                    (alarm.told_ms, alarm.again) = (now_ms, alarm.again.saturating_add(1));
                }
                if over || again {
                    self.tell(alarm, if over { Kind::Clear } else { Kind::Again }, rules, now_ms);
                    told = true;
                }
                !over
            });
            if !alarms.is_empty() {
                self.raised.insert(gateway, alarms);
            }
        }
        told
    }

    fn tell(&mut self, alarm: &Alarm, kind: Kind, rules: &Rules, now_ms: i64) {
        let Alarm { about, id, severity, text, since, raised_ms, again, .. } = alarm;
        let Subject { site, gateway, code, subject } = about.clone();
        let key = match kind {
            Kind::Raise => format!("{id}-raise"),
            Kind::Again => format!("{id}-again-{again}"),
            Kind::Clear => format!("{id}-clear"),
        };
        let notice = Notice {
            schema: 1,
            key,
            alarm: id.clone(),
            kind,
            runbook: format!("{}{code}", rules.runbook),
            code,
            severity: *severity,
            site,
            gateway,
            subject,
            text: text.clone(),
            since: since.clone(),
            raised: rfc3339(*raised_ms),
            time: rfc3339(now_ms),
        };
        let number = self.told;
        self.told += 1;
        for line in self.lines.values_mut() {
            if line.len() >= NOTICES_MAX {
                line.pop_front();
                self.dropped += 1;
            }
            line.push_back(Waiting { number, notice: notice.clone() });
        }
    }
}

/// Seen here, not told by the gateway.
fn is_ours(code: &str) -> bool {
    code == OFFLINE || code == STALE
}

fn holds(row: &Row, rules: &Rules, now_ms: i64) -> Vec<Holds> {
    let mut holds = Vec::new();
    let mut ours = |code: &str, text: String| {
        let (subject, since) = (String::new(), row.since.clone());
        // Its last status said that somebody works on the line.
        holds.push(Holds { code: code.into(), subject, severity: Severity::Error, text, since, quiet: row.maintenance.is_some() });
    };
    match row.state {
        State::Offline => {
            // Since when is not always known; then it is long enough.
            let since = row.since.as_ref().and_then(|since| since.parse::<jiff::Timestamp>().ok());
            if since.is_none_or(|since| now_ms - since.as_millisecond() >= rules.offline_after_ms) {
                ours(OFFLINE, "the gateway is not connected to the broker; it keeps what it captures".into());
            }
        }
        State::NeverSeen => ours(OFFLINE, "the gateway is on the list and has never been seen".into()),
        State::Stale => ours(STALE, row.notes.first().cloned().unwrap_or_default()),
        State::Online | State::Unknown => {}
    }
    if row.state == State::Online {
        // What somebody chose or ordered is no alarm, whatever the version of the gateway says of it.
        let is_chosen = |shown: &&Shown| Code::read(&shown.code).is_some_and(Code::is_chosen);
        holds.extend(row.conditions.iter().flatten().filter(|shown| !is_chosen(shown)).map(|shown| Holds {
            code: shown.code.clone(),
            subject: shown.subject.clone(),
            severity: shown.severity,
            text: shown.text.clone(),
            since: shown.since.clone(),
            quiet: shown.quiet,
        }));
    }
    holds
}
