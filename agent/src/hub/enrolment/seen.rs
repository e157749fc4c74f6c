//! What the receiver has of a gateway: for each feed the last record up to which everything came, and when. Later is unknown: a box that died may have
//! stored more, and nobody can say.
//!
//! Read from the receiver's output, which is the truth, without touching it or what lies beside it: the lines of this gateway go through the same
//! ledger as at reception, with an index of its own in a temporary directory. A receiver may go on writing meanwhile; a line that is not whole
//! yet is not counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use crate::hub::desk::apply;
use crate::hub::index::ChainIndex;
use crate::hub::ledger::Ledger;
use crate::hub::line::Line;
use crate::limits::{HUB_INDEX_NOTED_MAX, HUB_LINE_BYTES_MAX};
use crate::record::{FeedId, Incarnation, Name};

/// How a feed of the gateway stands at the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub feed: FeedId,
    pub incarnation: Option<Incarnation>,
    /// Everything up to here came.
    pub through: u64,
    /// RFC 3339: when the newest line of it was written.
    pub at: String,
    pub missing: Vec<(u64, u64)>,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: seen through seq {} at {}", self.feed, self.through, self.at)?;
        if let (Some((first, _)), Some((_, last))) = (self.missing.first(), self.missing.last()) {
            write!(f, ", not whole from {first} to {last}")?;
        }
        f.write_str("; later unknown")
    }
}

/// A directory of its own, gone with this.
struct Temporary(std::path::PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is left is an index of no use.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Reads an account (`receive --out FILE`).
pub fn seen(output: &Path, site: &Name, gateway: &Name) -> Result<Vec<Seen>, String> {
    let failed = |what: &str, error: std::io::Error| format!("{}: {what}: {error}", output.display());
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|_| "the system gives no random numbers".to_owned())?;
    let temporary = Temporary(std::env::temp_dir().join(format!("siteward-seen-{:016x}", u64::from_ne_bytes(random))));
    let mut index = ChainIndex::open(&temporary.0).map_err(|error| failed("no room for an index in the temporary directory", error))?;
    let (mut ledger, mut times) = (Ledger::default(), BTreeMap::new());
    let file = File::open(output).map_err(|error| failed("cannot be read", error))?;
    let (mut reader, mut text) = (BufReader::with_capacity(1 << 16, file), Vec::new());
    let marks = [format!("\"site\":\"{site}\""), format!("\"gateway\":\"{gateway}\"")].map(String::into_bytes);
    loop {
        text.clear();
        let taken =
            reader.by_ref().take(HUB_LINE_BYTES_MAX).read_until(b'\n', &mut text).map_err(|error| failed("cannot be read", error))?;
        if taken == 0 {
            break;
        }
        if text.last() != Some(&b'\n') {
            reader.skip_until(b'\n').map_err(|error| failed("cannot be read", error))?;
            continue;
        }
        let head = &text[..text.len().min(4096)];
        if !marks.iter().all(|mark| memchr::memmem::find(head, mark).is_some()) {
            continue; // another gateway's, without a closer look
        }
        let Ok(line) = serde_json::from_slice::<Line>(&text) else { continue };
        if let Some(key) = line.key().filter(|key| (&key.site, &key.gateway) == (site, gateway)) {
            apply(&mut ledger, &mut index, &line).map_err(|error| failed("no room for an index in the temporary directory", error))?;
            times.insert(key.feed, line.written_at);
            if index.noted() >= HUB_INDEX_NOTED_MAX {
                index.flush().map_err(|error| failed("no room for an index in the temporary directory", error))?;
            }
        }
    }
    let each = |(key, entry): (&crate::hub::ledger::AccountKey, &crate::hub::ledger::Entry)| {
        let incarnation = entry.account.current();
        let standing = incarnation.and_then(|incarnation| entry.account.standing(incarnation));
        let (through, missing) = standing.map_or((0, Vec::new()), |standing| (standing.through.seq, standing.missing));
        let at = times.get(&key.feed).cloned().unwrap_or_default();
        Seen { feed: key.feed.clone(), incarnation, through, at, missing }
    };
    Ok(ledger.entries().map(each).collect())
}
