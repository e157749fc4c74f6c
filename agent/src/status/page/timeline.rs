//! The uplink's outages as a drawing: time from left to right, connected is a low bar, an outage a high one, what is not known a line. Pure.
//!
//! The shapes differ, so nobody needs to see the colours; the numbers stand beside it as text.

use std::time::Duration;

use super::html::Html;
use crate::status::history::HistoryView;
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
    let known = view.known.min(span);
    let mut sums = Sums { known, ..Sums::default() };
    for outage in &view.outages {
        let (began, ended) = (outage.began_ago.min(known), outage.ended_ago.unwrap_or_default());
        if ended < known {
            let lasted = began.saturating_sub(ended);
            sums.outages += 1;
            sums.down += lasted;
            sums.longest = sums.longest.max(lasted);
        }
    }
    sums
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
    let known = x(view.known);
    bar(&mut html, "unknown", (0, known), (18, 2));
    bar(&mut html, "up", (known, WIDTH), (14, 10));
    for outage in view.outages.iter().filter(|outage| outage.ended_ago.unwrap_or_default() < span.min(view.known)) {
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
    use crate::status::history::OutageView;

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
