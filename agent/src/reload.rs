//! SIGHUP: the feeds of the local file, read again.
//!
//! The file is validated as a whole. A fault anywhere is logged and nothing changes; otherwise its feeds go the way every change of the feeds goes
//! (`sources`). What stands in `[gateway]`, `[spool]` and `[uplink]` is read at start only, and it is said where it differs.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::watch;

use crate::config;
use crate::config::settings::Settings;
use crate::sources::SourcesHandle;

/// Where feeds come from, and what they go to.
#[derive(Debug)]
pub struct Reload {
    pub file: PathBuf,
    /// As they were at start.
    pub running: Arc<Settings>,
    pub sources: SourcesHandle,
}

impl Reload {
    /// Reads the file again at every SIGHUP, until told to stop. One that comes while another is carried out is carried out behind it.
    pub async fn run(self, mut hangup: Signal, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                _ended = stop.changed() => return, // it changes once, to stop; an error means that nobody can any more
                heard = hangup.recv() => if heard.is_none() { return },
            }
            tracing::info!(file = %self.file.display(), "SIGHUP: the feeds are read again");
            self.once().await;
        }
    }

    async fn once(&self) {
        let file = self.file.clone();
        let settings = match tokio::task::spawn_blocking(move || config::load(&file)).await {
            Ok(Ok(settings)) => settings,
            Ok(Err(faults)) => {
                for line in faults.to_string().lines() {
                    tracing::error!("{line}");
                }
                return tracing::error!(
                    "the file has faults: nothing was changed; correct it and send SIGHUP again (`siteward check` lists them)"
                );
            }
            Err(_) => return tracing::error!("reading the configuration failed by a defect of the agent; nothing was changed"),
        };
        let (old, new) = (&self.running, &settings);
        if (&old.gateway, &old.spool, &old.uplink) != (&new.gateway, &new.spool, &new.uplink) {
            tracing::warn!("[gateway], [spool] and [uplink] are read at start only: restart the agent for what differs there");
        }
        match self.sources.apply(Arc::from(settings.feeds)).await {
            Ok(faults) if faults.is_empty() => tracing::info!("the feeds are as the file says"),
            Ok(faults) => {
                for fault in faults {
                    tracing::error!("{fault}; the feed goes on as it was, and it is tried again");
                }
            }
            Err(error) => tracing::error!("the feeds stay as they were: {error}"),
        }
    }
}
