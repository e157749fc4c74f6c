//! A child process that cannot outlive its handle.
//!
//! Output goes to a file (appended, so that restarts share one log). Dropping kills the process and whatever it started, found by parentage
//! and ended by process id.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with both outputs appended to `log`.
    pub fn start(what: &str, command: &mut Command, log: &Path) -> Self {
        let open = || -> File {
            OpenOptions::new().create(true).append(true).open(log).unwrap_or_else(|e| panic!("cannot open {}: {e}", log.display()))
        };
        let child = command.stdin(Stdio::null()).stdout(open()).stderr(open()).spawn();
        let child = child.unwrap_or_else(|e| panic!("cannot start {what}: {e}"));
        Self { what: what.to_owned(), child, log: log.to_path_buf() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        // stopped first: a server whose connection breaks would start another process for the next one
        send(self.id(), Signal::STOP);
        for pid in descendants(self.id()) {
            send(pid, Signal::KILL);
        }
        // an error means that it has ended already, which is what is wanted
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        send(self.id(), Signal::TERM);
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        send(self.id(), Signal::HUP);
    }

    /// SIGTERM to what it started (for a wrapper such as strace).
    pub fn terminate_children(&self) {
        for pid in descendants(self.id()) {
            send(pid, Signal::TERM);
        }
    }

    /// Everything it started, directly or not.
    pub fn descendants(&self) -> Vec<u32> {
        descendants(self.id())
    }

    /// Its exit status once it ended by itself.
    pub fn ended(&mut self, within: Duration) -> ExitStatus {
        let mut status = None;
        let ended = wait::try_until(within, || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        assert!(ended, "{} still runs after {} s; its log ends with:\n{}", self.what, within.as_secs(), self.log_tail());
        status.expect("ended")
    }

    /// Resident memory in KiB; 0 once it ended.
    pub fn resident_kib(&self) -> u64 {
        status_kib(self.id(), "VmRSS:")
    }

    /// The most memory it ever had resident, in KiB.
    pub fn resident_peak_kib(&self) -> u64 {
        status_kib(self.id(), "VmHWM:")
    }

    /// Processor time it used so far, in user and kernel mode, to a hundredth of a second; 0 once it ended.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2)).into_iter().flatten();
        let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
        ticks as f64 / 100.0
    }

    /// SIGSTOP to it and what it started: all is there and does not answer, until [`Process::resume`].
    pub fn pause(&self) {
        send(self.id(), Signal::STOP);
        for pid in descendants(self.id()) {
            send(pid, Signal::STOP);
        }
    }

    /// SIGCONT.
    pub fn resume(&self) {
        descendants(self.id()).into_iter().chain([self.id()]).for_each(|pid| send(pid, Signal::CONT));
    }

    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a file.
pub fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let from = text.len().saturating_sub(4096);
    String::from_utf8_lossy(&text[from..]).into_owned()
}

fn send(pid: u32, signal: Signal) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    // the process may have ended in between, which is fine
    let _ = kill_process(pid, signal);
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(field));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Everything started by `root`, directly or not.
fn descendants(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "pid (name with anything) state parent …"
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)).and_then(|p| p.parse::<u32>().ok());
        if let Some(parent) = parent {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(parents.iter().filter(|(pid, p)| *p == parent && *pid != root).map(|(pid, _)| *pid));
        at += 1;
    }
    found.remove(0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_takes_its_children_along() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let process = Process::start("shell", Command::new("sh").args(["-c", "sleep 1000 & wait"]), &log);
        let id = process.id();
        let child = wait::wait_for("the shell's child", wait::SOON, || descendants(id).first().copied());
        assert!(process.resident_kib() > 0);
        drop(process);
        wait::wait_until("the child's end", wait::SOON, || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }

    #[test]
    fn an_exit_status_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::start("shell", Command::new("sh").args(["-c", "echo hello; exit 78"]), &directory.path().join("log"));
        assert_eq!(process.ended(wait::SOON).code(), Some(78));
        assert_eq!(process.log_tail(), "hello\n");
    }
}
