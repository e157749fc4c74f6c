//! The sections of the page, each a function of what it shows. Pure.
//!
//! Tables keep their roles when they are laid out as cards on a phone, so they are written out; each cell carries its column's name for that.

use std::time::Duration;

use super::html::Html;
use super::timeline;
use super::times::Now;
use crate::status::condition::Severity;
use crate::status::history::{EventView, HistoryView, Kind};
use crate::status::rate::Rate;
use crate::status::snapshot::{Feed, Shown, Snapshot};
use crate::status::table::{bytes, duration};

/// Outages listed one by one; all of them are drawn.
const OUTAGES_LISTED: usize = 8;
/// Events shown at once; the rest are folded away.
const EVENTS_SHOWN: usize = 12;

/// A cell: the number or text, and whether it wants to be seen.
struct Cell {
    html: Html,
    class: &'static str,
}

fn plain(text: impl std::fmt::Display) -> Cell {
    let mut html = Html::default();
    html.text(text);
    Cell { html, class: "" }
}

fn number(n: u64) -> Cell {
    Cell { class: if n == 0 { "n zero" } else { "n" }, ..plain(thousands(n)) }
}

/// A number that should be 0.
fn unwanted(n: u64) -> Cell {
    Cell { class: if n == 0 { "n zero" } else { "n mark" }, ..plain(thousands(n)) }
}

fn age(seconds: Option<u64>) -> Cell {
    Cell { class: "n", ..plain(seconds.map_or_else(|| "–".to_owned(), duration)) }
}

/// With thin spaces between thousands.
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn open(html: &mut Html, id: &'static str, title: &'static str) {
    html.raw("<section id=\"").raw(id).raw("\" aria-labelledby=\"").raw(id).raw("-title\"><h2 id=\"").raw(id).raw("-title\">").raw(title);
    html.raw("</h2>");
}

fn table(html: &mut Html, caption: &str, heads: &[&'static str], rows: Vec<Vec<Cell>>) {
    html.raw("<table role=\"table\"><caption>").text(caption).raw("</caption><thead role=\"rowgroup\"><tr role=\"row\">");
    for head in heads {
        html.raw("<th role=\"columnheader\" scope=\"col\">").raw(head).raw("</th>");
    }
    html.raw("</tr></thead><tbody role=\"rowgroup\">");
    for row in rows {
        html.raw("<tr role=\"row\">");
        for (index, (cell, head)) in row.into_iter().zip(heads).enumerate() {
            html.raw(if index == 0 { "<th role=\"rowheader\" scope=\"row\"" } else { "<td role=\"cell\"" });
            html.raw(" class=\"").raw(cell.class).raw("\" data-head=\"").raw(head).raw("\"><span>").piece(cell.html).raw("</span>");
            html.raw(if index == 0 { "</th>" } else { "</td>" });
        }
        html.raw("</tr>");
    }
    html.raw("</tbody></table>");
}

/// What is asked first.
pub(super) fn facts(s: &Snapshot, now: &Now<'_>) -> Html {
    let mut html = Html::default();
    html.raw("<section id=\"facts\" aria-label=\"At a glance\"><dl class=\"facts\">");
    uplink_fact(&mut html, s, now);
    let queued: u64 = s.feeds.iter().map(|feed| feed.queued).sum();
    html.raw("<div><dt>Waiting for the hub</dt><dd><b>").text(thousands(queued)).raw("</b> <small>");
    match s.lanes.iter().filter_map(|lane| lane.oldest_age_s).max() {
        Some(oldest) if queued > 0 => html.raw("the oldest for ").text(duration(oldest)),
        _ if queued > 0 => html.raw("messages"),
        _ => html.raw("everything is confirmed"),
    };
    html.raw("</small></dd></div><div><dt>Coming in</dt><dd><b>");
    let rates = s.feeds.iter().filter_map(|feed| feed.rate);
    let sum = rates.reduce(|a, b| Rate { messages: a.messages + b.messages, seconds: a.seconds.max(b.seconds) });
    html.text(per_minute(sum)).raw("</b> <small>a minute");
    if let Some(last) = s.feeds.iter().filter_map(|feed| feed.last_message_at.as_ref()).max() {
        html.raw("; the last at ").piece(now.since(last));
    }
    html.raw("</small></dd></div>");
    spool_fact(&mut html, s);
    html.raw("</dl></section>\n");
    html
}

fn uplink_fact(html: &mut Html, s: &Snapshot, now: &Now<'_>) {
    let (class, sign) = if s.uplink.state == "connected" { ("well", "✓") } else { ("error", "✕") };
    html.raw("<div class=\"").raw(class).raw("\"><dt>Uplink</dt><dd><b><span class=\"sign\" aria-hidden=\"true\">").raw(sign);
    html.raw("</span> ").text(&s.uplink.state).raw("</b> <small>since ").piece(now.since(&s.uplink.since)).raw("</small></dd></div>");
}

fn spool_fact(html: &mut Html, s: &Snapshot) {
    let percent = s.spool.bytes.saturating_mul(100).checked_div(s.spool.max_bytes).unwrap_or(0).min(100);
    let class = match s.spool.time_to_full_s {
        Some(0) => "error",
        Some(1..=86_400) => "warning",
        _ if percent >= 90 => "warning",
        _ => "",
    };
    html.raw("<div class=\"").raw(class).raw("\"><dt>Spool</dt><dd><b>").text(percent).raw(" %</b> <small>").text(bytes(s.spool.bytes));
    html.raw(" of ").text(bytes(s.spool.max_bytes)).raw("; ").text(to_full(s)).raw("</small>");
    html.raw(
        "<svg class=\"fill\" viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"room\" width=\"100\" ",
    );
    html.raw("height=\"4\"/><rect class=\"used\" width=\"").text(percent).raw("\" height=\"4\"/></svg></dd></div>");
}

fn to_full(s: &Snapshot) -> String {
    match s.spool.time_to_full_s {
        None => "not filling".to_owned(),
        Some(0) => "FULL: senders are refused".to_owned(),
        Some(seconds) => format!("full in {}", duration(seconds)),
    }
}

fn per_minute(rate: Option<Rate>) -> String {
    match rate.and_then(Rate::per_minute_tenths) {
        None => "–".to_owned(),
        Some(tenths @ 0..1000) => format!("{}.{}", tenths / 10, tenths % 10),
        Some(tenths) => thousands(tenths / 10),
    }
}

/// Conditions with the way to their page; those somebody must act on come first.
pub(super) fn conditions(s: &Snapshot, now: &Now<'_>) -> Html {
    let mut html = Html::default();
    open(&mut html, "conditions", "Conditions");
    if s.conditions.is_empty() {
        html.raw("<p class=\"quiet\">None: all is well.</p>");
    } else {
        html.raw("<ul class=\"conditions\">");
        s.conditions.iter().for_each(|shown| condition(&mut html, shown, now));
        html.raw("</ul>");
    }
    for window in &s.maintenance {
        let whose = window.feed.as_ref().map_or("this gateway", |feed| feed.as_str());
        html.raw("<p class=\"quiet\">Maintenance of <b>").text(whose).raw("</b>: nobody is alerted of its senders, cadence or uplink ");
        match &window.from {
            Some(from) => html.raw("from ").text(from).raw(" to ").text(&window.until).raw(" (planned). "),
            None => html.raw("for ").text(duration(window.left_s)).raw(" more. "),
        };
        html.text(&window.who).raw(": ").text(&window.reason).raw("</p>");
    }
    html.raw("</section>\n");
    html
}

fn condition(html: &mut Html, shown: &Shown, now: &Now<'_>) {
    let (class, sign, word) = severity(shown.severity);
    html.raw("<li class=\"").raw(class).raw("\"><p><span class=\"tag\"><span aria-hidden=\"true\">").raw(sign).raw("</span> ").raw(word);
    html.raw("</span> <code>").text(&shown.code).raw("</code>");
    if !shown.subject.is_empty() {
        html.raw(" <b>").text(&shown.subject).raw("</b>");
    }
    html.raw("</p><p>").text(&shown.text).raw("</p><p class=\"foot\">since ").piece(now.since(&shown.since));
    html.raw(" · <a href=\"/runbook/").text(&shown.code).raw("\">What to do about ").text(&shown.code).raw("</a></p></li>");
}

fn severity(severity: Severity) -> (&'static str, &'static str, &'static str) {
    match severity {
        Severity::Warning => ("warning", "!", "Warning"),
        Severity::Error => ("error", "✕", "Error"),
    }
}

/// The uplink: where to, what went wrong last, and its outages.
pub(super) fn uplink(s: &Snapshot, history: &HistoryView, now: &Now<'_>) -> Html {
    const DAY: Duration = Duration::from_hours(24);
    let mut html = Html::default();
    open(&mut html, "uplink", "Uplink");
    html.raw("<dl class=\"pairs\"><dt>Endpoint</dt><dd>").text(s.uplink.endpoint.as_deref().unwrap_or("none tried yet")).raw("</dd>");
    if let Some(error) = &s.uplink.last_error {
        html.raw(if s.uplink.state == "connected" { "<dt>Last error, overcome</dt><dd>" } else { "<dt>Last error</dt><dd>" });
        html.text(error).raw("</dd>");
    }
    html.raw("</dl>");
    html.piece(timeline::figure(history, DAY, "Last 24 hours", &["24 h ago", "18 h", "12 h", "6 h", "now"]));
    html.piece(timeline::figure(history, DAY * 7, "Last 7 days", &["7 days ago", "6", "5", "4", "3", "2", "1", "now"]));
    html.raw("<p class=\"quiet\">High bar: outage. Low bar: connected. Line: not known, because ");
    html.raw(if history.is_cut {
        "there were too many outages to keep them all.</p>"
    } else {
        "the agent was not running; this run began "
    });
    if !history.is_cut {
        html.text(duration(history.known.as_secs())).raw(" ago.</p>");
    }
    if !history.outages.is_empty() {
        let row = |outage: &crate::status::history::OutageView| {
            let ended =
                outage.ended_ago.map_or_else(|| Cell { class: "mark", ..plain("lasts") }, |ago| Cell { html: now.before(ago), class: "" });
            let lasted = outage.began_ago.saturating_sub(outage.ended_ago.unwrap_or_default());
            let lasted = Cell { class: "n", ..plain(duration(lasted.as_secs())) };
            vec![Cell { html: now.before(outage.began_ago), class: "" }, ended, lasted, Cell { class: "long", ..plain(&outage.why) }]
        };
        let caption = match history.outages.len() {
            n if n > OUTAGES_LISTED => format!("The last {OUTAGES_LISTED} of {n} outages"),
            _ => "Outages, the newest first".to_owned(),
        };
        let rows = history.outages.iter().take(OUTAGES_LISTED).map(row).collect();
        table(&mut html, &caption, &["Began", "Ended", "Lasted", "Why"], rows);
    }
    html.raw("</section>\n");
    html
}

pub(super) fn feeds(s: &Snapshot, now: &Now<'_>) -> Html {
    let mut html = Html::default();
    open(&mut html, "feeds", "Feeds");
    if s.feeds.is_empty() {
        html.raw("<p class=\"quiet\">No feed is configured.</p></section>\n");
        return html;
    }
    let heads = [
        "Feed",
        "Lane",
        "Last message",
        "A minute",
        "Waiting",
        "Oldest",
        "Quarantined",
        "Refused",
        "Duplicates",
        "Captured",
        "Confirmed",
        "Senders",
    ];
    let rows = s.feeds.iter().map(|feed| feed_row(feed, now)).collect();
    table(&mut html, "Waiting and oldest outlive a restart; the other counts are since the agent started", &heads, rows);
    html.raw("</section>\n");
    html
}

fn feed_row(feed: &Feed, now: &Now<'_>) -> Vec<Cell> {
    let mut name = Html::default();
    name.text(&feed.id);
    if feed.retired {
        name.raw(" <small class=\"tag\">retired, drains</small>");
    }
    if let Some(about) = feed.about.as_ref().filter(|about| about.objective.as_deref() == Some("missed")) {
        name.raw(" <small class=\"tag warning\">! objective missed");
        if let Some(most) = about.delivery_objective_s {
            name.raw(": ").text(duration(most));
        }
        name.raw("</small>");
    }
    let rate = Cell { class: "n", ..plain(per_minute(feed.rate)) };
    vec![
        Cell { html: name, class: "name" },
        plain(&feed.lane),
        last_message(feed, now),
        rate,
        number(feed.queued),
        age(feed.oldest_age_s),
        unwanted(feed.quarantined),
        unwanted(feed.refused),
        number(feed.duplicates),
        number(feed.captured),
        number(feed.released),
        number(feed.connections),
    ]
}

fn last_message(feed: &Feed, now: &Now<'_>) -> Cell {
    let mut html = Html::default();
    match &feed.last_message_at {
        Some(at) => html.piece(now.since(at)),
        None => html.raw("<span class=\"ago\">none since the start</span>"),
    };
    if let Some(expected) = &feed.expected {
        html.raw(if expected.silent { " <small class=\"tag error\">✕ silent" } else { " <small class=\"tag\">expected" });
        if let Some(next) = &expected.next {
            html.raw(if expected.silent { ", was expected by " } else { " by " });
            match next.parse::<jiff::Timestamp>() {
                Ok(at) => html.piece(now.time(at.as_millisecond())),
                Err(_) => html.text(next),
            };
        }
        html.raw("</small>");
    }
    Cell { html, class: "" }
}

pub(super) fn lanes(s: &Snapshot) -> Html {
    let mut html = Html::default();
    open(&mut html, "lanes", "Lanes");
    let full = s
        .spool
        .time_to_full_s
        .map_or_else(|| "not filling".to_owned(), |seconds| if seconds == 0 { "FULL".to_owned() } else { duration(seconds) });
    let row = |lane: &crate::status::snapshot::Lane| {
        vec![
            Cell { class: "name", ..plain(&lane.name) },
            number(lane.records),
            Cell { class: "n", ..plain(bytes(lane.bytes)) },
            age(lane.oldest_age_s),
            Cell { class: "n", ..plain(&full) },
        ]
    };
    let rows = s.lanes.iter().map(row).collect();
    table(
        &mut html,
        "What is on disk and not confirmed; the lanes share the spool",
        &["Lane", "Records", "Bytes", "Oldest", "Full in"],
        rows,
    );
    html.raw("</section>\n");
    html
}

pub(super) fn configuration(s: &Snapshot, now: &Now<'_>) -> Html {
    let mut html = Html::default();
    open(&mut html, "configuration", "Configuration");
    html.raw("<dl class=\"pairs\"><dt>Running</dt><dd>");
    match s.config.revision {
        Some(revision) => html.raw("<b>revision ").text(revision).raw("</b>"),
        None => html.raw("<b>the local file</b>, no document"),
    };
    if s.config.state != "local" {
        html.raw(", ").text(s.config.state.replace('_', " "));
    }
    if let Some(since) = &s.config.since {
        html.raw(" since ").piece(now.since(since));
    }
    html.raw("</dd>");
    if let Some(tried) = s.config.tried.as_ref().filter(|tried| tried.revision != s.config.revision) {
        html.raw("<dt>Newest document</dt><dd>");
        match tried.revision {
            Some(revision) => html.raw("revision ").text(revision),
            None => html.raw("no document of ours"),
        };
        html.raw(": <b>").text(tried.state.replace('_', " ")).raw("</b> at ").piece(now.since(&tried.at));
        if let Some(reason) = &tried.reason {
            html.raw("<br>").text(reason);
        }
        html.raw("</dd>");
    }
    html.raw("</dl></section>\n");
    html
}

pub(super) fn events(history: &HistoryView, now: &Now<'_>) -> Html {
    let mut html = Html::default();
    open(&mut html, "events", "Recent events");
    html.raw("<ol class=\"events\">");
    history.events.iter().take(EVENTS_SHOWN).for_each(|event| item(&mut html, event, now));
    html.raw("</ol>");
    if history.events.len() > EVENTS_SHOWN {
        let more = history.events.len() - EVENTS_SHOWN;
        html.raw("<details id=\"more-events\"><summary>").text(more).raw(" older</summary><ol class=\"events\">");
        history.events.iter().skip(EVENTS_SHOWN).for_each(|event| item(&mut html, event, now));
        html.raw("</ol></details>");
    }
    html.raw("<p class=\"quiet\">Since the agent started");
    if history.events_dropped > 0 {
        html.raw(", but for ").text(history.events_dropped).raw(" that were alike or old");
    }
    html.raw("; what was before is in <code>journalctl -u siteward</code>.</p></section>\n");
    html
}

fn item(html: &mut Html, event: &EventView, now: &Now<'_>) {
    html.raw("<li>").piece(now.before(event.ago)).raw(" <span>");
    match event.kind {
        Kind::Started => html.raw("<span class=\"tag\">● Started</span>"),
        Kind::Configured => html.raw("<span class=\"tag\">● Configuration</span>"),
        Kind::Cleared(code) => html.raw("<span class=\"tag well\">✓ Over</span> <code>").text(code).raw("</code>"),
        Kind::Raised(code, level) => {
            let (class, sign, word) = severity(level);
            html.raw("<span class=\"tag ").raw(class).raw("\">").raw(sign).raw(" ").raw(word).raw("</span> <a href=\"/runbook/");
            html.text(code).raw("\"><code>").text(code).raw("</code></a>")
        }
    };
    if !event.subject.is_empty() {
        html.raw(" <b>").text(&event.subject).raw("</b>");
    }
    if !event.text.is_empty() {
        html.raw(" ").text(&event.text);
    }
    html.raw("</span></li>");
}
