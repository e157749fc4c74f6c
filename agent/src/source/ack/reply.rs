//! The bytes of replies: MSH, MSA and, for a refusal, ERR; alone in a frame, several frames in a row, or between BHS and BTS.
//!
//! Text of our own is written only where it holds none of the sender's delimiters, so an odd sender gets fewer words but never a reply that
//! reads wrong. Codes are letters and digits, which are no delimiters. Whatever is built here is shorter than `REPLY_BYTES_MAX`.

use bytes::Bytes;

use super::fault::Fault;
use super::{Stamp, can_echo, is_frameable};
use crate::limits::{REPLY_BYTES_MAX, REPLY_COPIED_BYTES_MAX};
use crate::source::frame::{END, START};
use crate::source::msh::{Delimiters, Header, Version};

/// MSH-3 of a reply to something without a header.
const OUR_NAME: &str = "siteward";
/// MSH-12 of a reply to something without a version of HL7.
const DEFAULT_VERSION: (&str, Version) = ("2.5", Version(2, 5, 0));

/// Least room kept for BTS and the end of the frame.
const TRAILER_BYTES: usize = 64;

/// What one acknowledgement says. Without `header`: to something that has none.
pub(super) struct Envelope<'a> {
    pub(super) header: Option<&'a Header<'a>>,
    pub(super) code: &'a str,
    pub(super) fault: Option<Fault>,
    /// MSH-7 and MSH-10.
    pub(super) time: &'a str,
    pub(super) id: &'a str,
}

/// One acknowledgement, framing included, in one piece.
pub(super) fn build(envelope: &Envelope<'_>) -> Bytes {
    let mut frames = Frames::each();
    assert!(frames.push(envelope), "every field left is bounded by limits.rs");
    frames.finish(1, None)
}

/// Several acknowledgements in one piece.
pub(super) struct Frames {
    out: Vec<u8>,
    /// Of a batch, to end it as it began.
    separator: Option<Vec<u8>>,
}

impl Frames {
    /// Each in its own frame.
    pub(super) fn each() -> Self {
        Self { out: Vec::with_capacity(512), separator: None }
    }

    /// One frame that begins with BHS: addresses exchanged as in MSH, BHS-11 our id, BHS-12 the sender's.
    pub(super) fn batch(header: &Header<'_>, reference: &[u8], stamp: &Stamp) -> Self {
        let mut line = Writer::new(Some(header));
        line.out.push(START);
        line.out.extend_from_slice(b"BHS");
        line.separator();
        line.out.extend_from_slice(line.delimiters.encoding);
        for theirs in [5, 6, 3, 4] {
            line.separator();
            line.copied_short(header.field(theirs));
        }
        line.separator();
        line.text(&stamp.time);
        for _ in 8..=11 {
            line.separator();
        }
        line.out.extend_from_slice(stamp.control_id.as_bytes());
        line.separator();
        line.copied_short(reference);
        line.out.push(b'\r');
        Self { separator: Some(line.delimiters.separator.to_vec()), out: line.out }
    }

    /// Adds one; `false`, and nothing is added, where it does not fit even without its addresses.
    pub(super) fn push(&mut self, envelope: &Envelope<'_>) -> bool {
        [true, false].into_iter().any(|addresses| {
            let framed = self.separator.is_none();
            let mut line = Writer::new(envelope.header);
            if framed {
                line.out.push(START);
            }
            line.header(envelope, addresses);
            line.acknowledgement(envelope);
            if let Some(fault) = envelope.fault {
                line.error(fault);
            }
            if framed {
                line.out.extend_from_slice(&[END, b'\r']);
            }
            let reserve = if framed { 0 } else { TRAILER_BYTES };
            let fits = self.out.len() + line.out.len() + reserve < REPLY_BYTES_MAX;
            if fits {
                self.out.extend_from_slice(&line.out);
            }
            fits
        })
    }

    /// `acknowledgements` stand in it; `covered`: they answer for so many messages.
    pub(super) fn finish(mut self, acknowledgements: u64, covered: Option<u64>) -> Bytes {
        if let Some(separator) = &self.separator {
            self.out.extend_from_slice(b"BTS");
            self.out.extend_from_slice(separator);
            self.out.extend_from_slice(acknowledgements.to_string().as_bytes());
            if let Some(covered) = covered {
                self.out.extend_from_slice(separator);
                self.out.extend_from_slice(covered.to_string().as_bytes());
            }
            self.out.extend_from_slice(&[b'\r', END, b'\r']);
        }
        assert!(self.out.len() < REPLY_BYTES_MAX, "room for the trailer was kept");
        Bytes::from(self.out)
    }
}

struct Writer<'a> {
    out: Vec<u8>,
    delimiters: Delimiters<'a>,
    /// MSH-12 as received, where it is a version of HL7; and what counts here.
    version_field: Option<&'a [u8]>,
    version: Version,
}

impl<'a> Writer<'a> {
    fn new(header: Option<&Header<'a>>) -> Self {
        let mut delimiters = header.map_or(Delimiters::STANDARD, |h| h.delimiters);
        let encoding = delimiters.encoding;
        let usable = !encoding.is_empty() && encoding.len() <= REPLY_COPIED_BYTES_MAX && stays_in_its_segment(encoding);
        if !usable {
            let standard = Delimiters { separator: delimiters.separator, ..Delimiters::STANDARD };
            let clash = delimiters.separator.iter().any(|b| standard.encoding.contains(b));
            let none = Delimiters { encoding: b"", component: None, repetition: None, subcomponent: None, ..standard };
            delimiters = if clash { none } else { standard };
        }
        let theirs = header.and_then(|h| h.version().map(|version| (h.field(12), version))).filter(|(field, _)| is_copied(field));
        let version = theirs.map_or(DEFAULT_VERSION.1, |(_, version)| version);
        Self { out: Vec::with_capacity(256), delimiters, version_field: theirs.map(|(field, _)| field), version }
    }

    fn header(&mut self, envelope: &Envelope<'_>, addresses: bool) {
        let header = envelope.header;
        self.out.extend_from_slice(b"MSH");
        self.separator();
        self.out.extend_from_slice(self.delimiters.encoding);
        if let Some(header) = header {
            for theirs in [5, 6, 3, 4] {
                self.separator();
                self.copied(if addresses { header.field(theirs) } else { &[] });
            }
        } else {
            self.separator();
            self.text(OUR_NAME);
            for _ in 4..=6 {
                self.separator();
            }
        }
        self.separator();
        self.text(envelope.time);
        self.separator(); // MSH-8
        self.separator();
        self.message_type(header);
        self.separator();
        self.out.extend_from_slice(envelope.id.as_bytes());
        self.separator();
        match header {
            Some(header) => self.copied_short(header.field(11)),
            None => self.text("P"),
        }
        self.separator();
        match self.version_field {
            Some(field) => self.copied(field),
            None => self.text(DEFAULT_VERSION.0),
        }
        self.character_set(header);
        self.out.push(b'\r');
    }

    /// MSH-9: `ACK`, with the trigger event from 2.3.1 on, with the structure from 2.5 on.
    fn message_type(&mut self, header: Option<&Header<'_>>) {
        self.out.extend_from_slice(b"ACK");
        let trigger = header.map(|h| h.component(9, 2)).unwrap_or_default();
        let Some(component) = self.delimiters.component else { return };
        if self.version < Version(2, 3, 1) || trigger.is_empty() || !is_copied(trigger) {
            return;
        }
        self.out.extend_from_slice(component);
        self.out.extend_from_slice(trigger);
        if self.version >= Version(2, 5, 0) {
            self.out.extend_from_slice(component);
            self.out.extend_from_slice(b"ACK");
        }
    }

    /// MSH-18, only where something that is not ASCII is repeated: then it is in the sender's character set.
    fn character_set(&mut self, header: Option<&Header<'_>>) {
        let Some(header) = header else { return };
        let repeated = [3, 4, 5, 6, 10, 11].into_iter().any(|n| !header.field(n).is_ascii());
        let character_set = header.field(18);
        if repeated && !character_set.is_empty() && is_copied(character_set) {
            for _ in 13..=18 {
                self.separator();
            }
            self.out.extend_from_slice(character_set);
        }
    }

    fn acknowledgement(&mut self, envelope: &Envelope<'_>) {
        self.out.extend_from_slice(b"MSA");
        self.separator();
        self.out.extend_from_slice(envelope.code.as_bytes());
        self.separator();
        let control_id = envelope.header.map(|h| h.field(10)).unwrap_or_default();
        if can_echo(control_id) {
            self.out.extend_from_slice(control_id);
        }
        if let Some(fault) = envelope.fault
            && self.version < Version(2, 7, 0)
        {
            self.separator();
            self.text(fault.condition().1);
        }
        self.out.push(b'\r');
    }

    /// ERR: one coded field (ERR-1) before 2.5; location, code, severity, diagnostics and a sentence (ERR-2, 3, 4, 7, 8) from there on.
    fn error(&mut self, fault: Fault) {
        let Some(component) = self.delimiters.component else { return };
        let (code, text) = fault.condition();
        let place = fault.field().map(|field| ["MSH", "1", field]);
        self.out.extend_from_slice(b"ERR");
        self.separator();
        if self.version < Version(2, 5, 0) {
            for part in place.unwrap_or_default() {
                self.out.extend_from_slice(part.as_bytes());
                self.out.extend_from_slice(component);
            }
            self.out.extend_from_slice(code.as_bytes());
            if let Some(subcomponent) = self.delimiters.subcomponent {
                self.coded_text(subcomponent, text);
            }
        } else {
            self.separator(); // ERR-1 is withdrawn
            for (index, part) in place.iter().flatten().enumerate() {
                self.out.extend_from_slice(if index == 0 { b"" } else { component });
                self.out.extend_from_slice(part.as_bytes());
            }
            self.separator();
            self.out.extend_from_slice(code.as_bytes());
            self.coded_text(component, text);
            self.separator();
            self.out.push(b'E');
            for _ in 5..=7 {
                self.separator();
            }
            self.text(fault.name());
            self.separator();
            self.text(fault.advice());
        }
        self.out.push(b'\r');
    }

    /// Text and table of a code, behind it.
    fn coded_text(&mut self, between: &[u8], text: &str) {
        self.out.extend_from_slice(between);
        self.text(text);
        self.out.extend_from_slice(between);
        self.out.extend_from_slice(b"HL70357");
    }

    fn separator(&mut self) {
        self.out.extend_from_slice(self.delimiters.separator);
    }

    /// A text of ours, unless it would be taken apart by the sender's delimiters.
    fn text(&mut self, text: &str) {
        let taken = |b: &u8| self.delimiters.separator.contains(b) || self.delimiters.encoding.contains(b);
        if !text.as_bytes().iter().any(taken) {
            self.out.extend_from_slice(text.as_bytes());
        }
    }

    fn copied(&mut self, field: &[u8]) {
        if stays_in_its_segment(field) {
            self.out.extend_from_slice(field);
        }
    }

    fn copied_short(&mut self, field: &[u8]) {
        if is_copied(field) {
            self.out.extend_from_slice(field);
        }
    }
}

/// Short enough, and nothing in it ends a segment or a frame.
fn is_copied(field: &[u8]) -> bool {
    field.len() <= REPLY_COPIED_BYTES_MAX && stays_in_its_segment(field)
}

/// Without framing bytes and line ends: there are receivers that take a line feed for the end of a segment, and behind it could stand a
/// segment that is none of ours.
fn stays_in_its_segment(field: &[u8]) -> bool {
    is_frameable(field) && !field.contains(&b'\n')
}
