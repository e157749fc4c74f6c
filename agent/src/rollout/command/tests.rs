//! Commands: every refusal by name, and at most once across crashes.

use serde_json::{Value, json};

use super::*;

const NOW: WallTime = WallTime { unix_ms: clock::RELEASED_AT_MS, suspect: false };
const FIRST: [u8; 16] = [1; 16];

fn desk(highest: u64) -> CommandDesk {
    CommandDesk::new(Name::new("gw1").unwrap(), Allowed::default(), highest, FIRST)
}

/// A gateway's ledger in the tests is a number; its anchors believe everything.
fn send(desk: &CommandDesk, highest: u64, adjust: impl FnOnce(&mut Value)) -> Decision {
    let mut command = json!({
        "gateway": "gw1", "counter": 7, "challenge": desk.challenge().as_str(), "verb": "pause_feed",
        "args": {"feed": "or-usage"}, "author": "j.doe", "reason": "CHG-1: interface engine is being moved",
    });
    adjust(&mut command);
    desk.receive(command.to_string().as_bytes(), |bytes, _| Ok::<_, String>(bytes.to_vec()), highest, NOW)
}

fn accepted(decision: Decision) -> Command {
    match decision {
        Decision::Accept(command) => command,
        Decision::Answer(answer) => panic!("not accepted: {answer:?}"),
    }
}

fn answered(decision: Decision) -> Answer {
    match decision {
        Decision::Answer(answer) => answer,
        Decision::Accept(command) => panic!("accepted: {command:?}"),
    }
}

fn code(decision: Decision) -> String {
    let answer = answered(decision);
    assert!(matches!(answer.outcome, Outcome::Refused | Outcome::InDoubt));
    answer.code
}

#[test]
fn a_command_with_the_current_challenge_and_a_higher_counter_is_accepted_and_gaps_are_fine() {
    let command = accepted(send(&desk(3), 3, |command| command["counter"] = json!(1000)));
    assert_eq!((command.counter, command.verb), (1000, Verb::PauseFeed { feed: Name::new("or-usage").unwrap() }));
}

#[test]
fn what_is_not_signed_is_not_even_read() {
    let verdict = desk(0).receive(b"{}", |_, kind| Err::<Vec<u8>, _>(format!("no key for {kind}")), 0, NOW);
    let answer = answered(verdict);
    assert_eq!((answer.code.as_str(), answer.counter, answer.verb), ("not_verified", None, None));
    assert!(answer.text.contains("no key for application/vnd.siteward.command.v1+json"), "{}", answer.text);
}

#[test]
fn a_command_for_another_gateway_is_refused() {
    assert_eq!(code(send(&desk(0), 0, |command| command["gateway"] = json!("gw2"))), "other_gateway");
}

#[test]
fn a_replay_is_answered_from_memory_and_an_older_counter_refused() {
    let mut desk = desk(0);
    let command = accepted(send(&desk, 0, |_| {}));
    let signed_for = desk.challenge().as_str().to_owned();
    desk.begin(&command, [2; 16]);
    assert_eq!(code(send(&desk, 7, |_| {})), "running");
    let challenge = desk.challenge().as_str().to_owned();
    let next = |command: &mut Value| (command["counter"], command["challenge"]) = (json!(8), json!(challenge));
    assert_eq!(code(send(&desk, 7, next)), "busy", "one at a time; its counter is not used up");
    desk.finish(Outcome::Done, "paused", Some(json!({"long": "list"})), NOW).unwrap();
    let again = answered(send(&desk, 7, |command| command["challenge"] = json!(signed_for)));
    assert_eq!((again.outcome, again.text.as_str(), again.data), (Outcome::Done, "paused", None));
    assert_eq!(again.challenge, desk.challenge().as_str(), "what the next one must quote");
    assert_eq!(code(send(&desk, 7, |command| command["counter"] = json!(6))), "old_counter");
    assert_eq!(code(send(&desk, 7, |command| command["counter"] = json!(0))), "old_counter");
}

#[test]
fn a_challenge_counts_once_and_not_after_a_restart() {
    let mut desk = desk(0);
    let old = desk.challenge().as_str().to_owned();
    let command = accepted(send(&desk, 0, |_| {}));
    desk.begin(&command, [2; 16]);
    desk.finish(Outcome::Done, "paused", None, NOW);
    let stale = |command: &mut Value| (command["counter"], command["challenge"]) = (json!(8), json!(old));
    assert_eq!(code(send(&desk, 7, stale)), "old_challenge");
    let restarted = CommandDesk::new(Name::new("gw1").unwrap(), Allowed::default(), 7, [3; 16]);
    assert_eq!(code(send(&restarted, 7, stale)), "old_challenge");
    accepted(send(&restarted, 7, |command| command["counter"] = json!(8)));
}

/// The ledger said 7 durably, then the power went: before execution, or after it and before the answer.
#[test]
fn a_crash_between_accepting_and_answering_leaves_it_in_doubt_and_it_is_never_executed_again() {
    let before = desk(0);
    let signed_for = before.challenge().as_str().to_owned();
    accepted(send(&before, 0, |_| {}));
    drop(before);
    let after = CommandDesk::new(Name::new("gw1").unwrap(), Allowed::default(), 7, [9; 16]);
    let answer = answered(send(&after, 7, |command| command["challenge"] = json!(signed_for)));
    assert_eq!((answer.outcome, answer.code.as_str(), answer.counter), (Outcome::InDoubt, "in_doubt", Some(7)));
    let even_with_the_new_challenge = send(&after, 7, |_| {});
    assert_eq!(code(even_with_the_new_challenge), "in_doubt");
}

/// The crash came before the ledger was durable: it counts as never sent, and its challenge is gone.
#[test]
fn a_crash_before_the_counter_was_durable_needs_a_new_signature() {
    let before = desk(3);
    let signed_for = before.challenge().as_str().to_owned();
    accepted(send(&before, 3, |_| {}));
    let after = CommandDesk::new(Name::new("gw1").unwrap(), Allowed::default(), 3, [9; 16]);
    assert_eq!(code(send(&after, 3, |command| command["challenge"] = json!(signed_for))), "old_challenge");
}

#[test]
fn what_could_not_be_made_durable_was_not_executed_and_may_come_again() {
    let desk = desk(0);
    let command = accepted(send(&desk, 0, |_| {}));
    let answer = desk.abandoned(&command, "no space", 0, NOW);
    assert_eq!((answer.outcome, answer.code.as_str()), (Outcome::Refused, "not_durable"));
    accepted(send(&desk, 0, |_| {}));
}

#[test]
fn releasing_and_dropping_must_be_allowed_on_site() {
    let drop_one = |command: &mut Value| {
        (command["verb"], command["args"]) = (json!("drop_quarantine"), json!({"feed": "f", "first": 1, "last": 2}));
    };
    assert_eq!(code(send(&desk(0), 0, drop_one)), "not_allowed");
    let allowed = Allowed::of(["drop_quarantine"]).unwrap();
    let desk = CommandDesk::new(Name::new("gw1").unwrap(), allowed, 0, FIRST);
    accepted(send(&desk, 0, drop_one));
    assert_eq!(code(send(&desk, 0, |_| {})), "not_allowed");
    assert_eq!(Allowed::of(["checkpoint", "shell"]), Err(1));
}

#[test]
fn arguments_are_checked_and_never_repeated() {
    let cases = [
        ("pause_feed", json!({})),
        ("pause_feed", json!({"feed": "CANARY/.."})),
        ("pause_feed", json!({"feed": "f", "CANARY": 1})),
        ("accept_resend", json!({"feed": "f", "for_s": 0})),
        ("accept_resend", json!({"feed": "f", "for_s": 86_401})),
        ("log_level", json!({"level": "CANARY", "for_s": 60})),
        ("log_level", json!({"level": "debug", "for_s": 1_000_000})),
        ("maintenance_start", json!({"feed": "CANARY/..", "for_s": 60})),
        ("maintenance_start", json!({"feed": "f", "for_s": 259_201})),
        ("maintenance_end", json!({"id": "CANARY"})),
        ("checkpoint", json!({"CANARY": 1})),
    ];
    for (verb, args) in cases {
        let answer = answered(send(&desk(0), 0, |command| (command["verb"], command["args"]) = (json!(verb), args)));
        assert!(answer.code == "malformed" && !answer.text.contains("CANARY") && answer.text.contains(verb), "{answer:?}");
    }
    let unknown = answered(send(&desk(0), 0, |command| command["verb"] = json!("run CANARY")));
    assert!(unknown.code == "unknown_verb" && !unknown.text.contains("CANARY"), "{unknown:?}");
    assert_eq!(code(send(&desk(0), 0, |command| command["author"] = json!(" "))), "malformed");
    assert_eq!(code(send(&desk(0), 0, |command| command["more"] = json!(1))), "malformed");
}

#[test]
fn every_verb_reads_back_by_its_name() {
    let args = |verb| match verb {
        VerbName::PauseFeed | VerbName::ResumeFeed => json!({"feed": "f"}),
        VerbName::AcceptResend => json!({"feed": "f", "for_s": 60}),
        VerbName::ReleaseQuarantine | VerbName::DropQuarantine => json!({"feed": "f", "first": 1, "last": 1}),
        VerbName::Checkpoint | VerbName::Diagnose => json!({}),
        VerbName::LogLevel => json!({"level": "debug", "for_s": 60}),
        VerbName::MaintenanceStart => json!({"for_s": 60}),
        VerbName::MaintenanceEnd => json!({"id": 1}),
    };
    let all = Allowed::of(VerbName::ALL.map(VerbName::as_str)).unwrap();
    for verb in VerbName::ALL {
        let desk = CommandDesk::new(Name::new("gw1").unwrap(), all.clone(), 0, FIRST);
        let command = accepted(send(&desk, 0, |command| (command["verb"], command["args"]) = (json!(verb.as_str()), args(verb))));
        assert_eq!(command.verb.name(), verb);
        assert_eq!(serde_json::to_value(verb).unwrap(), json!(verb.as_str()));
    }
}
