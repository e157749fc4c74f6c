//! The feeds of the effective configuration: `[[feed]]` with its source and what is expected of it.

use super::super::expect;
use super::super::settings::{
    About, ClientSubject, ExpectSettings, FeedSettings, HttpSettings, ListenerTls, MllpSettings, SourceSettings, StrictSettings,
};
use super::Sheet;
use crate::source::files::{Completion, DirectorySettings, DoneRule, Order};
use crate::source::http::media::MediaType;
use crate::source::split::SplitSettings;

pub(super) fn feed(sheet: &mut Sheet, feed: &FeedSettings) {
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
    // Nothing else goes by it.
    if let Some(zone) = feed.expect.as_ref().and_then(|expected| expected.expect.calendar.zone.iana_name()) {
        sheet.text("timezone", zone);
    }
    about(sheet, &feed.about);
    match &feed.source {
        SourceSettings::Mllp(settings) => mllp(sheet, settings),
        SourceSettings::Directory(settings) => directory(sheet, settings),
        SourceSettings::Http(settings) => http(sheet, settings),
    }
    if let Some(expected) = &feed.expect {
        expect(sheet, expected);
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

fn expect(sheet: &mut Sheet, settings: &ExpectSettings) {
    let calendar = &settings.expect.calendar;
    sheet.section("[feed.expect]");
    if let Some(every) = settings.expect.every {
        sheet.seconds("every", every);
    }
    sheet.some_texts("by", &calendar.by.iter().map(|minute| expect::time_of_day(*minute)).collect::<Vec<_>>());
    if let Some(from) = calendar.from {
        sheet.text("from", expect::time_of_day(from));
    }
    sheet.texts("days", &expect::DAYS.into_iter().zip(calendar.days).filter_map(|(day, counts)| counts.then_some(day)).collect::<Vec<_>>());
    sheet.some_texts("holidays", &calendar.holidays.iter().collect::<Vec<_>>());
    if let Some(file) = &settings.holidays_file {
        sheet.text("holidays_file", file.display());
    }
    if let Some((from, to)) = calendar.between {
        sheet.text("between", format_args!("{}-{}", expect::time_of_day(from), expect::time_of_day(to)));
    }
    sheet.seconds("grace", settings.expect.grace);
}

fn directory(sheet: &mut Sheet, settings: &DirectorySettings) {
    sheet.section("[feed.directory]");
    sheet.text("path", settings.path.display());
    sheet.texts("patterns", &settings.patterns);
    sheet.raw("subfolders", settings.subfolders);
    match settings.order {
        Order::Modified => sheet.text("order", "mtime"),
        other => sheet.choice("order", other),
    }
    match &settings.complete {
        Completion::Marker(suffix) => {
            sheet.text("complete", "marker");
            sheet.text("marker", suffix);
        }
        other => sheet.choice("complete", other),
    }
    sheet.seconds("settle", settings.settle);
    sheet.seconds("scan", settings.scan);
    sheet.text("split", settings.split.name());
    match settings.done {
        DoneRule::Leave => sheet.text("done", "leave"),
        DoneRule::Move(retention) => {
            sheet.text("done", "move");
            sheet.raw("retention_days", retention.days);
            sheet.raw("retention_bytes", retention.bytes);
        }
    }
    match &settings.require_mount {
        None => sheet.raw("require_mount", false),
        Some(below) => sheet.raw("require_mount", format_args!("true # at or below {}", below.display())),
    }
    sheet.raw("name_in_events", settings.name_in_events);
    split(sheet, &settings.split);
}

fn split(sheet: &mut Sheet, split: &SplitSettings) {
    let character = |byte: u8| if byte == b'\t' { "tab".to_owned() } else { char::from(byte).to_string() };
    match split {
        SplitSettings::Csv(csv) => {
            sheet.section("[feed.directory.csv]");
            sheet.text("delimiter", character(csv.delimiter));
            sheet.text("quote", csv.quote.map_or_else(|| "none".to_owned(), character));
            sheet.raw("header", csv.header);
            sheet.text("encoding", csv.encoding.name());
        }
        SplitSettings::Fixed(fixed) => {
            sheet.section("[feed.directory.fixed]");
            sheet.raw("widths", format_args!("{:?}", fixed.fields.iter().map(|field| field.len).collect::<Vec<_>>()));
            if let Some(len) = fixed.record_len {
                sheet.raw("record_len", len);
            }
            sheet.raw("trimmed_ends", fixed.trimmed_ends);
            sheet.text("encoding", fixed.encoding.name());
        }
        SplitSettings::X12 { level } => {
            sheet.section("[feed.directory.x12]");
            sheet.choice("level", level);
        }
        _ => {}
    }
}

fn http(sheet: &mut Sheet, settings: &HttpSettings) {
    sheet.section("[feed.http]");
    sheet.text("listen", settings.listen);
    sheet.choice("split", settings.split);
    sheet.some_texts("accept", &settings.accept.iter().map(MediaType::essence).collect::<Vec<_>>());
    if let Some(tokens) = &settings.tokens_file {
        sheet.text("tokens_file", tokens.display());
    }
    if let Some(tokens) = &settings.tokens_credential {
        sheet.secret("tokens_credential", tokens);
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
    sheet.tls_key(&tls.key);
    if let Some(ca) = &tls.client_ca {
        sheet.text("client_ca", ca.display());
    }
    let subject = |subject: &ClientSubject| match subject {
        ClientSubject::CommonName(name) => format!("CN={name}"),
        ClientSubject::DnsName(name) => name.clone(),
    };
    sheet.some_texts("client_subjects", &tls.client_subjects.iter().map(subject).collect::<Vec<_>>());
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
        None => sheet.comment("idle_timeout", "never"),
    }
    sheet.texts("peers", &settings.peers);
    sheet.raw("unframed", settings.unframed);
    let strict = &settings.answers.strict;
    if *strict != StrictSettings::default() {
        sheet.section("[feed.mllp.strict]");
        sheet.some_texts("types", &strict.types);
        sheet.some_texts("versions", &strict.versions);
        sheet.some_texts("processing_ids", &strict.processing_ids);
    }
    if let Some(settings) = &settings.tls {
        sheet.section("[feed.mllp.tls]");
        tls(sheet, settings);
    }
}
