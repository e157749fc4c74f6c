//! The service under a kernel of its own: the limits of its unit are real there. The kernel kills it for its memory, again and again, and cuts its
//! power in the end. Only with `SITEWARD_LONG=1`, where such a box can be emulated.

use std::time::Duration;

use harness::kernel::{self, Booted};
use harness::machine::{self, Machine};
use harness::message::mixed_size;
use harness::mosquitto;
use harness::scene::Scene;
use harness::sender::{Crew, Plan};
use harness::wait;

const CONNECTIONS: usize = 4;
const PER_CONNECTION: u64 = 300;
const ALL: u64 = CONNECTIONS as u64 * PER_CONNECTION;
const KILLS: u64 = 3;
/// Less than it has in use when it only waits.
const TOO_LITTLE: &str = "1M";
const PATIENCE: Duration = Duration::from_mins(5);

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|_| panic!("no number: {text}"))
}

/// I1, I2, I3: a service that the kernel kills for its memory is never left stopped, and neither that nor a power cut costs what was acknowledged.
#[test]
fn killed_for_its_memory_it_comes_back_and_nothing_is_lost() {
    if !harness::long() {
        return println!("skipped: boots a machine; SITEWARD_LONG=1 runs it");
    }
    if let Some(what) = machine::missing().or_else(kernel::missing) {
        return println!("kernel: needs {what}, which this machine does not have; skipped");
    }
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| {
        configuration.feeds[0].host = "0.0.0.0";
        configuration.feeds[0].mllp.push("peers = [\"10.0.2.0/24\"]".into());
    });
    let package = machine::package(scene.directory.path(), "0.1.0-1");
    let directory = scene.directory.path().join("box");
    let mut machine = Machine::install(&directory, &package, &scene.site.configuration, "");
    let root = machine.path("/");
    let mut booted = Booted::boot(&root, &directory, scene.site.addr().port());
    let is_active = "systemctl is-active --quiet siteward.service && siteward status --json | grep -q or-usage";
    booted.wait_for("the service runs", PATIENCE, is_active);

    let group = "/sys/fs/cgroup/system.slice/siteward.service";
    let limits = ["memory.max", "memory.high", "pids.max"].map(|file| number(&booted.must(&format!("cat {group}/{file}"))));
    assert_eq!(limits, [384 << 20, 256 << 20, 512], "what the unit says is what the kernel holds it to");

    let plan = Plan {
        size: mixed_size,
        pause: Duration::from_millis(20),
        patience: Duration::from_secs(20),
        give_up: Duration::from_mins(20),
        ..Plan::new(scene.site.addr(), CONNECTIONS, PER_CONNECTION)
    };
    let crew = Crew::start(&plan);
    wait::wait_while_growing("messages before memory is short", PATIENCE, || crew.acknowledged(), ALL / 4);
    let (peak, now) =
        (number(&booted.must(&format!("cat {group}/memory.peak"))), number(&booted.must(&format!("cat {group}/memory.current"))));
    let property = "systemctl set-property --runtime siteward.service MemoryHigh=infinity MemorySwapMax=0";
    let kills = "journalctl --unit siteward.service --no-pager --output=cat | grep -c \"Failed with result 'oom-kill'\"";
    for kill in 1..=KILLS {
        booted.must(&format!("{property} MemoryMax={TOO_LITTLE}"));
        booted.wait_for("the kernel kills it", PATIENCE, &format!("[ $({kills}) -ge {kill} ]"));
        booted.must(&format!("{property} MemoryMax=384M"));
        booted.wait_for("it runs again, by itself", PATIENCE, is_active);
        let more = (crew.acknowledged() + ALL / 8).min(ALL);
        wait::wait_while_growing("messages after it", PATIENCE, || crew.acknowledged(), more);
    }
    let (killed, state) = (number(&booted.must(kills)), booted.must("systemctl show siteward.service --property=ActiveState,SubState"));
    assert!(state.contains("ActiveState=active") && state.contains("SubState=running"), "{state}");
    let told = crew.finish();
    let acknowledged: u64 = told.iter().map(|told| told.acknowledged.len() as u64).sum();
    assert_eq!(acknowledged, ALL, "every sender got through");
    booted.cut_power_and_bring_home(&root, "/var/lib/siteward");

    // The same disk in a box that reaches the hub.
    scene.hub.start();
    machine.boot();
    machine.active();
    scene.hub.wait_for_events(ALL);
    machine.must(&["systemctl", "stop", "siteward.service"]);
    scene.hub.stop();
    let audit = scene.hub.audit();
    let broken = audit.broken_promises(&told, mixed_size);
    println!(
        "kernel: MemoryMax 384 MiB, MemoryHigh 256 MiB and TasksMax 512 hold in cgroup v2; {:.1} MB at most under load, {:.1} MB then; killed {killed} \
         times where it had {TOO_LITTLE}, each time it came back; after a power cut: acknowledged {acknowledged}, received {}, broken promises {}",
        peak as f64 / 1e6,
        now as f64 / 1e6,
        audit.events(),
        broken.len()
    );
    assert!(broken.is_empty(), "{}", broken.iter().take(20).cloned().collect::<Vec<_>>().join("\n"));
    assert_eq!(audit.events(), ALL);
}
