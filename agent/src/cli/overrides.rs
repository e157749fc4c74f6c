//! `siteward override set | list | clear`: asks the running agent to run a feed otherwise than configured, for a while.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::ask::{ask, duration, print_json};
use super::secret::by;
use super::{ConfigFile, Failure, print};
use crate::overrides::Kind;
use crate::overrides::handle::View;
use crate::status::question::{Order, Question, Request};
use crate::status::table::{printable, put, rows};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Changes one thing of a feed for a while
    Set {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Lists the overrides that hold
    List {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        json: bool,
    },
    /// Ends the overrides of a feed
    Clear {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        feed: String,
        /// Only this: port, peers or pause
        #[arg(long, value_name = "CHANGE", value_parser = kind)]
        only: Option<Kind>,
    },
}

/// One thing of a feed.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    #[arg(long)]
    feed: String,
    #[command(flatten)]
    change: Change,
    /// For how long (30m, 4h; at most 24h); then the feed is as configured again, by itself
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Duration,
    /// Why; reported and audited
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Change {
    /// Listens on this port
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Takes connections of these addresses and networks only
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Takes nothing from its senders; they keep what they have
    #[arg(long)]
    pause: bool,
}

#[derive(serde::Deserialize)]
struct Done {
    done: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Listed {
    overrides: Vec<View>,
}

pub(super) fn carry_out(action: Action) -> Result<(), Failure> {
    match action {
        Action::Set { config, wanted } => set(&config.config, wanted),
        Action::List { config, json } => list(&config.config, json),
        Action::Clear { config, feed, only } => clear(&config.config, feed, only),
    }
}

fn set(file: &Path, wanted: Wanted) -> Result<(), Failure> {
    let Wanted { feed, change, time, reason } = wanted;
    let Change { port, peers, pause } = change;
    let order = Order::OverrideSet { feed, port, peers, pause, for_s: time.as_secs(), reason, by: by() };
    let done: Done = ask(file, &Request::Do(order))?;
    print(&printable(&format!("{}\n", done.done)))
}

fn clear(file: &Path, feed: String, kind: Option<Kind>) -> Result<(), Failure> {
    let done: Done = ask(file, &Request::Do(Order::OverrideClear { feed, kind, by: by() }))?;
    print(&printable(&format!("{}\n", done.done)))
}

fn list(file: &Path, json: bool) -> Result<(), Failure> {
    let listed: Listed = ask(file, &Request::Get(Question::Overrides {}))?;
    if json { print_json(&listed) } else { print(&render(&listed)) }
}

fn render(listed: &Listed) -> String {
    if listed.overrides.is_empty() {
        return "no override holds; every feed is as configured\n".to_owned();
    }
    let mut table = vec![["FEED", "CHANGE", "VALUE", "LEFT", "BY", "REASON"].map(str::to_owned).to_vec()];
    for one in &listed.overrides {
        let left = one.left_s.unwrap_or(one.for_s);
        let left = format!("{}:{:02}:{:02}", left / 3600, left / 60 % 60, left % 60);
        let value = if one.value.is_empty() { "-" } else { &one.value };
        table.push(vec![one.feed.to_string(), one.change.as_str().to_owned(), value.to_owned(), left, one.who.clone(), one.reason.clone()]);
    }
    let mut out = String::new();
    for line in rows(&table) {
        put(&mut out, format_args!("{}\n", line.trim_end()));
    }
    printable(&out)
}

/// `port`, `peers`, `pause`.
fn kind(text: &str) -> Result<Kind, String> {
    [Kind::Port, Kind::Peers, Kind::Pause]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| "is none of port, peers, pause".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FeedId;

    #[test]
    fn what_holds_is_listed_with_what_is_left() {
        let view = View {
            feed: FeedId::new("lab").unwrap(),
            change: Kind::Port,
            value: "2576".into(),
            who: "root (uid 0) for kim".into(),
            reason: "vendor moved".into(),
            set_at: "2026-11-01T00:00:00.000Z".into(),
            for_s: 14_400,
            left_s: Some(3_723),
        };
        let text = render(&Listed { overrides: vec![view] });
        assert!(text.contains("lab   port    2576   1:02:03  root (uid 0) for kim  vendor moved\n"), "{text}");
        assert_eq!((kind("peers"), kind("x").is_err()), (Ok(Kind::Peers), true));
    }
}
