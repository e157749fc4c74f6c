//! The repository keeps its own rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files with this ending under a directory of the repository, with their text.
fn sources(directory: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![harness::repository().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let text = fs::read_to_string(&path).expect("a source file is text");
                found.push((path, text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{ending} files under {directory}");
    found
}

fn rust() -> Vec<(PathBuf, String)> {
    let mut all = sources("agent/src", "rs");
    all.extend(sources("tests", "rs"));
    all
}

fn shown(path: &Path) -> String {
    path.strip_prefix(harness::repository()).unwrap_or(path).display().to_string()
}

/// The doc comment of a function is above its attributes; this says which invariants the doc comments of tests name.
fn invariants_named_by_tests(text: &str) -> Vec<u32> {
    let mut named = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            comment.push(doc);
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            named.extend(comment.iter().flat_map(|doc| invariants_in(doc)));
        } else if !line.starts_with("#[") {
            comment.clear();
        }
    }
    named
}

/// `I1`, `I2`, … as words.
fn invariants_in(text: &str) -> Vec<u32> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter_map(|w| w.strip_prefix('I')?.parse().ok()).collect()
}

#[test]
fn every_invariant_is_held_by_a_test_that_names_it() {
    let named: Vec<u32> = rust().iter().flat_map(|(_, text)| invariants_named_by_tests(text)).collect();
    let missing: Vec<u32> = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].into_iter().filter(|i| !named.contains(i)).collect();
    assert!(missing.is_empty(), "no test's doc comment names the invariants {missing:?}");
}

#[test]
fn every_source_file_says_what_it_is_first() {
    let silent: Vec<String> =
        rust().iter().filter(|(_, t)| !t.starts_with("//!") && !t.starts_with("#![doc")).map(|(p, _)| shown(p)).collect();
    assert!(silent.is_empty(), "these do not begin with `//!`: {silent:?}");
}

#[test]
fn no_source_file_is_too_long_to_read() {
    let long: Vec<String> =
        rust().iter().filter(|(_, t)| t.lines().count() > 500).map(|(p, t)| format!("{} ({})", shown(p), t.lines().count())).collect();
    assert!(long.is_empty(), "more than 500 lines: {long:?}");
}

#[test]
fn nothing_is_left_for_later_and_no_test_is_switched_off() {
    let words = [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["#[ig", "nore"].concat(), ["db", "g!("].concat()];
    let mut found = Vec::new();
    for (path, text) in rust() {
        found.extend(words.iter().filter(|w| text.contains(w.as_str())).map(|w| format!("{}: {w}", shown(&path))));
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_readme_is_short_and_names_both_commands() {
    let readme = fs::read_to_string(harness::repository().join("README.md")).expect("README.md");
    assert!(readme.lines().count() <= 140, "README.md has {} lines", readme.lines().count());
    for command in ["cargo run --release --bin siteward -- demo", "./tests/run"] {
        assert!(readme.contains(command), "README.md does not name `{command}`");
    }
}

#[test]
fn the_top_level_holds_exactly_what_it_may() {
    let may = ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "agent", "cross", "systemd", "target", "tests"];
    let must = ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "agent", "systemd", "tests"];
    let entries = fs::read_dir(harness::repository()).expect("the repository").flatten();
    let names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| !n.starts_with('.')).collect();
    let strangers: Vec<&String> = names.iter().filter(|n| !may.contains(&n.as_str())).collect();
    assert!(strangers.is_empty(), "not in the layout: {strangers:?}");
    let missing: Vec<&&str> = must.iter().filter(|m| !names.iter().any(|n| n == **m)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

#[test]
fn only_the_uplink_and_the_hub_know_the_mqtt_library() {
    let agent = sources("agent/src", "rs");
    let word = ["rumq", "ttc::"].concat();
    let outside = agent.iter().filter(|(p, t)| t.contains(&word) && !shown(p).contains("/uplink/") && !shown(p).contains("/hub/"));
    let outside: Vec<String> = outside.map(|(p, _)| shown(p)).collect();
    assert!(outside.is_empty(), "the library is named outside the uplink: {outside:?}");
}

#[test]
fn every_condition_has_its_page_in_the_runbook() {
    let runbook = fs::read_to_string(harness::repository().join("systemd/RUNBOOK.md")).expect("systemd/RUNBOOK.md");
    let codes = siteward::status::condition::Code::ALL.iter().map(|c| c.as_str());
    let missing: Vec<&str> = codes.filter(|code| !runbook.lines().any(|l| l.starts_with('#') && l.contains(code))).collect();
    assert!(missing.is_empty(), "no page for {missing:?}");
}

/// The table of who may do what is the one the agent goes by, and it has every command.
#[test]
fn the_runbook_says_who_may_do_what_as_the_agent_does() {
    let runbook = fs::read_to_string(harness::repository().join("systemd/RUNBOOK.md")).expect("systemd/RUNBOOK.md");
    let table = siteward::status::access::table();
    assert!(runbook.contains(&table), "put this table into \"Who may do what\":\n{table}");
    let command = siteward::cli::command();
    let mut leaves = Vec::new();
    for verb in command.get_subcommands() {
        let inner: Vec<_> = verb.get_subcommands().map(|sub| format!("{} {}", verb.get_name(), sub.get_name())).collect();
        // `feeds` alone lists.
        if inner.is_empty() || verb.get_name() == "feeds" {
            leaves.push(verb.get_name().to_owned());
        }
        leaves.extend(inner);
    }
    let missing: Vec<_> = leaves.iter().filter(|leaf| !table.contains(&format!("`siteward {leaf}`"))).collect();
    assert!(missing.is_empty(), "nobody knows who may do {missing:?}");
    println!("{} commands, each with its group", leaves.len());
}

/// Lines of blocks of code, and what stands in backticks elsewhere, each in one line.
fn code(text: &str) -> Vec<String> {
    let (mut code, mut prose, mut in_block) = (Vec::new(), String::new(), false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            code.push(line.trim().to_owned());
        } else {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    code.extend(prose.split('`').skip(1).step_by(2).map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")));
    code
}

/// Calls of our own programs in these lines: the program and its words.
fn calls(code: &[String]) -> Vec<Vec<&str>> {
    let commands = code.iter().flat_map(|line| line.split(['|', ';', '&']));
    let words = commands.map(|command| command.split_whitespace().skip_while(|word| *word == "sudo").collect::<Vec<_>>());
    words.filter(|words| words.len() > 1 && matches!(words[0], "siteward" | "siteward-hub")).collect()
}

/// What is wrong with a call, by what the programs say of themselves. `helps`: what was asked already.
fn fault(call: &[&str], helps: &mut BTreeMap<Vec<String>, String>) -> Option<String> {
    let mut path = vec![call[0].to_owned()];
    let mut known = String::new();
    for word in &call[1..] {
        let help = helps.entry(path.clone()).or_insert_with(|| {
            let output = Command::new(harness::program(&path[0])).args(&path[1..]).arg("--help").output().expect("the program runs");
            String::from_utf8(output.stdout).expect("help is text")
        });
        known.push_str(help);
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
        let verbs: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).collect();
        if verbs.is_empty() || !word.chars().all(|c| c.is_ascii_lowercase() || c == '-') || word.starts_with('-') {
            break;
        }
        if !verbs.contains(word) {
            return Some(format!("`{}` has no `{word}`", path.join(" ")));
        }
        path.push((*word).to_owned());
    }
    let options: Vec<&str> = known.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
    let named = call.iter().filter_map(|word| word.trim_start_matches(['(', '[']).split(['=', ')', ']']).next());
    let strange = named.filter(|word| word.starts_with("--") && word.len() > 2).find(|word| !options.contains(word))?;
    Some(format!("`{}` has no `{strange}`", path.join(" ")))
}

#[test]
fn every_command_in_the_runbook_and_the_compliance_page_exists() {
    let (mut helps, mut faults, mut count) = (BTreeMap::new(), Vec::new(), 0);
    for file in ["systemd/RUNBOOK.md", "systemd/COMPLIANCE.md"] {
        let text = fs::read_to_string(harness::repository().join(file)).expect("a page");
        let code = code(&text);
        let calls = calls(&code);
        count += calls.len();
        let found = calls.iter().filter_map(|call| Some(format!("{file}: {}: {}", call.join(" "), fault(call, &mut helps)?)));
        faults.extend(found);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 50, "only {count} calls were found: are they looked for in the right way?");
    println!("{count} calls of {} commands", helps.len());
}

/// Words of a text that are names of metrics: counters without `_total`, histograms without what their samples end with.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    let stem = |word: &str| {
        let ends = ["_total", "_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
    };
    words.filter(|word| word.starts_with("siteward_") && !word.ends_with('_')).map(stem).collect()
}

#[test]
fn dashboard_and_alert_rules_name_metrics_that_there_are() {
    let agent = siteward::metrics::names::ALL.iter().map(|(name, ..)| (*name).to_owned());
    let desk = siteward::hub::fleet::metrics::ALL.iter().map(|(name, ..)| (*name).to_owned());
    let known: BTreeSet<String> = agent.chain(desk).collect();
    for file in
        ["systemd/grafana/siteward.json", "systemd/alerts/siteward.rules.yml", "systemd/alerts/siteward.test.yml", "systemd/RUNBOOK.md"]
    {
        let text = fs::read_to_string(harness::repository().join(file)).expect("a file of metrics");
        let named = metrics_in(&text);
        let strangers: Vec<&String> = named.difference(&known).collect();
        assert!(strangers.is_empty(), "{file} names metrics that nobody writes: {strangers:?}");
        assert!(!named.is_empty(), "{file} names none: are they looked for in the right way?");
    }
    let dashboard = fs::read_to_string(harness::repository().join("systemd/grafana/siteward.json")).expect("the dashboard");
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("the dashboard is JSON");
}

/// What the rules call a section of the runbook is one.
#[test]
fn alert_rules_lead_to_sections_of_the_runbook() {
    let read = |file: &str| fs::read_to_string(harness::repository().join(file)).expect("a page");
    let (rules, runbook) = (read("systemd/alerts/siteward.rules.yml"), read("systemd/RUNBOOK.md"));
    let anchor = |title: &str| -> String {
        let letters = title.to_lowercase().replace(' ', "-");
        letters.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    let anchors: BTreeSet<String> =
        runbook.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches(['#', ' ']))).collect();
    let wanted = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: \"RUNBOOK.md#")?.strip_suffix('"'));
    let missing: Vec<&str> = wanted.filter(|name| !name.contains("{{") && !anchors.contains(*name)).collect();
    assert!(missing.is_empty(), "no such sections: {missing:?}");
}

#[test]
fn promtool_takes_the_alert_rules_and_their_tests_hold() {
    let directory = harness::repository().join("systemd/alerts");
    for arguments in [["check", "rules", "siteward.rules.yml"], ["test", "rules", "siteward.test.yml"]] {
        let Ok(output) = Command::new("promtool").args(arguments).current_dir(&directory).output() else {
            println!("skipped: promtool is not installed (apt-get install prometheus), the alert rules are not checked by it");
            return;
        };
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "promtool {}: {said}", arguments.join(" "));
    }
}
