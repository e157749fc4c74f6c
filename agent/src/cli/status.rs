//! `siteward status`: asks the running agent. Needs only the control socket's place from the configuration, so it works beside a faulty file.

use std::path::Path;

use super::ask::socket;
use super::{Failure, print};
use crate::status::control;
use crate::status::question::Request;
use crate::status::snapshot::Snapshot;
use crate::status::table;

pub(super) fn status(file: &Path, json: bool) -> Result<(), Failure> {
    let socket = socket(file, &Request::STATUS)?;
    let other = |error: Box<dyn std::error::Error>| Failure::Other(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| other(error.into()))?;
    let answer = runtime.block_on(control::ask(&socket, &Request::STATUS)).map_err(|error| other(error.into()))?;
    if json {
        let text = serde_json::to_string_pretty(&answer).map_err(|error| other(error.into()))?;
        return print(&format!("{text}\n"));
    }
    match serde_json::from_value::<Snapshot>(answer) {
        Ok(snapshot) => print(&table::render(&snapshot)),
        Err(_) => Err(other("the agent is of another version than this program; restart it, or use --json".into())),
    }
}
