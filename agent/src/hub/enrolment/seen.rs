//! What the receiver has of a gateway: for each feed the last record up to which everything came, and when; and which document the gateway said that it
//! runs. Later is unknown: a box that died may have stored more, and nobody can say.
//!
//! The document matters because the broker keeps the one that was pushed last, which is another where that was refused or taken back: a replacement
//! box gets it, refuses it too, and has no feed.
//!
//! Read from the receiver's output, which is the truth, without touching it or what lies beside it: the lines of this gateway go through the same
//! ledger as at reception, with an index of its own in a temporary directory. A receiver may go on writing meanwhile; a line that is not whole
//! yet is not counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::Deserialize;

use crate::hub::desk::apply;
use crate::hub::index::ChainIndex;
use crate::hub::ledger::Ledger;
use crate::hub::line::{Line, LineKind};
use crate::hub::waves::heard::Reported;
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

/// What the gateway reported last of its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// 0: its local file alone.
    pub revision: u64,
    /// RFC 3339: when the receiver wrote it.
    pub at: String,
    /// A newer document that it did not take: revision, where it has one, and what became of it.
    pub not_taken: Option<(Option<u64>, String)>,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.revision == 0 {
            write!(f, "configuration: its local file alone ran at {}; no document comes by itself", self.at)?;
        } else {
            write!(f, "configuration: revision {} ran at {}", self.revision, self.at)?;
        }
        let again = "before it is enrolled push what is to run, with a higher revision";
        match &self.not_taken {
            Some((revision, state)) => {
                let name = revision.map_or_else(|| "a document".to_owned(), |revision| format!("revision {revision}"));
                write!(f, ". {name} was {state}, and may be what the broker keeps; the new box would be without feeds: {again}")
            }
            None => write!(f, ". The broker keeps the document pushed last; if that is another one, {again}"),
        }
    }
}

/// Everything that is said of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub feeds: Vec<Seen>,
    pub ran: Option<Ran>,
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for feed in &self.feeds {
            writeln!(f, "{feed}")?;
        }
        if self.feeds.is_empty() {
            writeln!(f, "the receiver has no record of this gateway")?;
        }
        match &self.ran {
            Some(ran) => write!(f, "{ran}"),
            None => f.write_str("configuration: the receiver was never told what it ran; push what is to run before the box is enrolled"),
        }
    }
}

/// A line that the gateway's report is in.
#[derive(Deserialize)]
struct Report {
    data: Reported,
}

impl Report {
    fn ran(self, at: String) -> Ran {
        let revision = self.data.running.revision;
        let failed = |state: &str| matches!(state, "refused" | "rolled_back");
        let not_taken = self.data.tried.filter(|tried| failed(&tried.state)).map(|tried| (tried.revision, tried.state.replace('_', " ")));
        Ran { revision, at, not_taken }
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
pub fn seen(output: &Path, site: &Name, gateway: &Name) -> Result<Account, String> {
    let failed = |what: &str, error: std::io::Error| format!("{}: {what}: {error}", output.display());
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|_| "the system gives no random numbers".to_owned())?;
    let temporary = Temporary(std::env::temp_dir().join(format!("siteward-seen-{:016x}", u64::from_ne_bytes(random))));
    let mut index = ChainIndex::open(&temporary.0).map_err(|error| failed("no room for an index in the temporary directory", error))?;
    let (mut ledger, mut times, mut ran) = (Ledger::default(), BTreeMap::new(), None);
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
        if line.kind == LineKind::Reported {
            let is_ours = (line.site.as_ref(), line.gateway.as_ref()) == (Some(site), Some(gateway));
            let report = is_ours.then(|| serde_json::from_slice::<Report>(&text).ok()).flatten();
            ran = report.map(|report| report.ran(line.written_at)).or(ran);
            continue;
        }
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
    Ok(Account { feeds: ledger.entries().map(each).collect(), ran })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the broker keeps is not what ran: whoever replaces a box is told both.
    #[test]
    fn the_document_that_ran_is_told_with_the_one_that_was_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("events.jsonl");
        let reported = |gateway: &str, at: &str, data: &str| {
            format!(
                "{{\"kind\":\"reported\",\"site\":\"s\",\"gateway\":\"{gateway}\",\"written_at\":\"{at}\",\"data\":{{\"gateway\":\"{gateway}\",{data}}}}}\n"
            )
        };
        let running = |revision: u64| format!("\"running\":{{\"revision\":{revision}}}");
        let refused = format!("{},\"tried\":{{\"revision\":4,\"state\":\"rolled_back\"}}", running(3));
        let name = |name: &str| Name::new(name).unwrap();
        let seen = |lines: &[String]| {
            std::fs::write(&output, lines.concat()).unwrap();
            seen(&output, &name("s"), &name("gw1")).unwrap()
        };
        assert!(seen(&[]).to_string().contains("was never told what it ran; push"));
        let (first, others) = (reported("gw1", "t1", &running(3)), reported("gw2", "t2", &running(9)));
        let account = seen(&[first.clone(), others.clone()]);
        assert_eq!(account.ran, Some(Ran { revision: 3, at: "t1".into(), not_taken: None }));
        let text = seen(&[first, others, reported("gw1", "t3", &refused)]).to_string();
        assert!(text.contains("revision 3 ran at t3. revision 4 was rolled back, and may be what the broker keeps"), "{text}");
        assert!(text.contains("with a higher revision"), "{text}");
    }
}
