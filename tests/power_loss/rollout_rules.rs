//! What must hold of the rollout, judged by what the model knows: which ledgers may be written, and what may be said.

use siteward::config::trust::Anchors;
use siteward::limits::HISTORY_KEPT;
use siteward::record::FeedId;
use siteward::rollout::facts::{Proof, UplinkEvidence};
use siteward::rollout::ledger::{Ledger, Stage, Standing};
use siteward::rollout::report::{Commands, Surroundings, Trust, reported};
use siteward::rollout::{ConfirmBy, Generation, Stamp};

use super::{Check, TRIAL_MS, World, config, require};

impl World {
    /// The last ledger of which the store said that it is kept.
    pub(super) fn is_durable(&self, holds: impl Fn(&Ledger) -> bool, what: &str) -> Check {
        require(self.durable.as_ref().is_some_and(holds), || format!("{what}: {:?}", self.durable))
    }

    /// No power cut could take it away, nor a document that it names.
    pub(super) fn is_kept(&self, ledger: &Ledger) -> Check {
        let path = config("ledger");
        let unsynced = self.disk.unsynced(&path);
        require(unsynced.is_empty(), || format!("said to be kept, and not synced: {unsynced:?}"))?;
        let on_disk = Ledger::decode(&self.disk.contents(&path));
        require(on_disk.as_ref() == Some(ledger), || format!("said to be kept, and it is another: {on_disk:?}"))
    }

    pub(super) fn check_report(&mut self) -> Check {
        let (machine, _) = self.machine.as_ref().expect("running");
        let wall = Stamp { unix_ms: 0, suspect: true };
        let gateway = FeedId::new("gw").expect("a name");
        let commands = Commands { challenge: String::new(), highest_counter: 0, allowed: Vec::new() };
        let around = Surroundings {
            gateway,
            effective_digest: None,
            retired_feeds: Vec::new(),
            commands,
            overrides: Vec::new(),
            secret_key: None,
            timezone: String::new(),
            groups: Vec::new(),
            trust: Trust::of(&Anchors::default()),
            wall,
        };
        let Some(report) = reported(machine, around) else { return Ok(()) };
        let running = report.running.revision;
        self.is_durable(|ledger| ledger.committed.revision() == running, "reported as running, and not on disk")?;
        if let Some(tried) = report.tried
            && tried.state == "committed"
        {
            let is_proven =
                |ledger: &Ledger| ledger.standing == Standing::Proven && ledger.committed.revision() == tried.revision.unwrap_or(0);
            self.is_durable(is_proven, "reported as committed, and not so on disk")?;
        }
        Ok(())
    }

    /// Whether a step from the ledger that holds to this one may be taken, judged by what the model knows.
    pub(super) fn may_be_written(&mut self, next: &Ledger) -> Check {
        let before = self.ledger().clone();
        require(next.history.len() <= HISTORY_KEPT, || "the history grows".to_owned())?;
        require(next.highest_tried >= before.highest_tried && next.highest_command >= before.highest_command, || {
            "a mark goes back".into()
        })?;
        if let (Some(candidate), None) = (&next.candidate, &before.candidate) {
            require(candidate.stage == Stage::Staged, || "a trial out of nothing".to_owned())?;
            require(candidate.facts.revision > before.committed.revision(), || "an older revision is tried".to_owned())?;
        }
        let satisfied = |uplink, proof| match uplink {
            Some(UplinkEvidence::Up { endpoint_is_new, acked_after_change }) => {
                acked_after_change && (endpoint_is_new || proof == Proof::AnyEndpoint)
            }
            _ => false,
        };
        if next.committed == before.committed {
            if let (Standing::Local(proof), Standing::Proven) = (before.standing, next.standing) {
                require(satisfied(self.last_idle, proof), || "proven by nothing".to_owned())?;
            }
            return Ok(());
        }
        match before.candidate {
            Some(candidate) if next.committed == Generation::Document(candidate.facts.clone()) => {
                let shadow = &self.shadow;
                let evidence = shadow.last.as_ref().ok_or("committed without evidence")?;
                let peers = candidate.facts.confirm == ConfirmBy::Bound || evidence.waiting_for_peers.is_empty();
                require(evidence.listeners_bound && evidence.directories_readable && peers, || "committed and not working".to_owned())?;
                require(candidate.stage == Stage::Trial, || "committed without a trial".to_owned())?;
                let acked = if candidate.proof == Proof::AnyEndpoint { shadow.acked } else { shadow.acked_by_added };
                let is_kept = !candidate.uplink_was_up && self.ms >= shadow.started + TRIAL_MS;
                let may = if next.standing == Standing::Proven { acked } else { is_kept };
                require(may, || format!("committed as {:?} and not confirmed: {shadow:?}", next.standing))?;
                self.proven.insert(candidate.facts.revision);
                self.commits += 1;
                Ok(())
            }
            _ => {
                require(before.previous.as_ref() == Some(&next.committed), || "back to what was not before".to_owned())?;
                require(next.standing == Standing::Proven && next.previous.is_none(), || "a rollback that can be rolled back".to_owned())
            }
        }
    }
}
