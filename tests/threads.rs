//! A machine that gives the agent no more threads: it cannot start and says so, or it runs and goes on with those it has. Limited is a user of its own
//! (`prlimit --nproc`, which counts all threads of that user), so the theme needs root and says so where it is not.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::process::Process;
use harness::scene::Directory;
use harness::site::{Configuration, Site};
use harness::{message, net, sender, wait};

/// Users that nobody else is.
const USERS: [&str; 2] = ["64321", "64322"];
/// Enough for any start, and then some.
const MOST: u32 = 40;

/// A site that belongs to the user, with a directory feed; `None`: this cannot be done here.
fn site(directory: &Directory, user: &str) -> Option<Site> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can start the agent as another user");
        return None;
    }
    let mut configuration = Configuration::new(directory.path());
    std::fs::create_dir_all(directory.path().join("in")).expect("a directory for the files");
    configuration.sections.push(directory_feed(directory.path(), "files"));
    let site = Site::new(directory.path(), configuration);
    own(directory.path(), user);
    Some(site)
}

fn directory_feed(site: &Path, id: &str) -> String {
    let path = site.join("in");
    let path = path.display();
    format!(
        "\n[[feed]]\nid = {id:?}\nforward = \"raw\"\nphi = \"allowed\"\n[feed.directory]\npath = \"{path}\"\nsplit = \"lines\"\nsettle = \"1s\"\n\
         scan = \"1s\"\nrequire_mount = false\n"
    )
}

fn own(directory: &Path, user: &str) {
    let status = Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(directory).status().expect("chown is there");
    assert!(status.success());
}

/// A command as this user, who may have so many threads.
fn limited(user: &str, threads: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "prlimit", &format!("--nproc={threads}")]);
    command
}

fn spawn(site: &mut Site, user: &str, threads: u32) {
    let mut command = limited(user, threads);
    command.arg(harness::program("siteward")).arg("run").arg("--config").arg(site.config_file());
    site.spawn_with(&mut command);
}

fn threads(site: &mut Site) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", site.process().id())).map_or(0, Iterator::count)
}

fn never_panicked(site: &Site) {
    assert!(!site.log().contains("panicked"), "{}", site.log());
}

/// With one thread, two, three: whichever is the one that is missing, the start ends with 1 and a sentence, and the service manager tries again. From
/// the first number on with which it starts it starts, works, and stops in order.
#[test]
fn an_agent_that_gets_too_few_threads_says_so_and_ends_or_works() {
    let directory = Directory::new();
    let Some(mut site) = site(&directory, USERS[0]) else { return };
    let (mut refused, mut started) = (Vec::new(), Vec::new());
    for count in 1..=MOST {
        let before = site.log().len();
        spawn(&mut site, USERS[0], count);
        let said = |site: &Site| site.log()[before..].to_owned();
        let done = wait::try_until(wait::EVENTUALLY, || !site.running() || net::listening(site.addr()));
        assert!(done, "{count} threads: neither started nor ended; the log ends with:\n{}", said(&site));
        if site.running() {
            site.listening();
            let reply = sender::send_one(site.addr(), &message::build(1, u64::from(count), 500), wait::SOON).expect("an answer");
            assert!(reply.positive());
            site.stop();
            started.push(count);
        } else {
            let status = site.process().ended(Duration::from_secs(1));
            assert_eq!(status.code(), Some(1), "{count} threads: {}", said(&site));
            let sentence = "the machine has no task ids or no memory left for a thread";
            assert!(said(&site).contains("start") && said(&site).contains(sentence), "{count} threads: {}", said(&site));
            assert!(started.is_empty(), "{count} threads are too few, and fewer were not: {started:?}");
            refused.push(count);
        }
        never_panicked(&site);
        if started.len() == 4 {
            break;
        }
    }
    assert!(!refused.is_empty() && started.len() == 4, "{refused:?} {started:?}");
    println!("too few threads: {refused:?} end with a sentence, {started:?} start; no panic");
}

/// A running agent gets no further thread: what it has serves. Messages are taken, questions answered, files wait and are said to.
#[test]
fn a_running_agent_that_gets_no_more_threads_goes_on_with_those_it_has() {
    let directory = Directory::new();
    let Some(mut site) = site(&directory, USERS[1]) else { return };
    spawn(&mut site, USERS[1], MOST);
    site.listening();
    let all = threads(&mut site);
    // All that is left goes to somebody else.
    let greedy = format!("for n in $(seq {MOST}); do sleep 600 & done; wait");
    let greedy = Process::start("sleepers", limited(USERS[1], 1000).args(["sh", "-c", &greedy]), &directory.path().join("sleepers.log"));
    wait::wait_until("nothing is left", wait::SOON, || greedy.descendants().len() >= MOST as usize);
    // Nobody asks for anything: longer than a runtime usually keeps a thread that has nothing to do.
    std::thread::sleep(Duration::from_secs(12));
    for number in 0..3 {
        let reply = sender::send_one(site.addr(), &message::build(1, number, 500), wait::SOON).expect("an answer");
        assert!(reply.positive());
        assert_eq!(site.feed_status("or-usage")["captured"], number + 1);
    }
    let shown = site.command(&["config", "show"]);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let ordered = site.command(&["maintenance", "start", "--gateway", "--for", "1h", "--reason", "works"]);
    assert!(ordered.status.success(), "{}", String::from_utf8_lossy(&ordered.stderr));
    // A feed that needs a thread of its own.
    std::fs::create_dir_all(directory.path().join("more")).expect("a directory");
    site.configuration.sections.push(directory_feed(directory.path(), "more").replace("/in\"", "/more\""));
    let said = site.reload();
    own(directory.path(), USERS[1]);
    let condition = |site: &Site| {
        let status = site.status();
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["code"] == "directory_unreadable" && c["subject"] == "more")
    };
    let raised = wait::wait_for("the condition of the feed without a thread", wait::EVENTUALLY, || condition(&site));
    let text = raised["text"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains("the thread of this feed cannot be started"), "{text}; {said}");
    drop(greedy);
    wait::wait_until("the feed has its thread", wait::EVENTUALLY, || condition(&site).is_none());
    std::fs::write(directory.path().join("more/a.txt"), "one\ntwo\n").expect("a file");
    own(directory.path(), USERS[1]);
    wait::wait_until("the file is taken", wait::EVENTUALLY, || site.feed_status("more")["captured"] == 2);
    site.stop();
    never_panicked(&site);
    println!("no further thread beside {all}: messages, answers and a window after 12 s of rest; a new feed waited for its thread: {text}");
}
