//! The lists of the runbook that `jq` makes of the receiver's output: feeds have the same names at many sites, and control ids are counters, so a list
//! that leaves out whose a record is gives one hospital's bookings for another's.

use std::fs;
use std::process::Command;

/// Programs for `jq` over the receiver's output, as the runbook has them.
fn programs() -> Vec<String> {
    let text = fs::read_to_string(harness::repository().join("systemd/RUNBOOK.md")).expect("the runbook");
    let after = text.split("jq -").skip(1).filter_map(|rest| rest.split_once('\''));
    after.filter_map(|(_, rest)| Some(rest.split_once('\'')?.0.to_owned())).collect()
}

#[test]
fn every_list_of_the_runbook_says_of_which_site_and_gateway_it_is() {
    let about_feeds: Vec<String> = programs().into_iter().filter(|program| program.contains(".feed")).collect();
    assert!(about_feeds.len() >= 4, "are they looked for in the right way? {about_feeds:?}");
    for program in &about_feeds {
        assert!(program.contains(".site") && program.contains(".gateway"), "mixes sites: {program}");
    }
    println!("{} lists of the runbook name site and gateway", about_feeds.len());
}

/// The list by which bookings are reversed.
#[test]
fn what_two_sites_sent_under_one_number_is_no_duplicate() {
    if Command::new("jq").arg("--version").output().is_err() {
        println!("skipped: jq is missing");
        return;
    }
    let program = programs().into_iter().find(|program| program.contains("fileindex")).expect("the list of what is there twice");
    let event = |site: &str, control_id: &str, id: u64| {
        format!(
            "{{\"kind\":\"event\",\"stage\":\"live\",\"site\":\"{site}\",\"gateway\":\"{site}-gw1\",\"feed\":\"or-usage\",\"id\":\"{id}\",\
             \"attributes\":{{\"controlid\":\"{control_id}\"}}}}\n"
        )
    };
    let directory = harness::scene::Directory::new();
    let output = directory.path().join("events.jsonl");
    let twice = |events: &[String]| {
        fs::write(&output, events.concat()).expect("events are written");
        let run = Command::new("jq").args(["-r", &program]).arg(&output).output().expect("jq runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let mut lines: Vec<String> = String::from_utf8(run.stdout).expect("text").lines().map(str::to_owned).collect();
        lines.sort();
        let repeated: Vec<String> = lines.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
        repeated
    };
    let both = [event("st-marys", "10001", 1), event("mercy", "10001", 2)];
    assert_eq!(twice(&both), Vec::<String>::new());
    let again = [&both[..], &[event("mercy", "10001", 3)]].concat();
    assert_eq!(twice(&again), ["mercy\tmercy-gw1\tor-usage\t10001"]);
}
