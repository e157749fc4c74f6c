//! `siteward-hub`: the hub side, for central IT.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use siteward::config::settings::Endpoint;
use siteward::hub::receive::{self, Options, parse_endpoint};
use siteward::uplink::tls::TlsFiles;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

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
    Receive(Receive),
    /// Print the version.
    Version,
}

#[derive(Debug, clap::Args)]
struct Receive {
    /// The broker: mqtts://host:port, or mqtt://host:port without TLS.
    #[arg(long, value_name = "URL", value_parser = parse_endpoint)]
    broker: Endpoint,
    /// Certificates of the CA that signed the broker's certificate (PEM). Required for mqtts.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Where events go; the ledger and the index are kept beside it. It holds message content.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Name of our session at the broker; it must be the same at every start.
    #[arg(long, value_name = "ID", default_value = "siteward-hub")]
    client_id: String,
    /// Stop when nothing arrived for so many seconds, and print how every feed stands.
    #[arg(long, value_name = "SECONDS")]
    once_idle: Option<u64>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("SITEWARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match cli.command {
        Command::Receive(args) => run(args),
        Command::Version => {
            println!("siteward-hub {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

fn run(args: Receive) -> ExitCode {
    let tls = match (args.broker.tls, args.ca) {
        (true, Some(ca)) => Some(TlsFiles { ca: ca.into(), cert: args.cert, key: args.key }),
        (true, None) => {
            eprintln!("siteward-hub: an mqtts:// broker needs --ca FILE, the CA that signed its certificate");
            return ExitCode::from(78);
        }
        (false, _) => None,
    };
    let print = args.once_idle.is_some();
    let once_idle = args.once_idle.map(Duration::from_secs);
    let options = Options { endpoint: args.broker, tls, out: args.out, client_id: args.client_id, once_idle };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("siteward-hub: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(until_signal(options)) {
        Ok(summary) => {
            for feed in &summary {
                tracing::info!(feed = %feed.key, through = feed.through_seq, events = feed.tally.events, missing = ?feed.missing, "feed");
                if print {
                    println!("{}", serde_json::to_string(feed).expect("a summary is plain data"));
                }
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("siteward-hub: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn until_signal(options: Options) -> Result<Vec<siteward::hub::desk::Summary>, String> {
    let (stop, stopped) = watch::channel(false);
    let caught = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
    let (mut terminate, mut interrupt) = (caught(SignalKind::terminate())?, caught(SignalKind::interrupt())?);
    let waiting = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Nobody left to tell means that it has ended already.
        let _ = stop.send(true);
    });
    let received = receive::receive(options, None, stopped).await.map_err(|error| receive::explain(&error));
    waiting.abort();
    received
}
