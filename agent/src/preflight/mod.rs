//! `siteward preflight`: can this gateway reach its hub, and if not, which step fails and who has to act?
//!
//! ```text
//!   name ─► route ─► TCP ─► (proxy: CONNECT) ─► TLS ─► mutual TLS ─► CONNECT ─► subscribe ─► publish ─► packet limit ─► clock
//!   └────────────── each endpoint by itself, up to the first step that fails: its sentence, and a ticket ────────────────┘
//! ```
//!
//! 1. Every step is taken by the code that the uplink takes it with (`uplink::probe`): what passes here passes there.
//! 2. Nothing is written and nothing is disturbed. The session at the broker is the gateway's own and keeps what it holds; nothing retained is
//!    touched. Where an agent runs here, its connection would be thrown out by ours: then only the steps up to the certificates are taken, and
//!    behind them stands what the agent knows.
//! 3. The publish goes to the gateway's topic `preflight`, which nobody reads: under the same access rule as all it publishes, and no part of
//!    what the hub counts.
//! 4. No secret and nothing of any message is in the report (I7). Names in certificates come from outside: short and printable.
//!
//! Code map: `report` (steps, ticket, text; pure), `line` (from a dial to steps; pure), `presented` (certificates for people; pure), `talk` (MQTT).

mod line;
mod presented;
pub mod report;
mod talk;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use tokio::time::Instant;

use self::line::{Facts, Verdict, good, not_taken, skipped};
use self::presented::Presented;
use self::report::{Audience, Checked, Name, Outcome, Report, Step, Ticket};
use crate::clock;
use crate::config::settings::{Endpoint, GatewaySettings, Proxy, Settings};
use crate::limits::{CLOCK_TOLERANCE, CONNECT_TIMEOUT, KEEP_ALIVE};
use crate::spool::disk::RealDisk;
use crate::status::snapshot::Snapshot;
use crate::uplink::bridge::DialError;
use crate::uplink::credentials::Credentials;
use crate::uplink::probe::{self, Reached, Trace, chain};
use crate::uplink::tls::TlsFiles;
use crate::uplink::watched::{self, Seen};

/// Whether an agent has this gateway's session.
#[derive(Debug)]
pub enum Agent {
    Stopped,
    /// This is no gateway yet: only the line is looked at, and whether the broker takes the certificate.
    NotYet,
    /// It runs; what it said of itself, if it could be asked.
    Runs(Option<Box<Snapshot>>),
}

/// Takes the steps for each endpoint of the settings, in order. Needs a runtime with time and network.
pub async fn preflight(settings: &Settings, agent: &Agent) -> Report {
    let mut report = empty(settings, agent);
    let renewed = Credentials::look(Arc::new(RealDisk), &settings.spool.path).identities().current;
    for endpoint in &settings.uplink.endpoints {
        let endpoint = match &renewed {
            Some(identity) if endpoint.tls => endpoint.clone().with_identity(identity.clone()),
            _ => endpoint.clone(),
        };
        report.endpoints.push(Check::new(settings, &endpoint).run(agent).await);
    }
    report
}

/// The line alone, as far as the broker's verdict on the certificate of the settings.
pub async fn line(settings: &Settings) -> Report {
    let mut report = empty(settings, &Agent::NotYet);
    for endpoint in &settings.uplink.endpoints {
        report.endpoints.push(Check::new(settings, endpoint).run(&Agent::NotYet).await);
    }
    report
}

fn empty(settings: &Settings, agent: &Agent) -> Report {
    let GatewaySettings { site, id, .. } = &settings.gateway;
    let now = clock::now();
    Report {
        site: site.to_string(),
        gateway: id.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: None,
        at: clock::rfc3339(now.unix_ms),
        agent_running: matches!(agent, Agent::Runs(_)),
        endpoints: Vec::new(),
    }
}

/// One endpoint on its way through the steps.
struct Check<'a> {
    settings: &'a Settings,
    endpoint: &'a Endpoint,
    proxy: Option<&'a Proxy>,
    steps: Vec<Step>,
    ticket: Option<Ticket>,
    /// For tickets.
    source: Option<String>,
    addresses: Vec<String>,
}

impl<'a> Check<'a> {
    fn new(settings: &'a Settings, endpoint: &'a Endpoint) -> Self {
        let proxy = settings.uplink.proxy.as_ref().filter(|_| endpoint.tls);
        Self { settings, endpoint, proxy, steps: Vec::new(), ticket: None, source: None, addresses: Vec::new() }
    }

    async fn run(mut self, agent: &Agent) -> Checked {
        if let Err(verdict) = self.all(agent).await {
            self.fail(verdict);
        }
        let Self { endpoint, proxy, steps, ticket, .. } = self;
        Checked { endpoint: endpoint.to_string(), proxy: proxy.map(ToString::to_string), steps, ticket }
    }

    async fn all(&mut self, agent: &Agent) -> Result<(), Verdict> {
        let (trace, seen, reached, why_no_key) = self.dial().await?;
        match agent {
            Agent::Stopped => self.by_ourselves(reached, &seen, why_no_key).await?,
            Agent::NotYet => self.admitted(reached, &seen).await?,
            Agent::Runs(snapshot) => self.beside(reached, &seen, why_no_key, snapshot.as_deref()).await?,
        }
        self.clock(&trace)
    }

    /// Up to the end of the handshake.
    async fn dial(&mut self) -> Result<(Trace, Arc<Seen>, Reached, Option<String>), Verdict> {
        let seen = Arc::<Seen>::default();
        let (mut config, mut authorities, mut why_no_key) = (None, Vec::new(), None);
        if self.endpoint.tls {
            let ours =
                |text: String| Verdict { step: Name::Tls, text: self.without_name(&text), to: Audience::Gateway, asked: String::new() };
            let (files, why) = probe::files(&self.settings.uplink, self.endpoint).map_err(ours)?;
            config = Some(watched::client_config(&files, &seen).map_err(|error| ours(chain(&error)))?);
            authorities = subjects(&files);
            why_no_key = why;
        }
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let (trace, dialled) = probe::reach(self.proxy, self.endpoint, config, deadline).await;
        let routes: Vec<_> = trace.addresses.iter().map(route).collect();
        let presented = seen.leaf().and_then(|leaf| Presented::of(leaf));
        let facts = Facts {
            endpoint: self.endpoint,
            proxy: self.proxy,
            trace: &trace,
            routes: &routes,
            tls: dialled.as_ref().ok().and_then(Reached::tls_version),
            presented: presented.as_ref(),
            authorities: &authorities,
            failure: dialled.as_ref().err(),
        };
        let (steps, verdict) = facts.steps();
        (self.source, self.addresses) = (facts.source().map(|source| source.to_string()), facts.addresses());
        self.steps.extend(steps);
        match (dialled, verdict) {
            (Ok(reached), _) => Ok((trace, seen, reached, why_no_key)),
            // A broker that insists refuses a gateway whose key is not to be had from here.
            (Err(DialError::ClientCertificate { .. }), _) if why_no_key.is_some() => Err(self.no_key(&why_no_key.unwrap_or_default())),
            (Err(_), Some(verdict)) => Err(verdict),
            (Err(error), None) => Err(self.broker(Name::Tls, &chain(&error), "look into its log")),
        }
    }

    /// What the certificate of ours is to the broker, before anything is said.
    fn no_key(&self, why: &str) -> Verdict {
        let text = format!(
            "{}; preflight can run with it as the service does: systemd-run --pipe --wait -p LoadCredentialEncrypted=… siteward preflight",
            self.without_name(why)
        );
        Verdict { step: Name::MutualTls, text, to: Audience::Gateway, asked: String::new() }
    }

    /// The time that the proxy told, if it did. MQTT tells none.
    fn clock(&mut self, trace: &Trace) -> Result<(), Verdict> {
        let file = &self.settings.gateway.clock_synchronised_file;
        let kept = if file.exists() {
            "the system says that its clock is kept right"
        } else {
            "nothing says that the system's clock is kept right"
        };
        let Some(told) = trace.told else {
            let text = match clock::doubt() {
                Some(doubt) => format!("offset not known: neither MQTT nor a proxy told a time; {doubt}"),
                None => format!("offset not known: neither MQTT nor a proxy told a time; {kept}"),
            };
            self.steps.push(Step { step: Name::Clock, outcome: Outcome::NotKnown, text });
            return Ok(());
        };
        let offset = clock::now().unix_ms.div_euclid(1000).saturating_sub(told);
        let text = format!(
            "this gateway's clock is {} s {} the proxy's; {kept}",
            offset.unsigned_abs(),
            if offset < 0 { "behind" } else { "before" }
        );
        if offset.unsigned_abs() > CLOCK_TOLERANCE.as_secs() {
            let text = format!("{text}; set up time synchronisation (NTP, port 123/udp), unless it is the proxy's clock that is wrong");
            return Err(Verdict {
                step: Name::Clock,
                text,
                to: Audience::Network,
                asked: "a time server that this gateway may ask (NTP, 123/udp), and the proxy's own clock checked".into(),
            });
        }
        self.steps.push(good(Name::Clock, text));
        Ok(())
    }

    /// A fault at the broker's.
    fn broker(&self, step: Name, text: &str, asked: impl Into<String>) -> Verdict {
        if step == Name::MutualTls {
            return not_taken(self.without_name(text));
        }
        Verdict { step, text: self.without_name(text), to: Audience::Broker, asked: asked.into() }
    }

    /// The endpoint stands in the heading.
    fn without_name(&self, text: &str) -> String {
        text.strip_prefix(&format!("{}: ", self.endpoint)).unwrap_or(text).to_owned()
    }

    fn fail(&mut self, Verdict { step, text, to, asked }: Verdict) {
        self.steps.push(Step { step, outcome: Outcome::Failed, text: text.clone() });
        if to == Audience::Gateway {
            return;
        }
        self.ticket = Some(Ticket {
            to,
            step,
            source: self.source.clone(),
            host: self.endpoint.host.clone(),
            addresses: self.addresses.clone(),
            port: self.endpoint.port,
            through: self.proxy.map(ToString::to_string),
            protocol: protocol(self.endpoint),
            observed: text,
            asked,
        });
    }
}

/// What goes over the wire, for whoever has to allow it.
fn protocol(endpoint: &Endpoint) -> String {
    let kept = format!("outbound, one connection kept open, something is sent at least every {} s", KEEP_ALIVE.as_secs());
    if !endpoint.tls {
        return format!("MQTT 5 over TCP; {kept}");
    }
    let alpn = if endpoint.port == 443 { ", ALPN mqtt" } else { "" };
    format!("MQTT 5 over TLS 1.3 or 1.2, server name {}{alpn}, certificates on both sides; {kept}", endpoint.host)
}

/// From which address the system would send there. Sends nothing.
fn route(to: &SocketAddr) -> Result<IpAddr, String> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let chosen = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(to)?;
        socket.local_addr()
    });
    chosen.map(|address| address.ip()).map_err(|error| error.to_string())
}

/// Who our authorities are.
fn subjects(files: &TlsFiles) -> Vec<String> {
    let all = files.ca.certificates().unwrap_or_default(); // unreadable: the configuration of TLS has said so
    all.iter().filter_map(|der| Presented::of(der)).map(|authority| authority.subject).collect()
}
