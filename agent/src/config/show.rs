//! The effective configuration for people: what holds, defaults included, in the words of the file. Pure: settings in, text out.
//!
//! Settings hold names and paths of keys, never keys; there is nothing here that must not be seen.

use std::fmt::Write as _;

use super::settings::{
    About, FeedSettings, HttpSettings, KeySource, ListenerTls, MllpSettings, Settings, SourceSettings, StatusSettings, TlsKeySource,
    TrustSettings,
};

/// Lines `key = value` under their sections.
#[derive(Default)]
struct Sheet(String);

impl Sheet {
    fn section(&mut self, name: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        writeln!(self.0, "{gap}{name}").expect("a String takes everything");
    }

    fn raw(&mut self, key: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "{key} = {value}").expect("a String takes everything");
    }

    fn text(&mut self, key: &str, value: impl std::fmt::Display) {
        self.raw(key, format_args!("{:?}", value.to_string()));
    }

    fn texts<T: std::fmt::Display>(&mut self, key: &str, values: &[T]) {
        let values: Vec<String> = values.iter().map(|value| format!("{:?}", value.to_string())).collect();
        self.raw(key, format_args!("[{}]", values.join(", ")));
    }

    fn seconds(&mut self, key: &str, value: std::time::Duration) {
        self.text(key, format_args!("{}s", value.as_secs_f64()));
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

fn key_source(key: &TlsKeySource) -> String {
    match key {
        TlsKeySource::Credential(secret) => secret.to_string(),
        TlsKeySource::File(path) => path.display().to_string(),
    }
}

/// The whole text.
pub fn render(settings: &Settings) -> String {
    let mut sheet = Sheet::default();
    sheet.section("[gateway]");
    sheet.text("site", &settings.gateway.site);
    sheet.text("id", &settings.gateway.id);
    if !settings.gateway.groups.is_empty() {
        sheet.texts("groups", &settings.gateway.groups);
    }
    sheet.text("timezone", &settings.gateway.timezone);
    sheet.text("control_socket", settings.gateway.control_socket.display());
    sheet.text("access_directory", settings.gateway.access_directory.display());
    sheet.text("clock_synchronised_file", settings.gateway.clock_synchronised_file.display());
    sheet.section("[spool]");
    sheet.text("path", settings.spool.path.display());
    match settings.spool.max_bytes {
        Some(bytes) => sheet.raw("max_bytes", bytes),
        None => sheet.text("max_bytes", "70 % of the volume"),
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
    let uplink = &settings.uplink;
    sheet.section("[uplink]");
    sheet.texts("endpoints", &uplink.endpoints);
    for (key, path) in [("ca", &uplink.ca), ("cert", &uplink.cert)] {
        if let Some(path) = path {
            sheet.text(key, path.display());
        }
    }
    if let Some(key) = &uplink.key {
        sheet.text("key", key_source(key));
    }
    if let Some(proxy) = &uplink.proxy {
        sheet.text("proxy", proxy);
        if let Some(credential) = &proxy.credential {
            sheet.text("proxy_credential", credential);
        }
    }
    sheet.raw("in_flight", uplink.in_flight);
    sheet.choice("confirm", uplink.confirm);
    sheet.seconds("receipt_timeout", uplink.receipt_timeout);
    sheet.choice("on_no_subscriber", uplink.on_no_subscriber);
    sheet.section("[alerts]");
    for (key, value) in settings.alerts.rows() {
        sheet.text(key, value);
    }
    if let Some(renew) = &settings.renew {
        sheet.section("[uplink.renew]");
        sheet.text("request", &renew.request);
        sheet.seconds("trial", renew.trial);
    }
    status(&mut sheet, &settings.status);
    trust(&mut sheet, &settings.trust);
    if let Some(moved) = &settings.moved {
        sheet.section(&format!("# [bootstrap]: {} come from a document of the recovery keys, not from the local file", moved.what()));
    }
    settings.feeds.iter().for_each(|settings| feed(&mut sheet, settings));
    sheet.0
}

fn status(sheet: &mut Sheet, status: &StatusSettings) {
    sheet.section("[status]");
    sheet.text("listen", &status.listen);
    if !status.peers.is_empty() {
        sheet.texts("peers", &status.peers);
    }
    if !status.names.is_empty() {
        sheet.texts("names", &status.names);
    }
}

/// Whom the gateway believes. Where a document of the recovery keys replaced the keys, they are counted, not shown.
fn trust(sheet: &mut Sheet, trust: &TrustSettings) {
    let files = |files: &[std::path::PathBuf]| files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
    sheet.section("[trust]");
    match trust.inline_keys.len() {
        0 => sheet.texts("keys", &files(&trust.keys)),
        n => sheet.raw("# keys", format_args!("{n}, of a document of the recovery keys")),
    }
    sheet.raw("threshold", trust.threshold);
    sheet.texts("recovery_keys", &files(&trust.recovery_keys));
    sheet.raw("recovery_threshold", trust.recovery_threshold);
    sheet.texts("commands", &trust.commands.names().collect::<Vec<_>>());
    if !trust.command_keys.is_empty() {
        sheet.texts("command_keys", &files(&trust.command_keys));
        sheet.raw("command_threshold", trust.command_threshold);
    }
}

fn about(sheet: &mut Sheet, about: &About) {
    let words = [
        ("owner", about.owner.clone()),
        ("criticality", about.criticality.map(|word| word.as_str().to_owned())),
        ("data_class", about.data_class.map(|word| word.as_str().to_owned())),
        ("contract_version", about.contract_version.clone()),
        ("sunset", about.sunset.map(|day| day.to_string())),
    ];
    for (key, value) in words {
        if let Some(value) = value {
            sheet.text(key, value);
        }
    }
    if let Some(objective) = about.delivery_objective {
        sheet.seconds("delivery_objective", objective);
    }
}

fn feed(sheet: &mut Sheet, feed: &FeedSettings) {
    sheet.section("[[feed]]");
    sheet.text("id", &feed.id);
    sheet.text("lane", feed.lane.as_str());
    sheet.choice("stage", feed.stage);
    // The only ones that validation lets through.
    sheet.text("forward", "raw");
    sheet.text("phi", "allowed");
    if let Some(charset) = feed.charset.charset {
        sheet.text("charset", charset.name());
        sheet.raw("charset_force", feed.charset.force);
    }
    about(sheet, &feed.about);
    match &feed.source {
        SourceSettings::Mllp(settings) => mllp(sheet, settings),
        SourceSettings::Directory(directory) => {
            sheet.section("[feed.directory]");
            sheet.text("path", directory.path.display());
            sheet.raw("subfolders", directory.subfolders);
            sheet.choice("order", directory.order);
            sheet.seconds("settle", directory.settle);
            sheet.seconds("scan", directory.scan);
            if let Some(mount) = &directory.require_mount {
                sheet.text("require_mount", mount.display());
            }
            sheet.raw("name_in_events", directory.name_in_events);
        }
        SourceSettings::Http(settings) => http(sheet, settings),
    }
    if let Some(expected) = &feed.expect {
        sheet.section("[feed.expect]");
        if let Some(every) = expected.expect.every {
            sheet.seconds("every", every);
        }
        sheet.seconds("grace", expected.expect.grace);
        if let Some(file) = &expected.holidays_file {
            sheet.text("holidays_file", file.display());
        }
    }
}

fn http(sheet: &mut Sheet, settings: &HttpSettings) {
    sheet.section("[feed.http]");
    sheet.text("listen", settings.listen);
    sheet.choice("split", settings.split);
    if let Some(tokens) = &settings.tokens_file {
        sheet.text("tokens_file", tokens.display());
    }
    if let Some(tokens) = &settings.tokens_credential {
        sheet.text("tokens_credential", tokens);
    }
    sheet.texts("peers", &settings.peers);
    sheet.raw("connections_max", settings.connections_max);
    sheet.raw("body_bytes_max", settings.body_bytes_max);
    sheet.seconds("body_timeout", settings.body_timeout);
    if let Some(settings) = &settings.tls {
        sheet.section("[feed.http.tls]");
        tls(sheet, settings);
    }
}

fn tls(sheet: &mut Sheet, tls: &ListenerTls) {
    sheet.text("cert", tls.cert.display());
    sheet.text("key", key_source(&tls.key));
    if let Some(ca) = &tls.client_ca {
        sheet.text("client_ca", ca.display());
    }
    sheet.raw("client_subjects", tls.client_subjects.len());
}

fn mllp(sheet: &mut Sheet, settings: &MllpSettings) {
    sheet.section("[feed.mllp]");
    sheet.text("listen", settings.listen);
    sheet.choice("on_store_failure", settings.on_store_failure);
    sheet.choice("on_invalid", settings.on_invalid);
    sheet.choice("app_ack", settings.answers.app_ack);
    sheet.choice("batch_ack", settings.answers.batch_ack);
    sheet.raw("allow_missing_control_id", settings.answers.allow_missing_control_id);
    sheet.raw("connections_max", settings.connections_max);
    sheet.seconds("frame_timeout", settings.frame_timeout);
    match settings.idle_timeout {
        Some(time) => sheet.seconds("idle_timeout", time),
        None => sheet.text("idle_timeout", "never"),
    }
    sheet.texts("peers", &settings.peers);
    sheet.raw("unframed", settings.unframed);
    if let Some(settings) = &settings.tls {
        sheet.section("[feed.mllp.tls]");
        tls(sheet, settings);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_effective_configuration_is_shown_with_its_defaults() {
        let text = r#"
            [gateway]
            site = "st-marys"
            id = "gw1"
            timezone = "America/New_York"
            [uplink]
            endpoints = ["mqtts://hub.example.org:8883"]
            ca = "/etc/siteward/ca.pem"
            cert = "/etc/siteward/gw.pem"
            credential = "uplink-key"
            [[feed]]
            id = "or-usage"
            lane = "critical"
            forward = "raw"
            phi = "allowed"
            [feed.mllp]
            listen = "0.0.0.0:2575"
            peers = ["10.1.0.0/16"]
        "#;
        let settings = crate::config::parse_text("/etc/siteward/siteward.toml".as_ref(), text).unwrap_or_else(|faults| panic!("{faults}"));
        let shown = super::render(&settings);
        for line in [
            "endpoints = [\"mqtts://hub.example.org:8883\"]",
            "key = \"credential:uplink-key\"",
            "in_flight = 100",
            "confirm = \"receipt\"",
            "lane = \"critical\"",
            "stage = \"test\"",
            "on_store_failure = \"close\"",
            "peers = [\"10.1.0.0/16\"]",
            "idle_timeout = \"never\"",
            "forward = \"raw\"",
            "phi = \"allowed\"",
            "[trust]",
            "threshold = 1",
            "[status]",
            "listen = \"unix:/var/lib/siteward/status.sock\"",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
        }
    }
}
