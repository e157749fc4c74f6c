//! What becomes of a file: captured, held or refused. The worker decides by it, and `siteward feeds try` shows it beforehand.
//!
//! A trial reads its input once, in portions, through the very splitter that the feed uses, and keeps numbers and codes only: of the pieces the
//! first `rows`, and of those that are no records the first `rows`. Nothing is stored, nothing of a value is kept (I7), and memory does not
//! depend on the size of the input (I4). A read that fails ends it with the error.

use std::io::{self, Read};
use std::ops::Range;

use serde::Serialize;

use crate::config::settings::AnswerSettings;
use crate::limits;
use crate::source::ack;
use crate::source::split::{Piece, PieceKind, SplitError, SplitLimits, SplitSettings, Splitter, State, Verdict, codes};

/// What becomes of a file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its records are; what is none goes to quarantine.
    Captured,
    /// Nothing of it is before it changes.
    Held { code: &'static str },
    /// Nothing of it is, and why.
    Refused(String),
}

impl Outcome {
    /// By what the first pass found.
    pub fn of(verdict: &Verdict) -> Self {
        let wrong = "this is probably not a file of this feed, or `split` is set wrongly";
        match verdict.state {
            State::Truncated { code } => Self::Held { code },
            State::Unusable { code } => Self::Refused(format!("{code}: {}", codes::meaning(code))),
            _ if verdict.bad > limits::FILE_BAD_PIECES_MAX => Self::Refused(format!("{} rows of it are no records; {wrong}", verdict.bad)),
            _ if verdict.bad > 0 && verdict.records == 0 => Self::Refused(format!("no row of it is a record; {wrong}")),
            _ => Self::Captured,
        }
    }
}

/// One piece, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// From 1, in file order.
    pub index: u64,
    /// Line number, where lines mean something.
    pub row: Option<u64>,
    /// Place in the file.
    pub range: Range<u64>,
    /// Bytes of the record as it would be stored: a row with its header, a set with its envelope. Of what is no record, bytes in the file.
    pub length: u64,
    /// Why it is not captured.
    pub code: Option<&'static str>,
}

/// How a trial ends.
#[derive(Debug)]
pub struct Trial {
    pub verdict: Verdict,
    /// Records that a listener would answer negatively or ignore; 0 for files.
    pub refused: u64,
    /// The first pieces.
    pub pieces: Vec<Shown>,
    /// The first of those that are not captured.
    pub bad: Vec<Shown>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error("this feed cannot split files: {0}")]
    Split(#[from] SplitError),
    #[error("the file cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// How to try.
#[derive(Debug)]
pub struct Way<'a> {
    pub split: &'a SplitSettings,
    pub limits: SplitLimits,
    /// Judge each record as a listener with these settings does.
    pub answers: Option<&'a AnswerSettings>,
    pub rows: usize,
}

impl Way<'_> {
    /// Splits `input` to its end. `moved` hears how many bytes were read.
    pub fn try_on(&self, mut input: impl Read, mut moved: impl FnMut(u64)) -> Result<Trial, TrialError> {
        let mut splitter = Splitter::new(self.split, self.limits)?;
        let mut trial = Trial { verdict: splitter.verdict(), refused: 0, pieces: Vec::new(), bad: Vec::new() };
        let mut buffer = vec![0; limits::SPLIT_FEED_BYTES];
        let mut read = 0;
        loop {
            let n = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            splitter.feed(&buffer[..n]);
            self.drain(&mut splitter, &mut trial);
            read += n as u64;
            moved(read);
        }
        splitter.end();
        self.drain(&mut splitter, &mut trial);
        trial.verdict = splitter.verdict();
        Ok(trial)
    }

    fn drain(&self, splitter: &mut Splitter, trial: &mut Trial) {
        while let Some(piece) = splitter.next_piece() {
            let shown = self.shown(&piece);
            trial.refused += u64::from(shown.code.is_some() && matches!(piece.kind, PieceKind::Record(_)));
            if shown.code.is_some() && trial.bad.len() < self.rows {
                trial.bad.push(shown.clone());
            }
            if trial.pieces.len() < self.rows {
                trial.pieces.push(shown);
            }
        }
    }

    fn shown(&self, piece: &Piece) -> Shown {
        let (length, code) = match &piece.kind {
            PieceKind::Record(bytes) => (bytes.len() as u64, self.answers.and_then(|answers| ack::objection(bytes, answers))),
            PieceKind::Bad { code, .. } => (piece.range.end - piece.range.start, Some(*code)),
        };
        Shown { index: piece.index, row: piece.row, range: piece.range.clone(), length, code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(split: &str, bytes: &[u8], rows: usize) -> Trial {
        let split = SplitSettings::named(split).unwrap();
        let way = Way { split: &split, limits: SplitLimits::new(1 << 20), answers: None, rows };
        way.try_on(bytes, |_| {}).unwrap()
    }

    #[test]
    fn a_bad_row_is_named_by_its_row_and_the_rest_is_captured() {
        let tried = trial("csv", b"a,b\n1,2\n1,2,3\n4,5\n", 10);
        assert_eq!((tried.verdict.records, tried.verdict.bad), (2, 1));
        assert_eq!(tried.bad.iter().map(|shown| (shown.index, shown.row, shown.range.clone())).collect::<Vec<_>>(), [(2, Some(3), 8..13)]);
        assert_eq!(Outcome::of(&tried.verdict), Outcome::Captured);
        assert_eq!(tried.pieces.iter().map(|shown| shown.length).collect::<Vec<_>>(), [7, 5, 7], "records come with their header");
    }

    #[test]
    fn a_file_without_its_end_is_held_and_one_of_another_kind_is_refused() {
        let cut = trial("hl7_batch", b"FHS|^~\\&|\rBHS|^~\\&|\rMSH|^~\\&|A|B|C|D|||ADT|1|P|2.3\r", 10);
        assert!(matches!(Outcome::of(&cut.verdict), Outcome::Held { .. }), "{:?}", cut.verdict);
        assert!(matches!(Outcome::of(&trial("ndjson", b"no\nno\n", 10).verdict), Outcome::Refused(_)));
        assert!(matches!(Outcome::of(&trial("x12", b"a,b\n1,2\n", 10).verdict), Outcome::Refused(_)));
    }

    #[test]
    fn messages_for_a_listener_are_judged_as_it_would() {
        let split = SplitSettings::Hl7Concat;
        let answers = AnswerSettings::default();
        let way = Way { split: &split, limits: SplitLimits::new(1 << 20), answers: Some(&answers), rows: 10 };
        let file = b"\x0BMSH|^~\\&|A|B|C|D|||ADT|1|P|2.3\r\x1C\r\x0BMSH|^~\\&|A|B|C|D|||ADT||P|2.3\r\x1C\r";
        let tried = way.try_on(&file[..], |_| {}).unwrap();
        assert_eq!((tried.verdict.records, tried.refused), (2, 1));
        assert_eq!(tried.pieces.iter().map(|shown| shown.code).collect::<Vec<_>>(), [None, Some("no_control_id")]);
    }

    /// I4: what is kept is what is shown.
    #[test]
    fn a_long_file_leaves_only_the_first_rows() {
        let tried = trial("ndjson", "{}\nno\n".repeat(50_000).as_bytes(), 3);
        assert_eq!((tried.verdict.records, tried.verdict.bad), (50_000, 50_000));
        assert_eq!((tried.pieces.len(), tried.bad.len()), (3, 3));
        assert!(matches!(Outcome::of(&tried.verdict), Outcome::Refused(_)), "too many are bad");
    }

    /// I7: nothing that is shown holds anything of the file but numbers.
    #[test]
    fn nothing_of_a_value_is_kept() {
        let tried = trial("csv", b"ZEBRAFINCH,b\nCANARY,2\nCANARY,2,3\n", 10);
        let text = format!("{tried:?} {:?}", Outcome::of(&tried.verdict));
        assert!(!text.contains("CANARY") && !text.contains("ZEBRAFINCH"), "{text}");
    }
}
