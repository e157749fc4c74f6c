//! SIGHUP: the feeds of the local file, read again.
//!
//! The file is validated as a whole. A fault anywhere is logged and nothing changes; otherwise its feeds go the way every change of the feeds goes
//! (`sources`). What stands in `[gateway]`, `[spool]`, `[uplink]` and `[trust]` is read at start only, and it is said where it differs. While a document
//! runs the feeds of the file do not count; the rollout, which calls this, knows.

use std::path::Path;
use std::sync::Arc;

use crate::config::document::BootstrapText;
use crate::config::settings::Settings;
use crate::config::{self, Faults};
use crate::sources::SourcesHandle;

/// Where feeds come from, and what they go to.
#[derive(Debug)]
pub struct Reload<'a> {
    pub file: &'a Path,
    /// As they were at start.
    pub running: &'a Settings,
    pub sources: &'a SourcesHandle,
}

impl Reload<'_> {
    /// Reads the file and puts its feeds to use; returns it with its text, or nothing where nothing was changed.
    pub async fn once(&self) -> Option<(String, Settings)> {
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
                return None;
            }
            Err(_) => {
                tracing::error!("reading the configuration failed by a defect of the agent; nothing was changed");
                return None;
            }
        };
        let (old, new) = (self.running, &settings);
        if (&old.gateway, &old.spool, &old.uplink, &old.trust) != (&new.gateway, &new.spool, &new.uplink, &new.trust) {
            tracing::warn!("[gateway], [spool], [uplink] and [trust] are read at start only: restart the agent for what differs there");
        }
        match self.sources.apply(Arc::from(settings.feeds.as_slice())).await {
            Ok(faults) if faults.is_empty() => tracing::info!("the feeds are as the file says"),
            Ok(faults) => {
                for fault in faults {
                    tracing::error!("{fault}; the feed goes on as it was, and it is tried again");
                }
            }
            Err(error) => {
                tracing::error!("the feeds stay as they were: {error}");
                return None;
            }
        }
        Some((text, settings))
    }
}
