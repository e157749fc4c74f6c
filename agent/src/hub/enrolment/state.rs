//! The desk's state: small JSON files, each written to a temporary file, synced, renamed, directory synced. One operation at a time holds the lock; a second
//! operator waits moments, and is told for whom where it takes longer.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::enrolment::proof::Verifier;
use crate::hub::output::sync_parent;
use crate::limits::{DESK_LOCK_WAIT, DESK_RECORD_BYTES_MAX, DESK_RECORDS_MAX};
use crate::record::Name;

const LISTS: &str = "lists.json";

/// What the desk knows of one bundle, and of the box that used it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub schema: u32,
    pub bundle: String,
    pub site: Name,
    pub gateway: Name,
    /// Common name of the gateway's certificates, and that of the one for enrolment.
    pub subject: String,
    pub enrolment_subject: String,
    /// Serial number of the certificate for enrolment, hex.
    pub enrolment_serial: String,
    pub verifier: Verifier,
    /// Seconds since 1970, here and below.
    pub issued_at: i64,
    pub not_after: i64,
    /// Who made it.
    pub by: String,
    /// The gateway's certificate comes from another authority.
    pub outside: bool,
    /// The bundle of the box that this one takes the place of.
    pub replaces: Option<String>,
    pub used: Option<Used>,
    /// A request that waits for another authority.
    pub csr: Option<String>,
    /// Certificates issued in this subject, the newest last.
    pub certificates: Vec<Issued>,
    pub retired: Option<Retired>,
}

/// By which key a bundle was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    pub at: i64,
    /// Print of its public key.
    pub key: String,
    /// What it was given.
    pub chain: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    pub at: i64,
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// Hex; of those that our own authority issued.
    pub serial: Option<String>,
    pub not_after: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    pub at: i64,
    pub by: String,
    pub why: String,
}

impl Record {
    pub fn is_admitted(&self) -> bool {
        self.retired.is_none()
    }

    /// Whether its enrolment may still go on.
    pub fn is_open(&self, now: i64) -> bool {
        self.is_admitted() && now <= self.not_after
    }
}

/// A client of the broker that is no gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub name: String,
    pub role: Role,
    pub certificate: Issued,
    /// Certificates of this name that were made anew: on the list of those that count no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former>,
}

/// A certificate that another one took the place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Hex.
    pub serial: String,
    /// Seconds since 1970.
    pub since: i64,
}

/// Another authority's list of revoked certificates, as the broker was given it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    pub file: String,
    /// By when it has to be followed by another; seconds since 1970.
    pub ends: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// `siteward-hub receive`.
    Receiver,
    /// The other verbs of `siteward-hub`.
    Desk,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receiver => "receiver",
            Self::Desk => "desk",
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct State {
    directory: PathBuf,
}

/// The lock of the state; nobody else changes anything while this lives.
#[derive(Debug)]
pub struct Held<'a> {
    state: &'a State,
    _lock: File,
}

fn told(path: &Path) -> impl Fn(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: cannot be written or read: {error}; check the rights of this user and the disk")
}

impl State {
    /// A directory that is there.
    pub fn open(directory: &Path) -> Result<Self, String> {
        if !directory.is_dir() {
            return Err(format!("{}: is no directory; make the desk's state with `siteward-hub enroll init`", directory.display()));
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// Makes the directory, private, where it is not there.
    pub fn make(directory: &Path) -> Result<Self, String> {
        for one in [directory.to_owned(), directory.join("bundles"), directory.join("identities")] {
            match DirBuilder::new().mode(0o700).create(&one) {
                Ok(()) => sync_parent(&one).map_err(told(&one))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(told(&one)(error)),
            }
        }
        Self::open(directory)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Waits for whoever holds it, for moments.
    pub fn hold(&self, verb: &str) -> Result<Held<'_>, String> {
        let path = self.path("lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut lock = opened.map_err(told(&path))?;
        let until = Instant::now() + DESK_LOCK_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // Only to say who it is.
                    let _ = (&lock).take(200).read_to_string(&mut holder);
                    return Err(format!("{}: is in use by {}; try again when that is done", self.directory.display(), holder.trim()));
                }
                Err(TryLockError::Error(error)) => return Err(told(&path)(error)),
            }
        }
        let name = format!("{} ({verb}, process {})", operator(), std::process::id());
        // Whoever cannot read it is only told less.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(name.as_bytes()));
        Ok(Held { state: self, _lock: lock })
    }

    /// `None`: not there.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        let path = self.path(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(told(&path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(DESK_RECORD_BYTES_MAX).read_to_end(&mut bytes).map_err(told(&path))?;
        let damaged = |_| format!("{}: is damaged; restore the desk's state from its backup", path.display());
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    pub fn record(&self, bundle: &str) -> Result<Option<Record>, String> {
        let plain = bundle.len() == 32 && bundle.bytes().all(|b| b.is_ascii_hexdigit());
        if plain { self.read(&format!("bundles/{bundle}.json")) } else { Ok(None) }
    }

    fn all<T: DeserializeOwned>(&self, directory: &str) -> Result<Vec<T>, String> {
        let path = self.path(directory);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(told(&path))? {
            let name = entry.map_err(told(&path))?.file_name().to_string_lossy().into_owned();
            if let Some(id) = name.strip_suffix(".json") {
                names.push(id.to_owned());
            }
            if names.len() > DESK_RECORDS_MAX {
                return Err(format!("{}: holds more than {DESK_RECORDS_MAX} records; move old ones away", path.display()));
            }
        }
        names.sort();
        let read = |name: String| self.read(&format!("{directory}/{name}.json"));
        names.into_iter().map(read).filter_map(Result::transpose).collect()
    }

    /// All records, the oldest first.
    pub fn records(&self) -> Result<Vec<Record>, String> {
        let mut records: Vec<Record> = self.all("bundles")?;
        records.sort_by(|a, b| (a.issued_at, &a.bundle).cmp(&(b.issued_at, &b.bundle)));
        Ok(records)
    }

    pub fn identities(&self) -> Result<Vec<Identity>, String> {
        self.all("identities")
    }

    /// Lists of other authorities that the broker was given last.
    pub fn lists(&self) -> Result<Vec<List>, String> {
        self.read(LISTS).map(Option::unwrap_or_default)
    }
}

impl Held<'_> {
    pub fn state(&self) -> &State {
        self.state
    }

    pub fn save(&self, record: &Record) -> Result<(), String> {
        self.write_json(&format!("bundles/{}.json", record.bundle), record)
    }

    pub fn save_lists(&self, lists: &[List]) -> Result<(), String> {
        self.write_json(LISTS, &lists)
    }

    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), String> {
        let mut bytes = serde_json::to_vec_pretty(value).expect("plain values");
        bytes.push(b'\n');
        self.write(name, &bytes)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        put(&self.state.path(name), bytes, 0o600)
    }
}

/// Writes a file so that a crash leaves the old or the new one.
pub fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let fresh = PathBuf::from(format!("{}.fresh", path.display()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        sync_parent(path)
    };
    write().map_err(told(path))
}

/// Who works at the desk.
pub fn operator() -> String {
    let name = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "somebody".to_owned());
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}
