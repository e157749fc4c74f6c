//! The disposal record, and the erasing that it is about.
//!
//! The record is written twice: `begun`, before anything is changed, with all that is to be erased; and `done`. A run that finds `begun` goes on from there:
//! every step can be repeated, and what is gone already is not missed.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::count::Loss;
use crate::config::settings::{KeySource, Settings, TlsKeySource};
use crate::enrolment::bundle::hex;
use crate::limits::TLS_FILE_BYTES_MAX;
use crate::record::Name;

/// A key that is erased: where it was, and its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub file: PathBuf,
    /// Null: it was not there.
    pub sha256: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    Begun,
    Done,
}

/// What became of a gateway: for whoever has to answer for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub schema: u32,
    pub site: Name,
    pub gateway: Name,
    pub progress: Progress,
    pub by: String,
    pub reason: String,
    /// RFC 3339.
    pub begun_at: String,
    pub done_at: Option<String>,
    pub clock_suspect: bool,
    /// The hub's broker acknowledged an audit record of it.
    pub reported: bool,
    pub lost: Loss,
    /// SHA-256 of the certificate by which the hub knew it.
    pub certificate_sha256: Option<String>,
    pub spool: PathBuf,
    pub keys: Vec<Key>,
    /// Keys that lie elsewhere and were not touched.
    pub not_erased: Vec<String>,
}

/// The keys of a gateway's own: those of the spool and of the uplink.
pub fn keys(settings: &Settings) -> (Vec<Key>, Vec<String>) {
    let (mut files, mut elsewhere) = (Vec::new(), Vec::new());
    match &settings.spool.key {
        KeySource::Auto => files.push(settings.spool.path.join("spool.key")),
        KeySource::File(path) => files.push(path.clone()),
        KeySource::Credential(name) => elsewhere.push(format!("systemd credential {name} (spool key)")),
    }
    match &settings.uplink.key {
        Some(TlsKeySource::File(path)) => files.push(path.clone()),
        Some(TlsKeySource::Credential(_)) => elsewhere.push("the credential of the uplink's key".to_owned()),
        None => {}
    }
    let below = std::fs::read_dir(settings.spool.path.join("tls")).into_iter().flatten().flatten();
    files.extend(below.map(|entry| entry.path()));
    files.sort();
    files.dedup();
    let key = |file: PathBuf| Key { sha256: std::fs::read(&file).ok().map(|bytes| hex(&Sha256::digest(&bytes))), file };
    (files.into_iter().map(key).collect(), elsewhere)
}

/// Where the record of a configuration's gateway lies.
pub fn place(config: &Path, gateway: &Name) -> PathBuf {
    config.parent().unwrap_or(Path::new("/")).join(format!("disposal-{gateway}.json"))
}

/// The configuration of a gateway whose disposal has begun.
pub fn set_aside(config: &Path) -> PathBuf {
    PathBuf::from(format!("{}.retired", config.display()))
}

fn told(path: &Path) -> impl Fn(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: cannot be written or removed: {error}; run this as root, and run it again: it goes on where it was")
}

impl Record {
    /// `None`: there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, String> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let damaged = |_| format!("{}: is no disposal record of this version; move it away", path.display());
                serde_json::from_slice(&bytes).map(Some).map_err(damaged)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(told(path)(error)),
        }
    }

    pub fn write(&self, path: &Path) -> Result<(), String> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("plain values");
        bytes.push(b'\n');
        let fresh = PathBuf::from(format!("{}.fresh", path.display()));
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&fresh)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&fresh, path)?;
            sync_parent(path)
        };
        write().map_err(told(path))
    }

    /// Everything between `begun` and `done`.
    pub fn carry_out(&self, config: &Path) -> Result<(), String> {
        let aside = set_aside(config);
        match std::fs::rename(config, &aside) {
            Ok(()) => sync_parent(&aside).map_err(told(&aside))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(told(config)(error)),
        }
        for key in &self.keys {
            overwrite(&key.file).map_err(told(&key.file))?;
        }
        remove_spool(&self.spool)
    }
}

/// Overwrites a file, syncs, removes it. One that is not there is gone already.
fn overwrite(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len().min(TLS_FILE_BYTES_MAX);
    for pattern in [0xFF_u8, 0] {
        file.rewind()?;
        file.write_all(&vec![pattern; usize::try_from(length).unwrap_or(0)])?;
        file.sync_all()?;
    }
    std::fs::remove_file(path)?;
    sync_parent(path)
}

/// Only what a spool is made of goes: whoever pointed `spool.path` at something else loses nothing by it.
fn remove_spool(spool: &Path) -> Result<(), String> {
    const OURS: [&str; 4] = ["journal", "heads.a", "heads.b", "lock"];
    let is_ours = OURS.iter().any(|name| spool.join(name).exists());
    if !is_ours {
        return Ok(()); // removed already
    }
    let entries = std::fs::read_dir(spool).map_err(told(spool))?;
    let mut last = Vec::new();
    for entry in entries {
        let path = entry.map_err(told(spool))?.path();
        // What tells that it is a spool goes last, so that a repetition finds it.
        if path.ends_with("lock") { last.push(path) } else { remove(&path)? }
    }
    last.iter().try_for_each(|path| remove(path))?;
    File::open(spool).and_then(|directory| directory.sync_all()).map_err(told(spool))
}

fn remove(path: &Path) -> Result<(), String> {
    let is_directory = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_directory { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(told(path)(error)),
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(directory: &Path) -> Record {
        let spool = directory.join("spool");
        std::fs::create_dir_all(spool.join("journal/critical")).unwrap();
        for file in ["journal/critical/1.seg", "heads.a", "lock", "spool.key"] {
            std::fs::write(spool.join(file), b"something").unwrap();
        }
        std::fs::write(directory.join("siteward.toml"), b"text").unwrap();
        Record {
            schema: 1,
            site: Name::new("s").unwrap(),
            gateway: Name::new("g").unwrap(),
            progress: Progress::Begun,
            by: "kim".into(),
            reason: "closed".into(),
            begun_at: "2026-11-23T00:00:00.000Z".into(),
            done_at: None,
            clock_suspect: false,
            reported: false,
            lost: Loss::default(),
            certificate_sha256: None,
            keys: vec![Key { file: spool.join("spool.key"), sha256: Some("00".into()) }],
            spool,
            not_erased: Vec::new(),
        }
    }

    #[test]
    fn a_disposal_can_be_repeated_after_any_part_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let (record, config) = (record(directory.path()), directory.path().join("siteward.toml"));
        let file = place(&config, &record.gateway);
        record.write(&file).unwrap();
        for _ in 0..2 {
            record.carry_out(&config).unwrap();
            assert!(!config.exists() && set_aside(&config).exists());
            assert_eq!(std::fs::read_dir(&record.spool).unwrap().count(), 0);
        }
        assert_eq!(Record::read(&file).unwrap(), Some(record));
    }

    #[test]
    fn a_directory_that_is_no_spool_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("thesis"), b"precious").unwrap();
        remove_spool(directory.path()).unwrap();
        assert!(directory.path().join("thesis").exists());
    }
}
