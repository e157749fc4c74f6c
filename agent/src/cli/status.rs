//! `siteward status`: asks the running agent. Needs only the control socket's place from the configuration, so it works beside a faulty file.
//!
//! With `--watch` it asks again and again, until Ctrl-C or until nobody reads any more. On a terminal the table is drawn in place; into a file or a
//! pipe each one is appended under the time. An agent that is away, or was restarted, is said and waited for: a watch is what somebody starts before
//! they restart the agent.

use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::ask::{self, other, runtime, socket};
use super::{Failure, paint, print};
use crate::clock;
use crate::metrics;
use crate::metrics::text::Format;
use crate::status::control::{self, AskError};
use crate::status::question::Request;
use crate::status::snapshot::Snapshot;
use crate::status::table;

/// In which dialect metrics are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Metrics {
    Prometheus,
    Openmetrics,
}

/// The figures of the same snapshot.
pub(super) fn metrics(file: &Path, format: Metrics) -> Result<(), Failure> {
    let snapshot: Snapshot = ask::ask(file, &Request::STATUS)?;
    let format = match format {
        Metrics::Prometheus => Format::Prometheus,
        Metrics::Openmetrics => Format::OpenMetrics,
    };
    print(&metrics::render(&snapshot, format))
}

pub(super) fn status(file: &Path, json: bool) -> Result<(), Failure> {
    let socket = socket(file, &Request::STATUS)?;
    let answer = runtime()?.block_on(control::ask(&socket, &Request::STATUS)).map_err(other)?;
    if json {
        let text = serde_json::to_string_pretty(&answer).map_err(other)?;
        return print(&format!("{text}\n"));
    }
    let snapshot = snapshot(answer).map_err(other)?;
    print(&shown(&snapshot, paint::is_wanted()))
}

fn snapshot(answer: serde_json::Value) -> Result<Snapshot, &'static str> {
    serde_json::from_value(answer).map_err(|_| "the agent is of another version than this program; restart it, or use --json")
}

fn shown(snapshot: &Snapshot, colour: bool) -> String {
    let text = table::render(snapshot);
    if colour { paint::status(&text) } else { text }
}

/// What one look gave.
enum Look {
    Status(Box<Snapshot>),
    /// Nobody answered; why.
    Away(String),
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    /// When an answer came, since the watch began, and the uptime in it.
    answer: Option<(Duration, u64)>,
    /// The last table, for while the agent is away.
    last: String,
    is_away: bool,
}

impl Seen {
    /// What is to be said of a look: a line of news, and the table where there is a fresh one.
    /// `at`: since the watch began.
    fn take(&mut self, at: Duration, look: &Look, every: Duration, colour: bool) -> (Option<String>, Option<String>) {
        match look {
            Look::Status(snapshot) => {
                let now = snapshot.uptime_s;
                // An uptime that did not grow with the time is another process's; a second or two are rounding.
                let restarted =
                    self.answer.is_some_and(|(then, before)| now + 2 < before + at.saturating_sub(then).as_secs() || now < before);
                self.answer = Some((at, now));
                self.is_away = false;
                self.last = shown(snapshot, colour);
                let news = restarted.then(|| format!("the agent was restarted, {} ago", table::duration(snapshot.uptime_s)));
                (news, Some(self.last.clone()))
            }
            Look::Away(why) => {
                let is_news = !std::mem::replace(&mut self.is_away, true);
                let old = if self.last.is_empty() { "" } else { "; what was shown last is old" };
                (is_news.then(|| format!("{why} (asked again every {} s{old})", every.as_secs())), None)
            }
        }
    }
}

/// Shows the status every so often. What trying again cannot mend ends it at once.
pub(super) fn watch(file: &Path, every: Duration) -> Result<(), Failure> {
    let socket = socket(file, &Request::STATUS)?;
    let (is_terminal, colour) = (io::stdout().is_terminal(), paint::is_wanted());
    runtime()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(other)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(other)?;
        let looking = async {
            let (mut seen, mut told, began) = (Seen::default(), None, Instant::now());
            loop {
                let look = match control::ask(&socket, &Request::STATUS).await {
                    Ok(answer) => Look::Status(Box::new(snapshot(answer).map_err(other)?)),
                    Err(error @ (AskError::Denied(..) | AskError::Refused(_))) => return Err(other(error)),
                    Err(error) => Look::Away(error.to_string()),
                };
                let (news, table) = seen.take(began.elapsed(), &look, every, colour);
                let is_fresh = table.is_some();
                if is_fresh || news.is_some() {
                    told = news.or(told.filter(|_| !is_fresh));
                    let now = clock::rfc3339(clock::now().unix_ms);
                    let text =
                        if is_terminal { in_place(&seen.last, told.as_deref(), &now) } else { appended(table, told.as_deref(), &now) };
                    if !write(&text).map_err(other)? {
                        return Ok(());
                    }
                }
                sleep(every).await;
            }
        };
        tokio::select! {
            ended = looking => ended,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    })
}

/// Over what stands there: from the top, every line cleared to its end, and what is below.
fn in_place(table: &str, news: Option<&str>, now: &str) -> String {
    let news = news.map(|news| table::printable(&format!("{news}\n"))).unwrap_or_default();
    let text = format!("{now}\n{news}\n{table}").replace('\n', "\u{1b}[K\n");
    format!("\u{1b}[H{text}\u{1b}[J")
}

fn appended(table: Option<String>, news: Option<&str>, now: &str) -> String {
    let news = news.map(|news| table::printable(&format!("{news}\n"))).unwrap_or_default();
    format!("---- {now}\n{news}{}", table.unwrap_or_default())
}

/// `false`: nobody reads any more.
fn write(text: &str) -> io::Result<bool> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::snapshot::tests::example;

    const EVERY: Duration = Duration::from_secs(2);

    fn at(uptime_s: u64) -> Look {
        Look::Status(Box::new(Snapshot { uptime_s, ..example() }))
    }

    #[test]
    fn an_agent_that_goes_and_comes_back_is_said_once_each() {
        let mut seen = Seen::default();
        let mut take = |s: u64, look: &Look| seen.take(Duration::from_secs(s), look, EVERY, false);
        let away = || Look::Away("no agent is running here".to_owned());
        assert!(matches!(take(0, &at(100)), (None, Some(_))));
        let (news, table) = take(2, &away());
        assert!(news.unwrap().contains("asked again every 2 s; what was shown last is old") && table.is_none());
        assert_eq!(take(4, &away()), (None, None), "said once");
        let (news, table) = take(6, &at(3));
        assert_eq!(news.as_deref(), Some("the agent was restarted, 3 s ago"));
        assert!(table.unwrap().contains("up 3 s"));
        assert!(matches!(take(8, &at(5)), (None, Some(_))));
        let (news, _) = take(30, &at(9));
        assert!(news.is_some(), "its uptime is longer than it was, and too short");
    }

    #[test]
    fn on_a_terminal_nothing_of_the_table_before_is_left() {
        let text = in_place("a\nb\n", Some("news\u{1b}[2J"), "now");
        assert_eq!(text, "\u{1b}[Hnow\u{1b}[K\nnews?[2J\u{1b}[K\n\u{1b}[K\na\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        assert_eq!(appended(Some("a\n".into()), None, "now"), "---- now\na\n");
    }
}
