//! Topic names: `siteward/v1/{site}/{gateway}/…`; the version of the contract is in the path.

use crate::record::{FeedId, Name};

/// What every topic of this contract version begins with.
pub const ROOT: &str = "siteward/v1";

/// The topics of one gateway.
#[derive(Clone, Debug)]
pub struct Topics {
    prefix: String,
}

impl Topics {
    pub fn new(site: &Name, gateway: &Name) -> Self {
        Self { prefix: format!("{ROOT}/{site}/{gateway}") }
    }
    pub fn event(&self, feed: &FeedId) -> String {
        format!("{}/event/{feed}", self.prefix)
    }
    pub fn outcome(&self, feed: &FeedId) -> String {
        format!("{}/outcome/{feed}", self.prefix)
    }
    pub fn checkpoint(&self) -> String {
        format!("{}/checkpoint", self.prefix)
    }
    pub fn status(&self) -> String {
        format!("{}/status", self.prefix)
    }
    pub fn receipt(&self) -> String {
        format!("{}/receipt", self.prefix)
    }
    /// Retained, hub to gateway: the signed document.
    pub fn desired(&self) -> String {
        format!("{}/config/desired", self.prefix)
    }
    /// Retained, gateway to hub: what runs, what was tried and what became of it.
    pub fn reported(&self) -> String {
        format!("{}/config/reported", self.prefix)
    }
    /// Hub to gateway, never retained.
    pub fn command(&self) -> String {
        format!("{}/command", self.prefix)
    }
    pub fn command_result(&self) -> String {
        format!("{}/command/result", self.prefix)
    }
    /// Retained, gateway to hub: the request for a certificate, and what became of the last one.
    pub fn certificate_request(&self) -> String {
        format!("{}/certificate/request", self.prefix)
    }
    /// Hub to gateway: the certificate that was issued for the request (PEM).
    pub fn certificate_issued(&self) -> String {
        format!("{}/certificate/issued", self.prefix)
    }
    /// Gateway to nobody: whether it may publish.
    pub fn preflight(&self) -> String {
        format!("{}/preflight", self.prefix)
    }
    pub fn audit(&self) -> String {
        format!("{}/audit", self.prefix)
    }
    /// What a topic of this gateway is for.
    pub fn ours(&self, topic: &str) -> Option<Kind> {
        let rest = topic.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        kind(&mut rest.split('/'))
    }
}

/// What a topic name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub site: Name,
    pub gateway: Name,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Event(FeedId),
    Outcome(FeedId),
    Checkpoint,
    Status,
    Receipt,
    Desired,
    Reported,
    Command,
    CommandResult,
    CertificateRequest,
    CertificateIssued,
    Audit,
}

/// Reads a topic name; `None` for one that is not of this contract.
pub fn parse(topic: &str) -> Option<Parsed> {
    let mut levels = topic.strip_prefix(ROOT)?.strip_prefix('/')?.split('/');
    let site = Name::new(levels.next()?).ok()?;
    let gateway = Name::new(levels.next()?).ok()?;
    Some(Parsed { site, gateway, kind: kind(&mut levels)? })
}

fn kind<'a>(levels: &mut impl Iterator<Item = &'a str>) -> Option<Kind> {
    let kind = match (levels.next()?, levels.next()) {
        ("event", Some(feed)) => Kind::Event(Name::new(feed).ok()?),
        ("outcome", Some(feed)) => Kind::Outcome(Name::new(feed).ok()?),
        ("checkpoint", None) => Kind::Checkpoint,
        ("status", None) => Kind::Status,
        ("receipt", None) => Kind::Receipt,
        ("config", Some("desired")) => Kind::Desired,
        ("config", Some("reported")) => Kind::Reported,
        ("command", None) => Kind::Command,
        ("command", Some("result")) => Kind::CommandResult,
        ("certificate", Some("request")) => Kind::CertificateRequest,
        ("certificate", Some("issued")) => Kind::CertificateIssued,
        ("audit", None) => Kind::Audit,
        _ => return None,
    };
    levels.next().is_none().then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_reads_back_as_it_was_written() {
        let (site, gateway, feed) = (Name::new("s").unwrap(), Name::new("g").unwrap(), Name::new("f").unwrap());
        let topics = Topics::new(&site, &gateway);
        let kinds = [
            (topics.event(&feed), Kind::Event(feed.clone())),
            (topics.outcome(&feed), Kind::Outcome(feed)),
            (topics.checkpoint(), Kind::Checkpoint),
            (topics.status(), Kind::Status),
            (topics.receipt(), Kind::Receipt),
            (topics.desired(), Kind::Desired),
            (topics.reported(), Kind::Reported),
            (topics.command(), Kind::Command),
            (topics.command_result(), Kind::CommandResult),
            (topics.certificate_request(), Kind::CertificateRequest),
            (topics.certificate_issued(), Kind::CertificateIssued),
            (topics.audit(), Kind::Audit),
        ];
        for (name, kind) in kinds {
            assert_eq!(topics.ours(&name), Some(kind.clone()));
            assert_eq!(parse(&name), Some(Parsed { site: site.clone(), gateway: gateway.clone(), kind }));
        }
        for stranger in
            ["", "siteward/v1", "siteward/v1/s/g", "siteward/v1/s/g/event", "siteward/v2/s/g/status", "siteward/v1/s/g/event/f/x"]
        {
            assert_eq!(parse(stranger), None, "{stranger}");
        }
    }
}
