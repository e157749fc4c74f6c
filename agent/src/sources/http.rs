//! HTTP feeds that come and change. Feeds with one address share its port (see `source::http`), which opens with the first and closes behind the last.
//!
//! The new one joins before the old one leaves: on the same port it takes the name over, and what the old one has under way is answered; on another
//! port both are open for a moment. Only where the new one cannot join because the old one is there (the port's TLS changes, another address of the
//! same port) is the old one let go first, and taken back if the new one cannot be had.

use tokio::sync::{oneshot, watch};

use super::running::{Running, Source};
use super::{FeedFault, Sources};
use crate::config::settings::{FeedSettings, HttpSettings, SourceSettings};
use crate::source::http::{self, HttpFeed};
use crate::source::port::BindError;

fn key_of(error: &BindError) -> &'static str {
    match error {
        BindError::Port { .. } => "feed.http.listen",
        BindError::Tls { .. } => "feed.http.tls",
        BindError::Tokens { .. } => "feed.http.tokens_file",
    }
}

fn settings(feed: &FeedSettings) -> Option<&HttpSettings> {
    match &feed.source {
        SourceSettings::Http(settings) => Some(settings),
        SourceSettings::Mllp(_) | SourceSettings::Directory(_) => None,
    }
}

impl Sources {
    /// Makes this feed run as it should; `again`: nothing that runs is interrupted for it.
    pub(super) async fn replace_http(&mut self, feed: FeedSettings, again: bool) -> Option<FeedFault> {
        let wanted = settings(&feed)?.clone();
        self.touch(&feed.id);
        let error = match self.join(&feed, &wanted) {
            Ok(joined) => {
                if let Some(old) = self.running.remove(&feed.id) {
                    old.stop.send_replace(true); // it answers what it has under way
                }
                self.start_http(feed, joined);
                return None;
            }
            Err(error) => error,
        };
        let in_the_way = |old: &Source| settings(&old.settings).is_some_and(|old| old.listen.port() == wanted.listen.port());
        let may_help = matches!(error, BindError::Port { .. } | BindError::Tls { .. }) && !again;
        let Some(old) = self.running.get(&feed.id).filter(|old| may_help && in_the_way(old)).map(|old| old.settings.id.clone()) else {
            return Some(self.fault(feed.id, key_of(&error), error.in_full()));
        };
        let before = match self.running.remove(&old) {
            Some(old) => Self::release(old).await.0,
            None => return None,
        };
        match self.join(&feed, &wanted) {
            Ok(joined) => {
                self.start_http(feed, joined);
                None
            }
            Err(error) => {
                match settings(&before).cloned().map(|settings| self.join(&before, &settings)) {
                    Some(Ok(joined)) => self.start_http(before, joined),
                    Some(Err(error)) => tracing::error!(feed = %feed.id, "its former port cannot be opened either: {}", error.in_full()),
                    None => {}
                }
                Some(self.fault(feed.id, key_of(&error), error.in_full()))
            }
        }
    }

    fn join(&self, feed: &FeedSettings, settings: &HttpSettings) -> Result<HttpFeed, BindError> {
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

    fn start_http(&mut self, feed: FeedSettings, joined: HttpFeed) {
        let (stop, stopped) = watch::channel(false);
        let (ends, ended) = oneshot::channel::<()>();
        self.tasks.spawn(async move {
            joined.run(stopped).await;
            drop(ends);
        });
        self.running.insert(feed.id.clone(), Source { settings: feed, stop, ended, kind: Running::Http });
    }
}
