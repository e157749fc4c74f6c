//! `siteward check`: the same validation as `run`, and a note where feeds of the file do not count because a document runs; with `--document` what the
//! agent would say of a document.
//!
//! A signed document is verified by the local file's trust anchors; one that is not signed yet (TOML) is looked at as it is. Then it is judged and
//! merged as the agent does. Its revision is judged where the spool is given, which knows what runs. Faults are told with the line of the document's
//! text, under the name of the file that was given.

use std::path::{Path, PathBuf};

use super::{Failure, print};
use crate::clock;
use crate::config::document::{self, BootstrapText, Document, Identity};
use crate::config::refusal::Refusal;
use crate::config::settings::Settings;
use crate::config::trust::Anchors;
use crate::config::{self, Fault, Faults, Files};
use crate::limits::DOCUMENT_BYTES_MAX;
use crate::rollout;

/// A document, and the spool that says what runs.
pub(super) struct Offered<'a> {
    pub file: &'a Path,
    pub spool: Option<&'a Path>,
}

pub(super) fn check(file: &Path, without_files: bool, offered: Option<&Offered<'_>>) -> Result<(), Failure> {
    let files = if without_files { Files::NotChecked } else { Files::OnSite };
    if let Some(offered) = offered {
        return check_document(file, files, offered);
    }
    let settings = config::load_with(file, files)?;
    let Settings { gateway, feeds, .. } = &settings;
    print(&format!("{}: good; gateway {} at {}, {}\n", file.display(), gateway.id, gateway.site, counted(feeds.len())))?;
    let note = if without_files || feeds.is_empty() { None } else { not_counting(&settings) };
    note.map_or(Ok(()), |note| print(&format!("{note}\n")))
}

/// Where a document runs on this box, the feeds of its own file are good for nothing; "good" alone would be no help to whoever added one.
fn not_counting(settings: &Settings) -> Option<String> {
    let listed = || settings.feeds.iter().map(|feed| feed.id.as_str()).collect::<Vec<_>>().join(", ");
    match rollout::store::committed(&settings.spool.path) {
        Ok(None) => None,
        Ok(Some(facts)) => Some(format!(
            "note: revision {} of central IT runs on this gateway, so [[feed]] in this file does not count ({}); central IT puts the feed into the \
             document",
            facts.revision,
            listed()
        )),
        Err(error) => Some(format!("note: whether these feeds count cannot be seen: {error}; where a document runs they do not")),
    }
}

fn counted(feeds: usize) -> String {
    match feeds {
        0 => "no feed yet".to_owned(),
        1 => "1 feed".to_owned(),
        n => format!("{n} feeds"),
    }
}

fn whole(file: &Path, text: impl Into<String>) -> Faults {
    Faults { file: file.to_owned(), list: vec![Fault { line: None, path: String::new(), text: text.into() }] }
}

fn check_document(local: &Path, files: Files, offered: &Offered<'_>) -> Result<(), Failure> {
    let file = offered.file;
    let bootstrap = config::load_bootstrap_with(local, files)?;
    let (document, is_signed) = open(file, &bootstrap)?;
    let refused = |refusal: Refusal| refusal.in_file(file);
    let running = match offered.spool {
        Some(spool) => running(spool)?,
        None => None,
    };
    let now = clock::now();
    let believed = if now.suspect { None } else { jiff::Timestamp::from_millisecond(now.unix_ms).ok() };
    let revision = running.map_or(0, |(revision, _)| revision);
    document::judge(&document, &Identity::of(&bootstrap.gateway), revision, believed).map_err(refused)?;
    if running.is_some_and(|(revision, digest)| revision == document.header.revision && digest != document.digest) {
        return Err(refused(Refusal::SameRevisionOtherContent { revision }).into());
    }
    let text = BootstrapText::read(local)?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let settings = document::effective(&text, Some(&document), files, credentials.as_deref()).map_err(|refusal| match refusal {
        Refusal::Invalid(faults) if faults.file == local => faults, // of the local file itself
        other => refused(other),
    })?;
    let signed = if is_signed { "signed" } else { "not signed yet" };
    let (revision, feeds) = (document.header.revision, counted(settings.feeds.len()));
    print(&format!("{}: good; revision {revision} for gateway {}, {signed}, {feeds}\n", file.display(), settings.gateway.id))
}

/// The document, and whether it is signed.
fn open(file: &Path, bootstrap: &Settings) -> Result<(Document, bool), Faults> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| whole(file, format!("cannot be read: {error}; check the path and the rights of this user"));
    let mut bytes = Vec::new();
    let most = DOCUMENT_BYTES_MAX as u64 + 1;
    std::fs::File::open(file).map_err(unreadable)?.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(Refusal::TooLarge { bytes: bytes.len() }.in_file(file));
    }
    // No document in TOML begins like that, and every envelope does.
    let is_signed = bytes.trim_ascii_start().first() == Some(&b'{');
    let opened = if is_signed {
        let anchors = Anchors::load(&bootstrap.trust).map_err(|why| whole(file, format!("cannot be verified: {why}")))?;
        document::open(&bytes, &anchors)
    } else {
        document::read_unsigned(bytes)
    };
    opened.map(|document| (document, is_signed)).map_err(|refusal| refusal.in_file(file))
}

/// Revision and digest of the document that runs on a spool, or that was committed last.
fn running(spool: &Path) -> Result<Option<(u64, [u8; 32])>, Faults> {
    let ledger = rollout::store::committed(spool).map_err(|error| whole(spool, error.to_string()))?;
    Ok(ledger.map(|facts| (facts.revision, facts.digest.0)))
}
