//! `siteward-hub`: the hub side, for central IT.

mod audit;
mod broker;
mod certs;
mod command;
mod config;
mod enroll;
mod find;
mod fleet;
mod keys;
mod reach;
mod receive;
mod rollout;
mod secret;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Receives, verifies and accounts for what gateways send.
#[derive(Debug, Parser)]
#[command(name = "siteward-hub", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive events from a broker into a file of JSON lines; verify, deduplicate, confirm.
    Receive(receive::Receive),
    /// Make keys that sign documents.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Check, sign and publish configuration documents.
    #[command(subcommand)]
    Config(config::Config),
    /// Publish signed documents for many gateways, in waves that stop by themselves.
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Sign commands for one gateway, send them, and wait for what became of them.
    #[command(name = "command", subcommand)]
    Order(command::Commands),
    /// Fetch requests for certificates and send what was issued.
    #[command(subcommand)]
    Certs(certs::Certs),
    /// Make a bundle that makes a gateway of a box; answer boxes; retire gateways.
    Enroll(Box<enroll::Enroll>),
    /// Write what the broker has to know of gateways.
    #[command(subcommand)]
    Broker(broker::BrokerFiles),
    /// Seal secrets for one gateway.
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Show all gateways: online, version, revision, conditions, what waits. `fleet watch`: as it changes; `fleet serve`: metrics, notices.
    Fleet(Box<fleet::FleetArgs>),
    /// Follow one message through the receiver's output, without its content.
    Find(find::Find),
    /// Check the audit records of gateways.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Print the version.
    Version,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let asked = std::env::var("SITEWARD_LOG").ok().filter(|asked| !asked.is_empty()).and_then(|asked| asked.parse().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    match cli.command {
        Command::Receive(args) => receive::carry_out(args),
        Command::Keys(command) => told(keys::carry_out(command)),
        Command::Config(command) => config::carry_out(command),
        Command::Rollout(command) => rollout::carry_out(command),
        Command::Order(command) => command::carry_out(command),
        Command::Certs(command) => told(certs::carry_out(command)),
        Command::Enroll(command) => told(enroll::carry_out(*command)),
        Command::Broker(command) => told(broker::carry_out(command)),
        Command::Secret(command) => told(secret::carry_out(command)),
        Command::Fleet(args) => fleet::carry_out(*args),
        Command::Find(args) => find::carry_out(args),
        Command::Audit(command) => audit::carry_out(command),
        Command::Version => {
            println!("siteward-hub {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Runtime::new().map_err(|error| format!("cannot start: {error}"))
}

/// The end of a command: a failure goes to stderr.
fn told(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("siteward-hub: {why}");
            ExitCode::FAILURE
        }
    }
}

/// True once a signal asks us to end. For the inside of a runtime.
fn until_signal() -> Result<watch::Receiver<bool>, String> {
    let caught = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
    let (mut terminate, mut interrupt) = (caught(SignalKind::terminate())?, caught(SignalKind::interrupt())?);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Nobody left to tell means that it has ended already.
        let _ = stop.send(true);
    });
    Ok(stopped)
}
