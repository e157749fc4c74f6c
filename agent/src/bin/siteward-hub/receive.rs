//! `siteward-hub receive`: takes what the gateways send, until a signal or until nothing comes any more.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use siteward::hub::ends::{self, Sources};
use siteward::hub::receive::{self, Options};

use crate::reach::Broker;

#[derive(Debug, clap::Args)]
pub struct Receive {
    #[command(flatten)]
    broker: Broker,
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

pub fn carry_out(args: Receive) -> ExitCode {
    let endpoint = args.broker.endpoint.clone();
    let ends = Sources { files: args.broker.certificate().into_iter().collect(), state: None };
    let tls = match args.broker.tls() {
        Ok(tls) => tls,
        Err(why) => {
            eprintln!("siteward-hub: {why}");
            return ExitCode::from(78);
        }
    };
    let print = args.once_idle.is_some();
    let once_idle = args.once_idle.map(Duration::from_secs);
    let options = Options { endpoint, tls, out: args.out, client_id: args.client_id, once_idle };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("siteward-hub: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(received(options, ends)) {
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

async fn received(options: Options, own: Sources) -> Result<Vec<siteward::hub::desk::Summary>, String> {
    tokio::spawn(ends::watch(own, |_| {})); // ends with the runtime
    receive::receive(options, None, crate::until_signal()?).await.map_err(|error| receive::explain(&error))
}
