//! What changes between two documents, for people at the desk: who has to act on it (feeds that stop, begin, open their source anew), and each key with
//! its old and new value. Pure.
//!
//! Feeds, secrets and endpoints are told apart by what they are called, not by their place in the file. Documents hold no secrets and no content; long
//! values and sealed ones are not shown.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

use crate::config::Files;
use crate::config::diff::{Changes, diff};
use crate::config::document::{self, BootstrapText, Document};
use crate::config::settings::Settings;
use crate::limits::DIFFERENCES_SHOWN_MAX;
use crate::status::table::{printable, put};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// Their listener or directory is opened anew: connections end and come again.
    pub reopened: Vec<String>,
    /// Other settings; they take effect without anybody noticing.
    pub adjusted: Vec<String>,
    pub endpoints: bool,
    pub uplink: bool,
    pub bootstrap: bool,
    pub keys: Vec<KeyChange>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyChange {
    /// `feed lab: mllp.listen`
    pub key: String,
    /// `None`: was not there.
    pub old: Option<String>,
    /// `None`: is not there any more.
    pub new: Option<String>,
}

/// What changes for a gateway with this local file. The error is a sentence.
pub fn between(local: &BootstrapText, old: &Document, new: &Document) -> Result<Differences, String> {
    let settings = |document: &Document| -> Result<Settings, String> {
        document::effective(local, Some(document), Files::NotChecked, None).map_err(|refusal| refusal.to_string())
    };
    let (before, after) = (settings(old)?, settings(new)?);
    let Changes { added, removed, source_changed, other_changed, uplink_changed, endpoints_changed } = diff(&before, &after);
    let names = |ids: Vec<crate::record::FeedId>| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let reopened = names(source_changed);
    let adjusted = names(other_changed).into_iter().filter(|id| !reopened.contains(id)).collect();
    Ok(Differences {
        added: names(added),
        removed: names(removed),
        reopened,
        adjusted,
        endpoints: endpoints_changed,
        uplink: uplink_changed || before.renew != after.renew,
        bootstrap: before.moved != after.moved,
        keys: keys(&flat(&old.text)?, &flat(&new.text)?),
    })
}

fn keys(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<KeyChange> {
    let mut all: Vec<&String> = old.keys().chain(new.keys()).collect();
    all.sort();
    all.dedup();
    let changed = all.into_iter().filter(|key| old.get(*key) != new.get(*key));
    let (seen_old, seen_new) = (|key: &String| old.get(key).map(|v| shown(key, v)), |key: &String| new.get(key).map(|v| shown(key, v)));
    changed.map(|key| KeyChange { key: key.clone(), old: seen_old(key), new: seen_new(key) }).collect()
}

/// What is long or sealed is only said to be there.
fn shown(key: &str, value: &str) -> String {
    const MOST: usize = 120;
    if key.ends_with("sealed") || value.contains("-----BEGIN") || value.chars().count() > MOST {
        "(not shown)".to_owned()
    } else {
        value.to_owned()
    }
}

/// Every value of a document by its key path.
fn flat(text: &str) -> Result<BTreeMap<String, String>, String> {
    let table: Table = toml::from_str(text).map_err(|_| "the document is not TOML".to_owned())?;
    let mut out = BTreeMap::new();
    walk_table(&table, "", &mut out);
    Ok(out)
}

fn walk_table(table: &Table, path: &str, out: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let key = if path.is_empty() || path.ends_with(": ") { format!("{path}{key}") } else { format!("{path}.{key}") };
        walk(value, &key, out);
    }
}

fn walk(value: &Value, path: &str, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => walk_table(table, path, out),
        Value::Array(array) if !array.is_empty() && array.iter().all(Value::is_table) => {
            for (index, table) in array.iter().filter_map(Value::as_table).enumerate() {
                let name = ["id", "name", "url"].iter().find_map(|key| table.get(*key)?.as_str().map(str::to_owned));
                let name = name.unwrap_or_else(|| (index + 1).to_string());
                walk_table(table, &format!("{path} {name}: "), out);
            }
        }
        other => drop(out.insert(path.to_owned(), other.to_string())),
    }
}

impl Differences {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Lines of text, indented.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let lists = [
            ("begins", &self.added, ""),
            ("is retired", &self.removed, "; it stops and drains"),
            ("is opened anew", &self.reopened, "; its connections end and come again"),
            ("goes on", &self.adjusted, ", with other settings"),
        ];
        for (what, feeds, more) in lists {
            for feed in feeds {
                put(&mut out, format_args!("  feed {feed} {what}{more}\n"));
            }
        }
        if self.endpoints {
            put(&mut out, format_args!("  other endpoints; one that was added has to prove itself\n"));
        }
        if self.uplink {
            put(&mut out, format_args!("  the uplink changes\n"));
        }
        if self.bootstrap {
            put(&mut out, format_args!("  [bootstrap] changes: needs the signature of the recovery keys\n"));
        }
        for KeyChange { key, old, new } in self.keys.iter().take(DIFFERENCES_SHOWN_MAX) {
            match (old, new) {
                (Some(old), Some(new)) => put(&mut out, format_args!("    {key}: {old} -> {new}\n")),
                (None, Some(new)) => put(&mut out, format_args!("    {key}: + {new}\n")),
                (Some(old), None) => put(&mut out, format_args!("    {key}: - {old}\n")),
                (None, None) => {}
            }
        }
        if self.keys.len() > DIFFERENCES_SHOWN_MAX {
            put(&mut out, format_args!("    and {} keys more\n", self.keys.len() - DIFFERENCES_SHOWN_MAX));
        }
        if self.is_empty() {
            put(&mut out, format_args!("  nothing differs\n"));
        }
        printable(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::config::any_gateway;

    fn document(revision: u64, body: &str) -> Document {
        let head = format!("[document]\nschema_version = 1\nrevision = {revision}\ngateway = \"g\"\nauthor = \"kim\"\nreason = \"t\"\n");
        document::read_unsigned(format!("{head}{body}").into_bytes()).unwrap()
    }

    fn feed(id: &str, port: u16, more: &str) -> String {
        format!("[[feed]]\nid = \"{id}\"\nforward = \"raw\"\nphi = \"allowed\"\n{more}\n[feed.mllp]\nlisten = \"0.0.0.0:{port}\"\n")
    }

    #[test]
    fn a_difference_says_who_notices_it_and_which_key_it_is() {
        let old = document(1, &[feed("a", 2575, ""), feed("b", 2576, ""), feed("gone", 2577, "")].concat());
        let new = document(2, &[feed("new", 2579, ""), feed("b", 2578, ""), feed("a", 2575, "lane = \"bulk\"")].concat());
        let found = between(&any_gateway(), &old, &new).unwrap();
        let feeds = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!((found.added.clone(), found.removed.clone()), (feeds(&["new"]), feeds(&["gone"])));
        assert_eq!((found.reopened.clone(), found.adjusted.clone()), (feeds(&["b"]), feeds(&["a"])));
        let text = found.render();
        for part in [
            "feed b is opened anew",
            "feed gone is retired",
            "feed b: mllp.listen: \"0.0.0.0:2576\" -> \"0.0.0.0:2578\"",
            "feed a: lane: + \"bulk\"",
            "document.revision: 1 -> 2",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(between(&any_gateway(), &old, &old).unwrap().is_empty());
    }
}
