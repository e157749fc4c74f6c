//! `siteward preflight`: which step to the hub fails, in words that fit into a firewall ticket. Works before the service was ever started.
//!
//! Reads the files that the agent reads, and leaves the spool as it is. The clock is judged as the agent would: a certificate must not be refused
//! here for a date that counts nothing there.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::ask::{other, print_json, runtime};
use super::{Failure, print};
use crate::config::Files;
use crate::config::settings::Settings;
use crate::preflight::report::Report;
use crate::preflight::{self, Agent};
use crate::spool::disk::RealDisk;
use crate::status::control::{self, AskError};
use crate::status::question::{Question, Request};
use crate::{clock, config, rollout, spool};

pub(super) fn preflight(file: &Path, json: bool) -> Result<(), Failure> {
    let report = look(file)?;
    if json {
        print_json(&report)?;
    } else {
        print(&report.text())?;
    }
    match report.failed() {
        None => Ok(()),
        Some((endpoint, step)) => Err(other(format!("preflight: {endpoint} fails at step {}", step.as_str()))),
    }
}

/// Takes the steps for the gateway of this file.
pub(super) fn look(file: &Path) -> Result<Report, Failure> {
    let settings = config::load_bootstrap_with(file, Files::OnSite)?;
    clock::tend(&settings.gateway.clock_synchronised_file, &settings.spool.path.join("hub-time"));
    let (settings, revision) = match rollout::start::committed(Arc::new(RealDisk), file, settings.clone()) {
        Ok(found) => found,
        Err(why) => {
            // Told and no more: whoever stands at the box with a damaged ledger wants to know about the line all the same.
            let _ = writeln!(io::stderr(), "siteward: the committed document cannot be read ({why}); the endpoints are the local file's");
            (settings, None)
        }
    };
    runtime()?.block_on(async {
        let agent = agent(&settings).await?;
        Ok::<_, Failure>(Report { revision, ..preflight::preflight(&settings, &agent).await })
    })
}

/// Whether an agent has the session. Where that cannot be found out nothing is tried: a running agent must not be thrown out.
async fn agent(settings: &Settings) -> Result<Agent, Failure> {
    let asked = control::ask(&settings.gateway.control_socket, &Request::Get(Question::Status {})).await;
    match asked {
        Ok(answer) => Ok(Agent::Runs(serde_json::from_value(answer).ok().map(Box::new))),
        Err(AskError::NotRunning(_)) if spool::is_locked(&settings.spool.path).map_err(other)? => Ok(Agent::Runs(None)),
        Err(AskError::NotRunning(_)) => Ok(Agent::Stopped),
        Err(error @ AskError::Denied(..)) => Err(other(error)),
        Err(_) => Ok(Agent::Runs(None)),
    }
}
