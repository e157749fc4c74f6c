//! Who asks for metrics: HTTP/1.1 on loopback or a unix socket, `GET /metrics` and nothing else.
//!
//! The page is made when it is asked for. Bounded in connections, time and size of a request; above that a connection waits in the kernel's
//! queue. There is no authentication: an address other than loopback is for whoever trusts that network, and is warned of.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::metrics::Format;
use crate::limits::{LISTENER_RETRY, METRICS_CONNECTIONS_MAX, METRICS_DEADLINE, METRICS_HEAD_BYTES_MAX};
use crate::status::page::body::Whole;

/// Where metrics are to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl std::str::FromStr for Address {
    type Err = String;

    /// `9100` (loopback), `127.0.0.1:9100`, or `unix:/run/…/metrics.sock`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err("unix: needs a path".into()) } else { Ok(Self::Unix(path.into())) };
        }
        let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let address = text.parse().or_else(|_| text.parse().map(loopback));
        address.map(Self::Tcp).map_err(|_| "must be a port, address:port, or unix:PATH".into())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}/metrics"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An open port.
#[derive(Debug)]
pub struct Port(Listener);

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Port {
    pub async fn open(address: &Address) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{address}: cannot listen: {error}");
        match address {
            Address::Tcp(tcp) => {
                if !tcp.ip().is_loopback() {
                    tracing::warn!("{address}: whoever reaches this address can read the state of the fleet; metrics have no password");
                }
                Ok(Self(Listener::Tcp(TcpListener::bind(tcp).await.map_err(failed)?)))
            }
            Address::Unix(path) => {
                // One that was left behind answers nobody; one that answers is not ours to take.
                if tokio::net::UnixStream::connect(path).await.is_ok() {
                    return Err(format!("{address}: somebody listens there already"));
                }
                if let Err(error) = std::fs::remove_file(path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    return Err(failed(error));
                }
                let listener = UnixListener::bind(path).map_err(failed)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
                Ok(Self(Listener::Unix(listener)))
            }
        }
    }

    /// Answers until it is dropped.
    pub async fn serve(self, page: impl Fn(Format) -> String + Send + Sync + 'static) {
        let (page, room) = (Arc::new(page), Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX)));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let page = Arc::clone(&page);
            let accepted = match &self.0 {
                Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(async move {
                        let _permit = permit;
                        exchange(stream, page).await;
                    })
                }),
                Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(async move {
                        let _permit = permit;
                        exchange(stream, page).await;
                    })
                }),
            };
            if let Err(error) = accepted {
                tracing::warn!("metrics: a connection could not be taken: {error}");
                sleep(LISTENER_RETRY).await;
            }
        }
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, page: Arc<impl Fn(Format) -> String>) {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let format = Format::asked(accept);
        let (status, body) = match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => (200, page(format)),
            (&Method::GET, _) => (404, "there is /metrics here, and nothing else\n".to_owned()),
            _ => (405, "GET /metrics\n".to_owned()),
        };
        let content_type = if status == 200 { format.content_type() } else { "text/plain; charset=utf-8" };
        let mut response = Response::new(Whole::new(body));
        *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(METRICS_DEADLINE).max_buf_size(METRICS_HEAD_BYTES_MAX);
    // A scraper that went away asks again; one that is slow is cut off.
    let _ = timeout(METRICS_DEADLINE, builder.serve_connection(TokioIo::new(stream), service)).await;
}
