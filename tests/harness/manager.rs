//! Plays systemd for one service: takes its notifications, keeps the descriptors it hands over while it is away, and gives them to the next process.
//!
//! As the real one does it: a descriptor is kept under its name until it is told otherwise or its listening has ended, and the process finds them
//! from number 3 on with `LISTEN_FDS`, `LISTEN_FDNAMES` and `LISTEN_PID`. A shell puts them there, since nothing else can without unsafe code.

use std::fmt::Write as _;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};

use crate::site::Site;

/// Above any number that the process is given.
const OUT_OF_THE_WAY: i32 = 300;

#[derive(Debug)]
pub struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
    stored: Vec<(String, OwnedFd)>,
    told: String,
    /// How long it waits to hear that the service is alive; `None`: it does not ask.
    pub patience: Option<Duration>,
}

impl Manager {
    pub fn new(directory: &Path) -> Self {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket for notifications");
        socket.set_nonblocking(true).expect("a socket need not block");
        Self { path, socket, stored: Vec::new(), told: String::new(), patience: None }
    }

    /// Starts the service with what is kept for it.
    pub fn start(&mut self, site: &mut Site) {
        self.heed();
        let (mut script, mut names) = (String::from("export LISTEN_PID=$$; exec \"$0\" \"$@\""), Vec::new());
        let mut copies = Vec::new();
        for (at, (name, fd)) in self.stored.iter().enumerate() {
            let copy = fcntl_dupfd_cloexec(fd, OUT_OF_THE_WAY).expect("a descriptor is free");
            fcntl_setfd(&copy, FdFlags::empty()).expect("it can be inherited");
            write!(script, " {}<&{} {}<&-", at + 3, copy.as_raw_fd(), copy.as_raw_fd()).expect("a string takes all");
            names.push(name.clone());
            copies.push(copy);
        }
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).arg(crate::program("siteward")).arg("run").arg("--config").arg(site.config_file());
        command.env("NOTIFY_SOCKET", &self.path).env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        if let Some(patience) = self.patience {
            command.env("WATCHDOG_USEC", patience.as_micros().to_string());
        }
        site.spawn_with(&mut command);
        for copy in &copies {
            fcntl_setfd(copy, FdFlags::CLOEXEC).expect("it need not be inherited");
        }
    }

    /// Does as it was told since the last time.
    pub fn heed(&mut self) {
        let mut bytes = [0; 4096];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut along = RecvAncillaryBuffer::new(&mut space);
            let Ok(read) = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut along, RecvFlags::CMSG_CLOEXEC) else { break };
            let words = String::from_utf8_lossy(&bytes[..read.bytes]).into_owned();
            let name = words.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
            let fds = along.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            });
            self.stored.extend(fds.flatten().map(|fd| (name.clone(), fd)));
            if words.lines().any(|line| line == "FDSTOREREMOVE=1") {
                self.stored.retain(|(stored, _)| *stored != name);
            }
            self.told.push_str(&words);
            self.told.push('\n');
        }
        self.stored.retain(|(_, fd)| sockopt::socket_acceptconn(fd.as_fd()).unwrap_or(false));
    }

    /// What is kept.
    pub fn kept(&mut self) -> Vec<String> {
        self.heed();
        self.stored.iter().map(|(name, _)| name.clone()).collect()
    }

    /// All that it was told, a line each.
    pub fn told(&mut self) -> &str {
        self.heed();
        &self.told
    }
}
