//! `siteward-hub config`: documents are looked at, signed, and published.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use siteward::hub::config;

use crate::keys::signers;
use crate::reach::Reach;
use crate::told;

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check a document as a gateway would, and list every fault.
    Lint {
        file: PathBuf,
        /// The gateway's own configuration file, to check against it.
        #[arg(long, value_name = "FILE")]
        bootstrap: Option<PathBuf>,
    },
    /// Sign a document; it is checked first.
    Sign {
        file: PathBuf,
        /// Private key: of `keys generate`, or PEM (PKCS#8). Once for each signature.
        #[arg(long, value_name = "FILE", required = true)]
        key: Vec<PathBuf>,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Publish a signed document for one gateway (retained).
    Push {
        #[command(flatten)]
        reach: Reach,
        file: PathBuf,
    },
}

/// 0: good or done; 1: could not be done; 78: the document has faults.
pub fn carry_out(command: Config) -> ExitCode {
    match command {
        // Faults are in the form of compilers: file first.
        Config::Lint { file, bootstrap } => match lint(&file, bootstrap.as_deref()) {
            Ok(linted) => {
                println!("{}: good; revision {}", file.display(), linted.document.header.revision);
                ExitCode::SUCCESS
            }
            Err(faults) => {
                eprintln!("{faults}");
                ExitCode::from(78)
            }
        },
        Config::Sign { file, key, out } => match lint(&file, None) {
            Ok(linted) => told(sign(&linted, &key, &out)),
            Err(faults) => {
                eprintln!("{faults}");
                ExitCode::from(78)
            }
        },
        Config::Push { reach, file } => told(push(reach, &file)),
    }
}

fn lint(file: &Path, bootstrap: Option<&Path>) -> Result<config::Linted, String> {
    let linted = config::lint(file, bootstrap)?;
    for warning in &linted.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(linted)
}

fn sign(linted: &config::Linted, files: &[PathBuf], out: &Path) -> Result<(), String> {
    let signers = signers(files)?;
    let envelope = config::sign(linted, &signers)?;
    std::fs::write(out, envelope).map_err(|error| format!("{}: cannot be written: {error}", out.display()))?;
    println!("{}: revision {}, {} signatures", out.display(), linted.document.header.revision, signers.len());
    Ok(())
}

fn push(reach: Reach, file: &Path) -> Result<(), String> {
    let push = reach.push("config")?;
    crate::runtime()?.block_on(config::push(&push, file))?;
    println!("{}: published for {}", file.display(), push.gateway);
    Ok(())
}
