//! What a fleet costs: the broker at rest, the agents, messages from all of them, and all of them coming back at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::fleet::{Fleet, memory_kib};
use harness::hub::Hub;
use harness::sender::Wire;
use harness::{message, observer, wait};
use serde_json::Value;

use super::Measured;

/// A figure that the broker tells of itself (every ten seconds).
pub fn broker_says(fleet: &Fleet, name: &str) -> u64 {
    let told = observer::retained(fleet.broker.plain(), &format!("$SYS/broker/{name}")).unwrap_or_default();
    String::from_utf8_lossy(&told).parse().unwrap_or(0)
}

/// The broker with nothing to do but keep everybody: share of one core, and packets a second.
pub fn idle(fleet: &Fleet, measured: &mut Measured) {
    let span = Duration::from_secs(if harness::long() { 120 } else { 10 });
    let (cpu, began, messages) = (fleet.broker.process().cpu_seconds(), Instant::now(), broker_says(fleet, "messages/received"));
    std::thread::sleep(span);
    let elapsed = began.elapsed().as_secs_f64();
    measured.broker_idle = (fleet.broker.process().cpu_seconds() - cpu) / elapsed;
    measured.idle_rate = broker_says(fleet, "messages/received").saturating_sub(messages) as f64 / elapsed;
}

/// Own and shared memory, and processor share of an agent, in the mean.
pub fn memory(fleet: &mut Fleet, running: &[usize], measured: &mut Measured) {
    let ids: Vec<u32> = running.iter().map(|&number| fleet.sites[number].process().id()).collect();
    let sums = ids.iter().map(|&id| memory_kib(id)).fold((0, 0), |sum, (own, all)| (sum.0 + own, sum.1 + all));
    let used = |fleet: &mut Fleet| running.iter().map(|&number| fleet.sites[number].process().cpu_seconds()).sum::<f64>();
    let (before, began) = (used(fleet), Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let share = (used(fleet) - before) / began.elapsed().as_secs_f64() / running.len() as f64;
    measured.agent = (sums.0 / ids.len() as u64, sums.1 / ids.len() as u64, share);
}

/// Every gateway is sent messages, several gateways at a time; all of them are at the hub, each once. What that costs the broker.
pub fn events(fleet: &Fleet, hub: &mut Hub, reachable: &[usize], measured: &mut Measured) {
    const EACH: u64 = 20;
    let before = hub.events();
    let (cpu, hub_cpu, began) = (fleet.broker.process().cpu_seconds(), hub.process().cpu_seconds(), Instant::now());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while let Some(&number) = reachable.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut wire = Wire::connect(fleet.sites[number].addr(), wait::SOON).expect("the feed listens");
                    for count in 0..EACH {
                        // The first one of each was sent before.
                        let reply = wire.exchange(&message::build(number, 2 + count, 700)).expect("an answer");
                        assert!(reply.positive());
                    }
                }
            });
        }
    });
    let all = EACH * reachable.len() as u64;
    hub.wait_for_events(before + all);
    let took = began.elapsed();
    measured.events = (all, took, fleet.broker.process().cpu_seconds() - cpu, hub.process().cpu_seconds() - hub_cpu);
    let complaints = hub.audit().complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// The broker goes away and comes back: everybody is online again without being asked, and what the broker had to do for it.
pub fn storm(fleet: &mut Fleet, reachable: &[usize], measured: &mut Measured) {
    let before: Vec<Value> = reachable.iter().map(|&number| fleet.watcher.since(number)).collect();
    fleet.broker.stop();
    // Long enough for everybody to notice and to begin with pauses.
    std::thread::sleep(Duration::from_secs(5));
    let began = Instant::now();
    fleet.broker.restart();
    let mut times = Vec::new();
    let mut left: Vec<(usize, Value)> = reachable.iter().copied().zip(before).collect();
    let done = wait::try_until(2 * wait::EVENTUALLY, || {
        left.retain(|(number, since)| {
            let back = fleet.watcher.is_online(*number) && fleet.watcher.since(*number) != *since;
            if back {
                times.push(began.elapsed());
            }
            !back
        });
        left.is_empty()
    });
    assert!(done, "{} are not back; one of them is {}", left.len(), fleet.story(left[0].0));
    let half = times[times.len() / 2];
    measured.storm = (half, began.elapsed(), fleet.broker.process().cpu_seconds());
}
