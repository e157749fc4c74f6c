//! What somebody on site may set: secrets and overrides. Each order is one call to its owner. Who it was is known by the user of the other end of the
//! socket (as the kernel says), and whom sudo says it stands for; the desk records it.
//!
//! The value of a secret comes sealed to this gateway and is opened here, at the end of its way: neither socket, request nor log ever hold it (I7).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::access::Door;
use super::control::Answer;
use super::question::Order;
use crate::alerts;
use crate::alerts::windows::Wish;
use crate::audit::Book;
use crate::clock;
use crate::config::network_of;
use crate::limits::{HISTORY_NAME_BYTES_MAX, PEERS_MAX, RETIRE_REPORT_TIMEOUT};
use crate::overrides::{self, Change, handle};
use crate::record::FeedId;
use crate::secrets::{Vault, name_fits, sealed};

/// Who is at the other end of the control socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// As the kernel says; `None`: it could not say.
    pub uid: Option<u32>,
    /// The socket it came by.
    pub door: Door,
}

impl Peer {
    /// For people. `sudo`: whom the other end says it stands for; believed as far as root is.
    pub fn name(self, sudo: Option<&str>) -> String {
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        self.named(&users, sudo)
    }

    fn named(self, users: &str, sudo: Option<&str>) -> String {
        let Some(uid) = self.uid else { return "unknown".to_owned() };
        let of = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        };
        let user = users.lines().find_map(of).map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"));
        let clean = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(HISTORY_NAME_BYTES_MAX / 4).collect() };
        let claim = sudo.map(|sudo| clean(sudo.strip_suffix(" on site").unwrap_or(sudo)));
        match claim.filter(|claim| !claim.is_empty() && !user.starts_with(&format!("{claim} (uid "))) {
            Some(claim) => format!("{user} for {claim}"),
            None => user,
        }
    }
}

/// What may be told of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretView {
    pub name: String,
    /// RFC 3339.
    pub set_at: String,
    pub clock_suspect: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsView {
    pub secrets: Vec<SecretView>,
}

impl SecretsView {
    pub fn of(vault: &Vault) -> Result<Self, String> {
        let view = |known: crate::secrets::store::Known| SecretView {
            name: known.name,
            set_at: clock::rfc3339(known.set_at.unix_ms),
            clock_suspect: known.set_at.suspect,
        };
        Ok(Self { secrets: vault.list().map_err(|error| error.to_string())?.into_iter().map(view).collect() })
    }
}

/// What is answered where the hub's broker has the audit record of a retirement.
pub const RETIREMENT_REPORTED: &str = "the hub's broker has the audit record";

/// See the module's documentation.
#[derive(Debug)]
pub struct OnSite {
    vault: Arc<Vault>,
    /// One writer at a time.
    writing: Mutex<()>,
    overrides: overrides::handle::Handle,
    alerts: alerts::handle::Handle,
    book: Book,
}

fn later(make: impl FnOnce() -> Result<serde_json::Value, String> + Send + 'static) -> Answer {
    Answer::Later(Box::new(move || make().unwrap_or_else(|why| json!({ "error": why })).to_string()))
}

impl OnSite {
    pub fn new(vault: Arc<Vault>, overrides: handle::Handle, alerts: alerts::handle::Handle, book: Book) -> Arc<Self> {
        Arc::new(Self { vault, writing: Mutex::default(), overrides, alerts, book })
    }

    pub fn secrets(self: &Arc<Self>) -> Answer {
        let site = Arc::clone(self);
        later(move || Ok(json!(SecretsView::of(&site.vault)?)))
    }

    pub fn secret_key(self: &Arc<Self>) -> Answer {
        let site = Arc::clone(self);
        later(move || Ok(json!({ "key": site.vault.public_key().map_err(|error| error.to_string())? })))
    }

    pub fn overrides(self: &Arc<Self>) -> Answer {
        let site = Arc::clone(self);
        later(move || site.overrides.ask(handle::Request::List).map(|response| json!(response)))
    }

    /// Who keeps the maintenance windows.
    pub fn alerts(&self) -> alerts::handle::Handle {
        self.alerts.clone()
    }

    pub fn maintenance(self: &Arc<Self>) -> Answer {
        let site = Arc::clone(self);
        later(move || site.alerts.ask(alerts::handle::Request::List).map(|response| json!(response)))
    }

    /// In the name of `who`; recorded by whoever calls.
    pub fn order(self: &Arc<Self>, order: Order, who: String) -> Answer {
        let site = Arc::clone(self);
        later(move || site.carry_out(order, who).map(|done| json!({ "done": done })))
    }

    fn carry_out(&self, order: Order, who: String) -> Result<String, String> {
        match order {
            Order::SecretSet { name, sealed, .. } => self.set_secret(&who, &name, &sealed),
            Order::SecretRemove { name, .. } => self.remove_secret(&who, &name),
            Order::OverrideSet { feed, port, peers, pause, for_s, reason, .. } => {
                let change = change(port, peers, pause)?;
                let feed = known(&feed)?;
                self.ask(handle::Request::Set { feed, change, time: Duration::from_secs(for_s), who, reason })
            }
            Order::OverrideClear { feed, kind, .. } => self.ask(handle::Request::Clear { feed: known(&feed)?, kind, who }),
            Order::MaintenanceStart { feed, for_s, at, reason, .. } => {
                let feed = feed.as_deref().map(known).transpose()?;
                self.silence(alerts::handle::Request::Start(Wish { feed, time: Duration::from_secs(for_s), at, who, reason }))
            }
            Order::MaintenanceEnd { id, .. } => self.silence(alerts::handle::Request::End { id, who }),
            Order::AuditExport { .. } => Ok(format!("the audit log is at {}; its pages follow", self.book.standing().0)),
            Order::Retire { lost, .. } => Ok(self.retire(&who, &lost)),
            _ => Err("this is not an order for here".to_owned()),
        }
    }

    /// The intent of it is in the audit log already; whether the hub's broker has it.
    fn retire(&self, who: &str, lost: &str) -> String {
        tracing::warn!(who, lost, "this gateway is about to be retired");
        let (written, _) = self.book.standing();
        let mut sent = self.book.watch_sent();
        let told =
            Handle::current().block_on(async { timeout(RETIRE_REPORT_TIMEOUT, sent.wait_for(|sent| *sent >= written)).await.is_ok() });
        if told { RETIREMENT_REPORTED } else { "the hub could not be told in time" }.to_owned()
    }

    fn ask(&self, request: handle::Request) -> Result<String, String> {
        match self.overrides.ask(request)? {
            handle::Response::Done { done } => Ok(done),
            handle::Response::List { .. } => Err("the overrides gave another answer than was asked for".to_owned()),
        }
    }

    fn silence(&self, request: alerts::handle::Request) -> Result<String, String> {
        match self.alerts.ask(request)? {
            alerts::handle::Response::Done { done } => Ok(done),
            alerts::handle::Response::List { .. } => Err("the keeper of alerts gave another answer than was asked for".to_owned()),
        }
    }

    fn set_secret(&self, who: &str, name: &str, text: &str) -> Result<String, String> {
        if !name_fits(name) {
            return Err("the name of a secret has 1 to 64 letters, digits, - _ .".to_owned());
        }
        let key = self.vault.spool_key().map_err(|error| error.to_string())?;
        let value = sealed::open(&key.exchange(), name, text).map_err(|why| format!("what came {why}"))?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.vault.set(name, &value, None)?;
        tracing::warn!(who, name, "a secret was set");
        Ok(format!("secret {name} is set; what uses it reads it within seconds"))
    }

    fn remove_secret(&self, who: &str, name: &str) -> Result<String, String> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !name_fits(name) || !self.vault.remove(name, None)? {
            return Err("no secret of this name is set here; see `siteward secret list`".to_owned());
        }
        tracing::warn!(who, name, "a secret was removed");
        Ok(format!("secret {name} is removed; what was read of it stays in use until the feed starts again"))
    }
}

fn known(feed: &str) -> Result<FeedId, String> {
    FeedId::new(feed).map_err(|_| "this is not the name of a feed; see `siteward feeds`".to_owned())
}

fn change(port: Option<u16>, peers: Option<Vec<String>>, pause: bool) -> Result<Change, String> {
    match (port, peers, pause) {
        (Some(0), None, false) => Err("port 0 is no port".to_owned()),
        (Some(port), None, false) => Ok(Change::Port(port)),
        (None, Some(peers), false) if peers.is_empty() || peers.len() > PEERS_MAX => Err(format!("list 1 to {PEERS_MAX} peers")),
        (None, Some(peers), false) => {
            let read = |(index, text): (usize, &String)| network_of(text).map_err(|why| format!("entry {} of the peers {why}", index + 1));
            peers.iter().enumerate().map(read).collect::<Result<_, _>>().map(Change::Peers)
        }
        (None, None, true) => Ok(Change::Pause),
        _ => Err("change one thing: the port, the peers, or pause".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_is_named_as_the_kernel_and_sudo_say() {
        let users = "root:x:0:0:root:/root:/bin/bash\nkim:x:1000:1000:Kim,,,:/home/kim:/bin/bash\n";
        let peer = |uid| Peer { uid: Some(uid), door: Door::Owner };
        assert_eq!(peer(1000).named(users, None), "kim (uid 1000)");
        assert_eq!(peer(0).named(users, Some("kim\n")), "root (uid 0) for kim");
        assert_eq!(peer(1000).named(users, Some("kim on site")), "kim (uid 1000)", "nobody stands for himself");
        assert_eq!(peer(7).named(users, Some("")), "uid 7");
        assert_eq!(Peer::default().named(users, Some("kim")), "unknown");
    }

    #[test]
    fn an_override_changes_one_thing() {
        assert_eq!(change(Some(2576), None, false), Ok(Change::Port(2576)));
        assert_eq!(change(None, None, true), Ok(Change::Pause));
        assert!(change(None, Some(vec!["10.0.0.0/8".into()]), false).is_ok());
        for (port, peers, pause) in [
            (None, None, false),
            (Some(1), None, true),
            (Some(0), None, false),
            (None, Some(vec![]), false),
            (None, Some(vec!["x".into()]), false),
        ] {
            assert!(change(port, peers, pause).is_err());
        }
    }
}
