//! The steps behind the handshake: the broker takes our certificate, lets us in, lets us read and write, and takes packets of our size.
//!
//! By ourselves, where no agent runs here; else by what the running agent tells of itself.

use super::report::{Audience, Name, Step};
use super::{Check, Verdict, good, not_taken, skipped};
use crate::clock;
use crate::contract::topic::Topics;
use crate::limits::EVENT_OVERHEAD_BYTES;
use crate::status::condition::Code;
use crate::status::snapshot::{Shown, Snapshot};
use crate::uplink::AckReason;
use crate::uplink::probe::{Reached, Stop, Talk};
use crate::uplink::watched::Seen;

const TAKEN: &str = "the broker asked for our certificate and took it";
/// A refusal would have come by now; what lies behind may still be one.
const NOT_REFUSED: &str = "the broker asked for our certificate and said nothing against it";
const NOT_ASKED: &str = "the broker asked for no certificate; it must know this gateway by something else";

impl Check<'_> {
    /// No agent is in our way.
    pub(super) async fn by_ourselves(&mut self, reached: Reached, seen: &Seen, why_no_key: Option<String>) -> Result<(), Verdict> {
        if let Some(why) = why_no_key.filter(|_| seen.was_asked()) {
            return Err(self.no_key(&why));
        }
        if self.endpoint.tls && seen.was_asked() && self.settings.uplink.cert.is_none() && self.endpoint.identity.is_none() {
            self.steps.push(skipped(Name::MutualTls, "this gateway has no certificate yet; what lies behind it cannot be tried"));
            return Ok(());
        }
        let gateway = &self.settings.gateway;
        let client_id = crate::uplink::client_id(&gateway.site, &gateway.id);
        let topics = Topics::new(&gateway.site, &gateway.id);
        let asked_of_broker =
            format!("let the client {client_id} connect (MQTT 5, QoS 1, a persistent session), known by the certificate of this gateway");
        let talk = reached.talk(self.endpoint, &client_id, self.settings.uplink.in_flight).await;
        let talk = match talk {
            Ok(talk) => talk,
            Err(Stop::Certificate(why)) => {
                return Err(not_taken(self.without_name(&why)));
            }
            Err(Stop::Other(why)) => {
                self.certificate(seen, NOT_REFUSED);
                return Err(self.broker(Name::Connect, &why, asked_of_broker));
            }
        };
        self.certificate(seen, TAKEN);
        let session = if talk.has_session { "the session from before is there and was left as it was" } else { "no session from before" };
        self.steps.push(good(Name::Connect, format!("let in as {client_id}; {session}")));
        self.rights(talk, &topics).await
    }

    fn certificate(&mut self, seen: &Seen, asked: &str) {
        self.steps.push(match (self.endpoint.tls, seen.was_asked()) {
            (false, _) => skipped(Name::MutualTls, "not used by mqtt://"),
            (true, true) => good(Name::MutualTls, asked),
            (true, false) => skipped(Name::MutualTls, NOT_ASKED),
        });
    }

    /// Reads, writes, sizes. The broker is left in order whatever comes of it.
    async fn rights(&mut self, mut talk: Talk<'_>, topics: &Topics) -> Result<(), Verdict> {
        let packet_bytes_max = talk.packet_bytes_max;
        let outcome = self.read_and_write(&mut talk, topics).await;
        talk.leave().await;
        outcome?;
        let needed = self.settings.spool.message_bytes_max + EVENT_OVERHEAD_BYTES as u64;
        let ours = format!("message_bytes_max needs {needed} bytes");
        match packet_bytes_max {
            Some(most) if u64::from(most) < needed => {
                let text = format!(
                    "the broker takes packets of {most} bytes, {ours}; raise the one or lower the other: larger messages would go to quarantine"
                );
                Err(self.broker(Name::PacketLimit, &text, format!("a maximum packet size of at least {needed} bytes")))
            }
            Some(most) => {
                self.steps.push(good(Name::PacketLimit, format!("the broker takes packets of {most} bytes, {ours}")));
                Ok(())
            }
            None => {
                self.steps.push(good(Name::PacketLimit, format!("the broker names no limit, {ours}")));
                Ok(())
            }
        }
    }

    async fn read_and_write(&mut self, talk: &mut Talk<'_>, topics: &Topics) -> Result<(), Verdict> {
        let stopped = |step| {
            move |stop: Stop| match stop {
                Stop::Certificate(why) => (Name::MutualTls, why),
                Stop::Other(why) => (step, why),
            }
        };
        let (required, optional) = crate::uplink::subscriptions(topics);
        let all: Vec<String> = required.iter().chain(&optional).cloned().collect();
        let asked = format!("let this gateway's client read {}", all.join(", "));
        let refused =
            talk.subscribe(&all).await.map_err(stopped(Name::Subscribe)).map_err(|(step, why)| self.broker(step, &why, &asked))?;
        if let Some(why) = refused.iter().take(required.len()).flatten().next() {
            return Err(self.broker(Name::Subscribe, why, &asked));
        }
        let beyond: Vec<&str> =
            all.iter().zip(&refused).filter(|(_, refused)| refused.is_some()).map(|(filter, _)| filter.as_str()).collect();
        self.steps.push(good(
            Name::Subscribe,
            if beyond.is_empty() {
                format!("may read {}", all.join(", "))
            } else {
                format!("may read what it must, but not {}: until the broker allows it nothing comes there", beyond.join(", "))
            },
        ));
        let topic = topics.preflight();
        let payload = format!("{{\"at\":\"{}\",\"version\":\"{}\"}}", clock::rfc3339(clock::now().unix_ms), env!("CARGO_PKG_VERSION"));
        let under = topic.trim_end_matches("preflight");
        let asked = format!("let this gateway's client publish below {under} (QoS 1, also retained)");
        let reason = talk
            .publish(&topic, payload.into_bytes())
            .await
            .map_err(stopped(Name::Publish))
            .map_err(|(step, why)| self.broker(step, &why, &asked))?;
        match reason {
            AckReason::Success | AckReason::NoMatchingSubscribers => {
                self.steps.push(good(Name::Publish, format!("may publish to {topic}; other topics below {under} are not tried")));
                Ok(())
            }
            refusal => {
                let text = format!(
                    "the broker does not take a publish to {topic} ({refusal:?}); allow this gateway's client to publish below {under}"
                );
                Err(self.broker(Name::Publish, &text, &asked))
            }
        }
    }

    /// Nothing is said: whether the broker has anything against the certificate.
    pub(super) async fn admitted(&mut self, reached: Reached, seen: &Seen) -> Result<(), Verdict> {
        if self.endpoint.tls
            && let Err(Stop::Certificate(why) | Stop::Other(why)) = reached.verdict(self.endpoint).await
        {
            return Err(not_taken(self.without_name(&why)));
        }
        self.certificate(seen, NOT_REFUSED);
        Ok(())
    }

    /// An agent has the session: the certificate is looked at from the outside, everything else is what the agent knows.
    pub(super) async fn beside(
        &mut self,
        reached: Reached,
        seen: &Seen,
        why_no_key: Option<String>,
        snapshot: Option<&Snapshot>,
    ) -> Result<(), Verdict> {
        let known = snapshot.map(|snapshot| Known { snapshot, endpoint: self.endpoint.to_string() });
        let stands = known.as_ref().is_some_and(Known::is_connected);
        if stands {
            self.certificate(seen, TAKEN);
        } else if let Some(why) = why_no_key.filter(|_| seen.was_asked()) {
            return Err(self.no_key(&why));
        } else {
            self.admitted(reached, seen).await?;
        }
        let Some(known) = known else {
            self.steps.push(skipped(
                Name::Connect,
                "left alone: an agent has this spool but cannot be asked; try again in a moment, or with more rights",
            ));
            return Ok(());
        };
        known.steps().into_iter().try_for_each(|told| match told {
            Ok(step) => {
                self.steps.push(step);
                Ok(())
            }
            Err((step, to, text)) => {
                Err(Verdict { step, text: self.without_name(&text), to, asked: "what the condition's page in the runbook asks for".into() })
            }
        })
    }
}

/// What the running agent says.
struct Known<'a> {
    snapshot: &'a Snapshot,
    endpoint: String,
}

type Told = Result<Step, (Name, Audience, String)>;

impl Known<'_> {
    fn is_connected(&self) -> bool {
        self.snapshot.uplink.state == "connected" && self.snapshot.uplink.endpoint.as_ref() == Some(&self.endpoint)
    }

    fn condition(&self, code: Code, subject: Option<&str>) -> Option<&Shown> {
        let mut all = self.snapshot.conditions.iter();
        all.find(|shown| shown.code == code.as_str() && subject.is_none_or(|subject| shown.subject == subject))
    }

    fn steps(&self) -> Vec<Told> {
        if let Some(refused) = self.condition(Code::UplinkRefused, Some(&self.endpoint)) {
            return vec![Err((Name::Connect, Audience::Broker, refused.text.clone()))];
        }
        if !self.is_connected() {
            let at = self.snapshot.uplink.endpoint.as_deref().unwrap_or("no endpoint");
            let text = format!(
                "left alone: the agent is {} at {at}, and would be thrown out by a second client of its name",
                self.snapshot.uplink.state
            );
            return vec![Ok(skipped(Name::Connect, text))];
        }
        let failed = |name, code| self.condition(code, None).map(|shown| Err((name, Audience::Broker, shown.text.clone())));
        vec![
            Ok(good(Name::Connect, format!("the running agent is connected here since {}", self.snapshot.uplink.since))),
            Ok(good(Name::Subscribe, "the agent's subscriptions were granted")),
            failed(Name::Publish, Code::FeedParked)
                .unwrap_or_else(|| Ok(skipped(Name::Publish, "left to the agent; it tells of no refusal"))),
            failed(Name::PacketLimit, Code::BrokerPacketLimit)
                .unwrap_or_else(|| Ok(good(Name::PacketLimit, "the agent compared the broker's limit with message_bytes_max"))),
        ]
    }
}
