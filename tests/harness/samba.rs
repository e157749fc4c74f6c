//! A file server of the hospital: a real Samba on loopback with one share, and that share mounted.
//!
//! The kernel's own client (`mount -t cifs`) needs a module that test machines rarely have, so the share is mounted by a client in user space
//! (rclone, through FUSE): to the agent it is a mounted file system that hangs while the server does, fails while it is gone, and refuses what the
//! server refuses. Programs of other machines write into the server's directory; a scanner opens files through the server (`smbclient`), in the
//! manner that lets nobody rename them.
//!
//! Samba and mounting need root. Nothing is asked of the network but loopback; processes are ended by id.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::net;
use crate::process::Process;
use crate::wait;

const SMBD: &str = "/usr/sbin/smbd";

/// What is missing for these tests on this machine.
pub fn missing() -> Option<&'static str> {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    match () {
        () if !rustix::process::geteuid().is_root() => Some("root"),
        () if !Path::new("/dev/fuse").exists() => Some("/dev/fuse"),
        () if !Path::new(SMBD).exists() => Some("Samba (Debian: samba)"),
        () if !has("smbclient") => Some("smbclient (Debian: smbclient)"),
        () if !has("rclone") || !has("fusermount3") => Some("rclone with fuse3 (Debian: rclone, fuse3)"),
        () => None,
    }
}

/// The server.
#[derive(Debug)]
pub struct Samba {
    directory: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Samba {
    pub fn start(directory: &Path) -> Self {
        for name in ["share", "private"] {
            std::fs::create_dir_all(directory.join(name)).expect("a directory of the server");
        }
        let mut samba = Self { directory: directory.to_owned(), port: net::free_port(), process: None };
        std::fs::write(samba.directory.join("smb.conf"), samba.configuration()).expect("the configuration is written");
        samba.restart();
        samba
    }

    fn configuration(&self) -> String {
        let private = self.directory.join("private");
        let private = private.display();
        format!(
            "[global]\nserver role = standalone server\ninterfaces = 127.0.0.1\nbind interfaces only = yes\nsmb ports = {port}\n\
             disable netbios = yes\nserver min protocol = SMB2\nmap to guest = Bad User\nguest account = root\nload printers = no\n\
             disable spoolss = yes\nprivate dir = {private}\nlock directory = {private}\nstate directory = {private}\n\
             cache directory = {private}\npid directory = {private}\nncalrpc dir = {private}/rpc\nlog file = {private}/log\n\
             passdb backend = tdbsam:{private}/passdb.tdb\n[share]\npath = {share}\nguest ok = yes\nread only = no\nforce user = root\n",
            port = self.port,
            share = self.share().display(),
        )
    }

    /// The directory behind the share, as the server sees it.
    pub fn share(&self) -> PathBuf {
        self.directory.join("share")
    }

    /// Starts it on its port (after [`Self::kill`] where it still runs).
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(SMBD);
        command.args(["--foreground", "--no-process-group", "--debug-stdout", "-s"]).arg(self.directory.join("smb.conf"));
        self.process = Some(Process::start("smbd", &mut command, &self.directory.join("smbd.log")));
        wait::wait_until("the file server listens", wait::SOON, || net::listening(net::loopback(self.port)));
    }

    /// SIGKILL: connections break.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The server does not answer any more, connections stay.
    pub fn pause(&self) {
        self.process.as_ref().expect("the server runs").pause();
    }

    pub fn resume(&self) {
        self.process.as_ref().expect("the server runs").resume();
    }

    /// Mounts the share; `kib_per_second` makes it as slow as a share at night is.
    pub fn mount(&self, at: &Path, kib_per_second: Option<u32>) -> Mount {
        let remote = format!(":smb,host=127.0.0.1,port={},user=guest:share", self.port);
        let mut command = Command::new("rclone");
        command.arg("mount").arg(remote).arg(at).args(["--dir-cache-time", "0s", "--attr-timeout", "0s", "--vfs-cache-mode", "off"]);
        command.args(["--low-level-retries", "1", "--retries", "1", "--contimeout", "2s", "--allow-non-empty"]);
        if let Some(rate) = kib_per_second {
            command.arg("--bwlimit").arg(format!("{rate}K")).args(["--buffer-size", "0", "--vfs-read-chunk-size", "256K"]);
        }
        let process = Process::start("rclone", &mut command, &self.directory.join("rclone.log"));
        let mount = Mount { at: at.to_owned(), process: Some(process) };
        wait::wait_until("the share is mounted", wait::SOON, || is_mounted(at));
        mount
    }

    /// A scanner opens a file and keeps it for so long, or until it is dropped; nobody can rename it meanwhile.
    pub fn scanner(&self, name: &str, seconds: u32) -> Process {
        let mut command = Command::new("sh");
        let client = format!("stdbuf -oL smbclient -p {} -N //127.0.0.1/share", self.port);
        command.arg("-c").arg(format!("(echo open {name}; sleep {seconds}; echo quit) | {client}"));
        let log = self.directory.join("scanner.log");
        let process = Process::start("smbclient", &mut command, &log);
        wait::wait_until("the scanner has the file", wait::SOON, || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("fnum")));
        process
    }
}

fn is_mounted(at: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point) == at))
}

/// The share, mounted until dropped.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    process: Option<Process>,
}

impl Mount {
    /// Takes it away, though files may be open on it.
    pub fn unmount(self) {
        drop(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Mounted no more is what is wanted; the client ends with it, or is ended.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        self.process = None;
    }
}
