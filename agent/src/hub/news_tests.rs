//! What gateways say of themselves: written beside everything else, and in nobody's way when the output is read back.

use super::desk::{Arrival, Desk};
use crate::limits::LETTER_BYTES_MAX;

const GATEWAY: &str = "siteward/v1/st-marys/gw1";

#[test]
fn what_a_gateway_reports_is_a_line_of_its_own_kind_and_the_output_reads_back() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let mut desk = Desk::open(&out).unwrap();
    for (topic, payload) in [
        ("config/reported", r#"{"schema":1,"running":{"revision":41}}"#),
        ("command/result", r#"{"schema":1,"outcome":"done"}"#),
        ("audit", r#"{"who":"j.doe"}"#),
        ("audit", "no JSON"),
        ("config/desired", "{}"),
        ("command", "{}"),
    ] {
        desk.take(&Arrival::new(&format!("{GATEWAY}/{topic}"), payload)).unwrap();
    }
    desk.take(&Arrival::new(&format!("{GATEWAY}/audit"), vec![b' '; LETTER_BYTES_MAX + 1])).unwrap();
    assert!(desk.commit().unwrap().receipts.is_empty());
    drop(desk);
    let text = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["reported", "command_result", "audit", "malformed", "malformed", "malformed", "malformed"]);
    assert_eq!((lines[0]["gateway"].as_str(), lines[0]["data"]["running"]["revision"].as_u64()), (Some("gw1"), Some(41)));
    assert!(Desk::open(&out).unwrap().summary().is_empty(), "no account is made of them");
}
