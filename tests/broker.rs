//! Brokers as they are: refusing, forgetting, slow, mute. A scripted broker plays each of them; nothing acknowledged to a sender is lost in any.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::broker::{Answer, Broker, Seen, Welcome};
use harness::message;
use harness::scene::Directory;
use harness::site::{Configuration, Feed, Site, Uplink};
use harness::wait;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, PubAckReason};

const OK: Answer = Answer::Ack(PubAckReason::Success);

/// A site whose promise ends at the scripted broker.
struct Gateway {
    site: Site,
    _directory: Directory,
}

impl Gateway {
    fn start(broker: &Broker, adjust: impl FnOnce(&mut Configuration)) -> Self {
        let directory = Directory::new();
        let mut configuration = Configuration::new(directory.path());
        configuration.uplink = Uplink::Plain { port: broker.port() };
        configuration.uplink_lines.push("confirm = \"puback\"".into());
        adjust(&mut configuration);
        let mut site = Site::new(directory.path(), configuration);
        site.start();
        Self { site, _directory: directory }
    }

    /// Sends and sees acknowledged messages `1..=count` on the feed.
    fn send(&self, feed: usize, count: u64) {
        let addr = self.site.configuration.feeds[feed].addr();
        let mut wire = harness::sender::Wire::connect(addr, wait::SOON).expect("a connection");
        for number in 1..=count {
            let reply = wire.exchange(&message::build(feed, number, 700)).expect("an answer, whatever the broker does");
            assert!(reply.positive());
        }
    }

    fn drained(&self) {
        wait::wait_until("everything is settled", wait::EVENTUALLY, || self.site.try_queued() == Some(0));
    }
}

/// Sequence numbers in the order in which the broker first saw them.
fn first_arrivals(seen: &[Seen]) -> Vec<u64> {
    let mut first = Vec::new();
    for seq in seen.iter().filter_map(Seen::seq) {
        if !first.contains(&seq) {
            first.push(seq);
        }
    }
    first
}

/// I2, I3: an event is what the contract says, under the contract's topic.
#[test]
fn an_event_is_as_the_contract_says() {
    let broker = Broker::start(Welcome::default(), |_| OK);
    let gateway = Gateway::start(&broker, |_| {});
    gateway.send(0, 2);
    wait::wait_until("two events", wait::EVENTUALLY, || broker.events().len() == 2);
    let event = &broker.events()[0];
    assert_eq!(event.topic, "siteward/v1/st-marys/st-marys-gw1/event/or-usage");
    assert_eq!(event.payload, message::build(0, 1, 700));
    assert!(!event.retain);
    let incarnation = event.attribute("incarnation").expect("an incarnation");
    assert_eq!(event.attribute("id"), Some(format!("st-marys-gw1/or-usage/{incarnation}/1/raw").as_str()));
    let fixed = [
        ("specversion", "1.0"),
        ("type", "siteward.message.raw.v1"),
        ("sequence", "1"),
        ("itemindex", "0"),
        ("itemcount", "1"),
        ("lane", "critical"),
        ("stage", "live"),
        ("controlid", "C00S000001"),
    ];
    for (name, value) in fixed {
        assert_eq!(event.attribute(name), Some(value), "{name}");
    }
    let seen = broker.seen();
    let open = seen.iter().position(|s| s.topic.ends_with("/checkpoint")).expect("an open checkpoint");
    let first = seen.iter().position(Seen::is_event).expect("an event");
    assert!(open < first, "the open checkpoint comes before the first event");
    assert!(seen.iter().any(|s| s.topic.ends_with("/status") && s.retain), "a retained status");
    gateway.drained();
}

/// I2: "no matching subscribers" is not a place where a promise can end: held, told, sent when somebody is there.
#[test]
fn no_subscriber_means_held_and_told_and_sent_later() {
    let open = Arc::new(AtomicBool::new(false));
    let somebody = open.clone();
    let broker = Broker::start(Welcome::default(), move |seen| {
        let heard = !seen.is_event() || somebody.load(Ordering::Relaxed);
        Answer::Ack(if heard { PubAckReason::Success } else { PubAckReason::NoMatchingSubscribers })
    });
    let gateway = Gateway::start(&broker, |_| {});
    gateway.send(0, 20);
    gateway.site.condition("hub_not_subscribed", wait::EVENTUALLY);
    assert_eq!(gateway.site.try_queued(), Some(20));
    open.store(true, Ordering::Relaxed);
    gateway.drained();
    wait::wait_until("the condition ends", wait::SOON, || !gateway.site.conditions().iter().any(|c| c == "hub_not_subscribed"));
}

/// I2: "no matching subscribers" to a checkpoint or status holds up nothing.
#[test]
fn nobody_reading_checkpoints_holds_up_nothing() {
    let broker = Broker::start(Welcome::default(), |seen| {
        Answer::Ack(if seen.is_event() { PubAckReason::Success } else { PubAckReason::NoMatchingSubscribers })
    });
    let gateway = Gateway::start(&broker, |_| {});
    gateway.send(0, 50);
    gateway.drained();
}

/// I3: a refused feed waits and loses nothing; the others go on.
#[test]
fn a_quota_parks_one_feed_only() {
    let open = Arc::new(AtomicBool::new(false));
    let mended = open.clone();
    let broker = Broker::start(Welcome::default(), move |seen| {
        let refused = seen.topic.ends_with("/event/or-usage") && !mended.load(Ordering::Relaxed);
        Answer::Ack(if refused { PubAckReason::QuotaExceeded } else { PubAckReason::Success })
    });
    let gateway = Gateway::start(&broker, |c| c.feeds.push(Feed::new("cabinet-export", "normal")));
    gateway.send(0, 10);
    gateway.send(1, 10);
    gateway.site.condition("feed_parked", wait::EVENTUALLY);
    wait::wait_until("the other feed", wait::EVENTUALLY, || gateway.site.feed_status("cabinet-export")["queued"] == 0);
    assert_eq!(gateway.site.feed_status("or-usage")["queued"], 10);
    open.store(true, Ordering::Relaxed);
    gateway.drained();
    let mut seqs: Vec<u64> = broker.events().iter().filter(|s| s.topic.ends_with("/or-usage")).filter_map(Seen::seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
}

/// I4: what the broker's packet limit forbids is told and kept; what fits goes on.
#[test]
fn a_message_above_the_brokers_packet_limit_is_told_and_holds_up_nobody() {
    let broker = Broker::start(Welcome { packet_bytes_max: Some(64 * 1024), ..Welcome::default() }, |_| OK);
    let gateway = Gateway::start(&broker, |_| {});
    let mut wire = gateway.site.wire();
    for (number, size) in [(1, 700), (2, 200_000), (3, 700)] {
        assert!(wire.exchange(&message::build(0, number, size)).expect("an answer").positive());
    }
    gateway.site.condition("broker_packet_limit", wait::EVENTUALLY);
    wait::wait_until("the third message", wait::EVENTUALLY, || broker.events().iter().any(|s| s.seq() == Some(3)));
    assert!(broker.events().iter().all(|s| s.seq() != Some(2)), "never sent against the limit");
    let told =
        || broker.seen().iter().any(|s| s.topic.ends_with("/outcome/or-usage") && harness::canary::contains(&s.payload, b"exception"));
    wait::wait_until("an exception for the second", wait::EVENTUALLY, told);
}

/// I3, I4: never more in flight than the broker allows, also when it allows less than before.
#[test]
fn a_receive_maximum_that_shrinks_is_kept() {
    let slow = |_: &Seen| Answer::Late(Duration::from_millis(5));
    let broker = Broker::start(Welcome { receive_maximum: Some(50), ..Welcome::default() }, slow);
    let gateway = Gateway::start(&broker, |_| {});
    gateway.send(0, 300);
    broker.welcome(Welcome { receive_maximum: Some(3), ..Welcome::default() });
    broker.cut();
    gateway.drained();
    let seen = broker.seen();
    assert!(seen.iter().filter(|s| s.connection == 1).all(|s| s.in_flight <= 50));
    let worst = seen.iter().filter(|s| s.connection > 1).map(|s| s.in_flight).max();
    assert!(worst.is_none_or(|w| w <= 3), "{worst:?} in flight where 3 were allowed");
    assert_eq!(first_arrivals(&broker.events()), (1..=300).collect::<Vec<_>>());
}

/// I2, I3: late acknowledgements are acknowledgements.
#[test]
fn late_acknowledgements_are_taken() {
    let broker = Broker::start(Welcome::default(), |_| Answer::Late(Duration::from_millis(300)));
    let gateway = Gateway::start(&broker, |_| {});
    gateway.send(0, 200);
    gateway.drained();
    assert_eq!(broker.connections(), 1);
    assert_eq!(first_arrivals(&broker.events()), (1..=200).collect::<Vec<_>>());
}

/// I2: a broker that hangs up in the middle gets everything it has not acknowledged again, in order.
#[test]
fn a_broker_that_hangs_up_gets_the_rest_again_in_order() {
    let mut count = 0;
    let broker = Broker::start(Welcome::default(), move |seen| {
        count += u64::from(seen.is_event());
        if seen.is_event() && count % 40 == 0 { Answer::HangUp } else { OK }
    });
    let gateway = Gateway::start(&broker, |_| {});
    gateway.send(0, 150);
    gateway.drained();
    assert!(broker.connections() > 2);
    assert_eq!(first_arrivals(&broker.events()), (1..=150).collect::<Vec<_>>());
}

/// I2: DISCONNECT with a reason is a lost connection, not a lost message.
#[test]
fn a_broker_that_says_goodbye_is_come_back_to() {
    let mut said = false;
    let broker = Broker::start(Welcome::default(), move |seen| {
        if seen.is_event() && !std::mem::replace(&mut said, true) {
            return Answer::Disconnect(DisconnectReasonCode::ServerShuttingDown);
        }
        OK
    });
    let gateway = Gateway::start(&broker, |_| {});
    gateway.send(0, 30);
    gateway.drained();
    assert_eq!(first_arrivals(&broker.events()), (1..=30).collect::<Vec<_>>());
}

/// I2: a CONNACK that refuses is told with its reason and tried again.
#[test]
fn a_refused_connection_is_told_and_tried_again() {
    let broker = Broker::start(Welcome { code: ConnectReturnCode::NotAuthorized, ..Welcome::default() }, |_| OK);
    let gateway = Gateway::start(&broker, |_| {});
    gateway.send(0, 5);
    gateway.site.condition("uplink_refused", wait::EVENTUALLY);
    assert!(!gateway.site.status()["uplink"]["last_error"].is_null());
    assert_eq!(gateway.site.try_queued(), Some(5));
    if harness::long() {
        broker.welcome(Welcome::default());
        wait::wait_until("everything is settled", Duration::from_secs(700), || gateway.site.try_queued() == Some(0));
    }
}

/// I2: PUBACK alone settles nothing where receipts are asked for.
#[test]
fn an_acknowledgement_is_no_receipt() {
    let broker = Broker::start(Welcome::default(), |_| OK);
    let gateway = Gateway::start(&broker, |c| {
        c.uplink_lines = vec!["confirm = \"receipt\"".into(), "receipt_timeout = \"2s\"".into()];
    });
    gateway.send(0, 10);
    wait::wait_until("all ten", wait::EVENTUALLY, || broker.events().len() >= 10);
    gateway.site.condition("receipts_missing", wait::EVENTUALLY);
    assert_eq!(gateway.site.try_queued(), Some(10), "nothing is released without a receipt");
    wait::wait_until("they are sent again", wait::EVENTUALLY, || broker.events().len() >= 20);
}

/// I2: a broker that answers pings and never acknowledges is noticed by the stall limit (half a minute, so only in the long suite).
#[test]
fn a_broker_that_never_acknowledges_is_given_up() {
    if !harness::long() {
        println!("skipped: waits for the stall limit; SITEWARD_LONG=1 runs it");
        return;
    }
    let broker = Broker::start(Welcome::default(), |seen| if seen.is_event() { Answer::Never } else { OK });
    let gateway = Gateway::start(&broker, |_| {});
    gateway.send(0, 10);
    wait::wait_until("a second connection", wait::EVENTUALLY, || broker.connections() >= 2);
    assert_eq!(gateway.site.try_queued(), Some(10));
    broker.script(|_| OK);
    gateway.drained();
    let first: Vec<u64> = first_arrivals(&broker.events());
    assert_eq!(first, (1..=10).collect::<Vec<_>>());
}
