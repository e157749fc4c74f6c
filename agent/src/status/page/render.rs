//! The page: snapshot, history and time in, HTML out. Pure.
//!
//! Each section has an id; the script replaces those that changed and leaves the others, so that nobody loses what they read or selected.

use super::html::Html;
use super::parts;
use super::times::Now;
use crate::status::condition::Severity;
use crate::status::history::HistoryView;
use crate::status::snapshot::Snapshot;
use crate::status::table::duration;

/// How it is, in one word and one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Well,
    Warnings(usize),
    Errors(usize, usize),
}

impl Verdict {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let errors = snapshot.conditions.iter().filter(|shown| shown.severity == Severity::Error).count();
        match (errors, snapshot.conditions.len() - errors) {
            (0, 0) => Self::Well,
            (0, warnings) => Self::Warnings(warnings),
            (errors, warnings) => Self::Errors(errors, warnings),
        }
    }

    /// Class and sign.
    fn sign(self) -> (&'static str, &'static str) {
        match self {
            Self::Well => ("well", "✓"),
            Self::Warnings(_) => ("warning", "!"),
            Self::Errors(..) => ("error", "✕"),
        }
    }

    pub(super) fn text(self) -> String {
        let of = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match self {
            Self::Well => "All is well".to_owned(),
            Self::Warnings(n) => of(n, "warning"),
            Self::Errors(n, 0) => of(n, "error"),
            Self::Errors(n, warnings) => format!("{}, {}", of(n, "error"), of(warnings, "warning")),
        }
    }
}

/// The head of every page, up to `<body>`.
pub(super) fn head(html: &mut Html, title: &str, refreshes: bool) {
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>").text(title).raw("</title>");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">");
    html.raw("<meta name=\"robots\" content=\"noindex\"><link rel=\"icon\" href=\"/icon.svg\" type=\"image/svg+xml\">");
    html.raw("<link rel=\"stylesheet\" href=\"/style.css\">");
    if refreshes {
        html.raw("<noscript><meta http-equiv=\"refresh\" content=\"15\"></noscript><script src=\"/page.js\" defer></script>");
    }
    html.raw("</head>\n");
}

/// The whole page.
pub(super) fn page(s: &Snapshot, history: &HistoryView, now: &Now<'_>) -> String {
    let verdict = Verdict::of(s);
    let (class, sign) = verdict.sign();
    let mut html = Html::default();
    head(&mut html, &format!("{sign} {}: {}", s.gateway, verdict.text()), true);
    html.raw("<body data-zone=\"")
        .text(now.zone_name)
        .raw("\"><a class=\"skip\" href=\"#feeds\">To the feeds</a>\n<header><div><h1>")
        .text(&s.gateway);
    html.raw("</h1><p class=\"where\">at <b>").text(&s.site).raw("</b></p></div><p id=\"verdict\" role=\"status\" class=\"verdict ");
    html.raw(class)
        .raw("\"><span class=\"sign\" aria-hidden=\"true\">")
        .raw(sign)
        .raw("</span> ")
        .text(verdict.text())
        .raw("</p></header>\n");
    html.raw("<div id=\"stale\" role=\"alert\"></div>\n<main>\n");
    html.piece(parts::facts(s, now));
    html.piece(parts::conditions(s, now));
    html.piece(parts::uplink(s, history, now));
    html.piece(parts::feeds(s, now));
    html.piece(parts::lanes(s));
    html.piece(parts::configuration(s, now));
    html.piece(parts::events(history, now));
    html.raw("</main>\n<footer><p id=\"made\">siteward ").text(&s.version).raw(", up ").text(duration(s.uptime_s)).raw(". As of <b>");
    html.text(now.in_full()).raw("</b> (").text(now.zone_name).raw(")");
    if now.wall.suspect {
        html.raw(", by a clock that cannot be believed");
    }
    html.raw(".</p><p>Read-only; shows no content of messages. <a href=\"/runbook\">Runbook</a> · <a href=\"/status.json\">JSON</a> · ");
    html.raw(
        "<a href=\"/metrics\">Metrics</a></p><noscript><p>Without JavaScript this page loads itself again every 15 seconds.</p></noscript>",
    );
    html.raw("</footer></body></html>\n");
    html.into_string()
}
