//! A proxy that inspects TLS, as hospitals have them: it ends the TLS of whoever connects with a certificate of its own authority.
//!
//! It hands nothing on: who accepts its certificate has lost already, and every byte it could read is counted.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::net;
use crate::pki::Pki;

/// See the module. Ends with its handle.
#[derive(Debug)]
pub struct Inspector {
    addr: SocketAddr,
    connections: Arc<AtomicU64>,
    read: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Inspector {
    /// One whose authority is called `name`.
    pub fn start(directory: &Path, name: &str) -> Self {
        let pki = Pki::new(directory, name);
        let server = pki.server();
        let chain = vec![CertificateDer::from_pem_file(&server.cert).expect("its certificate")];
        let key = PrivateKeyDer::from_pem_file(&server.key).expect("its key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the library knows its versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they belong together");
        let config = Arc::new(config);
        let listener = TcpListener::bind(net::loopback(net::free_port())).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let (connections, read, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let inspector = Self { addr, connections: Arc::clone(&connections), read: Arc::clone(&read), stop: Arc::clone(&stop) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                let (config, read) = (Arc::clone(&config), Arc::clone(&read));
                std::thread::spawn(move || inspect(stream, config, &read));
            }
        });
        inspector
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Bytes that it could read in clear.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // wakes the loop; one that cannot be reached has ended
        let _ = TcpStream::connect(self.addr);
    }
}

fn inspect(stream: TcpStream, config: Arc<ServerConfig>, read: &AtomicU64) {
    // an error shows as a handshake that does not end
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let Ok(session) = ServerConnection::new(config) else { return };
    let mut stream = StreamOwned::new(session, stream);
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        read.fetch_add(n as u64, Ordering::SeqCst);
    }
}
