//! SIGHUP: the feeds of the local file, read again.
//!
//! The file is validated as a whole. A fault anywhere is logged and nothing changes; otherwise its feeds go the way every change of the feeds goes
//! (`sources`). What stands in `[gateway]`, `[spool]`, `[uplink]`, `[trust]` and `[alerts]` is read at start only, and it is said where it differs. While a document
//! runs the feeds of the file do not count; the rollout, which calls this, knows.

use std::path::Path;
use std::sync::Arc;

use crate::config::document::BootstrapText;
use crate::config::settings::Settings;
use crate::config::{self, Faults};
use crate::sources::{ApplyError, SourcesHandle};

/// Where feeds come from, and what they go to.
#[derive(Debug)]
pub struct Reload<'a> {
    pub file: &'a Path,
    /// As they were at start.
    pub running: &'a Settings,
    pub sources: &'a SourcesHandle,
}

impl Reload<'_> {
    /// Reads the file and puts its feeds to use; returns it with its text, or nothing where nothing was changed. `Err`: the sources gave no answer
    /// in time, so that it is not known what runs.
    pub async fn once(&self) -> Result<Option<(String, Settings)>, ApplyError> {
        tracing::info!(file = %self.file.display(), "SIGHUP: the feeds are read again");
        let file = self.file.to_owned();
        let read = move || -> Result<_, Faults> { Ok((BootstrapText::read(&file)?.text, config::load(&file)?)) };
        let (text, settings) = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(read)) => read,
            Ok(Err(faults)) => {
                for line in faults.to_string().lines() {
                    tracing::error!("{line}");
                }
                tracing::error!("the file has faults: nothing was changed; correct it and send SIGHUP again (`siteward check` lists them)");
                return Ok(None);
            }
            Err(_) => {
                tracing::error!("reading the configuration failed by a defect of the agent; nothing was changed");
                return Ok(None);
            }
        };
        let (old, new) = (self.running, &settings);
        let bootstrap = |s: &Settings| (s.gateway.clone(), s.spool.clone(), s.uplink.clone(), s.trust.clone(), s.alerts.clone());
        if bootstrap(old) != bootstrap(new) {
            tracing::warn!(
                "[gateway], [spool], [uplink], [trust] and [alerts] are read at start only: restart the agent for what differs there"
            );
        }
        let faults = self.sources.apply(Arc::from(settings.feeds.as_slice())).await?;
        if faults.is_empty() {
            tracing::info!("the feeds are as the file says");
        }
        for fault in faults {
            tracing::error!("{fault}; the feed goes on as it was, and it is tried again");
        }
        Ok(Some((text, settings)))
    }
}
