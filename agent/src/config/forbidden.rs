//! What a document must not hold, looked for before its keys are read one by one: keys of the bootstrap, and secrets written out. Pure.
//!
//! - **Bootstrap keys** (`[gateway]`, `[spool]`, `[trust]`, `[status]`, `[alerts]`, and of `[uplink]` everything but `[[uplink.endpoint]]` and `[uplink.renew]`) say who a gateway is, where its
//!   promises lie and whom it trusts. They are set on the box and never from afar.
//! - **Secrets**: a document is signed, not sealed; brokers, histories and desks keep copies of it. It names secrets (`credential = "name"`,
//!   `secret = "name"`, `key = "/path/on/the/gateway"`), it never holds them. A private key block is refused wherever it stands, in comments too.

use toml::de::{DeTable, DeValue};

use super::fault::{FaultList, Place};
use super::reader::Section;

const BOOTSTRAP: [&str; 5] = ["gateway", "spool", "trust", "status", "alerts"];
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// Every key of the bootstrap.
pub(super) fn bootstrap_keys(table: &DeTable<'_>, f: &mut FaultList) {
    let root = Section::root(table).place;
    let text =
        "belongs to the gateway's bootstrap and is never changed by a document; remove it, or change it on the box in its local file";
    for (name, value) in table {
        let key: &str = name.get_ref();
        let place = root.key(key, name.span().start);
        if BOOTSTRAP.contains(&key) {
            f.add(&place, text);
        } else if let (true, DeValue::Table(inner)) = (key == "uplink", value.get_ref()) {
            for (name, _) in inner.iter().filter(|(name, _)| !["endpoint", "renew"].contains(&name.get_ref().as_ref())) {
                f.add(&place.key(&shown(name.get_ref()), name.span().start), text);
            }
        }
    }
}

/// Every secret.
pub(super) fn secrets(table: &DeTable<'_>, text: &str, f: &mut FaultList) {
    walk_table(table, &Section::root(table).place, f);
    if f.is_empty()
        && let Some(offset) = text.find(PRIVATE_KEY)
    {
        f.add(&Place { offset, path: String::new() }, ADVICE_PEM); // in a comment, or in a key's name
    }
}

const ADVICE_PEM: &str = "holds a private key; take it out, consider it known to others and make a new one. A document only names secrets that lie on the gateway";
const ADVICE: &str = "holds a secret in the open; take it out, consider it known to others, set it on the gateway and name it here: credential = \"its-name\"";

fn walk_table(table: &DeTable<'_>, at: &Place, f: &mut FaultList) {
    for (name, value) in table {
        let key: &str = name.get_ref();
        let place = at.key(&shown(key), name.span().start);
        if is_secret(key, value.get_ref()) {
            f.add(&place, ADVICE);
        } else {
            walk(value.get_ref(), &place, f);
        }
    }
}

/// The parser bounds how deep this goes.
fn walk(value: &DeValue<'_>, place: &Place, f: &mut FaultList) {
    match value {
        DeValue::Table(table) => walk_table(table, place, f),
        DeValue::Array(array) => {
            for (index, element) in array.iter().enumerate() {
                let inner = Place { offset: element.span().start, path: format!("{}[{index}]", place.path) };
                walk(element.get_ref(), &inner, f);
            }
        }
        DeValue::String(text) if text.contains(PRIVATE_KEY) => f.add(place, ADVICE_PEM),
        _ => {}
    }
}

/// By the last word of the key: `password`, `auth_token`, `apiKey`-like names are not ours to know, the schema refuses them anyway.
fn is_secret(key: &str, value: &DeValue<'_>) -> bool {
    let is_section = |value: &DeValue<'_>| matches!(value, DeValue::Table(_));
    if matches!(value, DeValue::Table(_) | DeValue::Boolean(_))
        || value.as_array().is_some_and(|array| !array.is_empty() && array.iter().all(|element| is_section(element.get_ref())))
    {
        return false;
    }
    let key = key.to_ascii_lowercase().replace('-', "_");
    let text = value.as_str();
    match key.rsplit('_').next().unwrap_or_default() {
        "password" | "passwd" | "passphrase" | "token" => true,
        "secret" => !text.is_some_and(|text| super::validate::credential_name(text) && text.len() <= 64),
        "key" => !text.is_some_and(|text| text.starts_with('/') && !text.contains(char::is_control)),
        _ => false,
    }
}

/// Keys come from outside; what is shown of one is short and has no control characters.
fn shown(key: &str) -> String {
    key.chars().take(64).flat_map(char::escape_debug).collect()
}
