//! A real Mosquitto on loopback, with mutual TLS and, beside it, a plain listener for whoever only looks on.
//!
//! Killed and started again it comes back on the same ports. With `persistence: false` everything it knew is gone by then: sessions,
//! subscriptions, retained messages and whatever it had acknowledged but not delivered. That is on purpose (I2).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::net;
use crate::pki::{Identity, Pki};
use crate::process::Process;
use crate::wait;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub persistence: bool,
    /// Largest packet taken; 0 for no limit.
    pub packet_bytes_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { persistence: true, packet_bytes_max: 0 }
    }
}

#[derive(Debug)]
pub struct Mosquitto {
    directory: PathBuf,
    tls_port: u16,
    plain_port: u16,
    process: Option<Process>,
}

impl Mosquitto {
    /// Starts one whose server certificate `pki` issues and whose clients it must have issued too.
    pub fn start(directory: &Path, pki: &Pki, options: Options) -> Self {
        Self::start_with(directory, pki, options, "")
    }

    /// The same, with further lines for the TLS listener, whose users are the common names of certificates.
    pub fn start_with(directory: &Path, pki: &Pki, options: Options, lines: &str) -> Self {
        std::fs::create_dir_all(directory).expect("a directory for the broker");
        let mut broker =
            Self { directory: directory.to_path_buf(), tls_port: net::free_port(), plain_port: net::free_port(), process: None };
        let text = broker.configuration(pki, &pki.server(), options, lines);
        std::fs::write(broker.directory.join("mosquitto.conf"), text).expect("the broker's configuration is written");
        broker.restart();
        broker
    }

    /// Starts one whose TLS listener has this server certificate and is otherwise configured by these lines.
    pub fn start_with_listener(directory: &Path, server: &Identity, listener: &str) -> Self {
        std::fs::create_dir_all(directory).expect("a directory for the broker");
        let mut broker =
            Self { directory: directory.to_path_buf(), tls_port: net::free_port(), plain_port: net::free_port(), process: None };
        let user = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
        let text = format!(
            "{user}per_listener_settings true\npersistence true\npersistence_location {directory}/\nautosave_interval 1\n\
             max_queued_messages 0\nlog_dest stderr\nlistener {tls} 127.0.0.1\ncertfile {cert}\nkeyfile {key}\n{listener}\n\
             listener {plain} 127.0.0.1\nallow_anonymous true\n",
            directory = broker.directory.display(),
            tls = broker.tls_port,
            cert = server.cert.display(),
            key = server.key.display(),
            plain = broker.plain_port,
        );
        std::fs::write(broker.directory.join("mosquitto.conf"), text).expect("the broker's configuration is written");
        broker.restart();
        broker
    }

    /// SIGHUP: it reads its files again, as far as it does.
    pub fn reload(&self) {
        self.process.as_ref().expect("it runs").hang_up();
    }

    fn configuration(&self, pki: &Pki, server: &Identity, options: Options, lines: &str) -> String {
        let user = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
        format!(
            "{user}per_listener_settings true\n\
             persistence {persistence}\n\
             persistence_location {directory}/\n\
             autosave_interval 1\n\
             max_queued_messages 0\n\
             max_inflight_messages 0\n\
             max_packet_size {packet_bytes_max}\n\
             set_tcp_nodelay true\n\
             log_dest stderr\n\
             listener {tls} 127.0.0.1\n\
             cafile {ca}\ncertfile {cert}\nkeyfile {key}\n\
             require_certificate true\n\
             use_identity_as_username true\n\
             {lines}\
             listener {plain} 127.0.0.1\n\
             allow_anonymous true\n",
            persistence = options.persistence,
            directory = self.directory.display(),
            packet_bytes_max = options.packet_bytes_max,
            tls = self.tls_port,
            ca = pki.ca.display(),
            cert = server.cert.display(),
            key = server.key.display(),
            plain = self.plain_port,
        )
        .replace("max_packet_size 0\n", "")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// A clean stop: what persistence keeps is written.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate();
            process.ended(wait::SOON);
        }
    }

    /// Starts it on its ports (after [`Self::kill`] where it still runs).
    pub fn restart(&mut self) {
        self.kill();
        let log = self.directory.join("mosquitto.log");
        for _ in 0..20 {
            let program = if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
            let mut process = Process::start("mosquitto", Command::new(program).arg("-c").arg(self.directory.join("mosquitto.conf")), &log);
            let up = wait::try_until(Duration::from_secs(10), || !process.running() || net::listening(self.plain()));
            if up && process.running() && net::listening(self.tls()) {
                self.process = Some(process);
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("mosquitto does not start; its log ends with:\n{}", crate::process::tail(&log));
    }

    pub fn tls(&self) -> std::net::SocketAddr {
        net::loopback(self.tls_port)
    }

    pub fn plain(&self) -> std::net::SocketAddr {
        net::loopback(self.plain_port)
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the broker runs")
    }

    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("mosquitto.log")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Arc;

    use bytes::BytesMut;
    use rumqttc::v5::mqttbytes::v5::{Connect, ConnectReturnCode, Packet};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

    use super::*;

    /// Connects with this identity; what CONNACK says, or nothing where there is none.
    fn knock(broker: &Mosquitto, ca: &Path, identity: &Identity) -> Option<ConnectReturnCode> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_file(&identity.cert).unwrap()];
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&identity.key).unwrap())
            .unwrap();
        let session = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
        let mut stream = rustls::StreamOwned::new(session, TcpStream::connect(broker.tls()).unwrap());
        let connect = Connect { keep_alive: 30, client_id: "x".into(), clean_start: true, properties: None };
        let mut out = BytesMut::new();
        Packet::Connect(connect, None, None).write(&mut out, None).unwrap();
        stream.write_all(&out).ok()?;
        let mut unread = BytesMut::new();
        let mut buffer = [0u8; 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(n) => unread.extend_from_slice(&buffer[..n]),
            }
            if let Ok(Packet::ConnAck(connack)) = Packet::read(&mut unread, None) {
                return Some(connack.code);
            }
        }
    }

    #[test]
    fn only_clients_of_the_same_ca_are_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::new(&directory.path().join("pki"), "harness CA");
        let foreign = Pki::new(&directory.path().join("foreign"), "foreign CA");
        let broker = Mosquitto::start(&directory.path().join("broker"), &pki, Options::default());
        assert_eq!(knock(&broker, &pki.ca, &pki.client("gateway")), Some(ConnectReturnCode::Success));
        assert_eq!(knock(&broker, &pki.ca, &foreign.client("gateway")), None);
        assert_eq!(knock(&broker, &foreign.ca, &pki.client("gateway")), None);
    }
}
