//! The status page: what the gateway says of itself, for a browser on the box, read-only. The same port has the status as JSON, the metrics and a
//! health check.
//!
//! ```text
//!   [status] of the local file ──► run: bind, serve until it changes (SIGHUP) or the agent stops; what cannot be bound is tried again
//!                                    server    connections: bounded, each with a deadline, one request each
//!                                      route   method, Host, path ──► answer (pure); `host`: who may be meant by a Host
//!                                        render    snapshot and history ──► HTML: `parts` sections, `timeline` drawings, `html` escaping
//!                                        runbook   the section of a condition ──► HTML (`markdown`), compiled in: there may be no internet
//! ```
//!
//! 1. Nothing here is needed by anything else: where the page cannot be served, the condition `status_page_down` says so and everything else runs.
//! 2. It costs the data path nothing: a snapshot is made at most every [`PAGE_FRESH`] whatever is asked, connections are bounded (I4), and it holds
//!    no lock while it renders.
//! 3. It changes nothing, has no session and no secret: GET and HEAD, no cookie. A page of somebody else cannot read it: the `Host` must be an
//!    address, `localhost` or a configured name (a name that was bent to this address is refused), and there are no cross-origin headers.
//! 4. No asset comes from elsewhere, no inline script or style is allowed (`Content-Security-Policy`), every text is escaped by the type that
//!    builds the page. No message content and no control id is shown (I7): the page knows only what `siteward status --json` shows.
//!
//! It works without a script; with it, it updates itself and says since when the agent has not answered.

pub(crate) mod body;
mod host;
mod html;
mod markdown;
mod parts;
mod render;
mod route;
mod runbook;
mod server;
#[cfg(test)]
mod tests;
mod timeline;
mod times;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::sleep;

use self::server::Listener;
use super::board::Board;
use super::condition::Code;
use super::history::HistoryView;
use super::snapshot::{Reporter, Snapshot};
use crate::config::settings::StatusSettings;
use crate::limits::{LISTENER_RETRY, PAGE_FRESH};

/// What the page is made from.
#[derive(Debug)]
pub struct Source {
    reporter: Arc<Reporter>,
    board: Arc<Board>,
    /// Of the site: times are shown as its clocks show them.
    zone: TimeZone,
    zone_name: String,
    fresh: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

impl Source {
    pub fn new(reporter: Arc<Reporter>, board: Arc<Board>, zone_name: &str) -> Arc<Self> {
        // The name was validated against the same data.
        let zone = TimeZoneDatabase::bundled().get(zone_name).unwrap_or(TimeZone::UTC);
        Arc::new(Self { reporter, board, zone, zone_name: zone_name.to_owned(), fresh: Mutex::default() })
    }

    /// The status, a moment old at most. Whoever comes while it is made waits for it, and nobody makes another.
    fn snapshot(&self) -> Arc<Snapshot> {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        match &*fresh {
            Some((at, snapshot)) if at.elapsed() < PAGE_FRESH => Arc::clone(snapshot),
            _ => {
                let snapshot = Arc::new(self.reporter.snapshot());
                *fresh = Some((Instant::now(), Arc::clone(&snapshot)));
                snapshot
            }
        }
    }

    fn history(&self) -> HistoryView {
        self.board.history()
    }
}

/// Serves the page where the settings say, until told to stop.
pub async fn run(source: Arc<Source>, mut settings: watch::Receiver<StatusSettings>, mut stop: watch::Receiver<bool>) {
    let board = Arc::clone(&source.board);
    loop {
        let now = settings.borrow_and_update().clone();
        let retry = match Listener::open(&now.listen) {
            Ok(Some(listener)) => {
                board.clear(Code::StatusPageDown, "");
                tracing::info!(listen = %now.listen, "status page");
                let ended = tokio::select! {
                    () = server::serve(listener, now, Arc::clone(&source)) => false,
                    changed = settings.changed() => changed.is_err(),
                    _ = stop.wait_for(|stop| *stop) => true,
                };
                if ended {
                    return;
                }
                continue;
            }
            Ok(None) => {
                board.clear(Code::StatusPageDown, "");
                false
            }
            Err(why) => {
                board.raise(Code::StatusPageDown, "", why);
                true
            }
        };
        tokio::select! {
            () = sleep(LISTENER_RETRY), if retry => {}
            changed = settings.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Reads `[status]` of the local file again at every SIGHUP, whatever document runs. A file with faults changes nothing.
pub async fn follow(file: PathBuf, settings: watch::Sender<StatusSettings>, mut hangup: Signal, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            heard = hangup.recv() => if heard.is_none() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let file = file.clone();
        let Ok(Ok(read)) = tokio::task::spawn_blocking(move || crate::config::load(&file)).await else {
            tracing::warn!("the status page stays where it is: the file has faults (`siteward check` lists them)");
            continue;
        };
        settings.send_if_modified(|now| {
            let is_new = *now != read.status;
            *now = read.status;
            is_new
        });
    }
}
