//! The auditor: reads what the hub wrote and holds it against what the senders were told, from the contract alone.
//!
//! ```text
//! digest_n = SHA-256(nonce16 ‖ body)        chain_n = SHA-256(chain_{n-1} ‖ seq as u64 big-endian ‖ digest_n)        chain_0 = 32 zero bytes
//! ```
//!
//! Control ids are taken from MSH-10 inside the payload, never from what the gateway says about it. The file is read as a stream; kept are some
//! hundred bytes per event.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use base64::Engine;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::message;
use crate::sender::Told;

type Hash = [u8; 32];

/// One event line.
#[derive(Clone, Debug)]
pub struct Row {
    pub seq: u64,
    pub incarnation: String,
    pub connection: usize,
    pub number: u64,
    digest: Hash,
    chain: Hash,
    /// SHA-256 of the body alone.
    sent: Hash,
}

/// A line that is not an event.
#[derive(Clone, Debug)]
pub struct Other {
    pub kind: String,
    pub value: Value,
}

#[derive(Debug, Default)]
pub struct Audit {
    /// By `gateway/feed`, in order of arrival.
    pub feeds: BTreeMap<String, Vec<Row>>,
    pub others: Vec<Other>,
    /// What is wrong with single lines.
    pub bad: Vec<String>,
}

impl Audit {
    pub fn read(path: &Path) -> Self {
        let mut audit = Self::default();
        let file = File::open(path).unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()));
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut line = Vec::new();
        let mut number = 0u64;
        while reader.read_until(b'\n', &mut line).expect("the hub's output can be read") > 0 {
            number += 1;
            if let Err(problem) = audit.line(&line) {
                audit.bad.push(format!("line {number}: {problem}"));
            }
            line.clear();
        }
        audit
    }

    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        if !line.ends_with(b"\n") {
            return Err("is not complete".into());
        }
        let value: Value = serde_json::from_slice(line).map_err(|e| format!("is not JSON: {e}"))?;
        let kind = text(&value, "kind")?.to_owned();
        if kind != "event" {
            self.others.push(Other { kind, value });
            return Ok(());
        }
        let row = read_row(&value)?;
        let key = format!("{}/{}", text(&value, "gateway")?, text(&value, "feed")?);
        self.feeds.entry(key).or_default().push(row);
        Ok(())
    }

    pub fn events(&self) -> u64 {
        self.feeds.values().map(|rows| rows.len() as u64).sum()
    }

    /// Lines of one kind.
    pub fn of_kind(&self, kind: &str) -> Vec<&Other> {
        self.others.iter().filter(|o| o.kind == kind).collect()
    }

    /// Kinds that must not come up in an undamaged history.
    pub fn complaints(&self) -> Vec<String> {
        let harmless = ["start", "open", "reported", "certificate_request", "command_result", "audit"];
        let complaints = self.others.iter().filter(|o| !harmless.contains(&o.kind.as_str()));
        let mut complaints: Vec<String> = complaints.map(|o| format!("{}: {}", o.kind, shortened(&o.value))).collect();
        let late = self.others.iter().filter(|o| o.kind == "start" && o.value["seq"].as_u64().is_some_and(|seq| seq > 0));
        complaints.extend(late.map(|o| format!("the account does not begin at its beginning: {}", shortened(&o.value))));
        complaints
    }

    /// Everything that breaks the promise made to these senders; empty when it was kept. `size` is what their messages were made with.
    pub fn broken_promises(&self, told: &[Told], size: fn(usize, u64) -> usize) -> Vec<String> {
        let mut broken: Vec<String> = self.bad.clone();
        broken.extend(self.complaints());
        broken.extend(told.iter().flat_map(|t| t.faults.iter().cloned()));
        let copies = self.copies();
        for t in told {
            for &number in &t.acknowledged {
                if !copies.contains_key(&(t.connection, number)) {
                    broken.push(format!("{} was acknowledged and is missing", message::control_id(t.connection, number)));
                }
            }
        }
        for (&(connection, number), &n) in copies.iter().filter(|&(_, &n)| n > 1) {
            broken.push(format!("{} came {n} times", message::control_id(connection, number)));
        }
        for (feed, rows) in &self.feeds {
            broken.extend(order_of_connections(rows).into_iter().map(|b| format!("{feed}: {b}")));
            broken.extend(self.chain_breaks(feed, rows).into_iter().map(|b| format!("{feed}: {b}")));
            broken.extend(rows.iter().filter_map(|r| wrong_body(r, size)));
        }
        broken
    }

    fn copies(&self) -> BTreeMap<(usize, u64), u32> {
        let mut copies = BTreeMap::new();
        for row in self.feeds.values().flatten() {
            *copies.entry((row.connection, row.number)).or_insert(0) += 1;
        }
        copies
    }

    /// I3: every seq from 1 to the last has one outcome, and the chain computed from the bodies is the one that was sent.
    fn chain_breaks(&self, feed: &str, rows: &[Row]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut sorted: Vec<&Row> = rows.iter().collect();
        sorted.sort_by_key(|r| r.seq);
        let mut gaps = self.gaps(feed);
        let (mut seq, mut chain) = (0u64, [0u8; 32]);
        for row in sorted {
            while row.seq > seq + 1 {
                let Some((last, after)) = gaps.remove(&(seq + 1)) else { break };
                (seq, chain) = (last, after);
            }
            if row.seq != seq + 1 {
                broken.push(format!("seq {} follows seq {seq}", row.seq));
            } else if after(&chain, row.seq, &row.digest) != row.chain {
                broken.push(format!("the chain at seq {} is not the one its bodies give", row.seq));
            }
            (seq, chain) = (row.seq, row.chain);
        }
        broken
    }

    /// Reported gaps of a feed: first → (last, chain at last).
    fn gaps(&self, feed: &str) -> BTreeMap<u64, (u64, Hash)> {
        let of_feed = |o: &&Other| {
            let key = format!("{}/{}", o.value["gateway"].as_str().unwrap_or_default(), o.value["feed"].as_str().unwrap_or_default());
            o.kind == "gap" && key == feed
        };
        let read = |o: &Other| Some((o.value["first"].as_u64()?, (o.value["seq"].as_u64()?, hash(&o.value, "chain").ok()?)));
        self.others.iter().filter(of_feed).filter_map(read).collect()
    }

    /// Incarnations in which events came.
    pub fn incarnations(&self) -> BTreeSet<&str> {
        self.feeds.values().flatten().map(|r| r.incarnation.as_str()).collect()
    }
}

/// A field at the top of the line, or among the event's attributes.
fn find<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let attributes = &value["attributes"];
    let in_pairs = || attributes.as_array()?.iter().find(|p| p[0] == name).map(|p| &p[1]);
    value.get(name).or_else(|| attributes.get(name)).or_else(in_pairs)
}

fn text<'v>(value: &'v Value, name: &str) -> Result<&'v str, String> {
    find(value, name).and_then(Value::as_str).ok_or_else(|| format!("has no `{name}`"))
}

fn number(value: &Value, name: &str) -> Result<u64, String> {
    let field = find(value, name).ok_or_else(|| format!("has no `{name}`"))?;
    field.as_u64().or_else(|| field.as_str()?.parse().ok()).ok_or_else(|| format!("`{name}` is not a number"))
}

fn hash(value: &Value, name: &str) -> Result<Hash, String> {
    unhex(text(value, name)?).and_then(|b| b.try_into().ok()).ok_or_else(|| format!("`{name}` is not 64 hexadecimal digits"))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|d| d.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect())
}

fn read_row(value: &Value) -> Result<Row, String> {
    let data = value["data_base64"].as_str().ok_or("has no `data_base64`")?;
    let body = base64::engine::general_purpose::STANDARD.decode(data).map_err(|e| format!("`data_base64`: {e}"))?;
    let nonce = unhex(text(value, "nonce")?).filter(|n| n.len() == 16).ok_or("`nonce` is not 32 hexadecimal digits")?;
    let digest: Hash = Sha256::new().chain_update(&nonce).chain_update(&body).finalize().into();
    let seq = number(value, "seq").or_else(|_| number(value, "sequence"))?;
    if find(value, "recorddigest").is_some() && hash(value, "recorddigest")? != digest {
        return Err(format!("seq {seq}: the body is not the one its digest names"));
    }
    let id = message::msh10(&body).ok_or_else(|| format!("seq {seq}: the payload has no MSH-10"))?;
    let (connection, number) = message::parse_control_id(id).ok_or_else(|| format!("seq {seq}: the control id is not one of ours"))?;
    let incarnation = text(value, "incarnation")?.to_owned();
    let sent = Sha256::digest(&body).into();
    Ok(Row { seq, incarnation, connection, number, digest, chain: hash(value, "chain")?, sent })
}

/// I9: held to every byte, because a message follows from its numbers and its size.
fn wrong_body(row: &Row, size: fn(usize, u64) -> usize) -> Option<String> {
    let expected: Hash = Sha256::digest(message::build(row.connection, row.number, size(row.connection, row.number))).into();
    let id = message::control_id(row.connection, row.number);
    (expected != row.sent).then(|| format!("{id} is not the message that was sent"))
}

fn after(chain: &Hash, seq: u64, digest: &Hash) -> Hash {
    Sha256::new().chain_update(chain).chain_update(seq.to_be_bytes()).chain_update(digest).finalize().into()
}

/// I3: in order of `sequence`, the numbers of each connection grow.
fn order_of_connections(rows: &[Row]) -> Vec<String> {
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by_key(|r| r.seq);
    let mut last: BTreeMap<usize, u64> = BTreeMap::new();
    let mut broken = Vec::new();
    for row in sorted {
        let before = last.insert(row.connection, row.number).unwrap_or(0);
        if row.number <= before {
            broken.push(format!("seq {}: {} after number {before}", row.seq, message::control_id(row.connection, row.number)));
        }
    }
    broken
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(numbers: &[(u64, u64)], spoil: impl Fn(u64, &mut Value)) -> tempfile::NamedTempFile {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{}", json!({"kind": "start", "seq": 0, "gateway": "g", "feed": "f"})).unwrap();
        let mut chain = [0u8; 32];
        for &(seq, number) in numbers {
            let body = message::build(1, number, 600);
            let digest: Hash = Sha256::new().chain_update([7; 16]).chain_update(&body).finalize().into();
            chain = after(&chain, seq, &digest);
            let hex = |bytes: &[u8]| {
                bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from(b"0123456789abcdef"[d as usize])).collect::<String>()
            };
            let mut line = json!({
                "kind": "event", "gateway": "g", "feed": "f", "incarnation": "i", "seq": seq, "chain": hex(&chain),
                "data_base64": base64::engine::general_purpose::STANDARD.encode(&body),
                "attributes": {"nonce": hex(&[7; 16]), "recorddigest": hex(&digest)},
            });
            spoil(seq, &mut line);
            writeln!(file, "{line}").unwrap();
        }
        file
    }

    fn told(through: u64) -> Vec<Told> {
        vec![Told { connection: 1, acknowledged: (1..=through).collect(), ..Told::default() }]
    }

    fn judge(file: &tempfile::NamedTempFile, through: u64) -> String {
        Audit::read(file.path()).broken_promises(&told(through), |_, _| 600).join("; ")
    }

    #[test]
    fn a_kept_promise_has_no_complaints() {
        assert_eq!(judge(&lines(&[(1, 1), (2, 2), (3, 3)], |_, _| {}), 3), "");
    }

    #[test]
    fn every_way_to_break_the_promise_is_named() {
        assert_eq!(judge(&lines(&[(1, 1)], |_, _| {}), 2), "C01S000002 was acknowledged and is missing");
        assert!(judge(&lines(&[(1, 1), (2, 1)], |_, _| {}), 1).contains("came 2 times"));
        assert!(judge(&lines(&[(1, 2), (2, 1)], |_, _| {}), 2).contains("C01S000001 after number 2"));
        assert!(judge(&lines(&[(1, 1), (3, 2)], |_, _| {}), 2).contains("seq 3 follows seq 1"));
        let other_chain = lines(&[(1, 1)], |_, line| line["chain"] = json!("00".repeat(32)));
        assert!(judge(&other_chain, 1).contains("the chain at seq 1"));
        let other_size = lines(&[(1, 1)], |_, _| {});
        assert!(Audit::read(other_size.path()).broken_promises(&told(1), |_, _| 900)[0].contains("not the message"));
        let conflict = lines(&[(1, 1)], |_, line| line["kind"] = json!("conflict"));
        assert!(judge(&conflict, 0).contains("conflict"));
    }
}
