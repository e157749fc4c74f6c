//! Somebody has the broker's password and no signing key.

use std::time::Duration;

use harness::net;
use harness::sender::Wire;
use harness::wait;
use serde_json::Value;
use siteward::hub::keys::{self, Passphrase};

use super::desk::{Desk, TOPIC, Wish, feed, publish};

impl Desk {
    /// What was sent is told with this code, at the hub and on site, and changes nothing.
    fn is_refused(&self, what: &str, code: &str, runs: u64) {
        let seen = wait::try_until(wait::EVENTUALLY, || {
            let tried = self.reported()["tried"].clone();
            tried["state"] == "refused" && tried["code"] == code
        });
        assert!(seen, "{what}: nobody was told of {code}; {}", self.reported());
        assert_eq!(self.reported()["running"]["revision"], runs, "{what}");
        assert_eq!(self.running(), runs, "{what}");
        self.scene.site.condition("config_refused", wait::SOON);
    }
}

/// I6: forged documents, replays and documents of others: nothing changes, every attempt is visible at the hub and on site.
#[test]
fn with_the_brokers_password_alone_nothing_can_be_changed() {
    let mut desk = Desk::open();
    let own = desk.scene.site.configuration.feeds[0].port;
    let good = Wish { feeds: desk.own(), ..Wish::default() };
    let old = desk.signed(1, &good);
    desk.push(&old);
    desk.becomes(1, "committed");
    let newest = desk.signed(2, &good);
    desk.push(&newest);
    desk.becomes(2, "committed");
    let port = net::free_port();
    let other = Wish { feeds: format!("{}{}", desk.own(), feed("lab", port, "")), ..Wish::default() };
    let signed: Value = serde_json::from_str(&desk.signed(3, &other)).expect("an envelope is JSON");
    let mut cut = signed.clone();
    cut["signatures"] = serde_json::json!([]);
    let mut mixed: Value = serde_json::from_str(&old).expect("an envelope is JSON");
    mixed["payload"] = signed["payload"].clone();
    let directory = desk.scene.directory.path().join("attacker");
    std::fs::create_dir_all(&directory).expect("a directory");
    let secret = directory.join("secret");
    std::fs::write(&secret, "correct horse battery staple").expect("a secret");
    let phrase = Passphrase::File(secret);
    keys::generate(&directory, "mine", &phrase).expect("a key of one's own");
    let (stranger, _) = keys::open(&directory.join("mine.key"), &phrase).expect("it opens");
    let forged = desk.signed_by(&stranger, "st-marys-gw1", 4, &other);
    let (ours, _) = keys::open(&harness::repository().join("tests/fixtures/documents/keys/openssl.key"), &phrase).expect("the desk's key");
    let elsewhere = desk.signed_by(&ours, "st-marys-gw2", 5, &other);
    let replaced = desk.signed_by(&ours, "st-marys-gw1", 2, &other);
    let attempts = [
        ("no envelope", "not_an_envelope", "[[feed]]".to_owned()),
        ("no signature", "unknown_key", cut.to_string()),
        ("another's signature", "bad_signature", mixed.to_string()),
        ("a key of one's own", "unknown_key", forged),
        ("too large", "too_large", "x".repeat(300 * 1024)),
        ("a document of another gateway", "other_gateway", elsewhere),
        ("a replay", "old_revision", old),
        ("the running revision with another content", "same_revision_other_content", replaced),
    ];
    for (what, code, payload) in attempts {
        desk.push(&payload);
        desk.is_refused(what, code, 2);
        desk.push(&newest); // the hub's own word again
        wait::wait_until("the running revision is told again", wait::EVENTUALLY, || desk.reported()["tried"]["state"] == "committed");
    }
    // Taking the document away takes nothing away.
    publish(desk.scene.broker.plain(), &format!("{TOPIC}/desired"), "", true);
    desk.scene.site.kill();
    desk.scene.site.start();
    assert_eq!(desk.running(), 2);
    assert!(Wire::connect(net::loopback(port), Duration::from_millis(200)).is_err(), "no feed was opened");
    desk.send(own, 3);
    desk.closes();
}
