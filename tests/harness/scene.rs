//! The whole scene: site, link, broker and hub in one temporary directory, with certificates for everybody.

use tempfile::TempDir;

use crate::hub::{Door, Hub};
use crate::link::Link;
use crate::mosquitto::{self, Mosquitto};
use crate::pki::{Identity, Pki};
use crate::site::{Configuration, Site, Uplink};

/// A directory that stays when the test fails and `SITEWARD_KEEP=1`.
#[derive(Debug)]
pub struct Directory(Option<TempDir>);

impl Directory {
    pub fn new() -> Self {
        Self(Some(tempfile::Builder::new().prefix("siteward-").tempdir().expect("a temporary directory")))
    }

    pub fn path(&self) -> &std::path::Path {
        self.0.as_ref().expect("present until dropped").path()
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("SITEWARD_KEEP").is_some_and(|v| v == "1") {
            let kept = self.0.take().map(TempDir::keep);
            eprintln!("kept: {}", kept.unwrap_or_default().display());
        }
    }
}

/// Fields are dropped in this order: processes first, their directory last.
#[derive(Debug)]
pub struct Scene {
    pub site: Site,
    pub hub: Hub,
    pub link: Link,
    pub broker: Mosquitto,
    pub pki: Pki,
    pub directory: Directory,
}

impl Scene {
    /// Broker and link run; site and hub are ready to be started.
    pub fn new(broker: mosquitto::Options, adjust: impl FnOnce(&mut Configuration)) -> Self {
        let directory = Directory::new();
        let pki = Pki::new(&directory.path().join("pki"), "harness CA");
        let broker = Mosquitto::start(&directory.path().join("broker"), &pki, broker);
        let link = Link::start(broker.tls());
        let hub_identity = pki.client("hub");
        let door = Door::Tls { broker: broker.tls(), ca: pki.ca.clone(), client: hub_identity };
        let hub = Hub::new(&directory.path().join("hub"), door);
        let mut configuration = Configuration::new(&directory.path().join("site"));
        configuration.uplink = Uplink::Tls { port: link.port(), ca: pki.ca.clone(), client: pki.client(&configuration.gateway) };
        adjust(&mut configuration);
        let site = Site::new(&directory.path().join("site"), configuration);
        Self { site, hub, link, broker, pki, directory }
    }

    /// Another client's certificate of the same CA.
    pub fn identity(&self, name: &str) -> Identity {
        self.pki.client(name)
    }

    pub fn start(&mut self) {
        self.hub.start();
        self.site.start();
    }
}
