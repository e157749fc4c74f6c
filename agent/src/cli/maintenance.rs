//! `siteward maintenance start | list | end`: asks the running agent to keep alerts about senders, cadence and uplink quiet for a while.

use std::path::Path;
use std::time::Duration;

use clap::Subcommand;

use super::ask::{ask, duration, print_json};
use super::secret::by;
use super::{ConfigFile, Failure, print};
use crate::alerts::view::Window;
use crate::status::question::{Order, Question, Request};
use crate::status::table::{printable, put, rows};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Silences alerts of one feed or of the gateway; never those of loss, and nothing is hidden from the status
    Start {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        scope: Scope,
        /// For how long (30m, 4h; at most 72h)
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        time: Duration,
        /// When it begins, in site time (2026-11-28T22:00) or with an offset; at most 30 days ahead [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// Why; shown and audited
        #[arg(long)]
        reason: String,
    },
    /// Lists the windows that hold or are planned
    List {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        json: bool,
    },
    /// Ends a window before its time, or before it begins
    End {
        #[command(flatten)]
        config: ConfigFile,
        /// Its number, as listed
        id: u64,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Scope {
    /// One feed: its sender and what it is expected to bring
    #[arg(long)]
    feed: Option<String>,
    /// The gateway: all feeds, and the uplink
    #[arg(long)]
    gateway: bool,
}

#[derive(serde::Deserialize)]
struct Done {
    done: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Listed {
    maintenance: Vec<Window>,
}

pub(super) fn carry_out(action: Action) -> Result<(), Failure> {
    match action {
        Action::Start { config, scope, time, at, reason } => {
            let order = Order::MaintenanceStart { feed: scope.feed, for_s: time.as_secs(), at, reason, by: by() };
            order_done(&config.config, order)
        }
        Action::End { config, id } => order_done(&config.config, Order::MaintenanceEnd { id, by: by() }),
        Action::List { config, json } => {
            let listed: Listed = ask(&config.config, &Request::Get(Question::Maintenance {}))?;
            if json { print_json(&listed) } else { print(&render(&listed.maintenance)) }
        }
    }
}

fn order_done(file: &Path, order: Order) -> Result<(), Failure> {
    let done: Done = ask(file, &Request::Do(order))?;
    print(&printable(&format!("{}\n", done.done)))
}

fn render(windows: &[Window]) -> String {
    if windows.is_empty() {
        return "no maintenance window holds or is planned; every alert is told\n".to_owned();
    }
    let mut table = vec![["ID", "WHAT", "FROM", "LEFT", "UNTIL", "BY", "REASON"].map(str::to_owned).to_vec()];
    for one in windows {
        let what = one.feed.as_ref().map_or_else(|| "gateway".to_owned(), |feed| format!("feed {feed}"));
        let left = format!("{}:{:02}:{:02}", one.left_s / 3600, one.left_s / 60 % 60, one.left_s % 60);
        let from = one.from.clone().unwrap_or_else(|| "-".to_owned());
        table.push(vec![one.id.to_string(), what, from, left, one.until.clone(), one.who.clone(), one.reason.clone()]);
    }
    let mut out = String::new();
    for line in rows(&table) {
        put(&mut out, format_args!("{}\n", line.trim_end()));
    }
    printable(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_listed_with_what_is_left() {
        let window = Window {
            id: 3,
            feed: None,
            from: None,
            who: "root (uid 0) for kim".into(),
            reason: "WAN\u{1b} works".into(),
            set_at: "2026-11-01T00:00:00.000Z".into(),
            for_s: 14_400,
            left_s: 3_723,
            until: "2026-11-01T04:00:00.000Z".into(),
        };
        let planned = Window { from: Some("2026-11-28T21:00:00.000Z".into()), ..window.clone() };
        let text = render(std::slice::from_ref(&window));
        assert!(text.contains("3   gateway  -     1:02:03  2026-11-01T04:00:00.000Z  root (uid 0) for kim  WAN? works\n"), "{text}");
        assert!(render(&[planned]).contains("3   gateway  2026-11-28T21:00:00.000Z  1:02:03  "));
        assert!(render(&[]).contains("every alert is told"));
    }
}
