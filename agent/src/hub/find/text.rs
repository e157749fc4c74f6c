//! Findings for people, record by record. Pure. Texts of gateways are cleaned: they end on a terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::around::Around;
use super::{Finding, Found, Wanted};
use crate::hub::fleet::told::clean;
use crate::hub::ledger::AccountKey;
use crate::hub::line::LineKind;

/// The accounts and seqs that were met, in order.
pub fn records(found: &Found) -> Vec<(AccountKey, u64)> {
    let key = |f: &Finding| AccountKey { site: f.site.clone(), gateway: f.gateway.clone(), feed: f.feed.clone() };
    let mut records: Vec<(AccountKey, u64)> = found.findings.iter().map(|finding| (key(finding), finding.seq)).collect();
    records.sort();
    records.dedup();
    records
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn outcome(finding: &Finding) -> String {
    let mut text = match finding.kind {
        LineKind::Event => "event".to_owned(),
        LineKind::Exception => "exception: kept back at the gateway, an event may still come".into(),
        LineKind::Gap => "gap: will never come".into(),
        LineKind::Lost => "lost: settled at the gateway and not here".into(),
        LineKind::Conflict => "CONFLICT".into(),
        LineKind::Fork => "FORK: not in the history that a later incarnation continues".into(),
        LineKind::Corrupt => "CORRUPT: not counted, asked for again".into(),
        _ => "other".into(),
    };
    // Writing to a string does not fail.
    if let Some((item, count)) = finding.item {
        let _ = write!(text, " (item {} of {count})", item + 1);
    }
    if let Some(reason) = &finding.reason {
        let _ = write!(text, " ({})", clean(reason));
    }
    if let Some(stage) = &finding.stage {
        let _ = write!(text, ", stage {}", clean(stage));
    }
    if let Some(seq) = &finding.resend_of {
        let _ = write!(text, ", a deliberate resend of seq {}", clean(seq));
    }
    if finding.control_id_reused {
        text.push_str(", another message had this control id before");
    }
    text
}

/// Everything there is to say.
pub fn text(wanted: &Wanted, found: &Found, around: &[Around]) -> String {
    let mut out = String::new();
    let mut by_record: BTreeMap<(AccountKey, u64), Vec<&Finding>> = BTreeMap::new();
    for finding in &found.findings {
        let key = AccountKey { site: finding.site.clone(), gateway: finding.gateway.clone(), feed: finding.feed.clone() };
        by_record.entry((key, finding.seq)).or_default().push(finding);
    }
    // Writing to a string does not fail, here and below.
    for ((key, seq), findings) in &by_record {
        let _ = writeln!(out, "{key} seq {seq}");
        for finding in findings {
            let incarnation = finding.incarnation.map(|incarnation| format!("  incarnation {incarnation}")).unwrap_or_default();
            if let Some(received) = &finding.received_at {
                let suspect = if finding.clock_suspect { " (by a clock that could not be believed)" } else { "" };
                let _ = writeln!(out, "  {}  received at the gateway{suspect}", clean(received));
            }
            let _ = writeln!(out, "  {}  at the hub: {}{incarnation}", clean(&finding.written_at), outcome(finding));
        }
        for around in around.iter().filter(|around| around.key == *key && around.seq == *seq) {
            completeness(&mut out, around);
        }
    }
    for around in around.iter().filter(|around| !by_record.contains_key(&(around.key.clone(), around.seq))) {
        let _ = writeln!(out, "{} seq {}: nothing in what was read", around.key, around.seq);
        completeness(&mut out, around);
    }
    if found.left_out > 0 {
        let _ = writeln!(out, "{} further findings are not shown", found.left_out);
    }
    reading(&mut out, wanted, found);
    out
}

fn completeness(out: &mut String, around: &Around) {
    if let Some(feed) = &around.feed {
        let near: Vec<String> = feed.missing_near(around.seq).map(|(first, last)| format!("{first}-{last}")).collect();
        let _ = match (near.is_empty(), around.seq <= feed.through_seq) {
            (false, _) => writeln!(out, "  the feed is NOT complete here: missing {}", near.join(", ")),
            (true, true) => writeln!(out, "  the feed is complete through seq {}", feed.through_seq),
            (true, false) => writeln!(out, "  nothing is missing here, but the feed is complete through seq {} only", feed.through_seq),
        };
        let tally = feed.tally;
        let _ = writeln!(
            out,
            "  of the whole feed: {} duplicates (which messages came again is not noted), {} conflicts, {} forks, {} lost",
            tally.duplicates, tally.conflicts, tally.forks, tally.lost
        );
        if feed.output_behind > 0 {
            let _ = writeln!(
                out,
                "  the ledger was saved {} of the output ago; what came since is not in these figures",
                size(feed.output_behind)
            );
        }
    }
    if let Some(neighbours) = &around.neighbours {
        let shown = |held: &[&str]| if held.is_empty() { "-".to_owned() } else { held.join("+") };
        let shown: Vec<String> = neighbours.iter().map(|n| format!("{} {}", n.seq, shown(&n.held))).collect();
        let _ = writeln!(out, "  held around it: {}", shown.join(", "));
    }
    for doubt in &around.doubts {
        let _ = writeln!(out, "  not known: {doubt}");
    }
}

fn reading(out: &mut String, wanted: &Wanted, found: &Found) {
    let part = if found.read_from == 0 && found.read_to >= found.file_bytes {
        "all".to_owned()
    } else {
        format!("bytes {} to {}", found.read_from, found.read_to)
    };
    let _ = writeln!(out, "{} findings; read {part} of {}, {} lines", found.findings.len(), size(found.file_bytes), found.lines);
    if found.read_from > 0 {
        let _ = writeln!(out, "older lines were not read: --budget BYTES, or --from 0, reads more");
    }
    if found.read_to < found.file_bytes {
        let _ = writeln!(out, "the budget was used up: --from {} goes on", found.read_to);
    }
    if found.unreadable > 0 {
        let _ = writeln!(out, "{} lines that may be about it could not be read", found.unreadable);
    }
    if matches!(wanted, Wanted::ControlId(_)) {
        out.push_str(
            "by control id only events are found that carry it: a message that the gateway keeps back, a gap, or a control id that is not\n\
             printable ASCII has none; on the gateway `siteward messages find --control-id` knows its seq, which finds these here\n",
        );
    }
}
