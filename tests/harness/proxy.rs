//! An HTTP proxy as hospitals have them: opens tunnels by CONNECT, or does not, in every way that proxies have of not doing it.
//!
//! Whatever host a client asks for, the tunnel leads to the one target: names of the outside mean nothing on loopback. What was asked for is kept.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::pki::Identity;

/// What it does with a CONNECT.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Opens the tunnel.
    Fair,
    /// Opens it and says what time it is.
    Dates(&'static str),
    /// Opens it for whoever proves to be `user:password` (in base64).
    Asks(&'static str),
    /// Answers with this status line and these headers.
    Refuses(&'static str),
    /// Answers with a header that does not end.
    Endless,
    /// Takes the request and says nothing.
    Hangs,
    /// Takes the request and closes.
    Closes,
    /// Ends TLS itself, with this certificate and, if given, only for this ALPN name; passes on what is inside.
    Ends(Identity, Option<&'static str>),
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    manner: Mutex<Manner>,
    /// Lines and headers of the requests, without what they prove themselves by.
    asked: Mutex<Vec<String>>,
    /// Grows when the manner changes: tunnels that stand end.
    era: watch::Sender<u64>,
}

/// A proxy on its own port.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Proxy {
    pub fn start(target: SocketAddr, manner: Manner) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let addr = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared { target, manner: Mutex::new(manner), asked: Mutex::default(), era: watch::channel(0).0 });
        let serving = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let mut era = shared.era.subscribe();
                    tokio::select! {
                        _ended = serve(client, &shared) => {}
                        _changed = era.changed() => {}
                    }
                });
            }
        });
        Self { addr, shared, runtime: Some(runtime) }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// For `[uplink] proxy`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Tunnels that stand end.
    pub fn set(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
        self.shared.era.send_modify(|era| *era += 1);
    }

    /// The request lines so far.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An error means that a client or the target went away.
async fn serve(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = BufReader::new(client);
    let (mut line, mut proof) = (String::new(), None);
    client.read_line(&mut line).await?;
    shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(line.trim_end().to_owned());
    loop {
        let mut header = String::new();
        client.read_line(&mut header).await?;
        match header.trim_end() {
            "" => break,
            header => proof = header.strip_prefix("Proxy-Authorization: Basic ").map(str::to_owned).or(proof),
        }
    }
    let manner = shared.manner.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match manner {
        Manner::Asks(wanted) if proof.as_deref() != Some(wanted) => {
            client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n").await
        }
        Manner::Fair | Manner::Asks(_) | Manner::Dates(_) => {
            let mut target = TcpStream::connect(shared.target).await?;
            let date = if let Manner::Dates(date) = manner { format!("Date: {date}\r\n") } else { String::new() };
            opened(&mut client, &date).await?;
            copy_bidirectional(&mut client, &mut target).await.map(drop)
        }
        Manner::Refuses(answer) => client.write_all(format!("{answer}\r\nContent-Length: 9\r\n\r\n<html>no\n").as_bytes()).await,
        Manner::Endless => loop {
            client.write_all(b"HTTP/1.1 200 OK\r\nX-More: and more and more and more\r\n").await?;
        },
        Manner::Hangs => std::future::pending().await,
        Manner::Closes => Ok(()),
        Manner::Ends(identity, alpn) => {
            opened(&mut client, "").await?;
            let mut inside = TlsAcceptor::from(server(&identity, alpn)).accept(client).await?;
            let mut target = TcpStream::connect(shared.target).await?;
            copy_bidirectional(&mut inside, &mut target).await.map(drop)
        }
    }
}

async fn opened(client: &mut (impl AsyncRead + AsyncWrite + Unpin), header: &str) -> std::io::Result<()> {
    client.write_all(format!("HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n{header}\r\n").as_bytes()).await
}

fn server(identity: &Identity, alpn: Option<&str>) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_file(&identity.cert).expect("the certificate")];
    let key = PrivateKeyDer::from_pem_file(&identity.key).expect("its key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the library knows its versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    config.alpn_protocols = alpn.map(|name| name.as_bytes().to_vec()).into_iter().collect();
    Arc::new(config)
}
