//! What a spool must still know: a tiny model beside it, fed with every answer and every record read, that survives all its crashes.
//!
//! The model never looks at the spool's files. It knows three things: what was answered positively, what the reader ever returned, and how far
//! was settled. From these follow the checks of [`Ledger::verify`], which walks every feed from its settled mark to its head:
//!
//! - every record answered or read before, and not settled, is there under the same identity with the same bytes (I1);
//! - seqs are contiguous, the chain computed here is the one stored, gaps cover only what a test damaged (I3, I9);
//! - no identity ever stands for two records (I8); no record appears that was not sent;
//! - the lineage of incarnations fits the records.

use bytes::Bytes;
use siteward::contract::Mark;
use siteward::record::{Chain, Digest, FeedId, Incarnation, Link, Message, MessageIdentity, Name, Payload, Record};
use siteward::spool::{AppendError, Durable, Item, Parts, Reader};
use std::collections::{BTreeMap, HashMap};

use super::Rng;

/// The bytes of message `id`: its number, then noise that depends on it (repeated in long ones).
pub fn body(id: u64, len: usize) -> Vec<u8> {
    let len = len.max(8);
    let mut bytes = vec![0; len.min(1000)];
    Rng::new(id.wrapping_mul(0x5851_F42D_4C95_7F2D)).fill(&mut bytes);
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    while bytes.len() < len {
        bytes.extend_from_within(..bytes.len().min(len - bytes.len()));
    }
    bytes
}

/// A message that was given to the spool at least once.
#[derive(Clone, Debug)]
pub struct Sent {
    pub feed: FeedId,
    pub len: usize,
    pub identity: Option<MessageIdentity>,
    /// How often it was sent; each time with a reply of its own.
    pub times: u64,
    /// How often it got no positive answer: each may still be found in the journal after a crash.
    pub unanswered: u64,
    pub answered: bool,
}

/// A record the spool has shown or answered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub incarnation: Incarnation,
    pub message: u64,
    /// Which of the message's replies was stored with it; `None` where that is not known.
    pub time: Option<u64>,
    pub chain: Option<Chain>,
}

#[derive(Clone, Debug, Default)]
pub struct FeedModel {
    pub records: BTreeMap<u64, Known>,
    /// Seqs that were reported as gaps, by incarnation: nothing may ever be shown for them.
    pub gaps: BTreeMap<u64, Incarnation>,
    /// The highest mark ever handed to `settle`.
    pub settled_max: u64,
}

impl FeedModel {
    /// Without damage a gap may only stand for what was never answered nor shown: the torn middle of a batch whose end reached the disk first.
    /// (Whether it had been answered cannot be known on disk, and the whole records behind it are kept.)
    pub fn may_miss(&self, first: u64, last: u64, losses: Losses) -> Result<(), String> {
        let known = self.records.range(first..=last).map(|(seq, _)| *seq).rfind(|seq| losses == Losses::None || *seq > self.settled_max);
        match known {
            Some(seq) => Err(format!("I1: gap {first}..={last} covers {seq}, which was answered or shown and is not settled")),
            None => Ok(()),
        }
    }
}

/// What may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Losses {
    None,
    /// The heads were lost with everything only they knew: marks may be forgotten, gaps may cover what is settled.
    Heads,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub sent: BTreeMap<u64, Sent>,
    pub feeds: BTreeMap<FeedId, FeedModel>,
    /// Every identity that was ever answered or read, over all images and clones.
    pub identities: HashMap<(FeedId, Incarnation, u64), u64>,
    /// How often a read that failed is tried again before the walk gives up.
    pub patience: u32,
    next_id: u64,
}

/// One item as the walk saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Record { seq: u64, message: u64, incarnation: Incarnation },
    Gap { first: u64, last: u64 },
}

fn reply(id: u64, time: u64) -> Payload {
    Payload::new(Bytes::from(format!("ACK {id} {time}")))
}

pub fn feed_id(name: &str) -> FeedId {
    Name::new(name).expect("a name of the test")
}

impl Ledger {
    /// A new message of `len` bytes for a feed; `named` ones have a sender identity of their own.
    pub fn compose(&mut self, feed: &FeedId, len: usize, named: bool) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let identity = named.then(|| MessageIdentity {
            application: Bytes::from_static(b"LAB"),
            facility: Bytes::from_static(b"NORTH"),
            control_id: Bytes::from(format!("C{id}")),
        });
        self.sent.insert(id, Sent { feed: feed.clone(), len: len.max(8), identity, times: 0, unanswered: 0, answered: false });
        id
    }

    /// The message as a source would append it (again).
    pub fn send(&mut self, id: u64) -> Message {
        let sent = self.sent.get_mut(&id).expect("composed before");
        sent.times += 1;
        Message {
            feed: sent.feed.clone(),
            identity: sent.identity.clone(),
            body: Payload::new(Bytes::from(body(id, sent.len))),
            reply: reply(id, sent.times),
            peer: "192.0.2.1:4000".to_owned(),
            received_at_ms: 1_800_000_000_000,
            clock_suspect: false,
            stage: siteward::record::Stage::Live,
            batch_mismatch: false,
        }
    }

    /// The same world after this spool was put back to an older image: what happened since is not in the journal, but it did happen.
    #[must_use]
    pub fn restored(&self, image: &Self) -> Self {
        Self { feeds: image.feeds.clone(), ..self.clone() }
    }

    /// Gives what everybody must know (identities, messages) to the model of another copy of this spool.
    pub fn hand_over(&mut self, other: &mut Self) {
        other.identities = std::mem::take(&mut self.identities);
        other.next_id = self.next_id;
        for (id, sent) in &self.sent {
            other.sent.entry(*id).or_insert_with(|| sent.clone());
        }
    }

    fn feed(&mut self, feed: &FeedId) -> &mut FeedModel {
        self.feeds.entry(feed.clone()).or_default()
    }

    /// I8: whoever is given an identity keeps it alone.
    fn identify(&mut self, feed: &FeedId, incarnation: Incarnation, seq: u64, message: u64) -> Result<(), String> {
        let known = *self.identities.entry((feed.clone(), incarnation, seq)).or_insert(message);
        if known == message { Ok(()) } else { Err(format!("I8: {feed}/{incarnation}/{seq} is message {known} and message {message}")) }
    }

    /// Takes the answer to one message of a batch; `time` is which sending it was.
    pub fn answered(&mut self, id: u64, time: u64, incarnation: Incarnation, answer: &Result<Durable, AppendError>) -> Result<(), String> {
        let sent = self.sent.get_mut(&id).expect("composed before");
        let feed = sent.feed.clone();
        let Ok(durable) = answer else {
            sent.unanswered += 1;
            return Ok(());
        };
        sent.answered = true;
        let seq = durable.seq();
        if durable.is_duplicate() {
            return self.check_duplicate(id, seq, durable.reply());
        }
        if *durable.reply() != reply(id, time) {
            return Err(format!("message {id} was answered with another reply than its own"));
        }
        let last = self.feed(&feed).records.last_key_value().map_or(0, |(seq, _)| *seq);
        if seq <= last {
            return Err(format!("I8: {feed} gave seq {seq} to message {id} although {last} was given before"));
        }
        self.identify(&feed, incarnation, seq, id)?;
        self.feed(&feed).records.insert(seq, Known { incarnation, message: id, time: Some(time), chain: None });
        Ok(())
    }

    fn check_duplicate(&mut self, id: u64, seq: u64, got: &Payload) -> Result<(), String> {
        let sent = &self.sent[&id];
        let (feed, times) = (sent.feed.clone(), sent.times);
        if sent.identity.is_none() {
            return Err(format!("message {id} has no identity but was taken for a duplicate"));
        }
        let Some(known) = self.feed(&feed).records.get(&seq) else {
            return Err(format!("I1: message {id} was answered as a duplicate of {feed} {seq}, which was never answered or read"));
        };
        if known.message != id {
            return Err(format!("message {id} was taken for a duplicate of {feed} {seq}, which is message {}", known.message));
        }
        let fits = (1..=times).any(|time| known.time.is_none_or(|t| t == time) && *got == reply(id, time));
        if fits { Ok(()) } else { Err(format!("the duplicate of message {id} was not answered with the stored reply")) }
    }

    /// Takes a record the reader returned.
    pub fn shown(&mut self, record: &Record) -> Result<u64, String> {
        let (feed, seq) = (&record.feed, record.seq);
        let bytes = record.body.expose();
        let id = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)).ok_or("a record too short to be ours")?;
        let Some(sent) = self.sent.get(&id) else { return Err(format!("{feed} {seq} is message {id}, which was never sent")) };
        if sent.feed != *feed || *bytes != body(id, sent.len)[..] {
            return Err(format!("{feed} {seq}: the bytes are not those of message {id} of {}", sent.feed));
        }
        if record.digest != Digest::of(&record.nonce, bytes) {
            return Err(format!("{feed} {seq}: the digest does not fit the bytes"));
        }
        if self.feed(feed).gaps.get(&seq) == Some(&record.incarnation) {
            return Err(format!("I3: {feed} {seq} was reported as a gap and is now a record"));
        }
        self.identify(feed, record.incarnation, seq, id)?;
        let found = Known { incarnation: record.incarnation, message: id, time: None, chain: Some(record.chain) };
        if let Some(known) = self.feed(feed).records.get_mut(&seq) {
            let same = known.incarnation == found.incarnation && known.message == id && known.chain.is_none_or(|c| c == record.chain);
            if !same {
                return Err(format!("I1: {feed} {seq} was {known:?}, now it is {found:?}"));
            }
            known.chain = Some(record.chain);
        } else {
            let sent = self.sent.get_mut(&id).expect("looked up above");
            sent.unanswered = sent.unanswered.checked_sub(1).ok_or(format!("{feed} {seq}: message {id} came up once too often"))?;
            self.feed(feed).records.insert(seq, found);
        }
        Ok(id)
    }

    /// Hands a mark to the reader and remembers how far was allowed.
    pub fn settle(&mut self, reader: &mut Reader, feed: &FeedId, mark: Mark) {
        let head = reader.head(feed).seq;
        let model = self.feed(feed);
        if mark.seq <= head {
            model.settled_max = model.settled_max.max(mark.seq);
        }
        reader.settle(feed, mark);
    }

    // ---- the walk ----

    /// Reads on from `from`, at most `limit` items, checking continuity; returns what was there and the mark reached.
    pub fn walk(&mut self, reader: &mut Reader, feed: &FeedId, from: Mark, limit: usize) -> Result<(Vec<Step>, Mark), String> {
        let (mut steps, mut mark) = (Vec::new(), from);
        while steps.len() < limit {
            let mut read = reader.next(feed, mark.seq);
            for _ in 0..self.patience {
                if read.is_err() {
                    read = reader.next(feed, mark.seq);
                }
            }
            let item = read.map_err(|error| format!("{feed}: reading after {} failed: {error}", mark.seq))?;
            match item {
                None => break,
                Some(Item::Record(record)) => {
                    if record.feed != *feed || record.seq != mark.seq + 1 {
                        return Err(format!("I3: after {feed} {} came {} {}", mark.seq, record.feed, record.seq));
                    }
                    if record.chain != mark.chain.after(record.seq, &record.digest) {
                        return Err(format!("I3: the chain of {feed} breaks at {}", record.seq));
                    }
                    let message = self.shown(&record)?;
                    mark = Mark { seq: record.seq, chain: record.chain };
                    steps.push(Step::Record { seq: record.seq, message, incarnation: record.incarnation });
                }
                Some(Item::Gap { incarnation, first, last, chain, .. }) => {
                    if first != mark.seq + 1 || last < first {
                        return Err(format!("I3: after {feed} {} came a gap {first}..={last}", mark.seq));
                    }
                    self.check_chain(feed, last, &chain)?;
                    let gaps = (first..=last).map(|seq| (seq, incarnation));
                    self.feed(feed).gaps.extend(gaps);
                    mark = Mark { seq: last, chain };
                    steps.push(Step::Gap { first, last });
                }
            }
        }
        Ok((steps, mark))
    }

    fn check_chain(&mut self, feed: &FeedId, seq: u64, chain: &Chain) -> Result<(), String> {
        let known = self.feed(feed).records.get(&seq).and_then(|known| known.chain);
        if known.is_some_and(|known| known != *chain) { Err(format!("I3: {feed} {seq} has another chain than before")) } else { Ok(()) }
    }

    /// Walks one feed from its settled mark to its head.
    pub fn walk_all(&mut self, reader: &mut Reader, feed: &FeedId) -> Result<Vec<Step>, String> {
        let settled = reader.settled(feed);
        let (steps, end) = self.walk(reader, feed, settled, usize::MAX)?;
        let head = reader.head(feed);
        if (end.seq, end.chain) != (head.seq, head.chain) {
            return Err(format!("I3: {feed} ends at {} but its head is {}", end.seq, head.seq));
        }
        Ok(steps)
    }

    /// All checks on all feeds.
    pub fn verify(&mut self, parts: &mut Parts, losses: Losses) -> Result<(), String> {
        let reader = &mut parts.reader;
        let shown: Vec<FeedId> = reader.feeds().into_iter().map(|feed| feed.id).collect();
        for feed in self.feeds.keys().cloned().collect::<Vec<_>>() {
            let model = &self.feeds[&feed];
            if !shown.contains(&feed) {
                if let Some(seq) = model.records.keys().rfind(|seq| **seq > model.settled_max) {
                    return Err(format!("I1: {feed} is not there any more; {seq} was not settled"));
                }
                continue;
            }
            let settled = reader.settled(&feed);
            if settled.seq > model.settled_max {
                return Err(format!("I2: {feed} is settled through {}, but only {} was asked for", settled.seq, model.settled_max));
            }
            if settled.seq > 0 {
                self.check_chain(&feed, settled.seq, &settled.chain)?;
            }
            let expected: Vec<u64> = self.feeds[&feed].records.range(settled.seq + 1..).map(|(seq, _)| *seq).collect();
            let steps = self.walk_all(reader, &feed)?;
            self.check_complete(&feed, &expected, &steps, losses)?;
            self.check_lineage(&feed, &reader.lineage(&feed), parts.monitor.view().incarnation, &steps)?;
        }
        Ok(())
    }

    fn check_complete(&self, feed: &FeedId, expected: &[u64], steps: &[Step], losses: Losses) -> Result<(), String> {
        let model = &self.feeds[feed];
        let mut found = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Record { seq, .. } => {
                    found.insert(*seq);
                }
                Step::Gap { first, last } => model.may_miss(*first, *last, losses).map_err(|error| format!("{feed}: {error}"))?,
            }
        }
        let is_needed = |seq: &u64| losses == Losses::None || *seq > model.settled_max;
        match expected.iter().find(|seq| is_needed(seq) && !found.contains(seq)) {
            Some(seq) => Err(format!("I1: {feed} {seq} is gone: {:?}", model.records[seq])),
            None => Ok(()),
        }
    }

    /// The lineage reaches from the settled mark to the current incarnation, and every record lies within the link that names it.
    pub fn check_lineage(&self, feed: &FeedId, lineage: &[Link], current: Incarnation, steps: &[Step]) -> Result<(), String> {
        let model = &self.feeds[feed];
        let Some(last) = lineage.last() else { return Err(format!("I8: {feed} has no lineage")) };
        if last.incarnation != current {
            return Err(format!("I8: {feed} ends its lineage with {}, the current incarnation is {current}", last.incarnation));
        }
        for step in steps {
            let Step::Record { seq, incarnation, .. } = step else { continue };
            let link = lineage.iter().rev().find(|link| link.base_seq() < *seq);
            if link.is_none_or(|link| link.incarnation != *incarnation) {
                return Err(format!("I8: {feed} {seq} is of {incarnation}, which its lineage does not say: {lineage:?}"));
            }
        }
        for link in lineage {
            let Some(follows) = link.follows else { continue };
            if let Some(known) = model.records.get(&follows.seq)
                && (known.incarnation != follows.incarnation || known.chain.is_some_and(|chain| chain != follows.chain))
            {
                return Err(format!("I8: {feed}: {} follows {follows:?}, but {} is {known:?}", link.incarnation, follows.seq));
            }
        }
        Ok(())
    }
}
