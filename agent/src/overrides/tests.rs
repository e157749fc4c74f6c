//! The pure core of the overrides.

use std::time::Duration;

use super::*;
use crate::clock::{RELEASED_AT_MS, WallTime};
use crate::config;

const AT: WallTime = WallTime { unix_ms: RELEASED_AT_MS, suspect: false };

fn feeds() -> Feeds {
    let mut text =
        "[gateway]\nsite=\"s\"\nid=\"g\"\ntimezone=\"UTC\"\n[uplink]\nendpoints=[\"mqtt://h:1883\"]\nallow_plaintext=true\n".to_owned();
    for (id, source) in [
        ("a", "[feed.mllp]\nlisten=\"0.0.0.0:2575\"\npeers=[\"10.0.0.0/8\"]"),
        ("b", "[feed.mllp]\nlisten=\"127.0.0.1:2576\""),
        ("c", "[feed.directory]\npath=\"/srv/c\"\nsplit=\"lines\""),
    ] {
        text.extend([format!("[[feed]]\nid=\"{id}\"\nforward=\"raw\"\nphi=\"allowed\"\n{source}\n")]);
    }
    Arc::from(config::parse_text("/etc/t.toml".as_ref(), &text).unwrap_or_else(|faults| panic!("{faults}")).feeds)
}

fn id(text: &str) -> FeedId {
    FeedId::new(text).unwrap()
}

fn one(feed: &str, change: Change, s: u64) -> Override {
    Override::new(Changed { feed: id(feed), change }, ("kim".into(), "moved".into()), AT, Duration::from_secs(s))
}

fn peers(text: &str) -> Change {
    Change::Peers(vec![config::network_of(text).unwrap()])
}

#[test]
fn an_override_lies_on_top_and_touches_nothing_else() {
    let feeds = feeds();
    let mut overrides = Overrides::default();
    assert!(Arc::ptr_eq(&overrides.apply(&feeds), &feeds));
    overrides.set(one("a", Change::Port(9000), 60)).unwrap();
    overrides.set(one("a", Change::Port(9001), 60)).unwrap();
    overrides.set(one("a", peers("192.168.5.7"), 60)).unwrap();
    overrides.set(one("b", Change::Pause, 60)).unwrap();
    assert_eq!(overrides.list().len(), 3, "one of each kind for a feed");
    let over = overrides.apply(&feeds);
    let SourceSettings::Mllp(a) = &over[0].source else { panic!() };
    assert_eq!((a.listen.to_string().as_str(), a.peers[0].to_string().as_str()), ("0.0.0.0:9001", "192.168.5.7/32"));
    assert_eq!(over[1..], feeds[1..]);
    assert!(overrides.is_paused(&id("b")) && !overrides.is_paused(&id("a")));
    assert_eq!(overrides.clear(&id("a"), Some(Kind::Port)).len(), 1);
    assert_eq!(overrides.clear(&id("a"), None).len(), 1);
    assert_eq!(overrides.apply(&feeds)[..], feeds[..]);
}

#[test]
fn a_long_list_is_told_by_its_beginning() {
    let some = |count: u8| Change::Peers((0..count).map(|n| config::network_of(&format!("10.{n}.0.0/16")).unwrap()).collect());
    assert_eq!(some(3).short_value(), some(3).value());
    let told = some(200).short_value();
    assert!(told.len() < OVERRIDE_VALUE_BYTES_TOLD + 20 && told.starts_with("10.0.0.0/16, 10.1.0.0/16, "), "{told}");
    let listed = told.matches("/16").count();
    assert!(told.ends_with(&format!("/16 \u{2026} and {} more", 200 - listed)), "{told}");
}

#[test]
fn what_does_not_fit_is_told_and_what_is_gone_ends() {
    let feeds = feeds();
    assert!(fits(&feeds[2], &Change::Port(1)).unwrap_err().contains("can only be paused"));
    assert!(fits(&feeds[2], &Change::Pause).is_ok() && fits(&feeds[0], &peers("::1")).is_ok());
    assert_eq!(in_the_way(&feeds, &feeds[0], &Change::Port(2576)), Some(&id("b")));
    assert_eq!(in_the_way(&feeds, &feeds[0], &Change::Port(2575)), None, "its own");
    let mut overrides = Overrides::default();
    overrides.set(one("a", Change::Port(9000), 60)).unwrap();
    overrides.set(one("b", Change::Pause, 60)).unwrap();
    assert_eq!(overrides.end_homeless(&feeds), []);
    let gone = overrides.end_homeless(&feeds[1..]);
    assert_eq!(gone.iter().map(|one| one.what.feed.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(overrides.sentence(&id("b")).unwrap().contains("it takes nothing for 60 s by an override of kim (moved)"));
    assert_eq!(overrides.sentence(&id("a")), None);
}
