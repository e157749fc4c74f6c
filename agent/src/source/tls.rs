//! TLS of one listener: certificate files in, proven connections out.
//!
//! ```text
//! bind ── load ──► ServerConfig ◄── watch: every LISTENER_TLS_INTERVAL, when a file changed ── load again
//!                      │ taken by each new connection; running ones keep theirs
//! accept ─► task: handshake, at most TLS_HANDSHAKE_TIMEOUT ─► the source's connection
//!                                └ failed: counted, told with what to do, closed
//! ```
//!
//! 1. The handshake runs in the connection's task: a slow one holds up nobody.
//! 2. Files that changed and cannot be used leave the old ones in place: condition `feed_certificate_invalid`, raised at the second look,
//!    because replacing certificate and key takes two steps. They are tried again at every look.
//! 3. With `client_ca` every sender must prove itself; with `client_subjects` it must also be one of those (see `certificate`). While our own
//!    clock cannot be believed dates alone refuse nobody (I10). Nothing is resumed: every connection is proven anew, under the files of today.
//! 4. *ring* is named as the provider here, never the process default. TLS 1.3 and 1.2.

pub(crate) mod certificate;
mod refusal;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::certificate::Names;
pub use self::refusal::{Refusals, Told};
use self::refusal::{SubjectUnknown, reason};
use crate::clock;
use crate::clock::dates::{self, OwnTime, Whose};
use crate::config::files::{self, Secret};
use crate::config::settings::{ClientSubject, ListenerTls, TlsKeySource};
use crate::limits::{CERTIFICATE_NOTICE, CERTIFICATE_STEPS_DAYS, LISTENER_TLS_INTERVAL, TLS_HANDSHAKE_TIMEOUT};
use crate::record::FeedId;
use crate::source::oddity::Oddity;
use crate::status::board::Board;
use crate::status::condition::Code;

/// TLS of one listener, shared by its connections.
#[derive(Debug)]
pub struct Tls {
    feed: FeedId,
    board: Arc<Board>,
    files: TlsFiles,
    handshake_timeout: Duration,
    look_interval: Duration,
    current: Mutex<Current>,
    refusals: Refusals,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Failed {
    Refused(Oddity, String),
    Gone(std::io::Error),
}

/// The name a client's certificate gives it.
pub fn client_name(stream: &TlsStream<TcpStream>) -> Option<String> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    Names::of(certificate).one().map(str::to_owned)
}

/// What new connections use, and what is known of the files.
#[derive(Debug)]
struct Current {
    loaded: Loaded,
    /// The files it was read from.
    read_from: Marks,
    /// Other files that could not be used.
    failed: Option<Marks>,
}

#[derive(Clone, Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// Seconds since 1970.
    not_after: Option<i64>,
}

#[derive(Clone, Debug)]
struct TlsFiles {
    cert: PathBuf,
    key: TlsKeySource,
    client_ca: Option<PathBuf>,
    client_subjects: Vec<ClientSubject>,
}

/// Tells whether files changed: of each file device, inode, length, and the times of content and of inode (which also moves when only the
/// mode is mended, or when a copy keeps the old file's date). `None`: not there.
type Marks = Vec<Option<Mark>>;
pub type Mark = (u64, u64, u64, (i64, i64), (i64, i64));

/// Changes when the file does.
pub fn mark(path: &Path) -> Option<Mark> {
    let m = std::fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.len(), (m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec())))
}

impl TlsFiles {
    fn new(settings: ListenerTls) -> Self {
        let ListenerTls { cert, key, client_ca, client_subjects } = settings;
        Self { cert, key, client_ca, client_subjects }
    }

    fn marks(&self) -> Marks {
        let key = match &self.key {
            TlsKeySource::File(path) => vec![mark(path)],
            TlsKeySource::Credential(secret) => secret.marks(),
        };
        [mark(&self.cert)].into_iter().chain(key).chain(self.client_ca.iter().map(|path| mark(path))).collect()
    }

    /// Reads everything anew. The error is a sentence that names the file.
    fn load(&self) -> Result<Loaded, String> {
        let of = |path: &Path, key: &'static str| {
            let path = path.display().to_string();
            move |why: String| format!("`{key}` ({path}) {why}")
        };
        let chain = files::certificates(&self.cert).map_err(of(&self.cert, "cert"))?;
        let not_after = certificate::not_after(&chain[0]);
        let pair = match &self.key {
            TlsKeySource::File(path) => {
                files::private_key(path, Secret::File).and_then(|key| files::pair(chain, key, "`cert`")).map_err(of(path, "key"))?
            }
            TlsKeySource::Credential(secret) => secret
                .read()
                .and_then(|value| files::private_key_of(&value))
                .and_then(|key| files::pair(chain, key, "`cert`"))
                .map_err(|why| format!("`credential` {why}"))?,
        };
        let builder = ServerConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(OwnTime))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| format!("the TLS library refuses its own protocol versions ({error}); please report it"))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(files::authorities(path).map_err(of(path, "client_ca"))?);
                let inner = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(ring::default_provider()))
                    .build()
                    .map_err(|error| format!("`client_ca` ({}) cannot be used: {error}", path.display()))?;
                builder.with_client_cert_verifier(Arc::new(Doorkeeper { inner, subjects: self.client_subjects.clone() }))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.send_tls13_tickets = 0;
        Ok(Loaded { config: Arc::new(config), not_after })
    }
}

impl Tls {
    /// Reads the files for the first time.
    pub fn open(settings: ListenerTls, feed: FeedId, board: Arc<Board>) -> Result<Arc<Self>, String> {
        let files = TlsFiles::new(settings);
        let read_from = files.marks();
        let loaded = files.load()?;
        let tls = Self {
            feed,
            board,
            files,
            handshake_timeout: TLS_HANDSHAKE_TIMEOUT,
            look_interval: LISTENER_TLS_INTERVAL,
            current: Mutex::new(Current { loaded, read_from, failed: None }),
            refusals: Refusals::default(),
        };
        tls.tell_end();
        Ok(Arc::new(tls))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether clients prove themselves.
    pub fn asks_for_certificates(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// Takes a connection through its handshake.
    pub async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Failed> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current().loaded.config));
        match timeout(self.handshake_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(reason(&error).map_or(Failed::Gone(error), |(oddity, detail)| Failed::Refused(oddity, detail))),
            Err(_) => Err(Failed::Refused(Oddity::HandshakeTimeout, String::new())),
        }
    }

    /// Tells why a handshake failed; of a connection that just went away only the log for developers.
    pub fn tell(&self, failed: &Failed, to: &Told<'_>, peer: &str) {
        match failed {
            Failed::Refused(oddity, detail) => self.refusals.tell(to, *oddity, peer, detail),
            Failed::Gone(error) => tracing::debug!(feed = %self.feed, %peer, %error, "connection ended in its TLS handshake"),
        }
    }

    /// Looks after the files for as long as the listener lives.
    pub async fn watch(self: Arc<Self>) {
        let mut looks = interval(self.look_interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let tls = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || tls.look()).await.is_err() {
                tracing::error!(feed = %self.feed, "looking after the certificate failed by a defect of the agent; it is tried again");
            }
        }
    }

    fn look(&self) {
        let marks = self.files.marks();
        let (known, failed) = {
            let current = self.current();
            (current.read_from == marks, current.failed.as_ref() == Some(&marks))
        };
        if !known {
            self.renew(marks, failed);
        } else if self.current().failed.take().is_some() {
            self.board.clear(Code::FeedCertificateInvalid, self.feed.as_str()); // the old files are back
        }
        self.tell_end();
    }

    /// `failed`: these very files could not be used before.
    fn renew(&self, marks: Marks, failed: bool) {
        match self.files.load() {
            Ok(loaded) => {
                *self.current() = Current { loaded, read_from: marks, failed: None };
                self.board.clear(Code::FeedCertificateInvalid, self.feed.as_str());
                tracing::info!(feed = %self.feed, "certificate files changed; new connections use them, running ones are not touched");
            }
            Err(why) => {
                self.current().failed = Some(marks);
                if failed {
                    let text = format!("the changed certificate files cannot be used, the old ones stay in use: {why}");
                    self.board.raise(Code::FeedCertificateInvalid, self.feed.as_str(), text);
                }
            }
        }
    }

    /// Raises or ends the condition about the end of the certificate.
    fn tell_end(&self) {
        let now = clock::now();
        let Some(end) = self.current().loaded.not_after.filter(|_| !now.suspect) else { return };
        let now = now.unix_ms / 1000;
        let urgent = end.saturating_sub(now) <= CERTIFICATE_STEPS_DAYS[2] * 24 * 3600;
        let (due, other) = if urgent {
            (Code::CertificateEnding, Code::FeedCertificateExpiring)
        } else {
            (Code::FeedCertificateExpiring, Code::CertificateEnding)
        };
        match time_left(end, now) {
            Some(text) => self.board.raise(due, self.feed.as_str(), text),
            None => self.board.clear(due, self.feed.as_str()),
        }
        self.board.clear(other, self.feed.as_str());
    }

    /// Ends its conditions; the listener has stopped.
    pub fn clear(&self) {
        self.board.clear(Code::FeedCertificateInvalid, self.feed.as_str());
        self.board.clear(Code::FeedCertificateExpiring, self.feed.as_str());
        self.board.clear(Code::CertificateEnding, self.feed.as_str());
    }
}

/// What is to be said about a certificate that ends at `end`; both in seconds since 1970.
fn time_left(end: i64, now: i64) -> Option<String> {
    let left = end.saturating_sub(now);
    let at = clock::rfc3339(end.saturating_mul(1000));
    if left <= 0 {
        return Some(format!("the listener's certificate ended at {at}; senders that check it cannot connect. Renew `cert` and `key`"));
    }
    let days = left / (24 * 3600);
    (left < CERTIFICATE_NOTICE.as_secs().cast_signed())
        .then(|| format!("the listener's certificate ends at {at}, in {days} days; renew `cert` and `key` before"))
}

/// The usual checks of a client's certificate, with dates forgiven while our clock cannot be believed; then the list of subjects.
#[derive(Debug)]
struct Doorkeeper {
    inner: Arc<dyn ClientCertVerifier>,
    subjects: Vec<ClientSubject>,
}

impl ClientCertVerifier for Doorkeeper {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let check = |at| self.inner.verify_client_cert(end_entity, intermediates, at);
        let verified = dates::check(Whose::Sender, now, check)?;
        if self.subjects.is_empty() {
            return Ok(verified);
        }
        let names = Names::of(end_entity);
        if names.are_among(&self.subjects) {
            return Ok(verified);
        }
        let unknown = OtherError(Arc::new(SubjectUnknown(names)));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(unknown)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_thirty_days_before() {
        let (now, day) = (1_800_000_000, 24 * 3600);
        assert_eq!(time_left(now + 30 * day, now), None);
        let soon = time_left(now + 30 * day - 1, now).unwrap();
        assert!(soon.contains("in 29 days") && soon.contains("2027-02-14"), "{soon}");
        assert!(time_left(now, now).unwrap().contains("ended at 2027-01-15T08:00:00.000Z"));
    }
}
