//! The audit log, and the power that goes: a record that was said to be written is there, in one chain that is whole; nothing else is taken for one.

use std::path::Path;

use harness::sim::SimDisk;
use siteward::audit::chain::Draft;
use siteward::audit::log::{Found, Log, look, verify};
use siteward::contract::AuditStage;
use siteward::record::{Incarnation, Name};

use super::rollout::ROOT;

fn gateway() -> Name {
    Name::new("gw1").expect("a name")
}

fn draft(text: &str) -> Draft {
    let mut draft = Draft::new(AuditStage::Fact, "kim (uid 1000)", "pause_feed", "or-usage", text);
    draft.time = "2026-11-01T00:00:00.000Z".into();
    draft
}

/// I9: whatever is cut in whatever step, also while opening.
#[test]
fn an_audit_record_survives_a_power_cut_or_nothing_was_done() {
    let (mut cuts, mut written, mut torn) = (0, 0, 0);
    for seed in 0..150u64 {
        let mut disk = SimDisk::new(seed, Path::new(ROOT));
        // Of each number what it says.
        let mut promised: Vec<(u64, String)> = Vec::new();
        for step in 0..8u64 {
            disk.freeze_after(1 + (seed * 7 + step * 3) % 23);
            let incarnation = Incarnation([u8::try_from(step).expect("small"); 16]);
            if let Ok((mut log, found)) = Log::open(disk.handle(), Path::new(ROOT), &gateway(), incarnation) {
                torn += found.iter().filter(|one| matches!(one, Found::Torn { .. })).count();
                assert!(!found.iter().any(|one| matches!(one, Found::Damaged { .. })), "seed {seed}: {found:?}");
                for number in 0..4 {
                    let text = format!("step {step} number {number} {}", "x".repeat(usize::try_from(seed % 700).expect("small")));
                    match log.append(draft(&text)) {
                        Ok((n, _)) => {
                            written += 1;
                            promised.push((n, text));
                        }
                        Err(_) => cuts += 1,
                    }
                }
            } else {
                cuts += 1;
            }
            disk = disk.power_cut();
            let lines = look(&*disk.handle(), Path::new(ROOT)).unwrap_or_default();
            for (n, text) in &promised {
                let is_there = lines.iter().any(|line| line.contains(text.as_str()) && line.contains(&format!("\"n\":{n},")));
                assert!(is_there, "seed {seed} step {step}: record {n} was said to be written");
            }
        }
        let (log, _) = Log::open(disk.handle(), Path::new(ROOT), &gateway(), Incarnation([99; 16])).expect("it opens");
        let lines = look(&*disk.handle(), Path::new(ROOT)).expect("it is read");
        let verdict = verify(&lines);
        assert!(verdict.is_whole() && verdict.chains.len() == 1, "seed {seed}: {}", verdict.text());
        assert_eq!(verdict.chains[0].last, log.last());
    }
    println!("audit: {written} records, {cuts} calls cut, {torn} torn ends");
    assert!(cuts > 100 && written > 100, "{cuts} {written}");
}
