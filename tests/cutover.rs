//! A feed is moved from an old engine to the gateway and back while messages are under way, by a sender that keeps what is not answered and
//! drops what is refused.

use harness::destination::{DestinationQueue, OldEngine};
use harness::link::Link;
use harness::message;
use harness::mosquitto;
use harness::scene::Scene;
use harness::wait;

const CONNECTION: usize = 7;
const MESSAGES: u64 = 400;
/// Above the limit of this site: refused for good, by the gateway only.
const TOO_LARGE: u64 = 200;

fn size(_: usize, number: u64) -> usize {
    if number == TOO_LARGE { 100_000 } else { 700 }
}

/// Consecutive repetitions become one; the repeated numbers are the second result.
fn without_repetitions(numbers: &[u64]) -> (Vec<u64>, Vec<u64>) {
    let (mut once, mut repeated) = (Vec::new(), Vec::new());
    for number in numbers {
        if once.last() == Some(number) { repeated.push(*number) } else { once.push(*number) }
    }
    (once, repeated)
}

/// I1, I3: old engine, gateway, old engine: together they have every message in order. A message is in two places only where the answer of the
/// first was lost; the gateway has each at most once and counts what came again.
#[test]
fn a_feed_moves_to_the_gateway_and_back_with_messages_under_way() {
    let mut scene = Scene::new(mosquitto::Options::default(), |c| c.spool_lines.push("message_bytes_max = \"64KiB\"".into()));
    scene.start();
    let old = OldEngine::start();
    // between sender and gateway, so that an answer can be lost on its way
    let access = Link::start(scene.site.addr());
    let queue = DestinationQueue::start(old.addr(), CONNECTION, MESSAGES, size);

    wait::wait_while_growing("answered by the old engine", wait::SOON, || queue.answered(), 100);
    old.stop_in_the_middle();
    wait::wait_until("the old engine stops", wait::SOON, || old.stopped());
    queue.switch(access.addr());
    let before = old.stored();

    wait::wait_while_growing("answered by the gateway", wait::EVENTUALLY, || queue.answered(), 150);
    for cut in 0..5 {
        access.cut();
        wait::wait_while_growing("answered after a cut", wait::EVENTUALLY, || queue.answered(), 160 + cut * 20);
    }
    scene.site.kill();
    scene.site.start();
    wait::wait_while_growing("answered after a crash", wait::EVENTUALLY, || queue.answered(), 300);

    old.resume();
    queue.switch(old.addr());
    access.cut();
    let outcome = queue.finish();
    let (all_old, _) = without_repetitions(&old.stored());
    let after: Vec<u64> = all_old.iter().copied().filter(|n| !before.contains(n)).collect();

    assert_eq!(outcome.errors, vec![(TOO_LARGE, "AR".to_owned())], "what is refused is dropped and known to be");
    let expected: Vec<u64> = (1..=MESSAGES).filter(|n| *n != TOO_LARGE).collect();
    assert_eq!(outcome.sent, expected);

    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    let status = scene.site.feed_status("or-usage");
    scene.site.stop();
    scene.hub.stop();
    let audit = scene.hub.audit();
    assert_eq!(audit.broken_promises(&[], size), Vec::<String>::new());
    let mut rows: Vec<_> = audit.feeds.values().flatten().collect();
    rows.sort_by_key(|r| r.seq);
    let gateway: Vec<u64> = rows.iter().map(|r| r.number).collect();

    // each place has its part in order, and the parts meet in at most the one message that was under way
    assert!(gateway.len() > 100 && !after.is_empty());
    let together: Vec<u64> = before.iter().chain(&gateway).chain(&after).copied().collect();
    let (set, twice) = without_repetitions(&together);
    assert_eq!(set, expected, "same messages, same order");
    assert!(twice.iter().all(|n| outcome.resent.contains(n)), "{twice:?} are in two places; resent were {:?}", outcome.resent);
    assert!(
        twice.contains(before.last().expect("the old engine had some")),
        "stored there without an answer, so sent to the gateway again"
    );
    assert!(twice.len() <= 2, "{twice:?}");
    // what came to the gateway again was recognised: never a second record, counted as a duplicate
    let repeated_here = status["duplicates"].as_u64().expect("a count");
    assert!(repeated_here <= outcome.resent.len() as u64, "{repeated_here} duplicates, {:?}", outcome.resent);
    assert_eq!(gateway.iter().collect::<std::collections::BTreeSet<_>>().len(), gateway.len());
}

/// I1: an answer that is lost behind the gateway's back is given again, byte for byte, and the message is one record.
#[test]
fn a_resend_to_the_gateway_is_identified_and_answered_as_before() {
    let gateway = harness::gateway::Gateway::start(|_| {});
    let message = message::build(CONNECTION, 1, 700);
    let first = gateway.site.wire().exchange(&message).expect("an answer");
    let second = gateway.site.wire().exchange(&message).expect("an answer");
    assert_eq!(first, second);
    let status = gateway.site.feed_status("or-usage");
    assert_eq!((status["captured"].as_u64(), status["duplicates"].as_u64()), (Some(1), Some(1)), "{status}");
}
