//! SIGKILL in a rollout, with senders at work: between any two system calls on the files of the rollout, and at any moment of a trial that lasts.
//!
//! For the former the agent runs under strace, which holds each of these calls back for a moment and writes down those that are done; the process
//! is killed when so many are. What has to run afterwards follows from what is on disk: the ledger that was renamed last.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use harness::net;
use harness::sender::{Crew, Plan};
use harness::wait;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::desk::{Desk, Wish, feed};

/// What changes a file.
const CALLS: &str = "?mkdir,?mkdirat,?unlink,?unlinkat,?rename,?renameat,?renameat2,fallocate,ftruncate,pwrite64,fsync,fdatasync";
/// Ledgers that one rollout writes under a process of its own: at the start, staged, trial, committed.
const LEDGERS: usize = 4;
const SIZE: fn(usize, u64) -> usize = |_, _| 700;

impl Desk {
    /// Senders that do not stop for anything.
    fn crew(&self) -> Crew {
        Crew::start(&Plan {
            pause: Duration::from_millis(5),
            patience: Duration::from_secs(5),
            first_connection: 10,
            size: SIZE,
            ..Plan::new(self.scene.site.addr(), 2, 1_000_000)
        })
    }

    /// Everything that was acknowledged is at the hub.
    fn kept_all(mut self, crew: Crew) -> u64 {
        let told = crew.stop();
        assert!(told.iter().all(|told| told.faults.is_empty()), "{:?}", told.iter().map(|told| &told.faults).collect::<Vec<_>>());
        let acknowledged: u64 = told.iter().map(|told| told.acknowledged.len() as u64).sum();
        self.scene.hub.wait_for_events(acknowledged + self.number);
        wait::wait_until("everything is settled", wait::EVENTUALLY, || self.scene.site.try_queued() == Some(0));
        let audit = self.scene.hub.audit();
        let broken = audit.broken_promises(&told, SIZE);
        assert!(broken.is_empty(), "{broken:?}");
        acknowledged
    }

    fn runs(&self) -> u64 {
        self.running().as_u64().unwrap_or(0)
    }
}

/// Senders are answered again, on the feed that no document touches.
fn serves(desk: &Desk, crew: &Crew) {
    let known = crew.acknowledged();
    let served = wait::try_until(wait::SOON, || crew.acknowledged() > known);
    assert!(served, "no sender is answered since {known} were; the log ends with:\n{}", desk.scene.site.log_tail());
}

/// The agent under strace is not our child: its end is waited for here, by the lock that it has to itself.
fn has_ended(desk: &Desk) -> bool {
    let lock = std::fs::File::open(desk.scene.site.configuration.spool.join("spool.lock")).expect("the lock's file");
    lock.try_lock().is_ok()
}

/// The system calls that were done, in order.
fn done(trace: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(&std::fs::read(trace).unwrap_or_default()).into_owned();
    text.lines().filter(|line| line.contains(" = ") && !line.contains("<unfinished")).map(str::to_owned).collect()
}

fn ledgers(calls: &[String]) -> usize {
    calls.iter().filter(|call| call.contains("ledger.new\"") && call.contains("rename") && call.contains(" = 0")).count()
}

fn traced(desk: &Desk, envelope: &str, trace: &Path) -> Command {
    let envelope: Value = serde_json::from_str(envelope).expect("an envelope is JSON");
    let payload = envelope["payload"].as_str().expect("a payload");
    let payload = base64::engine::general_purpose::STANDARD.decode(payload).expect("base64");
    let digest = siteward::record::DocumentDigest(Sha256::digest(&payload).into());
    let config: PathBuf = desk.scene.site.configuration.spool.join("config");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "--seccomp-bpf", "-e", &format!("trace={CALLS}")]);
    command.args(["-e", &format!("inject={CALLS}:delay_enter=80ms"), "-o"]).arg(trace).arg("-P").arg(&config);
    for name in ["ledger", "ledger.new", "ledger.reserve", "reserve", &format!("{digest}.candidate"), &format!("{digest}.dsse")] {
        command.arg("-P").arg(config.join(name));
    }
    command.arg(harness::program("siteward")).arg("run").arg("--config").arg(desk.scene.site.config_file());
    command
}

/// Hands a document over on site, again until it is taken or told to stop.
struct Technician {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Technician {
    fn with(desk: &Desk, envelope: &str) -> Self {
        let (stick, file) = (desk.stick(envelope), desk.scene.site.config_file());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut command = Command::new(harness::program("siteward"));
                command.args(["config", "apply"]).arg(&stick).arg("--config").arg(&file);
                let ran = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
                if ran.is_ok_and(|status| status.success()) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(30));
            }
        };
        Self { stop, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Technician {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // its panic would have no meaning beside the test's own end
            let _ = thread.join();
        }
    }
}

fn can_trace() -> bool {
    let run = Command::new("strace").args(["-f", "--seccomp-bpf", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// I6: killed between any two system calls of a rollout, the agent comes back on what is committed, and nothing acknowledged is lost.
#[test]
fn killed_in_every_rollout_step_comes_back_on_committed() {
    if !can_trace() {
        println!("skipped: strace is not installed or may not trace here");
        return;
    }
    let mut desk = Desk::open();
    let ports = [net::free_port(), net::free_port()];
    let crew = desk.crew();
    let steps: Vec<usize> = if harness::long() { (1..200).collect() } else { vec![10, 17, 24, 31] };
    let (mut known, mut before, mut after, mut most, mut survived) = (0, 0, 0, 0, false);
    for (revision, step) in (1..).zip(steps) {
        let wish = Wish {
            rollout: "confirm = \"bound\"".into(),
            feeds: format!("{}{}", desk.own(), feed("lab", ports[(revision % 2) as usize], "")),
            ..Wish::default()
        };
        let envelope = desk.signed(revision, &wish);
        let trace = desk.scene.directory.path().join(format!("trace-{step}"));
        desk.scene.site.kill();
        desk.scene.site.spawn_with(&mut traced(&desk, &envelope, &trace));
        let technician = Technician::with(&desk, &envelope);
        let mut quiet = 0;
        let reached = wait::try_until(wait::EVENTUALLY, || {
            let calls = done(&trace);
            // All ledgers are written and a second passed without another call: this was the last step.
            quiet = if calls.len() == most { quiet + 1 } else { 0 };
            most = calls.len();
            survived = ledgers(&calls) >= LEDGERS && quiet > 50;
            calls.len() >= step || survived
        });
        desk.scene.site.kill();
        drop(technician);
        wait::wait_until("the killed agent is gone", wait::SOON, || has_ended(&desk));
        assert!(reached, "step {step} of a rollout is never reached; the log ends with:\n{}", desk.scene.site.log_tail());
        let calls = done(&trace);
        desk.scene.site.start();
        serves(&desk, &crew);
        let runs = desk.runs();
        let shown = || calls.join("\n");
        match ledgers(&calls) {
            written if written >= LEDGERS => assert_eq!(runs, revision, "step {step}: it was committed\n{}", shown()),
            // The next one may be in the kernel when the process is killed.
            3 => assert!(runs == known || runs == revision, "step {step}: {runs} runs, not {known} or {revision}\n{}", shown()),
            _ => assert_eq!(runs, known, "step {step}: it was not committed\n{}", shown()),
        }
        if runs == revision {
            (known, after) = (revision, after + 1);
        } else {
            before += 1;
        }
        if survived {
            break;
        }
    }
    assert!(survived || !harness::long(), "the last step was never reached");
    let acknowledged = desk.kept_all(crew);
    println!(
        "rollout: killed behind {} system calls of a rollout: {before} times back on the committed configuration, {after} times on the new one; \
         {acknowledged} messages acknowledged meanwhile, none lost",
        before + after
    );
}

/// I6: killed at any moment of a trial that waits for its peers, with senders at work: what was committed runs, the document is told as failed.
#[test]
fn killed_in_a_trial_under_live_traffic_comes_back_on_committed() {
    let kills: u64 = if harness::long() { 60 } else { 4 };
    let mut desk = Desk::open();
    let mut ports = [net::free_port(), net::free_port()];
    let wish = |desk: &Desk, port| Wish { feeds: format!("{}{}", desk.own(), feed("lab", port, "")), ..Wish::default() };
    desk.apply(&desk.signed(1, &wish(&desk, ports[0])));
    desk.becomes(1, "committed");
    let crew = desk.crew();
    let (mut known, mut commits, mut told) = (1, 0, Vec::new());
    for (revision, kill) in (2..).zip(0..kills) {
        desk.send(ports[0], 1); // a sender in the last hour: the trial waits for it
        let said = desk.apply(&desk.signed(revision, &wish(&desk, ports[1])));
        assert!(said.contains("is stored"), "{said}");
        let at_once = kill % 4 == 1;
        if !at_once {
            desk.becomes(revision, "trial");
            std::thread::sleep(Duration::from_millis((kill * 613) % 3000));
            told.push(desk.tried()["state"].as_str().unwrap_or_default().to_owned());
        }
        if kill % 4 == 3 {
            desk.send(ports[1], 1);
            desk.becomes(revision, "committed");
            ports.swap(0, 1);
            (known, commits) = (revision, commits + 1);
        }
        desk.scene.site.kill();
        desk.scene.site.start();
        assert_eq!(desk.runs(), known, "after a kill in the trial of {revision}; {}", desk.tried());
        if known != revision {
            let tried = desk.tried();
            assert_eq!(
                (&tried["revision"], &tried["state"], &tried["code"]),
                (&revision.into(), &"rolled_back".into(), &"agent_stopped".into())
            );
        }
        serves(&desk, &crew);
    }
    assert!(told.iter().all(|state| state == "trial"), "{told:?}");
    desk.send(ports[0], 1);
    assert!(harness::sender::Wire::connect(net::loopback(ports[1]), Duration::from_millis(200)).is_err(), "no feed of a trial is left");
    let acknowledged = desk.kept_all(crew);
    println!(
        "rollout: {kills} kills, {} of them in a trial or before it, {commits} behind a commit: always back on what was committed; {acknowledged} \
         messages acknowledged meanwhile, none lost",
        kills - commits
    );
}
