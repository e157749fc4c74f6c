//! A sender with a destination queue, as integration engines have one, and an old engine to be replaced.
//!
//! ```text
//! queue ──► head is sent ──► AA or CA with its MSH-10: taken off, sent          no answer, closed, an answer that matches nothing:
//!                       └──► AE AR CE CR: taken off, in error (dropped)          it stays the head, reconnect, same control id
//! ```
//!
//! One message at a time, strictly in order. The destination can be changed while it works, which is what a cutover is: what is under way at
//! that moment stays the head, and goes to the new destination under its old control id.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::message;
use crate::net;
use crate::sender::Wire;

/// A rest after each answer, so that a cutover finds work under way.
const PAUSE: Duration = Duration::from_millis(5);
/// A rest before each new connection.
const RECONNECT: Duration = Duration::from_millis(20);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What became of the messages of a queue, each list in the order of the answers.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub sent: Vec<u64>,
    /// Refused and dropped, with MSA-1.
    pub errors: Vec<(u64, String)>,
    /// Sent once more after an answer that did not come; a number as often as that happened.
    pub resent: Vec<u64>,
}

#[derive(Debug)]
struct Shared {
    destination: Mutex<SocketAddr>,
    /// Grows with every change of the destination.
    era: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
}

/// A queue at work.
#[derive(Debug)]
pub struct DestinationQueue {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Outcome>>,
}

impl DestinationQueue {
    /// Sends messages 1 to `count` of `connection`, of these sizes.
    pub fn start(destination: SocketAddr, connection: usize, count: u64, size: fn(usize, u64) -> usize) -> Self {
        let shared = Arc::new(Shared {
            destination: Mutex::new(destination),
            era: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let working = shared.clone();
        let thread = std::thread::spawn(move || work(&working, connection, count, size));
        Self { shared, thread: Some(thread) }
    }

    /// From now on messages go there; the connection that is open is closed whatever is under way on it.
    pub fn switch(&self, destination: SocketAddr) {
        *locked(&self.shared.destination) = destination;
        self.shared.era.fetch_add(1, Ordering::SeqCst);
    }

    /// Messages answered so far, either way.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Waits for the last answer.
    pub fn finish(mut self) -> Outcome {
        self.thread.take().expect("finished once").join().expect("a queue does not panic")
    }
}

impl Drop for DestinationQueue {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

fn work(shared: &Shared, connection: usize, count: u64, size: fn(usize, u64) -> usize) -> Outcome {
    let mut outcome = Outcome::default();
    let mut head = 1;
    let mut tried = 0;
    while head <= count && !shared.stop.load(Ordering::SeqCst) {
        let era = shared.era.load(Ordering::SeqCst);
        let destination = *locked(&shared.destination);
        let Ok(mut wire) = Wire::connect(destination, Duration::from_secs(5)) else {
            std::thread::sleep(RECONNECT);
            continue;
        };
        while head <= count && shared.era.load(Ordering::SeqCst) == era && !shared.stop.load(Ordering::SeqCst) {
            if tried == head {
                outcome.resent.push(head);
            }
            tried = head;
            let id = message::control_id(connection, head);
            let Ok(reply) = wire.exchange(&message::build(connection, head, size(connection, head))) else { break };
            if reply.control_id != id.as_bytes() {
                break;
            }
            match reply.code.as_str() {
                "AA" | "CA" => outcome.sent.push(head),
                code => outcome.errors.push((head, code.to_owned())),
            }
            head += 1;
            shared.answered.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(PAUSE);
        }
        std::thread::sleep(RECONNECT);
    }
    outcome
}

/// The engine that is to be replaced: stores what it gets, then acknowledges. Its failure is to store and to be cut off before the answer.
#[derive(Debug)]
pub struct OldEngine {
    addr: SocketAddr,
    shared: Arc<Engine>,
}

#[derive(Debug, Default)]
struct Engine {
    stored: Mutex<Vec<u64>>,
    /// Stores the next message, gives no answer, closes, and takes nothing from then on.
    fail_next: AtomicBool,
    closed: AtomicBool,
}

impl OldEngine {
    pub fn start() -> Self {
        let addr = net::loopback(net::free_port());
        let listener = TcpListener::bind(addr).expect("a port for the old engine");
        let shared = Arc::new(Engine::default());
        let engine = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let engine = engine.clone();
                std::thread::spawn(move || engine.serve(stream));
            }
        });
        Self { addr, shared }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Numbers of the messages it stored, in order.
    pub fn stored(&self) -> Vec<u64> {
        locked(&self.shared.stored).clone()
    }

    /// Stops in the middle of the next message: stored, not answered.
    pub fn stop_in_the_middle(&self) {
        self.shared.fail_next.store(true, Ordering::SeqCst);
    }

    /// It has stopped.
    pub fn stopped(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst)
    }

    /// Works again.
    pub fn resume(&self) {
        self.shared.closed.store(false, Ordering::SeqCst);
    }
}

impl Engine {
    fn serve(&self, stream: TcpStream) {
        let Ok(mut writer) = stream.try_clone() else { return };
        let mut frames = Frames { stream, unread: Vec::new() };
        while !self.closed.load(Ordering::SeqCst)
            && let Some(message) = frames.next()
            && !self.closed.load(Ordering::SeqCst)
        {
            let id = message::msh10(&message).unwrap_or_default();
            let Some((_, number)) = message::parse_control_id(id) else { break };
            locked(&self.stored).push(number);
            if self.fail_next.swap(false, Ordering::SeqCst) {
                self.closed.store(true, Ordering::SeqCst);
                break;
            }
            let id = String::from_utf8_lossy(id);
            let reply = format!("\x0BMSH|^~\\&|OLD|ENGINE|CABINET|ST-MARYS|20261122||ACK|{id}|P|2.5.1\rMSA|AA|{id}\r\x1C\r");
            if writer.write_all(reply.as_bytes()).is_err() {
                break;
            }
        }
        // fails only where the connection has ended already
        let _ = writer.shutdown(Shutdown::Both);
    }
}

/// Messages out of a stream, framing removed.
struct Frames {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Frames {
    fn next(&mut self) -> Option<Vec<u8>> {
        use std::io::Read;
        loop {
            if let Some(end) = self.unread.iter().position(|b| *b == 0x1C) {
                let rest = self.unread.split_off(end + 1);
                let framed = std::mem::replace(&mut self.unread, rest);
                let start = framed.iter().position(|b| *b == 0x0B)?;
                return Some(framed[start + 1..end].to_vec());
            }
            let mut buffer = [0u8; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.unread.extend_from_slice(&buffer[..n]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;

    #[test]
    fn a_queue_keeps_its_head_until_it_is_answered_and_drops_what_is_refused() {
        let old = OldEngine::start();
        let queue = DestinationQueue::start(old.addr(), 1, 100, |_, _| 500);
        wait::wait_while_growing("answered", wait::SOON, || queue.answered(), 5);
        old.stop_in_the_middle();
        wait::wait_until("the engine stops", wait::SOON, || old.stopped());
        let under_way = *old.stored().last().unwrap();
        old.resume();
        let outcome = queue.finish();
        assert_eq!(outcome.sent, (1..=100).collect::<Vec<_>>());
        assert!(outcome.errors.is_empty());
        assert_eq!(old.stored().iter().filter(|n| **n == under_way).count(), 2, "the old engine knows no duplicates");
        assert!(outcome.resent.contains(&under_way));
    }
}
