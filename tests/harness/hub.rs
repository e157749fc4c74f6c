//! The hub's receiver under test: `siteward-hub receive`, writing JSON lines.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::audit::Audit;
use crate::pki::Identity;
use crate::process::{Process, tail};
use crate::wait;

/// How it reaches the broker.
#[derive(Clone, Debug)]
pub enum Door {
    Tls { broker: SocketAddr, ca: PathBuf, client: Identity },
    Plain { broker: SocketAddr },
}

#[derive(Debug)]
pub struct Hub {
    directory: PathBuf,
    door: Door,
    process: Option<Process>,
    counted: Counted,
}

/// How far the output was counted.
#[derive(Debug, Default)]
struct Counted {
    offset: u64,
    events: u64,
    partial: Vec<u8>,
}

impl Hub {
    pub fn new(directory: &Path, door: Door) -> Self {
        std::fs::create_dir_all(directory).expect("a directory for the hub");
        Self { directory: directory.to_path_buf(), door, process: None, counted: Counted::default() }
    }

    pub fn start(&mut self) {
        let mut command = Command::new(crate::program("siteward-hub"));
        command.arg("receive");
        match &self.door {
            Door::Tls { broker, ca, client } => {
                command.arg("--broker").arg(format!("mqtts://{broker}"));
                command.arg("--ca").arg(ca).arg("--cert").arg(&client.cert).arg("--key").arg(&client.key);
            }
            Door::Plain { broker } => {
                command.arg("--broker").arg(format!("mqtt://{broker}"));
            }
        }
        command.arg("--out").arg(self.out());
        self.process = Some(Process::start("siteward-hub", &mut command, &self.log_file()));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM; must end by itself with 0.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("the hub was started");
        process.terminate();
        let status = process.ended(wait::SOON);
        assert_eq!(status.code(), Some(0), "SIGTERM ends the hub with 0; its log ends with:\n{}", process.log_tail());
    }

    pub fn running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::running)
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the hub was started")
    }

    pub fn out(&self) -> PathBuf {
        self.directory.join("events.jsonl")
    }

    pub fn log_file(&self) -> PathBuf {
        self.directory.join("hub.log")
    }

    pub fn log_tail(&self) -> String {
        tail(&self.log_file())
    }

    /// Event lines in the output so far. Cheap: reads only what is new.
    pub fn events(&mut self) -> u64 {
        let Ok(mut file) = File::open(self.out()) else { return 0 };
        let length = file.metadata().map_or(0, |m| m.len());
        let counted = &mut self.counted;
        if length < counted.offset {
            *counted = Counted::default(); // a half line was cut off: from the start
        }
        if file.seek(SeekFrom::Start(counted.offset)).is_err() {
            return counted.events;
        }
        let mut buffer = vec![0u8; 1 << 18];
        while let Ok(n) = file.read(&mut buffer) {
            if n == 0 {
                break;
            }
            counted.offset += n as u64;
            count(counted, &buffer[..n]);
        }
        counted.events
    }

    /// Waits until the output has at least so many events; gives up only when nothing comes any more.
    pub fn wait_for_events(&mut self, enough: u64) {
        let hint = format!("events at the hub; its log is {}", self.log_file().display());
        wait::wait_while_growing(&hint, wait::EVENTUALLY, || self.events(), enough);
    }

    /// Everything it wrote, checked.
    pub fn audit(&self) -> Audit {
        Audit::read(&self.out())
    }
}

/// Counts lines that are events. Payloads are base64, so the words cannot come up in one; only the part of a line before its payload is kept.
fn count(counted: &mut Counted, mut bytes: &[u8]) {
    while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
        keep(&mut counted.partial, &bytes[..end]);
        counted.events += u64::from(is_event(&counted.partial));
        counted.partial.clear();
        bytes = &bytes[end + 1..];
    }
    keep(&mut counted.partial, bytes);
}

/// Longest beginning of a line that is looked at.
const LINE_HEAD: usize = 4096;

fn keep(partial: &mut Vec<u8>, bytes: &[u8]) {
    let room = LINE_HEAD.saturating_sub(partial.len());
    partial.extend_from_slice(&bytes[..room.min(bytes.len())]);
}

fn is_event(line_head: &[u8]) -> bool {
    crate::canary::contains(line_head, b"\"kind\":\"event\"") || crate::canary::contains(line_head, b"\"kind\": \"event\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_as_the_file_grows_and_again_when_it_shrank() {
        let directory = tempfile::tempdir().unwrap();
        let mut hub = Hub::new(directory.path(), Door::Plain { broker: crate::net::loopback(1) });
        assert_eq!(hub.events(), 0);
        std::fs::write(hub.out(), "{\"kind\":\"open\"}\n{\"kind\":\"event\",\"x\":1}\n{\"kind\":\"ev").unwrap();
        assert_eq!(hub.events(), 1);
        std::fs::write(hub.out(), "{\"kind\":\"open\"}\n{\"kind\":\"event\",\"x\":1}\n{\"kind\":\"event\"}\n").unwrap();
        assert_eq!(hub.events(), 2);
        std::fs::write(hub.out(), "{\"kind\":\"event\"}\n").unwrap();
        assert_eq!(hub.events(), 1);
    }
}
