//! Whether a feed is complete around a seq: what the index holds there and beside it, and what the saved ledger says of the feed. Reads only.

use std::path::Path;

use serde::Serialize;

use super::beside;
use crate::hub::index::{self, Held};
use crate::hub::ledger::{AccountKey, Ledger, Tally};
use crate::hub::snapshot::{self, LoadError};
use crate::limits::FIND_AROUND;

/// What the files beside the output say.
#[derive(Debug)]
pub struct Beside {
    index: std::path::PathBuf,
    /// The saved ledger and how much of the output it covers; or why there is none.
    ledger: Result<(Ledger, u64), String>,
}

/// One feed around one seq.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Around {
    #[serde(flatten)]
    pub key: AccountKey,
    pub seq: u64,
    /// What is held from a few seqs before to a few after; null: the index cannot be read. A gap is noted at its last seq only.
    pub neighbours: Option<Vec<Neighbour>>,
    /// As the ledger was saved; null where there is none, or it does not know the feed.
    pub feed: Option<Feed>,
    /// Why something of this is not known.
    pub doubts: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    pub seq: u64,
    /// `record`, `exception` or `gap`; several where incarnations or conflicting records share the seq; none: nothing is held.
    pub held: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feed {
    /// Complete through this seq.
    pub through_seq: u64,
    pub missing: Vec<(u64, u64)>,
    #[serde(flatten)]
    pub tally: Tally,
    /// Bytes of the output that the ledger does not cover yet.
    pub output_behind: u64,
}

impl Feed {
    /// What of the missing is close to a seq.
    pub fn missing_near(&self, seq: u64) -> impl Iterator<Item = &(u64, u64)> {
        let (low, high) = (seq.saturating_sub(FIND_AROUND), seq.saturating_add(FIND_AROUND));
        self.missing.iter().filter(move |(first, last)| *first <= high && *last >= low)
    }
}

impl Beside {
    pub fn open(out: &Path) -> Self {
        let ledger = match snapshot::load(&beside(out, ".ledger")) {
            Ok(saved) => Ok((saved.ledger, saved.covered)),
            Err(LoadError::Missing) => Err("there is no ledger beside the output".to_owned()),
            Err(error) => Err(format!("the ledger beside the output cannot be used: {error}")),
        };
        Self { index: beside(out, ".index"), ledger }
    }

    /// `file_bytes`: how long the output is.
    pub fn around(&self, key: &AccountKey, seq: u64, file_bytes: u64) -> Around {
        let mut doubts = Vec::new();
        let feed = match &self.ledger {
            Ok((ledger, covered)) => {
                let entry = ledger.entries().find(|(known, _)| *known == key).map(|(_, entry)| entry);
                let standing = entry.and_then(|entry| entry.account.standing(entry.account.current()?));
                if entry.is_none() {
                    doubts.push("the saved ledger does not know this feed yet".to_owned());
                } else if standing.is_none() {
                    doubts.push("no checkpoint of this feed came yet, so what is missing is not known".to_owned());
                }
                entry.zip(standing).map(|(entry, standing)| Feed {
                    through_seq: standing.through.seq,
                    missing: standing.missing,
                    tally: entry.tally,
                    output_behind: file_bytes.saturating_sub(*covered),
                })
            }
            Err(why) => {
                doubts.push(why.clone());
                None
            }
        };
        let seqs = seq.saturating_sub(FIND_AROUND).max(1)..=seq.saturating_add(FIND_AROUND);
        let neighbours: Result<Vec<Neighbour>, std::io::Error> = seqs
            .map(|seq| {
                let held = index::peek(&self.index, key, seq)?.into_iter().map(word).collect();
                Ok(Neighbour { seq, held })
            })
            .collect();
        let neighbours = neighbours.map_err(|error| doubts.push(format!("the index beside the output cannot be read: {error}"))).ok();
        Around { key: key.clone(), seq, neighbours, feed, doubts }
    }
}

fn word(held: Held) -> &'static str {
    match held {
        Held::Record => "record",
        Held::Exception => "exception",
        Held::Gap => "gap",
    }
}
