//! `siteward run`: configuration, then the agent, until it is told to stop.

use std::path::Path;

use super::Failure;
use crate::{agent, config, log};

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let unsettled = super::memory::settle();
    log::init();
    if let Some(error) = unsettled {
        tracing::debug!("the process could not begin again with its memory settings: {error}");
    }
    let settings = config::load(file)?;
    agent::run(settings, file.to_owned()).map_err(|error| Failure::Other(error.into()))
}
