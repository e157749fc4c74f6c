//! What speaks against a rollout is told before anything is published.

use super::*;
use crate::hub::reports::{Word, read, take};

const NOW_MS: i64 = 1_800_000_000_000;

fn signed(file: &str, revision: u64, whom: &str, more: &str) -> Signed {
    let text = format!("[document]\nschema_version = 1\nrevision = {revision}\n{whom}\nauthor = \"kim\"\nreason = \"t\"\n{more}");
    let envelope = envelope::write(DOCUMENT_TYPE, text.as_bytes(), &[("ab".repeat(32), vec![1; 64])]);
    Signed::read(file, envelope.into_bytes()).unwrap()
}

fn reports(gateways: &[(&str, &str, serde_json::Value)]) -> Reports {
    let mut reports = Reports::new();
    for (name, state, more) in gateways {
        let (_, gateway) = name.split_once('/').unwrap();
        let mut reported = serde_json::json!({
            "gateway": gateway, "version": "0.1.0", "running": {"revision": 6, "digest": "06".repeat(32)}, "tried": null,
            "timezone": "Europe/Berlin", "groups": ["east"], "document_schema": 1,
            "trust": {"keys": ["ab".repeat(32)], "threshold": 1, "recovery_keys": [], "recovery_threshold": 1},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            reported[key] = value.clone();
        }
        for (topic, payload) in [("config/reported", reported), ("status", serde_json::json!({"state": state, "version": "0.1.0"}))] {
            let (key, word) = read(&format!("siteward/v1/{name}/{topic}"), payload.to_string().as_bytes()).unwrap();
            assert!(!matches!(word, Word::Unreadable));
            take(&mut reports, key, word);
        }
    }
    reports
}

fn wish(whom: Whom) -> Wish {
    let (waves, threshold) = ("1,100%".to_owned(), Threshold::Count(0));
    Wish { whom, site: None, expected: Vec::new(), waves, soak_s: vec![0], window: None, threshold, grace_s: 60 }
}

fn none() -> serde_json::Value {
    serde_json::json!({})
}

#[test]
fn who_is_online_comes_first_and_each_gets_the_document_that_is_for_it() {
    let all = reports(&[("s/a", "offline", none()), ("s/b", "online", none()), ("t/c", "online", serde_json::json!({"groups": ["west"]}))]);
    let documents = [signed("a", 7, "gateway = \"a\"", ""), signed("east", 7, "groups = [\"east\"]", "")];
    let planned = plan(&wish(Whom::Group(Name::new("east").unwrap())), &documents, &all, &BTreeMap::new(), NOW_MS).unwrap();
    let found: Vec<(String, &str)> =
        planned.plan.targets.iter().map(Target::name).zip(planned.documents.iter().map(|d| d.file.as_str())).collect();
    assert_eq!(found, [("s/b".to_owned(), "east"), ("s/a".to_owned(), "a")]);
    assert_eq!((planned.plan.waves, planned.plan.targets[0].zone.as_deref()), (vec![1, 2], Some("Europe/Berlin")));
}

/// Of whom the broker has nothing is meant where the list has it and a document names it: pending, and told of in no other way.
#[test]
fn who_never_reported_is_meant_by_the_list_and_a_document_with_its_name() {
    let all = reports(&[("s/a", "online", none()), ("t/c", "online", serde_json::json!({"groups": ["west"]}))]);
    let documents =
        [signed("a", 7, "gateway = \"a\"", ""), signed("b", 7, "gateway = \"b\"", ""), signed("west", 7, "groups = [\"west\"]", "")];
    let key = |site: &str, gateway: &str| (Name::new(site).unwrap(), Name::new(gateway).unwrap());
    let expected = vec![key("s", "a"), key("u", "b"), key("u", "unnamed"), key("t", "c")];
    let names = |whom: Whom, expected: &[GatewayKey]| {
        let wish = Wish { expected: expected.to_vec(), ..wish(whom) };
        let planned = plan(&wish, &documents, &all, &BTreeMap::new(), NOW_MS).map_err(|faults| faults.join("\n"))?;
        Ok::<_, String>(planned.plan.targets.iter().map(Target::name).collect::<Vec<_>>())
    };
    let east = || Whom::Group(Name::new("east").unwrap());
    assert_eq!(names(east(), &[]).unwrap(), ["s/a"]);
    assert_eq!(names(east(), &expected).unwrap(), ["s/a", "u/b"], "neither the one of another group nor the one without a document");
    assert_eq!(names(Whom::Named, &expected).unwrap(), ["s/a", "u/b"], "the list says the site");
    assert!(names(Whom::Named, &[]).unwrap_err().contains("--expect"));
}

#[test]
fn everything_that_a_gateway_would_refuse_is_told_at_once() {
    let told = |whom: Whom, documents: &[Signed], all: &Reports, contents: &BTreeMap<(GatewayKey, u64), DocumentDigest>| {
        plan(&wish(whom), documents, all, contents, NOW_MS).map(|planned| planned.plan.targets.len()).unwrap_err().join("\n")
    };
    let named = |names: &[&str]| Whom::Gateways(names.iter().map(|&n| n.to_owned()).collect());
    let one = |revision: u64, more: &str| [signed("f", revision, "gateway = \"a\"", more)];
    let online = |more: serde_json::Value| reports(&[("s/a", "online", more)]);
    let nothing = BTreeMap::new();
    for (documents, more, part) in [
        (one(5, ""), none(), "is 5, the gateway runs 6"),
        (one(6, ""), none(), "runs another document of revision 6"),
        (one(7, ""), serde_json::json!({"version": "0.0.9"}), ""),
        ([signed("f", 7, "gateway = \"a\"\nmin_agent_version = \"0.2.0\"", "")], none(), "asks for 0.2.0, the gateway reports 0.1.0"),
        ([signed("f", 7, "gateway = \"a\"\nexpires = \"2026-01-01T00:00:00Z\"", "")], none(), "document.expires"),
        (one(7, ""), serde_json::json!({"document_schema": 0}), "schema_version"),
        (
            one(7, ""),
            serde_json::json!({"tried": {"revision": 7, "state": "rolled_back", "code": "peers_missing"}}),
            "was tried there and not kept (peers_missing",
        ),
        (one(7, ""), serde_json::json!({"trust": {"keys": ["cd".repeat(32)], "threshold": 1}}), "0 of the 1 signatures"),
    ] {
        let all = online(more);
        if part.is_empty() {
            assert!(plan(&wish(Whom::Named), &documents, &all, &nothing, NOW_MS).is_ok());
        } else {
            let text = told(Whom::Named, &documents, &all, &nothing);
            assert!(text.starts_with("s/a: ") && text.contains(part), "{part}: {text}");
        }
    }
    let all = online(none());
    let key = (Name::new("s").unwrap(), Name::new("a").unwrap());
    let contents = BTreeMap::from([((key, 7), DocumentDigest([9; 32]))]);
    assert!(told(Whom::Named, &one(7, ""), &all, &contents).contains("with another content"));
    assert!(told(named(&["b"]), &one(7, ""), &all, &nothing).contains("write SITE/b"));
    assert!(told(named(&["s/b"]), &one(7, ""), &all, &nothing).contains("no document names it"));
    assert!(told(named(&["S/b"]), &one(7, ""), &all, &nothing).contains("name of a site"));
    assert!(told(Whom::Group(Name::new("north").unwrap()), &one(7, ""), &all, &nothing).contains("no gateway reports the group north"));
    let two = [signed("f", 7, "gateway = \"a\"", ""), signed("g", 8, "gateway = \"a\"", "")];
    assert!(told(Whom::Named, &two, &all, &nothing).contains("several documents are for it: f, g"));
    let twins = reports(&[("s/a", "online", none()), ("t/a", "online", none())]);
    assert!(told(Whom::Named, &one(7, ""), &twins, &nothing).contains("from several sites"));
    let hours = Wish { window: Some(Window { from: 60, to: 300 }), ..wish(named(&["x/a"])) };
    let unheard = plan(&hours, &one(7, ""), &Reports::new(), &nothing, NOW_MS).unwrap_err().join("\n");
    assert!(unheard.contains("time zone has not been reported"), "{unheard}");
    assert!(plan(&wish(named(&["x/a"])), &one(7, ""), &Reports::new(), &nothing, NOW_MS).is_ok(), "who never reported is pending");
}
