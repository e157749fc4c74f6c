//! Times as people at the site read them: by the clocks of the site, with how long ago. Pure.
//!
//! While the clock cannot be believed a time of day is still shown, but nothing is said of how long ago it was.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::time::Duration;

use super::html::Html;
use crate::clock::WallTime;
use crate::status::table::duration;

/// When a page is made, and where.
#[derive(Debug)]
pub(super) struct Now<'a> {
    pub wall: WallTime,
    pub zone: &'a TimeZone,
    pub zone_name: &'a str,
}

impl Now<'_> {
    /// `<time>`: the time of day where it was today, else with its day; the whole of it in UTC, as logs have it, when pointed at.
    pub(super) fn time(&self, unix_ms: i64) -> Html {
        let mut html = Html::default();
        let Ok(at) = Timestamp::from_millisecond(unix_ms) else {
            html.text("?");
            return html;
        };
        let utc = crate::clock::rfc3339(unix_ms);
        html.raw("<time datetime=\"").text(&utc).raw("\" title=\"").text(&utc).raw("\">").text(self.local(at)).raw("</time>");
        html
    }

    fn local(&self, at: Timestamp) -> String {
        let at = at.to_zoned(self.zone.clone());
        let today = Timestamp::from_millisecond(self.wall.unix_ms).map(|now| now.to_zoned(self.zone.clone()).date());
        let format = if today.is_ok_and(|today| today == at.date()) { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
        at.strftime(format).to_string()
    }

    /// With its day and zone.
    pub(super) fn in_full(&self) -> String {
        let at = Timestamp::from_millisecond(self.wall.unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
    }

    /// A time that stands in the snapshot, and how long ago it was.
    pub(super) fn since(&self, rfc3339: &str) -> Html {
        let mut html = Html::default();
        let Some(unix_ms) = rfc3339.parse::<Timestamp>().ok().map(Timestamp::as_millisecond) else {
            html.text(rfc3339);
            return html;
        };
        html.piece(self.time(unix_ms));
        if let Some(ago) = self.ago_s(unix_ms) {
            html.raw("<span class=\"ago\">, ").text(duration(ago)).raw(" ago</span>");
        }
        html
    }

    fn ago_s(&self, unix_ms: i64) -> Option<u64> {
        let ago = self.wall.unix_ms.checked_sub(unix_ms).filter(|_| !self.wall.suspect)?;
        u64::try_from(ago / 1000).ok()
    }

    /// When something was that is known by how long ago it was.
    pub(super) fn before(&self, ago: Duration) -> Html {
        self.time(self.wall.unix_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
    }
}
