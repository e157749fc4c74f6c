//! What an arriving publish is: new, a duplicate, a conflict, corrupt or malformed; and the line that says so.
//!
//! The verdict on a record is exact for any age: its identity and chain are looked up in the index. A duplicate is counted in the account all
//! the same (that changes nothing, unless the account had to forget it), but not written. A conflict (same identity, other chain) is written
//! with everything it carries; nothing is ever replaced. A publish that is not of the contract is reported and answered like any other, so
//! that one poisoned message cannot stop the rest.

use super::account::{Head, Report};
use super::desk::{Arrival, Desk, DeskError, Written, apply, count, followed};
use super::index::{Held, Known};
use super::ledger::AccountKey;
use super::line::{Content, Line, LineKind, write_content, write_data, write_line};
use crate::contract::event::EventHead;
use crate::contract::topic::{self, Kind, Parsed};
use crate::contract::{Checkpoint, Mark, Outcome};
use crate::limits::{HUB_ITEMS_MAX, HUB_SEQ_MAX, LETTER_BYTES_MAX};
use crate::record::{Digest, FeedId, Incarnation, Name, record_id};

/// Why a publish is malformed.
type Malformed = String;

fn check_seq(what: &str, seq: u64, least: u64) -> Result<(), Malformed> {
    if (least..=HUB_SEQ_MAX).contains(&seq) { Ok(()) } else { Err(format!("{what} {seq} is not from {least} to {HUB_SEQ_MAX}")) }
}

/// Text of somebody else's, for a log line or a reason: short, no control characters.
pub(super) fn foreign(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Parses a payload; the error says where, never what.
fn parse<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(payload)
        .map_err(|e| format!("the payload is not as the contract says (line {}, column {})", e.line(), e.column()))
}

impl Desk {
    /// Decides about one arrival. An error means that the index cannot be read; nothing more can be taken then.
    pub fn take(&mut self, arrival: &Arrival) -> Result<(), DeskError> {
        let Some(parsed) = topic::parse(&arrival.topic) else {
            self.malformed(None, "the topic is not of the contract".into());
            return Ok(());
        };
        let Parsed { site, gateway, kind } = parsed;
        let key = |feed: &FeedId| AccountKey { site: site.clone(), gateway: gateway.clone(), feed: feed.clone() };
        let payload = arrival.payload.expose();
        let (key, taken) = match kind {
            Kind::Event(feed) => (Some(key(&feed)), self.event(&key(&feed), arrival)?),
            Kind::Outcome(feed) => (Some(key(&feed)), parse(payload).map_or_else(|e| Ok(Err(e)), |o| self.outcome(&key(&feed), o))?),
            Kind::Checkpoint => match parse::<Checkpoint>(payload) {
                Ok(checkpoint) => (Some(key(checkpoint.feed())), self.checkpoint(&key(checkpoint.feed()), &checkpoint)?),
                Err(malformed) => (None, Err(malformed)),
            },
            Kind::Status => (None, parse(payload).map(|state| self.gateways.heard(&site, &gateway, state))),
            Kind::Reported => (None, self.news(LineKind::Reported, &site, &gateway, payload)),
            Kind::CertificateRequest => (None, self.news(LineKind::CertificateRequest, &site, &gateway, payload)),
            Kind::CommandResult => (None, self.news(LineKind::CommandResult, &site, &gateway, payload)),
            Kind::Audit => (None, self.news(LineKind::Audit, &site, &gateway, payload)),
            Kind::Receipt | Kind::Desired | Kind::Command | Kind::CertificateIssued => {
                (None, Err("receipts, documents, commands and certificates are ours to send".into()))
            }
        };
        if let Err(reason) = taken {
            self.malformed(key.as_ref(), reason);
        }
        Ok(())
    }

    /// What a gateway says of itself: written as it is, counted nowhere.
    fn news(&mut self, kind: LineKind, site: &Name, gateway: &Name, payload: &[u8]) -> Result<(), Malformed> {
        if payload.len() > LETTER_BYTES_MAX {
            return Err(format!("the payload has more than {LETTER_BYTES_MAX} bytes"));
        }
        let data: serde_json::Value = parse(payload)?;
        let mut line = Line::new(kind, None);
        (line.site, line.gateway) = (Some(site.clone()), Some(gateway.clone()));
        if kind == LineKind::Audit
            && let Some(why) = self.trail.follow(site, gateway, &data)
        {
            tracing::error!(%site, %gateway, "an audit record does not fit: {why}; see `siteward-hub audit verify`");
            line.reason = Some(why);
        }
        write_data(&line, &data, &mut self.staged);
        self.written.push(Written { kind, key: None, id: None, seq: None, control_id: None });
        Ok(())
    }

    fn event(&mut self, key: &AccountKey, arrival: &Arrival) -> Result<Result<(), Malformed>, DeskError> {
        let head = match read_head(key, arrival) {
            Ok(head) => head,
            Err(malformed) => return Ok(Err(malformed)),
        };
        let mut line = Line::new(LineKind::Event, Some(key));
        line.incarnation = Some(head.incarnation);
        (line.seq, line.chain, line.digest) = (Some(head.seq), Some(head.chain), Some(head.digest));
        line.id = Some(head.id.clone());
        if head.item_count > 1 {
            (line.item_index, line.item_count) = (Some(head.item_index), Some(head.item_count));
        }
        // What was made of the bytes cannot be checked against their digest; the bytes themselves can.
        if head.id.ends_with("/raw") && Digest::of(&head.nonce, arrival.payload.expose()) != head.digest {
            line.kind = LineKind::Corrupt;
            line.reason = Some("the payload does not have the digest it claims".into());
            tracing::error!(feed = %key, id = %head.id, "an event's payload does not have the digest it claims; it is kept apart and not confirmed");
            return self.stage(&line, Some(arrival)).map(Ok);
        }
        match self.index.find(key, head.incarnation, head.seq, head.chain).map_err(|e| self.index_failed(e))?.known {
            Known::Same(Held::Record) => {
                let reports = self.duplicate(key, &head);
                return self.report(key, reports).map(Ok);
            }
            Known::Same(Held::Exception | Held::Gap) | Known::Nothing => {}
            Known::OtherChain => {
                line.kind = LineKind::Conflict;
                line.reason = Some("the same identity is here with another chain value; both are kept".into());
                tracing::error!(feed = %key, id = %head.id, "two different records claim the same identity; both are kept");
            }
        }
        self.stage(&line, Some(arrival)).map(Ok)
    }

    fn duplicate(&mut self, key: &AccountKey, head: &EventHead) -> Vec<Report> {
        let entry = self.ledger.entry(key);
        entry.tally.duplicates += 1;
        entry.account.record(head.incarnation, head.seq, &head.digest, head.chain)
    }

    fn outcome(&mut self, key: &AccountKey, outcome: Outcome) -> Result<Result<(), Malformed>, DeskError> {
        let (incarnation, first, last, chain) = match &outcome {
            Outcome::Exception { incarnation, seq, chain, .. } => (*incarnation, *seq, *seq, *chain),
            Outcome::Gap { incarnation, first, last, chain, .. } => (*incarnation, *first, *last, *chain),
        };
        if let Err(malformed) = check_seq("seq", first, 1).and_then(|()| check_seq("last seq", last, first)) {
            return Ok(Err(malformed));
        }
        let known = self.index.find(key, incarnation, last, chain).map_err(|e| self.index_failed(e))?.known;
        let mut line = Line::new(LineKind::Exception, Some(key));
        (line.incarnation, line.seq, line.chain) = (Some(incarnation), Some(last), Some(chain));
        let again = match outcome {
            Outcome::Exception { digest, reason, .. } => {
                (line.digest, line.reason) = (Some(digest), Some(foreign(&reason)));
                matches!(known, Known::Same(Held::Record | Held::Exception))
            }
            Outcome::Gap { reason, .. } => {
                line.kind = LineKind::Gap;
                (line.first, line.reason) = (Some(first), Some(foreign(&reason)));
                let through = self.ledger.entry(key).account.is_through(incarnation, last);
                matches!(known, Known::Same(Held::Gap)) || (through && matches!(known, Known::Same(_)))
            }
        };
        if again {
            let entry = self.ledger.entry(key);
            entry.tally.duplicates += 1;
            let reports = match line.digest {
                Some(digest) => entry.account.record(incarnation, last, &digest, chain),
                None => entry.account.gap(incarnation, first, last, chain),
            };
            return self.report(key, reports).map(Ok);
        }
        if known == Known::OtherChain {
            tracing::error!(feed = %key, %incarnation, first, last, "an outcome claims another chain value than what is here; both are kept");
            let mut conflict = Line::new(LineKind::Conflict, Some(key));
            (conflict.incarnation, conflict.first, conflict.seq, conflict.chain) =
                (Some(incarnation), Some(first), Some(last), Some(chain));
            conflict.reason = Some("an outcome claims another chain value than what is here; both are kept".into());
            self.stage(&conflict, None)?;
        } else if line.kind == LineKind::Gap {
            tracing::warn!(feed = %key, %incarnation, first, last, "the gateway reports a gap: these will never come");
        }
        self.stage(&line, None).map(Ok)
    }

    fn checkpoint(&mut self, key: &AccountKey, checkpoint: &Checkpoint) -> Result<Result<(), Malformed>, DeskError> {
        let (incarnation, settled) = match checkpoint {
            Checkpoint::Open { incarnation, settled, .. } | Checkpoint::Head { incarnation, settled, .. } => (*incarnation, *settled),
        };
        let checked = check_seq("settled seq", settled.seq, 0).and_then(|()| match checkpoint {
            Checkpoint::Open { follows, .. } => check_seq("followed seq", follows.map_or(0, |p| p.seq), 0),
            Checkpoint::Head { seq, .. } => check_seq("seq", *seq, settled.seq),
        });
        if let Err(malformed) = checked {
            return Ok(Err(malformed));
        }
        if !self.ledger.entry(key).account.has_begun() {
            // Whose seq the settled mark is: the predecessor's, where the incarnation begins at or above it.
            let mut line = Line::new(LineKind::Start, Some(key));
            let owner = match checkpoint {
                Checkpoint::Open { follows: Some(p), .. } if p.seq >= settled.seq => p.incarnation,
                _ => incarnation,
            };
            (line.incarnation, line.seq, line.chain) = (Some(owner), Some(settled.seq), Some(settled.chain));
            self.stage(&line, None)?;
        }
        let reports = match *checkpoint {
            Checkpoint::Open { follows, .. } => {
                let mut line = Line::new(LineKind::Open, Some(key));
                (line.incarnation, line.follows, line.settled) = (Some(incarnation), follows, Some(settled));
                if let Some(follows) = follows {
                    line.followed = Some(followed(&mut self.index, key, follows).map_err(|e| self.index_failed(e))?);
                }
                if self.ledger.entry(key).account.is_told(incarnation) {
                    apply(&mut self.ledger, &mut self.index, &line).map_err(|e| self.index_failed(e))?.reports
                } else {
                    self.stage(&line, None)?;
                    Vec::new()
                }
            }
            Checkpoint::Head { seq, chain, .. } => {
                self.ledger.entry(key).account.head(Head { incarnation, mark: Mark { seq, chain }, settled })
            }
        };
        self.report(key, reports)?;
        self.due.insert(key.clone(), incarnation);
        Ok(Ok(()))
    }

    fn malformed(&mut self, key: Option<&AccountKey>, reason: String) {
        let feed = key.map(ToString::to_string).unwrap_or_default();
        tracing::warn!(feed, "a publish is not of the contract: {reason}");
        let mut line = Line::new(LineKind::Malformed, key);
        line.reason = Some(reason);
        self.write(&line, None);
    }

    /// Applies a line, writes it, and reports what came of it.
    fn stage(&mut self, line: &Line, arrival: Option<&Arrival>) -> Result<(), DeskError> {
        let applied = apply(&mut self.ledger, &mut self.index, line).map_err(|e| self.index_failed(e))?;
        let Some(key) = line.key() else { return Ok(()) };
        if applied.again {
            self.ledger.entry(&key).tally.duplicates += 1;
            return Ok(());
        }
        self.write(line, arrival);
        self.report(&key, applied.reports)
    }

    fn write(&mut self, line: &Line, arrival: Option<&Arrival>) {
        let mut control_id = None;
        if let Some(arrival) = arrival {
            let Arrival { content_type, attributes, payload, .. } = arrival;
            let content = Content { content_type: content_type.as_deref(), attributes, data: payload.expose() };
            write_content(line, &content, &mut self.staged);
            control_id = attributes.iter().find(|(name, _)| name == "controlid").map(|(_, value)| value.clone());
        } else {
            write_line(line, &mut self.staged);
        }
        self.written.push(Written { kind: line.kind, key: line.key(), id: line.id.clone(), seq: line.seq, control_id });
    }

    /// One line in the log, and one in the output where it belongs there, for each report. What a report did to the account is done already.
    fn report(&mut self, key: &AccountKey, reports: Vec<Report>) -> Result<(), DeskError> {
        for report in reports {
            let Some(line) = report_line(key, report) else { continue };
            match line.kind {
                LineKind::Lost => self.ledger.entry(key).tally.lost += count(&line.ranges),
                LineKind::Open => {}
                _ => drop(apply(&mut self.ledger, &mut self.index, &line).map_err(|e| self.index_failed(e))?),
            }
            self.write(&line, None);
        }
        Ok(())
    }
}

/// Logs a report; its line for the output.
fn report_line(key: &AccountKey, report: Report) -> Option<Line> {
    let mut line = Line::new(LineKind::Conflict, Some(key));
    let mut conflict = |incarnation: Incarnation, seq, reason: &str| {
        tracing::error!(feed = %key, %incarnation, seq, "chain conflict: {reason}");
        (line.incarnation, line.seq, line.reason) = (Some(incarnation), Some(seq), Some(reason.to_owned()));
    };
    match report {
        Report::ChainBroken { incarnation, seq } => {
            conflict(
                incarnation,
                seq,
                "the record does not follow from the one before it; nothing after it is confirmed until the true one comes",
            );
        }
        Report::HeadConflict { incarnation, seq } => {
            conflict(incarnation, seq, "the gateway's durable head has another chain value than the records here");
        }
        Report::LinkConflict { incarnation, seq } => {
            conflict(incarnation, seq, "the incarnation follows a record that is here with another chain value");
        }
        Report::Fork { incarnation, other, first, last } => {
            let cause = "restored, cloned, or its disk lost its end";
            tracing::error!(feed = %key, %incarnation, %other, first, last, "fork ({cause}): the gateway goes on from before what {other} had sent; all is kept");
            line.kind = LineKind::Fork;
            (line.incarnation, line.other, line.ranges) = (Some(incarnation), Some(other), vec![(first, last)]);
        }
        Report::Lost { incarnation, mark, ranges } => {
            let advice = "look for them in an older copy of the output";
            tracing::error!(feed = %key, %incarnation, ?ranges, "lost: the gateway has released these as confirmed, but they are not here; {advice}");
            line.kind = LineKind::Lost;
            (line.incarnation, line.seq, line.chain, line.ranges) = (Some(incarnation), Some(mark.seq), Some(mark.chain), ranges);
        }
        Report::Inferred { link } => {
            let reason = "its open checkpoint did not come; the chain says what it follows";
            tracing::info!(feed = %key, incarnation = %link.incarnation, follows = link.base_seq(), "incarnation: {reason}");
            line.kind = LineKind::Open;
            (line.incarnation, line.follows, line.reason) = (Some(link.incarnation), link.follows, Some(reason.to_owned()));
            line.settled = Some(Mark { seq: link.base_seq(), chain: link.base_chain() });
        }
        Report::Missing { incarnation, ranges } => {
            tracing::warn!(feed = %key, %incarnation, ?ranges, "still missing; the gateway is asked for them");
            return None;
        }
    }
    Some(line)
}

/// The attributes of an event, checked against its topic and the bounds.
fn read_head(key: &AccountKey, arrival: &Arrival) -> Result<EventHead, Malformed> {
    let head = EventHead::read(&key.feed, &arrival.attributes).map_err(|error| error.to_string())?;
    check_seq("seq", head.seq, 1)?;
    if head.item_count == 0 || head.item_count > HUB_ITEMS_MAX || head.item_index >= head.item_count {
        return Err("attributes `itemindex` and `itemcount` do not fit".into());
    }
    let record = record_id(&key.gateway, &key.feed, head.incarnation, head.seq);
    let item = head.id.strip_prefix(&record).and_then(|rest| rest.strip_prefix('/'));
    if item != Some("raw") && item != Some(&head.item_index.to_string()) {
        return Err("attribute `id` does not fit the topic and the other attributes".into());
    }
    Ok(head)
}
