//! What is said: each reason, the reported JSON, the conditions, the status.

use super::*;
use crate::config::trust::Anchors;
use crate::limits::{LETTER_BYTES_MAX, OVERRIDES_MAX};
use crate::overrides::Kind;
use crate::overrides::handle::View;
use crate::rollout::command::VerbName;
use crate::rollout::report::{Commands, Surroundings, Trust, conditions, config_view, reported, show};
use crate::status::board::Board;
use crate::status::condition::Code;

#[test]
fn every_reason_is_one_sentence_with_place_and_advice() {
    let fault = |name: &str, key: &str, why: &str| FeedFault { feed: feed(name), key: key.into(), why: why.into() };
    let cases = [
        (Reason::AgentStopped, "the agent stopped during the trial; give the document a higher revision to try it again"),
        (
            Reason::NotApplied("feed `a` (feed[0].mllp.listen): in use".into()),
            "it could not be put to use: feed `a` (feed[0].mllp.listen): in use",
        ),
        (Reason::ApplyTooLong, "it could not be put to use in two minutes; a directory or device of one of its feeds does not answer"),
        (Reason::NoEvidence, "nothing was heard of its feeds during the trial; look at the agent's log"),
        (
            Reason::ListenersNotBound(vec![fault("or-implants", "feed[2].mllp.listen", "port 2575 is in use"), fault("b", "k", "w")]),
            "feed `or-implants` (feed[2].mllp.listen): port 2575 is in use; feed `b` (k): w",
        ),
        (
            Reason::DirectoriesUnreadable(vec![fault("cabinet", "feed[1].directory.path", "no such directory")]),
            "feed `cabinet` (feed[1].directory.path): no such directory",
        ),
        (
            Reason::PeersMissing(vec![feed("a"), feed("b")]),
            "feeds `a`, `b` had a sender in the hour before the change and none could connect since; check feed.mllp.listen, feed.mllp.peers and \
             feed.mllp.tls, or set rollout.confirm = \"bound\"",
        ),
        (
            Reason::EndpointUnproven,
            "no endpoint that it adds acknowledged a publish, while an earlier endpoint did; check uplink.endpoint.url and \
             uplink.endpoint.ca_pem",
        ),
        (
            Reason::UplinkLost { attempts: 3 },
            "the uplink was lost during the trial: no endpoint acknowledged the report; it is tried once more when it is delivered again",
        ),
        (
            Reason::UplinkLost { attempts: 4 },
            "the uplink was lost during the trial: no endpoint acknowledged the report; it is not tried again, give the document a higher \
             revision",
        ),
        (Reason::LedgerUnwritable("no space".into()), "the ledger could not be written: no space; check the disk of the spool"),
        (Reason::Asked { who: "kim".into(), why: "wrong port".into() }, "kim asked for the configuration from before: wrong port"),
        (
            Reason::EnvelopeDamaged("cut short".into()),
            "its file on the gateway can no longer be used: cut short; send the document again with a higher revision",
        ),
        (
            Reason::LedgerDamaged,
            "the ledger was damaged, so nobody can tell how its trial ended; give the document a higher revision to try it again",
        ),
    ];
    for (reason, text) in cases {
        assert_eq!(reason.to_string(), text, "{}", reason.code());
        assert_eq!(reason.may_be_tried_again(), matches!(reason, Reason::UplinkLost { attempts: 3 }));
    }
    let many: Vec<FeedId> = (0..9).map(|i| feed(&format!("f{i}"))).collect();
    assert!(Reason::PeersMissing(many).to_string().contains("`f4` and 4 more had"));
}

fn around() -> Surroundings {
    Surroundings {
        gateway: feed("st-marys-gw1"),
        effective_digest: Some(DocumentDigest([0xEE; 32])),
        retired_feeds: vec![feed("new")],
        overrides: Vec::new(),
        secret_key: None,
        commands: Commands { challenge: "0f".repeat(16), highest_counter: 7, allowed: vec![VerbName::Checkpoint] },
        timezone: "Europe/Berlin".into(),
        groups: vec![feed("eu-west")],
        trust: Trust::of(&Anchors::default()),
        wall: Stamp { unix_ms: 1_793_491_200_000, suspect: true },
    }
}

#[test]
fn the_report_says_what_runs_and_why_the_last_one_does_not() {
    let mut bench = Bench::with_41();
    bench.on_trial(offer(42));
    bench.after(TRIAL_MS);
    let json = serde_json::to_value(reported(&bench.machine, around()).unwrap()).unwrap();
    let expected = serde_json::json!({
        "schema": 1,
        "gateway": "st-marys-gw1",
        "version": env!("CARGO_PKG_VERSION"),
        "running": {
            "revision": 41, "digest": "29".repeat(32), "since": "2026-11-01T00:00:00.000Z",
            "author": "kim", "approver": "lee", "purpose": "new cabinet", "ticket": "CHG-7"
        },
        "tried": {
            "revision": 42, "digest": "2a".repeat(32), "state": "rolled_back", "code": "no_evidence",
            "reason": "nothing was heard of its feeds during the trial; look at the agent's log", "at": "2026-11-01T00:15:00.000Z",
            "author": "kim", "approver": "lee", "purpose": "new cabinet", "ticket": "CHG-7"
        },
        "effective_digest": "ee".repeat(32),
        "retired_feeds": ["new"],
        "overrides": [],
        "secret_key": null,
        "commands": { "challenge": "0f".repeat(16), "highest_counter": 7, "allowed": ["checkpoint"] },
        "timezone": "Europe/Berlin",
        "groups": ["eu-west"],
        "document_schema": 1,
        "trust": { "keys": [], "threshold": 1, "recovery_keys": [], "recovery_threshold": 1 },
        "time": "2026-11-01T00:00:00.000Z",
        "clock_suspect": true
    });
    assert_eq!(json, expected);
    let json = serde_json::to_value(reported(&Bench::fresh().machine, around()).unwrap()).unwrap();
    assert_eq!((&json["running"]["revision"], &json["tried"]), (&0.into(), &serde_json::Value::Null));
}

/// I6: a report is one letter, without which no trial is proven, whatever was changed on site.
#[test]
fn however_many_overrides_hold_the_report_is_a_letter_and_says_how_many_it_leaves_out() {
    let view = |n: usize| View {
        feed: feed(&format!("feed-{n}")),
        change: Kind::Peers,
        value: "1".repeat(280),
        who: "kim".into(),
        reason: "\u{e9}".repeat(200),
        set_at: "2026-11-01T00:00:00.000Z".into(),
        for_s: 60,
        left_s: None,
    };
    let report = |count| {
        let around = Surroundings { overrides: (0..count).map(view).collect(), ..around() };
        serde_json::to_value(reported(&Bench::with_41().machine, around).unwrap()).unwrap()
    };
    let few = report(3);
    assert_eq!((few["overrides"].as_array().unwrap().len(), few.get("overrides_more")), (3, None));
    let many = report(OVERRIDES_MAX);
    let listed = many["overrides"].as_array().unwrap().len();
    assert_eq!(many["overrides_more"], OVERRIDES_MAX - listed);
    assert!(listed > 30 && many.to_string().len() < LETTER_BYTES_MAX / 2, "{listed}");
}

/// I6: the report names states as they are on disk.
#[test]
fn nothing_is_reported_that_a_power_cut_would_undo() {
    let mut bench = Bench::with_41();
    let states = |bench: &Bench| reported(&bench.machine, around()).map(|r| (r.running.revision, r.tried.unwrap().state));
    bench.give(offer(42));
    assert_eq!(states(&bench), Some((41, "staged")));
    bench.give(Input::Applied { digest: facts(42).digest, result: Ok(()) });
    assert_eq!(states(&bench), Some((41, "trial")));
    bench.disk_ok = false;
    bench.give(Input::Evidence(evidence(ACKED)));
    assert_eq!(states(&bench), Some((41, "trial")), "confirmed, and not on disk");
    bench.after(TRIAL_MS);
    assert_eq!(states(&bench), None, "taken back, and not on disk");
}

#[test]
fn conditions_and_status_follow_the_rollout() {
    let holding = |bench: &Bench| conditions(&bench.machine).into_iter().map(|(code, _)| code).collect::<Vec<_>>();
    let mut bench = Bench::with_41();
    assert_eq!(holding(&bench), []);
    bench.on_trial(offer(42));
    assert_eq!(holding(&bench), [Code::ConfigTrial]);
    assert_eq!(config_view(&bench.machine, "", false).state, "trial");
    bench.after(TRIAL_MS);
    assert_eq!(holding(&bench), [Code::ConfigRolledBack]);
    let text = &conditions(&bench.machine)[0].1;
    assert!(text.starts_with("revision 42 was taken back (no_evidence): ") && text.ends_with("; revision 41 runs"), "{text}");
    bench.give(Input::Unusable { code: "bad_signature".into(), why: "signed by nobody".into() });
    assert_eq!(conditions(&bench.machine)[0].1, "a document was refused (bad_signature): signed by nobody; revision 41 runs");
    bench.on_trial(Offer { uplink_up: false, ..offer(43) });
    bench.give(Input::Evidence(evidence(UplinkEvidence::Down)));
    bench.after(TRIAL_MS);
    assert_eq!(holding(&bench), [Code::ConfigCommittedLocal]);
    let board = Board::new([]);
    show(&bench.machine, &board, "text", false);
    let view = board.config();
    assert_eq!((view.revision, view.state.as_str(), &*view.text), (Some(43), "committed_local", "text"));
    assert_eq!(board.conditions()[0].code, "config_committed_local");
    bench.give(Input::Evidence(evidence(ACKED)));
    show(&bench.machine, &board, "text", false);
    assert!(board.conditions().is_empty());
    let damaged = Bench::boot(Found::Damaged { proven: vec![facts(3)], unproven: vec![] });
    assert_eq!(holding(&damaged), [Code::ConfigLedgerDamaged]);
}
