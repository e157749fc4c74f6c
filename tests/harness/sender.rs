//! The hospital's side: MLLP clients as strict as the interfaces that will stand there.
//!
//! A [`Wire`] is one connection, used by hand. A [`Crew`] is many connections at work, each in its own thread: it sends its messages in order,
//! lets at most `window` be unanswered, takes an answer only when MSA-2 is the control id it waits for byte for byte and MSA-1 is `AA` or `CA`,
//! and after a lost connection sends again, under the same control ids, everything that was not answered. What a crew was told is the yardstick
//! of every promise: an acknowledged message may never be missing.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::message;
use crate::tls::{self, Stream};

/// An acknowledgement as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// MSA-1.
    pub code: String,
    /// MSA-2, byte for byte.
    pub control_id: Vec<u8>,
    /// The whole message inside the frame.
    pub raw: Vec<u8>,
}

impl Reply {
    fn read(raw: Vec<u8>) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the reply {what}"));
        let separator = *raw.strip_prefix(b"MSH").and_then(|r| r.first()).ok_or_else(|| bad("does not begin with MSH"))?;
        let msa = raw.split(|&b| b == b'\r').find(|s| s.starts_with(b"MSA")).ok_or_else(|| bad("has no MSA"))?;
        let mut fields = msa.split(|&b| b == separator).skip(1);
        let code = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
        let control_id = fields.next().unwrap_or_default().to_vec();
        Ok(Self { code, control_id, raw })
    }

    pub fn positive(&self) -> bool {
        self.code == "AA" || self.code == "CA"
    }
}

/// One MLLP connection.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    unread: Vec<u8>,
}

/// `message` in an MLLP frame.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(message.len() + 3);
    framed.push(0x0B);
    framed.extend_from_slice(message);
    framed.extend_from_slice(&[0x1C, 0x0D]);
    framed
}

impl Wire {
    /// Connects; reads and writes give up after `patience`.
    pub fn connect(addr: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self::over(Stream::Plain(stream)))
    }

    /// Over a connection that is there already.
    pub fn over(stream: Stream) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.socket()
    }

    /// The certificate the gateway showed; `None` without TLS.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        self.stream.certificate()
    }

    /// Bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// One message in its frame.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.send_raw(&frame(message))
    }

    /// The next reply. `UnexpectedEof` when the other side closed, `WouldBlock`/`TimedOut` when nothing came.
    pub fn reply(&mut self) -> io::Result<Reply> {
        self.frame().and_then(Reply::read)
    }

    /// What is in the next frame.
    pub fn frame(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|w| w == [0x1C, 0x0D]) {
                let rest = self.unread.split_off(end + 2);
                let mut framed = std::mem::replace(&mut self.unread, rest);
                framed.truncate(end);
                if framed.first() != Some(&0x0B) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the reply does not begin with 0x0B"));
                }
                return Ok(framed.split_off(1));
            }
            let mut buffer = [0u8; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.unread.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends one message and takes its answer.
    pub fn exchange(&mut self, message: &[u8]) -> io::Result<Reply> {
        self.send(message)?;
        self.reply()
    }

    /// The other side closed, without a byte before that.
    pub fn closed_without_reply(&mut self) -> bool {
        let ended = |kind| matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
        match self.reply() {
            Ok(_) => false,
            Err(e) => ended(e.kind()) && self.unread.is_empty(),
        }
    }
}

/// What a crew has to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub addr: SocketAddr,
    pub connections: usize,
    /// Messages of each connection, numbered from 1.
    pub per_connection: u64,
    /// Size of a message by connection and number.
    pub size: fn(usize, u64) -> usize,
    /// Most unanswered messages on a connection; 1 is what strict interfaces do.
    pub window: u64,
    /// Rest after each acknowledgement.
    pub pause: Duration,
    /// An answer that takes longer counts as a lost connection.
    pub patience: Duration,
    /// No acknowledgement at all for this long: the connection's thread gives up.
    pub give_up: Duration,
    /// First connection's number (control ids begin with it).
    pub first_connection: usize,
    /// With TLS.
    pub tls: Option<tls::Client>,
}

impl Plan {
    pub fn new(addr: SocketAddr, connections: usize, per_connection: u64) -> Self {
        Self {
            addr,
            connections,
            per_connection,
            size: |_, _| 700,
            window: 1,
            pause: Duration::ZERO,
            patience: Duration::from_secs(20),
            give_up: Duration::from_mins(3),
            first_connection: 0,
            tls: None,
        }
    }
}

/// What one connection was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub connection: usize,
    /// Numbers acknowledged positively, in the order of the answers.
    pub acknowledged: Vec<u64>,
    /// From sending a message to its acknowledgement, in microseconds.
    pub latencies_us: Vec<u32>,
    /// Messages sent again.
    pub resends: u64,
    pub reconnects: u64,
    /// Negative answers and answers that match nothing.
    pub faults: Vec<String>,
}

/// Many connections at work.
#[derive(Debug)]
pub struct Crew {
    threads: Vec<JoinHandle<Told>>,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    pub fn start(plan: &Plan) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..plan.connections)
            .map(|i| {
                let sender = Sender {
                    plan: plan.clone(),
                    told: Told { connection: plan.first_connection + i, ..Told::default() },
                    acknowledged: acknowledged.clone(),
                    stop: stop.clone(),
                    sent_through: 0,
                };
                let thread = std::thread::Builder::new().stack_size(256 * 1024);
                thread.spawn(move || sender.work()).expect("a thread for a connection")
            })
            .collect();
        Self { threads, acknowledged, stop }
    }

    /// Messages acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub fn finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until all is done or given up, and says what each connection was told.
    pub fn finish(mut self) -> Vec<Told> {
        self.threads.drain(..).map(|t| t.join().expect("a sender does not panic")).collect()
    }

    /// Stops after the answer that is awaited now.
    pub fn stop(self) -> Vec<Told> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Sender {
    plan: Plan,
    told: Told,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    /// Highest number ever sent.
    sent_through: u64,
}

impl Sender {
    fn work(mut self) -> Told {
        let mut progress = Instant::now();
        let mut known = 0;
        while !self.done() && progress.elapsed() < self.plan.give_up {
            let wire = match &self.plan.tls {
                None => Wire::connect(self.plan.addr, self.plan.patience),
                Some(client) => client.connect(self.plan.addr, self.plan.patience),
            };
            if let Ok(wire) = wire {
                // the error is the lost connection, which is why there is another turn
                let _ = self.converse(wire);
                self.told.reconnects += 1;
            }
            if self.told.acknowledged.len() > known {
                known = self.told.acknowledged.len();
                progress = Instant::now();
            }
            if !self.done() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        self.told.reconnects = self.told.reconnects.saturating_sub(1);
        self.told
    }

    fn done(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.told.acknowledged.len() as u64 >= self.plan.per_connection
    }

    /// Works on one connection until all is done or it ends.
    fn converse(&mut self, mut wire: Wire) -> io::Result<()> {
        let mut unanswered: VecDeque<(u64, Instant)> = VecDeque::new();
        let mut next = self.told.acknowledged.len() as u64 + 1;
        while !self.done() {
            while (unanswered.len() as u64) < self.plan.window && next <= self.plan.per_connection {
                self.told.resends += u64::from(next <= self.sent_through);
                self.sent_through = self.sent_through.max(next);
                let size = (self.plan.size)(self.told.connection, next);
                wire.send(&message::build(self.told.connection, next, size))?;
                unanswered.push_back((next, Instant::now()));
                next += 1;
            }
            let reply = wire.reply()?;
            let (number, sent) = unanswered.pop_front().expect("a window is at least 1");
            let expected = message::control_id(self.told.connection, number);
            if !reply.positive() || reply.control_id != expected.as_bytes() {
                let fault = format!("{expected} was answered {} {}", reply.code, String::from_utf8_lossy(&reply.control_id));
                self.told.faults.push(fault);
                std::thread::sleep(Duration::from_millis(200));
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.told.acknowledged.push(number);
            self.told.latencies_us.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            if !self.plan.pause.is_zero() {
                std::thread::sleep(self.plan.pause);
            }
        }
        Ok(())
    }
}

/// One message on a connection of its own.
pub fn send_one(addr: SocketAddr, message: &[u8], patience: Duration) -> io::Result<Reply> {
    Wire::connect(addr, patience)?.exchange(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Link, Weather};
    use crate::plain_log::PlainLog;
    use crate::wait;

    #[test]
    fn a_crew_sends_everything_in_order_through_cuts() {
        let directory = tempfile::tempdir().unwrap();
        let log = PlainLog::start(&directory.path().join("log"));
        let link = Link::start(log.addr());
        // So many that the last cut finds everybody at work.
        let plan = Plan { size: message::mixed_size, ..Plan::new(link.addr(), 4, 500) };
        let crew = Crew::start(&plan);
        for cut in 1..4 {
            wait::wait_while_growing("acknowledged", wait::SOON, || crew.acknowledged(), cut * 100);
            link.cut();
        }
        let told = crew.finish();
        for t in &told {
            assert_eq!(t.acknowledged, (1..=500).collect::<Vec<_>>());
            assert!(t.faults.is_empty(), "{:?}", t.faults);
        }
        assert!(told.iter().map(|t| t.reconnects).sum::<u64>() >= 3);
        assert!(log.stored() >= 2000);
        link.set(Weather::Down);
        assert!(Wire::connect(link.addr(), wait::SOON).is_err());
    }

    #[test]
    fn a_window_above_one_keeps_the_order() {
        let directory = tempfile::tempdir().unwrap();
        let log = PlainLog::start(&directory.path().join("log"));
        let told = Crew::start(&Plan { window: 16, ..Plan::new(log.addr(), 3, 200) }).finish();
        assert!(told.iter().all(|t| t.acknowledged == (1..=200).collect::<Vec<_>>() && t.resends == 0));
    }
}
