//! The effective configuration for people: what holds, defaults included, in the words of the file. Pure: settings in, text out.
//!
//! What is shown is a configuration again, and one that means the same: every key of a setting is there in the words that the reader takes, and what is
//! no key is a comment. So nothing can be set that is not seen (`show/tests.rs` holds it to that). What a document adds to `[uplink]` stands in
//! sections of its own, as it does there.
//!
//! Settings hold names and paths of keys, never keys; there is nothing here that must not be seen.

mod feeds;

use std::fmt::{Display, Write as _};

use super::settings::{EndpointOrigin, KeySource, Settings, StatusSettings, TlsKeySource, TrustSettings, UplinkSettings};
use crate::record::Digest;
use crate::secrets::Reference;
use sha2::{Digest as _, Sha256};

/// Lines `key = value` under their sections.
#[derive(Default)]
struct Sheet(String);

impl Sheet {
    fn section(&mut self, name: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        writeln!(self.0, "{gap}{name}").expect("a String takes everything");
    }

    fn raw(&mut self, key: &str, value: impl Display) {
        writeln!(self.0, "{key} = {value}").expect("a String takes everything");
    }

    fn text(&mut self, key: &str, value: impl Display) {
        self.raw(key, format_args!("{:?}", value.to_string()));
    }

    fn texts<T: Display>(&mut self, key: &str, values: &[T]) {
        let values: Vec<String> = values.iter().map(|value| format!("{:?}", value.to_string())).collect();
        self.raw(key, format_args!("[{}]", values.join(", ")));
    }

    /// A list that means everything where it is not there.
    fn some_texts<T: Display>(&mut self, key: &str, values: &[T]) {
        if !values.is_empty() {
            self.texts(key, values);
        }
    }

    fn seconds(&mut self, key: &str, value: std::time::Duration) {
        self.text(key, format_args!("{}s", value.as_secs_f64()));
    }

    /// A secret by its name, and where it is.
    fn secret(&mut self, key: &str, secret: &Reference) {
        self.raw(key, format_args!("{:?} # {secret}", secret.name()));
    }

    /// The private key of a certificate.
    fn tls_key(&mut self, key: &TlsKeySource) {
        match key {
            TlsKeySource::Credential(secret) => self.secret("credential", secret),
            TlsKeySource::File(path) => self.text("key", path.display()),
        }
    }

    /// What holds and is no value of the key.
    fn comment(&mut self, key: &str, text: impl Display) {
        self.raw(&format!("# {key}"), text);
    }

    /// A closed choice, as its name in lower case.
    fn choice(&mut self, key: &str, value: impl std::fmt::Debug) {
        let mut name = String::new();
        for c in format!("{value:?}").chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.extend(c.to_lowercase());
        }
        self.text(key, name);
    }
}

/// The whole text.
pub fn render(settings: &Settings) -> String {
    let mut sheet = Sheet::default();
    sheet.section("[gateway]");
    sheet.text("site", &settings.gateway.site);
    sheet.text("id", &settings.gateway.id);
    sheet.some_texts("groups", &settings.gateway.groups);
    sheet.text("timezone", &settings.gateway.timezone);
    sheet.text("control_socket", settings.gateway.control_socket.display());
    sheet.text("access_directory", settings.gateway.access_directory.display());
    sheet.text("clock_synchronised_file", settings.gateway.clock_synchronised_file.display());
    sheet.section("[spool]");
    sheet.text("path", settings.spool.path.display());
    match settings.spool.max_bytes {
        Some(bytes) => sheet.raw("max_bytes", bytes),
        None => sheet.comment("max_bytes", "70 % of the volume"),
    }
    sheet.text(
        "key",
        match &settings.spool.key {
            KeySource::Auto => "auto".to_owned(),
            KeySource::Credential(name) => format!("credential:{name}"),
            KeySource::File(path) => path.display().to_string(),
        },
    );
    sheet.raw("message_bytes_max", settings.spool.message_bytes_max);
    uplink(&mut sheet, &settings.uplink);
    if let Some(renew) = &settings.renew {
        sheet.section("[uplink.renew]");
        sheet.text("request", &renew.request);
        sheet.seconds("trial", renew.trial);
    }
    sheet.section("[alerts]");
    for (key, value) in settings.alerts.rows() {
        sheet.text(key, value);
    }
    status(&mut sheet, &settings.status);
    trust(&mut sheet, &settings.trust);
    if let Some(moved) = &settings.moved {
        sheet.section(&format!("# [bootstrap]: {} come from a document of the recovery keys, not from the local file", moved.what()));
    }
    settings.feeds.iter().for_each(|feed| feeds::feed(&mut sheet, feed));
    sheet.0
}

fn uplink(sheet: &mut Sheet, uplink: &UplinkSettings) {
    sheet.section("[uplink]");
    sheet.texts("endpoints", &uplink.endpoints);
    if uplink.endpoints.iter().any(|endpoint| !endpoint.tls) {
        sheet.raw("allow_plaintext", true);
    }
    for (key, path) in [("ca", &uplink.ca), ("cert", &uplink.cert)] {
        if let Some(path) = path {
            sheet.text(key, path.display());
        }
    }
    if let Some(key) = &uplink.key {
        sheet.tls_key(key);
    }
    if let Some(proxy) = &uplink.proxy {
        sheet.text("proxy", proxy);
        if let Some(credential) = &proxy.credential {
            sheet.secret("proxy_credential", credential);
        }
    }
    sheet.raw("in_flight", uplink.in_flight);
    sheet.choice("confirm", uplink.confirm);
    sheet.seconds("receipt_timeout", uplink.receipt_timeout);
    sheet.choice("on_no_subscriber", uplink.on_no_subscriber);
    for endpoint in uplink.endpoints.iter().filter(|endpoint| endpoint.origin == EndpointOrigin::Added) {
        sheet.section("[[uplink.endpoint]]");
        sheet.text("url", endpoint);
        if let Some(ca) = &endpoint.ca {
            sheet.comment("ca_pem", format_args!("its own, {}", Digest(Sha256::digest(ca.as_bytes()).into())));
        }
    }
}

fn status(sheet: &mut Sheet, status: &StatusSettings) {
    sheet.section("[status]");
    sheet.text("listen", &status.listen);
    sheet.some_texts("peers", &status.peers);
    sheet.some_texts("names", &status.names);
}

/// Whom the gateway believes. Where a document of the recovery keys replaced the keys, they are counted, not shown.
fn trust(sheet: &mut Sheet, trust: &TrustSettings) {
    let files = |files: &[std::path::PathBuf]| files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
    sheet.section("[trust]");
    match trust.inline_keys.len() {
        0 if trust.keys.is_empty() => sheet.comment("keys", "none, no document is taken"),
        0 => sheet.texts("keys", &files(&trust.keys)),
        n => sheet.comment("keys", format_args!("{n}, of a document of the recovery keys")),
    }
    sheet.raw("threshold", trust.threshold);
    if !trust.recovery_keys.is_empty() {
        sheet.texts("recovery_keys", &files(&trust.recovery_keys));
        sheet.raw("recovery_threshold", trust.recovery_threshold);
    }
    sheet.texts("commands", &trust.commands.names().collect::<Vec<_>>());
    if !trust.command_keys.is_empty() {
        sheet.texts("command_keys", &files(&trust.command_keys));
        sheet.raw("command_threshold", trust.command_threshold);
    }
}

#[cfg(test)]
mod tests;
