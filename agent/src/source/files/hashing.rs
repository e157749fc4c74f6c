//! The digest of a file while it is read: of a large one on a thread of its own, beside the one that reads and splits.
//!
//! ```text
//!   feed's thread   read ─► split ─► full ──►┐
//!   its helper            ┌──────────────── hash      FILE_HASH_BUFFERS of them, round and round
//!                         └► empty ─► read …
//! ```
//!
//! Whoever reads waits for the helper where that is slower; the helper never touches the share, so it cannot hang, and ends when its buffers stop
//! coming: with the pass, however that ends. A small file is not worth a thread; without one (the system gives none) the digest is made in line.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

use crate::limits::{FILE_HASH_ASIDE_BYTES, FILE_HASH_BUFFERS};

/// See the module's documentation.
#[derive(Debug)]
pub(super) enum Hashing {
    Inline(Sha256),
    Aside(Aside),
}

#[derive(Debug)]
pub(super) struct Aside {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    /// Buffers that exist.
    made: usize,
    thread: JoinHandle<Sha256>,
}

impl Hashing {
    /// For a file of this size.
    pub(super) fn of(size: u64) -> Self {
        let aside = if size >= FILE_HASH_ASIDE_BYTES { Aside::start().ok() } else { None };
        aside.map_or_else(|| Self::Inline(Sha256::new()), Self::Aside)
    }

    /// Takes what was read, gives a buffer for what comes; what it holds means nothing.
    pub(super) fn update(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Inline(hash) => {
                hash.update(&bytes);
                bytes
            }
            Self::Aside(aside) => aside.update(bytes),
        }
    }

    /// The digest of everything, these bytes the last.
    pub(super) fn finish(mut self, bytes: Vec<u8>) -> [u8; 32] {
        drop(self.update(bytes));
        match self {
            Self::Inline(hash) => hash.finalize().into(),
            Self::Aside(Aside { full, thread, .. }) => {
                drop(full);
                thread.join().expect("hashing cannot panic").finalize().into()
            }
        }
    }
}

impl Aside {
    fn start() -> std::io::Result<Self> {
        let (full, waiting) = sync_channel::<Vec<u8>>(FILE_HASH_BUFFERS);
        let (done, empty) = sync_channel(FILE_HASH_BUFFERS);
        let thread = std::thread::Builder::new().name("digest".into()).spawn(move || {
            let mut hash = Sha256::new();
            for bytes in waiting {
                hash.update(&bytes);
                // Nobody waits for it at the end.
                drop(done.send(bytes));
            }
            hash
        })?;
        Ok(Self { full, empty, made: 1, thread })
    }

    fn update(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.full.send(bytes).expect("the helper takes buffers as long as they come");
        if let Ok(buffer) = self.empty.try_recv() {
            return buffer;
        }
        if self.made < FILE_HASH_BUFFERS {
            self.made += 1;
            return Vec::new();
        }
        self.empty.recv().expect("the helper gives every buffer back")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same digest, however a file is cut into portions, beside or in line.
    #[test]
    fn a_digest_made_beside_is_that_of_the_bytes() {
        for size in [0, 1, FILE_HASH_ASIDE_BYTES - 1, FILE_HASH_ASIDE_BYTES, 3 * FILE_HASH_ASIDE_BYTES + 17] {
            let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let mut hashing = Hashing::of(size);
            assert_eq!(matches!(hashing, Hashing::Aside(_)), size >= FILE_HASH_ASIDE_BYTES);
            let mut buffer = Vec::new();
            for portion in bytes.chunks(70_001) {
                buffer = hashing.update(buffer);
                buffer.clear();
                buffer.extend_from_slice(portion);
            }
            assert_eq!(hashing.finish(buffer)[..], Sha256::digest(&bytes)[..], "{size}");
        }
    }

    /// A pass that ends early leaves no thread behind: the helper ends with its buffers.
    #[test]
    fn the_helper_ends_with_the_pass() {
        let mut hashing = Hashing::of(FILE_HASH_ASIDE_BYTES);
        drop(hashing.update(vec![1; 1000]));
        let Hashing::Aside(Aside { full, empty, thread, .. }) = hashing else { panic!("it is large enough") };
        drop((full, empty));
        thread.join().unwrap();
    }
}
