//! What a running Mosquitto takes from its files when it is told to read them again, and what needs a restart.

use harness::enrolment::{Box_, Desk};
use harness::wait;

use super::GATEWAY;

/// A new bundle needs no restart: who may say what is read again. A revoked certificate has no rights from then on. That it is refused in the handshake,
/// and that nobody stays connected with it, takes what the desk's program asks for, whatever a reload does in this version.
#[test]
fn a_broker_is_told_by_the_command_that_the_desk_prints() {
    let mut desk = Desk::new();
    desk.serve();
    let files = ["broker", "mosquitto", "--state", "state", "--out", "broker-files"];
    assert!(desk.does(&files).contains("nothing changed"), "made before");
    assert!(desk.bundle(GATEWAY, "first.bundle", &[]).done);
    let said = desk.does(&files);
    assert!(said.contains("systemctl reload mosquitto") && !said.contains("restart"), "{said}");
    desk.broker.reload();
    let old = Box_::new(desk.path("old"));
    let enrolled = old.enroll(&desk.path("first.bundle"), &[]);
    assert!(enrolled.done, "{}{}", enrolled.out, enrolled.err);

    assert!(desk.bundle(GATEWAY, "second.bundle", &["--replace"]).done);
    let said = desk.does(&files);
    assert!(said.contains("systemctl restart mosquitto"), "a list of revoked certificates is new: {said}");
    // Not what it asks for: SIGHUP. What the old certificate can do then was measured, and is no more than nothing.
    desk.broker.reload();
    let refused = || {
        let preflight = old.command(&["preflight"]);
        (!preflight.done).then_some(preflight)
    };
    let after = wait::wait_for("the old certificate is of no use after SIGHUP", wait::SOON, refused);
    let by_reload = after.err.contains("fails at step mutual_tls");
    assert!(by_reload || after.err.contains("fails at step subscribe") || after.err.contains("fails at step publish"), "{}", after.err);
    desk.broker.stop();
    desk.broker.restart();
    let after = old.command(&["preflight"]);
    assert!(after.err.contains("fails at step mutual_tls"), "{}{}", after.out, after.err);
    let new = Box_::new(desk.path("new"));
    assert!(new.enroll(&desk.path("second.bundle"), &[]).done);
    println!(
        "enrolment: Mosquitto takes the access list by SIGHUP; a revoked certificate is refused in the handshake after {}",
        if by_reload { "SIGHUP already" } else { "a restart only, and has no rights after SIGHUP" }
    );
}
