//! Command line of `siteward`. The edge of the program: errors are printed here, once, with their chain, and become exit codes here.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; for `run`: stopped as asked |
//! | 1 | something failed; what and what to do is on stderr |
//! | 2 | the command line itself is wrong |
//! | 3 | done, and the answer is no: nothing found, fewer messages than asked for, a vendor test or the trial of a file not passed |
//! | 78 | the configuration (or the script of a vendor test) is faulty (`EX_CONFIG`); every fault is on stderr. For `run` also: a newer version wrote the spool |

mod ask;
mod audit;
mod certs;
mod check;
mod config;
#[cfg(feature = "demo")]
pub mod demo;
mod diagnose;
mod enroll;
mod feeds;
mod lines;
mod maintenance;
mod memory;
mod messages;
mod overrides;
mod paint;
mod preflight;
mod quarantine;
mod retire;
mod run;
mod secret;
mod sheet;
mod sniff;
mod status;
mod trial;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ask::order;
use clap::{Args, Parser, Subcommand};

use crate::config::{DEFAULT_FILE, Faults};
use crate::limits;
use crate::status::question::Order;

pub const EXIT_OK: u8 = 0;
pub const EXIT_FAILED: u8 = 1;
/// Everything worked, and the answer is no.
pub const EXIT_NO: u8 = 3;
/// `EX_CONFIG`. The service tries again all the same: the file may be mended while nobody is there.
pub const EXIT_CONFIG: u8 = 78;

/// What an exit code says; the same table is in the runbook.
const EXIT_CODES: &str = "\
Exit codes:
  0   done; for `run`: stopped as asked
  1   something failed; what and what to do is on standard error
  2   the command line itself is wrong
  3   done, and the answer is no: nothing found, a test or a trial not passed
  78  the configuration is faulty; every fault is on standard error. For `run` also: a newer version wrote the spool";

#[derive(Debug, Parser)]
#[command(name = "siteward", version, about = "Store-and-forward gateway agent for hospital supply-chain feeds", after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent until it is told to stop (SIGTERM)
    Run(ConfigFile),
    /// Checks a configuration and lists every fault; starts and binds nothing
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Does not look at certificates and keys: for a check away from the gateway
        #[arg(long)]
        without_files: bool,
        /// Checks this document against the configuration, as the agent would: signed (.dsse) or still as TOML
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
        /// Judges the document's revision by what this spool says was committed
        #[arg(long, value_name = "DIR", requires = "document")]
        spool: Option<PathBuf>,
    },
    /// Tries the way to the hub step by step; names the first that fails, with text for a firewall ticket
    Preflight {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        json: bool,
    },
    /// Asks the running agent how it is
    Status {
        #[command(flatten)]
        config: ConfigFile,
        /// The whole status as JSON
        #[arg(long)]
        json: bool,
        /// Shows it again every so many seconds (2), until Ctrl-C
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", conflicts_with_all = ["json", "metrics"],
              value_parser = clap::value_parser!(u64).range(1..=3600))]
        watch: Option<u64>,
        /// As metrics: prometheus (for node_exporter's textfile collector) or openmetrics
        #[arg(long, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "prometheus", conflicts_with = "json")]
        metrics: Option<status::Metrics>,
    },
    /// Shows who is connected to each feed, what they were answered and what was odd; or acts on a feed
    #[command(args_conflicts_with_subcommands = true)]
    Feeds {
        #[command(flatten)]
        config: ConfigFile,
        /// Only this feed
        #[arg(long)]
        feed: Option<String>,
        #[arg(long)]
        json: bool,
        #[command(subcommand)]
        action: Option<FeedsAction>,
    },
    /// Finds messages by their times and numbers, without content
    #[command(subcommand)]
    Messages(messages::Action),
    /// Prints the structure of the next messages of a feed: segments, lengths, codes; never a value
    Sniff {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        feed: String,
        /// So many messages
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=limits::WATCH_MESSAGES_MAX))]
        count: u64,
        /// Gives up after this (30s, 5m, 2h)
        #[arg(long, value_parser = ask::duration, default_value = "10m")]
        timeout: Duration,
        /// One line of JSON per message
        #[arg(long)]
        json: bool,
    },
    /// Shows what was kept aside because it could not go on
    #[command(subcommand)]
    Quarantine(quarantine::Action),
    /// Shows what is configured and what was, and goes back
    #[command(subcommand)]
    Config(ConfigAction),
    /// Shows and renews the certificate by which the hub knows this gateway
    #[command(subcommand)]
    Certs(certs::Action),
    /// Sets values that the configuration names (private keys, tokens); shows names only
    #[command(subcommand)]
    Secret(secret::Action),
    /// Makes one archive for whoever helps from afar: versions, settings, status, logs; no content of messages, no secrets
    Diagnose {
        #[command(flatten)]
        config: ConfigFile,
        /// The archive (.tar); a new file, which only this user may read
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Shows the audit log: who did what, when and why
    #[command(subcommand)]
    Audit(audit::Action),
    /// Runs a feed otherwise than configured, for some hours: break-glass, audited, ends by itself
    #[command(subcommand)]
    Override(overrides::Action),
    /// Keeps alerts about senders, cadence and uplink quiet while somebody works on them
    #[command(subcommand)]
    Maintenance(maintenance::Action),
    /// Makes a gateway of this box, with the bundle that central IT made for it
    Enroll(enroll::Enroll),
    /// Takes this gateway out of service for good: delivered, counted, erased, recorded
    Retire(retire::Retire),
    /// Shows everything at once on loopback: broker, hub, agent, a sample feed and a WAN outage
    #[cfg(feature = "demo")]
    Demo,
    /// Prints the version
    Version,
}

#[derive(Debug, Subcommand)]
enum FeedsAction {
    /// Stores messages that were seen before as new records for a while, flagged as resends; ends by itself and with a restart of the agent
    AcceptResend {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        feed: String,
        /// For how long (30m, 1h; at most 24h)
        #[arg(long = "for", value_name = "TIME", value_parser = ask::duration)]
        time: Duration,
        /// Why; audited
        #[arg(long, value_name = "REASON")]
        why: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Stops taking messages from a feed's senders, also over restarts of the agent, until `resume`; what it holds is still forwarded
    Pause(OnFeed),
    /// Takes messages again from the senders of a paused feed
    Resume(OnFeed),
    /// Shows how a file would be split and what of it would not be captured; captures nothing and needs no running agent
    Try {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        feed: String,
        /// At most so many lines in each table
        #[arg(long, default_value_t = limits::TRY_ROWS_DEFAULT, value_parser = clap::value_parser!(u64).range(0..=limits::TRY_ROWS_MAX))]
        limit: u64,
        #[arg(long)]
        json: bool,
        /// The file; for a listener's feed: HL7 messages one after the other, framed or not
        file: PathBuf,
    },
    /// Watches a vendor's scripted messages live and writes the sign-off sheet
    Record {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        feed: String,
        /// TOML file with the cases: [[case]] name, expect (accepted, duplicate, refused, oversize, test), type, control_id, ack, stage
        #[arg(long, value_name = "CASES")]
        script: PathBuf,
        /// Writes the sheet to this file instead of stdout
        #[arg(long, value_name = "SHEET")]
        out: Option<PathBuf>,
        /// Ends after this even if cases are missing (30s, 5m, 2h)
        #[arg(long, value_parser = ask::duration, default_value = "1h")]
        timeout: Duration,
        /// The sheet as JSON instead of Markdown
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct OnFeed {
    #[command(flatten)]
    config: ConfigFile,
    #[arg(long)]
    feed: String,
    /// Why; audited and reported
    #[arg(long, value_name = "REASON")]
    why: String,
}

#[derive(Debug, Subcommand)]
enum ConfigAction {
    /// Prints the settings that hold, defaults included; no secrets
    Show(ConfigFile),
    /// Lists the last revisions and what became of them, the newest first
    History {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        json: bool,
    },
    /// Compares the document that runs with the one before it
    Diff(ConfigFile),
    /// Gives the agent a signed document from a file, for a gateway without a network; it takes the same way as one from the hub
    Apply {
        #[command(flatten)]
        config: ConfigFile,
        /// The signed document (.dsse)
        file: PathBuf,
        /// Why; audited
        #[arg(long, value_name = "REASON")]
        why: Option<String>,
    },
    /// Ends a trial, or goes back to the configuration from before; the hub's same revision is not tried again
    Rollback {
        #[command(flatten)]
        config: ConfigFile,
        /// Why; kept in the history and reported
        #[arg(long, value_name = "REASON")]
        why: String,
    },
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
}

/// How a command can fail.
#[derive(Debug)]
enum Failure {
    Config(Faults),
    /// The way it is installed, nothing that trying again mends.
    Unfit(Box<dyn Error>),
    Other(Box<dyn Error>),
    /// Nothing failed; the result, which is printed, is a no.
    No,
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Config(faults)
    }
}

/// The command line of a device, for man pages and completions: without `demo`, which is not on a device.
pub fn command() -> clap::Command {
    let whole = <Cli as clap::CommandFactory>::command();
    let subcommands: Vec<_> = whole.get_subcommands().filter(|command| command.get_name() != "demo").cloned().collect();
    let about = whole.get_about().cloned().unwrap_or_default();
    clap::Command::new("siteward")
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .after_help(EXIT_CODES)
        .subcommand_required(true)
        .subcommands(subcommands)
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; a closed stdout is nobody's problem.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_FAILED));
        }
    };
    ExitCode::from(match carry_out(cli.command) {
        Ok(()) => EXIT_OK,
        Err(failure) => report(&failure),
    })
}

fn carry_out(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(at) => run::run(&at.config),
        Command::Check { config, without_files, document, spool } => {
            let offered = document.as_deref().map(|file| check::Offered { file, spool: spool.as_deref() });
            check::check(&config.config, without_files, offered.as_ref())
        }
        Command::Preflight { config, json } => preflight::preflight(&config.config, json),
        Command::Status { config, metrics: Some(format), .. } => status::metrics(&config.config, format),
        Command::Status { config, watch: Some(every), .. } => status::watch(&config.config, Duration::from_secs(every)),
        Command::Status { config, json, .. } => status::status(&config.config, json),
        Command::Feeds { config, feed, json, action: None } => feeds::list(&config.config, feed, json),
        Command::Feeds { action: Some(action), .. } => match action {
            FeedsAction::AcceptResend { config, feed, time, why, json } => feeds::accept_resend(&config.config, &feed, time, why, json),
            FeedsAction::Pause(OnFeed { config, feed, why }) => order(&config.config, |by| Order::PauseFeed { feed, by, why }),
            FeedsAction::Resume(OnFeed { config, feed, why }) => order(&config.config, |by| Order::ResumeFeed { feed, by, why }),
            FeedsAction::Try { config, feed, limit, json, file } => {
                trial::try_file(&config.config, &trial::Asked { feed: &feed, path: &file, rows: limit as usize, json })
            }
            FeedsAction::Record { config, feed, script, out, timeout, json } => {
                feeds::record(&config.config, &feeds::Record { feed, script, out, time: timeout, json })
            }
        },
        Command::Messages(action) => messages::carry_out(action),
        Command::Sniff { config, feed, count, timeout, json } => sniff::sniff(&config.config, &feed, count, timeout, json),
        Command::Quarantine(action) => quarantine::carry_out(action),
        Command::Config(ConfigAction::Show(at)) => config::show(&at.config),
        Command::Config(ConfigAction::History { config, json }) => config::history(&config.config, json),
        Command::Config(ConfigAction::Diff(at)) => config::compare(&at.config),
        Command::Config(ConfigAction::Apply { config, file, why }) => config::apply(&config.config, &file, why),
        Command::Config(ConfigAction::Rollback { config, why }) => config::rollback(&config.config, &why),
        Command::Certs(action) => certs::carry_out(action),
        Command::Secret(action) => secret::carry_out(action),
        Command::Diagnose { config, out } => diagnose::diagnose(&config.config, out),
        Command::Audit(action) => audit::carry_out(action),
        Command::Override(action) => overrides::carry_out(action),
        Command::Maintenance(action) => maintenance::carry_out(action),
        Command::Enroll(args) => enroll::enroll(args),
        Command::Retire(args) => retire::retire(&args),
        #[cfg(feature = "demo")]
        Command::Demo => demo::run().map_err(Failure::Other),
        Command::Version => print(concat!("siteward ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// The value of a secret, from the terminal without showing it or from standard input.
#[cfg(feature = "hub")]
pub(crate) fn read_secret_value(name: &str) -> Result<crate::secrets::Value, String> {
    secret::read_value(name)
}

/// Tells a failure on stderr; its exit code.
fn report(failure: &Failure) -> u8 {
    let (text, code) = match failure {
        Failure::Config(faults) => (faults.to_string(), EXIT_CONFIG),
        Failure::Unfit(error) => (format!("siteward: {}", chain(error.as_ref())), EXIT_CONFIG),
        Failure::Other(error) => (format!("siteward: {}", chain(error.as_ref())), EXIT_FAILED),
        Failure::No => return EXIT_NO,
    };
    // The exit code still tells where stderr is closed.
    let _ = writeln!(io::stderr(), "{text}");
    code
}

/// An error and what it comes from, each told once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// Prints a result; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Other(error.into())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_as_documented() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["siteward", "status", "--config", "x.toml", "--json"]).unwrap();
        assert!(matches!(cli.command, Command::Status { config, json: true, .. } if config.config.as_os_str() == "x.toml"));
        let cli = Cli::try_parse_from(["siteward", "run"]).unwrap();
        assert!(matches!(cli.command, Command::Run(at) if at.config.as_os_str() == "/etc/siteward/siteward.toml"));
        assert!(Cli::try_parse_from(["siteward", "fly"]).is_err());
    }

    #[test]
    fn exit_codes_are_the_ones_outside_tools_rely_on() {
        assert_eq!((EXIT_OK, EXIT_FAILED, EXIT_CONFIG), (0, 1, 78));
        let faults = crate::config::parse_text("x.toml".as_ref(), "").unwrap_err();
        assert_eq!(report(&Failure::Config(faults)), 78);
        assert_eq!(report(&Failure::Other("disk on fire".into())), 1);
    }

    #[test]
    fn every_exit_code_stands_in_the_help_and_in_the_runbook() {
        let runbook = include_str!("../../../systemd/RUNBOOK.md");
        let (_, page) = runbook.split_once("\n# Exit codes\n").unwrap();
        let page = page.split("\n# ").next().unwrap();
        let help = command().render_help().to_string();
        for code in [EXIT_OK, EXIT_FAILED, 2, EXIT_NO, EXIT_CONFIG] {
            assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{code} "))), "{code} is not in\n{help}");
            assert!(page.contains(&format!("\n| {code} |")), "{code} is not in\n{page}");
        }
        assert_eq!(page.matches("\n| ").count(), 1 + 5, "a code that does not exist");
    }

    #[test]
    fn an_error_is_told_with_its_causes_once_each() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open the spool")]
        struct Outer(#[source] io::Error);
        assert_eq!(chain(&Outer(io::Error::other("disk on fire"))), "cannot open the spool: disk on fire");
    }
}
