//! A running site without a hub, for tests of what happens between a sender and the gateway alone.

use crate::canary;
use crate::message::{self, CANARIES};
use crate::scene::Directory;
use crate::site::{Configuration, Site};
use crate::wait;

/// A site without a hub, running.
#[derive(Debug)]
pub struct Gateway {
    pub site: Site,
    pub directory: Directory,
}

impl Gateway {
    pub fn start(adjust: impl FnOnce(&mut Configuration)) -> Self {
        let directory = Directory::new();
        let mut configuration = Configuration::new(directory.path());
        adjust(&mut configuration);
        let mut site = Site::new(directory.path(), configuration);
        site.start();
        Self { site, directory }
    }

    /// Somebody else is served as if nothing had happened.
    pub fn serves_others(&self) {
        let reply = self.site.wire().exchange(&message::build(77, 1, 700)).expect("an answer for somebody else");
        assert!(reply.positive());
    }

    /// The log tells about it in these words.
    pub fn log_says(&self, words: &str) {
        let said = wait::try_until(wait::SOON, || self.site.log().contains(words));
        assert!(said, "the log does not say `{words}`; it ends with:\n{}", self.site.log_tail());
    }

    /// I7: nothing of a message in the log, the status or the spool.
    pub fn keeps_quiet(&self) {
        let status = self.site.status().to_string();
        let found = canary::find(self.directory.path(), &CANARIES);
        assert!(found.is_empty(), "message content in clear: {found:?}");
        assert!(CANARIES.iter().all(|c| !status.contains(c)), "message content in the status");
    }
}
