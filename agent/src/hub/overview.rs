//! What gateways report of their configuration, as a table and for programs. Pure. Everything in it comes from outside: nothing of it steers a terminal.

use serde_json::{Value, json};

use super::reports::{Known, Reports};
use super::waves::heard::shown;
use crate::limits::REASON_SHOWN_CHARS;
use crate::record::Name;
use crate::status::table::{printable, put, rows};

/// Which gateways are shown.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub site: Option<Name>,
    pub gateways: Vec<String>,
    pub group: Option<Name>,
}

impl Filter {
    fn takes(&self, (site, gateway): &(Name, Name), known: &Known) -> bool {
        let named =
            |name: &String| name.split_once('/').map_or(name == gateway.as_str(), |(s, g)| s == site.as_str() && g == gateway.as_str());
        let has = |group: &Name| known.reported.as_ref().is_some_and(|reported| reported.groups.contains(group));
        self.site.as_ref().is_none_or(|wanted| wanted == site)
            && (self.gateways.is_empty() || self.gateways.iter().any(named))
            && self.group.as_ref().is_none_or(has)
    }
}

/// What is said of the anchors, compared with the ids of keys that were given: `None` where none were.
fn trust(known: &Known, expected: &[String]) -> Option<String> {
    if expected.is_empty() {
        return None;
    }
    let Some(trust) = known.reported.as_ref().and_then(|reported| reported.trust.as_ref()) else { return Some("not reported".to_owned()) };
    let short = |id: &String| shown(id, 8);
    let missing: Vec<String> = expected.iter().filter(|id| !trust.keys.contains(id)).map(short).collect();
    let other: Vec<String> = trust.keys.iter().filter(|id| !expected.contains(id)).map(short).collect();
    Some(match (missing.as_slice(), other.as_slice()) {
        ([], []) => format!("as wanted, {} of {}", trust.threshold, trust.keys.len()),
        (missing, []) => format!("lacks {}", missing.join(" ")),
        ([], other) => format!("also {}", other.join(" ")),
        (missing, other) => format!("lacks {}, also {}", missing.join(" "), other.join(" ")),
    })
}

fn tried(known: &Known) -> (String, String) {
    let Some(tried) = known.reported.as_ref().and_then(|reported| reported.tried.as_ref()) else { return ("-".to_owned(), String::new()) };
    let revision = tried.revision.map_or_else(|| "a document".to_owned(), |revision| revision.to_string());
    let why = [&tried.code, &tried.reason].into_iter().flatten().map(|text| shown(text, REASON_SHOWN_CHARS)).collect::<Vec<_>>().join(": ");
    (format!("{revision} {}", shown(&tried.state, 20)), why)
}

/// A line for each gateway, and a word about what is not known.
pub fn render(reports: &Reports, filter: &Filter, expected: &[String]) -> String {
    let mut heads = ["GATEWAY", "THERE", "VERSION", "RUNS", "SINCE", "TRIED"].map(str::to_owned).to_vec();
    if !expected.is_empty() {
        heads.push("TRUST".to_owned());
    }
    heads.push("WHY".to_owned());
    let mut table = vec![heads];
    let mut silent = 0;
    for (key, known) in reports.iter().filter(|(key, known)| filter.takes(key, known)) {
        let there = known.presence.as_ref().map_or("unknown", |presence| if presence.online { "online" } else { "offline" });
        let mut row = vec![format!("{}/{}", key.0, key.1), there.to_owned()];
        if let Some(reported) = &known.reported {
            let runs = if reported.running.revision == 0 { "local file".to_owned() } else { reported.running.revision.to_string() };
            let (tried, why) = tried(known);
            row.extend([shown(&reported.version, 20), runs, shown(&reported.running.since, 19), tried]);
            row.extend(trust(known, expected));
            row.push(why);
        } else {
            silent += 1;
            row.extend(["-", "not known", "-", "-"].map(str::to_owned));
            row.extend(trust(known, expected));
            let why = if known.unreadable { "what it reports cannot be read" } else { "the broker keeps no report of it" };
            row.push(why.to_owned());
        }
        table.push(row);
    }
    let mut out = String::new();
    for line in rows(&table) {
        put(&mut out, format_args!("{}\n", line.trim_end()));
    }
    let shown = table.len() - 1;
    put(
        &mut out,
        format_args!(
            "{shown} gateways, as the broker keeps it; one that never reported here, or was forgotten by the broker, is not in it\n"
        ),
    );
    if silent > 0 {
        put(&mut out, format_args!("{silent} of them without a report\n"));
    }
    printable(&out)
}

/// The same for programs.
pub fn json(reports: &Reports, filter: &Filter, expected: &[String]) -> Value {
    let each = reports.iter().filter(|(key, known)| filter.takes(key, known)).map(|(key, known)| {
        let reported = known.reported.as_ref();
        let tried = reported.and_then(|reported| reported.tried.as_ref());
        json!({
            "site": key.0, "gateway": key.1,
            "online": known.presence.as_ref().map(|presence| presence.online),
            "version": reported.map(|reported| &reported.version),
            "groups": reported.map(|reported| &reported.groups),
            "running": reported.map(|reported| json!({
                "revision": reported.running.revision, "digest": reported.running.digest, "since": reported.running.since,
            })),
            "tried": tried.map(|tried| json!({
                "revision": tried.revision, "digest": tried.digest, "state": tried.state, "code": tried.code, "reason": tried.reason,
                "at": tried.at,
            })),
            "trust": reported.and_then(|reported| reported.trust.as_ref()).map(|trust| json!({
                "keys": trust.keys, "threshold": trust.threshold, "recovery_keys": trust.recovery_keys,
            })),
            "trust_as_wanted": (!expected.is_empty()).then(|| trust(known, expected).is_some_and(|text| text.starts_with("as wanted"))),
            "time": reported.map(|reported| &reported.time),
        })
    });
    Value::Array(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::reports::{read, take};

    fn reports() -> Reports {
        let mut reports = Reports::new();
        let mut hear = |topic: &str, payload: &Value| {
            let (key, word) = read(&format!("siteward/v1/{topic}"), payload.to_string().as_bytes()).expect("it is read");
            take(&mut reports, key, word);
        };
        let (old, new) = ("0".repeat(64), "1".repeat(64));
        hear("s/a/status", &json!({"state": "online", "version": "0.1.0"}));
        hear(
            "s/a/config/reported",
            &json!({"schema": 1, "gateway": "a", "version": "0.1.0", "running": {"revision": 41, "digest": null, "since": "2026-11-01T00:00:00.000Z"},
                "tried": {"revision": 42, "digest": null, "state": "refused", "code": "not_applied", "reason": "port \u{1b}[2J2575", "at": ""},
                "groups": ["east"], "trust": {"keys": [old, new], "threshold": 1, "recovery_keys": [], "recovery_threshold": 1}}),
        );
        hear("s/b/status", &json!({"state": "offline", "version": "0.1.0"}));
        hear("s/c/config/reported", &json!({"gateway": "d", "running": {"revision": 1}}));
        reports
    }

    #[test]
    fn the_table_says_what_runs_what_was_tried_and_what_is_not_known() {
        let text = render(&reports(), &Filter::default(), &["1".repeat(64)]);
        let line = |gateway: &str| text.lines().find(|line| line.starts_with(gateway)).expect("a line").to_owned();
        assert!(
            line("s/a").contains("42 refused") && line("s/a").contains("also 00000000") && line("s/a").contains("not_applied: port"),
            "{text}"
        );
        assert!(line("s/b").contains("offline") && line("s/b").contains("the broker keeps no report of it"), "{text}");
        assert!(line("s/c").contains("what it reports cannot be read"), "a report under another gateway's topic is nobody's: {text}");
        assert!(!text.contains('\u{1b}') && text.contains("3 gateways") && text.contains("2 of them without a report"));
        let east = Filter { group: Some(Name::new("east").unwrap()), ..Filter::default() };
        let found = json(&reports(), &east, &["0".repeat(64), "1".repeat(64)]);
        assert_eq!((found.as_array().map(Vec::len), &found[0]["trust_as_wanted"]), (Some(1), &json!(true)));
        let named = Filter { gateways: vec!["s/b".into(), "x".into()], ..Filter::default() };
        assert!(render(&reports(), &named, &[]).contains("1 gateways"));
    }
}
