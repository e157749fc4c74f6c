//! I1 as the kernel sees it: the agent under strace, one message, and the order of its system calls.

use std::path::Path;
use std::process::{Command, Stdio};

use harness::message;
use harness::scene::Directory;
use harness::site::{Configuration, Site};
use harness::wait;

/// A finished system call, in the order in which calls finished.
#[derive(Clone, Debug)]
struct Call {
    name: String,
    text: String,
}

/// Joins `<unfinished ...>` with `<... resumed>`, by thread.
fn calls(trace: &str) -> Vec<Call> {
    let mut begun: Vec<(String, String)> = Vec::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.trim().split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(beginning) = rest.strip_suffix("<unfinished ...>") {
            begun.push((thread.to_owned(), beginning.to_owned()));
            continue;
        }
        let text = if rest.starts_with("<... ") {
            let Some(at) = begun.iter().position(|(t, _)| t == thread) else { continue };
            begun.remove(at).1 + rest
        } else {
            rest.to_owned()
        };
        let name = text.split('(').next().unwrap_or_default().to_owned();
        calls.push(Call { name, text });
    }
    calls
}

fn can_trace(directory: &Path) -> bool {
    let out = directory.join("probe");
    let run = Command::new("strace").arg("-f").arg("-o").arg(out).arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|s| s.success())
}

/// I1: between a record's write into the journal and the positive answer on the sender's socket there is an `fdatasync` of that file that
/// returned 0.
#[test]
fn the_journal_is_synced_before_the_sender_is_answered() {
    let directory = Directory::new();
    if !can_trace(directory.path()) {
        println!("skipped: strace is not installed or may not trace here");
        return;
    }
    let mut site = Site::new(directory.path(), Configuration::new(directory.path()));
    let trace = directory.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-yy", "-s", "64", "-e", "trace=fdatasync,fsync,pwrite64,pwritev,write,writev,sendto,sendmsg", "-o"]);
    command.arg(&trace).arg(harness::program("siteward")).arg("run").arg("--config").arg(site.config_file());
    site.spawn_with(&mut command);
    site.listening();
    let mut wire = site.wire();
    for number in 1..=3 {
        assert!(wire.exchange(&message::build(1, number, 700)).expect("an answer").positive());
    }
    site.process().terminate_children();
    site.process().ended(wait::EVENTUALLY);

    let text = std::fs::read_to_string(&trace).expect("a trace");
    let calls = calls(&text);
    let port = format!("127.0.0.1:{}->", site.configuration.feeds[0].port);
    let answers: Vec<usize> = calls
        .iter()
        .enumerate()
        .filter(|(_, c)| {
            ["write", "writev", "sendto", "sendmsg"].contains(&c.name.as_str()) && c.text.contains(&port) && c.text.contains("\\vMSH")
        })
        .map(|(i, _)| i)
        .collect();
    assert_eq!(answers.len(), 3, "three answers on the feed's socket:\n{}", sample(&calls));
    let mut from = 0;
    for answer in answers {
        let before = &calls[from..answer];
        let journal = |c: &Call| c.text.contains("/journal/");
        let written = before.iter().rposition(|c| c.name.starts_with("pwrite") && journal(c));
        let synced = before.iter().rposition(|c| c.name == "fdatasync" && journal(c) && c.text.trim_end().ends_with("= 0"));
        assert!(written.is_some() && synced > written, "answered without a sync behind the write:\n{}", sample(before));
        from = answer;
    }
}

fn sample(calls: &[Call]) -> String {
    let shown = calls.iter().rev().take(40).rev().map(|c| c.text.chars().take(200).collect::<String>());
    shown.collect::<Vec<_>>().join("\n")
}
