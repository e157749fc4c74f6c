//! A rollout in words: a line for each thing that happens, where it stands, and the report at its end; and the same for programs. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::entry::{Entry, Verdict};
use super::{Phase, State, Waves};
use crate::clock;
use crate::status::table::{duration, printable, put, rows};

fn time(at_ms: i64) -> String {
    clock::rfc3339(at_ms).get(..19).unwrap_or_default().replace('T', " ")
}

/// What an entry says; `None`: nothing that somebody would want to read.
pub fn entry(waves: &Waves, entry: &Entry) -> Option<String> {
    let plan = waves.plan();
    let name = |target: &usize| plan.targets.get(*target).map(super::plan::Target::name).unwrap_or_default();
    let count = plan.waves.len();
    let (at_ms, text) = match entry {
        Entry::Plan { who, at_ms, .. } => {
            (at_ms, format!("{who} begins rollout {}: {} gateways in {count} waves", plan.id, plan.targets.len()))
        }
        Entry::Wave { wave, at_ms } => (at_ms, format!("wave {} of {count} begins: {} gateways", wave + 1, plan.wave(*wave).len())),
        Entry::Push { target, times, at_ms, .. } => {
            let again = if *times > 1 { format!(", the same bytes for the {times}. time") } else { String::new() };
            (at_ms, format!("{}: revision {} is published{again}", name(target), plan.targets.get(*target)?.revision))
        }
        Entry::Became { target, verdict, at_ms } => {
            let text = match verdict {
                Verdict::Open => "begins again".to_owned(),
                Verdict::Confirmed => "confirmed".to_owned(),
                Verdict::Failed { code, reason } => format!("FAILED ({code}): {reason}"),
                Verdict::Unknown => "UNKNOWN: it is there, and says nothing of the document however often that was published".to_owned(),
            };
            (at_ms, format!("{}: {text}", name(target)))
        }
        Entry::Done { wave, at_ms } => {
            let rest = u64::try_from(plan.soak_ms(*wave) / 1000).unwrap_or(0);
            let rest = if rest == 0 { "no rest".to_owned() } else { format!("rest of {}", duration(rest)) };
            (at_ms, format!("wave {} of {count} is done; {rest}", wave + 1))
        }
        Entry::Suspect { target, text, at_ms, .. } => (at_ms, format!("{}: document_suspect: {text}", name(target))),
        Entry::Withdraw { target, at_ms } => (at_ms, format!("{}: the document is taken away from the broker", name(target))),
        Entry::Overwritten { target, at_ms } => (at_ms, format!("{}: somebody else published something for it", name(target))),
        Entry::Stopped { why, at_ms } => (at_ms, format!("STOPPED: {why}")),
        Entry::Resumed { who, why, accepts, at_ms } => {
            let with = if *accepts { format!(" with the failures there are: {why}") } else { String::new() };
            (at_ms, format!("{who} goes on{with}"))
        }
        Entry::Finished { at_ms } => (at_ms, "the last wave is done".to_owned()),
        Entry::Sent { .. } | Entry::Seen { .. } => return None,
    };
    Some(printable(&format!("{}  {text}", time(*at_ms))).replace('\n', " "))
}

/// The entry for programs: with the gateway's name.
pub fn entry_json(waves: &Waves, entry: &Entry) -> Value {
    let mut value = serde_json::to_value(entry).expect("plain values");
    let target = value["target"].as_u64().and_then(|target| waves.plan().targets.get(usize::try_from(target).ok()?));
    if let Some(target) = target {
        (value["site"], value["gateway"], value["revision"]) = (json!(target.site), json!(target.gateway), json!(target.revision));
    }
    value["id"] = json!(waves.plan().id);
    value
}

fn counts(waves: &Waves, targets: std::ops::Range<usize>) -> String {
    let states: Vec<State> = targets.map(|target| waves.state(target)).collect();
    let each = State::ALL.iter().filter_map(|state| {
        let count = states.iter().filter(|found| *found == state).count();
        (count > 0).then(|| format!("{count} {}", state.as_str()))
    });
    each.collect::<Vec<_>>().join(", ")
}

/// One line: where it stands.
pub fn standing(waves: &Waves, now_ms: i64) -> String {
    let plan = waves.plan();
    let wave = waves.wave();
    let what = match waves.phase() {
        Phase::New => "begins".to_owned(),
        Phase::Pushing(_) => counts(waves, plan.wave(wave)),
        Phase::Soaking { since_ms, .. } => {
            let left = since_ms.saturating_add(plan.soak_ms(wave)).saturating_sub(now_ms).max(0) / 1000;
            format!("done, rests for {} more; {}", duration(u64::try_from(left).unwrap_or(0)), counts(waves, 0..plan.waves[wave]))
        }
        Phase::Stopped { .. } => format!("stopped; {}", counts(waves, 0..plan.targets.len())),
        Phase::Finished => format!("all waves are done; {}", counts(waves, 0..plan.targets.len())),
    };
    format!("wave {}/{}: {what}", wave + 1, plan.waves.len())
}

/// Everything, a line for each gateway.
pub fn report(waves: &Waves, now_ms: i64) -> String {
    let plan = waves.plan();
    let mut out = String::new();
    put(&mut out, format_args!("rollout {}: {}\n", plan.id, standing(waves, now_ms)));
    if let Phase::Stopped { why, .. } = waves.phase() {
        put(&mut out, format_args!("stopped: {why}\n"));
    }
    let mut table = vec![["WAVE", "GATEWAY", "REVISION", "STATE", "SINCE", "WHAT"].map(str::to_owned).to_vec()];
    for wave in 0..plan.waves.len() {
        for target in plan.wave(wave) {
            let goal = &plan.targets[target];
            let (verdict, since) = waves.verdict(target);
            let what = match (verdict, waves.state(target)) {
                (Verdict::Failed { code, reason }, _) => format!("{code}: {reason}"),
                (Verdict::Unknown, _) => "it is there, and says nothing of the document".to_owned(),
                (_, State::Pending) => "not there since before it was published; the broker keeps it".to_owned(),
                (_, State::Gone) => "was there when it was published, and is not now".to_owned(),
                _ => String::new(),
            };
            let since = if since > 0 { time(since) } else { waves.seen_ms(target).map_or_else(|| "-".to_owned(), time) };
            let (wave, revision, state) = ((wave + 1).to_string(), goal.revision.to_string(), waves.state(target).as_str().to_owned());
            table.push(vec![wave, goal.name(), revision, state, since, what]);
        }
    }
    for line in rows(&table) {
        writeln!(out, "{}", line.trim_end()).expect("a String takes everything");
    }
    let pending = (0..plan.targets.len()).filter(|target| waves.state(*target) == State::Pending).count();
    if pending > 0 {
        put(
            &mut out,
            format_args!(
                "{pending} pending: each takes the document when it comes back, as long as the broker keeps it; `rollout status` with --broker says when\n"
            ),
        );
    }
    printable(&out)
}

/// The same for programs.
pub fn report_json(waves: &Waves) -> Value {
    let plan = waves.plan();
    let (phase, why) = match waves.phase() {
        Phase::New => ("new", None),
        Phase::Pushing(_) => ("pushing", None),
        Phase::Soaking { .. } => ("soaking", None),
        Phase::Stopped { why, .. } => ("stopped", Some(why)),
        Phase::Finished => ("finished", None),
    };
    let wave_of = |target: usize| plan.waves.partition_point(|end| *end <= target) + 1;
    let gateways: Vec<Value> = (0..plan.targets.len())
        .map(|target| {
            let goal = &plan.targets[target];
            let (verdict, since) = waves.verdict(target);
            let (code, reason) = match verdict {
                Verdict::Failed { code, reason } => (Some(code), Some(reason)),
                _ => (None, None),
            };
            json!({
                "site": goal.site, "gateway": goal.gateway, "wave": wave_of(target), "revision": goal.revision, "digest": goal.digest,
                "state": waves.state(target).as_str(), "code": code, "reason": reason,
                "since": (since > 0).then(|| clock::rfc3339(since)), "seen": waves.seen_ms(target).map(clock::rfc3339),
            })
        })
        .collect();
    json!({
        "kind": "report", "id": plan.id, "phase": phase, "why": why, "wave": waves.wave() + 1, "waves": plan.waves, "gateways": gateways,
    })
}
