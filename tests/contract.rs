//! The contract for those who write their own hub: `agent/contract/` against what really travels, and against everything the types can say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use harness::files::{Folder, csv};
use harness::http::HttpFeed;
use harness::message;
use harness::mosquitto;
use harness::observer::{self, Seen};
use harness::scene::Scene;
use harness::wait;
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use siteward::clock::WallTime;
use siteward::contract::topic::{self, Kind};
use siteward::contract::{
    Audit, AuditStage, CertificateOutcome, CertificateState, Checkpoint, ConditionTold, GatewayState, Mark, OnlineState, Outcome, Receipt,
    RenewalState, SpoolTold, WindowTold,
};
use siteward::overrides::{self, handle::View};
use siteward::record::{Chain, Digest, DocumentDigest, FeedId, Incarnation, Name, Position};
use siteward::rollout::command::{self, Allowed, Answer, COMMAND_TYPE, Challenge, CommandDesk, Decision, VerbName};
use siteward::rollout::report::{self, About, Attempt, Commands, Reported, Running, Trust};

const TIME: &str = "2026-11-01T00:00:00.000Z";

fn contract() -> PathBuf {
    harness::repository().join("agent/contract")
}

fn schema(name: &str) -> Validator {
    let path = contract().join("schemas").join(format!("{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let schema: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{} is no schema: {error}", path.display()))
}

fn faults(validator: &Validator, value: &Value) -> Vec<String> {
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The schema of what travels on a topic, and the content type it is sent with (`None`: that of the data).
fn schema_of(topic: &str) -> (&'static str, Option<&'static str>) {
    let json = Some("application/json");
    let parsed = topic::parse(topic).unwrap_or_else(|| panic!("{topic} is not of the contract"));
    match parsed.kind {
        Kind::Event(_) => ("event-attributes", None),
        Kind::Outcome(_) => ("outcome", json),
        Kind::Checkpoint => ("checkpoint", json),
        Kind::Status => ("status", json),
        Kind::Receipt => ("receipt", json),
        Kind::Desired | Kind::Command => ("envelope", None), // from central IT, as it likes
        Kind::Reported => ("reported", json),
        Kind::CertificateRequest => ("certificate-request", json),
        Kind::CertificateIssued => ("", None), // PEM
        Kind::CommandResult => ("command-result", json),
        Kind::Audit => ("audit", json),
    }
}

fn instance(seen: &Seen) -> Value {
    if schema_of(&seen.topic).0 == "event-attributes" {
        return Value::Object(seen.properties.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>());
    }
    serde_json::from_slice(&seen.payload).unwrap_or_else(|error| panic!("{} carries no JSON: {error}", seen.topic))
}

fn count(seen: &[Seen], schema: &str) -> usize {
    seen.iter().filter(|s| schema_of(&s.topic).0 == schema).count()
}

/// Everything that a gateway and a hub say to each other in a day with messages, files, posts, a condition and a restart is as the schemas say.
#[test]
fn real_traffic_is_as_the_contract_says() {
    let mut folder = None;
    let posts = HttpFeed::new("fhir");
    let mut scene = Scene::new(mosquitto::Options { persistence: true, packet_bytes_max: 0 }, |configuration| {
        let parent = configuration.spool.parent().expect("the spool lies in the site").join("in");
        let rows = Folder::new(&parent, "cabinet");
        configuration.sections.push(rows.section(&["split = \"csv\"", "complete = \"rename\"", "name_in_events = true"]));
        configuration.sections.push(posts.section("accept = [\"text/csv\"]"));
        folder = Some(rows);
    });
    let folder = folder.expect("made above");
    let broker = scene.broker.plain();
    let observer = std::thread::spawn(move || {
        observer::collect(broker, "siteward/v1/#", wait::EVENTUALLY, |seen| {
            let told = seen.iter().any(|s| schema_of(&s.topic).0 == "status" && instance(s)["conditions"].is_array());
            count(seen, "event-attributes") >= 68 && told && ["checkpoint", "receipt"].iter().all(|schema| count(seen, schema) > 0)
        })
    });
    std::thread::sleep(Duration::from_millis(500)); // the observer is there first
    scene.start();
    for part in 0..2 {
        wait::wait_until("the HTTP port", wait::EVENTUALLY, || harness::net::listening(posts.addr()));
        for (media_type, body) in
            [("application/fhir+json", "{\"resourceType\":\"Device\"}"), ("application/x-ndjson", "[1]\n{}\n"), ("text/csv", "a;b")]
        {
            let key = format!("{media_type}-{part}");
            assert_eq!(posts.post(media_type, Some(&key), body.as_bytes()).expect("an answer").status, 202, "{media_type}");
        }
        // A body that is none raises a condition, which the hub is told.
        assert_eq!(posts.post("application/json", None, b"{").expect("an answer").status, 400);
        let mut wire = scene.site.wire();
        for number in 1..=20 {
            assert!(wire.exchange(&message::build(0, part * 20 + number, 700)).expect("an answer").positive());
        }
        folder.put(&format!("usage-{part}.csv"), &csv(part * 10 + 1, part * 10 + 10));
        wait::wait_until("the file is taken", wait::EVENTUALLY, || folder.is_done(&format!("usage-{part}.csv")));
        scene.site.stop();
        scene.site.start();
    }
    let seen = observer.join().expect("the observer");
    let (mut counts, mut types): (BTreeMap<&str, usize>, BTreeSet<&str>) = (BTreeMap::new(), BTreeSet::new());
    let mut validators: BTreeMap<&str, Validator> = BTreeMap::new();
    for publish in &seen {
        let (name, content_type) = schema_of(&publish.topic);
        let instance = instance(publish);
        assert_eq!(
            faults(validators.entry(name).or_insert_with(|| schema(name)), &instance),
            Vec::<String>::new(),
            "{}: {instance}",
            publish.topic
        );
        match (content_type, publish.content_type.as_deref()) {
            (None, Some(found)) => drop(types.insert(found)),
            // Where none is given, the document's default holds.
            (Some(wanted), found) => assert_eq!(found.unwrap_or(wanted), wanted, "{}", publish.topic),
            (None, None) => panic!("{} comes without a content type", publish.topic),
        }
        *counts.entry(name).or_default() += 1;
    }
    let enough = [("event-attributes", 68), ("checkpoint", 2), ("receipt", 1), ("status", 2)];
    assert!(enough.iter().all(|(name, least)| counts.get(name).is_some_and(|count| count >= least)), "{counts:?}");
    assert_eq!(types.into_iter().collect::<Vec<_>>(), ["application/fhir+json", "application/hl7-v2", "application/json", "text/csv"]);
    println!("contract: publishes as the schemas say: {counts:?}");
}

/// What is rare on the wire: every variant of every payload, as the agent's own types write it.
#[test]
fn everything_the_types_can_say_is_as_the_contract_says() {
    let feed = FeedId::new("or-usage").expect("a name");
    let (incarnation, chain) = (Incarnation([7; 16]), Chain([9; 32]));
    let mark = Mark { seq: 0, chain: Chain::GENESIS };
    let follows = Some(Position { incarnation, seq: 12, chain });
    let payloads: Vec<(&str, Value)> = vec![
        ("checkpoint", json!(Checkpoint::Open { feed: feed.clone(), incarnation, follows: None, settled: mark })),
        ("checkpoint", json!(Checkpoint::Open { feed: feed.clone(), incarnation, follows, settled: mark })),
        ("checkpoint", json!(Checkpoint::Head { feed: feed.clone(), incarnation, seq: u64::MAX, chain, count: 1, settled: mark })),
        ("outcome", json!(Outcome::Exception { incarnation, seq: 1, digest: Digest([1; 32]), chain, reason: "too_large".into() })),
        ("outcome", json!(Outcome::Gap { incarnation, first: 1, last: 2, chain, reason: "damaged".into() })),
        ("receipt", json!(Receipt { feed, incarnation, through_seq: 0, chain, missing: vec![(1, 2), (4, 4)], time: Some(TIME.into()) })),
    ];
    let payloads = payloads.into_iter().chain(states()).chain(reports()).chain(answers()).chain(renewals());
    for (name, payload) in payloads {
        let validator = schema(name);
        assert_eq!(faults(&validator, &payload), Vec::<String>::new(), "{name}: {payload}");
        // The schema is no blank cheque: without any one of its members that are required the same payload is refused.
        let members: Vec<String> = payload.as_object().expect("an object").keys().cloned().collect();
        for member in members.iter().filter(|member| !optional(name).contains(&member.as_str())) {
            let mut less = payload.clone();
            less.as_object_mut().expect("an object").remove(member);
            assert!(!validator.is_valid(&less), "{name} without {member} is taken");
        }
    }
}

/// Members that may be absent.
fn optional(schema: &str) -> &'static [&'static str] {
    match schema {
        "receipt" => &["missing", "time"],
        "audit" => &["of"],
        "reported" => &["overrides_more"],
        "certificate-request" => &["csr", "last"],
        "status" => &["since", "at", "spool", "conditions", "conditions_left_out", "maintenance"],
        "command-result" => &["counter", "verb", "data"],
        _ => &[],
    }
}

fn states() -> Vec<(&'static str, Value)> {
    let state = |state, since: Option<&str>, conditions, conditions_left_out| {
        let since = since.map(str::to_owned);
        let waits = SpoolTold { queued: 3, oldest: since.clone(), bytes: 4096, max_bytes: u64::MAX, time_to_full_s: Some(7200) };
        let window =
            |from: Option<&str>| WindowTold { from: from.map(str::to_owned), until: TIME.into(), reason: "works on the line".into() };
        let maintenance = if since.is_some() { vec![window(None), window(Some(TIME))] } else { Vec::new() };
        let (at, spool) = (since.clone(), since.is_some().then_some(waits));
        ("status", json!(GatewayState { state, version: "0.1.0".into(), since, at, spool, conditions, conditions_left_out, maintenance }))
    };
    let told = |severity: &str| ConditionTold {
        code: "spool_full".into(),
        severity: severity.into(),
        subject: String::new(),
        text: "new messages are refused".into(),
        since: TIME.into(),
        quiet: severity == "warning",
    };
    vec![state(OnlineState::Offline, None, Vec::new(), 0), state(OnlineState::Online, Some(TIME), vec![told("error"), told("warning")], 7)]
}

/// What was changed on site: one of each kind.
fn overridden(revision: u64) -> Vec<View> {
    let view = |(change, value): (overrides::Kind, &str)| View {
        feed: FeedId::new("or-usage").expect("a name"),
        change,
        value: value.into(),
        who: "kim".into(),
        reason: "the interface engine moved".into(),
        set_at: TIME.into(),
        for_s: 3600,
        left_s: None,
    };
    [(overrides::Kind::Port, "2576"), (overrides::Kind::Peers, "10.0.0.0/8"), (overrides::Kind::Pause, "")]
        .into_iter()
        .filter(|_| revision > 0)
        .map(view)
        .collect()
}

fn reports() -> Vec<(&'static str, Value)> {
    let gateway = || Name::new("st-marys-gw1").expect("a name");
    let about = |approver: Option<&str>| About {
        author: "j.doe".into(),
        approver: approver.map(str::to_owned),
        purpose: "new cabinet".into(),
        ticket: approver.map(|_| "CHG-1".to_owned()),
    };
    let attempt = |state, digest, document| Attempt {
        revision: Some(42),
        digest,
        state,
        code: (state == "refused").then(|| "not_applied".to_owned()),
        reason: (state == "refused").then(|| "feed `or-implants`: port 2575 is in use".to_owned()),
        at: TIME.into(),
        document,
    };
    let digest = Some(DocumentDigest([5; 32]));
    let report = |revision, document: Option<About>, tried| {
        let digest = document.as_ref().and(digest);
        let running = Running { revision, digest, since: TIME.into(), document };
        let (schema, effective_digest, retired_feeds) = (report::SCHEMA, digest, vec![FeedId::new("old").expect("a name")]);
        let (version, time, clock_suspect) = ("0.1.0", TIME.to_owned(), revision == 0);
        let commands = Commands { challenge: "0f".repeat(16), highest_counter: u64::MAX, allowed: VerbName::ALL.to_vec() };
        json!(Reported {
            schema,
            gateway: gateway(),
            version,
            running,
            tried,
            effective_digest,
            retired_feeds,
            overrides: overridden(revision),
            overrides_more: usize::from(revision > 0),
            secret_key: (revision > 0).then(|| format!("{}=", "A".repeat(43))),
            commands,
            timezone: "Europe/Berlin".into(),
            groups: (revision > 0).then(|| Name::new("eu-west").expect("a name")).into_iter().collect(),
            document_schema: 1,
            trust: Trust { keys: vec!["0f".repeat(32)], threshold: 1, recovery_keys: Vec::new(), recovery_threshold: 1 },
            time,
            clock_suspect
        })
    };
    let mut all =
        vec![report(0, None, None), report(41, Some(about(None)), Some(Attempt { revision: None, ..attempt("refused", None, None) }))];
    for state in ["staged", "trial", "committed_local", "committed", "rolled_back", "refused"] {
        all.push(report(41, Some(about(Some("a.lee"))), Some(attempt(state, digest, Some(about(None))))));
    }
    let audit = Audit {
        schema: 1,
        gateway: gateway(),
        who: "j.doe".into(),
        what: "pause_feed".into(),
        subject: "or-usage".into(),
        reason: String::new(),
        time: TIME.into(),
        clock_suspect: false,
        chain: Incarnation([7; 16]),
        n: 2,
        stage: AuditStage::Outcome,
        of: Some(1),
        prev: Digest([1; 32]),
        digest: Digest([2; 32]),
    };
    all.into_iter().map(|report| ("reported", report)).chain([("audit", json!(audit))]).collect()
}

fn renewals() -> Vec<(&'static str, Value)> {
    let outcome = |taken| CertificateOutcome { taken, why: "it was refused".into(), at: TIME.into() };
    let states = [
        (RenewalState::Idle, Some("2026-11"), None, Some(outcome(true))),
        (RenewalState::Requested, None, Some("-----BEGIN CERTIFICATE REQUEST-----\n"), Some(outcome(false))),
        (RenewalState::Trial, Some("2026-11"), Some("-----BEGIN CERTIFICATE REQUEST-----\n"), None),
    ];
    let told = states.map(|(state, request, csr, last)| CertificateState {
        schema: 1,
        gateway: Name::new("st-marys-gw1").expect("a name"),
        state,
        request: request.map(str::to_owned),
        csr: csr.map(str::to_owned),
        last,
        time: TIME.into(),
        clock_suspect: false,
    });
    told.into_iter().map(|told| ("certificate-request", json!(told))).collect()
}

fn answers() -> Vec<(&'static str, Value)> {
    let outcomes = [command::Outcome::Done, command::Outcome::Failed, command::Outcome::Refused, command::Outcome::InDoubt];
    let known = VerbName::ALL.into_iter().flat_map(|verb| outcomes.map(|outcome| (Some(7), Some(verb), outcome)));
    let all = known.chain([(None, None, command::Outcome::Refused)]).map(|(counter, verb, outcome)| Answer {
        schema: 1,
        gateway: Name::new("st-marys-gw1").expect("a name"),
        counter,
        verb,
        outcome,
        code: "done".into(),
        text: String::new(),
        data: verb.map(|_| json!({"feeds": 3})),
        challenge: Challenge::of([1; 16]).as_str().to_owned(),
        highest_counter: 0,
        time: TIME.into(),
        clock_suspect: false,
    });
    all.map(|answer| ("command-result", json!(answer))).collect()
}

/// TOML as a JSON Schema sees it: dates are text.
fn as_json(value: &toml::Value) -> Value {
    match value {
        toml::Value::Datetime(at) => json!(at.to_string()),
        toml::Value::Array(array) => array.iter().map(as_json).collect(),
        toml::Value::Table(table) => Value::Object(table.iter().map(|(key, value)| (key.clone(), as_json(value))).collect()),
        other => json!(other),
    }
}

/// What an editor says of a document with the shipped schema: nothing of a good one, and of one that the desk begins with.
#[test]
fn the_schema_of_documents_takes_every_good_one() {
    let validator = schema("document");
    let good = harness::repository().join("tests/fixtures/documents/good");
    let mut texts: Vec<String> = fs::read_dir(good)
        .expect("the fixtures")
        .flatten()
        .filter(|file| file.path().extension().is_some_and(|ending| ending == "toml"))
        .map(|file| fs::read_to_string(file.path()).expect("text"))
        .collect();
    let group = Name::new("east").expect("a name");
    texts.push(siteward::hub::config::skeleton(None, Some(&group), 7, "kim").expect("a document"));
    texts.push(siteward::hub::config::skeleton(None, None, 1, "kim").expect("a document"));
    for text in &texts {
        let tree: toml::Value = toml::from_str(text).expect("TOML");
        assert_eq!(faults(&validator, &as_json(&tree)), Vec::<String>::new(), "{text}");
        let payload = text.clone().into_bytes();
        siteward::hub::config::lint_text("skeleton.toml".as_ref(), payload, None).unwrap_or_else(|faults| panic!("{faults}"));
    }
    let wrong = json!({"document": {"schema_version": 1, "revision": 1, "author": "a", "reason": "r", "gateways": "g"}});
    assert!(!validator.is_valid(&wrong), "an unknown key is underlined");
    assert!(texts.len() >= 5);
}

/// What the schemas take of a command and its envelope the gateway takes, and the other way round.
#[test]
fn commands_are_taken_as_the_contract_says() {
    let desk = CommandDesk::new(
        Name::new("gw1").expect("a name"),
        Allowed::of(VerbName::ALL.map(VerbName::as_str)).expect("their names"),
        0,
        [1; 16],
    );
    let (command, envelope) = (schema("command"), schema("envelope"));
    let feed = json!({"feed": "or-usage"});
    let range = json!({"feed": "or-usage", "first": 1, "last": 1});
    let good = [
        ("pause_feed", feed.clone()),
        ("resume_feed", feed.clone()),
        ("accept_resend", json!({"feed": "or-usage", "for_s": 60})),
        ("release_quarantine", range.clone()),
        ("drop_quarantine", range.clone()),
        ("checkpoint", json!({})),
        ("diagnose", json!({})),
        ("log_level", json!({"level": "debug", "for_s": 86400})),
        ("maintenance_start", json!({"feed": "or-usage", "for_s": 259_200})),
        ("maintenance_end", json!({"id": 1})),
    ];
    assert_eq!(good.len(), VerbName::ALL.len());
    let written = |verb: &str, args: &Value| {
        let challenge = desk.challenge().as_str();
        json!({"gateway": "gw1", "counter": 1, "challenge": challenge, "verb": verb, "args": args, "author": "j.doe", "reason": "CHG-1"})
    };
    let both = |value: &Value, expected: bool| {
        let now = WallTime { unix_ms: 0, suspect: true };
        let decision = desk.receive(value.to_string().as_bytes(), |bytes, _| Ok::<_, String>(bytes.to_vec()), 0, now);
        assert_eq!(matches!(decision, Decision::Accept(_)), expected, "the gateway: {value}: {decision:?}");
        assert_eq!(command.is_valid(value), expected, "the schema: {value}");
    };
    for (verb, args) in &good {
        let value = written(verb, args);
        both(&value, true);
        for wrong in
            [json!({"other": 1}), json!({"feed": "No Name"}), json!({"feed": "a", "for_s": 0}), json!({"level": "trace", "for_s": 1})]
        {
            both(&written(verb, &wrong), false);
        }
        for member in ["gateway", "counter", "challenge", "verb", "author", "reason"] {
            let mut less = value.clone();
            less.as_object_mut().expect("an object").remove(member);
            both(&less, false);
        }
        let mut more = value.clone();
        more["also"] = json!(1);
        both(&more, false);
        both(&written("run", args), false);
    }
    for (kind, is_ours) in [(COMMAND_TYPE, true), ("application/vnd.siteward.config.v1+toml", true), ("text/plain", false)] {
        let value = json!({"payload": "e30=", "payloadType": kind, "signatures": [{"keyid": "k", "sig": "AAAA"}]});
        assert_eq!(envelope.is_valid(&value), is_ours, "{kind}");
    }
    assert!(!envelope.is_valid(&json!({"payload": "e30=", "payloadType": COMMAND_TYPE, "signatures": []})), "nobody signed it");
}

/// The document names every topic that the code knows, and every schema it refers to is there.
#[test]
fn the_document_names_what_is_there() {
    let document = fs::read_to_string(contract().join("asyncapi.yaml")).expect("agent/contract/asyncapi.yaml");
    for address in [
        "event/{feed}",
        "outcome/{feed}",
        "checkpoint",
        "status",
        "receipt",
        "config/desired",
        "config/reported",
        "certificate/request",
        "certificate/issued",
        "command",
        "command/result",
        "audit",
        "preflight",
    ] {
        assert!(document.contains(&format!("address: siteward/v1/{{site}}/{{gateway}}/{address}\n")), "no channel for {address}");
    }
    let mut named = BTreeSet::new();
    for reference in document.split("./schemas/").skip(1) {
        let name = reference.split(".json").next().unwrap_or_default();
        schema(name);
        named.insert(name);
    }
    assert_eq!(
        named.len(),
        fs::read_dir(contract().join("schemas")).expect("the schemas").count(),
        "a schema that the document does not name"
    );
}
