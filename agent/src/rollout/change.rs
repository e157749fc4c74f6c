//! How a configuration comes to be in use: the sources follow, then the uplink.
//!
//! ```text
//!   apply (a trial begins)   all of it, or the trial fails: what cannot follow is its reason, in one sentence
//!   revert (it was decided)  what could not be done is owed, and tried again every second until it is done or something else was decided
//! ```
//!
//! `Shell::running` says what is in use, never what should be: uplink settings that could not be handed over are not in it. A feed that cannot
//! follow is no debt of ours: its source tries again by itself, and says so on the board.

use std::sync::Arc;

use tokio::task::block_in_place;

use super::facts::{Facts, FeedFault, Generation};
use super::machine::{Input, RunState};
use super::shell::Shell;
use super::start::{Restored, Running, show_unverified};
use crate::config::{Files, diff, document};
use crate::sources;
use crate::status::condition::Code;

/// A configuration that is to run and does not yet.
#[derive(Debug)]
pub(super) struct Owed {
    wanted: Running,
    /// What was said about it last.
    why: String,
}

impl Shell {
    /// A document goes on trial.
    pub(super) async fn apply(&mut self, facts: &Facts) -> (Input, Option<Vec<u8>>) {
        // Whatever was owed is over with this: a rollback says anew what is to run.
        self.owed = None;
        let judged = block_in_place(|| {
            let envelope = self.store.envelope(facts.digest).map_err(|error| error.to_string())?;
            let document = document::open(&envelope, &self.ground.anchors).map_err(|refusal| refusal.to_string())?;
            self.ground.effective(&document, Files::Checked).map_err(|refusal| refusal.to_string())
        });
        let result = match judged {
            Ok(wanted) => self.put_to_use(wanted).await.and_then(|faults| match faults.into_iter().next() {
                None => Ok(()),
                Some(sources::FeedFault { feed, key, reason: why }) => Err(FeedFault { feed, key: key.to_owned(), why }.to_string()),
            }),
            Err(why) => Err(why),
        };
        if result.is_ok() {
            show_unverified(&self.board, None);
        }
        (Input::Applied { digest: facts.digest, result }, None)
    }

    /// A generation that was proven here runs again.
    pub(super) async fn revert(&mut self, generation: &Generation) {
        let restored = block_in_place(|| self.ground.restore(&self.store, generation));
        let Restored { running, unverified } = restored.unwrap_or_else(|why| {
            tracing::error!("the configuration from before cannot be read: {why}; the local file runs");
            Restored { running: self.ground.local(), unverified: None }
        });
        show_unverified(&self.board, unverified.as_deref());
        self.owed = Some(Owed { wanted: running, why: String::new() });
        self.quarantine.taken_back();
        self.pay().await;
    }

    /// Puts to use what has been decided and could not be done before; whether that is now done.
    pub(super) async fn pay(&mut self) -> bool {
        let Some(Owed { wanted, why: said }) = self.owed.take() else { return false };
        match self.put_to_use(wanted.clone()).await {
            Ok(faults) => {
                for fault in faults {
                    tracing::warn!("{fault}; it is not back as it was yet, and is tried again");
                }
                true
            }
            Err(why) => {
                if why != said {
                    tracing::error!("the configuration that is to run does not yet: {why}; it is tried again");
                }
                self.owed = Some(Owed { wanted, why });
                false
            }
        }
    }

    /// What runs is proven: its trust anchors count from now on, and endpoints that it takes the place of leave the rotation.
    pub(super) async fn settle(&mut self) {
        if !self.machine.is_idle() || self.owed.is_some() || self.machine.run_state() == RunState::CommittedLocal {
            return;
        }
        let mut settled = self.running.clone();
        let other_anchors = settled.settings.moved != self.ground.local.moved;
        if other_anchors {
            if let Err(why) = block_in_place(|| self.ground.settle(&settled.settings)) {
                if self.unsettled.as_ref() != Some(&why) {
                    tracing::error!(
                        "{why}; the trust anchors and the endpoints of before stay until that is mended; it is tried again every second"
                    );
                }
                self.unsettled = Some(why);
                return;
            }
            self.unsettled = None;
            self.orders.follow(&settled.settings.trust);
            tracing::warn!("the trust anchors are those of the configuration that was proven");
        }
        match &settled.settings.moved {
            Some(moved) => {
                let text = format!("{} come from a document of the recovery keys; bring the local file in line with it", moved.what());
                self.board.raise(Code::BootstrapMoved, "", text);
            }
            None => self.board.clear(Code::BootstrapMoved, ""),
        }
        if settled.settings.settle() {
            self.owed = Some(Owed { wanted: settled, why: String::new() });
            if self.pay().await {
                self.report();
            }
        } else if other_anchors {
            self.report(); // whose signatures count is part of it
        }
    }

    /// It is not known what the sources run: what ran is to run again, unless something else is owed anyway.
    pub(super) fn owes_what_ran(&mut self, why: String) {
        self.owed.get_or_insert_with(|| Owed { wanted: self.running.clone(), why });
    }

    /// What is owed has changed, where something is.
    pub(super) fn owes_anew(&mut self, wanted: Running) {
        if let Some(owed) = &mut self.owed {
            owed.wanted = wanted;
        }
    }

    /// Makes this the configuration in use, but for the feeds that are returned, which could not follow. `Err`: it is not, or not all of it.
    async fn put_to_use(&mut self, mut wanted: Running) -> Result<Vec<sources::FeedFault>, String> {
        let changes = diff::diff(&self.running.settings, &wanted.settings);
        self.proof.changed();
        let feeds = Arc::from(wanted.settings.feeds.as_slice());
        let faults = self.sources.apply(feeds).await.map_err(|error| error.to_string())?;
        let handed = if changes.uplink_changed || changes.endpoints_changed {
            self.mail.replace_uplink(wanted.settings.uplink.clone())
        } else {
            Ok(())
        };
        if handed.is_err() {
            wanted.settings.uplink.clone_from(&self.running.settings.uplink);
        }
        self.running = wanted;
        handed.map_err(|error| format!("the uplink did not take its settings: {error}"))?;
        Ok(faults)
    }
}
