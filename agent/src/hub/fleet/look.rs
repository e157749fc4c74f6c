//! The broker's part of `fleet` and `fleet watch`: connects, hands what comes to the model, and says how much it heard.
//!
//! A look ends when nothing more came for a while, or at its deadline: then it may be incomplete, and says so. A watch goes on until it is
//! stopped: a connection that is lost is dialled again, with back-off, and everything the broker keeps comes again.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Fleet, Taken};
use crate::clock;
use crate::config::settings::Endpoint;
use crate::contract::topic::ROOT;
use crate::hub::connection::listen::{Heard, Listen};
use crate::hub::receive::RuntimeDirectory;
use crate::limits::{BACKOFF_MIN, FLEET_DEADLINE, FLEET_PENDING_MAX, FLEET_QUIET, HUB_BACKOFF_MAX};
use crate::uplink::tls::TlsFiles;

/// Which broker, and who we are there.
#[derive(Clone, Debug)]
pub struct Reach {
    pub broker: Endpoint,
    pub tls: Option<TlsFiles>,
    pub client_id: String,
}

/// How a look ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing more came.
    Quiet,
    /// There was more when the time was over.
    Deadline,
    /// The connection was lost in the middle of it.
    Lost(String),
}

impl Ended {
    /// A sentence where the look may be incomplete.
    pub fn doubt(&self) -> Option<String> {
        match self {
            Self::Quiet => None,
            Self::Deadline => {
                Some(format!("stopped after {} s while the broker still sent; the picture is incomplete", FLEET_DEADLINE.as_secs()))
            }
            Self::Lost(why) => Some(format!("{why}: the picture is incomplete")),
        }
    }
}

fn filters() -> Vec<String> {
    ["status", "config/reported"].map(|name| format!("{ROOT}/+/+/{name}")).to_vec()
}

fn directory() -> Result<RuntimeDirectory, String> {
    let beside: PathBuf = std::env::temp_dir().join(format!("siteward-fleet-{}", std::process::id()));
    RuntimeDirectory::new(&beside).map_err(|error| error.to_string())
}

/// Takes what the broker keeps. An error: it could not be asked at all.
pub async fn look(reach: &Reach, fleet: &mut Fleet) -> Result<Ended, String> {
    let directory = directory()?;
    let (sender, mut heard) = mpsc::channel(FLEET_PENDING_MAX);
    let (_stop, stopped) = watch::channel(false);
    let filters = filters();
    let Reach { broker, tls, client_id } = reach;
    let listen = Listen { endpoint: broker, tls: tls.as_ref(), client_id, directory: directory.path(), filters: &filters };
    let take = async {
        let deadline = Instant::now() + FLEET_DEADLINE;
        // What is told meanwhile is taken too, and is no reason to wait for more.
        let (mut stands, mut kept) = (false, Instant::now());
        loop {
            let patience = if stands { deadline.min(kept + FLEET_QUIET) } else { deadline };
            match timeout_at(patience, heard.recv()).await {
                Ok(Some(Heard::Stands)) => (stands, kept) = (true, Instant::now()),
                Ok(Some(Heard::Publish { topic, payload, retained })) => {
                    if retained {
                        kept = Instant::now();
                    }
                    fleet.take(&topic, &payload, retained, clock::now().unix_ms);
                }
                // The connection's end is told by the other side.
                Ok(None) => std::future::pending().await,
                Err(_) if !stands => return Err(format!("{broker}: does not answer the subscription in {} s", FLEET_DEADLINE.as_secs())),
                Err(_) => return Ok(if Instant::now() >= deadline { Ended::Deadline } else { Ended::Quiet }),
            }
        }
    };
    let ended = tokio::select! {
        biased;
        ended = take => return ended,
        lost = listen.run(&sender, stopped) => lost.err().unwrap_or_else(|| format!("{broker}: the connection ended")),
    };
    if fleet.messages > 0 { Ok(Ended::Lost(ended)) } else { Err(ended) }
}

/// What a watcher is told.
#[derive(Debug)]
pub enum Event {
    /// Connected: what is kept comes next.
    Connected,
    /// Not connected, and why; it is tried again.
    Lost(String),
    Heard {
        topic: String,
        payload: bytes::Bytes,
        retained: bool,
    },
}

/// Listens for ever, over as many connections as it takes.
pub async fn follow(reach: Reach, events: mpsc::Sender<Event>, mut stop: watch::Receiver<bool>) -> Result<(), String> {
    let directory = directory()?;
    let filters = filters();
    let mut wait = BACKOFF_MIN;
    loop {
        let (sender, mut heard) = mpsc::channel(FLEET_PENDING_MAX);
        let Reach { broker, tls, client_id } = &reach;
        let listen = Listen { endpoint: broker, tls: tls.as_ref(), client_id, directory: directory.path(), filters: &filters };
        // It owns its end of the channel: when nobody takes events any more, the other side sees that.
        let pass_on = async {
            let mut stood = false;
            while let Some(event) = heard.recv().await {
                let event = match event {
                    Heard::Stands => {
                        stood = true;
                        Event::Connected
                    }
                    Heard::Publish { topic, payload, retained } => Event::Heard { topic, payload, retained },
                };
                if events.send(event).await.is_err() {
                    break;
                }
            }
            drop(heard);
            stood
        };
        let run = async {
            let ended = listen.run(&sender, stop.clone()).await;
            drop(sender);
            ended
        };
        let (ended, stood) = tokio::join!(run, pass_on);
        if stood {
            wait = BACKOFF_MIN;
        }
        if *stop.borrow() || events.is_closed() {
            return Ok(());
        }
        let why = ended.err().unwrap_or_else(|| format!("{broker}: the connection ended"));
        if events.send(Event::Lost(why)).await.is_err() {
            return Ok(());
        }
        // An error means that whoever could ask is gone, which asks for it too.
        if timeout(wait, stop.wait_for(|stop| *stop)).await.is_ok() {
            return Ok(());
        }
        wait = (wait * 2).min(HUB_BACKOFF_MAX);
    }
}

/// The first picture of a watch is complete when nothing came for so long.
pub const SETTLED: Duration = FLEET_QUIET;

/// Lets the model take an event; which gateway it was about.
pub fn take(fleet: &mut Fleet, event: &Event) -> Option<super::Id> {
    let Event::Heard { topic, payload, retained } = event else { return None };
    match fleet.take(topic, payload, *retained, clock::now().unix_ms) {
        Taken::Changed(id) | Taken::Refused(id) => Some(id),
        Taken::Same | Taken::Ignored => None,
    }
}
