//! The way out through an HTTP proxy: CONNECT, and what it answers.
//!
//! ```text
//!   TCP to the proxy ─► CONNECT broker:port ─► 2xx ─► TLS with the broker inside, its name checked against the endpoint
//!                                            └ anything else: one sentence each, the connection is closed
//! ```
//!
//! The proxy resolves the broker's name and sees host, port and how much is sent, nothing else. It is spoken to in clear, as proxies are; a user
//! name and password go there as they are (Basic), so they must be ones that are good for nothing else. They are read for each attempt from
//! where secrets are kept, and overwritten behind it.
//!
//! Reading is pure ([`read`]) and bounded: a header of at most [`PROXY_ANSWER_BYTES_MAX`], under the deadline of the attempt. Nothing follows
//! the header of a 2xx before we speak, so bytes behind it mean that this is no proxy. The body of a refusal is not read: it is a page for
//! browsers.

use std::io;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::dial::{NoTcp, Waiting};
use super::fault::foreign;
use crate::config::settings::{Endpoint, Proxy, authority};
use crate::limits::{PROXY_ANSWER_BYTES_MAX, PROXY_CREDENTIAL_BYTES_MAX, PROXY_SCHEMES_TOLD};

/// Why there is no way through the proxy. Each is the end of a sentence that begins with its address.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("needs a user name and password, but `proxy_credential` {0}")]
    Credential(String),
    #[error("cannot be found ({0}); check `proxy` under [uplink] and the DNS servers of this gateway")]
    Dns(io::Error),
    #[error("has no address; check `proxy` under [uplink] and its DNS records")]
    NoAddress,
    #[error("refuses connections at {0}; check `proxy` under [uplink] and that the proxy runs")]
    Refused(SocketAddr),
    #[error("cannot be reached at {0} ({1}); check the network and the routes of this gateway")]
    Unreachable(SocketAddr, io::Error),
    #[error("does not answer in time while {0}; check the firewall between this gateway and the proxy, and that the proxy runs")]
    Timeout(Waiting),
    #[error("closed the connection instead of answering CONNECT; whoever runs it must allow CONNECT to the broker's host and port")]
    Closed,
    #[error("broke the connection ({0}); whoever runs it must allow CONNECT to the broker's host and port")]
    Lost(io::Error),
    #[error("does not answer like an HTTP proxy; check host and port of `proxy` under [uplink]")]
    NotHttp,
    #[error("answers with a header of more than {PROXY_ANSWER_BYTES_MAX} bytes; check host and port of `proxy` under [uplink]")]
    TooLong,
    #[error("{}", authentication(*.with_credential, .schemes))]
    Authentication { with_credential: bool, schemes: Vec<String> },
    #[error("forbids the connection (403); whoever runs it must allow CONNECT to the broker's host and port")]
    Forbidden,
    #[error("cannot reach the broker itself ({0}); check host and port of the endpoint, and the firewall between proxy and broker")]
    NotReached(u16),
    #[error("answers CONNECT with {0}; whoever runs it must allow CONNECT to the broker's host and port")]
    Status(u16),
}

fn authentication(with_credential: bool, schemes: &[String]) -> String {
    let asks = if schemes.is_empty() { String::new() } else { format!(", it asks for {}", schemes.join(", ")) };
    if !schemes.is_empty() && !schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
        return format!("wants authentication (407){asks}; siteward can do Basic only: let it admit this gateway by its address");
    }
    if with_credential {
        return format!(
            "does not take our user name and password (407){asks}; correct the secret that `proxy_credential` names (user:password)"
        );
    }
    format!("wants authentication (407){asks}; set user:password as a secret and name it: proxy_credential under [uplink]")
}

impl ProxyError {
    /// Whether somebody has to act.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::Credential(_) | Self::Authentication { .. } | Self::Forbidden)
    }
}

impl From<NoTcp> for ProxyError {
    fn from(why: NoTcp) -> Self {
        match why {
            NoTcp::Dns(error) => Self::Dns(error),
            NoTcp::NoAddress => Self::NoAddress,
            NoTcp::Refused(address) => Self::Refused(address),
            NoTcp::Timeout(waiting) => Self::Timeout(waiting),
            NoTcp::Unreachable(address, error) => Self::Unreachable(address, error),
        }
    }
}

/// What matters of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    status: u16,
    /// Its `Date`, in seconds since 1970.
    pub date: Option<i64>,
    /// What it wants for authentication.
    schemes: Vec<String>,
}

/// Reads an answer; `None`: its header goes on.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Answer, usize)>, ProxyError> {
    const BEGIN: &[u8] = b"HTTP/1.";
    let known = bytes.len().min(BEGIN.len());
    if bytes[..known] != BEGIN[..known] {
        return Err(ProxyError::NotHttp);
    }
    let Some(length) = header_length(bytes) else {
        return if bytes.len() >= PROXY_ANSWER_BYTES_MAX { Err(ProxyError::TooLong) } else { Ok(None) };
    };
    if length > PROXY_ANSWER_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let text = String::from_utf8_lossy(&bytes[..length]);
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).filter(|code| code.len() == 3);
    let status = status.and_then(|code| code.parse().ok()).filter(|code| (200..600).contains(code)).ok_or(ProxyError::NotHttp)?;
    let mut answer = Answer { status, date: None, schemes: Vec::new() };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("date") {
            answer.date = jiff::fmt::rfc2822::parse(value).ok().map(|date| date.timestamp().as_second());
        } else if name.eq_ignore_ascii_case("proxy-authenticate") && answer.schemes.len() < PROXY_SCHEMES_TOLD {
            let scheme: String = foreign(value).split([' ', ',']).next().unwrap_or_default().chars().take(20).collect();
            answer.schemes.push(scheme);
        }
    }
    Ok(Some((answer, length)))
}

/// Up to and with the empty line.
fn header_length(bytes: &[u8]) -> Option<usize> {
    let ends = memchr::memchr_iter(b'\n', bytes);
    ends.into_iter().find_map(|at| match bytes.get(at + 1..) {
        Some([b'\n', ..]) => Some(at + 2),
        Some([b'\r', b'\n', ..]) => Some(at + 3),
        _ => None,
    })
}

/// What the answer means.
fn judge(answer: Answer, with_credential: bool) -> Result<Answer, ProxyError> {
    match answer.status {
        200..300 => Ok(answer),
        407 => Err(ProxyError::Authentication { with_credential, schemes: answer.schemes }),
        403 => Err(ProxyError::Forbidden),
        502..=504 => Err(ProxyError::NotReached(answer.status)),
        other => Err(ProxyError::Status(other)),
    }
}

/// The request. A buffer that grows would leave copies of the password.
fn request(endpoint: &Endpoint, credential: Option<&[u8]>) -> Zeroizing<Vec<u8>> {
    let to = authority(&endpoint.host, endpoint.port);
    let mut request = Zeroizing::new(Vec::with_capacity(2 * to.len() + 2 * PROXY_CREDENTIAL_BYTES_MAX + 128));
    request.extend_from_slice(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").as_bytes());
    if let Some(credential) = credential {
        request.extend_from_slice(b"Proxy-Authorization: Basic ");
        request.extend_from_slice(Zeroizing::new(STANDARD.encode(credential)).as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// The user name and password, where the proxy has them.
async fn credential(proxy: &Proxy) -> Result<Option<Zeroizing<Vec<u8>>>, ProxyError> {
    let Some(secret) = proxy.credential.clone() else { return Ok(None) };
    let read = tokio::task::spawn_blocking(move || secret.read()).await;
    let value = read.unwrap_or_else(|_| Err("cannot be read".to_owned())).map_err(ProxyError::Credential)?;
    let trimmed = value.trim_ascii_end();
    let fits = trimmed.len() <= PROXY_CREDENTIAL_BYTES_MAX && !trimmed.iter().any(u8::is_ascii_control);
    if !fits || !trimmed.contains(&b':') {
        let why =
            format!("names a secret that is not user:password on one line of at most {PROXY_CREDENTIAL_BYTES_MAX} bytes; set it anew");
        return Err(ProxyError::Credential(why));
    }
    Ok(Some(Zeroizing::new(trimmed.to_vec())))
}

/// Asks for the tunnel on a connection to the proxy.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &Proxy,
    endpoint: &Endpoint,
    deadline: Instant,
) -> Result<Answer, ProxyError> {
    let credential = credential(proxy).await?;
    let exchange = async {
        let request = request(endpoint, credential.as_ref().map(|value| value.as_slice()));
        stream.write_all(&request).await.map_err(ProxyError::Lost)?;
        stream.flush().await.map_err(ProxyError::Lost)?;
        let mut header = Vec::with_capacity(1024);
        loop {
            let mut chunk = [0; 1024];
            let count = stream.read(&mut chunk).await.map_err(ProxyError::Lost)?;
            if count == 0 {
                return Err(ProxyError::Closed);
            }
            header.extend_from_slice(&chunk[..count]);
            let Some((answer, length)) = read(&header)? else { continue };
            let answer = judge(answer, credential.is_some())?;
            return if length == header.len() { Ok(answer) } else { Err(ProxyError::NotHttp) };
        }
    };
    timeout_at(deadline, exchange).await.unwrap_or(Err(ProxyError::Timeout(Waiting::Proxy)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(bytes: &[u8]) -> Result<Answer, ProxyError> {
        let (answer, _) = read(bytes).and_then(|answer| answer.ok_or(ProxyError::Closed))?;
        judge(answer, false)
    }

    #[test]
    fn a_tunnel_is_open_on_any_2xx_and_its_header_may_come_in_any_pieces() {
        let answer = b"HTTP/1.1 200 Connection established\r\nDate: Tue, 24 Nov 2026 10:00:00 GMT\r\nVia: 1.1 x\r\n\r\n";
        for cut in 0..answer.len() {
            assert!(matches!(read(&answer[..cut]), Ok(None)), "{cut}");
        }
        let (read, length) = read(answer).unwrap().unwrap();
        assert_eq!((read.status, read.date, length), (200, Some(1_795_514_400), answer.len()));
        assert_eq!(status(b"HTTP/1.0 201\n\n").unwrap().date, None);
    }

    #[test]
    fn each_refusal_has_its_own_sentence() {
        let says = |bytes: &[u8]| status(bytes).unwrap_err().to_string();
        let cases: [(&[u8], &str); 9] = [
            (b"HTTP/1.1 407 x\r\n\r\n", "wants authentication (407); set user:password as a secret"),
            (b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n", "it asks for Basic; set user:password"),
            (
                b"HTTP/1.1 407 x\r\nproxy-authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n",
                "it asks for NTLM, Negotiate; siteward can do Basic only",
            ),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", "forbids the connection (403)"),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "cannot reach the broker itself (502)"),
            (b"HTTP/1.1 405 No\r\n\r\n", "answers CONNECT with 405"),
            (b"HTTP/1.1 100 Continue\r\n\r\n", "does not answer like an HTTP proxy"),
            (b"HTTP/1.1 two hundred\r\n\r\n", "does not answer like an HTTP proxy"),
            (b"\x15\x03\x01\x00\x02\x02\x28", "does not answer like an HTTP proxy"),
        ];
        for (bytes, sentence) in cases {
            let said = says(bytes);
            assert!(said.contains(sentence), "{said}");
        }
        let refused = judge(Answer { status: 407, date: None, schemes: Vec::new() }, true).unwrap_err();
        assert!(refused.is_permanent() && refused.to_string().contains("does not take our user name and password"), "{refused}");
    }

    #[test]
    fn a_header_without_end_is_given_up() {
        let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
        while read(&endless).is_ok_and(|answer| answer.is_none()) {
            endless.extend_from_slice(b"X-More: and more\r\n");
        }
        assert!(matches!(read(&endless), Err(ProxyError::TooLong)) && endless.len() < PROXY_ANSWER_BYTES_MAX + 32);
    }

    #[test]
    fn the_request_names_the_broker_and_carries_the_password_only_to_the_proxy() {
        let request = |host: &str, credential: Option<&[u8]>| {
            String::from_utf8(super::request(&Endpoint::new(host, 443, true), credential).to_vec()).unwrap()
        };
        assert_eq!(request("hub.example.org", None), "CONNECT hub.example.org:443 HTTP/1.1\r\nHost: hub.example.org:443\r\n\r\n");
        let with = request("2001:db8::7", Some(b"kim:s3cret"));
        assert!(with.starts_with("CONNECT [2001:db8::7]:443 HTTP/1.1\r\n"), "{with}");
        assert!(with.ends_with("Proxy-Authorization: Basic a2ltOnMzY3JldA==\r\n\r\n"), "{with}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let mut answer = b"HTTP/1.1 407 no\r\nDate: Tue, 24 Nov 2026 10:00:00 GMT\r\nProxy-Authenticate: Basic\r\n\r\n".to_vec();
            let at = at.index(answer.len());
            answer[at] = byte;
            for bytes in [&answer, &bytes] {
                let _either = read(bytes);
            }
        }
    }
}
