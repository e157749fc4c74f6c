//! Clients that others wrote, through the running agent: each must report success, and its own matching of answers to messages must pass.
//! The clients are installed and driven by `tests/clients/run`; part of the long suite, because they come from package registries.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use harness::gateway::Gateway;
use harness::pki::Pki;
use harness::scene::Directory;

/// Messages of each client in each mode.
const MESSAGES: u64 = 25;
/// Clients in a turn without TLS, and those of them that know it.
const PLAIN: usize = 7;
const WITH_TLS: usize = 3;

/// Runs all of them, each of which must succeed.
fn clients(addr: SocketAddr, mode: &str, ca: Option<&Path>) -> String {
    let mut command = Command::new(harness::repository().join("tests/clients/run"));
    command.args([&addr.ip().to_string(), &addr.port().to_string(), mode, &MESSAGES.to_string()]);
    command.args(ca);
    let output = command.output().expect("tests/clients/run runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}

fn through_the_agent(mode: &str, tls: bool) {
    if !harness::long() {
        println!("skipped: installs clients of others; SITEWARD_LONG=1 runs it");
        return;
    }
    let directory = Directory::new();
    let pki = Pki::new(&directory.path().join("pki"), "hospital CA");
    let server = pki.server();
    let gateway = Gateway::start(|c| {
        if tls {
            let section = format!("[feed.mllp.tls]\ncert = \"{}\"\nkey = \"{}\"", server.cert.display(), server.key.display());
            c.feeds[0].mllp.push(section);
        }
    });
    let said = clients(gateway.site.addr(), mode, tls.then_some(pki.ca.as_path()));
    println!("{said}");
    let wanted = if tls { WITH_TLS } else { PLAIN };
    assert_eq!(said.lines().filter(|l| l.ends_with(": ok")).count(), wanted, "{said}");
    let feed = gateway.site.feed_status("or-usage");
    assert_eq!(feed["captured"].as_u64(), Some(wanted as u64 * MESSAGES), "every message once: {feed}");
    assert_eq!((feed["duplicates"].as_u64(), feed["quarantined"].as_u64()), (Some(0), Some(0)), "{feed}");
}

#[test]
fn clients_of_others_succeed_in_original_mode() {
    through_the_agent("original", false);
}

#[test]
fn clients_of_others_succeed_in_enhanced_mode() {
    through_the_agent("enhanced", false);
}

#[test]
fn clients_of_others_succeed_over_tls_in_original_mode() {
    through_the_agent("original", true);
}

#[test]
fn clients_of_others_succeed_over_tls_in_enhanced_mode() {
    through_the_agent("enhanced", true);
}
