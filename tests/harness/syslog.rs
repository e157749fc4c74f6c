//! A syslog receiver: takes lines by UDP, or by TCP with octet counts (RFC 6587), keeps them, and can go away and come back on the same port.
//!
//! Shares nothing with the agent: the line is taken apart here by RFC 5424, and what does not fit fails the test.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{net, wait};

/// A line taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub priority: u8,
    pub time: String,
    pub host: String,
    pub app: String,
    pub code: String,
    pub data: BTreeMap<String, String>,
    pub text: String,
}

impl Line {
    /// `raised uplink_down`.
    pub fn what(&self) -> String {
        format!("{} {}", self.data.get("state").map_or("", String::as_str), self.code)
    }

    /// What is no line of RFC 5424 with our structured data is told.
    pub fn parse(line: &str) -> Result<Self, String> {
        let odd = || format!("not as RFC 5424 wants it: {line}");
        if line.contains(|c: char| c.is_control()) {
            return Err(odd());
        }
        let (priority, rest) = line.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or_else(odd)?;
        let fields: Vec<&str> = rest.splitn(7, ' ').collect();
        let ["1", time, host, app, "-", code, rest] = fields[..] else { return Err(odd()) };
        let (mut data, mut rest) = (BTreeMap::new(), rest);
        while let Some(inner) = rest.strip_prefix('[') {
            let mut end = 0;
            let bytes = inner.as_bytes();
            let mut in_value = false;
            while bytes.get(end).is_some_and(|b| in_value || *b != b']') {
                match bytes[end] {
                    b'\\' => end += 1,
                    b'"' => in_value = !in_value,
                    _ => {}
                }
                end += 1;
            }
            let element = inner.get(..end).ok_or_else(odd)?;
            for part in
                element.split("\" ").filter_map(|part| part.split_once("=\"").map(|(name, value)| (name, value.trim_end_matches('"'))))
            {
                let name = part.0.rsplit(' ').next().unwrap_or_default();
                data.insert(name.to_owned(), part.1.to_owned());
            }
            rest = inner.get(end + 1..).ok_or_else(odd)?;
        }
        let text = rest.strip_prefix(" \u{feff}").ok_or_else(odd)?.to_owned();
        let [time, host, app, code] = [time, host, app, code].map(str::to_owned);
        Ok(Self { priority: priority.parse().map_err(|_| odd())?, time, host, app, code, data, text })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Udp,
    Tcp,
}

/// See the module. Ends with its handle.
#[derive(Debug)]
pub struct Receiver {
    kind: Kind,
    addr: SocketAddr,
    raw: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

const LOOK: Duration = Duration::from_millis(50);

impl Receiver {
    pub fn start(kind: Kind) -> Self {
        let addr = net::loopback(net::free_port());
        let mut receiver = Self { kind, addr, raw: Arc::default(), stop: Arc::default(), thread: None };
        receiver.come_back();
        receiver
    }

    /// As the configuration names it.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.kind == Kind::Udp { "udp" } else { "tcp" }, self.addr)
    }

    pub fn go_away(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the receiver ends in order");
        }
    }

    pub fn come_back(&mut self) {
        self.stop = Arc::default();
        let (addr, raw, stop) = (self.addr, Arc::clone(&self.raw), Arc::clone(&self.stop));
        self.thread = Some(match self.kind {
            Kind::Udp => {
                let socket = UdpSocket::bind(addr).expect("the port is free");
                socket.set_read_timeout(Some(LOOK)).expect("a timeout");
                std::thread::spawn(move || datagrams(&socket, &raw, &stop))
            }
            Kind::Tcp => {
                let listener = TcpListener::bind(addr).expect("the port is free");
                listener.set_nonblocking(true).expect("it does not block");
                std::thread::spawn(move || connections(&listener, &raw, &stop))
            }
        });
    }

    pub fn raw(&self) -> Vec<String> {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything that came, in order.
    pub fn lines(&self) -> Vec<Line> {
        self.raw().iter().map(|line| Line::parse(line).unwrap_or_else(|why| panic!("{why}"))).collect()
    }

    /// How often this came, like `raised uplink_down`.
    pub fn count(&self, what: &str) -> usize {
        self.lines().iter().filter(|line| line.what() == what).count()
    }

    /// Waits for it; the newest.
    pub fn told(&self, what: &str) -> Line {
        let came = wait::try_until(wait::EVENTUALLY, || self.count(what) > 0);
        assert!(came, "`{what}` is not among {:?}", self.lines().iter().map(Line::what).collect::<Vec<_>>());
        self.lines().into_iter().rfind(|line| line.what() == what).expect("it came")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn datagrams(socket: &UdpSocket, raw: &Mutex<Vec<String>>, stop: &AtomicBool) {
    let mut bytes = [0; 8192];
    while !stop.load(Ordering::SeqCst) {
        if let Ok(n) = socket.recv(&mut bytes) {
            raw.lock().unwrap_or_else(PoisonError::into_inner).push(String::from_utf8_lossy(&bytes[..n]).into_owned());
        }
    }
}

fn connections(listener: &TcpListener, raw: &Mutex<Vec<String>>, stop: &AtomicBool) {
    let mut open: Vec<TcpStream> = Vec::new();
    std::thread::scope(|scope| {
        while !stop.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("it blocks");
                    open.push(stream.try_clone().expect("a second handle"));
                    scope.spawn(move || frames(stream, raw));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
        for stream in &open {
            // One that has ended needs no end.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    });
}

/// Until the connection ends.
fn frames(stream: TcpStream, raw: &Mutex<Vec<String>>) {
    let mut bytes = BufReader::new(stream).bytes();
    loop {
        let mut len = 0;
        loop {
            match bytes.next() {
                Some(Ok(b' ')) => break,
                Some(Ok(digit)) if digit.is_ascii_digit() => len = len * 10 + usize::from(digit - b'0'),
                Some(Ok(other)) => panic!("{other} where an octet count is"),
                _ => return,
            }
        }
        let line: Vec<u8> = bytes.by_ref().take(len).map_while(Result::ok).collect();
        if line.len() < len {
            return;
        }
        raw.lock().unwrap_or_else(PoisonError::into_inner).push(String::from_utf8_lossy(&line).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let text = "<28>1 2026-11-01T00:00:00.000Z gw siteward - uplink_down [timeQuality isSynced=\"0\"][siteward@32473 site=\"s\" \
            state=\"raised\" subject=\"a \\\"b\\] c\"] \u{feff}raised: gone";
        let line = Line::parse(text).unwrap();
        assert_eq!((line.priority, line.what().as_str(), line.text.as_str()), (28, "raised uplink_down", "raised: gone"));
        assert_eq!((line.data["site"].as_str(), line.data["isSynced"].as_str(), line.data["subject"].as_str()), ("s", "0", "a \\\"b\\] c"));
        assert!(Line::parse("<28>Nov 1 gw siteward: x").is_err());
    }
}
