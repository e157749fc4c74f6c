//! Two at work where one should be: boxes with one identity, and receivers of notices that are not who they say.

use harness::fleet::{Fleet, gateway};
use harness::noc::Noc;
use harness::pki::Pki;
use harness::site::Site;
use harness::wait;

/// I8: a cloned box shares the identity of another. Each is thrown out by the other, both say so where they stand, and the desk names the gateway; what is
/// switched off leaves the other in peace.
#[test]
fn two_boxes_with_one_identity_both_say_so_and_the_desk_names_them() {
    let mut fleet = Fleet::new(2);
    fleet.start(&[0, 1]);
    let place = fleet.directory.path().join("twin");
    let mut configuration = fleet.sites[0].configuration.clone();
    configuration.spool = place.join("spool");
    let mut twin = Site::new(&place, configuration);
    twin.spawn();
    let says = |site: &Site| site.conditions().iter().any(|code| code == "gateway_id_in_use");
    wait::wait_until("both boxes say it", wait::EVENTUALLY, || says(&fleet.sites[0]) && says(&twin));
    let mut named = Vec::new();
    wait::wait_until("the desk names it", wait::EVENTUALLY, || {
        let view = fleet.view(&["--condition", "gateway_id_in_use"]);
        named = view["gateways"].as_array().into_iter().flatten().map(|row| row["gateway"].clone()).collect();
        !named.is_empty()
    });
    assert_eq!(named, [gateway(0)], "the one that is there twice and no other");
    twin.kill();
    wait::wait_until("the other is back alone", wait::EVENTUALLY, || fleet.sites[0].status()["uplink"]["state"] == "connected");
}

/// Notices go to who the certificate says, or nowhere.
#[test]
fn a_noc_behind_tls_is_told_and_an_impostor_is_not() {
    let fleet = Fleet::new(1);
    let at = |name: &str| fleet.directory.path().join(name);
    let noc = Noc::start_tls(&fleet.pki.server());
    let impostor = Noc::start_tls(&Pki::new(&at("impostor"), "another CA").server());
    let list = fleet.list().display().to_string();
    let (alarms, ca) = (at("alarms").display().to_string(), fleet.pki.ca.display().to_string());
    let (good, bad) = (noc.url(), impostor.url());
    let arguments = ["fleet", "serve", "--webhook", &good, "--webhook", &bad, "--webhook-ca", &ca, "--alarms", &alarms, "--expect", &list];
    let serving = super::desk(&fleet, &arguments, &at("serve.log"));
    let raise = format!("raise gateway_offline {}", gateway(0));
    wait::wait_until("the receiver is told by TLS", wait::SOON, || noc.taken().contains(&raise));
    let log = || std::fs::read_to_string(at("serve.log")).unwrap_or_default();
    wait::wait_until("the other one is refused", wait::SOON, || log().contains("a notice was not taken"));
    assert!(impostor.came().is_empty(), "an impostor was told");
    assert!(log().contains(&bad[..bad.find("/hook").unwrap_or(0)]) && !log().contains("s3cret"), "{}", log());
    drop(serving);

    // The gateway is taken off the list: whoever was told of it hears that it is over.
    std::fs::write(at("sites.csv"), "site,gateway\n").expect("the list is written");
    let serving = super::desk(&fleet, &arguments, &at("serve.log"));
    if harness::long() {
        let clear = format!("clear gateway_offline {}", gateway(0));
        wait::wait_until("what was raised is cleared", wait::EVENTUALLY, || noc.taken().contains(&clear));
        let notice = noc.came().into_iter().find(|came| came.body["kind"] == "clear").expect("it came");
        assert!(
            notice.body["text"].as_str().is_some_and(|text| text.contains("nothing is known of this gateway any more")),
            "{:?}",
            notice.body
        );
    }
    drop(serving);
}
