//! One running source: what it is, how it is started and told to stop.
//!
//! Each kind of source is a variant of [`Running`] with what a change of it needs; its task ends by `stop`. Whatever else looks after a feed as long
//! as its source runs is spawned beside the source, with the same `stop`.

use std::sync::{Arc, Weak};

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Parts, Sources};
use crate::config::settings::{DirectorySettings, FeedSettings, MllpSettings, SourceSettings};
use crate::limits;
use crate::record::FeedId;
use crate::source::files::DirectoryFeed;
use crate::source::mllp::{BindError, MllpListener};
use crate::source::port::Port;
use crate::source::slots::LargeFrameSlots;
use crate::status::condition::Code;

/// A source that runs.
#[derive(Debug)]
pub(super) struct Source {
    /// What it runs under.
    pub settings: FeedSettings,
    pub stop: watch::Sender<bool>,
    /// Ends when its task has.
    pub ended: oneshot::Receiver<()>,
    pub kind: Running,
}

#[derive(Debug)]
pub(super) enum Running {
    Mllp {
        /// Ends when it has let go of its port.
        accepted_no_more: oneshot::Receiver<()>,
    },
    Directory,
    Http,
}

/// A listener with all that is needed to make it again.
pub(super) struct Listening {
    pub feed: FeedId,
    pub settings: MllpSettings,
    pub parts: Parts,
    pub slots: LargeFrameSlots,
}

impl Listening {
    pub fn on(&self, port: &Port) -> Result<MllpListener, BindError> {
        let (feed, settings, parts) = (self.feed.clone(), self.settings.clone(), &self.parts);
        MllpListener::on(port, feed, settings, parts.message_bytes_max, parts.appender.clone(), &self.slots, &parts.board)
    }

    /// Serves, also again after a failure of its own. The port is not held: whoever owns it may let it go.
    async fn run(self, mut listener: MllpListener, port: Weak<Port>, mut stop: watch::Receiver<bool>) {
        loop {
            // A task of its own, so that a panic costs this feed some seconds and not its listener for good.
            let mut serving = JoinSet::new();
            serving.spawn(listener.run(stop.clone()));
            if let Some(Err(_)) = serving.join_next().await {
                let text = "the listener failed; its place is in the log; it is opened again";
                self.parts.board.raise(Code::ListenerDown, self.feed.as_str(), text);
            }
            listener = loop {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = sleep(limits::LISTENER_RETRY) => {}
                }
                let Some(port) = port.upgrade() else { return };
                match self.on(&port) {
                    Ok(listener) => break listener,
                    Err(error) => error.tell(&self.parts.board, &self.feed, "; it is tried again"),
                }
            };
        }
    }
}

impl Sources {
    pub(super) fn listening(&self, feed: FeedId, settings: MllpSettings) -> Listening {
        Listening { feed, settings, parts: self.parts.clone(), slots: self.slots.clone() }
    }

    /// The new listener accepts from now on.
    pub(super) fn start_listener(&mut self, feed: FeedSettings, port: Arc<Port>, mut listener: MllpListener) {
        let SourceSettings::Mllp(settings) = &feed.source else { return };
        let (stop, stopped) = watch::channel(false);
        let (ends, ended) = oneshot::channel::<()>();
        let accepted_no_more = listener.accepted_no_more();
        let listening = self.listening(feed.id.clone(), settings.clone());
        let weak = Arc::downgrade(&port);
        self.ports.insert(port.address(), port);
        self.tasks.spawn(async move {
            listening.run(listener, weak, stopped).await;
            drop(ends);
        });
        self.running.insert(feed.id.clone(), Source { settings: feed, stop, ended, kind: Running::Mllp { accepted_no_more } });
    }

    pub(super) fn start_directory(&mut self, feed: FeedSettings) {
        let SourceSettings::Directory(settings) = &feed.source else { return };
        let turn = self.turns.entry(feed.id.clone()).or_insert_with(|| Arc::new(Semaphore::new(1)));
        let source = DirectoryFeed {
            feed: feed.id.clone(),
            settings: DirectorySettings::clone(settings),
            message_bytes_max: self.parts.message_bytes_max,
            appender: self.parts.appender.clone(),
            board: Arc::clone(&self.parts.board),
            turn: Arc::clone(turn),
        };
        let (stop, stopped) = watch::channel(false);
        let (ends, ended) = oneshot::channel::<()>();
        self.tasks.spawn(async move {
            source.run(stopped).await;
            drop(ends);
        });
        self.running.insert(feed.id.clone(), Source { settings: feed, stop, ended, kind: Running::Directory });
    }
}
