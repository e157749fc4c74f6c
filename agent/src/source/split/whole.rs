//! A file that is one record. An empty file has none.

use super::window::{Cut, Taken, Window, over_cut};

#[derive(Debug, Default)]
pub(super) struct Whole;

impl Whole {
    pub(super) fn next(w: &mut Window) -> Option<Cut> {
        w.advance(w.rest().len());
        if !w.is_end() || w.is_between() {
            return None;
        }
        Some(match w.take() {
            Taken::Whole { start, bytes } => w.record_cut(start, bytes, None),
            Taken::Over { range, head } => over_cut(range, head, None),
        })
    }
}
