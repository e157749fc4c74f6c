//! HTTP feeds of a scene: their sections of the configuration, and a client of our own that sends exactly the bytes it is told to.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::net;

/// One HTTP feed.
#[derive(Clone, Debug)]
pub struct HttpFeed {
    pub id: String,
    pub port: u16,
}

impl HttpFeed {
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), port: net::free_port() }
    }

    /// Its `[[feed]]`; `lines` are further ones of `[feed.http]`.
    pub fn section(&self, lines: &str) -> String {
        format!(
            "\n[[feed]]\nid = {:?}\nlane = \"normal\"\nstage = \"live\"\nforward = \"raw\"\nphi = \"allowed\"\n\
             [feed.http]\nlisten = \"127.0.0.1:{}\"\n{lines}\n",
            self.id, self.port
        )
    }

    pub fn addr(&self) -> SocketAddr {
        net::loopback(self.port)
    }

    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}/feeds/{}", self.port, self.id)
    }

    /// Posts once; an error means that there was no whole answer.
    pub fn post(&self, media_type: &str, key: Option<&str>, body: &[u8]) -> io::Result<Answer> {
        let key = key.map(|key| format!("Idempotency-Key: \"{key}\"\r\n")).unwrap_or_default();
        let head = format!(
            "POST /feeds/{} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Type: {media_type}\r\n{key}Content-Length: {}\r\n\r\n",
            self.id,
            body.len()
        );
        let mut stream = connect(self.addr())?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        Answer::read(&mut stream)
    }
}

/// A connection that gives up waiting after a minute.
pub fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.set_write_timeout(Some(Duration::from_mins(1)))?;
    Ok(stream)
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Reads until the end of the connection; a reset behind a whole answer is an end.
    pub fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let parsed = text.split_once("\r\n\r\n").and_then(|(head, body)| {
            let status = head.split(' ').nth(1)?.parse().ok()?;
            let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok())?;
            (body.len() == length).then(|| Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
        });
        match (parsed, ended) {
            (Some(answer), _) => Ok(answer),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}
