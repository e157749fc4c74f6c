//! Conformance against a folder of independent messages, named by `SITEWARD_CORPUS` (with `index.tsv` and `oracle.tsv`); without it the
//! test says so and passes. Contents of the files never appear in its output.

use super::*;
use crate::source::frame::{Event, FrameLimits, Framer};
use std::collections::HashMap;
use std::path::Path;

/// A table of text with a heading: one map a row.
fn table(path: &Path) -> Vec<HashMap<String, String>> {
    let text = String::from_utf8_lossy(&std::fs::read(path).expect("a table of the corpus")).into_owned();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().expect("a heading").split('\t').collect();
    lines.map(|line| names.iter().map(ToString::to_string).zip(line.split('\t').map(ToOwned::to_owned)).collect()).collect()
}

/// The index cuts control ids at this length.
const INDEXED_CHARACTERS: usize = 40;

/// What the index calls a control id: decoded, and without the blanks around it.
fn as_indexed(control_id: &[u8]) -> (String, String) {
    let latin: String = control_id.iter().map(|b| char::from(*b)).collect();
    (String::from_utf8_lossy(control_id).trim().to_owned(), latin.trim().to_owned())
}

#[derive(Debug, Default)]
struct Tally {
    files: usize,
    accepted: usize,
    refused: usize,
    ignored: usize,
    silent: usize,
    control_id_differs: Vec<String>,
    hapi_differs: Vec<String>,
}

/// Frames a file's bytes the way a sender would and gives back what the framer makes of it.
fn through_framer(bytes: &[u8]) -> Option<Payload> {
    let mut framer = Framer::new(FrameLimits::new(1 << 24));
    framer.buffer().extend_from_slice(&[&[START], bytes, &[END, b'\r']].concat());
    loop {
        match framer.next_event()? {
            Event::Frame(frame) => return Some(frame),
            Event::NeedsSlot => framer.grant(),
            _ => return None,
        }
    }
}

fn check_reply(file: &str, reply: &[u8], header: &Header<'_>) {
    let inner = reply.strip_prefix(&[START]).and_then(|r| r.strip_suffix(&[END, b'\r'])).expect("framed");
    let back = msh::scan(inner).unwrap_or_else(|| panic!("{file}: the reply has no header"));
    assert!(back.delimiters.separator == header.delimiters.separator, "{file}: other separator");
    for (ours, theirs) in [(3, 5), (4, 6), (5, 3), (6, 4), (11, 11)] {
        assert!(back.field(ours) == header.field(theirs), "{file}: MSH-{ours} is not MSH-{theirs} of the message");
    }
    let separator = header.delimiters.separator;
    let mut msa = b"\rMSA".to_vec();
    msa.extend_from_slice(separator);
    let at = inner.windows(msa.len()).position(|w| w == msa).expect("MSA") + msa.len() + 2 + separator.len();
    assert!(inner[at..].starts_with(header.field(10)), "{file}: MSA-2 is not MSH-10");
    let after = &inner[at + header.field(10).len()..];
    assert!(after.starts_with(b"\r") || after.starts_with(separator), "{file}: MSA-2 is longer than MSH-10");
}

fn look(folder: &Path, row: &HashMap<String, String>, hapi: Option<&String>, tally: &mut Tally) {
    let (file, is_fuzz) = (&row["file"], row["kind"] == "fuzz");
    let bytes = std::fs::read(folder.join(file)).expect("a file of the index");
    let Some(frame) = through_framer(&bytes) else { return };
    tally.files += 1;
    let stamp = Stamp { time: dtm_utc(0), control_id: "1".into() };
    let header = msh::scan(frame.expose());
    let (decoded, latin) = as_indexed(header.as_ref().map(|h| h.field(10)).unwrap_or_default());
    let indexed = row["control_id"].trim();
    let cut = |text: String| text.chars().take(INDEXED_CHARACTERS).collect::<String>().trim().to_owned();
    let (decoded_cut, latin) = (cut(decoded.clone()), cut(latin));
    let batch = header.as_ref().is_some_and(|h| h.kind == Kind::Batch);
    if decoded_cut != indexed && latin != indexed && !batch {
        tally.control_id_differs.push(file.clone());
    }
    if let Some(hapi) = hapi.filter(|_| !is_fuzz && !batch)
        && !hapi.is_empty()
        && hapi != "null"
        && decoded != hapi.trim()
    {
        tally.hapi_differs.push(file.clone());
    }
    match judge(frame.expose(), Policy { allow_missing_control_id: true }) {
        Verdict::Accept(accepted) => {
            tally.accepted += 1;
            let reply = accepted.positive(&stamp);
            let forced = Refused::new(msh::scan(frame.expose()), Fault::StoreFailed);
            let header = header.expect("accepted messages have one");
            if reply.is_empty() {
                tally.silent += 1;
            } else {
                check_reply(file, reply.expose(), &header);
            }
            if let Some(nak) = forced.reply(&stamp) {
                check_reply(file, nak.bytes(), &header);
            }
        }
        Verdict::Refuse(_) => tally.refused += 1,
        Verdict::Ignore(_) => tally.ignored += 1,
    }
}

#[test]
fn messages_of_the_corpus_are_read_as_the_index_says_and_answered_so_that_their_senders_match_the_reply() {
    let Some(folder) = std::env::var_os("SITEWARD_CORPUS") else {
        println!("skipped: no corpus");
        return;
    };
    let folder = Path::new(&folder);
    let hapi: HashMap<String, String> = table(&folder.join("oracle.tsv"))
        .into_iter()
        .map(|mut r| (r.remove("file").unwrap(), r.remove("hapi_msh10").unwrap_or_default()))
        .collect();
    let mut tally = Tally::default();
    for row in table(&folder.join("index.tsv")).iter().filter(|r| r["kind"] == "hl7" || r["kind"] == "fuzz") {
        look(folder, row, hapi.get(&row["file"]), &mut tally);
    }
    println!("{tally:#?}");
    assert!(tally.files > 0, "the corpus holds HL7 files");
    assert!(tally.control_id_differs.is_empty(), "every MSH-10 is what the index says");
}
