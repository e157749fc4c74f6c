//! `siteward run`: configuration, then the agent, until it is told to stop.

use std::path::Path;

use super::Failure;
use crate::agent::RunError;
use crate::spool::OpenError;
use crate::{agent, config, log, rollout};

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let unsettled = super::memory::settle();
    log::init();
    if let Some(error) = unsettled {
        tracing::debug!("the process could not begin again with its memory settings: {error}");
    }
    let settings = match config::load(file) {
        Ok(settings) => settings,
        // Its own feeds do not count while a document of central IT runs; a fault in them must not cost the site its feeds.
        Err(faults) => match config::load_bootstrap(file) {
            Ok(settings) if rollout::store::has_documents(&settings.spool.path) => {
                for line in faults.to_string().lines() {
                    tracing::error!("{line}");
                }
                settings
            }
            _ => return Err(faults.into()),
        },
    };
    agent::run(settings, file.to_owned()).map_err(|error| match error {
        RunError::Spool { source: OpenError::Newer { .. }, .. } => Failure::Unfit(error.into()),
        error => Failure::Other(error.into()),
    })
}
