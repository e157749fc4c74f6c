//! Command line of `siteward`. The edge of the program: errors are printed here, once, with their chain, and become exit codes here.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; for `run`: stopped as asked |
//! | 1 | something failed; what and what to do is on stderr |
//! | 2 | the command line itself is wrong |
//! | 78 | the configuration is faulty (`EX_CONFIG`); every fault is on stderr |

mod check;
#[cfg(feature = "demo")]
pub mod demo;
mod run;
mod status;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{DEFAULT_FILE, Faults};

pub const EXIT_OK: u8 = 0;
pub const EXIT_FAILED: u8 = 1;
/// `EX_CONFIG`: systemd is told not to restart on it.
pub const EXIT_CONFIG: u8 = 78;

#[derive(Debug, Parser)]
#[command(name = "siteward", version, about = "Store-and-forward gateway agent for hospital supply-chain feeds")]
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
    },
    /// Asks the running agent how it is
    Status {
        #[command(flatten)]
        config: ConfigFile,
        /// The whole status as JSON
        #[arg(long)]
        json: bool,
    },
    /// Shows everything at once on loopback: broker, hub, agent, a sample feed and a WAN outage
    #[cfg(feature = "demo")]
    Demo,
    /// Prints the version
    Version,
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
    Other(Box<dyn Error>),
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Config(faults)
    }
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
    let outcome = match cli.command {
        Command::Run(at) => run::run(&at.config),
        Command::Check { config, without_files } => check::check(&config.config, without_files),
        Command::Status { config, json } => status::status(&config.config, json),
        #[cfg(feature = "demo")]
        Command::Demo => demo::run().map_err(Failure::Other),
        Command::Version => print(concat!("siteward ", env!("CARGO_PKG_VERSION"), "\n")),
    };
    ExitCode::from(match outcome {
        Ok(()) => EXIT_OK,
        Err(failure) => report(&failure),
    })
}

/// Tells a failure on stderr; its exit code.
fn report(failure: &Failure) -> u8 {
    let (text, code) = match failure {
        Failure::Config(faults) => (faults.to_string(), EXIT_CONFIG),
        Failure::Other(error) => (format!("siteward: {}", chain(error.as_ref())), EXIT_FAILED),
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
        assert!(matches!(cli.command, Command::Status { config, json: true } if config.config.as_os_str() == "x.toml"));
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
    fn an_error_is_told_with_its_causes_once_each() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open the spool")]
        struct Outer(#[source] io::Error);
        assert_eq!(chain(&Outer(io::Error::other("disk on fire"))), "cannot open the spool: disk on fire");
    }
}
