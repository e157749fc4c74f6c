//! One delivery to one receiver: dial, POST, read the status, close. HTTP/1.1, one connection a notice, one deadline for all of it.
//!
//! Redirects are not followed: a notice names sites and what is the matter there, and goes where it was configured to go or nowhere. `https://`
//! is verified against a file of certificates (the system's unless another is given); `http://` is for a receiver on the same machine or
//! network. The address may hold a secret in its path or query: only scheme, host and port are ever shown.

use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::limits::{WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_DEADLINE, WEBHOOK_HEADERS_BYTES_MAX};
use crate::status::page::body::Whole;
use crate::uplink::tls::{self, TlsFiles};

/// Where Debian keeps the certificates of the public authorities.
pub const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    tls: bool,
    host: String,
    port: u16,
    path: String,
    /// As it was given: its name in the file of alarms.
    pub address: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Without path and query, which may hold a secret.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}:{}", if self.tls { "https" } else { "http" }, self.host, self.port)
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(address: &str) -> Result<Self, String> {
        const LIKE: &str = "must be like https://noc.example.org/hook";
        let uri: Uri = address.parse().map_err(|_| LIKE.to_owned())?;
        let (tls, port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(LIKE.into()),
        };
        let authority = uri.authority().ok_or(LIKE)?;
        if authority.as_str().contains('@') {
            return Err("holds a user's name; put credentials into the file of headers".into());
        }
        let host = authority.host().to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { tls, host, port: authority.port_u16().unwrap_or(port), path, address: address.to_owned() })
    }
}

/// What came of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Taken,
    /// The receiver does not want this notice; sending it again hardly helps.
    Refused(String),
    /// It could not be asked, or says that it cannot just now.
    Failed(String),
}

/// What every delivery is made with.
#[derive(Clone, Debug)]
pub struct Client {
    ca: PathBuf,
    headers: HeaderMap,
}

impl Client {
    /// `headers`: a file with a line `Name: value` for each header that receivers want, such as `Authorization`.
    pub fn new(ca: Option<PathBuf>, headers: Option<PathBuf>) -> Result<Self, String> {
        let headers = match headers {
            None => HeaderMap::new(),
            Some(path) => {
                let told = |why: String| format!("{}: {why}", path.display());
                let size = std::fs::metadata(&path).map_err(|error| told(format!("cannot be read: {error}")))?.len();
                if size > WEBHOOK_HEADERS_BYTES_MAX {
                    return Err(told(format!("has more than {WEBHOOK_HEADERS_BYTES_MAX} bytes")));
                }
                read_headers(&std::fs::read_to_string(&path).map_err(|error| told(format!("cannot be read: {error}")))?).map_err(told)?
            }
        };
        Ok(Self { ca: ca.unwrap_or_else(|| SYSTEM_CA.into()), headers })
    }

    /// Delivers `body` under an idempotency key, within the deadline.
    pub async fn deliver(&self, target: &Target, key: &str, body: Bytes) -> Outcome {
        match timeout(WEBHOOK_DEADLINE, self.exchange(target, key, body)).await {
            Ok(Ok(status)) => judged(status),
            Ok(Err(why)) => Outcome::Failed(format!("{target}: {why}")),
            Err(_) => Outcome::Failed(format!("{target}: no answer in {} s", WEBHOOK_DEADLINE.as_secs())),
        }
    }

    async fn exchange(&self, target: &Target, key: &str, body: Bytes) -> Result<u16, String> {
        let host = target.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, target.port)).await.map_err(|error| format!("cannot be reached: {error}"))?;
        let mut request = Request::builder().method(Method::POST).uri(&target.path);
        let headers = request.headers_mut().ok_or("the request cannot be made; please report this")?;
        headers.extend(self.headers.clone());
        let value = |text: String| HeaderValue::from_str(&text).map_err(|_| "its name cannot be a header".to_owned());
        headers.insert(HOST, value(format!("{}:{}", target.host, target.port))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("siteward-hub/", env!("CARGO_PKG_VERSION"))));
        headers.insert(HeaderName::from_static("idempotency-key"), value(key.to_owned())?);
        let request = request.body(Whole::new(body)).map_err(|_| "the request cannot be made; please report this".to_owned())?;
        if !target.tls {
            return post(stream, request).await;
        }
        let files = TlsFiles { ca: self.ca.clone().into(), cert: None, key: None };
        let config = tls::client_config(&files).map_err(|error| crate::hub::connection::chain(&error))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| "its host is no name for a certificate".to_owned())?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        post(stream, request).await
    }
}

/// What a status means.
fn judged(status: u16) -> Outcome {
    match status {
        200..300 => Outcome::Taken,
        300..400 => Outcome::Refused(format!("answered {status}; redirects are not followed, give its final address")),
        408 | 425 | 429 => Outcome::Failed(format!("answered {status}")),
        400..500 => Outcome::Refused(format!("answered {status}")),
        _ => Outcome::Failed(format!("answered {status}")),
    }
}

async fn post(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, request: Request<Whole>) -> Result<u16, String> {
    let broken = |error: hyper::Error| format!("the exchange broke: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status().as_u16();
        // Read to its end, within reason: a receiver may do its work while it answers.
        drain(answer).await;
        Ok(status)
    };
    // The connection is driven here and dropped with the exchange: nothing outlives the deadline.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        done = &mut exchange => done,
        ended = &mut connection => match ended {
            // Its end may have brought the answer.
            Ok(()) => exchange.await,
            Err(error) => Err(broken(error)),
        },
    }
}

async fn drain(answer: Response<Incoming>) {
    let mut body = answer.into_body();
    let mut left = WEBHOOK_ANSWER_BYTES_MAX;
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if bytes >= left {
            return;
        }
        left -= bytes;
    }
}

fn read_headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = || format!("line {}: is no header; write Name: value", number + 1);
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.append(HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        let target: Target = "https://noc.example.org/hook?token=s3cret".parse().unwrap();
        assert_eq!((target.to_string().as_str(), target.path.as_str()), ("https://noc.example.org:443", "/hook?token=s3cret"));
        assert!(!format!("{target:?}").contains("s3cret"));
        assert_eq!("http://[::1]:9/".parse::<Target>().unwrap().port, 9);
        for bad in ["noc.example.org", "ftp://x/", "/hook", "https://", "https://user@noc/"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_success_is_taken_and_redirects_are_not_followed() {
        assert_eq!(judged(204), Outcome::Taken);
        assert!(matches!(judged(302), Outcome::Refused(why) if why.contains("redirects are not followed")));
        assert!(matches!(judged(404), Outcome::Refused(_)));
        for again in [408, 429, 500, 503, 100] {
            assert!(matches!(judged(again), Outcome::Failed(_)), "{again}");
        }
    }

    #[test]
    fn headers_are_read_a_line_each_and_not_shown() {
        let headers = read_headers("Authorization: Bearer s3cret\n\nX-Team: supply\n").unwrap();
        assert_eq!(headers["x-team"], "supply");
        assert!(!format!("{headers:?}").contains("s3cret"));
        assert!(read_headers("Bearer s3cret").unwrap_err().contains("line 1"));
        assert!(!read_headers("a b: s3cret").unwrap_err().contains("s3cret"));
    }
}
