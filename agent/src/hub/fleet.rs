//! The fleet as the gateways tell of it: every gateway's retained status and reported state, put together. Pure; time is passed in.
//!
//! ```text
//!   (topic, payload, retained, now) ─► Fleet::take ─► model ─► Row ─► table, JSON, changes (watch), metrics, alarms (serve)
//! ```
//!
//! 1. Only `status` and `config/reported` count; a gateway is known once either came, or because a list says that it should be there.
//! 2. What is not known is said as such: a last will tells neither since when nor what was the matter, a status can be left behind by a broker
//!    that lost its end, a gateway may never have been seen. Nothing is guessed from what is absent.
//! 3. Ages come from the gateways' clocks and ours, so they can be off by the difference; nothing is decided by them but what is shown as stale.
//! 4. Two gateways under one name throw each other out and say so themselves (`gateway_id_in_use`); the same id under two sites is seen here.
//! 5. Full: above `FLEET_GATEWAYS_MAX` further gateways are counted and left out. A payload that is not of the contract leaves what was known
//!    and is shown as a note at its gateway.
//!
//! - [`told`]: payloads to values; [`row`]: what is shown of a gateway; [`table`]: rows as text; [`change`]: what is new between two rows.
//! - [`expected`]: the list of gateways that there should be; [`look`]: the broker's part of `fleet` and `fleet watch`.
//! - [`metrics`]: OpenMetrics; [`alarms`]: what a network operations centre is told, and when; [`journal`]: its file; [`webhook`]: one delivery;
//!   [`port`]: who asks for metrics; [`serve`]: all of it together.

pub mod alarms;
pub mod change;
pub mod expected;
pub mod journal;
pub mod look;
pub mod metrics;
pub mod port;
pub mod row;
pub mod serve;
pub mod table;
#[cfg(test)]
mod tests;
pub mod told;
pub mod webhook;

use std::collections::{BTreeMap, BTreeSet};

use self::told::{Reported, Status, Told, Window};
use crate::contract::topic::{self, Kind};
use crate::limits::FLEET_GATEWAYS_MAX;
use crate::record::Name;

/// Which gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub site: Name,
    pub gateway: Name,
}

/// Something that was told, and how it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard<T> {
    pub told: T,
    /// By our clock.
    pub at_ms: i64,
    /// Kept by the broker: it may be of any age.
    pub retained: bool,
}

/// What is known of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub status: Option<Heard<Status>>,
    pub reported: Option<Heard<Reported>>,
    /// What was the matter when it was last online, as far as that was heard here.
    pub last_conditions: Option<Vec<Told>>,
    /// Why its last status, or its last reported state, could not be read.
    pub status_refused: Option<String>,
    pub reported_refused: Option<String>,
    /// A list says that it should be there.
    pub expected: bool,
}

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Not of ours, or there is no room for another gateway.
    Ignored,
    Same,
    Changed(Id),
    Refused(Id),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    members: BTreeMap<Id, Member>,
    /// Sites under which a gateway id was met.
    sites: BTreeMap<Name, BTreeSet<Name>>,
    /// Maintenance windows as the gateways told them while they were online, by our clock.
    windows: BTreeMap<Id, Vec<Window>>,
    /// There is a list, so whoever is not on it is a stranger.
    listed: bool,
    pub messages: u64,
    pub refused: u64,
    /// Publishes of gateways for which there was no room.
    pub beyond: u64,
}

impl Fleet {
    /// The gateways that there should be.
    pub fn expect(&mut self, ids: impl IntoIterator<Item = Id>) {
        self.listed = true;
        for id in ids {
            if let Some(member) = self.member(&id) {
                member.expected = true;
            }
        }
    }

    pub fn members(&self) -> &BTreeMap<Id, Member> {
        &self.members
    }

    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// There is a list, it is not on it, and it is not online: it was taken off, or never belonged to us.
    pub fn is_given_up(&self, id: &Id) -> bool {
        let member = self.members.get(id);
        let online = member.and_then(|member| member.status.as_ref()).is_some_and(|heard| heard.told.online);
        self.listed && !online && member.is_some_and(|member| !member.expected)
    }

    /// Other sites that have a gateway of the same id. (Identities of records hold the gateway's id and not its site.)
    pub fn twins(&self, id: &Id) -> impl Iterator<Item = &Name> {
        self.sites.get(&id.gateway).into_iter().flatten().filter(move |site| **site != id.site)
    }

    /// What was known of maintenance windows before a restart.
    pub fn remember(&mut self, windows: impl IntoIterator<Item = (Id, Window)>) {
        for (id, window) in windows {
            self.windows.entry(id).or_default().push(window);
        }
    }

    /// As far as they were told while it was online.
    pub fn windows(&self, id: &Id) -> &[Window] {
        self.windows.get(id).map_or(&[], Vec::as_slice)
    }

    fn member(&mut self, id: &Id) -> Option<&mut Member> {
        if !self.members.contains_key(id) {
            if self.members.len() >= FLEET_GATEWAYS_MAX {
                self.beyond += 1;
                return None;
            }
            self.members.insert(id.clone(), Member::default());
        }
        self.members.get_mut(id)
    }

    /// Takes a publish.
    pub fn take(&mut self, topic: &str, payload: &[u8], retained: bool, now_ms: i64) -> Taken {
        let Some(parsed) = topic::parse(topic).filter(|parsed| matches!(parsed.kind, Kind::Status | Kind::Reported)) else {
            return Taken::Ignored;
        };
        let id = Id { site: parsed.site, gateway: parsed.gateway };
        self.messages += 1;
        // An empty payload takes away what the broker kept; that is no reason to know the gateway.
        if payload.is_empty() && !self.members.contains_key(&id) {
            return Taken::Ignored;
        }
        let Some(member) = self.member(&id) else { return Taken::Ignored };
        let taken = match parsed.kind {
            Kind::Status => member.take_status(payload, retained, now_ms),
            _ => member.take_reported(payload, retained, now_ms),
        };
        match member.windows() {
            Some(windows) if parsed.kind == Kind::Status => drop(self.windows.insert(id.clone(), windows)),
            _ => {}
        }
        let Ok(changed) = taken else {
            self.refused += 1;
            return Taken::Refused(id);
        };
        self.sites.entry(id.gateway.clone()).or_default().insert(id.site.clone());
        if changed { Taken::Changed(id) } else { Taken::Same }
    }
}

impl Member {
    /// The maintenance windows it told of, by our clock; `None`: a last will does not repeat them.
    fn windows(&self) -> Option<Vec<Window>> {
        let status = self.status.as_ref().filter(|status| status.told.online || !status.told.maintenance.is_empty())?;
        let at_ms = status.told.at_ms.filter(|_| !status.retained);
        Some(status.told.maintenance.iter().map(|window| window.here(status.at_ms, at_ms)).collect())
    }

    /// Whether anything became different; `Err`: refused.
    fn take_status(&mut self, payload: &[u8], retained: bool, at_ms: i64) -> Result<bool, ()> {
        if payload.is_empty() {
            return Ok(self.status.take().is_some());
        }
        let told = Status::read(payload).map_err(|why| self.status_refused = Some(why))?;
        self.status_refused = None;
        if told.online {
            self.last_conditions = Some(told.conditions.clone());
        }
        let same = self.status.as_ref().is_some_and(|known| known.told == told);
        // Heard again as it was kept: when it came first says more.
        if !(same && retained) {
            self.status = Some(Heard { told, at_ms, retained });
        }
        Ok(!same)
    }

    fn take_reported(&mut self, payload: &[u8], retained: bool, at_ms: i64) -> Result<bool, ()> {
        if payload.is_empty() {
            return Ok(self.reported.take().is_some());
        }
        let told = Reported::read(payload).map_err(|why| self.reported_refused = Some(why))?;
        self.reported_refused = None;
        let same = self.reported.as_ref().is_some_and(|known| known.told == told);
        if !(same && retained) {
            self.reported = Some(Heard { told, at_ms, retained });
        }
        Ok(!same)
    }
}
