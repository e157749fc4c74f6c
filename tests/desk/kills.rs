//! kill -9 of the tool in any step of a rollout.

use std::time::Duration;

use harness::mosquitto::Options;
use harness::process::Process;
use harness::wait;

use super::east::{East, report, states, text};

/// I6: killed at any time and resumed, a rollout publishes nothing with another content, skips no wave, and gets to its end.
#[test]
fn a_tool_that_is_killed_in_any_step_goes_on_and_says_the_same() {
    let east = East::with(3, Options::default());
    let rounds = if harness::long() { 8 } else { 2 };
    let (mut kills, mut resumed) = (0, 0);
    for revision in 1..=rounds {
        let documents = east.documents(revision, 0);
        let documents = documents.to_str().expect("UTF-8");
        let log = east.directory.path().join("rollout.log");
        let begin = ["--documents", documents, "--waves", "1,2,100%", "--soak", "1s", "--json"];
        let mut begun = false;
        // From the first system calls on to the middle of waves, each time a little later; what goes on hears the broker out first.
        for step in 0..24_u64 {
            let mut command = if begun { east.rollout("resume", &["--json"]) } else { east.rollout("start", &begin) };
            let mut process = Process::start("siteward-hub rollout", &mut command, &log);
            let until = Duration::from_millis(37 * revision + if begun { 1400 + 67 * step } else { 20 + step * step * 9 });
            let ended = wait::try_until(until, || !process.running());
            process.kill();
            kills += u64::from(!ended);
            resumed += u64::from(begun);
            let journal = std::fs::read_to_string(east.state().join("journal.jsonl")).unwrap_or_default();
            begun = journal.lines().filter(|line| line.contains("\"kind\":\"plan\"") && line.ends_with('}')).count() as u64 == revision;
            if journal.lines().last().is_some_and(|line| line.contains("\"kind\":\"finished\"")) && begun {
                break;
            }
        }
        let done = east.rollout("resume", &["--json"]).output().expect("it runs");
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        let found = states(&report(&done));
        assert!(found.len() == 3 && found.values().all(|state| state == "confirmed"), "{found:?}");
        (0..3).for_each(|index| assert_eq!(east.runs(index), revision));
    }
    let publishes = east.one_content_for_each_revision();
    assert!(kills > rounds * 3, "{kills} kills are too few to say anything");
    println!("desk: {kills} kills -9 in {rounds} rollouts, resumed {resumed} times: {publishes} publishes, one content for each revision");
}
