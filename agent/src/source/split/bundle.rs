//! FHIR: the entries of a Bundle, or a resource that is no Bundle as it is.
//!
//! ```text
//!   { ─► Key ─► Colon ─► Value ─► Key … } ─► After
//!                 └ "entry": [ ─► Entries ─► Value's end
//! ```
//!
//! Until `resourceType` is known, what was read is held: a resource that is no Bundle is one record, the file. `resourceType` comes first
//! in practice; an array `entry` in front of it is taken for a Bundle's, and a file that turns out to be something else is held.
//! Each state gives up as soon as its bytes spent the discard budget, before it decides anything: else the verdict would depend on the portions.
//! The Bundle must be complete: it ends with its bracket. `total` says nothing about entries (it counts matches of a search).

use super::codes;
use super::json::{Element, Elements, Value, blanks, json_fault, opened, trailing};
use super::verdict::{Notes, State};
use super::window::{Cut, Taken, Window, over_cut, trimmed};
use crate::limits::JSON_NAME_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    ResourceType,
    Entry,
    Other,
}

#[derive(Debug)]
enum At {
    Start,
    /// In front of a key, a comma or the closing bracket.
    Member,
    /// Inside a key, behind its first quote; the flag: the last byte was a backslash.
    Key(bool),
    Colon(Key),
    Front(Key),
    Value(Key, Value),
    Entries(Elements),
    After,
    /// No Bundle: the file is the record.
    Bare,
}

#[derive(Debug)]
pub(super) struct FhirBundle {
    at: At,
    /// It is a Bundle, or taken for one; what was read need not be held.
    is_bundle: bool,
    named: bool,
    name: Vec<u8>,
}

impl Default for FhirBundle {
    fn default() -> Self {
        Self { at: At::Start, is_bundle: false, named: false, name: Vec::new() }
    }
}

impl FhirBundle {
    pub(super) fn next(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        loop {
            let (before, state) = (w.at(), std::mem::discriminant(&self.at));
            if let Some(cut) = self.step(w, notes) {
                return Some(cut);
            }
            if notes.unusable().is_some() || w.is_spent() {
                return None;
            }
            if w.at() == before && std::mem::discriminant(&self.at) == state {
                let inside = !matches!(self.at, At::Start | At::After | At::Bare);
                return if w.is_end() && inside { self.cut_off(w, notes) } else { None };
            }
        }
    }

    fn step(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        match &mut self.at {
            At::Start => {
                if opened(w, notes, b'{', codes::JSON_NOT_OBJECT) {
                    self.at = At::Member;
                }
            }
            At::Member => {
                let count = w.rest().iter().take_while(|b| !matches!(b, b'"' | b'}')).count();
                w.advance(count);
                let next = w.rest().first().copied();
                self.pass(w);
                match next {
                    _ if w.is_spent() => {}
                    Some(b'"') => {
                        self.name.clear();
                        self.at = At::Key(false);
                        w.advance(1);
                    }
                    Some(_) => self.close(w, notes),
                    None => {}
                }
            }
            At::Key(_) => self.key(w),
            At::Colon(key) => {
                let key = *key;
                let count = blanks(w.rest());
                w.advance(count);
                // a missing colon is found by whoever reads the value; here it only must not stop us
                if let Some(first) = w.rest().first() {
                    let colon = usize::from(*first == b':');
                    w.advance(colon);
                    self.at = At::Front(key);
                }
            }
            At::Front(key) => {
                let key = *key;
                w.advance(blanks(w.rest()));
                match (key, w.rest().first()) {
                    _ if w.is_spent() => {}
                    (_, None) => {}
                    (Key::Entry, Some(b'[')) => {
                        self.is_bundle = true;
                        w.advance(1);
                        w.skip();
                        self.at = At::Entries(Elements::default());
                    }
                    _ => {
                        self.pass(w);
                        self.name.clear();
                        self.at = At::Value(key, Value::default());
                    }
                }
            }
            At::Value(..) => return self.value(w, notes),
            At::Entries(elements) => match elements.next(w, notes) {
                Element::Cut(cut) => return Some(cut),
                Element::End => self.at = At::Member,
                Element::Starved => {}
            },
            At::After => return trailing(w),
            At::Bare => return bare(w, notes),
        }
        None
    }

    fn key(&mut self, w: &mut Window) {
        let At::Key(escaped) = &mut self.at else { return };
        let (mut ended, mut count) = (false, 0);
        for b in w.rest() {
            count += 1;
            ended = *b == b'"' && !*escaped;
            if ended {
                break;
            }
            *escaped = *b == b'\\' && !*escaped;
            if self.name.len() <= JSON_NAME_BYTES_MAX {
                self.name.push(*b);
            }
        }
        w.advance(count);
        if ended {
            self.at = At::Colon(key(&self.name));
        }
    }

    fn value(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        let At::Value(key, value) = &mut self.at else { return None };
        let key = *key;
        let stop = value.walk(w.rest(), b'}');
        let count = stop.unwrap_or(w.rest().len());
        if key == Key::ResourceType {
            let room = JSON_NAME_BYTES_MAX.saturating_sub(self.name.len()).min(count);
            self.name.extend_from_slice(&w.rest()[..room]);
        }
        w.advance(count);
        if !(key == Key::Entry && self.is_bundle) {
            self.pass(w);
        }
        if stop.is_none() || w.is_spent() {
            return None;
        }
        self.at = At::Member;
        match key {
            Key::ResourceType => {
                self.named = true;
                match (self.name.trim_ascii() == b"\"Bundle\"", self.is_bundle) {
                    (true, _) => self.is_bundle = true,
                    (false, false) => self.at = At::Bare,
                    (false, true) => notes.give_up(codes::BUNDLE_TYPE),
                }
            }
            Key::Entry if self.is_bundle => {
                return Some(match w.take() {
                    Taken::Over { range, head } => over_cut(range, head, None),
                    Taken::Whole { start, bytes } => w.bad_cut(codes::BUNDLE_ENTRY, start, &bytes, None),
                });
            }
            Key::Entry | Key::Other => {}
        }
        if !matches!(self.at, At::Bare) {
            self.pass(w);
        }
        None
    }

    /// The closing bracket of the outermost object.
    fn close(&mut self, w: &mut Window, notes: &mut Notes) {
        if self.named {
            w.advance(1);
            w.skip();
            self.at = At::After;
        } else {
            notes.give_up(codes::BUNDLE_TYPE);
        }
    }

    /// What was read belongs to no record, as soon as that is known.
    fn pass(&self, w: &mut Window) {
        if self.is_bundle {
            w.skip();
        }
    }

    /// The file ended inside the object.
    fn cut_off(&mut self, w: &mut Window, notes: &mut Notes) -> Option<Cut> {
        notes.worsen(State::Truncated { code: codes::JSON_CUT });
        self.at = At::After;
        self.pass(w);
        if w.is_between() {
            return None;
        }
        Some(match w.take() {
            Taken::Over { range, head } => over_cut(range, head, None),
            Taken::Whole { start, bytes } => w.bad_cut(codes::JSON_CUT, start, &bytes, None),
        })
    }
}

fn key(name: &[u8]) -> Key {
    let decoded: Option<String> =
        name.contains(&b'\\').then(|| serde_json::from_slice([b"\"", name, b"\""].concat().as_slice()).ok()).flatten();
    match decoded.as_ref().map_or(name, |text| text.as_bytes()) {
        b"resourceType" => Key::ResourceType,
        b"entry" => Key::Entry,
        _ => Key::Other,
    }
}

fn bare(w: &mut Window, notes: &mut Notes) -> Option<Cut> {
    w.advance(w.rest().len());
    if !w.is_end() || w.is_between() {
        return None;
    }
    let (start, bytes) = match w.take() {
        Taken::Over { range, head } => return Some(over_cut(range, head, None)),
        Taken::Whole { start, bytes } => (start, bytes),
    };
    let (front, inner) = trimmed(&bytes);
    let start = start + front;
    match json_fault(&inner) {
        Some(fault) => {
            if fault.cut {
                notes.worsen(State::Truncated { code: codes::JSON_CUT });
            }
            Some(w.bad_cut(fault.code, start, &inner, None))
        }
        None => Some(w.record_cut(start, inner, None)),
    }
}
