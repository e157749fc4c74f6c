//! What a record is made of: its own segments, and the ISA and GS it needs in front.

use bytes::{BufMut as _, BytesMut};

use super::X12;
use super::name::is_decoration;
use crate::source::split::codes;
use crate::source::split::settings::X12Level;
use crate::source::split::window::{Cut, Taken, Window, over_cut};

impl X12 {
    /// What is in the window is complete, or as complete as it will be.
    pub(super) fn finish_record(&mut self, w: &mut Window) -> Option<Cut> {
        if std::mem::take(&mut self.unplaced) {
            return bad_run(w, codes::X12_STRAY_SEGMENT);
        }
        if w.is_between() {
            return None;
        }
        let fault = self.envelope.fault.take();
        Some(self.record(w, fault))
    }

    pub(super) fn record(&self, w: &mut Window, fault: Option<&'static str>) -> Cut {
        let (start, bytes) = match w.take() {
            Taken::Over { range, head } => return over_cut(range, head, None),
            Taken::Whole { start, bytes } => (start, bytes.slice(..bytes.trim_ascii_end().len().max(self.end_of(&bytes)))),
        };
        if let Some(code) = fault {
            return w.bad_cut(code, start, &bytes, None);
        }
        let isa = if self.level == X12Level::Interchange { &[][..] } else { &self.isa };
        let alone = !bytes.starts_with(b"ST");
        let gs = if self.level != X12Level::Transaction || alone { &[][..] } else { &self.gs };
        if isa.len() + gs.len() + bytes.len() > w.limits().record_bytes {
            return w.bad_cut(codes::RECORD_OVER_LIMIT, start, &bytes, None);
        }
        let range = start..start + bytes.len() as u64;
        let mut record = BytesMut::with_capacity(isa.len() + gs.len() + bytes.len());
        record.put_slice(isa);
        record.put_slice(gs);
        record.put_slice(&bytes);
        let mut cut = w.record_cut(start, record.freeze(), None);
        cut.range = range;
        cut
    }

    /// A terminator that is itself a line end stays.
    pub(super) fn end_of(&self, bytes: &[u8]) -> usize {
        memchr::memrchr(self.terminator, bytes).map_or(0, |at| at + 1)
    }
}

pub(super) fn bad_run(w: &mut Window, code: &'static str) -> Option<Cut> {
    match w.take() {
        Taken::Over { range, head } => Some(over_cut(range, head, None)),
        Taken::Whole { start, bytes } => {
            let bytes = bytes.slice(..bytes.len() - bytes.iter().rev().take_while(|b| is_decoration(**b)).count());
            (!bytes.is_empty()).then(|| w.bad_cut(code, start, &bytes, None))
        }
    }
}
