//! What the gateways say of themselves in their retained status, said in the log once: online, offline, and each condition when it is raised and
//! when it ends. Memory only: a receiver that starts anew hears it all again from the broker, and says it again.
//!
//! A gateway that is offline says nothing of its conditions: they stay as they were until it is back. Bounded ([`HUB_CONDITIONS_MAX`]): what
//! does not fit is said every time it is told.

use std::collections::{BTreeMap, BTreeSet};

use super::intake::foreign;
use crate::contract::{ConditionTold, GatewayState, OnlineState};
use crate::limits::HUB_CONDITIONS_MAX;
use crate::record::Name;

/// Code and subject.
type Known = BTreeSet<(String, String)>;

/// See the module.
#[derive(Debug, Default)]
pub struct Gateways {
    known: BTreeMap<(Name, Name), (OnlineState, Known)>,
}

/// What a status changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub state: Option<OnlineState>,
    pub raised: Vec<ConditionTold>,
    pub over: Vec<(String, String)>,
}

impl Gateways {
    /// Takes a status and logs what is new in it.
    pub fn heard(&mut self, site: &Name, gateway: &Name, state: GatewayState) {
        let version = foreign(&state.version);
        let Changed { state, raised, over } = self.take(site.clone(), gateway.clone(), state);
        match state {
            Some(OnlineState::Online) => tracing::info!(%site, %gateway, version, "gateway online"),
            Some(OnlineState::Offline) => tracing::info!(%site, %gateway, "gateway offline"),
            None => {}
        }
        for condition in raised {
            let ConditionTold { code, severity, subject, text, since, .. } = condition;
            let (code, subject, since) = (foreign(&code), foreign(&subject), foreign(&since));
            if severity == "error" {
                tracing::error!(%site, %gateway, condition = code, subject, since, "{}", foreign(&text));
            } else {
                tracing::warn!(%site, %gateway, condition = code, subject, since, "{}", foreign(&text));
            }
        }
        for (code, subject) in over {
            tracing::info!(%site, %gateway, condition = foreign(&code), subject = foreign(&subject), "condition over");
        }
    }

    fn take(&mut self, site: Name, gateway: Name, state: GatewayState) -> Changed {
        let all: usize = self.known.values().map(|(_, known)| known.len() + 1).sum();
        let (before, mut known) = self.known.remove(&(site.clone(), gateway.clone())).map_or((None, Known::new()), |(s, k)| (Some(s), k));
        let room = HUB_CONDITIONS_MAX.saturating_sub(all.saturating_sub(known.len()));
        let mut changed = Changed { state: (before != Some(state.state)).then_some(state.state), ..Changed::default() };
        if state.state == OnlineState::Online {
            let names = |condition: &ConditionTold| (condition.code.clone(), condition.subject.clone());
            let now: Known = state.conditions.iter().map(names).take(room).collect();
            // What was left out may hold all the same.
            if state.conditions_left_out == 0 {
                changed.over = known.difference(&now).cloned().collect();
                known.retain(|name| now.contains(name));
            }
            changed.raised = state.conditions.into_iter().filter(|condition| !known.contains(&names(condition))).collect();
            known.extend(now);
        }
        if room > 0 {
            self.known.insert((site, gateway), (state.state, known));
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: OnlineState, feeds: &[&str]) -> GatewayState {
        let condition = |feed: &&str| ConditionTold {
            code: "feed_silent".into(),
            severity: "error".into(),
            subject: (*feed).into(),
            text: "no file came".into(),
            since: "2026-11-02T11:15:00.000Z".into(),
            quiet: false,
        };
        let conditions = feeds.iter().map(condition).collect();
        GatewayState {
            state,
            version: "0.1.0".into(),
            since: None,
            at: None,
            spool: None,
            conditions,
            conditions_left_out: 0,
            maintenance: Vec::new(),
        }
    }

    #[test]
    fn each_condition_is_said_once_and_its_end_once() {
        let mut gateways = Gateways::default();
        let mut take = |state, feeds: &[&str]| {
            let changed = gateways.take(Name::new("s").unwrap(), Name::new("g").unwrap(), status(state, feeds));
            let raised: Vec<String> = changed.raised.into_iter().map(|condition| condition.subject).collect();
            (changed.state, raised, changed.over.len())
        };
        let (online, offline) = (OnlineState::Online, OnlineState::Offline);
        assert_eq!(take(online, &["a"]), (Some(online), vec!["a".to_owned()], 0));
        assert_eq!(take(online, &["a", "b"]), (None, vec!["b".to_owned()], 0));
        assert_eq!(take(offline, &[]), (Some(offline), vec![], 0), "who is gone says nothing of it");
        assert_eq!(take(online, &["b"]), (Some(online), vec![], 1));
        assert_eq!(take(online, &[]), (None, vec![], 1));
    }

    #[test]
    fn a_status_of_an_older_version_has_no_conditions() {
        let state: GatewayState = serde_json::from_str(r#"{"state":"online","version":"0.0.9"}"#).unwrap();
        assert_eq!(state, GatewayState { version: "0.0.9".into(), ..status(OnlineState::Online, &[]) });
    }
}
