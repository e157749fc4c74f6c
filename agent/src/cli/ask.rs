//! What the commands that ask the running agent have in common: finding its socket, asking, reading what a person typed.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, print};
use crate::status::access::needed;
use crate::status::control::{self, AskError};
use crate::status::question::{Order, Request};
use crate::status::table::printable;
use crate::status::watching::Line;
use crate::threads::{self, SCARCE};
use crate::{clock, config};

pub(super) fn other(error: impl Into<Box<dyn std::error::Error>>) -> Failure {
    Failure::Other(error.into())
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    threads::runtime(&mut tokio::runtime::Builder::new_current_thread(), 1)
        .map_err(|error| other(format!("cannot start: {SCARCE} ({error})")))
}

/// The socket by which this user may ask for this: the agent's own, or that of a group this user is in.
pub(super) fn socket(file: &Path, request: &Request) -> Result<PathBuf, Failure> {
    let need = needed(request);
    let (control, access) = match config::sockets(file) {
        Ok((control, access)) => (Some(control), access),
        // Only root and the service read it; members of the groups do not have to.
        Err(_) if is_denied(std::fs::File::open(file)) => (None, config::DEFAULT_ACCESS.into()),
        Err(faults) => return Err(faults.into()),
    };
    if let Some(control) = control.clone().filter(|control| !is_denied(writable(control))) {
        return Ok(control);
    }
    let doors: Vec<PathBuf> = need.doors().iter().map(|group| access.join(group.socket())).collect();
    let is_open = |door: &&PathBuf| writable(door).is_ok();
    match doors.iter().find(is_open) {
        Some(door) => Ok(door.clone()),
        None if doors.iter().any(|door| is_denied(writable(door))) => Err(other(AskError::Denied(doors[0].clone(), need))),
        None => Ok(control.unwrap_or_else(|| doors[0].clone())),
    }
}

/// Whether the kernel would let us connect to a socket, or change a directory.
pub(super) fn writable(socket: &Path) -> std::io::Result<()> {
    Ok(rustix::fs::access(socket, rustix::fs::Access::WRITE_OK)?)
}

pub(super) fn is_denied<T>(tried: std::io::Result<T>) -> bool {
    tried.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Asks the agent of this configuration.
pub(super) fn ask<T: DeserializeOwned>(file: &Path, request: &Request) -> Result<T, Failure> {
    let socket = socket(file, request)?;
    let answer = runtime()?.block_on(control::ask(&socket, request)).map_err(other)?;
    serde_json::from_value(answer).map_err(|_| other(AskError::Unusable(socket)))
}

#[derive(Deserialize)]
struct Done {
    done: String,
}

/// Gives an order in the name of whoever is logged in, and prints what became of it.
pub(super) fn order(file: &Path, order: impl FnOnce(String) -> Order) -> Result<(), Failure> {
    let name = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "somebody".to_owned());
    let done: Done = ask(file, &Request::Do(order(name)))?;
    print(&printable(&format!("{}\n", done.done)))
}

/// Watches. `Ok(false)`: the agent went away before the watch had ended.
pub(super) fn watch(file: &Path, request: &Request, each: impl FnMut(Line) -> bool) -> Result<bool, Failure> {
    let socket = socket(file, request)?;
    runtime()?.block_on(control::watch(&socket, request, each)).map_err(other)
}

/// How a watch that a person may interrupt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    Ended,
    AgentGone,
    /// SIGINT or SIGTERM; what was heard so far is the caller's to keep.
    Interrupted,
}

/// The same, and Ctrl-C ends it in order.
pub(super) fn watch_until_interrupted(file: &Path, request: &Request, each: impl FnMut(Line) -> bool) -> Result<Watched, Failure> {
    let socket = socket(file, request)?;
    runtime()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(other)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(other)?;
        tokio::select! {
            ended = control::watch(&socket, request, each) => {
                ended.map(|ended| if ended { Watched::Ended } else { Watched::AgentGone }).map_err(other)
            }
            _ = interrupt.recv() => Ok(Watched::Interrupted),
            _ = terminate.recv() => Ok(Watched::Interrupted),
        }
    })
}

pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(other)?;
    print(&format!("{text}\n"))
}

/// `30s`, `5m`, `2h`.
pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    config::duration_of(text).ok_or_else(|| "write a duration like 30s, 5m or 2h".to_owned())
}

/// A time, or how long ago: `2026-11-22T10:00:00Z`, `2h`.
pub(super) fn since_ms(text: &str) -> Result<i64, String> {
    if let Some(ago) = config::duration_of(text) {
        return Ok(clock::now().unix_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)));
    }
    let at: Result<jiff::Timestamp, _> = text.parse();
    at.map(jiff::Timestamp::as_millisecond)
        .map_err(|_| "write how long ago (30m, 2h) or a time with its zone (2026-11-22T10:00:00Z)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_how_long_ago_or_a_point_with_its_zone() {
        assert_eq!(since_ms("2026-11-01T00:00:00Z"), Ok(clock::RELEASED_AT_MS));
        assert_eq!(since_ms("2026-10-31T19:00:00-05:00"), Ok(clock::RELEASED_AT_MS));
        let ago = since_ms("1h").unwrap();
        assert!(ago <= clock::now().unix_ms - 3_600_000);
        for bad in ["", "yesterday", "2026-11-01", "1"] {
            assert!(since_ms(bad).is_err(), "{bad}");
        }
    }
}
