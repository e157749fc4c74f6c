//! The uplink's outages as a drawing: time from left to right, connected is a low bar, an outage a high one, what is not known a line. Pure.
//!
//! The shapes differ, so nobody needs to see the colours; the numbers stand beside it as text.

use std::time::Duration;

use super::html::Html;
use crate::status::history::{HistoryView, OutageView};
use crate::status::table::duration;

/// Units across, and the least width of an outage: one of seconds is still seen in a week.
const WIDTH: u64 = 1440;
const WIDTH_MIN: u64 = 3;

/// What becomes of a span that ends now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub outages: usize,
    pub down: Duration,
    pub longest: Duration,
    /// Of the span, what is known.
    pub known: Duration,
}

pub(super) fn sums(view: &HistoryView, span: Duration) -> Sums {
    let known = stretches(view).map(|(began, ended)| began.min(span).saturating_sub(ended)).sum();
    let mut sums = Sums { known, ..Sums::default() };
    for outage in &view.outages {
        let (began, ended) = (outage.began_ago.min(reach(view, outage, span)), outage.ended_ago.unwrap_or_default());
        if ended < reach(view, outage, span) {
            let lasted = began.saturating_sub(ended);
            sums.outages += 1;
            sums.down += lasted;
            sums.longest = sums.longest.max(lasted);
        }
    }
    sums
}

/// What is known, the newest first: this run of the agent, and those before it.
fn stretches(view: &HistoryView) -> impl Iterator<Item = (Duration, Duration)> {
    std::iter::once((view.known, Duration::ZERO)).chain(view.earlier.iter().copied())
}

/// How far back an outage counts: within the span, and within the stretch in which it ended.
fn reach(view: &HistoryView, outage: &OutageView, span: Duration) -> Duration {
    let ended = outage.ended_ago.unwrap_or_default();
    let stretch = stretches(view).find(|(began, _)| ended < *began);
    stretch.map_or(Duration::ZERO, |(began, _)| began.min(span))
}

/// In a sentence.
pub(super) fn told(sums: Sums) -> String {
    let known = duration(sums.known.as_secs());
    match sums.outages {
        0 => format!("no outage in the {known} that are known"),
        n => {
            let up = sums.known.saturating_sub(sums.down).as_millis() * 1000 / sums.known.as_millis().max(1);
            format!(
                "{n} {}, {} in all, the longest {}; connected {}.{} % of the {known} that are known",
                if n == 1 { "outage" } else { "outages" },
                duration(sums.down.as_secs()),
                duration(sums.longest.as_secs()),
                up / 10,
                up % 10
            )
        }
    }
}

/// `ticks`: what stands below, from the left to now.
pub(super) fn figure(view: &HistoryView, span: Duration, title: &'static str, ticks: &[&'static str]) -> Html {
    let sums = told(sums(view, span));
    let mut html = Html::default();
    html.raw("<figure class=\"timeline\"><figcaption><b>").raw(title).raw("</b>: ").text(&sums).raw("</figcaption>");
    html.raw("<svg viewBox=\"0 0 1440 24\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"").raw(title).raw(": ").text(&sums);
    html.raw("\">");
    let x = |ago: Duration| {
        let part = u128::from(WIDTH) * ago.min(span).as_millis() / span.as_millis().max(1);
        WIDTH - u64::try_from(part).unwrap_or(WIDTH)
    };
    let mut drawn = 0;
    let all: Vec<(Duration, Duration)> = stretches(view).collect();
    for (began, ended) in all.into_iter().rev() {
        bar(&mut html, "unknown", (drawn, x(began)), (18, 2));
        bar(&mut html, "up", (x(began), x(ended)), (14, 10));
        drawn = x(ended);
    }
    for outage in view.outages.iter().filter(|outage| outage.ended_ago.unwrap_or_default() < reach(view, outage, span)) {
        let (from, to) = (x(outage.began_ago), x(outage.ended_ago.unwrap_or_default()));
        let from = from.min(to.saturating_sub(WIDTH_MIN));
        bar(&mut html, "down", (from, to.max(from + WIDTH_MIN)), (0, 24));
    }
    html.raw("</svg><div class=\"ticks\" aria-hidden=\"true\">");
    for tick in ticks {
        html.raw("<span>").raw(tick).raw("</span>");
    }
    html.raw("</div></figure>");
    html
}

fn bar(html: &mut Html, class: &'static str, (from, to): (u64, u64), (y, height): (u64, u64)) {
    if to > from {
        html.raw("<rect class=\"").raw(class).raw("\" x=\"").text(from).raw("\" y=\"").text(y).raw("\" width=\"").text(to - from);
        html.raw("\" height=\"").text(height).raw("\"/>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn view() -> HistoryView {
        let outage = |began: u64, ended: Option<u64>| OutageView {
            began_ago: Duration::from_mins(began),
            ended_ago: ended.map(Duration::from_mins),
            why: String::new(),
        };
        let outages = vec![outage(6, None), outage(120, Some(90)), outage(60 * 30, Some(60 * 25))];
        HistoryView { known: Duration::from_hours(12), outages, ..HistoryView::default() }
    }

    #[test]
    fn the_sums_are_those_of_what_is_known() {
        let sums = sums(&view(), DAY);
        assert_eq!((sums.outages, sums.down.as_secs() / 60, sums.longest.as_secs() / 60), (2, 36, 30));
        assert_eq!(told(sums), "2 outages, 36 min in all, the longest 30 min; connected 95.0 % of the 12 h 0 min that are known");
        assert!(told(Sums { known: DAY, ..Sums::default() }).starts_with("no outage in the 1 d 0 h"));
    }

    /// Over a restart: the run before is drawn, the time between is a line, and neither counts as good.
    #[test]
    fn earlier_runs_are_drawn_and_what_lies_between_is_not_known() {
        let hours = |n| Duration::from_hours(n);
        let outage = OutageView { began_ago: hours(17), ended_ago: Some(hours(16)), why: String::new() };
        let view = HistoryView {
            known: hours(6),
            earlier: vec![(hours(18), hours(12)), (hours(40), hours(30))],
            outages: vec![outage],
            ..HistoryView::default()
        };
        assert_eq!(
            told(sums(&view, DAY)),
            "1 outage, 1 h 0 min in all, the longest 1 h 0 min; connected 91.6 % of the 12 h 0 min that are known"
        );
        let html = figure(&view, DAY, "Last 24 hours", &["24 h ago", "now"]).into_string();
        for (class, from, width) in [("unknown", 0, 360), ("up", 360, 360), ("unknown", 720, 360), ("up", 1080, 360), ("down", 420, 60)] {
            assert!(
                html.contains(&format!(
                    r#"class="{class}" x="{from}" y="{}" width="{width}""#,
                    match class {
                        "unknown" => 18,
                        "up" => 14,
                        _ => 0,
                    }
                )),
                "{html}"
            );
        }
        assert_eq!(sums(&view, DAY * 7).known, hours(22));
    }

    #[test]
    fn an_outage_is_drawn_where_it_was_and_what_is_not_known_is_not_drawn_as_good() {
        let html = figure(&view(), DAY, "Last 24 hours", &["24 h ago", "now"]).into_string();
        assert!(html.contains(r#"class="unknown" x="0" y="18" width="720""#), "{html}");
        assert!(html.contains(r#"class="up" x="720" y="14" width="720""#), "{html}");
        assert!(html.contains(r#"class="down" x="1320" y="0" width="30""#), "{html}");
        assert!(html.contains(r#"class="down" x="1434" y="0" width="6""#), "it lasts: {html}");
        assert_eq!(html.matches("class=\"down\"").count(), 2);
    }
}
