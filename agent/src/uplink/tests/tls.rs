//! The uplink over TLS: who is accepted, who is not, and what is said then.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::broker::Broker;
use super::{Site, settings, timing};
use crate::clock::dates;
use crate::config::settings::{ClientIdentity, Endpoint, TlsKeySource, UplinkSettings};
use crate::uplink::UplinkEvent;
use crate::uplink::tls::{self, TlsError, TlsFiles};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        Self::named("hub")
    }

    fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key, as PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// The files of one gateway.
struct Files(TempDir);

impl Files {
    fn new(ca: &Authority, (cert, key): (String, String)) -> Self {
        let files = Self(TempDir::new().unwrap());
        std::fs::write(files.path("ca.pem"), &ca.pem).unwrap();
        files.renew((cert, key));
        files
    }

    fn renew(&self, (cert, key): (String, String)) {
        std::fs::write(self.path("gateway.pem"), cert).unwrap();
        std::fs::write(self.path("gateway.key"), key).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn tls_files(&self) -> TlsFiles {
        TlsFiles { ca: self.path("ca.pem").into(), cert: Some(self.path("gateway.pem")), key: Some(self.path("gateway.key")) }
    }

    fn settings(&self, endpoint: Endpoint) -> UplinkSettings {
        let TlsFiles { cert, key, .. } = self.tls_files();
        UplinkSettings { ca: Some(self.path("ca.pem")), cert, key: key.map(TlsKeySource::File), ..settings(vec![endpoint], 10) }
    }
}

/// A TLS front before the broker that asks for certificates of `clients`.
async fn front(
    broker: &Broker,
    clients: &Authority,
    (cert, key): (String, String),
    version: &'static SupportedProtocolVersion,
) -> Endpoint {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = broker.endpoint.port;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                // How a connection ends is the test's business.
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    Endpoint::new("127.0.0.1", port, true)
}

#[tokio::test]
async fn a_gateway_with_a_certificate_of_the_hub_gets_in() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let (broker, ca) = (Broker::start().await, Authority::new());
        let files = Files::new(&ca, ca.issue("gateway"));
        let endpoint = front(&broker, &ca, ca.issue("127.0.0.1"), version).await;
        let mut site = Site::start_as(files.settings(endpoint), timing());
        let mut client = broker.welcome(|_| {}).await;
        site.up().await;
        site.publish(1).unwrap();
        let publish = client.publish().await;
        client.puback(publish.pkid, PubAckReason::Success).await;
        assert_eq!(site.acked().await.0, 1);
    }
}

#[tokio::test]
async fn an_endpoint_that_brings_its_own_ca_is_checked_against_that_alone() {
    let (broker, ours, theirs) = (Broker::start().await, Authority::new(), Authority::named("theirs"));
    let files = Files::new(&ours, theirs.issue("gateway"));
    let endpoint = front(&broker, &theirs, theirs.issue("127.0.0.1"), &rustls::version::TLS13).await;
    let mut settings = files.settings(endpoint.clone());
    settings.endpoints = vec![endpoint.added(Some(theirs.pem.as_str().into()))];
    let mut site = Site::start_as(settings, timing());
    let _client = broker.welcome(|_| {}).await;
    site.up().await;
}

#[tokio::test]
async fn a_candidate_certificate_that_is_refused_gives_way_to_the_one_in_use() {
    let (broker, ca) = (Broker::start().await, Authority::new());
    let files = Files::new(&ca, ca.issue("gateway"));
    let endpoint = front(&broker, &ca, ca.issue("127.0.0.1"), &rustls::version::TLS13).await;
    let (cert, key) = Authority::named("stranger").issue("gateway");
    let identity = ClientIdentity { cert: files.path("candidate.pem"), key: files.path("candidate.key"), is_candidate: true };
    std::fs::write(&identity.cert, cert).unwrap();
    std::fs::write(&identity.key, key).unwrap();
    let mut settings = files.settings(endpoint.clone());
    settings.endpoints = vec![endpoint.clone().with_identity(identity), endpoint.clone()];
    let mut site = Site::start_as(settings, timing());
    let _client = broker.welcome(|_| {}).await;
    match site.event().await {
        UplinkEvent::Up { endpoint: found, .. } => assert_eq!(found, endpoint),
        other => panic!("{other:?}"),
    }
}

/// In TLS 1.3 a refusal comes only after the handshake.
#[tokio::test]
async fn a_refused_certificate_is_told_and_a_renewed_one_is_used_without_a_restart() {
    // A CA of another name, and one of the same name with another key.
    for (version, other) in [(&rustls::version::TLS13, "x"), (&rustls::version::TLS13, "hub"), (&rustls::version::TLS12, "x")] {
        let (broker, ca) = (Broker::start().await, Authority::new());
        let files = Files::new(&ca, Authority::named(other).issue("gateway"));
        let endpoint = front(&broker, &ca, ca.issue("127.0.0.1"), version).await;
        let mut site = Site::start_as(files.settings(endpoint), timing());
        site.until("uplink_refused is raised", |site| site.conditions().contains(&"uplink_refused")).await;
        let text = site.board.conditions().iter().find(|known| known.code == "uplink_refused").unwrap().text.clone();
        assert!(text.contains("the broker does not accept our certificate") && text.contains("renew `cert` and `key`"), "{text}");
        files.renew(ca.issue("gateway"));
        let _client = broker.welcome(|_| {}).await;
        site.up().await;
        assert!(!site.conditions().contains(&"uplink_refused"));
    }
}

async fn down_because(hub: (String, String), files: &Files, ca: &Authority) -> String {
    let broker = Broker::start().await;
    let endpoint = front(&broker, ca, hub, &rustls::version::TLS13).await;
    let site = Site::start_as(files.settings(endpoint), timing());
    site.until("uplink_down is raised", |site| site.conditions() == ["uplink_down"]).await;
    site.board.conditions()[0].text.clone()
}

#[tokio::test]
async fn a_broker_of_another_ca_is_not_trusted() {
    let ca = Authority::new();
    let files = Files::new(&ca, ca.issue("gateway"));
    for other in ["x", "hub"] {
        let text = down_because(Authority::named(other).issue("127.0.0.1"), &files, &ca).await;
        // One of the same name has another key, and cannot be told by its name.
        let said = if other == "x" { "it was not issued by our CA but by \"x\"" } else { "it was not issued by our CA" };
        assert!(text.contains(&format!("the broker's certificate is not accepted: {said}; check `ca`")), "{text}");
    }
}

#[tokio::test]
async fn a_broker_with_the_certificate_of_another_host_is_not_trusted() {
    let ca = Authority::new();
    let files = Files::new(&ca, ca.issue("gateway"));
    let text = down_because(ca.issue("other.example.org"), &files, &ca).await;
    assert!(text.contains("it is for another host name"), "{text}");
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let ca = Authority::new();
    let files = Files::new(&ca, ca.issue("gateway"));
    std::fs::remove_file(files.path("gateway.key")).unwrap();
    let text = down_because(ca.issue("127.0.0.1"), &files, &ca).await;
    assert!(text.contains("gateway.key: cannot be read; check that the file exists"), "{text}");
}

#[test]
fn unusable_files_are_named_with_what_to_do() {
    let ca = Authority::new();
    let files = Files::new(&ca, ca.issue("gateway"));
    assert!(tls::client_config(&files.tls_files()).is_ok());
    let says = |files: TlsFiles| tls::client_config(&files).unwrap_err().to_string();
    assert!(says(TlsFiles { key: None, ..files.tls_files() }).contains("belong together"));
    assert!(says(TlsFiles { ca: files.path("gateway.key").into(), ..files.tls_files() }).contains("gateway.key: holds no certificate"));
    std::fs::write(files.path("ca.pem"), "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    assert!(matches!(tls::client_config(&files.tls_files()), Err(TlsError::Pem { .. })));
    std::fs::write(files.path("ca.pem"), &ca.pem).unwrap();
    std::fs::write(files.path("gateway.key"), ca.issue("gateway").1).unwrap();
    assert!(says(files.tls_files()).contains("the key must be the one the certificate was made for"));
}

/// I10: a box that wakes up in 1970 still reaches its hub, and nobody else.
#[test]
fn dates_alone_do_not_refuse_the_hub_while_our_clock_is_not_believed() {
    let ca = Authority::new();
    let files = Files::new(&ca, ca.issue("gateway"));
    let inner = tls::verifier(&files.path("ca.pem").into(), &Arc::new(ring::default_provider())).unwrap();
    let check = |believed, name: &'static str, at, hub: &Authority| {
        let certificate = CertificateDer::from_pem_slice(hub.issue("hub.example.org").0.as_bytes()).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let verify = |at| inner.verify_server_cert(&certificate, &[], &name, &[], at);
        dates::judge(believed, UnixTime::since_unix_epoch(std::time::Duration::from_secs(at)), None, verify).is_ok()
    };
    let (epoch, never) = (0, 400_000_000_000);
    for at in [epoch, never] {
        assert!(!check(true, "hub.example.org", at, &ca));
        assert!(check(false, "hub.example.org", at, &ca));
        assert!(!check(false, "other.example.org", at, &ca));
        assert!(!check(false, "hub.example.org", at, &Authority::new()));
    }
}
