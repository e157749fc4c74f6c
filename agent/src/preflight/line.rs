//! From how far a dial came, and why it ended, to the steps up to the certificates. Pure.
//!
//! What is told of a failure is the sentence of the dial itself, which the agent's log has too; beside it stands what to ask, and whom. A
//! certificate that is not of our CA is the mark of a device that inspects TLS, unless it was issued in the name of our CA: that is one that was
//! made anew.

use std::net::IpAddr;

use super::presented::{Presented, product};
use super::report::{Audience, Name, Outcome, Step};
use crate::clock;
use crate::config::settings::{Endpoint, Proxy, authority};
use crate::limits::PREFLIGHT_ADDRESSES_TOLD;
use crate::uplink::bridge::{DialError, ProxyError, Waiting};
use crate::uplink::probe::{Trace, certificate_fault, chain, is_of_another_ca};

/// What is known of one dial.
pub(super) struct Facts<'a> {
    pub endpoint: &'a Endpoint,
    /// The one on the way of this endpoint.
    pub proxy: Option<&'a Proxy>,
    pub trace: &'a Trace,
    /// For each address the one from which the gateway would reach it, or why it cannot.
    pub routes: &'a [Result<IpAddr, String>],
    /// Version, of a handshake that succeeded.
    pub tls: Option<&'static str>,
    pub presented: Option<&'a Presented>,
    /// Subjects of the authorities in `ca`.
    pub authorities: &'a [String],
    pub failure: Option<&'a DialError>,
}

/// Why it ended, and what to ask.
#[derive(Debug)]
pub(super) struct Verdict {
    pub step: Name,
    pub text: String,
    pub to: Audience,
    pub asked: String,
}

/// The broker does not take our certificate. Nobody is asked to accept one that was revoked: it stays so, and a replacement may run under this name.
pub(super) fn not_taken(text: String) -> Verdict {
    let step = Name::MutualTls;
    if !text.contains("CertificateRevoked") {
        let asked = "accept the certificate of this gateway, and the CA that issued it".to_owned();
        return Verdict { step, text, to: Audience::Broker, asked };
    }
    let text = format!(
        "{text}; it was revoked and stays so, nobody should accept it again. Where another box took this one's place, its certificate is the one \
         that counts (runbook, \"Restore from a salvaged disk\"); else ask central IT for a new bundle"
    );
    Verdict { step, text, to: Audience::Gateway, asked: String::new() }
}

pub(super) fn good(step: Name, text: impl Into<String>) -> Step {
    Step { step, outcome: Outcome::Good, text: text.into() }
}

pub(super) fn skipped(step: Name, text: impl Into<String>) -> Step {
    Step { step, outcome: Outcome::Skipped, text: text.into() }
}

impl Facts<'_> {
    /// Whom TCP is spoken with: the proxy, or the broker itself.
    fn target(&self) -> (&str, u16) {
        self.proxy.map_or((self.endpoint.host.as_str(), self.endpoint.port), |proxy| (proxy.host.as_str(), proxy.port))
    }

    /// The address of ours that the connection has, or would have.
    pub fn source(&self) -> Option<IpAddr> {
        self.trace.tcp.map(|(local, _)| local.ip()).or_else(|| self.routes.iter().find_map(|route| route.as_ref().ok().copied()))
    }

    pub fn addresses(&self) -> Vec<String> {
        self.trace.addresses.iter().take(PREFLIGHT_ADDRESSES_TOLD).map(|address| address.ip().to_string()).collect()
    }

    /// The steps that went well, and the one that did not.
    pub fn steps(&self) -> (Vec<Step>, Option<Verdict>) {
        let verdict = self.failure.map(|failure| self.verdict(failure));
        let failed = verdict.as_ref().map(|verdict| verdict.step);
        let each = [
            (Name::Name, self.name()),
            (Name::Route, self.route()),
            (Name::Tcp, self.tcp()),
            (Name::Proxy, self.tunnel()),
            (Name::Tls, self.tls()),
        ];
        let before = each.into_iter().take_while(|(name, _)| failed.is_none_or(|failed| *name < failed));
        (before.map(|(_, step)| step).collect(), verdict)
    }

    fn name(&self) -> Step {
        let (host, _) = self.target();
        let whose = if self.proxy.is_some() { "the proxy's host " } else { "" };
        if host.parse::<IpAddr>().is_ok() {
            return skipped(Name::Name, format!("{whose}{host} is an address; nothing is to be resolved"));
        }
        good(Name::Name, format!("{whose}{host} is {}", self.addresses().join(", ")))
    }

    fn route(&self) -> Step {
        match self.source() {
            Some(source) => good(Name::Route, format!("packets leave from {source}")),
            None => skipped(Name::Route, "not known; the connection stands all the same"),
        }
    }

    fn tcp(&self) -> Step {
        let peer = self.trace.tcp.map_or_else(String::new, |(local, peer)| format!("connected from {local} to {peer}"));
        good(Name::Tcp, peer)
    }

    fn tunnel(&self) -> Step {
        match self.proxy {
            Some(proxy) => good(Name::Proxy, format!("{proxy} opened a tunnel to {}", authority(&self.endpoint.host, self.endpoint.port))),
            None if self.endpoint.tls => skipped(Name::Proxy, "none is configured; the broker is dialled directly"),
            None => skipped(Name::Proxy, "not used for mqtt://"),
        }
    }

    fn tls(&self) -> Step {
        if !self.endpoint.tls {
            return skipped(Name::Tls, "not used by mqtt://: everything goes in clear");
        }
        good(Name::Tls, format!("{}; {}", self.tls.unwrap_or("TLS"), self.shown()))
    }

    /// What was presented.
    fn shown(&self) -> String {
        match self.presented {
            Some(Presented { subject, issuer, end }) => {
                let end = end.map(|end| format!(", ends {}", clock::rfc3339(end * 1000))).unwrap_or_default();
                format!("presented: subject {subject}; issuer {issuer}{end}")
            }
            None => "no certificate was presented".to_owned(),
        }
    }

    fn verdict(&self, failure: &DialError) -> Verdict {
        let step = self.place(failure);
        let told = chain(failure);
        let told = told.strip_prefix(&format!("{}: ", self.endpoint)).unwrap_or(&told).to_owned();
        let (host, port) = self.target();
        let source = self.source().map_or_else(|| "this gateway".to_owned(), |source| source.to_string());
        let shown = if self.trace.addresses.is_empty() { String::new() } else { format!(" ({})", self.addresses().join(", ")) };
        let verdict = |to, text, asked| Verdict { step, text, to, asked };
        match step {
            Name::Name => verdict(Audience::Network, told, format!("an answer for {host} from the DNS servers of this gateway")),
            Name::Route => verdict(Audience::Network, told, format!("a route from this gateway to {host}{shown}")),
            Name::Tcp => verdict(
                Audience::Network,
                told,
                format!("allow outbound TCP from {source} to {host}{shown}, port {port}; it is kept open for as long as it lasts"),
            ),
            Name::Proxy => self.refused_by_proxy(failure, told, &source),
            Name::MutualTls => not_taken(told),
            _ => self.without_tls(failure, told),
        }
    }

    /// The step that failed.
    fn place(&self, failure: &DialError) -> Name {
        let no_way = if !self.routes.is_empty() && self.routes.iter().all(Result::is_err) { Name::Route } else { Name::Tcp };
        match failure {
            DialError::Dns { .. } | DialError::NoAddress { .. } | DialError::Timeout { waiting: Waiting::Name, .. } => Name::Name,
            DialError::Refused { .. }
            | DialError::Unreachable { .. }
            | DialError::Local { .. }
            | DialError::Timeout { waiting: Waiting::Tcp, .. } => no_way,
            DialError::Timeout { waiting: Waiting::Proxy, .. } => Name::Proxy,
            DialError::Proxy { error, .. } => match error {
                ProxyError::Dns(_) | ProxyError::NoAddress | ProxyError::Timeout(Waiting::Name) => Name::Name,
                ProxyError::Refused(_) | ProxyError::Unreachable(..) | ProxyError::Timeout(Waiting::Tcp) => no_way,
                _ => Name::Proxy,
            },
            DialError::ClientCertificate { .. } => Name::MutualTls,
            DialError::NoTls { .. }
            | DialError::ServerName { .. }
            | DialError::ServerCertificate { .. }
            | DialError::Tls { .. }
            | DialError::Timeout { waiting: Waiting::Handshake, .. } => Name::Tls,
        }
    }

    fn refused_by_proxy(&self, failure: &DialError, text: String, source: &str) -> Verdict {
        let to = authority(&self.endpoint.host, self.endpoint.port);
        let (audience, asked) = match failure {
            DialError::Proxy { error: ProxyError::Credential(_), .. } => (Audience::Gateway, String::new()),
            DialError::Proxy { error: ProxyError::Authentication { .. }, .. } => {
                (Audience::Proxy, format!("admit {source} without authentication, or an account for it (Basic), for CONNECT to {to}"))
            }
            DialError::Proxy { error: ProxyError::NotReached(_), .. } => {
                (Audience::Proxy, format!("let the proxy itself reach {to} over TCP (name resolution and firewall on its side)"))
            }
            _ => (Audience::Proxy, format!("allow CONNECT to {to} from {source}, without inspection of the TLS inside")),
        };
        Verdict { step: Name::Proxy, text, to: audience, asked }
    }

    fn without_tls(&self, failure: &DialError, told: String) -> Verdict {
        let at = authority(&self.endpoint.host, self.endpoint.port);
        let exempt = format!(
            "exempt {at} from TLS inspection for this gateway: both ends prove themselves by certificates, which only an unchanged connection carries"
        );
        let verdict = |to, text, asked| Verdict { step: Name::Tls, text, to, asked };
        match failure {
            DialError::ServerCertificate { error, .. } if is_of_another_ca(error) => {
                let issuer = self.presented.map_or("no name", |presented| presented.issuer.as_str());
                let ours = if self.authorities.is_empty() { String::new() } else { format!(" (ours: {})", self.authorities.join("; ")) };
                if self.authorities.iter().any(|ours| ours == issuer) {
                    let text = format!(
                        "{}; issued in the name of our CA, but not by its key: that CA was made anew; put its new certificate into `ca` under [uplink]",
                        self.shown()
                    );
                    return verdict(
                        Audience::Broker,
                        text,
                        "the certificate of the CA that issued the broker's certificate (PEM)".to_owned(),
                    );
                }
                let hint =
                    product(issuer).map(|word| format!(" (the issuer's name holds \"{word}\", as that of an inspecting product does)"));
                let text = format!(
                    "{}; the issuer is not our CA{ours}: a device in between ends TLS and inspects it{}, or `ca` under [uplink] is not the broker's CA",
                    self.shown(),
                    hint.unwrap_or_default()
                );
                verdict(Audience::Network, text, exempt)
            }
            DialError::ServerCertificate { error, .. } => {
                let text = format!("{}; it is not accepted: {}", self.shown(), certificate_fault(error));
                verdict(Audience::Broker, text, format!("a certificate for the name {}, in date", self.endpoint.host))
            }
            DialError::NoTls { .. } | DialError::ServerName { .. } => verdict(Audience::Gateway, told, String::new()),
            _ => verdict(Audience::Network, told, format!("let TLS to {at} pass unchanged in both directions; {exempt}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;

    use rustls::CertificateError;

    use super::*;

    fn facts<'a>(endpoint: &'a Endpoint, trace: &'a Trace, failure: Option<&'a DialError>) -> Facts<'a> {
        Facts { endpoint, proxy: None, trace, routes: &[], tls: None, presented: None, authorities: &[], failure }
    }

    fn address() -> SocketAddr {
        "203.0.113.7:8883".parse().unwrap()
    }

    #[test]
    fn each_failure_has_its_step_and_somebody_to_ask() {
        let endpoint = Endpoint::new("hub.example.org", 8883, true);
        let proxied = |error| DialError::Proxy { endpoint: endpoint.clone(), proxy: "http://p:3128".into(), error };
        let e = || endpoint.clone();
        let cases = [
            (
                DialError::Dns { endpoint: e(), source: io::Error::other("x") },
                Name::Name,
                Audience::Network,
                "an answer for hub.example.org",
            ),
            (
                DialError::Refused { endpoint: e(), address: address() },
                Name::Tcp,
                Audience::Network,
                "allow outbound TCP from this gateway",
            ),
            (DialError::Timeout { endpoint: e(), waiting: Waiting::Tcp }, Name::Tcp, Audience::Network, "port 8883"),
            (proxied(ProxyError::Refused(address())), Name::Tcp, Audience::Network, "port 8883"),
            (proxied(ProxyError::Forbidden), Name::Proxy, Audience::Proxy, "allow CONNECT to hub.example.org:8883"),
            (proxied(ProxyError::NotReached(502)), Name::Proxy, Audience::Proxy, "let the proxy itself reach"),
            (proxied(ProxyError::Credential("x".into())), Name::Proxy, Audience::Gateway, ""),
            (DialError::Timeout { endpoint: e(), waiting: Waiting::Handshake }, Name::Tls, Audience::Network, "let TLS to"),
            (
                DialError::ServerCertificate { endpoint: e(), error: CertificateError::NotValidForName },
                Name::Tls,
                Audience::Broker,
                "a certificate for the name hub.example.org",
            ),
            (
                DialError::ClientCertificate { endpoint: e(), alert: rustls::AlertDescription::UnknownCA },
                Name::MutualTls,
                Audience::Broker,
                "accept the certificate",
            ),
            (
                DialError::ClientCertificate { endpoint: e(), alert: rustls::AlertDescription::CertificateRevoked },
                Name::MutualTls,
                Audience::Gateway, // no ticket: whoever runs the broker must not accept it again
                "",
            ),
        ];
        let trace = Trace::default();
        for (failure, step, to, asked) in &cases {
            let (_, verdict) = facts(&endpoint, &trace, Some(failure)).steps();
            let verdict = verdict.unwrap();
            assert_eq!((verdict.step, verdict.to), (*step, *to), "{}", verdict.text);
            assert!(verdict.asked.contains(asked), "{}", verdict.asked);
            assert!(*to != Audience::Gateway || verdict.asked.is_empty(), "{}", verdict.asked);
            assert!(!verdict.text.contains("mqtts://"), "{}", verdict.text);
        }
    }

    #[test]
    fn without_any_route_it_is_the_route_that_fails() {
        let endpoint = Endpoint::new("hub.example.org", 8883, true);
        let trace = Trace { addresses: vec![address()], ..Trace::default() };
        let failure = DialError::Unreachable { endpoint: endpoint.clone(), address: address(), source: io::Error::other("no route") };
        let routes = [Err("no route".to_owned())];
        let (steps, verdict) = Facts { routes: &routes, ..facts(&endpoint, &trace, Some(&failure)) }.steps();
        assert_eq!(steps.iter().map(|step| step.step).collect::<Vec<_>>(), [Name::Name]);
        let verdict = verdict.unwrap();
        assert_eq!((verdict.step, verdict.asked.as_str()), (Name::Route, "a route from this gateway to hub.example.org (203.0.113.7)"));
    }

    #[test]
    fn an_inspecting_device_is_told_from_a_ca_that_was_made_anew() {
        let endpoint = Endpoint::new("hub.example.org", 8883, true);
        let (trace, authorities) = (Trace::default(), ["CN=hub CA".to_owned()]);
        let failure = DialError::ServerCertificate { endpoint: endpoint.clone(), error: CertificateError::UnknownIssuer };
        let verdict = |issuer: &str| {
            let presented = Presented { subject: "CN=hub.example.org".into(), issuer: issuer.into(), end: None };
            let facts = Facts { presented: Some(&presented), authorities: &authorities, ..facts(&endpoint, &trace, Some(&failure)) };
            facts.steps().1.unwrap()
        };
        let inspected = verdict("O=Zscaler Inc., CN=Zscaler Root CA");
        assert_eq!(inspected.to, Audience::Network);
        for part in [
            "subject CN=hub.example.org; issuer O=Zscaler",
            "not our CA (ours: CN=hub CA)",
            "inspects it (the issuer's name holds \"zscaler\"",
        ] {
            assert!(inspected.text.contains(part), "{}", inspected.text);
        }
        assert!(inspected.asked.starts_with("exempt hub.example.org:8883 from TLS inspection"), "{}", inspected.asked);
        let renewed = verdict("CN=hub CA");
        assert!(renewed.to == Audience::Broker && renewed.text.contains("made anew"), "{}", renewed.text);
    }
}
