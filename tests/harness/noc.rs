//! A network operations centre: an HTTP or HTTPS server that takes notices, keeps what came, and can be told to refuse.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::net;
use crate::pki::Identity;

/// One request.
#[derive(Clone, Debug)]
pub struct Came {
    /// The idempotency key of its header.
    pub key: String,
    pub authorization: String,
    pub path: String,
    pub body: Value,
    /// What it was answered with.
    pub status: u16,
}

/// See the module. Ends with its handle.
#[derive(Debug)]
pub struct Noc {
    addr: SocketAddr,
    tls: bool,
    came: Arc<Mutex<Vec<Came>>>,
    status: Arc<AtomicU16>,
    stop: Arc<AtomicBool>,
}

impl Noc {
    pub fn start() -> Self {
        Self::with(None)
    }

    /// One that is spoken to by TLS, as `server`.
    pub fn start_tls(server: &Identity) -> Self {
        let chain = vec![CertificateDer::from_pem_file(&server.cert).expect("its certificate")];
        let key = PrivateKeyDer::from_pem_file(&server.key).expect("its key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the library knows its versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they belong together");
        Self::with(Some(Arc::new(config)))
    }

    fn with(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(net::loopback(net::free_port())).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let (came, status, stop) = (Arc::<Mutex<Vec<Came>>>::default(), Arc::new(AtomicU16::new(200)), Arc::<AtomicBool>::default());
        let noc = Self { addr, tls: tls.is_some(), came: Arc::clone(&came), status: Arc::clone(&status), stop: Arc::clone(&stop) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (came, status, tls) = (Arc::clone(&came), status.load(Ordering::SeqCst), tls.clone());
                // a request that breaks off is none
                std::thread::spawn(move || {
                    let _ = serve(stream, tls, &came, status);
                });
            }
        });
        noc
    }

    pub fn url(&self) -> String {
        format!("{}://{}/hook?token=s3cret", if self.tls { "https" } else { "http" }, self.addr)
    }

    /// What requests are answered with from now on.
    pub fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Everything that came, in order.
    pub fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it took, as `kind code subject`.
    pub fn taken(&self) -> Vec<String> {
        let text = |body: &Value, name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let taken = self.came().into_iter().filter(|came| came.status < 300);
        taken.map(|came| format!("{} {} {}", text(&came.body, "kind"), text(&came.body, "code"), text(&came.body, "gateway"))).collect()
    }
}

impl Drop for Noc {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // wakes the loop; one that cannot be reached has ended
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, came: &Mutex<Vec<Came>>, status: u16) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    match tls {
        None => answer(stream, came, status),
        Some(config) => {
            let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
            answer(StreamOwned::new(session, stream), came, status)
        }
    }
}

fn answer(stream: impl Read + Write, came: &Mutex<Vec<Came>>, status: u16) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let (mut length, mut key, mut authorization) = (0, String::new(), String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "idempotency-key" => value.clone_into(&mut key),
            "authorization" => value.clone_into(&mut authorization),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    came.lock().unwrap_or_else(PoisonError::into_inner).push(Came { key, authorization, path, body, status });
    let mut stream = reader.into_inner();
    // a redirect would lead back here, so that following it would be seen
    write!(stream, "HTTP/1.1 {status} x\r\nLocation: /elsewhere\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")?;
    stream.flush()
}
