//! Sites where nothing leaves except through an HTTP proxy: a box gets in through it, and the first step that fails is named.

use std::fs;

use harness::enrolment::{Box_, Desk};
use harness::net;
use harness::pki::Pki;
use harness::proxy::{Manner, Proxy};

use super::{GATEWAY, send};

/// `kim:s3cret-canary`
const PROOF: &str = "a2ltOnMzY3JldC1jYW5hcnk=";
const PASSWORD: &str = "s3cret-canary";

/// The bundle carries the proxy and the name of its password; everything from the first connection to the agent's goes through it. I7: the password is
/// said nowhere.
#[test]
fn a_box_gets_in_through_a_proxy_and_the_step_that_fails_is_named() {
    let mut desk = Desk::new();
    let proxy = Proxy::start(desk.broker.tls(), Manner::Refuses("HTTP/1.1 403 Forbidden"));
    let said = desk.bundle(GATEWAY, "gw1.bundle", &["--proxy", &proxy.url(), "--proxy-credential", "uplink-proxy"]);
    assert!(said.done, "{}", said.err);
    let refused = desk.bundle("gw2", "gw2.bundle", &["--proxy", "http://kim:pw@proxy:3128"]);
    assert!(!refused.done && refused.err.contains("set them as a secret"), "{}", refused.err);
    desk.admit();
    desk.serve();
    let port = net::free_port();
    desk.document(GATEWAY, 1, port);
    let mut box_ = Box_::new(desk.path("box"));
    let bundle = desk.path("gw1.bundle");
    let stops = |box_: &Box_, step: &str, words: &str| {
        let said = box_.enroll(&bundle, &["--wait", "4s"]);
        let all = format!("{}{}", said.out, said.err);
        assert!(!said.done && said.err.contains(&format!("fails at step {step}")) && all.contains(words), "{step}, {words}: {all}");
        assert!(!box_.config().exists(), "nothing is configured");
        assert!(!all.contains(PASSWORD) && !all.contains(PROOF), "I7: {all}");
    };
    stops(&box_, "proxy", "names the secret `uplink-proxy`, which this gateway does not have");
    let credentials = desk.path("credentials");
    fs::create_dir_all(&credentials).expect("a directory");
    fs::write(credentials.join("uplink-proxy"), format!("kim:{PASSWORD}\n")).expect("written");
    box_.credentials = Some(credentials);
    stops(&box_, "proxy", "Ticket for whoever runs the proxy");
    let inspecting = Pki::new(&desk.path("inspecting"), "Pretend Inspection CA");
    proxy.set(Manner::Ends(inspecting.server(), None));
    stops(&box_, "tls", "Pretend Inspection CA");

    proxy.set(Manner::Asks(PROOF));
    let before = proxy.asked().len();
    let said = box_.enroll(&bundle, &[]);
    assert!(said.done && said.out.contains(&format!("through {}", proxy.url())) && said.out.contains("7/7"), "{}{}", said.out, said.err);
    assert!(proxy.asked().len() >= before + 2, "one connection for the certificate, one for the preflight: {:?}", proxy.asked());
    let text = fs::read_to_string(box_.config()).expect("the configuration");
    assert!(text.contains(&proxy.url()) && text.contains("uplink-proxy") && !text.contains(PASSWORD), "{text}");
    box_.start();
    box_.connects();
    box_.listens(port);
    send(port, 1);
    desk.hub.wait_for_events(1);
    let asked = proxy.asked().len();
    assert!(asked > before + 2, "the agent goes through it too");

    // A proxy that the bundle does not know is said on site; what was said stays at an --again without one.
    proxy.set(Manner::Fair);
    let said = desk.bundle("st-marys-gw3", "gw3.bundle", &[]);
    assert!(said.done, "{}", said.err);
    desk.admit();
    let other = Box_::new(desk.path("other"));
    let said = other.enroll(&desk.path("gw3.bundle"), &["--proxy", &proxy.url()]);
    assert!(said.done && said.out.contains("through http://"), "{}{}", said.out, said.err);
    assert!(desk.bundle("st-marys-gw3", "gw3-anew.bundle", &["--replace"]).done);
    desk.admit();
    let said = other.enroll(&desk.path("gw3-anew.bundle"), &["--again"]);
    assert!(said.done && said.out.contains("through http://"), "{}{}", said.out, said.err);
    println!(
        "enrolment: through a proxy with a password in {asked} tunnels; a refusal, a missing password and an inspecting proxy named by their step"
    );
}
