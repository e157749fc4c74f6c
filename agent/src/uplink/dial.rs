//! From an endpoint to a stream one may speak MQTT on: names, TCP, TLS, each failure told apart.
//!
//! One call is one attempt under one deadline. Every address the name has is tried in turn with a fair part of the time left, so that a
//! black-holed IPv6 route does not hide a working IPv4 one. Nothing is retried here and nothing is logged: the caller decides.
//!
//! Where a proxy is configured, endpoints with TLS are reached through it (`proxy`): names and TCP are then the proxy's, TLS is the broker's all
//! the same. A [`Trace`] keeps how far an attempt came, for `preflight`.
//!
//! The sentence of an error names the endpoint and what to do; the cause (`source`) is the system's or the TLS library's own words.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use rustls::{AlertDescription, CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::proxy::{self, ProxyError};
use super::tls::{self, ForeignIssuer};
use crate::config::settings::{Endpoint, Proxy};
use crate::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, UPLINK_UNSENT_BYTES, UPLINK_USER_TIMEOUT};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{endpoint}: the host name cannot be resolved; check the name and the DNS servers of this gateway")]
    Dns { endpoint: Endpoint, source: io::Error },
    #[error("{endpoint}: the host name has no address; check the name and its DNS records")]
    NoAddress { endpoint: Endpoint },
    #[error("{endpoint}: {address} refuses connections; check that the broker runs and that the port is right")]
    Refused { endpoint: Endpoint, address: SocketAddr },
    #[error("{endpoint}: no answer in time while {waiting}; check the WAN, the firewall and that the broker runs")]
    Timeout { endpoint: Endpoint, waiting: Waiting },
    #[error("{endpoint}: no connection to {address}; check the network and the routes of this gateway")]
    Unreachable { endpoint: Endpoint, address: SocketAddr, source: io::Error },
    #[error("{endpoint}: the proxy {proxy} {error}")]
    Proxy { endpoint: Endpoint, proxy: String, error: ProxyError },
    #[error("{endpoint}: TLS is asked for but no CA file is configured; set `ca` under [uplink]")]
    NoTls { endpoint: Endpoint },
    #[error("{endpoint}: not a name or address that a certificate can be checked against; correct the endpoint")]
    ServerName { endpoint: Endpoint },
    #[error(
        "{endpoint}: the broker's certificate is not accepted: {}; check `ca` under [uplink], the host name, and this gateway's clock",
        certificate_fault(error)
    )]
    ServerCertificate { endpoint: Endpoint, error: CertificateError },
    #[error("{endpoint}: the broker does not accept our certificate ({}); renew `cert` and `key` under [uplink] or register them at the broker", alert_name(*alert))]
    ClientCertificate { endpoint: Endpoint, alert: AlertDescription },
    #[error("{endpoint}: the TLS handshake failed; check that the port speaks TLS and which versions the broker allows")]
    Tls { endpoint: Endpoint, source: io::Error },
    #[error("{}: the local socket of the uplink cannot be made; the directory must exist, be ours, and its path be short", path.display())]
    Local { path: PathBuf, source: io::Error },
}

impl DialError {
    /// Whether time alone will not mend it.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoTls { .. } | Self::ServerName { .. } | Self::ServerCertificate { .. } | Self::ClientCertificate { .. } => true,
            Self::Proxy { error, .. } => error.is_permanent(),
            Self::Dns { .. }
            | Self::NoAddress { .. }
            | Self::Refused { .. }
            | Self::Timeout { .. }
            | Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::Local { .. } => false,
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    Name,
    Tcp,
    Proxy,
    Handshake,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Name => "resolving the host name",
            Self::Tcp => "connecting",
            Self::Proxy => "waiting for the answer to CONNECT",
            Self::Handshake => "waiting for the TLS handshake",
        })
    }
}

/// The fault in words; the library's own text repeats the certificate's names at length.
pub(crate) fn certificate_fault(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet".into(),
        // The latter: a CA of the same name with another key, for instance one that was made anew.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "it was not issued by our CA".into(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => "it is for another host name".into(),
        CertificateError::Revoked => "it has been revoked".into(),
        CertificateError::Other(other) if other.0.is::<ForeignIssuer>() => other.0.to_string(),
        other => format!("{other:?}").chars().take(120).collect(),
    }
}

/// Whether a certificate was refused because another CA issued it.
pub(crate) fn is_of_another_ca(error: &CertificateError) -> bool {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => true,
        CertificateError::Other(other) => other.0.is::<ForeignIssuer>(),
        _ => false,
    }
}

fn alert_name(alert: AlertDescription) -> &'static str {
    alert.as_str().unwrap_or("an alert the standard does not name")
}

/// What an I/O error of a TLS stream means, where TLS is the reason.
pub(super) fn tls_fault(endpoint: &Endpoint, error: &io::Error) -> Option<DialError> {
    use AlertDescription as Alert;
    let endpoint = endpoint.clone();
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(error) => Some(DialError::ServerCertificate { endpoint, error: error.clone() }),
        rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError // the signature on ours does not fit the broker's CA
            | Alert::CertificateRequired
            | Alert::NoCertificate),
        ) => Some(DialError::ClientCertificate { endpoint, alert: *alert }),
        other => Some(DialError::Tls { endpoint, source: io::Error::other(other.clone()) }),
    }
}

/// Bytes the kernel took and gave. Counted below TLS, so that a slow line that moves can be told from one that does not.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// A TCP stream that counts.
#[derive(Debug)]
pub(super) struct Counted {
    stream: TcpStream,
    traffic: Arc<Traffic>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.traffic.received.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl Counted {
    fn count_sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &polled {
            self.traffic.sent.fetch_add(*count as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count_sent(polled)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.count_sent(polled)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A stream to the broker.
#[derive(Debug)]
pub(super) enum Line {
    Plain(Counted),
    Tls(Box<TlsStream<Counted>>),
}

/// How an endpoint is reached.
#[derive(Clone, Debug)]
pub(super) struct Way<'a> {
    pub endpoint: &'a Endpoint,
    pub proxy: Option<&'a Proxy>,
    pub tls: Option<Arc<ClientConfig>>,
}

/// How far an attempt came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    /// Of the endpoint's host, or of the proxy's.
    pub addresses: Vec<SocketAddr>,
    /// Both ends of the TCP connection.
    pub tcp: Option<(SocketAddr, SocketAddr)>,
    /// The time that the proxy told when it opened a tunnel, in seconds since 1970.
    pub told: Option<i64>,
}

/// Why there is no TCP connection.
#[derive(Debug)]
pub(super) enum NoTcp {
    Dns(io::Error),
    NoAddress,
    Refused(SocketAddr),
    Timeout(Waiting),
    Unreachable(SocketAddr, io::Error),
}

impl NoTcp {
    fn of(self, endpoint: &Endpoint) -> DialError {
        let endpoint = endpoint.clone();
        match self {
            Self::Dns(source) => DialError::Dns { endpoint, source },
            Self::NoAddress => DialError::NoAddress { endpoint },
            Self::Refused(address) => DialError::Refused { endpoint, address },
            Self::Timeout(waiting) => DialError::Timeout { endpoint, waiting },
            Self::Unreachable(address, source) => DialError::Unreachable { endpoint, address, source },
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

pub(super) async fn dial(way: Way<'_>, traffic: &Arc<Traffic>, deadline: Instant, trace: &mut Trace) -> Result<Line, DialError> {
    let Way { endpoint, proxy, tls } = way;
    // What can be known without the network is said first.
    let secure = match (endpoint.tls, tls) {
        (false, _) => None,
        (true, None) => return Err(DialError::NoTls { endpoint: endpoint.clone() }),
        (true, Some(config)) => {
            let name = ServerName::try_from(endpoint.host.clone()).map_err(|_| DialError::ServerName { endpoint: endpoint.clone() })?;
            Some((TlsConnector::from(tls::for_port(config, endpoint.port)), name))
        }
    };
    let Some((connector, name)) = secure else {
        let stream = connect(&endpoint.host, endpoint.port, deadline, trace).await.map_err(|why| why.of(endpoint))?;
        return Ok(Line::Plain(Counted { stream, traffic: traffic.clone() }));
    };
    let tcp = match proxy {
        None => connect(&endpoint.host, endpoint.port, deadline, trace).await.map_err(|why| why.of(endpoint)),
        Some(proxy) => tunnel(endpoint, proxy, deadline, trace).await.map_err(|error| DialError::Proxy {
            endpoint: endpoint.clone(),
            proxy: proxy.to_string(),
            error,
        }),
    };
    let tcp = Counted { stream: tcp?, traffic: traffic.clone() };
    match timeout_at(deadline, connector.connect(name, tcp)).await {
        Ok(Ok(stream)) => Ok(Line::Tls(Box::new(stream))),
        Ok(Err(source)) => Err(tls_fault(endpoint, &source).unwrap_or_else(|| DialError::Tls { endpoint: endpoint.clone(), source })),
        Err(_) => Err(DialError::Timeout { endpoint: endpoint.clone(), waiting: Waiting::Handshake }),
    }
}

/// A way through the proxy to the endpoint.
async fn tunnel(endpoint: &Endpoint, proxy: &Proxy, deadline: Instant, trace: &mut Trace) -> Result<TcpStream, ProxyError> {
    let mut stream = connect(&proxy.host, proxy.port, deadline, trace).await?;
    let answer = proxy::open(&mut stream, proxy, endpoint, deadline).await?;
    trace.told = answer.date;
    Ok(stream)
}

async fn connect(host: &str, port: u16, deadline: Instant, trace: &mut Trace) -> Result<TcpStream, NoTcp> {
    let addresses: Vec<SocketAddr> = match timeout_at(deadline, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(NoTcp::Dns(error)),
        Err(_) => return Err(NoTcp::Timeout(Waiting::Name)),
    };
    trace.addresses.clone_from(&addresses);
    let mut failure = NoTcp::NoAddress;
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / (addresses.len() - tried) as u32;
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => match tune(&stream) {
                Ok(()) => {
                    trace.tcp = stream.local_addr().ok().map(|local| (local, *address));
                    return Ok(stream);
                }
                Err(source) => failure = NoTcp::Unreachable(*address, source),
            },
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => failure = NoTcp::Refused(*address),
            Ok(Err(source)) => failure = NoTcp::Unreachable(*address, source),
            Err(_) => failure = NoTcp::Timeout(Waiting::Tcp),
        }
    }
    Err(failure)
}

/// A dead line must be noticed, a slow one must not hold more than it has to, and an acknowledgement must not wait for company.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UPLINK_USER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(UPLINK_UNSENT_BYTES)
}
