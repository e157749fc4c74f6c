//! What the running agent can be asked by: the control socket, those of the groups, and the status page. Each tries on where it cannot be had; nothing
//! else waits for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::RunError;
use crate::config::settings::Settings;
use crate::limits;
use crate::status::access::{self, Group};
use crate::status::board::Board;
use crate::status::control::{BindError, ControlSocket};
use crate::status::desk::Desk;
use crate::status::page;
use crate::status::snapshot::Reporter;

/// Serves the status page, and moves it where the file says at SIGHUP.
pub(super) fn show_page(
    tasks: &mut JoinSet<()>,
    (reporter, board): (&Arc<Reporter>, &Arc<Board>),
    settings: &Settings,
    file: PathBuf,
    stopped: &watch::Receiver<bool>,
) -> Result<(), RunError> {
    let hangup = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let (moves, at) = watch::channel(settings.status.clone());
    let source = page::Source::new(Arc::clone(reporter), Arc::clone(board), &settings.gateway.timezone);
    tasks.spawn(page::run(source, at, stopped.clone()));
    tasks.spawn(page::follow(file, moves, hangup, stopped.clone()));
    Ok(())
}

/// Serves the control socket, and where the unit made their directory the sockets of the groups.
pub(super) fn serve_all(settings: &Settings, desk: &Arc<Desk>, stop: &watch::Receiver<bool>, tasks: &mut JoinSet<()>) {
    tasks.spawn(serve_status(settings.gateway.control_socket.clone(), None, Arc::clone(desk), stop.clone()));
    let directory = &settings.gateway.access_directory;
    if !directory.is_dir() {
        tracing::debug!(directory = %directory.display(), "there is no directory for the sockets of the groups");
        return;
    }
    for group in Group::ALL {
        tasks.spawn(serve_status(directory.join(group.socket()), Some(group), Arc::clone(desk), stop.clone()));
    }
}

/// For root and the service's user, or the members of a group.
fn bind_socket(path: &Path, group: Option<Group>) -> Result<ControlSocket, String> {
    let cause = |error: BindError| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    };
    let Some(group) = group else { return ControlSocket::bind(path).map_err(cause) };
    let gid = access::gid_here(group).ok_or_else(|| format!("there is no group {}; the package makes it", group.name()))?;
    ControlSocket::bind_for(path, group, gid).map_err(cause)
}

/// Serves a socket; where it cannot be made, tries on.
async fn serve_status(path: PathBuf, group: Option<Group>, desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let mut told = false;
    loop {
        match bind_socket(&path, group) {
            Ok(socket) => {
                return socket.serve(move |request, peer| desk.answer(request, peer), stop).await;
            }
            Err(error) if !told => {
                match group {
                    None => tracing::error!("no status can be asked for: {error}"),
                    Some(group) => tracing::warn!("members of {} cannot ask: {error}", group.name()),
                }
                told = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(limits::LISTENER_RETRY) => {}
        }
    }
}
