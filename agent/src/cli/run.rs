//! `siteward run`: configuration, then the agent, until it is told to stop.
//!
//! A new box is switched on before anybody has said whose it is. As a service it then waits for its configuration, and says so, in place of failing
//! every two seconds; `siteward enroll`, or whoever writes the file, needs to do nothing more. Run by hand, and with any other fault, it ends with 78.

use std::path::Path;

use super::Failure;
use crate::agent::RunError;
use crate::limits::UNCONFIGURED_LOOK;
use crate::spool::OpenError;
use crate::systemd::sockets::SocketStore;
use crate::{agent, config, log, rollout, systemd};

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let unsettled = super::memory::settle();
    let sockets = SocketStore::take_back(); // while this is the only thread
    log::init();
    if let Some(error) = unsettled {
        tracing::debug!("the process could not begin again with its memory settings: {error}");
    }
    await_configuration(file);
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
    agent::run(settings, file.to_owned(), sockets).map_err(|error| match error {
        RunError::Spool { source: OpenError::Newer { .. }, .. } => Failure::Unfit(error.into()),
        error => Failure::Other(error.into()),
    })
}

/// As a service, until the file is not the one that the package brought. SIGTERM ends the process here, which is right: there is nothing to stop.
fn await_configuration(file: &Path) {
    if !systemd::is_service() || !config::is_default(file) {
        return;
    }
    tracing::warn!(file = %file.display(), "not configured; `siteward enroll BUNDLE`, or site, id, endpoints and feeds in this file; it is read when it changes");
    let mut watchdog = systemd::Watchdog::new(|| true);
    systemd::ready();
    systemd::status("not configured: waiting for `siteward enroll BUNDLE`, or for its file to be edited");
    while config::is_default(file) {
        watchdog.beat();
        std::thread::sleep(UNCONFIGURED_LOOK.min(watchdog.interval().unwrap_or(UNCONFIGURED_LOOK)));
    }
    tracing::info!("the configuration is there");
}
