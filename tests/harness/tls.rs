//! A sender's side of TLS: connects to an MLLP listener with TLS as a hospital system does, with or without a certificate of its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::pki::Identity;
use crate::sender::Wire;

/// How a sender speaks TLS.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    /// Trusts `ca`; shows `identity` where it has one and is asked for it.
    pub fn new(ca: &Path, identity: Option<&Identity>) -> Self {
        Self::with_versions(ca, identity, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    pub fn with_versions(ca: &Path, identity: Option<&Identity>, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).expect("the CA's certificate")).expect("it is one");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("the library knows its versions")
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { cert, key }) => {
                let cert = CertificateDer::from_pem_file(cert).expect("the client's certificate");
                let key = PrivateKeyDer::from_pem_file(key).expect("the client's key");
                builder.with_client_auth_cert(vec![cert], key).expect("they belong together")
            }
        };
        Self { config: Arc::new(config) }
    }

    /// Connects and finishes this side of the handshake; reads and writes give up after `patience`. In TLS 1.3 a refusal of our certificate is
    /// seen only by the first read.
    pub fn connect(&self, addr: SocketAddr, patience: Duration) -> io::Result<Wire> {
        let socket = TcpStream::connect_timeout(&addr, patience)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        let name = ServerName::from(addr.ip());
        let connection = ClientConnection::new(self.config.clone(), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Wire::over(Stream::Tls(Box::new(stream))))
    }
}

/// What a [`Wire`] runs over.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// The server's certificate.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.conn.peer_certificates()?.first()?.to_vec()),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
