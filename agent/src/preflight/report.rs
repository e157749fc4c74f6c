//! What `siteward preflight` found: steps, and the text of a ticket for whoever has to act. Pure.
//!
//! An endpoint's steps are in the order in which a connection takes them; the first that fails is the last. A ticket says what somebody needs who
//! has never heard of this program: from where, to where, which protocol, what was seen, what is asked for. No secret and nothing of any message
//! is in it.

use std::fmt::Write as _;

use serde::Serialize;

/// The whole report; its JSON is for tools: fields are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub site: String,
    pub gateway: String,
    pub version: String,
    /// Of the signed document that counts here; null where it is the local file alone.
    pub revision: Option<u64>,
    /// When it was made (RFC 3339), by the gateway's own clock.
    pub at: String,
    /// An agent runs here, whose session was left alone.
    pub agent_running: bool,
    pub endpoints: Vec<Checked>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub endpoint: String,
    pub proxy: Option<String>,
    pub steps: Vec<Step>,
    pub ticket: Option<Ticket>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    pub step: Name,
    pub outcome: Outcome,
    pub text: String,
}

/// In the order in which a connection takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// Name resolution: of the broker's host, or of the proxy's.
    Name,
    Route,
    Tcp,
    Proxy,
    Tls,
    /// The broker takes our certificate.
    MutualTls,
    /// MQTT CONNECT.
    Connect,
    Subscribe,
    Publish,
    PacketLimit,
    Clock,
}

impl Name {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Route => "route",
            Self::Tcp => "tcp",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::MutualTls => "mutual_tls",
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::PacketLimit => "packet_limit",
            Self::Clock => "clock",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Good,
    Failed,
    /// Not needed, or left alone; the text says which.
    Skipped,
    /// There is no way to tell from here.
    NotKnown,
}

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    Network,
    Proxy,
    Broker,
    /// Whoever looks after this gateway; the step's text is enough.
    Gateway,
}

impl Audience {
    fn words(self) -> &'static str {
        match self {
            Self::Network => "the network team",
            Self::Proxy => "whoever runs the proxy",
            Self::Broker => "whoever runs the broker",
            Self::Gateway => "whoever looks after this gateway",
        }
    }
}

/// Text to be copied into somebody's ticket system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ticket {
    pub to: Audience,
    pub step: Name,
    /// Address from which the gateway connects, where that is known.
    pub source: Option<String>,
    pub host: String,
    pub addresses: Vec<String>,
    pub port: u16,
    /// Proxy in between, with its addresses in `addresses`.
    pub through: Option<String>,
    pub protocol: String,
    pub observed: String,
    pub asked: String,
}

impl Report {
    /// The first endpoint that failed, and its step.
    pub fn failed(&self) -> Option<(&str, Name)> {
        let failed = |checked: &Checked| checked.steps.iter().find(|step| step.outcome == Outcome::Failed).map(|step| step.step);
        self.endpoints.iter().find_map(|checked| Some((checked.endpoint.as_str(), failed(checked)?)))
    }

    /// Whether every step to some endpoint is good, or was left alone.
    pub fn has_a_way(&self) -> bool {
        let is_good = |checked: &Checked| checked.steps.iter().all(|step| step.outcome != Outcome::Failed);
        self.endpoints.iter().any(is_good)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("Preflight of gateway {} at {}, siteward {}, {}\n", self.gateway, self.site, self.version, self.at);
        if let Some(revision) = self.revision {
            let _ = writeln!(text, "The endpoints are those of document revision {revision}, and those of the local file."); // to a String
        }
        if self.agent_running {
            text.push_str("The agent runs here: its session is left alone, and what it knows is told from CONNECT on.\n");
        }
        for checked in &self.endpoints {
            // Writing to a String does not fail.
            let way = checked.proxy.as_ref().map_or_else(String::new, |proxy| format!(" through {proxy}"));
            let _ = writeln!(text, "\n{}{way}", checked.endpoint);
            for Step { step, outcome, text: said } in &checked.steps {
                let mark = match outcome {
                    Outcome::Good => "ok",
                    Outcome::Failed => "FAILED",
                    Outcome::Skipped => "-",
                    Outcome::NotKnown => "?",
                };
                let _ = writeln!(text, "  {mark:<7} {:<12}  {said}", step.as_str());
            }
            if let Some(ticket) = &checked.ticket {
                ticket.write(&mut text, self);
            }
        }
        text
    }
}

impl Ticket {
    fn write(&self, text: &mut String, report: &Report) {
        let Self { to, step, source, host, addresses, port, through, protocol, observed, asked } = self;
        let source = source.as_deref().unwrap_or("address not known");
        let shown = if addresses.is_empty() { String::new() } else { format!(" ({})", addresses.join(", ")) };
        let (destination, way) = match through {
            None => (format!("{host}{shown}, port {port}/tcp"), "directly, no proxy".to_owned()),
            Some(proxy) => (format!("{host}, port {port}/tcp"), format!("HTTP CONNECT by the proxy {proxy}{shown}")),
        };
        let lines = [
            ("Source", format!("{source} (gateway {} at {})", report.gateway, report.site)),
            ("Destination", destination),
            ("Way", way),
            ("Protocol", protocol.clone()),
            ("Observed", format!("step {} at {}: {observed}", step.as_str(), report.at)),
            ("Asked for", asked.clone()),
        ];
        let _ = writeln!(text, "\n  Ticket for {}:", to.words()); // to a String
        for (label, line) in lines {
            let _ = writeln!(text, "    {:<13}{line}", format!("{label}:"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: Outcome, ticket: Option<Ticket>) -> Report {
        let steps = vec![Step { step: Name::Tcp, outcome, text: "what there is to say".into() }];
        let checked = Checked { endpoint: "mqtts://hub:8883".into(), proxy: None, steps, ticket };
        let (site, gateway) = ("st-marys".into(), "gw1".into());
        Report {
            site,
            gateway,
            version: "0.1.0".into(),
            at: "2026-11-24T10:00:00Z".into(),
            revision: None,
            agent_running: false,
            endpoints: vec![checked],
        }
    }

    #[test]
    fn only_a_failed_step_makes_it_fail() {
        for outcome in [Outcome::Good, Outcome::Skipped, Outcome::NotKnown] {
            assert_eq!(report(outcome, None).failed(), None);
            assert!(report(outcome, None).has_a_way());
        }
        let mut failed = report(Outcome::Failed, None);
        assert_eq!(failed.failed(), Some(("mqtts://hub:8883", Name::Tcp)));
        assert!(!failed.has_a_way());
        failed.endpoints.extend(report(Outcome::Good, None).endpoints);
        assert!(failed.has_a_way() && failed.failed().is_some(), "one of two endpoints is enough to work, and the other is told");
    }

    #[test]
    fn a_ticket_can_be_copied_as_it_is() {
        let ticket = Ticket {
            to: Audience::Network,
            step: Name::Tcp,
            source: Some("10.1.2.3".into()),
            host: "hub".into(),
            addresses: vec!["203.0.113.7".into()],
            port: 8883,
            through: None,
            protocol: "TCP".into(),
            observed: "no answer".into(),
            asked: "allow it".into(),
        };
        let text = report(Outcome::Failed, Some(ticket)).text();
        for line in [
            "  FAILED  tcp           what there is to say",
            "  Ticket for the network team:",
            "    Source:      10.1.2.3 (gateway gw1 at st-marys)",
            "    Destination: hub (203.0.113.7), port 8883/tcp",
            "    Observed:    step tcp at 2026-11-24T10:00:00Z: no answer",
            "    Asked for:   allow it",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
    }
}
