//! Configuration in three stages: as written, merged, validated.
//!
//! ```text
//! siteward.toml ──► written ──► merged ──► Settings      the only form the agent sees
//!   text, spans     typed,      defaults     │
//!                   optional    filled in    └── files: what it refers to is there and usable
//!        └───────────┴────────────┴──────────┴──► Faults: all of them, in file order, file:line: key: what; what to do
//! ```
//!
//! 1. `run` and `check` call [`load`]; a fault anywhere means exit code 78 and the whole list on stderr. Nothing runs on half a configuration.
//! 2. `status` calls [`control_socket`], which needs two keys only: it must answer also while somebody is in the middle of an edit, and for a
//!    user who may not read the private key.
//! 3. Text that is not TOML is told as such and nothing else is looked at: what a parser guesses after an error only misleads.
//!
//! Relative paths are taken from the directory of the file, so that `check` in a shell and the service mean the same.

pub mod about;
mod alerts;
mod answers;
pub mod bootstrap;
pub mod cases;
pub mod diff;
mod directory;
pub mod document;
mod endpoint;
pub(crate) mod envelope;
mod expect;
mod fault;
pub(crate) mod files;
mod forbidden;
pub mod header;
mod http;
mod listener;
mod merged;
mod network;
mod reader;
pub mod refusal;
mod secret;
pub mod settings;
pub mod show;
mod status;
pub mod trust;
mod validate;
mod written;

#[cfg(test)]
mod document_tests;
#[cfg(test)]
mod listener_tests;
#[cfg(test)]
mod proxy_tests;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use fault::{Fault, Faults};
use fault::{FaultList, Place};
pub(crate) use network::parse as network_of;
pub(crate) use reader::{duration_of, nearest};
use settings::Settings;
pub(crate) use validate::{collide, credential_name};

use crate::limits;

/// Where the configuration is, unless said otherwise.
pub const DEFAULT_FILE: &str = "/etc/siteward/siteward.toml";
/// Where the service's unit lets the agent make the sockets of its groups.
pub const DEFAULT_ACCESS: &str = "/run/siteward";

/// Whether the files a configuration refers to are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    Checked,
    /// On the gateway, but not by its agent: a secret that cannot be seen from here is no fault.
    OnSite,
    /// At a desk, where certificates and keys are not.
    NotChecked,
}

/// Reads, merges and validates a configuration file, and looks at the files it refers to.
pub fn load(file: &Path) -> Result<Settings, Faults> {
    load_with(file, Files::Checked)
}

/// As [`load`], but for the feeds, which are left out whatever is wrong with them.
pub fn load_bootstrap(file: &Path) -> Result<Settings, Faults> {
    load_bootstrap_with(file, Files::Checked)
}

/// As [`load_bootstrap`], without a look at the files it refers to.
pub fn load_bootstrap_unchecked(file: &Path) -> Result<Settings, Faults> {
    load_bootstrap_with(file, Files::NotChecked)
}

/// As [`load_bootstrap`], with or without a look at the files it refers to.
pub fn load_bootstrap_with(file: &Path, files: Files) -> Result<Settings, Faults> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    bootstrap(file, &read_file(file)?, files, credentials.as_deref()).map(|(settings, _)| settings)
}

/// As [`load`], with or without a look at the files it refers to.
pub fn load_with(file: &Path, files: Files) -> Result<Settings, Faults> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    parse(file, &read_file(file)?, files, credentials.as_deref())
}

/// Validates configuration text without touching any file; `file` names it in faults and is what relative paths are taken from.
pub fn parse_text(file: &Path, text: &str) -> Result<Settings, Faults> {
    parse(file, text, Files::NotChecked, None)
}

/// Where the agent of this configuration listens for `status`, even if the rest of the file is faulty.
pub fn control_socket(file: &Path) -> Result<PathBuf, Faults> {
    sockets(file).map(|(control, _)| control)
}

/// The same, and the directory of the groups' sockets.
pub fn sockets(file: &Path) -> Result<(PathBuf, PathBuf), Faults> {
    let text = read_file(file)?;
    let document = document(file, &text)?;
    let mut elsewhere = FaultList::default();
    let merged = merged::merge(written::read(document.get_ref(), &mut elsewhere), &mut elsewhere);
    let mut faults = FaultList::default();
    match validate::control_socket(&merged.gateway, &merged.spool, &base(file), &mut faults) {
        Some(socket) => {
            let access = validate::access_directory(&merged.gateway, &base(file), &mut FaultList::default());
            Ok((socket, access.unwrap_or_else(|| DEFAULT_ACCESS.into())))
        }
        None if faults.is_empty() => Err(elsewhere.into_faults(file, &text)),
        None => Err(faults.into_faults(file, &text)),
    }
}

/// Nobody has said yet whose gateway this is: site or id is the one that the package brought.
pub fn is_default(file: &Path) -> bool {
    let Ok(text) = read_file(file) else { return false };
    let Ok(document) = document(file, &text) else { return false };
    let mut ignored = FaultList::default();
    let merged = merged::merge(written::read(document.get_ref(), &mut ignored), &mut ignored);
    files::not_named(&merged).next().is_some()
}

fn parse(file: &Path, text: &str, files: Files, credentials: Option<&Path>) -> Result<Settings, Faults> {
    let document = document(file, text)?;
    let base = base(file);
    let mut faults = FaultList::default();
    let merged = merged::merge(written::read(document.get_ref(), &mut faults), &mut faults);
    if files != Files::NotChecked {
        files::check(&merged, &base, credentials, &mut faults);
    }
    match validate::validate(&merged, &base, &mut faults) {
        Some(mut settings) => {
            let vault = secret::vault(&settings.spool, credentials);
            secret::bind(&mut settings.feeds, &vault, &secret::Carried::default(), &mut faults);
            secret::bind_proxy(&mut settings.uplink, &vault);
            Ok(settings)
        }
        None => Err(faults.into_faults(file, text)),
    }
}

/// The local file without its feeds, whose faults are not looked at; and whether it allows connections without TLS.
fn bootstrap(file: &Path, text: &str, look: Files, credentials: Option<&Path>) -> Result<(Settings, bool), Faults> {
    let document = document(file, text)?;
    let base = base(file);
    let mut faults = FaultList::default();
    let mut written = written::read(document.get_ref(), &mut faults);
    faults.forget("feed");
    written.feeds.clear();
    let merged = merged::merge(written, &mut faults);
    if look != Files::NotChecked {
        files::check(&merged, &base, credentials, &mut faults);
    }
    let allow_plaintext = merged.uplink.allow_plaintext.as_ref().is_some_and(|at| at.value);
    match validate::validate(&merged, &base, &mut faults) {
        Some(mut settings) => {
            let vault = secret::vault(&settings.spool, credentials);
            secret::bind_proxy(&mut settings.uplink, &vault);
            Ok((settings, allow_plaintext))
        }
        None => Err(faults.into_faults(file, text)),
    }
}

/// The TOML document, or every syntax error with its line.
fn document<'t>(file: &Path, text: &'t str) -> Result<toml::Spanned<toml::de::DeTable<'t>>, Faults> {
    let (document, errors) = toml::de::DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(document);
    }
    let mut faults = FaultList::default();
    for error in &errors {
        let place = Place { offset: error.span().map_or(0, |span| span.start), path: String::new() };
        // Only the parser's own words: its `Display` would quote the line, and a secret may stand there (I7).
        faults.add(&place, format!("is not TOML: {}", error.message().lines().next().unwrap_or_default()));
    }
    Err(faults.into_faults(file, text))
}

/// A fault of a file as a whole.
fn base_fault(file: &Path, text: &str) -> Faults {
    Faults::whole_file(file, text)
}

fn read_file(file: &Path) -> Result<String, Faults> {
    read_text(file, limits::CONFIG_BYTES_MAX, "is larger than 1 MiB; that is no configuration of siteward", "the configuration file")
}

fn read_text(file: &Path, bytes_max: u64, too_large: &str, what: &str) -> Result<String, Faults> {
    let unreadable =
        |error: std::io::Error| Faults::whole_file(file, format!("cannot be read: {error}; check the path and the rights of this user"));
    let mut bytes = Vec::new();
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(Faults::whole_file(file, format!("is a directory; give the path of {what}")));
    }
    File::open(file).map_err(unreadable)?.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(Faults::whole_file(file, too_large));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].split(|b| *b == b'\n').count();
        let text = "is not UTF-8 text; save the file as UTF-8".to_owned();
        Faults { file: file.to_owned(), list: vec![Fault { line: Some(line), path: String::new(), text }] }
    })
}

fn base(file: &Path) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}
