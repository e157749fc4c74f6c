//! What is known of a file when its last byte was seen: how many records, and whether it was whole.
//!
//! Formats note findings as they come; the worst one decides the [`State`]. A file that is `Truncated` or `Unusable` should be held and
//! reported; the other states are delivered, flagged where something did not add up.

use std::ops::Range;

use crate::limits::SPLIT_FINDINGS_MAX;

/// The whole file in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub records: u64,
    pub bad: u64,
    pub bytes: u64,
    /// Bytes that belong to no piece: headers, trailers, separators, blank lines.
    pub envelope_bytes: u64,
    /// Records that the file's own trailers claim in all (BTS-1; GE01 or IEA01 by level), where each trailer says a number.
    pub claimed: Option<u64>,
    pub state: State,
    /// The first `SPLIT_FINDINGS_MAX`.
    pub findings: Vec<Finding>,
    pub findings_left_out: u64,
}

/// Worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Complete,
    /// Something in the envelope does not add up that says nothing about completeness (a control number).
    Flagged {
        code: &'static str,
    },
    /// More came than the file claims.
    CountMismatch {
        code: &'static str,
        claimed: u64,
        found: u64,
    },
    /// Less came than the file claims, or its end is missing.
    Truncated {
        code: &'static str,
    },
    /// Not a file of this format; it was not split, or not to its end.
    Unusable {
        code: &'static str,
    },
}

impl State {
    /// The file must not be delivered as it is.
    pub fn holds_file(self) -> bool {
        matches!(self, Self::Truncated { .. } | Self::Unusable { .. })
    }

    pub fn code(self) -> Option<&'static str> {
        match self {
            Self::Complete => None,
            Self::Flagged { code } | Self::CountMismatch { code, .. } | Self::Truncated { code } | Self::Unusable { code } => Some(code),
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Flagged { .. } => 1,
            Self::CountMismatch { .. } => 2,
            Self::Truncated { .. } => 3,
            Self::Unusable { .. } => 4,
        }
    }
}

/// Something an envelope says that is not so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub code: &'static str,
    /// The segment that says it, or the place where one is missing.
    pub range: Range<u64>,
    /// What was claimed and what was found, where numbers are compared.
    pub counts: Option<(u64, u64)>,
}

/// Collects while a file is split.
#[derive(Debug)]
pub(super) struct Notes {
    state: State,
    findings: Vec<Finding>,
    left_out: u64,
    pub(super) claimed: Option<u64>,
}

impl Default for Notes {
    fn default() -> Self {
        Self { state: State::Complete, findings: Vec::new(), left_out: 0, claimed: None }
    }
}

impl Notes {
    /// The first of the worst stays.
    pub(super) fn worsen(&mut self, state: State) {
        if state.rank() > self.state.rank() {
            self.state = state;
        }
    }

    pub(super) fn find(&mut self, code: &'static str, range: Range<u64>, counts: Option<(u64, u64)>) {
        if self.findings.len() < SPLIT_FINDINGS_MAX {
            self.findings.push(Finding { code, range, counts });
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn give_up(&mut self, code: &'static str) {
        self.worsen(State::Unusable { code });
    }

    /// The last word on a file that was given up.
    pub(super) fn close(&mut self, code: &'static str) {
        self.state = State::Unusable { code };
    }

    pub(super) fn unusable(&self) -> Option<&'static str> {
        match self.state {
            State::Unusable { code } => Some(code),
            _ => None,
        }
    }

    pub(super) fn verdict(&self, records: u64, bad: u64, bytes: u64, envelope_bytes: u64) -> Verdict {
        Verdict {
            records,
            bad,
            bytes,
            envelope_bytes,
            claimed: self.claimed,
            state: self.state,
            findings: self.findings.clone(),
            findings_left_out: self.left_out,
        }
    }
}
