//! The yardstick for durable capture: the least that could keep promise I1 and nothing else.
//!
//! An MLLP server with one thread per connection; each message goes to one writer thread, which drains its queue, appends all to one
//! preallocated file, calls `fdatasync` once and lets every connection answer (group commit). No sealing, no checksums, no dedupe, no recovery,
//! no forwarding: what the agent costs above this is the price of everything else it promises.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::message;
use crate::net;

/// The file starts with this much allocated and grows by as much.
const ALLOCATION: u64 = 64 << 20;
/// Most messages of one commit.
const BATCH: usize = 1024;

#[derive(Debug)]
struct Append {
    bytes: Vec<u8>,
    durable: SyncSender<()>,
}

/// A running server.
#[derive(Debug)]
pub struct PlainLog {
    addr: SocketAddr,
    stored: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl PlainLog {
    /// Listens on a free port, appends to a new file at `path`.
    pub fn start(path: &Path) -> Self {
        let listener = TcpListener::bind(net::loopback(0)).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path).expect("a log file");
        let stored = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (queue, appends) = sync_channel::<Append>(BATCH);
        let count = stored.clone();
        std::thread::spawn(move || commit(&file, &appends, &count));
        let stopping = stop.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let queue = queue.clone();
                std::thread::spawn(move || serve(stream, &queue));
            }
        });
        Self { addr, stored, stop }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Messages made durable.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }
}

impl Drop for PlainLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // wakes the accept loop; where that fails it has ended already
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
    }
}

fn commit(file: &File, appends: &Receiver<Append>, stored: &AtomicU64) {
    let mut end = 0u64;
    let mut allocated = 0u64;
    let mut buffer = Vec::new();
    while let Ok(first) = appends.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = appends.try_recv()
        {
            batch.push(next);
        }
        buffer.clear();
        for append in &batch {
            buffer.extend_from_slice(&(append.bytes.len() as u32).to_be_bytes());
            buffer.extend_from_slice(&append.bytes);
        }
        while end + buffer.len() as u64 > allocated {
            rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), allocated, ALLOCATION).expect("room for the log");
            allocated += ALLOCATION;
        }
        file.write_all_at(&buffer, end).expect("the log is written");
        file.sync_data().expect("the log is synced");
        end += buffer.len() as u64;
        stored.fetch_add(batch.len() as u64, Ordering::Relaxed);
        for append in batch {
            // a connection that has gone needs no answer
            let _ = append.durable.try_send(());
        }
    }
}

fn serve(mut stream: TcpStream, queue: &SyncSender<Append>) {
    // an error here only costs speed
    let _ = stream.set_nodelay(true);
    let (durable, done) = sync_channel(1);
    let mut unread: Vec<u8> = Vec::new();
    let mut scanned = 0;
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        while let Some(end) = unread[scanned..].iter().position(|&b| b == 0x1C).map(|at| at + scanned) {
            let rest = unread.split_off(end + 1);
            let framed = std::mem::replace(&mut unread, rest);
            scanned = 0;
            let Some(start) = framed.iter().position(|&b| b == 0x0B) else { return };
            let bytes = framed[start + 1..end].to_vec();
            let id = String::from_utf8_lossy(message::msh10(&bytes).unwrap_or_default()).into_owned();
            if queue.send(Append { bytes, durable: durable.clone() }).is_err() || done.recv().is_err() {
                return;
            }
            let reply = format!("\x0BMSH|^~\\&|HUB|SITEWARD|ST-MARYS|CABINET|20261122101500||ACK|{id}|P|2.5.1\rMSA|AA|{id}\r\x1C\r");
            if stream.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
        scanned = unread.len();
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => unread.extend_from_slice(&buffer[..n]),
        }
    }
}
