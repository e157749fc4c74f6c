//! JSON without a tree: where a value ends is found by counting brackets outside of strings; whether it is JSON is asked of a parser that
//! builds nothing, one value at a time.
//!
//! An element of an array reaches to the comma or bracket that ends it, whatever stands between, so one that is no JSON costs itself only.

use serde::de::IgnoredAny;

use super::codes;
use super::verdict::{Notes, State};
use super::window::{Cut, Preamble, Taken, Window, over_cut, trimmed};
use crate::limits::JSON_DEPTH_MAX;

/// Finds the end of a value.
#[derive(Debug, Default)]
pub(super) struct Value {
    depth: u32,
    deepest: u32,
    in_string: bool,
    escaped: bool,
}

impl Value {
    /// Goes on with the value; where it ends at a comma or `close` outside of its brackets, their place.
    pub(super) fn walk(&mut self, bytes: &[u8], close: u8) -> Option<usize> {
        let mut i = 0;
        while i < bytes.len() {
            if std::mem::take(&mut self.escaped) {
                i += 1;
                continue;
            }
            if self.in_string {
                i += memchr::memchr2(b'"', b'\\', &bytes[i..])?;
                self.escaped = bytes[i] == b'\\';
                self.in_string = self.escaped;
                i += 1;
                continue;
            }
            match bytes[i] {
                b'"' => self.in_string = true,
                b if self.depth == 0 && (b == b',' || b == close) => return Some(i),
                b'{' | b'[' => {
                    self.depth = self.depth.saturating_add(1);
                    self.deepest = self.deepest.max(self.depth);
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            i += 1;
        }
        None
    }
}

/// Why bytes are not one JSON value. `cut`: they are the beginning of one.
pub(super) struct JsonFault {
    pub code: &'static str,
    pub cut: bool,
}

/// Nothing is built of the value, and values nested too deep for those who will build something are refused.
pub(super) fn json_fault(bytes: &[u8]) -> Option<JsonFault> {
    let fault = |code| Some(JsonFault { code, cut: false });
    if bytes.first() == Some(&b'<') {
        return fault(codes::XML);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return fault(codes::JSON_ENCODING) };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        // its text may quote the content
        return Some(JsonFault { code: if error.is_eof() { codes::JSON_CUT } else { codes::JSON_INVALID }, cut: error.is_eof() });
    }
    let mut value = Value::default();
    value.walk(bytes, b']');
    if value.deepest > JSON_DEPTH_MAX { fault(codes::JSON_DEPTH) } else { None }
}

/// Blanks of JSON in front.
pub(super) fn blanks(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).count()
}

/// What comes of the elements of an array.
pub(super) enum Element {
    Cut(Cut),
    /// The bracket that closes the array was passed.
    End,
    Starved,
}

/// The elements of one array, from behind its opening bracket.
#[derive(Debug, Default)]
pub(super) struct Elements {
    value: Value,
    seen: bool,
    closed: bool,
}

impl Elements {
    pub(super) fn next(&mut self, w: &mut Window, notes: &mut Notes) -> Element {
        if self.closed {
            return Element::End;
        }
        if w.is_between() {
            w.advance(blanks(w.rest()));
            w.skip();
        }
        let stop = self.value.walk(w.rest(), b']');
        w.advance(stop.unwrap_or(w.rest().len()));
        if stop.is_none() && !w.is_end() {
            return Element::Starved;
        }
        self.value = Value::default();
        let taken = w.take();
        let Some(_) = stop else {
            notes.worsen(State::Truncated { code: codes::JSON_CUT });
            self.closed = true;
            return cut_short(w, taken).map_or(Element::End, Element::Cut);
        };
        self.closed = w.rest().first() == Some(&b']');
        let empty_array = self.closed && !self.seen;
        self.seen = true;
        let cut = match taken {
            Taken::Over { range, head } => over_cut(range, head, None),
            Taken::Whole { start, bytes } => {
                let (front, inner) = trimmed(&bytes);
                if inner.is_empty() && empty_array {
                    w.advance(1);
                    w.skip();
                    return Element::End;
                }
                match json_fault(&inner) {
                    _ if inner.is_empty() => w.bad_cut(codes::JSON_EMPTY_ELEMENT, start, &inner, None),
                    Some(fault) => w.bad_cut(fault.code, start + front, &inner, None),
                    None => w.record_cut(start + front, inner, None),
                }
            }
        };
        if !w.is_spent() {
            w.advance(1);
            w.skip();
        }
        Element::Cut(cut)
    }
}

fn cut_short(w: &Window, taken: Taken) -> Option<Cut> {
    match taken {
        Taken::Over { range, head } => Some(over_cut(range, head, None)),
        Taken::Whole { start, bytes } => {
            let (front, inner) = trimmed(&bytes);
            (!inner.is_empty()).then(|| w.bad_cut(codes::JSON_CUT, start + front, &inner, None))
        }
    }
}

/// Passes over what may stand in front of the outermost bracket; true when it was passed.
pub(super) fn opened(w: &mut Window, notes: &mut Notes, bracket: u8, otherwise: &'static str) -> bool {
    let Some(preamble) = w.preamble() else { return false };
    w.advance(blanks(w.rest()));
    w.skip();
    match w.rest().first() {
        _ if preamble == Preamble::Utf16 => notes.give_up(codes::TEXT_UTF16),
        Some(first) if *first == bracket => {
            w.advance(1);
            return true;
        }
        Some(b'<') => notes.give_up(codes::XML),
        Some(_) => notes.give_up(otherwise),
        None if w.is_end() => notes.worsen(State::Truncated { code: codes::JSON_CUT }),
        None => {}
    }
    false
}

/// What stands behind the end of the outermost value.
pub(super) fn trailing(w: &mut Window) -> Option<Cut> {
    if w.is_between() {
        w.advance(blanks(w.rest()));
        w.skip();
    }
    w.advance(w.rest().len());
    if !w.is_end() || w.is_between() {
        return None;
    }
    Some(match w.take() {
        Taken::Over { range, head } => over_cut(range, head, None),
        Taken::Whole { start, bytes } => w.bad_cut(codes::JSON_TRAILING, start, &bytes, None),
    })
}

/// A file that is one array.
#[derive(Debug, Default)]
pub(super) struct JsonArray {
    at: At,
    elements: Elements,
}

#[derive(Debug, Default)]
enum At {
    #[default]
    Start,
    Elements,
    After,
}

impl JsonArray {
    pub(super) fn next(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        loop {
            match self.at {
                At::Start => {
                    if !opened(w, notes, b'[', codes::JSON_NOT_ARRAY) {
                        return None;
                    }
                    w.skip();
                    self.at = At::Elements;
                }
                At::Elements => match self.elements.next(w, notes) {
                    Element::Cut(cut) => return Some(cut),
                    Element::End => self.at = At::After,
                    Element::Starved => return None,
                },
                At::After => return trailing(w),
            }
        }
    }
}
