//! The service as systemd sees it: the unit is understood without a warning, and leaves the agent nothing but its job; what the agent is as its
//! service: ports that stay open while it is away, and a box that waits to be configured. (Under a systemd that was booted: `boot`.)

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harness::manager::Manager;
use harness::message;
use harness::sender::Wire;
use harness::site::{Configuration, Feed, Site};
use harness::wait;
use siteward::limits::UNCONFIGURED_LOOK;

const SYSTEMD_ANALYZE: &str = "systemd-analyze";

/// The unit with the built program in place of the installed one, in a directory of its own.
fn unit() -> Option<(tempfile::TempDir, std::path::PathBuf)> {
    let known = Command::new(SYSTEMD_ANALYZE).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        println!("service: {SYSTEMD_ANALYZE} is not on this machine (Debian: systemd); skipped");
        return None;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = fs::read_to_string(harness::repository().join("systemd/siteward.service")).expect("the unit lies in the repository");
    let program = harness::program("siteward").canonicalize().expect("the program is built");
    let installed = "ExecStart=/usr/bin/siteward";
    assert!(text.contains(installed));
    let file = directory.path().join("siteward.service");
    fs::write(&file, text.replace(installed, &format!("ExecStart={}", program.display()))).expect("a copy of the unit");
    Some((directory, file))
}

#[test]
fn the_unit_is_understood_without_a_warning() {
    let Some((_directory, file)) = unit() else { return };
    let output = Command::new(SYSTEMD_ANALYZE).args(["verify", "--man=no", "--recursive-errors=no"]).arg(&file).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    let own: Vec<&str> = told.lines().filter(|line| line.contains("siteward")).collect();
    assert!(output.status.success() && own.is_empty(), "{told}");
}

#[test]
fn the_unit_leaves_the_agent_nothing_but_its_job() {
    let Some((_directory, file)) = unit() else { return };
    let output = Command::new(SYSTEMD_ANALYZE)
        .args(["security", "--offline=true", "--no-pager", "--threshold=15"])
        .arg(&file)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    println!("service: {}", told.lines().last().unwrap_or_default());
    assert!(output.status.success(), "an exposure above 1.5:\n{told}{}", String::from_utf8_lossy(&output.stderr));
}

/// What the unit promises beyond its score; each of these once cost somebody a box.
#[test]
fn the_service_can_never_be_left_stopped_and_leaves_no_core() {
    let text = fs::read_to_string(harness::repository().join("systemd/siteward.service")).expect("the unit lies in the repository");
    for line in ["Type=notify", "Restart=always", "StartLimitIntervalSec=0", "LimitCORE=0", "WatchdogSec=60s", "StateDirectoryMode=0700"] {
        assert!(text.lines().any(|found| found == line), "{line} is missing");
    }
    assert!(!text.contains("network-online.target"), "capture does not wait for a network");
}

#[test]
fn systemd_keeps_as_many_ports_as_there_can_be() {
    let text = fs::read_to_string(harness::repository().join("systemd/siteward.service")).expect("the unit lies in the repository");
    let kept = text.lines().find_map(|line| line.strip_prefix("FileDescriptorStoreMax=")).and_then(|kept| kept.parse::<usize>().ok());
    // While a port changes, the new one is opened before the old one is let go.
    assert_eq!(kept, Some(2 * siteward::limits::FEEDS_MAX));
}

fn connect(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, wait::SOON).is_ok()
}

/// Connects all the time; how often, and how often it was refused, once it is told to end.
fn knock(address: SocketAddr, end: Arc<AtomicBool>) -> JoinHandle<(u64, u64)> {
    std::thread::spawn(move || {
        let (mut attempts, mut refused) = (0, 0);
        while !end.load(Ordering::Relaxed) {
            attempts += 1;
            refused += u64::from(!connect(address));
            std::thread::sleep(Duration::from_millis(2));
        }
        (attempts, refused)
    })
}

/// A sender that connects while nobody is there, and what becomes of its message. `end` ends the agent.
fn over(manager: &mut Manager, site: &mut Site, id: &str, end: impl FnOnce(&mut Site)) -> Duration {
    end(site);
    let mut waiting = Wire::connect(site.addr(), wait::EVENTUALLY).expect("nobody is there, and nobody is refused");
    waiting.send(&message::with_id(id, 1, 700)).expect("the message waits in the socket");
    let began = Instant::now();
    manager.start(site);
    assert!(waiting.reply().expect("the next process answers").positive());
    began.elapsed()
}

/// I1: a restart refuses no connection, whether the agent was stopped, killed or upgraded, and what was sent meanwhile is answered by the next one.
#[test]
fn a_restart_refuses_no_connection() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut manager = Manager::new(directory.path());
    let mut site = Site::new(directory.path(), Configuration::new(directory.path()));
    manager.start(&mut site);
    site.listening();
    assert_eq!(manager.kept(), [site.addr().to_string().replace(':', "_")]);

    let end = Arc::new(AtomicBool::new(false));
    let knocking = knock(site.addr(), Arc::clone(&end));
    let mut longest = Duration::ZERO;
    for round in 0..3 {
        longest = longest.max(over(&mut manager, &mut site, &format!("STOP{round}"), Site::stop));
        longest = longest.max(over(&mut manager, &mut site, &format!("KILL{round}"), Site::kill));
    }
    end.store(true, Ordering::Relaxed);
    let (attempts, refused) = knocking.join().expect("the knocking thread ends");
    println!(
        "service: {attempts} connections while the agent was stopped three times and killed three times: {refused} refused; from the start of the \
         next process to the answer at most {} ms",
        longest.as_millis()
    );
    assert_eq!(refused, 0);
    assert_eq!(site.feed_status("or-usage")["last_seq"], 6);
}

/// Nobody may connect where nobody will answer: a paused feed, one that is gone or elsewhere, a start that fails.
#[test]
fn a_port_without_a_feed_is_closed_whoever_has_a_copy() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut manager = Manager::new(directory.path());
    let mut configuration = Configuration::new(directory.path());
    configuration.feeds.extend(["cabinet", "stores"].map(|id| Feed::new(id, "normal")));
    let mut site = Site::new(directory.path(), configuration);
    manager.start(&mut site);
    site.listening();
    let [first, cabinet, stores] = [0, 1, 2].map(|at| site.configuration.feeds[at].addr());
    let paused = site.command(&["feeds", "pause", "--feed", "cabinet", "--why", "moved"]);
    assert!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    assert!(!connect(cabinet), "it is paused");
    site.kill();
    assert!(!connect(cabinet) && connect(first) && connect(stores), "the others' senders wait");
    assert_eq!(manager.kept().len(), 2);

    site.configuration.feeds.truncate(2);
    site.write_configuration();
    manager.start(&mut site);
    wait::wait_until("the feed that is gone to be closed", wait::EVENTUALLY, || !connect(stores));
    assert!(connect(first) && !connect(cabinet));
    let resumed = site.command(&["feeds", "resume", "--feed", "cabinet", "--why", "back"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    assert!(connect(cabinet));

    // A listener that changes its address takes the place of its own former socket.
    site.configuration.feeds[1].host = "0.0.0.0";
    site.reload();
    assert!(connect(cabinet));
    assert!(manager.kept().contains(&format!("0.0.0.0_{}", cabinet.port())), "{:?}", manager.kept());
    site.stop();
    site.configuration.feeds[1].host = "127.0.0.1";
    site.write_configuration();
    manager.start(&mut site);
    site.status(); // it is there; that its port is open says nothing any more
    site.stop();
    assert!(connect(first) && connect(cabinet));

    fs::write(site.config_file(), "no configuration").expect("the file is written");
    manager.start(&mut site);
    assert_eq!(site.process().ended(wait::SOON).code(), Some(78), "{}", site.log_tail());
    assert!(!connect(first) && !connect(cabinet), "nobody will answer");
    assert!(manager.kept().is_empty());
}

/// A box that is switched on before anybody has said whose it is: its service waits and says so, in place of failing again and again.
#[test]
fn a_box_that_is_not_configured_waits_and_goes_on_by_itself() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut manager = Manager::new(directory.path());
    let mut site = Site::new(directory.path(), Configuration::new(directory.path()));
    let wanted = site.configuration.text();
    fs::copy(harness::repository().join("systemd/siteward.toml"), site.config_file()).expect("the default configuration");
    site.spawn();
    assert_eq!(site.process().ended(wait::SOON).code(), Some(78), "by hand it is a fault like others");
    assert!(site.log().contains("gateway.site: is still that of the default file"), "{}", site.log_tail());
    manager.patience = Some(Duration::from_secs(3));
    manager.start(&mut site);
    wait::wait_until("the service to be ready", wait::SOON, || manager.told().lines().any(|line| line == "READY=1"));
    wait::wait_until("its status", wait::SOON, || manager.told().contains("STATUS=not configured"));
    let beats = |manager: &mut Manager| manager.told().lines().filter(|line| *line == "WATCHDOG=1").count();
    wait::wait_until("signs of life while it waits", wait::EVENTUALLY, || beats(&mut manager) >= 3);
    // Saved on the way: the site is named, the gateway is not.
    let half = fs::read_to_string(site.config_file()).expect("the file").replace("site = \"change-me\"", "site = \"st-marys\"");
    fs::write(site.config_file(), half).expect("half of it");
    assert!(!wait::try_until(UNCONFIGURED_LOOK * 2, || !site.running()), "{}", site.log_tail());
    fs::write(site.config_file(), wanted).expect("it is configured");
    site.listening();
    site.status();
    site.stop();
}
