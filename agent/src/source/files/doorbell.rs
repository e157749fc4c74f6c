//! Waits for the next scan: until it is due, or something rings. inotify is a doorbell only: it says that a scan may be worth it, never what
//! happened. It does not ring for what another machine does on a network share, and where it cannot be had, the scans come by time alone.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use crate::limits;

/// Wakes the waiting thread from outside.
#[derive(Debug, Clone)]
pub struct Button(Arc<OwnedFd>);

impl Button {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    pub fn press(&self) {
        if let Err(error) = rustix::io::write(&*self.0, &1u64.to_ne_bytes()) {
            tracing::debug!("a feed's thread could not be woken: {error}; it wakes for its next scan");
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Doorbell {
    button: Button,
    watch: Option<OwnedFd>,
    /// Device and inode of the directory that is watched.
    watched: Option<(u64, u64)>,
}

impl Doorbell {
    pub fn new(button: Button) -> Self {
        Self { button, watch: None, watched: None }
    }

    /// Watches this directory; does nothing where it is watched already.
    pub fn watch(&mut self, path: &Path, identity: (u64, u64)) {
        if self.watched == Some(identity) {
            return;
        }
        self.watched = Some(identity);
        let wanted = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR;
        let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(|fd| add_watch(&fd, path, wanted).map(|_| fd));
        self.watch = watch.map_err(|error| tracing::debug!("no inotify: {error}; scans come by time alone")).ok();
    }

    /// Waits until `due`, or until something rings.
    pub fn wait(&self, due: Instant) {
        let left = due.saturating_duration_since(Instant::now()).min(limits::SCAN_INTERVAL_RANGE.1);
        let timeout = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        let mut sources = vec![PollFd::new(&*self.button.0, PollFlags::IN)];
        sources.extend(self.watch.iter().map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
        let rung = poll(&mut sources, Some(&timeout));
        let is_pressed = !sources[0].revents().is_empty();
        let Ok(1..) = rung else { return };
        if !is_pressed {
            // One file is many events; they are taken together.
            std::thread::sleep(limits::DOORBELL_PAUSE.min(left));
        }
        let mut bytes = [0u8; 4096];
        for fd in self.watch.iter().map(AsFd::as_fd).chain([self.button.0.as_fd()]) {
            // What they say does not matter; an overflow is one more reason to scan.
            while rustix::io::read(fd, &mut bytes).is_ok_and(|n| n == bytes.len()) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_new_file_and_the_button_ring() {
        let directory = tempfile::tempdir().unwrap();
        let button = Button::new().unwrap();
        let mut bell = Doorbell::new(button.clone());
        bell.watch(directory.path(), (1, 1));
        let long = Instant::now() + Duration::from_secs(600);
        std::fs::write(directory.path().join("a"), "a").unwrap();
        bell.wait(long);
        button.press();
        bell.wait(long);
        bell.wait(Instant::now());
    }
}
