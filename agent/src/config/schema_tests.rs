//! The shipped JSON Schema of documents is what the strict reader reads: the same keys in every section, the same words, no value that the reader
//! takes for something else. The reader itself is asked: an unknown key makes it list the known ones, a wrong word the right ones.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::document::{BootstrapText, effective, read_unsigned};
use super::refusal::Refusal;
use super::{Fault, Files};

/// Every section there is, each as empty as it may be; it is no good document and need not be.
const ALL: &str = r#"
[document]
schema_version = 1
revision = 1
gateway = "g"
author = "a"
reason = "r"
[rollout]
[uplink]
renew = {}
[[uplink.endpoint]]
[bootstrap]
[[secret]]
[[feed]]
[feed.mllp]
strict = {}
tls = {}
[feed.directory]
csv = {}
fixed = {}
x12 = {}
[feed.http]
tls = {}
[feed.expect]
"#;

const UNKNOWN: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";

fn schema() -> Json {
    serde_json::from_str(include_str!("../../contract/schemas/document.json")).expect("the schema is JSON")
}

/// What the reader has against a document.
fn faults(tree: &Table) -> Vec<Fault> {
    let text = "[gateway]\nsite = \"s\"\nid = \"g\"\ntimezone = \"UTC\"\n[uplink]\nendpoints = [\"mqtt://h:1\"]\nallow_plaintext = true\n";
    let local = BootstrapText { file: "siteward.toml".into(), text: text.to_owned(), moved: None };
    let payload = toml::to_string(tree).unwrap().into_bytes();
    let refusal = read_unsigned(payload).and_then(|document| effective(&local, Some(&document), Files::NotChecked, None).map(drop));
    match refusal {
        Err(Refusal::Invalid(faults) | Refusal::BootstrapKey(faults)) => faults.list,
        Err(Refusal::SchemaVersion { .. }) => vec![Fault { line: None, path: "document.schema_version".into(), text: String::new() }],
        Err(other) => panic!("not looked at: {other}"),
        Ok(()) => Vec::new(),
    }
}

/// The table at a path like `feed[0].mllp`.
fn at<'t>(tree: &'t mut Table, path: &str) -> &'t mut Table {
    path.split('.').filter(|part| !part.is_empty()).fold(tree, |table, part| match part.strip_suffix("[0]") {
        Some(key) => table[key].as_array_mut().unwrap()[0].as_table_mut().unwrap(),
        None => table[part].as_table_mut().unwrap(),
    })
}

/// Calls `each` with every section of the schema and its path.
fn sections(node: &Json, path: &str, each: &mut impl FnMut(&str, &serde_json::Map<String, Json>)) {
    let properties = node["properties"].as_object().expect("a section has properties");
    assert_eq!(node["additionalProperties"], Json::Bool(false), "{path}: unknown keys are refused");
    each(path, properties);
    for (key, inner) in properties {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if inner["properties"].is_object() {
            sections(inner, &path, each);
        } else if inner["items"]["properties"].is_object() {
            sections(&inner["items"], &format!("{path}[0]"), each);
        }
    }
}

fn full(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[test]
fn every_section_of_the_schema_has_the_keys_that_the_reader_knows_and_no_other() {
    let mut count = 0;
    sections(&schema(), "", &mut |path, properties| {
        let mut tree: Table = toml::from_str(ALL).unwrap();
        at(&mut tree, path).insert(UNKNOWN.to_owned(), Value::Boolean(true));
        let all = faults(&tree);
        let fault = all.iter().find(|fault| fault.path == full(path, UNKNOWN)).unwrap_or_else(|| panic!("{path} is not read: {all:?}"));
        // In [uplink] everything else is the bootstrap's, and refused as such.
        let listed = if path == "uplink" { Some("endpoint, renew") } else { fault.text.strip_prefix("unknown key; known here: ") };
        let known: BTreeSet<&str> = listed.expect("a list").split(", ").collect();
        let shipped: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(shipped, known, "section {path:?}: schema (left), reader (right)");
        count += known.len();
    });
    assert!(count > 90, "{count} keys");
}

#[test]
fn words_and_types_of_the_schema_are_those_of_the_reader() {
    sections(&schema(), "", &mut |path, properties| {
        for (key, node) in properties.iter().filter(|(_, node)| node["properties"].is_null() && node["items"]["properties"].is_null()) {
            let refused = |value: Value| {
                let mut tree: Table = toml::from_str(ALL).unwrap();
                at(&mut tree, path).insert(key.clone(), value);
                faults(&tree).into_iter().find(|fault| fault.path == full(path, key)).map(|fault| fault.text)
            };
            let what = full(path, key);
            if let Some(words) = node["enum"].as_array() {
                let told = refused(Value::String(UNKNOWN.to_owned())).unwrap_or_else(|| panic!("{what} takes any word"));
                let list: Vec<String> = words.iter().map(|word| format!("\"{}\"", word.as_str().unwrap())).collect();
                assert_eq!(told, format!("must be {}", list.join(" or ")), "{what}");
                continue;
            }
            let wrong = match node["type"].as_str() {
                Some("boolean") => Value::String("x".to_owned()),
                _ => Value::Boolean(true),
            };
            assert!(refused(wrong).is_some(), "{what} is read as something else than the schema says");
            if node["type"] == "array" {
                let told = refused(Value::String("x".to_owned())).unwrap_or_else(|| panic!("{what} is no list"));
                assert!(told.contains("list"), "{what}: {told}");
            }
            if node["type"] == "integer" {
                let told = refused(Value::String("x".to_owned())).unwrap_or_else(|| panic!("{what} is no number"));
                assert!(told.contains("whole number"), "{what}: {told}");
            }
        }
    });
}
