//! The WAN: a TCP proxy whose weather can be changed.
//!
//! ```text
//! client ──► reader thread ──► bounded queue (bytes, when due) ──► writer thread ──► target      and the same the other way
//! ```
//!
//! [`Weather::Down`]: every connection is cut and new ones are refused. [`Weather::Hole`]: connections stay open, new ones are accepted, and
//! nothing passes (half-open, as behind a firewall that forgot); they are cut when the weather changes. A delay holds every byte back for that
//! long without limiting how much is under way.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::net;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    Down,
    Hole,
}

const TICK: Duration = Duration::from_millis(20);
const CHUNK: usize = 32 * 1024;
/// Chunks under way in one direction of one connection.
const QUEUE: usize = 256;

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    weather: Mutex<Weather>,
    /// Grows with every cut; a connection made under an older value ends.
    era: AtomicU64,
    delay_us: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicU64,
    listening: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn alive(&self, era: u64) -> bool {
        !self.stop.load(Ordering::SeqCst) && self.era.load(Ordering::SeqCst) == era
    }
}

/// A proxy on its own port.
#[derive(Debug)]
pub struct Link {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Link {
    /// Proxies a free port to `target`.
    pub fn start(target: SocketAddr) -> Self {
        // Another process of tests may take it between the look and the bind.
        let bound = || TcpListener::bind(net::loopback(net::free_port())).ok();
        let listener = (0..16).find_map(|_| bound()).expect("a port for the link");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            target,
            weather: Mutex::new(Weather::Fair),
            era: AtomicU64::new(0),
            delay_us: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            listening: AtomicBool::new(true),
            stop: AtomicBool::new(false),
        });
        let acceptor = shared.clone();
        std::thread::spawn(move || accept(addr, listener, &acceptor));
        Self { addr, shared }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Changes the weather. Connections that exist end, unless it becomes a hole.
    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
        if weather != Weather::Hole {
            self.cut();
        }
        // callers may rely on it at once
        while self.shared.listening.load(Ordering::SeqCst) == (weather == Weather::Down) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends every connection now; new ones pass.
    pub fn cut(&self) {
        self.shared.era.fetch_add(1, Ordering::SeqCst);
    }

    pub fn delay(&self, each_way: Duration) {
        self.shared.delay_us.store(u64::try_from(each_way.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Bytes passed from clients to the target.
    pub fn bytes_up(&self) -> u64 {
        self.shared.up.load(Ordering::Relaxed)
    }

    pub fn bytes_down(&self) -> u64 {
        self.shared.down.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

fn accept(addr: SocketAddr, first: TcpListener, shared: &Arc<Shared>) {
    let mut listener = Some(first);
    while !shared.stop.load(Ordering::SeqCst) {
        if shared.weather() == Weather::Down {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(addr).ok();
        }
        shared.listening.store(listener.is_some(), Ordering::SeqCst);
        let Some(open) = &listener else {
            std::thread::sleep(TICK);
            continue;
        };
        open.set_nonblocking(true).expect("a listener can be made non-blocking");
        match open.accept() {
            Ok((client, _)) => {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let shared = shared.clone();
                std::thread::spawn(move || connect(&client, &shared));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn connect(client: &TcpStream, shared: &Arc<Shared>) {
    let era = shared.era.load(Ordering::SeqCst);
    while shared.weather() == Weather::Hole {
        if !shared.alive(era) {
            return;
        }
        std::thread::sleep(TICK);
    }
    let Ok(server) = TcpStream::connect_timeout(&shared.target, Duration::from_secs(5)) else { return };
    for stream in [client, &server] {
        let ready = stream.set_nonblocking(false).and(stream.set_nodelay(true)).and(stream.set_read_timeout(Some(TICK)));
        if ready.is_err() {
            return;
        }
    }
    let halves = [(client, &server, true), (&server, client, false)];
    for (from, to, upward) in halves {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let (queue, due) = sync_channel(QUEUE);
        let (reading, writing) = (shared.clone(), shared.clone());
        std::thread::spawn(move || read(from, &queue, &reading, era));
        std::thread::spawn(move || write(to, &due, &writing, era, upward));
    }
}

type Chunk = (Instant, Vec<u8>);

fn read(mut from: TcpStream, queue: &SyncSender<Chunk>, shared: &Shared, era: u64) {
    let mut buffer = vec![0u8; CHUNK];
    while shared.alive(era) {
        if shared.weather() == Weather::Hole {
            std::thread::sleep(TICK);
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                let due = Instant::now() + Duration::from_micros(shared.delay_us.load(Ordering::Relaxed));
                if queue.send((due, buffer[..n].to_vec())).is_err() {
                    break;
                }
            }
            Err(e) if is_tick(&e) => {}
            Err(_) => break,
        }
    }
}

/// Passes on what is due; at the end of its input, or of its era, closes both ways, so that both sides learn of it.
fn write(mut to: TcpStream, due: &Receiver<Chunk>, shared: &Shared, era: u64, upward: bool) {
    let counter = if upward { &shared.up } else { &shared.down };
    while shared.alive(era) {
        let (at, bytes) = match due.recv_timeout(TICK) {
            Ok(chunk) => chunk,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        while shared.alive(era) && Instant::now() < at {
            std::thread::sleep(at.saturating_duration_since(Instant::now()).min(TICK));
        }
        while shared.alive(era) && shared.weather() == Weather::Hole {
            std::thread::sleep(TICK);
        }
        if !shared.alive(era) || !write_all(&mut to, &bytes, shared, era) {
            break;
        }
        counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
    // fails only where the connection has ended already
    let _ = to.shutdown(Shutdown::Both);
}

fn write_all(to: &mut TcpStream, mut bytes: &[u8], shared: &Shared, era: u64) -> bool {
    if to.set_write_timeout(Some(TICK)).is_err() {
        return false;
    }
    while !bytes.is_empty() && shared.alive(era) {
        match to.write(bytes) {
            Ok(0) => return false,
            Ok(n) => bytes = &bytes[n..],
            Err(e) if is_tick(&e) => {}
            Err(_) => return false,
        }
    }
    bytes.is_empty()
}

fn is_tick(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut | std::io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain_log::PlainLog;
    use crate::sender::Wire;
    use crate::{message, wait};

    #[test]
    fn a_link_passes_cuts_holds_back_and_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let log = PlainLog::start(&directory.path().join("log"));
        let link = Link::start(log.addr());
        link.delay(Duration::from_millis(5));
        let mut wire = Wire::connect(link.addr(), wait::SOON).unwrap();
        assert!(wire.exchange(&message::build(1, 1, 100_000)).unwrap().positive());
        assert!(link.bytes_up() > 100_000 && link.bytes_down() > 20);
        link.cut();
        assert!(wire.closed_without_reply());

        let mut wire = Wire::connect(link.addr(), Duration::from_millis(300)).unwrap();
        assert!(wire.exchange(&message::build(1, 2, 0)).unwrap().positive());
        link.set(Weather::Hole);
        wire.send(&message::build(1, 3, 0)).unwrap();
        assert!(!wire.closed_without_reply(), "a hole is silent, not closed");
        link.set(Weather::Fair);
        assert!(wire.closed_without_reply());

        link.set(Weather::Down);
        wait::wait_until("refusal", wait::SOON, || Wire::connect(link.addr(), wait::SOON).is_err());
        link.set(Weather::Fair);
        wait::wait_until("the link is back", wait::SOON, || Wire::connect(link.addr(), wait::SOON).is_ok());
    }
}
