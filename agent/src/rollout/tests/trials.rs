//! From staged to an end.

use super::*;

#[test]
fn a_trial_is_confirmed_by_local_evidence_and_an_acknowledged_report() {
    let mut bench = Bench::fresh();
    bench.on_trial(offer(1));
    assert_eq!(bench.give(Input::Evidence(evidence(UplinkEvidence::Down))), []);
    let up = UplinkEvidence::Up { endpoint_is_new: false, acked_after_change: false };
    assert_eq!(bench.give(Input::Evidence(evidence(up))), []);
    assert_eq!(bench.running(), 0, "nothing counts before it is confirmed");
    assert_eq!(bench.give(Input::Evidence(evidence(ACKED))), [Action::Report]);
    assert_eq!((bench.running(), bench.machine.run_state()), (1, RunState::Committed));
    assert_eq!(bench.machine.ledger().previous, Some(Generation::Bootstrap));
    assert_eq!(bench.reboot().running(), 1);
}

/// I6: each kind of evidence that is missing at the deadline takes the trial back, with its reason.
#[test]
fn what_is_missing_at_the_deadline_takes_the_trial_back() {
    type Change = fn(&mut Evidence);
    let cases: [(&str, Change, &str); 4] = [
        ("listeners_not_bound", |e| e.listeners_bound = false, "feed.mllp.listen"),
        ("directories_unreadable", |e| e.directories_readable = false, "feed.directory.path"),
        ("peers_missing", |e| e.waiting_for_peers = vec![FeedId::new("lab").unwrap()], "feed `lab` had a sender"),
        ("uplink_lost", |e| e.uplink = UplinkEvidence::Down, "3 more times"),
    ];
    for (code, change, says) in cases {
        let mut bench = Bench::with_41();
        bench.on_trial(offer(42));
        let mut lacking = evidence(if code == "uplink_lost" { UplinkEvidence::Down } else { ACKED });
        change(&mut lacking);
        assert_eq!(bench.give(Input::Evidence(lacking)), [], "{code}");
        assert_eq!(bench.after(TRIAL_MS - 1), [], "{code}: not before the deadline");
        assert_eq!(bench.after(1), reverted_to(Generation::Document(facts(41))), "{code}");
        assert_eq!((bench.running(), bench.newest()), (41, (Outcome::RolledBack, code)));
        let why = bench.machine.tried().unwrap().reason;
        assert!(why.contains(says), "{why}");
    }
}

#[test]
fn peers_need_not_return_where_the_document_says_bound() {
    let mut bench = Bench::fresh();
    bench.on_trial(Offer { facts: Facts { confirm: ConfirmBy::Bound, ..facts(1) }, ..offer(1) });
    bench.give(Input::Evidence(Evidence { waiting_for_peers: vec![feed("lab")], ..evidence(ACKED) }));
    assert_eq!(bench.running(), 1);
}

#[test]
fn a_trial_of_which_nothing_is_heard_is_taken_back() {
    let mut bench = Bench::fresh();
    bench.on_trial(offer(1));
    bench.after(TRIAL_MS);
    assert_eq!((bench.running(), bench.newest()), (0, (Outcome::RolledBack, "no_evidence")));
}

#[test]
fn an_acknowledgement_counts_although_the_uplink_went_down_since() {
    let mut bench = Bench::fresh();
    bench.on_trial(offer(1));
    bench.give(Input::Evidence(Evidence { waiting_for_peers: vec![feed("lab")], ..evidence(ACKED) }));
    bench.give(Input::Evidence(evidence(UplinkEvidence::Down)));
    assert_eq!(bench.running(), 1);
}

#[test]
fn a_configuration_that_cannot_be_put_to_use_is_taken_back_at_once() {
    let mut bench = Bench::with_41();
    bench.give(offer(42));
    let fault = FeedFault { feed: feed("or-implants"), key: "feed[2].mllp.listen".into(), why: "port 2575 is in use".into() };
    let actions = bench.give(Input::Applied { digest: facts(42).digest, result: Err(fault.to_string()) });
    assert_eq!(actions, reverted_to(Generation::Document(facts(41))));
    let tried = bench.machine.tried().unwrap();
    assert_eq!(tried.reason, "it could not be put to use: feed `or-implants` (feed[2].mllp.listen): port 2575 is in use");
    let mut bench = Bench::with_41();
    bench.give(offer(42));
    assert_eq!(bench.after(APPLY_DEADLINE.as_millis() as u64 - 1), []);
    assert_eq!(bench.after(1), reverted_to(Generation::Document(facts(41))));
    assert_eq!(bench.give(Input::Applied { digest: facts(42).digest, result: Ok(()) }), [], "too late");
}

/// I6: a stop in a trial counts as failed, and its revision is not tried again.
#[test]
fn a_stop_while_staged_or_in_trial_is_a_failure() {
    for applied in [false, true] {
        let mut bench = Bench::with_41();
        bench.give(offer(42));
        if applied {
            bench.give(Input::Applied { digest: facts(42).digest, result: Ok(()) });
        }
        let stage = bench.durable.as_ref().unwrap().candidate.as_ref().unwrap().stage;
        assert_eq!(stage, if applied { Stage::Trial } else { Stage::Staged });
        let mut bench = bench.reboot();
        assert_eq!((bench.running(), bench.newest()), (41, (Outcome::RolledBack, "agent_stopped")));
        assert_eq!(bench.give(offer(42)), [], "answered by the report there is");
        assert_eq!(bench.running(), 41);
    }
}

#[test]
fn an_endpoint_of_the_document_has_to_prove_itself_while_an_earlier_one_answers() {
    let mut bench = Bench::with_41();
    bench.on_trial(Offer { endpoints_changed: true, endpoints_added: true, ..offer(42) });
    bench.give(Input::Evidence(evidence(ACKED)));
    bench.after(TRIAL_MS);
    assert_eq!((bench.running(), bench.newest()), (41, (Outcome::RolledBack, "endpoint_unproven")));
    assert_eq!(bench.give(Offer { endpoints_changed: true, endpoints_added: true, ..offer(42) }), [], "tried once");
    bench.on_trial(Offer { endpoints_changed: true, endpoints_added: true, ..offer(43) });
    bench.give(Input::Evidence(evidence(ACKED_BY_NEW)));
    assert_eq!(bench.running(), 43);
    bench.on_trial(Offer { endpoints_changed: true, endpoints_added: false, ..offer(44) });
    bench.give(Input::Evidence(evidence(ACKED)));
    assert_eq!(bench.running(), 44, "endpoints that were only removed cannot answer");
}

#[test]
fn a_lost_uplink_is_tried_again_three_times_and_no_more() {
    let mut bench = Bench::with_41();
    for left in [3, 2, 1, 0] {
        bench.on_trial(offer(42));
        bench.give(Input::Evidence(evidence(UplinkEvidence::Down)));
        bench.after(TRIAL_MS);
        let entry = bench.machine.ledger().history.last().unwrap();
        assert_eq!((entry.code.as_str(), entry.again), ("uplink_lost", left > 0));
        bench = bench.reboot();
    }
    assert_eq!(bench.machine.ledger().attempts(&facts(42)), 4);
    assert_eq!(bench.give(offer(42)), []);
    assert!(bench.machine.is_idle());
}

fn committed_local(added: bool) -> Bench {
    let mut bench = Bench::with_41();
    bench.on_trial(Offer { uplink_up: false, endpoints_changed: added, endpoints_added: added, ..offer(42) });
    bench.give(Input::Evidence(evidence(UplinkEvidence::Down)));
    assert_eq!(bench.after(TRIAL_MS), [Action::Report]);
    assert_eq!((bench.running(), bench.machine.run_state()), (42, RunState::CommittedLocal));
    bench
}

#[test]
fn with_the_wan_down_since_before_a_good_configuration_is_kept_and_proven_later() {
    let bench = committed_local(false);
    assert_eq!(bench.machine.ledger().previous, Some(Generation::Document(facts(41))));
    let mut bench = bench.reboot();
    assert_eq!(bench.running(), 42, "it survives a restart");
    assert_eq!(bench.after(10 * TRIAL_MS), [], "and any wait");
    assert_eq!(bench.give(Input::Evidence(evidence(ACKED))), [Action::Report]);
    assert_eq!((bench.machine.run_state(), bench.newest()), (RunState::Committed, (Outcome::Committed, "")));
}

#[test]
fn what_the_uplink_said_before_the_trial_proves_nothing() {
    let mut bench = Bench::with_41();
    bench.give(Input::Evidence(evidence(ACKED)));
    bench.on_trial(Offer { uplink_up: false, ..offer(42) });
    bench.give(Input::Evidence(evidence(UplinkEvidence::Down)));
    bench.after(TRIAL_MS);
    bench.after(1);
    assert_eq!(bench.machine.run_state(), RunState::CommittedLocal);
}

/// I6: a local commit whose endpoint fails while an earlier one answers goes back, after the trial's time from then on.
#[test]
fn a_local_commit_whose_endpoint_fails_goes_back() {
    let mut bench = committed_local(true).reboot();
    assert_eq!(bench.give(Input::Evidence(evidence(ACKED))), []);
    assert_eq!(bench.after(TRIAL_MS - 1), []);
    assert_eq!(bench.after(1), [Action::Revert(Generation::Document(facts(41))), Action::Report]);
    assert_eq!((bench.running(), bench.newest()), (41, (Outcome::RolledBack, "endpoint_unproven")));
    assert_eq!(bench.machine.ledger().previous, None);
    let mut bench = committed_local(true);
    bench.give(Input::Evidence(evidence(ACKED)));
    bench.ms += TRIAL_MS - 1;
    bench.give(Input::Evidence(evidence(ACKED_BY_NEW)));
    assert_eq!(bench.machine.run_state(), RunState::Committed);
}

#[test]
fn a_wan_that_goes_down_again_is_not_the_endpoints_fault() {
    let mut bench = committed_local(true);
    bench.give(Input::Evidence(evidence(ACKED)));
    bench.give(Input::Evidence(evidence(UplinkEvidence::Down)));
    assert_eq!(bench.after(2 * TRIAL_MS), []);
    assert_eq!(bench.running(), 42);
    bench.give(Input::Evidence(evidence(ACKED)));
    assert_eq!(bench.after(TRIAL_MS - 1), [], "its time starts again");
    assert!(!bench.after(1).is_empty());
}

#[test]
fn an_earlier_endpoint_that_answered_during_the_trial_counts_from_then_on() {
    let mut bench = Bench::with_41();
    bench.on_trial(Offer { uplink_up: false, endpoints_changed: true, endpoints_added: true, ..offer(42) });
    bench.ms += TRIAL_MS / 2;
    bench.give(Input::Evidence(evidence(ACKED)));
    bench.after(TRIAL_MS / 2);
    assert_eq!(bench.machine.run_state(), RunState::CommittedLocal);
    bench.give(Input::Evidence(evidence(ACKED)));
    assert_eq!(bench.after(TRIAL_MS / 2 - 1), []);
    assert!(!bench.after(1).is_empty());
    assert_eq!(bench.running(), 41);
}

/// I6: where a rollback goes was always proven: a local commit that is replaced is not.
#[test]
fn a_local_commit_is_never_what_a_rollback_goes_to() {
    let mut bench = committed_local(true);
    bench.on_trial(Offer { endpoints_changed: false, endpoints_added: true, ..offer(43) });
    let candidate = bench.machine.ledger().candidate.clone().unwrap();
    assert_eq!(candidate.proof, Proof::AddedEndpoint, "the endpoints that were never proven are still owed");
    bench.give(Input::Evidence(evidence(ACKED_BY_NEW)));
    assert_eq!((bench.running(), bench.machine.ledger().standing), (43, Standing::Proven));
    assert_eq!(bench.machine.ledger().previous, Some(Generation::Document(facts(41))));
}

/// I10: only the steady clock decides.
#[test]
fn a_clock_that_jumps_during_a_trial_changes_nothing() {
    let mut bench = Bench::with_41();
    bench.on_trial(offer(42));
    bench.give(Input::Evidence(evidence(UplinkEvidence::Down)));
    for unix_ms in [0, i64::MIN, i64::MAX, 1_793_491_200_000 + 315_360_000_000] {
        let now = Now { mono_ms: bench.ms + TRIAL_MS - 1, wall: Stamp { unix_ms, suspect: true } };
        assert_eq!(bench.machine.step(now, Input::Tick), []);
    }
    bench.give(Input::Evidence(evidence(ACKED)));
    assert_eq!(bench.running(), 42);
}

/// I6: a rollback does not wait for a disk, and is written when there is one.
#[test]
fn a_disk_that_takes_nothing_blocks_no_rollback_and_makes_no_commit() {
    let mut bench = Bench::with_41();
    bench.on_trial(offer(42));
    bench.disk_ok = false;
    assert_eq!(bench.give(Input::Evidence(evidence(ACKED))), [], "no commit without a ledger");
    assert_eq!((bench.running(), bench.machine.run_state()), (41, RunState::Trial));
    let actions = bench.after(TRIAL_MS);
    assert_eq!(actions, [Action::Revert(Generation::Document(facts(41))), Action::Retire(vec![feed("new")])], "and no report");
    assert!(bench.machine.is_unsaved());
    assert_eq!(bench.after(1), []);
    bench.disk_ok = true;
    assert_eq!(bench.after(1), [Action::Report]);
    assert_eq!(bench.newest(), (Outcome::RolledBack, "ledger_unwritable"));
    assert_eq!(bench.durable.as_ref(), Some(bench.machine.ledger()));
}

#[test]
fn a_commit_that_could_not_be_written_is_written_before_the_deadline() {
    let mut bench = Bench::with_41();
    bench.on_trial(offer(42));
    bench.disk_ok = false;
    bench.give(Input::Evidence(evidence(ACKED)));
    bench.disk_ok = true;
    assert_eq!(bench.after(1), [Action::Report]);
    assert_eq!(bench.running(), 42);
}

#[test]
fn nothing_is_applied_before_it_is_staged_on_disk() {
    let mut bench = Bench::with_41();
    bench.disk_ok = false;
    assert_eq!(bench.give(offer(42)), [Action::Report]);
    assert_eq!(bench.machine.tried().unwrap().code, "ledger_unwritable");
    assert!(bench.machine.is_idle());
    bench.disk_ok = true;
    bench.on_trial(offer(42));
    bench.disk_ok = false;
    let mut bench = Bench::with_41();
    bench.give(offer(42));
    bench.disk_ok = false;
    let actions = bench.give(Input::Applied { digest: facts(42).digest, result: Ok(()) });
    assert_eq!(actions[0], Action::Revert(Generation::Document(facts(41))), "no deadline counts without a ledger");
}
