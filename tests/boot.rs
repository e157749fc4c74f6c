//! The service on a booted machine: systemd as process 1, the package installed as the runbook says, messages coming all the time, and everything
//! that happens to such a box in a year; what becomes of its records when the package is upgraded, refused, purged and installed again; and a first day
//! without a configuration, a network or a clock. Only with `SITEWARD_LONG=1`, on a machine where a container can be booted.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::link::Weather;
use harness::machine::{self, Machine};
use harness::message::{self, mixed_size};
use harness::mosquitto;
use harness::scene::Scene;
use harness::sender::{Crew, Plan};
use harness::{net, wait};
use rustix::process::{Pid, Signal, kill_process};

const CONNECTIONS: usize = 8;
const PER_CONNECTION: u64 = 400;
const ALL: u64 = CONNECTIONS as u64 * PER_CONNECTION;
const STEPS: u64 = 6;

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("the process is there");
}

fn listening(scene: &Scene, machine: &Machine) {
    let up = wait::try_until(wait::EVENTUALLY, || net::listening(scene.site.addr()));
    assert!(up, "the service does not listen; the console ends with:\n{}", machine.log_tail());
}

fn cannot() -> bool {
    if !harness::long() {
        println!("skipped: boots a machine; SITEWARD_LONG=1 runs it");
    } else if let Some(what) = machine::missing() {
        println!("boot: needs {what}, which this machine does not have; skipped");
    }
    !harness::long() || machine::missing().is_some()
}

/// What happens, each when so much was acknowledged; the process that was wedged, and the one after it.
fn bad_year(scene: &Scene, machine: &mut Machine, crew: &Crew) -> (u32, u32) {
    let reach = |step: u64| {
        let what = format!("messages before step {step}");
        wait::wait_while_growing(&what, Duration::from_mins(5), || crew.acknowledged(), ALL * step / (STEPS + 1));
    };
    let running = |machine: &Machine| wait::wait_for("the service's process", wait::EVENTUALLY, || machine.agent());

    reach(1);
    let first = running(machine);
    signal(first, Signal::KILL);
    let second = machine.agent_after(first);
    reach(2);

    let (third, connections, refused) = knocking(scene.site.addr(), || {
        machine.must(&["systemctl", "restart", "siteward.service"]);
        machine.agent_after(second)
    });
    println!("boot: {connections} connections during `systemctl restart`, {refused} refused");
    assert_eq!(refused, 0);
    reach(3);
    signal(third, Signal::STOP);
    let fourth = machine.agent_after(third);
    reach(4);
    machine.cut_power();

    machine.boot();
    listening(scene, machine);
    reach(5);
    machine.command(&["systemctl", "kill", "--signal=ABRT", "siteward.service"]);
    reach(6);
    machine.cut_power();
    machine.boot();
    listening(scene, machine);
    (third, fourth)
}

/// I1, I2, I3, I8: through a killed process, a cut network, a restart, a wedged process and two power cuts the service is never left stopped,
/// and whatever was acknowledged is at the hub once and in order.
#[test]
fn a_booted_box_loses_nothing_in_a_bad_year() {
    if cannot() {
        return;
    }
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| {
        configuration.uplink_lines.push("receipt_timeout = \"10s\"".into());
    });
    scene.hub.start();
    let package = machine::package(scene.directory.path(), "0.1.0-1");
    let mut machine = Machine::install(&scene.directory.path().join("box"), &package, &scene.site.configuration, "WatchdogSec=6s");
    machine.boot();
    listening(&scene, &machine);
    assert!(!machine.path("/var/lib/siteward/spool.key").exists(), "the key is a credential, which was decrypted");
    let score = machine.must(&["systemd-analyze", "security", "--no-pager", "--threshold=15", "siteward.service"]);
    println!("boot: {}", score.lines().last().unwrap_or("no score"));

    let plan = Plan {
        size: mixed_size,
        pause: Duration::from_millis(5),
        give_up: Duration::from_mins(15),
        ..Plan::new(scene.site.addr(), CONNECTIONS, PER_CONNECTION)
    };
    let crew = Crew::start(&plan);
    let (wedged, next) = bad_year(&scene, &mut machine, &crew);

    let told = crew.finish();
    let acknowledged: u64 = told.iter().map(|told| told.acknowledged.len() as u64).sum();
    assert_eq!(acknowledged, ALL, "every sender got through");
    scene.hub.wait_for_events(ALL);
    let journal = machine.command(&["journalctl", "--unit", "siteward.service", "--no-pager", "--output=cat"]);
    assert!(journal.contains("Watchdog timeout"), "process {wedged} was stopped and {next} took its place");
    let shown = machine.command(&["systemctl", "show", "siteward.service", "--property=ActiveState,SubState,NRestarts,StatusText"]);
    assert!(shown.contains("ActiveState=active") && shown.contains("SubState=running"), "{shown}");
    machine.command(&["systemctl", "stop", "siteward.service"]);
    scene.hub.stop();
    let audit = scene.hub.audit();
    let broken = audit.broken_promises(&told, mixed_size);
    println!(
        "boot: {ALL} messages through a kill, a cut network with a restart, a wedged process, an abort and two power cuts: acknowledged \
         {acknowledged}, received {}, broken promises {}",
        audit.events(),
        broken.len()
    );
    assert!(broken.is_empty(), "{}", broken.iter().take(20).cloned().collect::<Vec<_>>().join("\n"));
    assert_eq!(audit.events(), ALL);
}

/// Connects all the time while something happens; how often, and how often nobody took the connection.
fn knocking<T>(address: SocketAddr, meanwhile: impl FnOnce() -> T) -> (T, u64, u64) {
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let knocking = scope.spawn(|| {
            let (mut connections, mut refused) = (0, 0);
            while !end.load(Ordering::Relaxed) {
                connections += 1;
                refused += u64::from(TcpStream::connect_timeout(&address, wait::SOON).is_err());
                std::thread::sleep(Duration::from_millis(5));
            }
            (connections, refused)
        });
        let done = meanwhile();
        end.store(true, Ordering::Relaxed);
        let (connections, refused) = knocking.join().expect("the knocking thread ends");
        (done, connections, refused)
    })
}

/// Upgrades while messages come; how many connected meanwhile, and what dpkg said of an older package over a newer spool.
fn upgrade(scene: &Scene, machine: &Machine, newer: &Path, older: &Path) -> (u64, String) {
    let before = machine.agent().expect("the service runs");
    let ((), connections, refused) = knocking(scene.site.addr(), || {
        machine.must(&["dpkg", "--install", &machine.bring(newer)]);
        machine.agent_after(before);
        machine.active();
    });
    assert_eq!(refused, 0, "of {connections} connections during the upgrade");
    assert!(machine.must(&["dpkg-query", "--show", "siteward"]).contains("0.2.0-1"));

    fs::write(machine.path("/var/lib/siteward/format"), "2\n").expect("the spool is marked as newer");
    let refused = machine.attempt(&["dpkg", "--install", &machine.bring(older)]);
    assert!(!refused.status.success(), "an older package is not put over a newer spool");
    assert!(machine.must(&["dpkg-query", "--show", "siteward"]).contains("0.2.0-1"));
    // dpkg starts the installed version again after a refusal. Here that one does not know the mark either, and tries on until it is gone.
    fs::write(machine.path("/var/lib/siteward/format"), "1\n").expect("the spool is as it was");
    machine.active();
    let went_on = machine.agent().expect("the service goes on");
    machine.must(&["dpkg", "--install", &machine.bring(older)]);
    machine.agent_after(went_on);
    (connections, String::from_utf8_lossy(&refused.stderr).into_owned())
}

/// I1, I2: an upgrade and a downgrade under load, and a purge with unconfirmed records, cost no record and no acknowledgement; an older package is
/// refused over a newer spool.
#[test]
fn no_package_that_comes_or_goes_costs_a_record() {
    if cannot() {
        return;
    }
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| {
        configuration.uplink_lines.push("receipt_timeout = \"10s\"".into());
    });
    scene.hub.start();
    let [older, newer] = ["0.1.0-1", "0.2.0-1"].map(|version| machine::package(scene.directory.path(), version));
    let mut machine = Machine::install(&scene.directory.path().join("box"), &older, &scene.site.configuration, "");
    machine.boot();
    listening(&scene, &machine);

    let plan = Plan {
        size: mixed_size,
        pause: Duration::from_millis(5),
        give_up: Duration::from_mins(15),
        ..Plan::new(scene.site.addr(), CONNECTIONS, PER_CONNECTION)
    };
    let crew = Crew::start(&plan);
    wait::wait_while_growing("messages before the upgrade", Duration::from_mins(5), || crew.acknowledged(), ALL / 4);
    let (connections, refusal) = upgrade(&scene, &machine, &newer, &older);
    assert!(refusal.contains("format 2") && refusal.contains("nothing was changed"), "{refusal}");
    wait::wait_while_growing("messages after it", Duration::from_mins(5), || crew.acknowledged(), ALL / 2);

    scene.link.set(Weather::Down);
    let told = crew.finish();

    let purged = machine.must(&["dpkg", "--purge", "siteward"]);
    assert!(purged.contains("/var/lib/siteward (the spool)") && purged.contains("are kept"), "{purged}");
    assert!(machine.agent().is_none() && !machine.path("/usr/bin/siteward").exists());
    scene.link.set(Weather::Fair);
    machine.must(&["dpkg", "--install", &machine.bring(&newer)]);
    machine.must(&["systemctl", "start", "siteward.service"]);
    scene.hub.wait_for_events(ALL);
    machine.must(&["systemctl", "stop", "siteward.service"]);
    scene.hub.stop();
    let audit = scene.hub.audit();
    let broken = audit.broken_promises(&told, mixed_size);
    println!(
        "boot: {ALL} messages through an upgrade, a downgrade and a purge: received {}, broken promises {}; {connections} connections \
         during the upgrade, none refused",
        audit.events(),
        broken.len()
    );
    assert!(broken.is_empty(), "{}", broken.iter().take(20).cloned().collect::<Vec<_>>().join("\n"));
    assert_eq!(audit.events(), ALL);
}

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// A message from inside the machine, which has no network.
fn send_inside(machine: &Machine, address: SocketAddr, id: &str) -> String {
    let script = format!(
        "exec 3<>/dev/tcp/{}/{}; printf '\\x0bMSH|^~\\\\&|A|B|C|D|20260101||DFT^P03|{id}|P|2.5\\rEVN|P03\\x1c\\r' >&3; head -c 20 <&3; timeout 1 cat <&3; true",
        address.ip(),
        address.port()
    );
    machine.must(&["bash", "-c", &script])
}

/// I1, I10: a box that is switched on before anybody has configured it waits; without a network and with its clock at 1970 it captures; and what it
/// captured is at the hub when there is one.
#[test]
fn a_first_day_without_configuration_network_or_clock() {
    if cannot() {
        return;
    }
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |_| {});
    scene.hub.start();
    let package = machine::package(scene.directory.path(), "0.1.0-1");
    let mut machine = Machine::unconfigured(&scene.directory.path().join("box"), &package);
    machine.boot_without_network();
    machine.active();
    let told = machine.must(&["systemctl", "show", "siteward.service", "--property=ActiveState,NRestarts,StatusText"]);
    assert!(told.contains("ActiveState=active") && told.contains("NRestarts=0") && told.contains("not configured"), "{told}");
    println!("boot: not configured: {}", told.lines().collect::<Vec<_>>().join(" "));

    let clock = if Path::new(FAKETIME).exists() {
        fs::copy(FAKETIME, machine.path("/usr/lib/libfaketime.so.1")).expect("the library is copied");
        "Environment=LD_PRELOAD=/usr/lib/libfaketime.so.1 FAKETIME='@1970-01-02 00:00:00' FAKETIME_DISABLE_SHM=1 NO_FAKE_STAT=1 \
         DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1"
    } else {
        println!("boot: libfaketime is not here, so the clock is right");
        ""
    };
    machine.configure(&scene.site.configuration, "");
    wait::wait_until("the service to take up its configuration by itself", wait::EVENTUALLY, || {
        send_inside(&machine, scene.site.addr(), &message::control_id(0, 1)).contains("MSA|")
    });
    machine.cut_power();

    machine.configure(&scene.site.configuration, clock);
    machine.boot_without_network();
    machine.active();
    let answer = send_inside(&machine, scene.site.addr(), &message::control_id(0, 2));
    assert!(answer.contains("MSA|AA|") || answer.contains("MSA|CA|"), "{answer}");
    let status = machine.must(&["siteward", "status", "--json"]);
    println!("boot: no network, clock at 1970: captured; {}", if clock.is_empty() { "" } else { "clock_suspect is said" });
    assert!(clock.is_empty() || status.contains("clock_suspect"), "{status}");
    machine.cut_power();

    machine.configure(&scene.site.configuration, "");
    machine.boot();
    scene.hub.wait_for_events(2);
    machine.must(&["systemctl", "stop", "siteward.service"]);
    scene.hub.stop();
    assert_eq!(scene.hub.audit().events(), 2);
}
