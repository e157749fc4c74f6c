//! What is set on site (secrets, overrides), and the power that goes: each is what it was or what was asked for, and once it was said to be so, that
//! is what it is.

use std::path::Path;
use std::time::Duration;

use harness::sim::SimDisk;
use siteward::clock::WallTime;
use siteward::overrides::store::Store as OverrideStore;
use siteward::overrides::{Change, Changed, Override, Overrides};
use siteward::record::FeedId;
use siteward::secrets::store::Store;
use siteward::spool::key::SpoolKey;

use super::rollout::ROOT;

const AT: WallTime = WallTime { unix_ms: 0, suspect: true };

#[test]
fn a_secret_survives_a_power_cut_or_never_was() {
    let key = SpoolKey::from_bytes([5; 32]);
    let orders: [(&str, Option<&[u8]>); 5] = [("a", Some(b"one")), ("b", Some(b"two")), ("a", Some(b"three")), ("b", None), ("a", None)];
    let (mut cuts, mut done) = (0, 0);
    for seed in 0..60 {
        let mut disk = SimDisk::new(seed, Path::new(ROOT));
        for (step, (name, value)) in (0..).zip(orders) {
            let values = |disk: &SimDisk| {
                let handle = disk.handle();
                let store = Store::open(&*handle, Path::new(ROOT)).expect("what is there can be read");
                ["a", "b"].map(|name| store.value(name, &key).map(|value| value.expect("it opens").to_vec()))
            };
            let before = values(&disk);
            disk.freeze_after(1 + (seed + step) % 8);
            let handle = disk.handle();
            let result = Store::open(&*handle, Path::new(ROOT)).and_then(|mut store| match value {
                Some(value) => store.set(name, value, AT, &key, None),
                None => store.remove(name, None).map(drop),
            });
            disk = disk.power_cut();
            let found = values(&disk);
            let mut asked = before.clone();
            asked[usize::from(name == "b")] = value.map(<[u8]>::to_vec);
            assert!(found == before || found == asked, "seed {seed}: {found:?}");
            match result {
                Ok(()) => {
                    done += 1;
                    assert_eq!(found, asked, "seed {seed}: it was said to be done");
                }
                Err(_) => cuts += 1,
            }
        }
    }
    assert!(cuts > 20 && done > 20, "{cuts} {done}");
}

/// I10: what is left after a power cut is at most what was left.
#[test]
fn an_override_survives_a_power_cut_or_never_was_and_gains_no_time() {
    let feed = FeedId::new("a").expect("a name");
    let (mut cuts, mut done) = (0, 0);
    for seed in 0..60 {
        let mut disk = SimDisk::new(seed, Path::new(ROOT));
        for step in 0..5 {
            let store = |disk: &SimDisk| OverrideStore::new(disk.handle(), Path::new(ROOT));
            let before = store(&disk).read();
            let mut wanted = before.clone();
            if step % 3 == 2 {
                wanted.clear(&feed, None);
            } else {
                let what = Changed { feed: feed.clone(), change: Change::Port(9000 + u16::try_from(step).expect("small")) };
                wanted.set(Override::new(what, ("kim".into(), "moved".into()), AT, Duration::from_hours(1))).expect("room");
            }
            wanted.pass(Duration::from_secs(30));
            wanted.charge();
            disk.freeze_after(1 + (seed + step) % 8);
            let result = store(&disk).write(&wanted);
            disk = disk.power_cut();
            let found = store(&disk).read();
            let changes = |overrides: &Overrides| overrides.list().iter().map(|one| one.what.change.clone()).collect::<Vec<_>>();
            assert!([changes(&before), changes(&wanted)].contains(&changes(&found)), "seed {seed}: {found:?}");
            let left = |overrides: &Overrides| overrides.list().iter().map(|one| one.left).max().unwrap_or_default();
            assert!(left(&found) <= left(&before).max(left(&wanted)), "seed {seed}");
            match result {
                Ok(()) => {
                    done += 1;
                    assert_eq!(changes(&found), changes(&wanted), "seed {seed}: it was said to be done");
                }
                Err(_) => cuts += 1,
            }
        }
    }
    assert!(cuts > 20 && done > 20, "{cuts} {done}");
}
