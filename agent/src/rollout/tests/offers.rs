//! Documents that come again, come late, come in between, or were not meant to come; rollbacks that are asked for; commands.

use super::*;
use crate::rollout::machine::Tried;

fn refused(code: &str, memory: Memory) -> Verdict {
    Verdict::Refused { code: code.into(), why: format!("feed[0].lane: {code}"), memory }
}

fn tried(bench: &Bench) -> (Option<u64>, &'static str, String) {
    let Tried { revision, state, code, .. } = bench.machine.tried().unwrap();
    (revision, state, code)
}

#[test]
fn the_running_document_again_is_nothing_new_and_its_revision_with_other_content_is_refused() {
    let mut bench = Bench::with_41();
    assert_eq!(bench.give(offer(41)), []);
    let other = Offer { facts: Facts { digest: DocumentDigest([9; 32]), ..facts(41) }, ..offer(41) };
    assert_eq!(bench.give(other.clone()), [Action::Report]);
    assert_eq!(tried(&bench), (Some(41), "refused", "same_revision_other_content".into()));
    assert_eq!(bench.give(other), [], "said once");
    assert_eq!(bench.give(offer(41)), [Action::Report], "the report says again what is");
    assert_eq!(tried(&bench), (Some(41), "committed", String::new()));
}

#[test]
fn an_older_revision_is_refused_and_pushes_nothing_out_of_the_history() {
    let mut bench = Bench::with_41();
    let before = bench.machine.ledger().clone();
    for revision in 1..=40 {
        bench.give(offer(revision));
        assert_eq!(tried(&bench), (Some(revision), "refused", "old_revision".into()));
    }
    assert_eq!(*bench.machine.ledger(), before);
}

#[test]
fn a_refused_document_is_answered_from_the_ledger() {
    let mut bench = Bench::with_41();
    let bad = Offer { verdict: refused("invalid", Memory::Final), ..offer(42) };
    assert_eq!(bench.give(bad), [Action::Report]);
    assert_eq!(tried(&bench), (Some(42), "refused", "invalid".into()));
    let mut bench = bench.reboot();
    assert_eq!(bench.give(offer(42)), [], "whatever is thought of it now");
    assert_eq!(bench.running(), 41);
    bench.give(offer(41));
    assert_eq!(tried(&bench), (Some(42), "refused", "invalid".into()), "still the newest there is to say");
    bench.on_trial(offer(43));
}

#[test]
fn what_may_pass_later_is_judged_again() {
    let mut bench = Bench::with_41();
    bench.give(Offer { verdict: refused("not_yet", Memory::Again), ..offer(42) });
    let before = bench.machine.ledger().clone();
    assert_eq!(bench.give(Offer { verdict: refused("not_yet", Memory::Again), ..offer(42) }), [], "no second write for the same answer");
    assert_eq!(*bench.machine.ledger(), before);
    bench.on_trial(offer(42));
}

#[test]
fn what_may_pass_later_is_too_late_behind_a_newer_one() {
    let mut bench = Bench::with_41();
    let early = Facts { digest: DocumentDigest([7; 32]), ..facts(42) };
    bench.give(Offer { facts: early.clone(), verdict: refused("not_yet", Memory::Again), ..offer(42) });
    bench.on_trial(offer(42));
    bench.after(TRIAL_MS);
    bench.give(Offer { facts: early, ..offer(42) });
    assert!(bench.machine.is_idle(), "its revision was tried with other content");
}

#[test]
fn what_is_not_for_this_gateway_leaves_no_trace_on_disk() {
    let mut bench = Bench::with_41();
    let before = bench.machine.ledger().clone();
    for revision in 42..142 {
        assert_eq!(bench.give(Offer { verdict: refused("other_gateway", Memory::Forget), ..offer(revision) }), [Action::Report]);
    }
    assert_eq!(bench.give(Input::Unusable { code: "bad_signature".into(), why: "nobody".into() }), [Action::Report]);
    assert_eq!(tried(&bench), (None, "refused", "bad_signature".into()));
    assert_eq!(bench.give(Input::Unusable { code: "bad_signature".into(), why: "nobody".into() }), []);
    assert_eq!(*bench.machine.ledger(), before);
    bench.on_trial(offer(42));
}

#[test]
fn a_newer_document_waits_until_the_trial_is_over_and_only_the_newest_does() {
    for committed in [true, false] {
        let mut bench = Bench::with_41();
        bench.on_trial(offer(42));
        assert_eq!(bench.give(offer(43)), [Action::Report]);
        assert_eq!(bench.give(offer(44)), [Action::Report]);
        bench.give(offer(43));
        assert_eq!(bench.machine.ledger().waiting, Some(facts(44)));
        bench.give(Input::Evidence(evidence(if committed { ACKED } else { UplinkEvidence::Down })));
        if !committed {
            bench.after(TRIAL_MS);
        }
        assert_eq!(bench.running(), if committed { 42 } else { 41 });
        assert_eq!(bench.after(1), [Action::Reconsider(facts(44))], "told again until it is dealt with");
        bench.on_trial(offer(44));
        assert_eq!(bench.machine.ledger().waiting, None);
    }
}

#[test]
fn a_document_that_waited_survives_a_restart_and_goes_when_it_is_refused() {
    let mut bench = Bench::with_41();
    bench.on_trial(offer(42));
    bench.give(offer(43));
    let mut bench = bench.reboot();
    assert_eq!(bench.after(1), [Action::Reconsider(facts(43))]);
    bench.give(Offer { verdict: refused("expired", Memory::Forget), ..offer(43) });
    assert_eq!(bench.machine.ledger().waiting, None);
    assert_eq!(bench.durable.as_ref(), Some(bench.machine.ledger()));
    assert_eq!(bench.after(1), []);
}

#[test]
fn an_operator_goes_back_once_and_the_hub_does_not_bring_the_revision_again() {
    let mut bench = Bench::with_41();
    bench.on_trial(offer(42));
    bench.give(Input::Evidence(evidence(ACKED)));
    let ask = Input::RollbackAsked { who: "on site".into(), why: "wrong port".into() };
    let answer = Action::Answer(Ok("back from revision 42 to revision 41".into()));
    assert_eq!(bench.give(ask.clone()), [Action::Revert(Generation::Document(facts(41))), answer, Action::Report]);
    assert_eq!((bench.running(), bench.newest()), (41, (Outcome::RolledBack, "rollback_asked")));
    let mut bench = bench.reboot();
    bench.give(offer(42));
    assert_eq!((bench.running(), bench.machine.is_idle()), (41, true));
    let [Action::Answer(Err(why))] = &bench.give(ask)[..] else { panic!("a second step back") };
    assert!(why.contains("nothing before revision 41"), "{why}");
    bench.on_trial(offer(43));
}

#[test]
fn an_operator_ends_a_trial() {
    let mut bench = Bench::with_41();
    bench.on_trial(offer(42));
    let actions = bench.give(Input::RollbackAsked { who: "kim".into(), why: "enough".into() });
    assert_eq!(actions[0], Action::Revert(Generation::Document(facts(41))));
    assert!(matches!(&actions[2], Action::Answer(Ok(text)) if text.contains("revision 42 is over")), "{actions:?}");
    assert_eq!(bench.machine.tried().unwrap().reason, "kim asked for the configuration from before: enough");
    let [Action::Answer(Err(why))] = &Bench::fresh().give(Input::RollbackAsked { who: "k".into(), why: "w".into() })[..] else { panic!() };
    assert!(why.contains("edit the file"), "{why}");
}

#[test]
fn an_operators_rollback_on_a_full_disk_is_done_and_says_so() {
    let mut bench = Bench::with_41();
    bench.disk_ok = false;
    let actions = bench.give(Input::RollbackAsked { who: "kim".into(), why: "w".into() });
    assert_eq!(actions[0], Action::Revert(Generation::Bootstrap));
    assert!(matches!(&actions[1], Action::Answer(Ok(text)) if text.contains("not written down yet (no space)")), "{actions:?}");
}

#[test]
fn a_committed_document_that_cannot_be_read_gives_way_to_the_one_before() {
    let mut bench = Bench::with_41();
    bench.on_trial(offer(42));
    bench.give(Input::Evidence(evidence(ACKED)));
    for to in [Generation::Document(facts(41)), Generation::Bootstrap] {
        assert_eq!(bench.give(Input::CommittedLost { why: "cut short".into() }), [Action::Revert(to), Action::Report]);
        assert_eq!(bench.newest(), (Outcome::RolledBack, "envelope_damaged"));
    }
    assert_eq!(bench.give(Input::CommittedLost { why: "gone".into() }), []);
}

/// I6: without a ledger only what was proven here runs, and what was being tried is not tried again.
#[test]
fn without_a_ledger_the_newest_proven_document_runs_and_no_candidate() {
    let found = Found::Damaged { proven: vec![facts(41), facts(40)], unproven: vec![facts(42)] };
    let mut bench = Bench::boot(found);
    assert_eq!((bench.running(), bench.machine.ledger().previous.clone()), (41, Some(Generation::Document(facts(40)))));
    assert_eq!(bench.newest(), (Outcome::RolledBack, "ledger_damaged"));
    assert!(bench.machine.ledger_was_damaged());
    bench.give(offer(42));
    assert!(bench.machine.is_idle());
    assert_eq!(Bench::boot(Found::Damaged { proven: vec![], unproven: vec![facts(1)] }).running(), 0);
}

#[test]
fn a_command_runs_once_and_only_when_its_counter_is_durable() {
    let mut bench = Bench::fresh();
    assert_eq!(bench.give(Input::CommandAccepted { counter: 7 }), [Action::RunCommand(7)]);
    let mut bench = bench.reboot();
    for counter in [7, 6] {
        assert!(
            matches!(&bench.give(Input::CommandAccepted { counter })[..], [Action::RefuseCommand { why, .. }] if why.contains("above 7"))
        );
    }
    bench.disk_ok = false;
    assert!(matches!(&bench.give(Input::CommandAccepted { counter: 8 })[..], [Action::RefuseCommand { counter: 8, .. }]));
    bench.disk_ok = true;
    assert_eq!(bench.give(Input::CommandAccepted { counter: 8 }), [Action::RunCommand(8)]);
}

/// I4: whatever comes, the history is bounded, and refusals alone never push out what ran.
#[test]
fn the_history_is_bounded_and_keeps_what_ran() {
    let mut bench = Bench::with_41();
    for revision in 42..200 {
        bench.give(Offer { verdict: refused("invalid", Memory::Final), ..offer(revision) });
    }
    let history = &bench.machine.ledger().history;
    assert_eq!(history.len(), HISTORY_KEPT);
    assert!(history.iter().any(|entry| entry.revision == 41 && entry.outcome == Outcome::Committed));
}
