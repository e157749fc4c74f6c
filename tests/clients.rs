//! Clients that others wrote, through the running agent: each must report success, and its own matching of answers to messages must pass.
//! The clients are installed and driven by `tests/clients/run`; part of the long suite, because they come from package registries.

use std::net::SocketAddr;
use std::process::Command;

use harness::gateway::Gateway;

/// Messages of each client in each mode.
const MESSAGES: u64 = 25;
/// Clients in a turn without TLS.
const PLAIN: usize = 7;

/// Runs all of them; `None` where the long suite was not asked for.
fn clients(addr: SocketAddr, mode: &str) -> Option<String> {
    if !harness::long() {
        println!("skipped: installs clients of others; SITEWARD_LONG=1 runs it");
        return None;
    }
    let mut command = Command::new(harness::repository().join("tests/clients/run"));
    command.args([&addr.ip().to_string(), &addr.port().to_string(), mode, &MESSAGES.to_string()]);
    let output = command.output().expect("tests/clients/run runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    Some(said)
}

fn through_the_agent(mode: &str) {
    let gateway = Gateway::start(|_| {});
    let Some(said) = clients(gateway.site.addr(), mode) else { return };
    println!("{said}");
    assert_eq!(said.lines().filter(|l| l.ends_with(": ok")).count(), PLAIN, "{said}");
    let feed = gateway.site.feed_status("or-usage");
    assert_eq!(feed["captured"].as_u64(), Some(PLAIN as u64 * MESSAGES), "every message once: {feed}");
    assert_eq!((feed["duplicates"].as_u64(), feed["quarantined"].as_u64()), (Some(0), Some(0)), "{feed}");
}

#[test]
fn clients_of_others_succeed_in_original_mode() {
    through_the_agent("original");
}

#[test]
fn clients_of_others_succeed_in_enhanced_mode() {
    through_the_agent("enhanced");
}
