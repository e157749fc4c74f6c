//! `siteward-hub audit verify`: whether the audit records of gateways are whole, from what the receiver wrote or what a gateway exported.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;
use siteward::audit::verify::{Verdict, Verifier};
use siteward::limits::AUDIT_VERIFY_RECORDS_MAX;

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Says of each gateway whether its records are whole: none missing, none changed, one history. Exit code 3: they are not.
    Verify {
        /// What `receive --out` wrote, all its files; or what `siteward audit export` wrote.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Only this gateway.
        #[arg(long)]
        gateway: Option<String>,
        /// The files begin later than the logs: what is before the first record of each is not called missing.
        #[arg(long)]
        partial: bool,
        #[arg(long)]
        json: bool,
    },
}

pub fn carry_out(command: Audit) -> ExitCode {
    let Audit::Verify { files, gateway, partial, json } = command;
    match verify(&files, gateway.as_deref(), partial) {
        Ok(verdict) => {
            if json {
                println!("{:#}", serde_json::json!(verdict));
            } else {
                print!("{}", verdict.text());
            }
            if verdict.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(3) }
        }
        Err(why) => crate::told(Err(why)),
    }
}

/// The record in a line, if there is one.
fn record(line: &[u8]) -> Option<Value> {
    let is_received = line.starts_with(br#"{"kind":"audit""#);
    if !is_received && !line.starts_with(br#"{"chain""#) {
        return None;
    }
    let mut value: Value = serde_json::from_slice(line).ok()?;
    Some(if is_received { value["data"].take() } else { value })
}

fn verify(files: &[PathBuf], gateway: Option<&str>, partial: bool) -> Result<Verdict, String> {
    let mut verifier = Verifier::default();
    if partial {
        verifier.is_partial();
    }
    for path in files {
        let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
        let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
        let (mut line, mut number) = (Vec::new(), 0u64);
        loop {
            line.clear();
            number += 1;
            if reader.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
                break;
            }
            let Some(value) = record(line.trim_ascii_end()) else { continue };
            if gateway.is_some_and(|gateway| value["gateway"] != gateway) {
                continue;
            }
            if !verifier.take(&value, || format!("{} line {number}", path.display())) {
                return Err(format!("there are more than {AUDIT_VERIFY_RECORDS_MAX} records; ask for one --gateway at a time"));
            }
        }
    }
    Ok(verifier.verdict())
}
