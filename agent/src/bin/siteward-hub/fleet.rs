//! `siteward-hub fleet`: all gateways at a look, as they change, and for monitoring.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use siteward::clock;
use siteward::hub::ends::Sources;
use siteward::hub::fleet::alarms::Rules;
use siteward::hub::fleet::change::changes;
use siteward::hub::fleet::look::{self, Event, Reach};
use siteward::hub::fleet::port::Address;
use siteward::hub::fleet::row::{Filter, Row};
use siteward::hub::fleet::serve::{self, Options};
use siteward::hub::fleet::webhook::{Client, Target};
use siteward::hub::fleet::{Fleet, expected, table};
use siteward::limits::{DESK_ENDS_MAX, FLEET_PENDING_MAX, FLEET_TICK, OFFLINE_AFTER_DEFAULT, WEBHOOKS_MAX};
use siteward::record::Name;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};

use crate::reach::Broker;
use crate::told;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct FleetArgs {
    #[command(subcommand)]
    command: Option<Commands>,
    #[command(flatten)]
    broker: Option<Broker>,
    #[command(flatten)]
    look: Look,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Stay connected and show what changes; on a terminal, the table as it is now.
    Watch(Watch),
    /// Stay connected; metrics for Prometheus, notices for a network operations centre.
    Serve(Serve),
}

#[derive(Debug, Args)]
struct Watch {
    #[command(flatten)]
    broker: Broker,
    #[command(flatten)]
    look: Look,
}

#[derive(Debug, Args)]
struct Look {
    /// One JSON object (fleet) or JSON lines (watch).
    #[arg(long)]
    json: bool,
    #[arg(long)]
    site: Option<Name>,
    /// Only gateways with this condition.
    #[arg(long, value_name = "CODE")]
    condition: Option<String>,
    /// Only gateways that are not online.
    #[arg(long)]
    offline: bool,
    /// Only gateways whose agent has this version.
    #[arg(long, value_name = "V")]
    version: Option<String>,
    /// Only gateways that run this revision (0: their local file alone).
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    /// A table (CSV) with the columns site and gateway: the gateways that there should be.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Our name at the broker.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
}

/// The broker, and the gateways that there should be.
fn open(broker: Broker, expect: Option<&Path>, client_id: Option<String>, verb: &str) -> Result<(Reach, Fleet), String> {
    let mut fleet = Fleet::default();
    if let Some(list) = expect {
        fleet.expect(expected::open(list)?);
    }
    let endpoint = broker.endpoint.clone();
    // Two desks that look at once must not throw each other out.
    let client_id = client_id.unwrap_or_else(|| format!("siteward-hub-{verb}-{}", std::process::id()));
    Ok((Reach { broker: endpoint, tls: broker.tls()?, client_id }, fleet))
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    broker: Broker,
    /// A table (CSV) with the columns site and gateway: the gateways that there should be.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Our name at the broker.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Metrics at a port of loopback, ADDRESS:PORT, or unix:PATH.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<Address>,
    /// Notices of conditions go there (POST, JSON): http:// or https://. May be given several times.
    #[arg(long, value_name = "URL", requires = "alarms")]
    webhook: Vec<Target>,
    /// Where raised alarms and notices that wait are kept, so that a restart raises nothing again.
    #[arg(long, value_name = "FILE")]
    alarms: Option<PathBuf>,
    /// Certificates of the authorities for https:// [default: those of the system]
    #[arg(long, value_name = "FILE")]
    webhook_ca: Option<PathBuf>,
    /// Headers for receivers, a line `Name: value` each (such as Authorization).
    #[arg(long, value_name = "FILE")]
    webhook_headers: Option<PathBuf>,
    /// A gateway that is offline for so many seconds is an alarm.
    #[arg(long, value_name = "SECONDS", default_value_t = OFFLINE_AFTER_DEFAULT.as_secs())]
    offline_after: u64,
    /// A certificate or a list of revoked certificates (PEM) whose end is told too: the receiver's, the group's. Once for each.
    #[arg(long, value_name = "FILE")]
    ends_of: Vec<PathBuf>,
    /// What is put before a condition's code to link to its page in the runbook.
    #[arg(long, value_name = "URL", default_value = "RUNBOOK.md#")]
    runbook: String,
}

pub fn carry_out(args: FleetArgs) -> ExitCode {
    match (args.command, args.broker) {
        (Some(Commands::Watch(watch)), _) => told(watched(watch.broker, watch.look)),
        (Some(Commands::Serve(serve)), _) => told(served(serve)),
        (None, Some(broker)) => told(looked(broker, args.look)),
        (None, None) => {
            eprintln!("siteward-hub: fleet needs --broker URL");
            ExitCode::from(2)
        }
    }
}

impl Look {
    fn filter(&self) -> Filter {
        let Self { site, condition, offline, version, revision, .. } = self;
        Filter { site: site.clone(), condition: condition.clone(), offline: *offline, version: version.clone(), revision: *revision }
    }
}

fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| format!("cannot write any more: {error}"))
}

fn beyond(fleet: &Fleet) -> Option<String> {
    (fleet.beyond > 0).then(|| format!("there are more gateways than a view holds; {} publishes of others were left out", fleet.beyond))
}

fn looked(broker: Broker, look: Look) -> Result<(), String> {
    let (filter, json) = (look.filter(), look.json);
    let (reach, mut fleet) = open(broker, look.expect.as_deref(), look.client_id, "fleet")?;
    let ended = crate::runtime()?.block_on(look::look(&reach, &mut fleet))?;
    let now_ms = clock::now().unix_ms;
    let rows = fleet.rows(&filter, now_ms);
    let doubts: Vec<String> = ended.doubt().into_iter().chain(beyond(&fleet)).collect();
    if json {
        let page = serde_json::json!({
            "schema": 1, "time": clock::rfc3339(now_ms), "complete": doubts.is_empty(), "doubts": doubts, "known": fleet.members().len(), "gateways": rows,
        });
        return say(&format!("{page:#}\n"));
    }
    for doubt in &doubts {
        eprintln!("warning: {doubt}");
    }
    if !fleet.is_listed() {
        eprintln!("note: a gateway that never connected cannot be seen here; --expect FILE lists those that there should be");
    }
    say(&format!("{}{}\n{}", table::table(&rows, now_ms), table::summary(&rows), table::notes(&rows)))
}

fn watched(broker: Broker, look: Look) -> Result<(), String> {
    let (filter, json) = (look.filter(), look.json);
    let (reach, fleet) = open(broker, look.expect.as_deref(), look.client_id, "watch")?;
    crate::runtime()?.block_on(async {
        let (sender, events) = mpsc::channel(FLEET_PENDING_MAX);
        let following = tokio::spawn(look::follow(reach, sender, crate::until_signal()?));
        let watched = watch(fleet, events, &filter, json).await;
        let followed = following.await.map_err(|_| "following the fleet failed; please report this".to_owned())?;
        watched.and(followed)
    })
}

async fn watch(mut fleet: Fleet, mut events: mpsc::Receiver<Event>, filter: &Filter, json: bool) -> Result<(), String> {
    let drawn = !json && std::io::stdout().is_terminal();
    let mut shown: Vec<Row> = Vec::new();
    let (mut tick, mut heard, mut standing) = (interval(FLEET_TICK), Instant::now(), "connecting".to_owned());
    let mut connected = false;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                None => return Ok(()),
                Some(Event::Connected) => (connected, heard, standing) = (true, Instant::now(), "connected".to_owned()),
                Some(Event::Lost(why)) => {
                    (connected, standing) = (false, format!("not connected: {why}; trying again"));
                    if !drawn {
                        eprintln!("siteward-hub: {standing}");
                    }
                }
                Some(event) => {
                    heard = Instant::now();
                    look::take(&mut fleet, &event);
                }
            },
            // Not while what the broker keeps still comes: what has not come is not gone.
            _ = tick.tick() => if connected && heard.elapsed() >= look::SETTLED || drawn {
                let now_ms = clock::now().unix_ms;
                let rows = fleet.rows(filter, now_ms);
                if drawn {
                    let (table, summary, time) = (table::table(&rows, now_ms), table::summary(&rows), clock::rfc3339(now_ms));
                    say(&format!("\x1b[H\x1b[2J{time}  {standing}\n{table}{summary}\n{}", table::notes(&rows)))?;
                } else {
                    say(&lines(&shown, &rows, json, &clock::rfc3339(now_ms)))?;
                }
                shown = rows;
            }
        }
    }
}

fn lines(before: &[Row], now: &[Row], json: bool, time: &str) -> String {
    let mut text = String::new();
    for row in now {
        // Rows are in order.
        let old = before.binary_search_by(|old| (&old.site, &old.gateway).cmp(&(&row.site, &row.gateway))).ok().map(|at| &before[at]);
        for change in changes(old, row, time) {
            let line = if json { serde_json::to_string(&change).expect("a change is plain data") } else { change.line() };
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

fn served(args: Serve) -> Result<(), String> {
    let Serve { broker, expect, client_id, metrics, webhook, alarms, webhook_ca, webhook_headers, offline_after, ends_of, runbook } = args;
    if metrics.is_none() && webhook.is_empty() {
        return Err("fleet serve needs --metrics ADDRESS, or --webhook URL with --alarms FILE, or both".into());
    }
    if webhook.len() > WEBHOOKS_MAX {
        return Err(format!("at most {WEBHOOKS_MAX} receivers"));
    }
    let webhooks = match alarms {
        Some(file) if !webhook.is_empty() => Some((webhook, Client::new(webhook_ca, webhook_headers)?, file)),
        _ => None,
    };
    if ends_of.len() > DESK_ENDS_MAX {
        return Err(format!("--ends-of: at most {DESK_ENDS_MAX} files"));
    }
    let ends = Sources { files: broker.certificate().into_iter().chain(ends_of).collect(), state: None };
    let listed = expect.is_some();
    let (reach, fleet) = open(broker, expect.as_deref(), client_id, "serve")?;
    let expected = fleet.members().keys().cloned().collect();
    let offline_after_ms = i64::try_from(Duration::from_secs(offline_after).as_millis()).unwrap_or(i64::MAX);
    let options = Options { reach, expected, listed, metrics, webhooks, rules: Rules { offline_after_ms, runbook }, ends };
    crate::runtime()?.block_on(async { serve::serve(options, crate::until_signal()?).await })
}
