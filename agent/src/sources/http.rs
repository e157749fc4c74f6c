//! HTTP feeds that come and change. Feeds with one address share its port (see `source::http`), which opens with the first and closes behind the last.
//!
//! The new one joins before the old one leaves: on the same port it takes the name over, and what the old one has under way is answered; on another
//! port both are open for a moment. Where the new one cannot join because of old ones (the port's TLS changes, another address of the same port),
//! they are let go first, and put back if the new ones cannot be had (`together`).

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::running::{Running, Source};
use super::together::excludes;
use super::{FeedFault, Sources};
use crate::config::settings::{FeedSettings, HttpSettings, SourceSettings};
use crate::source::http::tokens::{Lines, TokensFile};
use crate::source::http::{self, HttpFeed};
use crate::source::port::BindError;
use crate::source::tls::Tls;

pub(super) fn key_of(error: &BindError) -> &'static str {
    match error {
        BindError::Port { .. } => "feed.http.listen",
        BindError::Tls { .. } => "feed.http.tls",
        BindError::Tokens { .. } => "feed.http.tokens_file",
    }
}

impl Sources {
    /// Makes this feed run as it should, beside what runs; `changing` are all that change. What was there before and keeps a place that one of them
    /// waits for, or is no HTTP feed, goes to `leaving`, told to stop.
    pub(super) fn replace_http(
        &mut self,
        feed: &FeedSettings,
        wanted: &HttpSettings,
        changing: &[FeedSettings],
        leaving: &mut Vec<Source>,
    ) -> Option<FeedFault> {
        let joined = match self.join(feed, wanted) {
            Ok(joined) => joined,
            Err(error) => return Some(self.fault(feed.id.clone(), key_of(&error), error.in_full())),
        };
        self.touch(&feed.id);
        let old = self.running.remove(&feed.id);
        self.start_http(feed.clone(), joined);
        if let Some(old) = old {
            old.stop.send_replace(true); // it answers what it has under way
            let is_awaited = changing.iter().any(|other| other.id != feed.id && excludes(&old.settings, other));
            if is_awaited || matches!(old.kind, Running::Mllp { .. }) {
                leaving.push(old);
            }
        }
        None
    }

    /// Nothing but its port can keep it from running.
    pub(super) fn can_be_read(&self, feed: &FeedSettings) -> bool {
        let (tls, tokens) = match &feed.source {
            SourceSettings::Http(settings) => (settings.tls.as_ref(), Lines::of(settings)),
            SourceSettings::Mllp(settings) => (settings.tls.as_ref(), None),
            SourceSettings::Directory(_) => (None, None),
        };
        tls.is_none_or(|tls| Tls::open(tls.clone(), feed.id.clone(), Arc::clone(&self.parts.board)).is_ok())
            && tokens.is_none_or(|lines| TokensFile::open(lines).is_ok())
    }

    pub(super) fn join(&self, feed: &FeedSettings, settings: &HttpSettings) -> Result<HttpFeed, BindError> {
        HttpFeed::bind(http::Parts {
            feed: feed.id.clone(),
            gateway: self.parts.gateway.clone(),
            settings: settings.clone(),
            message_bytes_max: self.parts.message_bytes_max,
            appender: self.parts.appender.clone(),
            slots: &self.slots,
            board: &self.parts.board,
            ports: &self.http_ports,
        })
    }

    pub(super) fn start_http(&mut self, feed: FeedSettings, joined: HttpFeed) {
        let (stop, stopped) = watch::channel(false);
        let (ends, ended) = oneshot::channel::<()>();
        self.tasks.spawn(async move {
            joined.run(stopped).await;
            drop(ends);
        });
        self.running.insert(feed.id.clone(), Source { settings: feed, stop, ended, kind: Running::Http });
    }
}
