//! Two quiet traps of a gateway whose feeds come as documents.
//!
//! - It has no feed at all. A box that was enrolled, or took another's place, has none of its own; where the document is refused, was never sent, or is
//!   signed by a key it does not know, everything looks well and nothing is taken from anybody: `no_feeds`, after the moments that a document needs
//!   to come by itself. A document that runs and has no feed is the will of central IT, and none of this.
//! - Somebody on site wrote a feed into the local file while a document runs. It does not count, and its files would lie there for ever:
//!   `local_feeds_unused` names those that the document does not have either. A feed of the same name in both is how sites move to documents.
//!
//! Owned by the shell and looked at every second; reading the file again (SIGHUP) is its only I/O.

use std::path::Path;

use tokio::task::block_in_place;

use super::machine::Machine;
use crate::config::settings::{FeedSettings, Settings};
use crate::config::{self};
use crate::limits::{NO_FEEDS_GRACE, UNUSED_FEEDS_TOLD};
use crate::record::FeedId;
use crate::status::board::Board;
use crate::status::condition::Code;

/// See the module.
#[derive(Debug)]
pub(super) struct FeedWatch {
    /// Documents may come: keys are listed that sign them.
    awaits_documents: bool,
    /// Feeds of the local file, as last read.
    local: Vec<FeedId>,
    /// Since when there is none at all, in milliseconds.
    without_since: Option<u64>,
}

/// What runs, as far as it matters here.
struct Standing<'a> {
    /// Of the document that is committed; `None`: the local file alone.
    revision: Option<u64>,
    feeds: &'a [FeedSettings],
    /// What became of the newest document, for people.
    newest: String,
}

impl FeedWatch {
    pub(super) fn new(local: &Settings) -> Self {
        let awaits_documents = !local.trust.keys.is_empty() || !local.trust.inline_keys.is_empty();
        Self { awaits_documents, local: ids(&local.feeds), without_since: None }
    }

    /// The local file as it is now. One with faults is told and changes nothing.
    pub(super) fn read_again(&mut self, file: &Path) {
        match block_in_place(|| config::load(file)) {
            Ok(settings) => self.local = ids(&settings.feeds),
            Err(faults) => {
                for line in faults.to_string().lines() {
                    tracing::error!("{line}");
                }
            }
        }
    }

    pub(super) fn look(&mut self, now_ms: u64, machine: &Machine, feeds: &[FeedSettings], board: &Board) {
        let newest = match machine.tried() {
            Some(tried) => {
                let name = tried.revision.map_or_else(|| "the newest document".to_owned(), |revision| format!("revision {revision}"));
                let code = if tried.code.is_empty() { String::new() } else { format!(" ({})", tried.code) };
                format!("{name}: {}{code}", tried.state)
            }
            None => "no document has come".to_owned(),
        };
        let standing = Standing { revision: machine.committed().0.facts().map(|facts| facts.revision), feeds, newest };
        let none = self.without(now_ms, &standing);
        for (code, text) in [(Code::NoFeeds, none), (Code::LocalFeedsUnused, self.unused(&standing))] {
            match text {
                Some(text) => board.raise(code, "", text),
                None => board.clear(code, ""),
            }
        }
    }

    fn without(&mut self, now_ms: u64, standing: &Standing<'_>) -> Option<String> {
        if !self.awaits_documents || standing.revision.is_some() || !standing.feeds.is_empty() {
            self.without_since = None;
            return None;
        }
        let since = *self.without_since.get_or_insert(now_ms);
        let is_over = u128::from(now_ms.saturating_sub(since)) >= NO_FEEDS_GRACE.as_millis();
        is_over.then(|| {
            format!(
                "no feed is configured and no document runs, so nothing is taken from anybody; {}; central IT sends the document that is to run, \
                 with a higher revision",
                standing.newest
            )
        })
    }

    fn unused(&self, standing: &Standing<'_>) -> Option<String> {
        let revision = standing.revision?;
        let unused: Vec<&str> =
            self.local.iter().filter(|id| standing.feeds.iter().all(|feed| feed.id != **id)).map(FeedId::as_str).collect();
        let more = unused.len().saturating_sub(UNUSED_FEEDS_TOLD);
        (!unused.is_empty()).then(|| {
            let (named, more) = (
                unused[..unused.len() - more].join(", "),
                if more == 0 { String::new() } else { format!(" and {more} more") },
            );
            format!(
                "the local file has feeds that do not count, because revision {revision} runs and does not have them: {named}{more}; nothing of \
                 theirs is taken. Central IT puts them into the document, or they are removed from the file"
            )
        })
    }
}

fn ids(feeds: &[FeedSettings]) -> Vec<FeedId> {
    feeds.iter().map(|feed| feed.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(trust: bool, feeds: &[&str]) -> Settings {
        let mut text = "[gateway]\nsite = \"s\"\nid = \"gw1\"\ntimezone = \"UTC\"\n[spool]\npath = \"/spool\"\nkey = \"auto\"\n\
                        [uplink]\nendpoints = [\"mqtt://127.0.0.1:1\"]\nallow_plaintext = true\n"
            .to_owned();
        if trust {
            text.push_str("[trust]\nkeys = [\"desk.pub\"]\n");
        }
        let each = feeds.iter().enumerate().map(|(index, id)| {
            let port = 2000 + index;
            format!("[[feed]]\nid = \"{id}\"\nforward = \"raw\"\nphi = \"allowed\"\n[feed.mllp]\nlisten = \"127.0.0.1:{port}\"\n")
        });
        text.extend(each);
        config::parse_text(Path::new("siteward.toml"), &text).unwrap()
    }

    fn standing(revision: Option<u64>, feeds: &[FeedSettings]) -> Standing<'_> {
        Standing { revision, feeds, newest: "revision 2: refused (unknown_key)".into() }
    }

    #[test]
    fn a_gateway_that_waits_for_documents_and_has_no_feed_says_so() {
        let grace = u64::try_from(NO_FEEDS_GRACE.as_millis()).unwrap();
        let mut watch = FeedWatch::new(&settings(true, &[]));
        assert_eq!(watch.without(1000, &standing(None, &[])), None, "the document comes by itself, in moments");
        assert_eq!(watch.without(999 + grace, &standing(None, &[])), None);
        let text = watch.without(1000 + grace, &standing(None, &[])).unwrap();
        assert!(text.contains("nothing is taken from anybody") && text.contains("revision 2: refused (unknown_key)"), "{text}");
        assert_eq!(watch.without(1001 + grace, &standing(Some(3), &[])), None, "a document without feeds is what central IT wants");
        assert_eq!(watch.without(1002 + grace, &standing(None, &[])), None, "it begins anew");
        let some = settings(true, &["lab"]).feeds;
        assert_eq!(watch.without(9 * grace, &standing(None, &some)), None);
        let mut alone = FeedWatch::new(&settings(false, &[]));
        let looked = [0, grace, 9 * grace].map(|at| alone.without(at, &standing(None, &[])));
        assert_eq!(looked, [None, None, None], "nobody may send it documents: it is being set up by hand");
    }

    #[test]
    fn feeds_of_the_local_file_that_do_not_count_are_named() {
        let (watch, runs) = (FeedWatch::new(&settings(true, &["lab", "acme"])), settings(true, &["lab"]).feeds);
        let text = watch.unused(&standing(Some(7), &runs)).unwrap();
        assert!(text.contains("revision 7 runs and does not have them: acme;") && !text.contains("lab"), "{text}");
        assert_eq!(watch.unused(&standing(None, &runs)), None, "they count");
        let many: Vec<String> = (0..UNUSED_FEEDS_TOLD + 3).map(|n| format!("f{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = FeedWatch::new(&settings(true, &many)).unused(&standing(Some(7), &runs)).unwrap();
        assert!(text.contains(" and 3 more;"), "{text}");
    }
}
