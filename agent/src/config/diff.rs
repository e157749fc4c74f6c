//! What changes between two configurations, in the terms of who has to act on it. Pure.
//!
//! Feeds are told apart by their id. A feed whose id stays is changed in its source (a listener or a directory has to be opened anew), in other
//! settings (they take effect without), or both.

use std::collections::BTreeMap;

use super::settings::{FeedSettings, Settings};
use crate::record::FeedId;

/// See the module. Lists are in the order of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<FeedId>,
    pub removed: Vec<FeedId>,
    /// Listener, directory and the like.
    pub source_changed: Vec<FeedId>,
    /// Lane, stage, character set, what it says about itself.
    pub other_changed: Vec<FeedId>,
    /// Anything of `[uplink]` but its endpoints.
    pub uplink_changed: bool,
    /// Addresses, their order or their CA.
    pub endpoints_changed: bool,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

pub fn diff(old: &Settings, new: &Settings) -> Changes {
    let by_id = |settings: &'_ Settings| -> BTreeMap<FeedId, FeedSettings> {
        settings.feeds.iter().map(|feed| (feed.id.clone(), feed.clone())).collect()
    };
    let (before, after) = (by_id(old), by_id(new));
    let mut changes = Changes {
        added: after.keys().filter(|id| !before.contains_key(*id)).cloned().collect(),
        removed: before.keys().filter(|id| !after.contains_key(*id)).cloned().collect(),
        endpoints_changed: old.uplink.endpoints != new.uplink.endpoints,
        ..Changes::default()
    };
    for (id, feed) in &after {
        let Some(was) = before.get(id) else { continue };
        if was.source != feed.source {
            changes.source_changed.push(id.clone());
        }
        if (FeedSettings { source: was.source.clone(), ..feed.clone() }) != *was {
            changes.other_changed.push(id.clone());
        }
    }
    let mut uplink = old.uplink.clone();
    uplink.endpoints.clone_from(&new.uplink.endpoints);
    changes.uplink_changed = uplink != new.uplink;
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_text;
    use crate::record::Name;

    const OLD: &str = r#"
        [gateway]
        site = "s"
        id = "g"
        timezone = "UTC"
        [uplink]
        endpoints = ["mqtt://a"]
        allow_plaintext = true
        [[feed]]
        id = "b"
        forward = "raw"
        phi = "allowed"
        mllp = { listen = "127.0.0.1:2575" }
        [[feed]]
        id = "a"
        forward = "raw"
        phi = "allowed"
        [feed.directory]
        path = "/srv/x"
        split = "csv"
    "#;

    fn changes(old: &str, new: &str) -> Changes {
        assert!(OLD.contains(old), "{old}");
        diff(&parse_text("a".as_ref(), OLD).unwrap(), &parse_text("a".as_ref(), &OLD.replacen(old, new, 1)).unwrap())
    }

    #[test]
    fn each_change_is_named_by_what_has_to_act_on_it() {
        let ids = |names: &[&str]| names.iter().map(|name| Name::new(name).unwrap()).collect::<Vec<_>>();
        let none = Changes::default();
        assert!(changes("id = \"b\"", "id = \"b\"").is_empty());
        assert_eq!(changes(":2575", ":2576"), Changes { source_changed: ids(&["b"]), ..none.clone() });
        assert_eq!(changes("\"csv\"", "\"lines\""), Changes { source_changed: ids(&["a"]), ..none.clone() });
        assert_eq!(changes("id = \"a\"", "id = \"a\"\nlane = \"bulk\""), Changes { other_changed: ids(&["a"]), ..none.clone() });
        assert_eq!(changes("id = \"a\"", "id = \"a\"\nowner = \"me\""), Changes { other_changed: ids(&["a"]), ..none.clone() });
        assert_eq!(changes("id = \"b\"", "id = \"c\""), Changes { added: ids(&["c"]), removed: ids(&["b"]), ..none.clone() });
        assert_eq!(changes("//a\"", "//b\""), Changes { endpoints_changed: true, ..none.clone() });
        assert_eq!(changes("allow_plaintext", "in_flight = 9\nallow_plaintext"), Changes { uplink_changed: true, ..none.clone() });
        let both = Changes { source_changed: ids(&["b"]), other_changed: ids(&["b"]), ..none };
        assert_eq!(changes("id = \"b\"", "id = \"b\"\nstage = \"live\""), both, "the stage is part of what a listener is told");
    }
}
