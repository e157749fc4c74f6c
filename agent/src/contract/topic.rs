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
    /// Retained: the document that the gateway is to run.
    pub fn desired(&self) -> String {
        format!("{}/config/desired", self.prefix)
    }
    pub fn receipt(&self) -> String {
        format!("{}/receipt", self.prefix)
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
}

/// Reads a topic name; `None` for one that is not of this contract.
pub fn parse(topic: &str) -> Option<Parsed> {
    let mut levels = topic.strip_prefix(ROOT)?.strip_prefix('/')?.split('/');
    let site = Name::new(levels.next()?).ok()?;
    let gateway = Name::new(levels.next()?).ok()?;
    let kind = match (levels.next()?, levels.next()) {
        ("event", Some(feed)) => Kind::Event(Name::new(feed).ok()?),
        ("outcome", Some(feed)) => Kind::Outcome(Name::new(feed).ok()?),
        ("checkpoint", None) => Kind::Checkpoint,
        ("status", None) => Kind::Status,
        ("receipt", None) => Kind::Receipt,
        _ => return None,
    };
    levels.next().is_none().then_some(Parsed { site, gateway, kind })
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
        ];
        for (name, kind) in kinds {
            assert_eq!(parse(&name), Some(Parsed { site: site.clone(), gateway: gateway.clone(), kind }));
        }
        for stranger in
            ["", "siteward/v1", "siteward/v1/s/g", "siteward/v1/s/g/event", "siteward/v2/s/g/status", "siteward/v1/s/g/event/f/x"]
        {
            assert_eq!(parse(stranger), None, "{stranger}");
        }
    }
}
