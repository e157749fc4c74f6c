//! A frame with several messages: judged whole, stored whole, answered for each.
//!
//! **Verdict.** The frame is one record, so there is one verdict: it is refused where the `strict` edits do not take one of its messages, or
//! where none of its messages could be answered positively; in all other cases it is stored. A message without a usable MSH-10 among others
//! is told so in its own acknowledgement, though its bytes are stored with the rest. Acknowledgements among the messages are not answered;
//! a frame of nothing else is ignored like a single one.
//!
//! **Answer**, by the feed's `batch_ack`:
//! - `batch`: one frame with BHS (BHS-12 = the sender's FHS-11 or BHS-11, else MSH-10 of the first message), one acknowledgement per message by its own MSH-15/16 (of the two
//!   that `same_channel` sends, the first), and BTS
//!   with their number. A batch without messages gets an empty one.
//! - `each`: one frame per message, all in one write.
//!
//! Where they do not fit below `REPLY_BYTES_MAX` together, one acknowledgement answers for all: MSA-1 is what the first stored message that
//! wants an answer would get, MSA-2 the control id of the batch (FHS-11, BHS-11, else MSH-10 of the first message), and in `batch` mode BTS-2 says how
//! many messages it covers. Where no message wants an answer there is none.
//!
//! When the frame is not stored, the message at fault is told its fault and the others 207: they may be sent again without it.

use bytes::Bytes;

use super::fault::Fault;
use super::manner::Manner;
use super::reply::{self, Envelope, Frames};
use super::{Stamp, can_echo, strict};
use crate::config::settings::{AnswerSettings, BatchAck};
use crate::source::batch::{self, Kind, Mismatch, Tally};
use crate::source::msh::{self, Header};

/// What the messages of a frame come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) verdict: Decision,
    /// One of them is for test only.
    pub(super) test: bool,
    /// One of them is not, though another is.
    pub(super) mixed: bool,
    pub(super) unknown_manner: bool,
    pub(super) mismatch: Option<Mismatch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Store,
    Refuse(Fault),
    Ignore,
}

/// Looks at every message of a frame.
pub(super) fn judge(frame: &[u8], answers: &AnswerSettings) -> Found {
    let mut tally = Tally::default();
    let (mut acknowledgements, mut good, mut tests, mut unknown_manner) = (0u64, 0u64, 0u64, false);
    let (mut first_fault, mut strict_fault) = (None, None);
    for piece in batch::pieces(frame) {
        tally.take(&piece);
        if piece.kind != Kind::Message {
            continue;
        }
        let header = msh::scan(piece.bytes);
        if header.as_ref().is_some_and(Header::is_acknowledgement) {
            acknowledgements += 1;
            continue;
        }
        if let Some(header) = &header {
            tests += u64::from(header.is_test());
            unknown_manner |= Manner::of(header, answers.app_ack).unknown;
        }
        match fault_of(header.as_ref(), answers) {
            None => good += 1,
            Some(fault) if fault.is_strict() => strict_fault = strict_fault.or(Some(fault)),
            Some(fault) => first_fault = first_fault.or(Some(fault)),
        }
    }
    let messages = tally.messages();
    let verdict = match (strict_fault, first_fault) {
        _ if messages > 0 && messages == acknowledgements => Decision::Ignore,
        (Some(fault), _) => Decision::Refuse(fault),
        (None, Some(fault)) if good == 0 => Decision::Refuse(fault),
        _ => Decision::Store,
    };
    let mixed = tests > 0 && tests < messages - acknowledgements;
    Found { verdict, test: tests > 0, mixed, unknown_manner, mismatch: tally.finish() }
}

/// What is wrong with one message, wherever it stands.
pub(super) fn fault_of(header: Option<&Header<'_>>, answers: &AnswerSettings) -> Option<Fault> {
    let Some(header) = header else { return Some(Fault::NoHeader) };
    let control_id = header.field(10);
    if control_id.is_empty() && !answers.allow_missing_control_id {
        return Some(Fault::NoControlId);
    }
    if !can_echo(control_id) {
        return Some(Fault::ControlIdUnusable);
    }
    strict::fault_of(header, &answers.strict)
}

/// The reply to the whole frame; `refused` where it was not stored. Empty where none is due.
pub(super) fn reply(frame: &[u8], header: &Header<'_>, refused: Option<Fault>, answers: &AnswerSettings, stamp: &Stamp) -> Bytes {
    let mut frames = match answers.batch_ack {
        BatchAck::Batch => Frames::batch(header, reference(header), stamp),
        BatchAck::Each => Frames::each(),
    };
    let (mut messages, mut due, mut told) = (0u64, 0u64, None);
    for piece in batch::pieces(frame).filter(|piece| piece.kind == Kind::Message) {
        messages += 1;
        let inner = msh::scan(piece.bytes);
        if inner.as_ref().is_some_and(Header::is_acknowledgement) {
            continue;
        }
        let manner = inner.as_ref().map_or(Manner::ORIGINAL, |inner| Manner::of(inner, answers.app_ack));
        let fault = match (fault_of(inner.as_ref(), answers), refused) {
            (None, Some(Fault::OverLimit)) => refused,
            (None, Some(_)) => Some(Fault::StoreFailed),
            (own, _) => own,
        };
        let code = match fault {
            Some(fault) => manner.code_for(fault),
            None => manner.codes_for_success().next(),
        };
        let Some(code) = code else { continue };
        due += 1;
        if told.is_none() || fault.is_none() {
            told = told.filter(|(_, fault): &(_, Option<Fault>)| fault.is_none()).or(Some((code, fault)));
        }
        if !frames.push(&Envelope { header: inner.as_ref(), code, fault, time: &stamp.time, id: &stamp.id(due) }) {
            let all = batch::pieces(frame).filter(|piece| piece.kind == Kind::Message).count() as u64;
            return for_all(header, told.unwrap_or((code, fault)), all, answers.batch_ack, stamp);
        }
    }
    match (due, answers.batch_ack) {
        (0, _) if messages > 0 => Bytes::new(),
        (0, BatchAck::Each) => {
            let told = refused.map_or(("AA", None), |fault| ("AR", Some(fault)));
            for_all(header, told, 0, BatchAck::Each, stamp)
        }
        _ => frames.finish(due, None),
    }
}

/// One acknowledgement for `messages` of them.
fn for_all(header: &Header<'_>, told: (&str, Option<Fault>), messages: u64, batch_ack: BatchAck, stamp: &Stamp) -> Bytes {
    let envelope = Envelope { header: Some(header), code: told.0, fault: told.1, time: &stamp.time, id: &stamp.id(1) };
    if batch_ack == BatchAck::Batch {
        let mut frames = Frames::batch(header, reference(header), stamp);
        if frames.push(&envelope) {
            return frames.finish(1, Some(messages));
        }
    }
    reply::build(&envelope)
}

/// BHS-12; a frame of bare messages is no batch of the sender and has nothing to refer to.
fn reference<'a>(header: &Header<'a>) -> &'a [u8] {
    if header.kind == msh::Kind::Batch && can_echo(header.field(10)) { header.field(10) } else { &[] }
}
