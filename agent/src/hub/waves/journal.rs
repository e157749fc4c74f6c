//! The desk's memory of rollouts: a directory with one journal, the documents that were published, and a lock.
//!
//! ```text
//!   lock                                      held while somebody publishes; says who
//!   journal.jsonl                             one Entry a line, each synced before what rests on it; all rollouts, the newest last
//!   documents/{document}-{envelope}.dsse      the signed bytes by their SHA-256s; written and synced before the plan that names them
//!   stop                                      made by `rollout stop` while another process publishes; taken away by that one
//! ```
//!
//! 1. A line that a crash cut short is the last one, and nothing rests on it: it is cut off at the next opening. Any other line that cannot be read is
//!    damage, and nothing is published on top of it.
//! 2. What was ever planned says which content a revision has at a gateway, for ever: another content for it is refused ([`Memory::contents`]).
//! 3. Bytes are checked against their digest whenever they are read.
//! 4. Full or broken disk: the entry is not durable, so nothing is published; whoever resumes goes on from what is.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::entry::Entry;
use super::plan::{Plan, Target};
use crate::hub::reports::GatewayKey;
use crate::limits::{DOCUMENT_BYTES_MAX, JOURNAL_BYTES_MAX};
use crate::record::DocumentDigest;

/// What the journal says.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The newest rollout: its plan, who began it and when, and everything behind it.
    pub last: Option<(Plan, String, i64)>,
    pub entries: Vec<Entry>,
    /// Which content every revision has that was ever planned for a gateway.
    pub contents: BTreeMap<(GatewayKey, u64), DocumentDigest>,
    /// Bytes of whole lines.
    whole: u64,
}

impl Memory {
    fn read(file: &Path) -> Result<Self, String> {
        let told = |what: std::fmt::Arguments<'_>| format!("{}: {what}", file.display());
        let mut memory = Self::default();
        let mut bytes = Vec::new();
        match File::open(file) {
            Ok(open) => {
                open.take(JOURNAL_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| told(format_args!("cannot be read: {error}")))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(memory),
            Err(error) => return Err(told(format_args!("cannot be read: {error}"))),
        }
        if bytes.len() as u64 > JOURNAL_BYTES_MAX {
            return Err(told(format_args!("is larger than 512 MiB; use another state directory")));
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for (index, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            let entry = serde_json::from_slice(line)
                .map_err(|_| told(format_args!("line {} is damaged; nothing is published on top of it: use a copy", index + 1)))?;
            memory.take(entry);
        }
        memory.whole = whole as u64;
        Ok(memory)
    }

    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Plan { plan, who, at_ms } => {
                for target in &plan.targets {
                    let key = (target.site.clone(), target.gateway.clone());
                    self.contents.entry((key, target.revision)).or_insert(target.digest);
                }
                self.last = Some((*plan, who, at_ms));
                self.entries.clear();
            }
            entry => self.entries.push(entry),
        }
    }
}

/// The state directory, ours alone while this lives.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: File,
    _lock: File,
    pub memory: Memory,
}

impl Journal {
    /// Opens the directory, and makes it where it is not there. Another process that has it is named.
    pub fn open(directory: &Path, who: &str) -> Result<Self, String> {
        let told = |what: &str, error: &dyn std::fmt::Display| format!("{}: {what}: {error}", directory.display());
        let make = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory.join("documents"));
        make.map_err(|error| told("the state directory cannot be made", &error))?;
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(directory.join("lock"));
        let mut lock = lock.map_err(|error| told("its lock cannot be opened", &error))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(format!("{}: {} is at work with it; wait for the end, or agree with them", directory.display(), holder(directory)));
        }
        let named = lock.set_len(0).and_then(|()| lock.seek(SeekFrom::Start(0))).and_then(|_| lock.write_all(who.as_bytes()));
        named.map_err(|error| told("its lock cannot be written", &error))?;
        let path = directory.join("journal.jsonl");
        let memory = Memory::read(&path)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.map_err(|error| told("its journal cannot be opened", &error))?;
        let ready = file.set_len(memory.whole).and_then(|()| file.seek(SeekFrom::End(0))).and_then(|_| file.sync_all());
        ready.and_then(|()| File::open(directory)?.sync_all()).map_err(|error| told("its journal cannot be made ready", &error))?;
        Ok(Self { directory: directory.to_owned(), file, _lock: lock, memory })
    }

    /// Makes entries durable, in order.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), String> {
        let mut bytes = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut bytes, entry).expect("plain values");
            bytes.push(b'\n');
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written
            .map_err(|error| format!("{}: the journal cannot be written: {error}; nothing more is published", self.directory.display()))?;
        entries.iter().cloned().for_each(|entry| self.memory.take(entry));
        Ok(())
    }

    /// Keeps an envelope for good.
    pub fn keep(&self, target: &Target, envelope: &[u8]) -> Result<(), String> {
        let path = document(&self.directory, target.digest, target.envelope);
        if path.exists() {
            return Ok(());
        }
        let fresh = path.with_extension("fresh");
        let written = File::create(&fresh).and_then(|mut file| {
            file.write_all(envelope)?;
            file.sync_all()
        });
        let kept =
            written.and_then(|()| std::fs::rename(&fresh, &path)).and_then(|()| File::open(self.directory.join("documents"))?.sync_all());
        kept.map_err(|error| format!("{}: cannot be written: {error}", path.display()))
    }

    /// Exactly the bytes that were planned.
    pub fn envelope(&self, target: &Target) -> Result<Vec<u8>, String> {
        let path = document(&self.directory, target.digest, target.envelope);
        let bytes = read(&path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
        if DocumentDigest::of(&bytes) != target.envelope {
            return Err(format!("{}: is not what was planned; nothing is published: use a copy", path.display()));
        }
        Ok(bytes)
    }

    /// Somebody asked for a stop: who, and why. Asked once.
    pub fn stop_asked(&self) -> Option<(String, String)> {
        let path = self.directory.join("stop");
        let text = std::fs::read_to_string(&path).ok()?;
        // What cannot be removed names a rollout that is stopped already.
        let _ = std::fs::remove_file(&path);
        let mut lines = text.splitn(3, '\n');
        let (id, who, why) = (lines.next()?, lines.next()?, lines.next()?);
        self.memory.last.as_ref().filter(|(plan, ..)| plan.id == id)?;
        Some((who.to_owned(), why.trim().to_owned()))
    }
}

/// The journal of a directory that somebody else may have.
pub fn look(directory: &Path) -> Result<Memory, String> {
    if !directory.join("journal.jsonl").is_file() {
        return Err(format!("{}: holds no rollout; begin one with `siteward-hub rollout start`", directory.display()));
    }
    Memory::read(&directory.join("journal.jsonl"))
}

/// Who has the lock, or had it last.
pub fn holder(directory: &Path) -> String {
    let who = std::fs::read_to_string(directory.join("lock")).unwrap_or_default();
    if who.is_empty() { "somebody else".to_owned() } else { super::heard::shown(&who, 200) }
}

/// Asks the process that has the directory to stop this rollout. It looks every moment; should it end before, whoever resumes does.
pub fn ask_to_stop(directory: &Path, id: &str, who: &str, why: &str) -> Result<(), String> {
    let (fresh, path) = (directory.join("stop.fresh"), directory.join("stop"));
    let written = std::fs::write(&fresh, format!("{id}\n{who}\n{why}\n")).and_then(|()| std::fs::rename(&fresh, &path));
    written.map_err(|error| format!("{}: cannot be written: {error}", path.display()))
}

/// The envelope of a document that was published from here before, by the digest that gateways report.
pub fn known(directory: &Path, digest: DocumentDigest) -> Option<Vec<u8>> {
    let name = format!("{digest}-");
    let mut files = std::fs::read_dir(directory.join("documents")).ok()?.flatten();
    let is_it = |found: &str| found.strip_suffix(".dsse").is_some_and(|found| found.starts_with(&name));
    let file = files.find(|file| file.file_name().to_str().is_some_and(is_it))?;
    read(&file.path()).ok()
}

fn document(directory: &Path, digest: DocumentDigest, envelope: DocumentDigest) -> PathBuf {
    directory.join("documents").join(format!("{digest}-{envelope}.dsse"))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::plan::Threshold;
    use super::*;
    use crate::record::Name;

    fn entry(id: &str, revision: u64, content: u8) -> Entry {
        let target = Target {
            site: Name::new("s").unwrap(),
            gateway: Name::new("g").unwrap(),
            revision,
            digest: DocumentDigest([content; 32]),
            envelope: DocumentDigest::of(b"signed"),
            trial_s: 10,
            zone: None,
        };
        let plan = Plan {
            id: id.to_owned(),
            targets: vec![target],
            waves: vec![1],
            soak_s: vec![0],
            window: None,
            threshold: Threshold::Count(0),
            grace_s: 60,
        };
        Entry::Plan { plan: Box::new(plan), who: "kim".to_owned(), at_ms: 1 }
    }

    /// I6: what was written down is there after any crash, a line that was cut short is not, and damage is never written over.
    #[test]
    fn whole_lines_are_kept_a_torn_one_is_cut_and_damage_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let mut journal = Journal::open(directory.path(), "kim").unwrap();
        journal.append(&[entry("a", 7, 1), Entry::Wave { wave: 0, at_ms: 2 }]).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(directory.path(), "kim").unwrap();
            let plans = whole[..cut].split(|byte| *byte == b'\n').count() - 1;
            assert_eq!((journal.memory.last.is_some(), journal.memory.entries.len()), (plans > 0, plans.saturating_sub(1)), "cut at {cut}");
            journal.append(&[Entry::Finished { at_ms: 3 }]).unwrap();
            drop(journal);
            let last = look(directory.path()).unwrap();
            assert_eq!(last.entries.last(), Some(&Entry::Finished { at_ms: 3 }), "cut at {cut}");
        }
        let mut damaged = whole.clone();
        damaged[3] = b'#';
        std::fs::write(&path, &damaged).unwrap();
        assert!(Journal::open(directory.path(), "kim").unwrap_err().contains("line 1 is damaged"));
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }

    #[test]
    fn a_revision_has_the_content_of_its_first_plan_and_bytes_are_those_that_were_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path(), "kim").unwrap();
        journal.append(&[entry("a", 7, 1), Entry::Finished { at_ms: 2 }, entry("b", 8, 2)]).unwrap();
        let key = |revision: u64| ((Name::new("s").unwrap(), Name::new("g").unwrap()), revision);
        assert_eq!(journal.memory.contents.get(&key(7)), Some(&DocumentDigest([1; 32])));
        journal.append(&[entry("other", 7, 3), entry("b", 8, 2)]).unwrap();
        assert_eq!(journal.memory.contents.get(&key(7)), Some(&DocumentDigest([1; 32])), "whatever is planned later");
        assert_eq!(look(directory.path()).unwrap().contents, journal.memory.contents, "and for whoever reads it again");
        let (plan, ..) = journal.memory.last.clone().unwrap();
        assert_eq!((plan.id.as_str(), journal.memory.entries.len()), ("b", 0));
        journal.keep(&plan.targets[0], b"signed").unwrap();
        assert_eq!(journal.envelope(&plan.targets[0]).unwrap(), b"signed");
        assert_eq!(known(directory.path(), DocumentDigest([2; 32])).as_deref(), Some(&b"signed"[..]));
        let file = document(directory.path(), plan.targets[0].digest, plan.targets[0].envelope);
        std::fs::write(file, b"singed").unwrap();
        assert!(journal.envelope(&plan.targets[0]).unwrap_err().contains("is not what was planned"));
    }

    #[test]
    fn two_operators_are_told_apart_and_a_stop_is_for_the_rollout_that_was_meant() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path(), "kim@desk").unwrap();
        assert!(Journal::open(directory.path(), "lee").unwrap_err().contains("kim@desk is at work"));
        journal.append(&[entry("a", 7, 1)]).unwrap();
        ask_to_stop(directory.path(), "a", "lee", "the site\ncalled").unwrap();
        assert_eq!(journal.stop_asked(), Some(("lee".to_owned(), "the site\ncalled".to_owned())));
        assert_eq!(journal.stop_asked(), None, "asked once");
        ask_to_stop(directory.path(), "earlier", "lee", "late").unwrap();
        assert_eq!(journal.stop_asked(), None);
        drop(journal);
        assert!(Journal::open(directory.path(), "lee").is_ok());
    }
}
