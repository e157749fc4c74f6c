//! `siteward-hub command`: signed commands for one gateway, and what became of them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use siteward::hub::command;
use siteward::limits::HUB_COMMAND_WAIT;
use siteward::record::Name;
use siteward::rollout::command::{Answer, Outcome};

use crate::keys::signers;
use crate::reach::Reach;
use crate::told;

#[derive(Debug, Subcommand)]
pub enum Commands {
    /// Print what a gateway reports for whoever signs a command: challenge, highest counter, what it allows.
    Standing(Reach),
    /// Sign a command for what the gateway reported last: read from the broker with `command standing`, or given by hand.
    Sign {
        #[arg(long)]
        gateway: Name,
        /// The challenge it reports.
        #[arg(long)]
        challenge: String,
        /// The highest counter it reports; the command gets the next one.
        #[arg(long, value_name = "COUNTER")]
        highest: u64,
        #[command(flatten)]
        wish: Wished,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Send a signed command and print its result; it is carried out at most once, however often it is sent.
    Send {
        #[command(flatten)]
        to: Reach,
        /// Seconds to wait for the result.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
        file: PathBuf,
    },
    /// All at once: read what the gateway reported, sign, send, and print the result.
    Run {
        #[command(flatten)]
        to: Reach,
        #[command(flatten)]
        wish: Wished,
        /// Seconds to wait for the result.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
}

#[derive(Debug, clap::Args)]
pub struct Wished {
    /// Private key that signs: of `keys generate`, or PEM (PKCS#8). Once for each signature.
    #[arg(long = "sign-with", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// Who wants it.
    #[arg(long)]
    author: String,
    /// Why; it is audited at the gateway.
    #[arg(long)]
    reason: String,
    /// pause_feed, resume_feed, accept_resend, release_quarantine, drop_quarantine, checkpoint, diagnose, log_level, maintenance_start or
    /// maintenance_end.
    verb: String,
    /// Its arguments: feed=or-usage, for_s=600, first=7, last=9, level=debug, id=1.
    #[arg(value_name = "NAME=VALUE")]
    args: Vec<String>,
}

/// 0: done; 1: nothing came of it, or nothing is known; 3: the gateway refused or failed, or it is in doubt.
pub fn carry_out(command: Commands) -> ExitCode {
    match ordered(command) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(answer)) => {
            println!("{}", serde_json::to_string_pretty(&answer).expect("plain values"));
            if answer.outcome == Outcome::Done { ExitCode::SUCCESS } else { ExitCode::from(3) }
        }
        Err(why) => told(Err(why)),
    }
}

fn ordered(commands: Commands) -> Result<Option<Answer>, String> {
    let runtime = crate::runtime()?;
    let within = |wait: Option<u64>| wait.map_or(HUB_COMMAND_WAIT, Duration::from_secs);
    match commands {
        Commands::Standing(to) => {
            let standing = runtime.block_on(command::standing(&to.push("command")?))?;
            let allowed: Vec<&str> = standing.allowed.iter().map(|verb| verb.as_str()).collect();
            println!("challenge {}\nhighest {}\nallowed {}", standing.challenge, standing.highest_counter, allowed.join(" "));
            Ok(None)
        }
        Commands::Sign { gateway, challenge, highest, wish, out } => {
            let standing = command::Standing { challenge, highest_counter: highest, allowed: Vec::new() };
            let envelope = signed(&wish, &gateway, &standing)?;
            std::fs::write(&out, envelope).map_err(|error| format!("{}: cannot be written: {error}", out.display()))?;
            println!("{}: command {} for {gateway}", out.display(), highest + 1);
            Ok(None)
        }
        Commands::Send { to, wait, file } => runtime.block_on(command::send(&to.push("command")?, &file, within(wait))).map(Some),
        Commands::Run { to, wish, wait } => {
            let to = to.push("command")?;
            let standing = runtime.block_on(command::standing(&to))?;
            let envelope = signed(&wish, &to.gateway, &standing)?;
            runtime.block_on(command::send_bytes(&to, envelope.into_bytes(), within(wait))).map(Some)
        }
    }
}

fn signed(wish: &Wished, gateway: &Name, standing: &command::Standing) -> Result<String, String> {
    let read = command::Wish::read(&wish.verb, &wish.args, &wish.author, &wish.reason)?;
    if !standing.allowed.is_empty() && !standing.allowed.contains(&read.verb) {
        eprintln!("warning: {gateway} does not list {} among the commands it takes", read.verb);
    }
    command::sign(&read, gateway, standing, &signers(&wish.keys)?)
}
