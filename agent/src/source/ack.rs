//! What a sender is told: the verdict on a frame, and the reply, byte for byte.
//!
//! ```text
//! frame ── judge ──► Accept  ── positive ──► Message.reply ── append ──► Durable ── accept ──► Reply
//!                │                                             └ refused by the store ── store_failed ──► Reply or none
//!                ├─► Refuse  ── reply ──► Reply or none           (and the frame goes to quarantine)
//!                └─► Ignore                                        nothing stored, nothing sent
//! ```
//!
//! I1: only a [`Reply`] can be written to a sender. A positive one comes from [`accept`] alone, which consumes the committer's `Durable`
//! and gives the bytes stored with the record, on the duplicate path too. `Accepted::positive` computes those bytes beforehand but makes no
//! `Reply`.
//!
//! **Which reply.** Which code, and whether any, follows from MSH-15, MSH-16 and the feed's `app_ack`: see `manner`.
//!
//! | | stored | store failed (`nak`) | header not acceptable (strict edits, oversize) | content (no MSH-10) |
//! |---|---|---|---|---|
//! | original | AA | AR 207 | AR 200–203, 104 | AE 101, 102 |
//! | enhanced | CA | CE 207 | CR 200–203, 104 | CE 101, 102 |
//!
//! Without any header there is nothing to go by: AR 100 with an empty MSA-2. Several messages in one frame are stored whole and answered one
//! by one: see `several`. Bytes that cannot be a message may also be answered by closing (`on_invalid`, the connection's business); they
//! are never answered positively, because quarantine is no record (I1).
//!
//! **What it says.** The reply's MSH is built anew with the sender's delimiters; whole fields change places (5, 6 become 3, 4 and the
//! reverse); MSA-2 is MSH-10 as received. No other content is repeated, and none in MSA-3 or ERR (I7). A reply is always shorter than
//! `REPLY_BYTES_MAX`: absurdly long fields are left out, MSA-2 never is; what cannot be echoed is refused.

mod fault;
mod manner;
#[cfg(test)]
mod matrix;
mod reply;
mod several;
#[cfg(test)]
mod several_tests;
mod strict;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use std::fmt;

pub use self::fault::Fault;

use self::manner::Manner;
use self::reply::{Envelope, Frames};
use self::several::{Decision, Found};
use super::batch::{self, Mismatch};
use super::charset::Declared;
use super::frame::{END, START};
use super::msh::{self, Header};
use crate::config::settings::AnswerSettings;
use crate::limits::CONTROL_ID_ECHO_BYTES_MAX;
use crate::record::{MessageIdentity, Payload};
use crate::spool::Durable;

/// What the caller adds to a reply.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// MSH-7, with offset: `20260101120000+0000`.
    pub time: String,
    /// MSH-10 of the reply, and the beginning of all further ones: new, unique, at most 18 letters and digits.
    pub control_id: String,
}

impl Stamp {
    /// MSH-10 of the `n`-th acknowledgement of one reply, at most 20 letters and digits. (A reply has room for fewer than 256.)
    fn id(&self, n: u64) -> String {
        if n == 0 { self.control_id.clone() } else { format!("{}{:02X}", self.control_id, n & 0xFF) }
    }
}

/// Bytes for the sender, framing included; empty where nothing is due. `Debug` shows the length (I7).
#[derive(Clone, PartialEq, Eq)]
pub struct Reply(Payload);

impl Reply {
    /// What to write, in one piece.
    pub fn bytes(&self) -> &Bytes {
        self.0.expose()
    }
    #[cfg(test)]
    pub(super) fn for_tests(stored: Payload) -> Self {
        Self(stored)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply{:?}", self.0)
    }
}

/// The only way to a positive reply (I1): the record, or the first copy of it, is on disk, and these are the bytes stored with it.
#[allow(clippy::needless_pass_by_value)] // consumes the proof
pub fn accept(durable: Durable) -> Reply {
    Reply(durable.reply().clone())
}

/// What becomes of a frame.
#[derive(Debug)]
pub enum Verdict<'a> {
    Accept(Accepted<'a>),
    Refuse(Refused<'a>),
    Ignore(Ignored),
}

/// Frames that are neither stored nor answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// An acknowledgement; one is never acknowledged.
    Acknowledgement,
    /// A commit acknowledgement block of MLLP release 2 (06 or 15).
    CommitBlock,
}

/// A message, or several in one frame, to be stored.
pub struct Accepted<'a> {
    frame: &'a Bytes,
    header: Header<'a>,
    manner: Manner,
    answers: &'a AnswerSettings,
    /// Of a frame with several messages.
    several: Option<Found>,
}

/// What is not stored, for good.
pub struct Refused<'a> {
    header: Option<Header<'a>>,
    manner: Manner,
    fault: Fault,
    /// A frame with several messages, each of which is answered.
    several: Option<(&'a [u8], &'a AnswerSettings)>,
}

impl fmt::Debug for Accepted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("manner", &self.manner).field("several", &self.several).finish_non_exhaustive()
    }
}

impl fmt::Debug for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("manner", &self.manner).field("fault", &self.fault).finish_non_exhaustive()
    }
}

/// Looks at a complete frame.
pub fn judge<'a>(frame: &'a Bytes, answers: &'a AnswerSettings) -> Verdict<'a> {
    if matches!(frame[..], [0x06 | 0x15]) {
        return Verdict::Ignore(Ignored::CommitBlock);
    }
    let Some(header) = msh::scan(frame) else {
        return Verdict::Refuse(Refused::new(None, Fault::NoHeader, answers));
    };
    if batch::is_several(frame) {
        return judge_several(frame, header, answers);
    }
    if header.is_acknowledgement() {
        return Verdict::Ignore(Ignored::Acknowledgement);
    }
    match several::fault_of(Some(&header), answers) {
        Some(fault) => Verdict::Refuse(Refused::new(Some(header), fault, answers)),
        None => Verdict::Accept(Accepted { frame, manner: Manner::of(&header, answers.app_ack), header, answers, several: None }),
    }
}

/// Why a message would not be stored, if it would not: `judge`, for a trial.
pub fn objection(message: &Bytes, answers: &AnswerSettings) -> Option<&'static str> {
    match judge(message, answers) {
        Verdict::Accept(_) => None,
        Verdict::Refuse(refused) => Some(refused.fault.name()),
        Verdict::Ignore(_) => Some("ignored_acknowledgement"),
    }
}

fn judge_several<'a>(frame: &'a Bytes, header: Header<'a>, answers: &'a AnswerSettings) -> Verdict<'a> {
    let found = several::judge(frame, answers);
    match found.verdict {
        Decision::Ignore => Verdict::Ignore(Ignored::Acknowledgement),
        Decision::Refuse(fault) => {
            Verdict::Refuse(Refused { several: Some((frame, answers)), ..Refused::new(Some(header), fault, answers) })
        }
        Decision::Store => {
            let manner = Manner::of(&header, answers.app_ack);
            Verdict::Accept(Accepted { frame, manner, header, answers, several: Some(found) })
        }
    }
}

/// Looks at the first bytes of a frame that was over the limit.
pub fn judge_oversize<'a>(head: &'a [u8], answers: &AnswerSettings) -> Refused<'a> {
    Refused::new(msh::scan_head(head), Fault::OverLimit, answers)
}

/// Whether MSH-10 can be repeated in MSA-2.
fn can_echo(control_id: &[u8]) -> bool {
    control_id.len() <= CONTROL_ID_ECHO_BYTES_MAX && is_frameable(control_id)
}

/// Whether a field can stand in a reply: it holds neither framing bytes nor a segment end.
fn is_frameable(field: &[u8]) -> bool {
    !field.iter().any(|b| matches!(*b, START | END | b'\r'))
}

impl Accepted<'_> {
    /// The sender's identity of the message, as slices of its frame. Several in one frame go by the identity of the batch, or of the first.
    pub fn identity(&self) -> Option<MessageIdentity> {
        let field = |n| self.frame.slice_ref(self.header.field(n));
        let control_id = field(10);
        (!control_id.is_empty()).then(|| MessageIdentity { application: field(3), facility: field(4), control_id })
    }

    /// The positive reply, to be stored with the record; empty where the sender wants none. Not yet a [`Reply`].
    pub fn positive(&self, stamp: &Stamp) -> Payload {
        if self.several.is_some() {
            return Payload::new(several::reply(self.frame, &self.header, None, self.answers, stamp));
        }
        let mut frames = Frames::each();
        let mut due = 0;
        for code in self.manner.codes_for_success() {
            // the second one, where the feed sends two, is left out if both do not fit
            let envelope = Envelope { header: Some(&self.header), code, fault: None, time: &stamp.time, id: &stamp.id(due) };
            let fits = frames.push(&envelope);
            assert!(fits || due > 0, "one acknowledgement always fits: every field is bounded by limits.rs");
            due += 1;
        }
        Payload::new(if due == 0 { Bytes::new() } else { frames.finish(due, None) })
    }

    /// The reply after the store failed, for a feed that says so to its senders (`on_store_failure = "nak"`).
    pub fn store_failed(&self, stamp: &Stamp) -> Option<Reply> {
        self.negative(Fault::StoreFailed, stamp)
    }

    /// The reply to a message that the store does not take at its size.
    pub fn too_large(&self, stamp: &Stamp) -> Option<Reply> {
        self.negative(Fault::OverLimit, stamp)
    }

    /// MSH-15 or MSH-16 held something that table 0155 does not have and was read as empty.
    pub fn has_unknown_manner(&self) -> bool {
        self.several.map_or(self.manner.unknown, |found| found.unknown_manner)
    }

    /// Several messages in one frame, stored as one record.
    pub fn is_several(&self) -> bool {
        self.several.is_some()
    }

    /// The counts of a batch do not add up, or its end is missing.
    pub fn mismatch(&self) -> Option<Mismatch> {
        self.several.and_then(|found| found.mismatch)
    }

    /// MSH-11 of the message, or of one of several, says that it is not for production.
    pub fn is_test(&self) -> bool {
        self.several.map_or_else(|| self.header.is_test(), |found| found.test)
    }

    /// Of several messages some are for production and some are not.
    pub fn mixes_tests(&self) -> bool {
        self.several.is_some_and(|found| found.mixed)
    }

    /// MSH-18 names a character set that is not known, or that cannot have come through a frame.
    pub fn has_unknown_charset(&self) -> bool {
        let repetition = self.header.delimiters.repetition.unwrap_or_default();
        matches!(Declared::read(self.header.field(18), repetition), Declared::Unknown | Declared::NotTransportable)
    }

    fn negative(&self, fault: Fault, stamp: &Stamp) -> Option<Reply> {
        if self.several.is_some() {
            return some(several::reply(self.frame, &self.header, Some(fault), self.answers, stamp));
        }
        let code = self.manner.code_for(fault)?;
        let envelope = Envelope { header: Some(&self.header), code, fault: Some(fault), time: &stamp.time, id: &stamp.control_id };
        some(reply::build(&envelope))
    }
}

impl<'a> Refused<'a> {
    fn new(header: Option<Header<'a>>, fault: Fault, answers: &AnswerSettings) -> Self {
        let manner = header.as_ref().map_or(Manner::ORIGINAL, |header| Manner::of(header, answers.app_ack));
        Self { header, manner, fault, several: None }
    }

    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// The negative reply, where the sender wants one.
    pub fn reply(&self, stamp: &Stamp) -> Option<Reply> {
        if let (Some((frame, answers)), Some(header)) = (self.several, &self.header) {
            return some(several::reply(frame, header, Some(self.fault), answers, stamp));
        }
        let code = self.manner.code_for(self.fault)?;
        let envelope = Envelope { header: self.header.as_ref(), code, fault: Some(self.fault), time: &stamp.time, id: &stamp.control_id };
        some(reply::build(&envelope))
    }
}

fn some(bytes: Bytes) -> Option<Reply> {
    (!bytes.is_empty()).then(|| Reply(Payload::new(bytes)))
}

/// A time as HL7 writes it, in UTC with its offset; one out of range is shown as 1970.
pub fn dtm_utc(unix_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y%m%d%H%M%S+0000").to_string()
}
