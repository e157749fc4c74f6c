//! HL7 v2 in files: messages one after the other, with or without FHS, BHS, BTS and FTS.
//!
//! ```text
//!   line start ──FHS BHS BTS FTS──► a header or trailer: one line, envelope
//!              ──MSH──────────────► a message: up to the next of the five names
//!              ──anything else────► more of the message; outside of one: stray
//! ```
//!
//! What a name is, what may stand in front of it and how counts are compared is `source::batch`'s; here it is done on a stream. Segments end
//! with CR where one comes within `HL7_PROBE_BYTES` of the first name, else with LF; with either where the first segment ends with LF and
//! CRs follow. Framing bytes of MLLP, NULs and blank lines between messages are passed over.
//!
//! A file that is shorter than its trailers claim, or that lacks FTS where FHS was, is truncated. A batch without its BTS is too, unless
//! the FTS is there. Any other difference is told and the file goes on.

use bytes::Bytes;

use super::codes;
use super::verdict::{Notes, State};
use super::window::{Cut, Preamble, Taken, Window, over_cut};
use crate::limits::HL7_PROBE_BYTES;
use crate::source::batch::{self, Claim, Kind, Mismatch, Tally};
use crate::source::msh::LineEnds;

/// Name, separator (a character), and one byte more.
const NAME_BYTES: usize = 8;

#[derive(Debug)]
pub(super) struct Hl7 {
    counted: bool,
    ends: Option<LineEnds>,
    line_start: bool,
    /// What is in the window.
    part: Option<Kind>,
    tally: Tally,
    /// BTS-1 summed; `None` when one of them says nothing.
    claimed: Option<u64>,
    trailers: u64,
    last: Option<Kind>,
    finished: bool,
}

impl Hl7 {
    /// `counted`: BTS-1 and FTS-1 are compared.
    pub(super) fn new(counted: bool) -> Self {
        Self {
            counted,
            ends: None,
            line_start: true,
            part: None,
            tally: Tally::default(),
            claimed: Some(0),
            trailers: 0,
            last: None,
            finished: false,
        }
    }

    pub(super) fn next(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        if w.preamble()? == Preamble::Utf16 {
            notes.give_up(codes::TEXT_UTF16);
            return None;
        }
        let ends = self.probe(w)?;
        while !w.is_spent() {
            if self.line_start {
                let marks = w.rest().len() - batch::skip_marks(w.rest()).len();
                w.advance(marks);
                if self.part.is_none() {
                    w.skip();
                }
                if w.rest().len() < NAME_BYTES && !w.is_end() {
                    return None;
                }
                let kind = batch::kind_of(w.rest());
                let goes_on = !w.rest().is_empty() && kind.is_none() && matches!(self.part, Some(Kind::Message | Kind::Stray));
                if !goes_on && let Some(part) = self.part.take() {
                    if let Some(cut) = self.complete(part, w) {
                        return Some(cut);
                    }
                    continue;
                }
                if w.rest().is_empty() {
                    self.finish(w, notes);
                    return None;
                }
                if !goes_on {
                    self.part = Some(kind.unwrap_or(Kind::Stray));
                }
                self.line_start = false;
            }
            let end = ends.find(w.rest());
            w.advance(end.map_or(w.rest().len(), |at| at + 1));
            self.line_start = end.is_some() || w.is_end();
            if !self.line_start {
                return None;
            }
        }
        None
    }

    /// What ends a line; `None` until enough was fed to know.
    fn probe(&mut self, w: &mut Window) -> Option<LineEnds> {
        if self.ends.is_some() {
            return self.ends;
        }
        let blanks = w.rest().iter().take_while(|b| matches!(b, 0 | b'\t' | b'\n' | b'\r' | b' ' | 0x0B | 0x1C)).count();
        w.advance(blanks);
        w.skip();
        let longest = HL7_PROBE_BYTES.min(w.limits().record_bytes);
        let probe = &w.rest()[..w.rest().len().min(longest)];
        let cr = memchr::memchr(b'\r', probe);
        if cr.is_none() && probe.len() < longest && !w.is_end() {
            return None;
        }
        self.ends = Some(LineEnds::of(cr.map_or(probe, |at| &probe[..=at])));
        self.ends
    }

    fn complete(&mut self, part: Kind, w: &mut Window) -> Option<Cut> {
        self.last = Some(part);
        let (start, bytes) = match w.take() {
            Taken::Over { range, head } => {
                self.tally.take(&batch::Piece { kind: part, bytes: &head });
                return Some(over_cut(range, head, None));
            }
            Taken::Whole { start, bytes } => (start, bytes),
        };
        self.tally.take(&batch::Piece { kind: part, bytes: &bytes });
        match part {
            Kind::Message => Some(w.record_cut(start, without_marks(&bytes), None)),
            Kind::Stray => Some(w.bad_cut(codes::HL7_STRAY, start, &without_marks(&bytes), None)),
            Kind::BatchTrailer => {
                self.trailers += 1;
                self.claimed = match (batch::claim(&bytes), self.claimed) {
                    (Claim::Count(count), Some(sum)) => sum.checked_add(count),
                    _ => None,
                };
                None
            }
            Kind::FileHeader | Kind::BatchHeader | Kind::FileTrailer => None,
        }
    }

    fn finish(&mut self, w: &Window, notes: &mut Notes) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        if matches!(self.last, Some(Kind::Stray)) && self.tally.messages() == 0 && self.trailers == 0 {
            notes.give_up(codes::HL7_NO_MESSAGE);
        }
        if !self.counted {
            return;
        }
        notes.claimed = self.claimed.filter(|_| self.trailers > 0);
        let Some(mismatch) = self.tally.clone().finish() else { return };
        let (code, counts) = match mismatch {
            Mismatch::Messages { claimed, found } => (codes::HL7_BATCH_COUNT, Some((claimed, found))),
            Mismatch::Batches { claimed, found } => (codes::HL7_FILE_COUNT, Some((claimed, found))),
            Mismatch::UnreadableCount => (codes::HL7_COUNT_UNREADABLE, None),
            Mismatch::NoBatchTrailer => (codes::HL7_BTS_MISSING, None),
            Mismatch::NoFileTrailer => (codes::HL7_FTS_MISSING, None),
        };
        let ended = mismatch == Mismatch::NoBatchTrailer && self.last == Some(Kind::FileTrailer);
        notes.find(code, w.at()..w.at(), counts);
        notes.worsen(match counts {
            _ if mismatch.is_short() && !ended => State::Truncated { code },
            Some((claimed, found)) => State::CountMismatch { code, claimed, found },
            None => State::Flagged { code },
        });
    }
}

/// A message up to the line end of its last segment.
fn without_marks(bytes: &Bytes) -> Bytes {
    let mut end = bytes.len();
    while let Some(0 | b'\n' | b'\r' | 0x0B | 0x1C) = bytes[..end].last() {
        end -= 1;
    }
    // a byte order mark of a file that was appended
    if let Some(rest) = bytes[..end].strip_suffix(b"\xEF\xBB\xBF") {
        return without_marks(&bytes.slice(..rest.len()));
    }
    let line_end = match bytes[end..] {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => 0,
    };
    bytes.slice(..end + line_end)
}
