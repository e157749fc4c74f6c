//! The port of the status page: takes connections, reads one request of each, answers, closes.
//!
//! ```text
//!   accept ─► peers ─► place (the oldest that has asked nothing makes room) ─► task: head within PAGE_HEAD_TIMEOUT ─► route ─► answer, closed
//! ```
//!
//! 1. At most [`PAGE_CONNECTIONS_MAX`] at once (I4). Whoever connects and says nothing holds a place only until somebody else wants it, so any
//!    number of idle connections leaves the page as it is.
//! 2. Everything about a connection is over after [`PAGE_DEADLINE`]: a peer that reads slowly is cut.
//! 3. The socket file goes with the listener; connections end with it too.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{Source, route};
use crate::config::settings::{StatusListen, StatusSettings};
use crate::limits::{LISTENER_RETRY, PAGE_CONNECTIONS_MAX, PAGE_DEADLINE, PAGE_HEAD_BYTES_MAX, PAGE_HEAD_FIELDS_MAX, PAGE_HEAD_TIMEOUT};
use crate::source::peers;
use crate::status::access::{self, Group};
use crate::status::control;

/// An open port or socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    /// The file is held so that it goes with the listener.
    Unix(UnixListener, #[allow(dead_code)] SocketFile),
}

/// Goes when dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // One that is left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// `None`: switched off. The error is the text of the condition. Needs a runtime around it.
    pub(super) fn open(listen: &StatusListen) -> Result<Option<Self>, String> {
        let failed = |error: &dyn std::fmt::Display| {
            format!("the status page cannot be served at {listen}: {error}; free it, or change status.listen. Nothing else is affected")
        };
        match listen {
            StatusListen::Off => Ok(None),
            StatusListen::Tcp(address) => {
                let opened = std::net::TcpListener::bind(address).and_then(|socket| {
                    socket.set_nonblocking(true)?;
                    TcpListener::from_std(socket)
                });
                opened.map(|listener| Some(Self::Tcp(listener))).map_err(|error| failed(&error))
            }
            StatusListen::Unix(path) => {
                let listener = control::listen(path, access::gid_here(Group::View)).map_err(|error| {
                    failed(&match error {
                        control::BindError::InUse(_) => "another process serves that socket".to_owned(),
                        control::BindError::NotASocket(_) => "something that is not a socket is there".to_owned(),
                        control::BindError::Failed { source, .. } => source.to_string(),
                    })
                })?;
                Ok(Some(Self::Unix(listener, SocketFile { path: path.clone() })))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| (Stream::Tcp(stream), Some(peer))),
            Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), None)),
        }
    }
}

/// The connections that are open.
#[derive(Default)]
struct Places(VecDeque<(AbortHandle, Arc<AtomicBool>)>);

impl Places {
    /// Whether there is room for one more, made where it can be.
    fn make_room(&mut self) -> bool {
        self.0.retain(|(task, _)| !task.is_finished());
        if self.0.len() < PAGE_CONNECTIONS_MAX {
            return true;
        }
        let idle = self.0.iter().position(|(_, has_asked)| !has_asked.load(Ordering::Relaxed));
        match idle.and_then(|index| self.0.remove(index)) {
            Some((task, _)) => {
                task.abort();
                true
            }
            None => false,
        }
    }
}

/// Answers until it is dropped.
pub(super) async fn serve(listener: Listener, settings: StatusSettings, source: Arc<Source>) {
    let settings = Arc::new(settings);
    let mut places = Places::default();
    let mut tasks = JoinSet::new(); // they end with this function
    loop {
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((_, Some(peer))) if !peers::admits(&settings.peers, peer.ip().to_canonical()) => {
                tracing::debug!(%peer, "not among status.peers");
            }
            Ok((stream, _)) if places.make_room() => {
                let has_asked = Arc::new(AtomicBool::new(false));
                let task = connection(stream, PAGE_DEADLINE, Arc::clone(&has_asked), Arc::clone(&settings), Arc::clone(&source));
                places.0.push_back((tasks.spawn(task), has_asked));
            }
            Ok(_) => tracing::debug!("as many ask for the status page as may; one more is closed"),
            Err(error) => {
                tracing::warn!(%error, "the status page cannot take connections; trying again");
                sleep(LISTENER_RETRY).await;
            }
        }
    }
}

async fn connection(stream: Stream, deadline: Duration, has_asked: Arc<AtomicBool>, settings: Arc<StatusSettings>, source: Arc<Source>) {
    let ended = match stream {
        Stream::Tcp(stream) => timeout(deadline, exchange(stream, has_asked, settings, source)).await,
        Stream::Unix(stream) => timeout(deadline, exchange(stream, has_asked, settings, source)).await,
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a client of the status page went away or made no sense"),
        Err(_) => tracing::debug!("a client of the status page was too slow"),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    has_asked: Arc<AtomicBool>,
    settings: Arc<StatusSettings>,
    source: Arc<Source>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        has_asked.store(true, Ordering::Relaxed);
        let answer = route::answer(&request, &settings.names, &source);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(PAGE_HEAD_TIMEOUT);
    builder.max_headers(PAGE_HEAD_FIELDS_MAX).max_buf_size(PAGE_HEAD_BYTES_MAX);
    builder.serve_connection(TokioIo::new(stream), service).await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::super::tests::source;
    use super::*;

    fn place(has_asked: bool) -> (AbortHandle, Arc<AtomicBool>) {
        (tokio::spawn(pending::<()>()).abort_handle(), Arc::new(AtomicBool::new(has_asked)))
    }

    /// I4: there are never more than may be: the oldest that has said nothing makes room, and nobody who has asked does.
    #[tokio::test]
    async fn places_are_bounded_and_only_idle_ones_make_room() {
        let mut places = Places::default();
        for index in 0..PAGE_CONNECTIONS_MAX {
            assert!(places.make_room());
            places.0.push_back(place(![1, 3].contains(&index)));
        }
        let idle = [places.0[1].0.clone(), places.0[3].0.clone()];
        for (at, left) in [(0, [true, false]), (1, [true, true])] {
            assert!(places.make_room(), "somebody idle is there");
            tokio::task::yield_now().await;
            assert_eq!([idle[0].is_finished(), idle[1].is_finished()], left, "{at}: the oldest first");
            assert_eq!(places.0.len(), PAGE_CONNECTIONS_MAX - 1);
            places.0.push_back(place(true));
        }
        assert!(!places.make_room(), "everybody is being answered");
        places.0[7].0.abort();
        tokio::task::yield_now().await;
        assert!(places.make_room(), "who went has left its place");
    }

    /// I4: neither who says nothing nor who does not read what it asked for stays for ever.
    #[tokio::test]
    async fn a_connection_ends_whatever_its_peer_does() {
        for request in ["GET / HTT", "GET /style.css HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            socket2::SockRef::from(&ours).set_send_buffer_size(1).unwrap(); // as small as the kernel makes it
            theirs.writable().await.unwrap();
            assert_eq!(theirs.try_write(request.as_bytes()).unwrap(), request.len());
            let settings = StatusSettings { listen: StatusListen::Off, peers: Vec::new(), names: Vec::new() };
            let served = connection(Stream::Unix(ours), Duration::from_millis(50), Arc::default(), Arc::new(settings), source());
            assert!(timeout(Duration::from_secs(30), served).await.is_ok(), "{request}");
            drop(theirs);
        }
    }
}
