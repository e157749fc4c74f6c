//! What the end-to-end tests are made of: a hospital, a site, a WAN, a broker and a hub, each a real process or a real socket on loopback.
//!
//! ```text
//! sender (MLLP) ──► siteward ──► link (TCP proxy that can be cut) ──► Mosquitto (mutual TLS) ──► siteward-hub ──► events.jsonl ──► audit
//! ```
//!
//! The harness shares no code with the agent: messages, framing, answers, digests and chains are built and checked here from the contract
//! alone, so that a mistake in the agent cannot hide behind the same mistake in its test.
//!
//! Rules: loopback only; ports outside the range the kernel gives to outgoing connections ([`net::free_port`]); every wait has a deadline that
//! guards against hanging and is never a measurement ([`wait`]); every process is killed by its own id when its handle is dropped
//! ([`process`]); everything lives in a temporary directory that goes away with the test, unless it failed and `SITEWARD_KEEP=1`.

pub mod audit;
pub mod broker;
pub mod browser;
pub mod canary;
pub mod destination;
pub mod document;
pub mod enrolment;
pub mod files;
pub mod fleet;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod inspector;
pub mod kernel;
pub mod link;
pub mod machine;
pub mod manager;
pub mod message;
pub mod mosquitto;
pub mod net;
pub mod noc;
pub mod observer;
pub mod pki;
pub mod plain_log;
pub mod process;
pub mod proxy;
pub mod samba;
pub mod scene;
pub mod sender;
pub mod sim;
pub mod site;
pub mod syslog;
pub mod tls;
pub mod volume;
pub mod wait;

use std::path::PathBuf;

/// The long versions were asked for.
pub fn long() -> bool {
    std::env::var_os("SITEWARD_LONG").is_some_and(|v| v == "1")
}

/// The top of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_path_buf()
}

/// A built program: from `SITEWARD_BIN_DIR`, else from `target/fast`.
pub fn program(name: &str) -> PathBuf {
    let directory = std::env::var_os("SITEWARD_BIN_DIR").map_or_else(|| repository().join("target/fast"), PathBuf::from);
    let path = directory.join(name);
    assert!(path.is_file(), "{} is not built; run ./tests/run, or cargo build --profile fast, or set SITEWARD_BIN_DIR", path.display());
    path
}
