//! What the sources show, with the reason of each feed that is not what it should be: the condition that says it, and the key it is about. Pure.
//!
//! A feed can have many conditions at a time (a silence, a held file); only those that say why its source does not run, or why its directory
//! cannot be read, are reasons here.

use super::facts::{Evidence, FeedFault, UplinkEvidence};
use crate::config::settings::{FeedSettings, SourceSettings};
use crate::record::FeedId;
use crate::sources::LocalEvidence;
use crate::status::condition::{Code, Condition};

/// The worst first: why a directory cannot be read.
const DIRECTORY: [Code; 3] = [Code::ShareMissing, Code::ShareHung, Code::DirectoryUnreadable];

pub(super) fn gathered(local: LocalEvidence, feeds: &[FeedSettings], conditions: &[Condition], uplink: UplinkEvidence) -> Evidence {
    let unbound = local.unbound.iter().map(|feed| {
        let key = match feeds.iter().find(|settings| settings.id == *feed).map(|settings| &settings.source) {
            Some(SourceSettings::Http(_)) => "feed.http.listen",
            Some(SourceSettings::Directory(_)) => "feed.directory.path",
            Some(SourceSettings::Mllp(_)) | None => "feed.mllp.listen",
        };
        fault(feed, key, told(conditions, feed, &[Code::ListenerDown]), "does not run yet; look at the agent's log")
    });
    let unreadable = local.unreadable.iter().map(|feed| {
        fault(feed, "feed.directory.path", told(conditions, feed, &DIRECTORY), "was not looked through since the change; check its share")
    });
    Evidence {
        listeners_bound: local.unbound.is_empty(),
        directories_readable: local.unreadable.is_empty(),
        faults: unbound.chain(unreadable).collect(),
        waiting_for_peers: local.waiting_for_peers,
        uplink,
    }
}

fn told<'a>(conditions: &'a [Condition], feed: &FeedId, codes: &[Code]) -> Option<&'a str> {
    let of = |code: &Code| conditions.iter().find(|condition| condition.code == code.as_str() && condition.subject == feed.as_str());
    codes.iter().find_map(of).map(|condition| condition.text.as_str())
}

fn fault(feed: &FeedId, key: &str, told: Option<&str>, otherwise: &str) -> FeedFault {
    FeedFault { feed: feed.clone(), key: key.to_owned(), why: told.unwrap_or(otherwise).to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::status::board::Board;

    const FEEDS: &str = "[gateway]\nsite=\"s\"\nid=\"g\"\ntimezone=\"UTC\"\n[uplink]\nendpoints=[\"mqtt://h:1\"]\nallow_plaintext=true\n\
        [[feed]]\nid=\"lab\"\nforward=\"raw\"\nphi=\"allowed\"\n[feed.mllp]\nlisten=\"127.0.0.1:2575\"\n\
        [[feed]]\nid=\"web\"\nforward=\"raw\"\nphi=\"allowed\"\n[feed.http]\nlisten=\"127.0.0.1:8080\"\nsplit=\"whole\"\n\
        [[feed]]\nid=\"cabinet\"\nforward=\"raw\"\nphi=\"allowed\"\n[feed.directory]\npath=\"/in\"\nsplit=\"csv\"\n";

    /// Other conditions of a feed are no reason, and every key is the full one.
    #[test]
    fn each_fault_names_the_condition_that_is_its_cause_and_the_whole_key() {
        let feeds = config::parse_text(std::path::Path::new("/etc/t.toml"), FEEDS).unwrap_or_else(|faults| panic!("{faults}")).feeds;
        let [lab, web, cabinet] = ["lab", "web", "cabinet"].map(|id| FeedId::new(id).unwrap());
        let board = Board::new([]);
        for feed in ["lab", "web", "cabinet"] {
            board.raise(Code::FeedSilent, feed, "nothing came since yesterday");
            board.raise(Code::ListenerOpen, feed, "anybody may connect");
            board.raise(Code::FileHeld, feed, "a file waits");
        }
        board.raise(Code::ListenerDown, "lab", "port 2575 is in use by another program");
        board.raise(Code::DirectoryUnreadable, "cabinet", "/in cannot be read: no such directory");
        let gather = |unbound: &[&FeedId], unreadable: &[&FeedId]| {
            let [unbound, unreadable] = [unbound, unreadable].map(|feeds| feeds.iter().map(|feed| (*feed).clone()).collect());
            let local = LocalEvidence { unbound, unreadable, waiting_for_peers: vec![] };
            let evidence = gathered(local, &feeds, &board.conditions(), UplinkEvidence::Down);
            let faults: Vec<String> = evidence.faults.iter().map(ToString::to_string).collect();
            ((evidence.listeners_bound, evidence.directories_readable), faults)
        };
        assert_eq!(gather(&[], &[]), ((true, true), vec![]));
        let ((bound, readable), faults) = gather(&[&lab, &web], &[&cabinet]);
        assert!(!bound && !readable);
        assert_eq!(
            faults,
            [
                "feed `lab` (feed.mllp.listen): port 2575 is in use by another program",
                "feed `web` (feed.http.listen): does not run yet; look at the agent's log",
                "feed `cabinet` (feed.directory.path): /in cannot be read: no such directory",
            ]
        );
        board.clear(Code::DirectoryUnreadable, "cabinet");
        let (_, faults) = gather(&[], &[&cabinet]);
        assert_eq!(faults, ["feed `cabinet` (feed.directory.path): was not looked through since the change; check its share"]);
        board.raise(Code::ShareHung, "cabinet", "the share does not answer");
        let (_, faults) = gather(&[&cabinet], &[]);
        assert_eq!(faults, ["feed `cabinet` (feed.directory.path): does not run yet; look at the agent's log"]);
        let (_, faults) = gather(&[], &[&cabinet]);
        assert_eq!(faults, ["feed `cabinet` (feed.directory.path): the share does not answer"]);
    }
}
