//! The rollout on a full disk and behind a damaged ledger: single histories, played out.

use harness::sim::{Errno, Op, SimDisk};
use siteward::record::FeedId;
use siteward::rollout::facts::UplinkEvidence;
use siteward::rollout::{Action, Evidence, Found, Generation, Input, Machine, Now, Offer, Stamp, Store, Verdict};
use siteward::sources::paused::{Pause, Pauses};
use std::path::Path;

use super::rollout::{ROOT, TRIAL_MS, World};

/// I5, I6: a disk without a free byte still takes one document, and any number of ledgers.
#[test]
fn a_full_disk_takes_a_document_and_blocks_no_rollback() {
    let disk = SimDisk::new(7, Path::new(ROOT));
    let now = Now { mono_ms: 0, wall: Stamp { unix_ms: 0, suspect: true } };
    let (mut store, _) = Store::open(disk.handle(), Path::new(ROOT)).expect("a healthy disk");
    let (mut machine, actions) = Machine::boot(Found::Nothing, now);
    siteward::rollout::carry_out(&mut machine, &mut store, now, actions, None);
    disk.set_capacity(disk.used());
    let mut world = World::new(7, 0);
    let document = world.new_document();
    let offer = Offer { verdict: Verdict::Good, ..document.offer };
    let mut drive = |input| siteward::rollout::drive(&mut machine, &mut store, now, input, Some(&document.envelope));
    assert_eq!(drive(Input::Offered(offer.clone())), [Action::Report, Action::Apply(offer.facts.clone())]);
    assert_eq!(drive(Input::Applied { digest: offer.facts.digest, result: Ok(()) }), [Action::Report]);
    let actions = drive(Input::RollbackAsked { who: "on site".into(), why: "because".into() });
    assert_eq!((&actions[0], actions.last()), (&Action::Revert(Generation::Bootstrap), Some(&Action::Report)), "and it is written");
    let (_, stored) = Store::open(disk.power_cut().handle(), Path::new(ROOT)).expect("a healthy disk");
    assert_eq!(stored.ledger.as_ref(), Some(machine.ledger()));
}

/// I6, I9: a ledger that cannot be read costs its history; what runs is the newest document that was proven, never a candidate.
#[test]
fn a_damaged_ledger_leaves_the_files_to_say_what_was_proven() {
    for proven in [true, false] {
        let disk = SimDisk::new(8, Path::new(ROOT));
        let now = |mono_ms| Now { mono_ms, wall: Stamp { unix_ms: 0, suspect: true } };
        let (mut store, _) = Store::open(disk.handle(), Path::new(ROOT)).expect("a healthy disk");
        let (mut machine, actions) = Machine::boot(Found::Nothing, now(0));
        siteward::rollout::carry_out(&mut machine, &mut store, now(0), actions, None);
        let mut world = World::new(8, 0);
        world.wan_up = proven;
        let document = world.new_document();
        let offer = Offer { verdict: Verdict::Good, uplink_up: proven, endpoints_added: false, ..document.offer };
        let uplink = if proven { UplinkEvidence::Up { endpoint_is_new: false, acked_after_change: true } } else { UplinkEvidence::Down };
        let evidence = Evidence { listeners_bound: true, directories_readable: true, faults: vec![], waiting_for_peers: vec![], uplink };
        let applied = Input::Applied { digest: offer.facts.digest, result: Ok(()) };
        for (at, input) in [(0, Input::Offered(offer.clone())), (0, applied), (0, Input::Evidence(evidence)), (TRIAL_MS, Input::Tick)] {
            siteward::rollout::drive(&mut machine, &mut store, now(at), input, Some(&document.envelope));
        }
        assert_eq!(machine.committed().0.revision(), offer.facts.revision);
        disk.flip(&Path::new(ROOT).join("config/ledger"), 20, 3);
        let (store, stored) = Store::open(disk.kill().handle(), Path::new(ROOT)).expect("a healthy disk");
        assert!(stored.is_damaged && stored.ledger.is_none());
        let found = (stored.proven, stored.unproven);
        let digest = vec![offer.facts.digest];
        assert_eq!(found, if proven { (digest, vec![]) } else { (vec![], digest) });
        assert_eq!(store.envelope(offer.facts.digest).expect("kept"), document.envelope);
    }
}

/// What is paused is what it was, or what was asked for, wherever the power goes; and once it was said to be so, that is what it is.
#[test]
fn a_pause_survives_a_power_cut_or_never_was() {
    let (a, b) = (FeedId::new("a").expect("a name"), FeedId::new("b").expect("a name"));
    let orders = [(&a, true), (&b, true), (&a, false), (&a, true), (&a, false), (&b, false)];
    let pause = |on: bool| on.then(|| Pause { who: "kim".into(), why: "moving".into(), at_ms: 0 });
    let open = |disk: &SimDisk| Pauses::open(disk.handle(), Path::new(ROOT));
    let paused = |pauses: &Pauses| (pauses.is_paused(&a), pauses.is_paused(&b));
    let (mut cuts, mut done) = (0, 0);
    for seed in 0..60 {
        let mut disk = SimDisk::new(seed, Path::new(ROOT));
        for (step, (feed, on)) in (0..).zip(orders) {
            let mut pauses = open(&disk);
            let before = paused(&pauses);
            disk.freeze_after(1 + (seed + step) % 8);
            let set = pauses.set(feed, pause(on));
            disk = disk.power_cut();
            let found = paused(&open(&disk));
            let asked = if *feed == a { (on, before.1) } else { (before.0, on) };
            assert!(found == before || found == asked, "seed {seed}: {found:?} is neither {before:?} nor {asked:?}");
            match set {
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

/// I6: the commit's ledger fails behind its rename, the rollback's fails too, and then the agent stops: what runs is the document that was proven or
/// what was committed before, and nothing was reported of either.
#[test]
fn a_commit_and_a_rollback_that_both_fail_to_be_written_leave_one_of_the_two() {
    for cut in [false, true] {
        let disk = SimDisk::new(9, Path::new(ROOT));
        let now = |mono_ms| Now { mono_ms, wall: Stamp { unix_ms: 0, suspect: true } };
        let (mut store, _) = Store::open(disk.handle(), Path::new(ROOT)).expect("a healthy disk");
        let (mut machine, actions) = Machine::boot(Found::Nothing, now(0));
        siteward::rollout::carry_out(&mut machine, &mut store, now(0), actions, None);
        let document = World::new(9, 0).new_document();
        let offer = Offer { verdict: Verdict::Good, uplink_up: true, endpoints_added: false, ..document.offer };
        let uplink = UplinkEvidence::Up { endpoint_is_new: false, acked_after_change: true };
        let evidence = Evidence { listeners_bound: true, directories_readable: true, faults: vec![], waiting_for_peers: vec![], uplink };
        let mut drive = |at, input| siteward::rollout::drive(&mut machine, &mut store, now(at), input, Some(&document.envelope));
        drive(0, Input::Offered(offer.clone()));
        drive(0, Input::Applied { digest: offer.facts.digest, result: Ok(()) });
        disk.fail(Op::SyncDir, 0, 1, Errno::Io);
        assert_eq!(drive(0, Input::Evidence(evidence)), [], "no commit");
        disk.fail(Op::Create, 0, u64::MAX, Errno::Io);
        let actions = drive(TRIAL_MS, Input::Tick);
        assert_eq!(actions[0], Action::Revert(Generation::Bootstrap));
        assert!(machine.is_unsaved(), "nothing is reported");
        let after = if cut { disk.power_cut() } else { disk.kill() };
        after.clear_faults();
        let (_, stored) = Store::open(after.handle(), Path::new(ROOT)).expect("a healthy disk");
        let (machine, _) = Machine::boot(Found::Ledger(Box::new(stored.ledger.expect("one of the two"))), now(0));
        let runs = machine.committed().0.revision();
        assert!(runs == offer.facts.revision || cut && runs == 0, "{runs}");
    }
}
