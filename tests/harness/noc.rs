//! A network operations centre: an HTTP server that takes notices, keeps what came, and can be told to refuse.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::net;

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
    came: Arc<Mutex<Vec<Came>>>,
    status: Arc<AtomicU16>,
    stop: Arc<AtomicBool>,
}

impl Noc {
    pub fn start() -> Self {
        let listener = TcpListener::bind(net::loopback(net::free_port())).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let (came, status, stop) = (Arc::<Mutex<Vec<Came>>>::default(), Arc::new(AtomicU16::new(200)), Arc::<AtomicBool>::default());
        let noc = Self { addr, came: Arc::clone(&came), status: Arc::clone(&status), stop: Arc::clone(&stop) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (came, status) = (Arc::clone(&came), status.load(Ordering::SeqCst));
                // a request that breaks off is none
                std::thread::spawn(move || {
                    let _ = answer(&stream, &came, status);
                });
            }
        });
        noc
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?token=s3cret", self.addr)
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

fn answer(stream: &TcpStream, came: &Mutex<Vec<Came>>, status: u16) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
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
    let mut stream = stream;
    // a redirect would lead back here, so that following it would be seen
    write!(stream, "HTTP/1.1 {status} x\r\nLocation: /elsewhere\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}
