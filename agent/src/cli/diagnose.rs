//! `siteward diagnose`: one archive with what somebody far away needs to see why a gateway does not work. No content of messages, no secret (I7).
//!
//! 1. The running agent is asked what anybody in `siteward-view` may ask: status, feeds, settings, history, certificates, quarantine (listed), overrides,
//!    the end of the audit log and whether it is whole, the last lines of its log.
//! 2. What the machine says is beside it: mounts and space of the spool, names and sizes of its files, clock, load, the unit and its journal
//!    (`systemctl`, `journalctl`, as far as this user may).
//! 3. What could not be had is named in `missing.txt` with why; without an agent the archive has the rest. `MANIFEST` has the digest of each file.
//!
//! A plain tar: nothing on the box has to be there to read it elsewhere. Metrics come into `status.json`'s place beside them when there is a
//! question for them.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::ask::{ask, other};
use super::{Failure, audit, chain, print};
use crate::limits::{DIAGNOSE_AUDIT_RECORDS, DIAGNOSE_FILES_MAX, DIAGNOSE_PART_BYTES_MAX, DIAGNOSE_PROGRAM_TIME};
use crate::metrics;
use crate::metrics::text::Format;
use crate::record::Digest;
use crate::status::question::{Question, Request};
use crate::status::snapshot::Snapshot;
use crate::status::table::put;
use crate::threads::SCARCE;
use crate::{clock, config};

/// The directory in the archive.
const INSIDE: &str = "siteward-diagnose";

/// What was gathered.
#[derive(Default)]
struct Parts {
    files: Vec<(String, Vec<u8>)>,
    missing: Vec<String>,
}

impl Parts {
    fn put(&mut self, name: &str, text: impl Into<Vec<u8>>) {
        let mut text = text.into();
        if text.len() > DIAGNOSE_PART_BYTES_MAX {
            self.missing.push(format!("{name}: only the last {DIAGNOSE_PART_BYTES_MAX} of {} bytes are here", text.len()));
            text.drain(..text.len() - DIAGNOSE_PART_BYTES_MAX);
        }
        self.files.push((name.to_owned(), text));
    }

    fn take(&mut self, name: &str, made: Result<impl Into<Vec<u8>>, String>) {
        match made {
            Ok(text) => self.put(name, text),
            Err(why) => self.missing.push(format!("{name}: {why}")),
        }
    }
}

fn why(failure: &Failure) -> String {
    match failure {
        Failure::Config(faults) => faults.to_string(),
        Failure::Unfit(error) | Failure::Other(error) => chain(error.as_ref()),
        Failure::No => "there is none".to_owned(),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

pub(super) fn diagnose(file: &Path, out: Option<PathBuf>) -> Result<(), Failure> {
    let mut parts = Parts::default();
    parts.put("version.txt", concat!("siteward ", env!("CARGO_PKG_VERSION"), "\n"));
    agent(file, &mut parts);
    files(file, &mut parts);
    machine(&mut parts);
    let now = clock::now();
    let at = clock::rfc3339(now.unix_ms);
    let out = out.unwrap_or_else(|| format!("siteward-diagnose-{}.tar", at.replace([':', '.'], "-")).into());
    let missing = parts.missing.len();
    let mut list = format!("made at {at}{}\n", if now.suspect { " (clock suspect)" } else { "" });
    list.extend(parts.missing.iter().map(|line| format!("{}\n", line.replace('\n', " "))));
    parts.put("missing.txt", list);
    let cannot = |error: std::io::Error| other(format!("cannot write {}: {error}; give --out another path", out.display()));
    let mut target = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&out).map_err(cannot)?;
    let (bytes, count) = (archive(&parts.files, now.unix_ms), parts.files.len() + 1);
    target.write_all(&bytes).and_then(|()| target.sync_all()).map_err(cannot)?;
    let left_out = if missing == 0 { String::new() } else { format!("; {missing} things could not be had, missing.txt says why") };
    print(&format!("{count} files are in {}{left_out}. It holds no content of messages and no secrets\n", out.display()))
}

fn agent(file: &Path, parts: &mut Parts) {
    let questions = [
        ("status.json", Question::Status {}),
        ("feeds.json", Question::Feeds { feed: None }),
        ("config-history.json", Question::ConfigHistory {}),
        ("certificates.json", Question::Certificates {}),
        ("secrets.json", Question::Secrets {}),
        ("overrides.json", Question::Overrides {}),
        ("maintenance.json", Question::Maintenance {}),
        ("quarantine.json", Question::Quarantine { feed: None }),
    ];
    for (name, question) in questions {
        let answer = ask::<Value>(file, &Request::Get(question));
        parts.take(name, answer.map(|value| pretty(&value)).map_err(|failure| why(&failure)));
    }
    let figures = ask::<Snapshot>(file, &Request::STATUS).map(|snapshot| metrics::render(&snapshot, Format::Prometheus));
    parts.take("metrics.txt", figures.map_err(|failure| why(&failure)));
    let text = |value: Value, member: &str| value[member].as_str().unwrap_or_default().to_owned();
    let shown = ask::<Value>(file, &Request::Get(Question::Config {})).map(|value| text(value, "text"));
    // Without an agent: what the file says.
    let shown = shown.or_else(|_| config::load_bootstrap_unchecked(file).map(|settings| config::show::render(&settings)));
    parts.take("config.txt", shown.map_err(|faults| faults.to_string()));
    let log = ask::<Value>(file, &Request::Get(Question::Log {}));
    let lines = |value: &Value| -> String {
        let mut text = String::new();
        value["lines"].as_array().into_iter().flatten().filter_map(Value::as_str).for_each(|line| put(&mut text, format_args!("{line}\n")));
        text
    };
    parts.take("log.txt", log.map(|value| lines(&value)).map_err(|failure| why(&failure)));
    parts.take("audit-verify.txt", audit::verdict(file).map(|verdict| verdict.text()).map_err(|failure| why(&failure)));
    let records = audit::records(file, Some(DIAGNOSE_AUDIT_RECORDS)).map(|records| records.lines);
    let records = records.map(|lines| {
        let mut text = String::new();
        for line in &lines {
            put(&mut text, format_args!("{line}\n"));
        }
        text
    });
    parts.take("audit.jsonl", records.map_err(|failure| why(&failure)));
}

/// The spool from outside: space, mount, names and sizes.
fn files(file: &Path, parts: &mut Parts) {
    let settings = match config::load_bootstrap_unchecked(file) {
        Ok(settings) => settings,
        Err(faults) => return parts.missing.push(format!("spool.txt: {faults}")),
    };
    let spool = &settings.spool.path;
    let mut text = format!("spool {}\n", spool.display());
    match rustix::fs::statvfs(spool) {
        Ok(volume) => {
            let of = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
            put(
                &mut text,
                format_args!(
                    "volume {} bytes, {} free; {} inodes, {} free\n",
                    of(volume.f_blocks),
                    of(volume.f_bavail),
                    volume.f_files,
                    volume.f_favail
                ),
            );
        }
        Err(error) => parts.missing.push(format!("spool.txt: the volume: {error}")),
    }
    let mut directories = vec![spool.clone()];
    let mut left = DIAGNOSE_FILES_MAX;
    while let Some(directory) = directories.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                parts.missing.push(format!("spool.txt: {}: {error}", directory.display()));
                continue;
            }
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if left == 0 {
                parts.missing.push(format!("spool.txt: more than {DIAGNOSE_FILES_MAX} files"));
                directories.clear();
                break;
            }
            left -= 1;
            if metadata.is_dir() {
                directories.push(entry.path());
            }
            let name = entry.path().strip_prefix(spool).map(Path::to_path_buf).unwrap_or_default();
            put(&mut text, format_args!("{:>12} {}{}\n", metadata.len(), name.display(), if metadata.is_dir() { "/" } else { "" }));
        }
    }
    parts.put("spool.txt", text);
}

fn machine(parts: &mut Parts) {
    for (name, path) in [
        ("mounts.txt", "/proc/self/mounts"),
        ("load.txt", "/proc/loadavg"),
        ("memory.txt", "/proc/meminfo"),
        ("uptime.txt", "/proc/uptime"),
        ("kernel.txt", "/proc/version"),
        ("system.txt", "/etc/os-release"),
        ("clock-source.txt", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    ] {
        parts.take(name, std::fs::read(path).map_err(|error| error.to_string()));
    }
    // No property that may hold what somebody put into the environment.
    let properties = "--property=Id,ActiveState,SubState,Result,NRestarts,ExecMainStartTimestamp,ExecMainStatus,MemoryCurrent,MemoryPeak,TasksCurrent,\
                      StatusText,UnitFileState,DropInPaths,WatchdogUSec";
    parts.take("unit.txt", run("systemctl", &["show", "siteward", "--no-pager", properties]));
    parts.take("clock.txt", run("timedatectl", &["show", "--no-pager"]));
    parts.take("journal.txt", run("journalctl", &["--unit=siteward", "--lines=2000", "--output=short-iso", "--no-pager", "--quiet"]));
}

/// What a program of the system says, within its time.
fn run(program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("{program} cannot be run: {error}"))?;
    let output = child.stdout.take().expect("it is piped");
    let (done, answer) = mpsc::sync_channel(1);
    let reading = std::thread::Builder::new().spawn(move || {
        let mut text = Vec::new();
        let read = output.take(4 * DIAGNOSE_PART_BYTES_MAX as u64).read_to_end(&mut text);
        // Nobody waits any more where it took too long.
        let _ = done.send(read.map(|_| text));
    });
    // Without a thread nobody reads, and its end is known at once.
    let text = answer.recv_timeout(DIAGNOSE_PROGRAM_TIME);
    if text.is_err() {
        // It may have ended in the meantime.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| format!("{program}: {error}"))?;
    match (reading, text) {
        (Err(error), _) => Err(format!("{program} could not be read: {SCARCE} ({error})")),
        (_, Ok(Ok(text))) if status.success() => Ok(text),
        (_, Ok(Ok(_))) => Err(format!("{program} ended with {status}; is this user allowed to ask it?")),
        (_, Ok(Err(error))) => Err(format!("{program}: {error}")),
        (_, Err(_)) => Err(format!("{program} did not answer within {} s", DIAGNOSE_PROGRAM_TIME.as_secs())),
    }
}

// ---- the archive ----

fn archive(files: &[(String, Vec<u8>)], at_ms: i64) -> Vec<u8> {
    let mut manifest = String::new();
    for (name, bytes) in files {
        let digest = Digest(Sha256::digest(bytes).into());
        put(&mut manifest, format_args!("{digest}  {INSIDE}/{name}\n"));
    }
    let mut out = Vec::new();
    for (name, bytes) in [("MANIFEST", manifest.as_bytes())].into_iter().chain(files.iter().map(|(n, b)| (n.as_str(), b.as_slice()))) {
        entry(&mut out, &format!("{INSIDE}/{name}"), bytes, at_ms);
    }
    out.extend([0; 1024]);
    out
}

/// One file of a ustar archive.
fn entry(out: &mut Vec<u8>, name: &str, bytes: &[u8], at_ms: i64) {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", bytes.len()));
    put(136, &format!("{:011o}\0", (at_ms / 1000).max(0)));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_read_by_tar_and_its_manifest_fits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        let files = vec![
            ("one.txt".to_owned(), b"hello\n".to_vec()),
            ("empty.txt".to_owned(), Vec::new()),
            ("long.txt".to_owned(), vec![b'x'; 1025]),
        ];
        std::fs::write(&path, archive(&files, 1_793_491_200_000)).unwrap();
        let tar = Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(directory.path()).status().unwrap();
        assert!(tar.success());
        for (name, bytes) in &files {
            assert_eq!(&std::fs::read(directory.path().join(INSIDE).join(name)).unwrap(), bytes);
        }
        let check = Command::new("sha256sum").args(["--quiet", "-c", &format!("{INSIDE}/MANIFEST")]).current_dir(directory.path()).status();
        assert!(check.unwrap().success());
    }

    #[test]
    fn a_program_that_is_not_there_or_fails_is_said() {
        let absent = run("no-such-program", &[]).unwrap_err();
        assert!(absent.contains("cannot be run") || absent.contains("127"), "{absent}"); // emulators answer as a shell does
        assert!(run("false", &[]).unwrap_err().contains("ended with"));
        assert_eq!(run("echo", &["x"]).unwrap(), b"x\n");
    }
}
