//! How connections end, and what is known afterwards.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{DisconnectReasonCode, Packet, PubAckReason};
use tokio::time::timeout;

use super::broker::{Broker, HANGS};
use super::{Site, connected, connected_with, timing};
use crate::uplink::{AckReason, NotTaken, Timing};

/// A stall limit that a test can wait for.
const STALL: Duration = Duration::from_secs(1);

fn impatient() -> Timing {
    Timing { ack_stall: STALL, ..timing() }
}

#[tokio::test]
async fn a_connection_dropped_in_the_middle_of_the_window_goes_down_and_comes_again() {
    let (broker, mut client, mut site) = connected(10).await;
    for token in 0..5 {
        site.publish(token).unwrap();
    }
    for token in 0..2 {
        let publish = client.publish().await;
        client.puback(publish.pkid, PubAckReason::Success).await;
        assert_eq!(site.acked().await.0, token);
    }
    drop(client);
    let error = site.down().await;
    assert!(error.starts_with(&broker.endpoint.to_string()), "{error}");
    assert_eq!(site.publish(9), Err(NotTaken::NoConnection));
    let mut client = broker.welcome(|_| {}).await;
    site.up().await;
    // Nothing of the old connection is sent by itself; the forwarder starts again from its own marks.
    site.publish(2).unwrap();
    assert_eq!(client.publish().await.payload, "2");
}

#[tokio::test]
async fn answers_that_came_before_the_end_are_reported_before_it() {
    let (_broker, mut client, mut site) = connected(10).await;
    for token in 0..5 {
        site.publish(token).unwrap();
    }
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.extend([0x40, 2, 0, client.publish().await.pkid as u8]);
    }
    // Three PUBACKs and nonsense in one write.
    answers.extend([0xF0, 0]);
    client.raw(&answers).await;
    for token in 0..3 {
        assert_eq!(site.acked().await, (token, AckReason::Success));
    }
    site.down().await;
}

#[tokio::test]
async fn a_broker_that_answers_late_but_answers_is_not_given_up() {
    let (_broker, mut client, mut site) = connected_with(10, impatient()).await;
    for token in 0..6 {
        site.publish(token).unwrap();
        let publish = client.publish().await;
        tokio::time::sleep(STALL / 3).await;
        client.puback(publish.pkid, PubAckReason::Success).await;
        assert_eq!(site.acked().await.0, token);
    }
}

#[tokio::test]
async fn a_broker_that_answers_pings_but_no_publish_is_given_up() {
    let (broker, mut client, mut site) = connected_with(10, impatient()).await;
    site.publish(1).unwrap();
    client.publish().await;
    let silent = tokio::spawn(async move { client.packet().await });
    let error = site.down().await;
    assert!(error.contains("1 publishes without an answer"), "{error}");
    assert!(silent.await.unwrap().is_none());
    let _client = broker.welcome(|_| {}).await;
    site.up().await;
}

#[tokio::test]
async fn a_line_with_nothing_in_flight_may_be_silent() {
    let (_broker, mut client, mut site) = connected_with(10, impatient()).await;
    tokio::time::sleep(STALL * 2).await;
    site.publish(1).unwrap();
    let publish = client.publish().await;
    client.puback(publish.pkid, PubAckReason::Success).await;
    assert_eq!(site.acked().await.0, 1);
}

#[tokio::test]
async fn a_slow_line_that_moves_is_not_given_up() {
    let (_broker, mut client, mut site) = connected_with(10, impatient()).await;
    // Far more than all buffers between us hold, read slowly: longer than the stall limit altogether.
    site.publish_bytes(1, vec![b'x'; 24 * 1024 * 1024]).unwrap();
    let reading = tokio::spawn(async move {
        client.line.slow(400, STALL / 200).await;
        let publish = client.publish().await;
        client.puback(publish.pkid, PubAckReason::Success).await;
        client
    });
    assert_eq!(site.acked().await, (1, AckReason::Success));
    drop(reading.await.unwrap());
}

#[tokio::test]
async fn a_forwarder_that_does_not_listen_is_not_the_brokers_silence() {
    let (_broker, mut client, mut site) = connected_with(1000, impatient()).await;
    let mut packets = Vec::new();
    for token in 0..500 {
        site.publish(token).unwrap();
        packets.push(client.publish().await.pkid);
    }
    // More answers than the queue of events holds, and one that is still owed.
    for packet in &packets[..499] {
        client.puback(*packet, PubAckReason::Success).await;
    }
    tokio::time::sleep(STALL * 2).await;
    for token in 0..499 {
        assert_eq!(site.acked().await.0, token);
    }
    client.puback(packets[499], PubAckReason::Success).await;
    assert_eq!(site.acked().await.0, 499);
}

#[tokio::test]
async fn a_session_taken_over_is_the_condition_gateway_id_in_use() {
    let (broker, mut client, mut site) = connected(10).await;
    client.disconnect(DisconnectReasonCode::SessionTakenOver).await;
    let error = site.down().await;
    assert!(error.contains("another client took over our session"), "{error}");
    site.until("gateway_id_in_use is raised", |site| site.conditions() == ["gateway_id_in_use"]).await;
    // It comes back, and the condition goes when the connection has lasted.
    let _client = broker.welcome(|_| {}).await;
    site.up().await;
    site.until("gateway_id_in_use is over", |site| site.conditions().is_empty()).await;
}

/// As mosquitto does it.
#[tokio::test]
async fn a_session_taken_over_without_a_word_is_suspected_when_it_goes_on() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 10, timing());
    for _ in 0..5 {
        assert_eq!(site.conditions().iter().filter(|code| **code == "gateway_id_in_use").count(), 0);
        let mut client = broker.welcome(|_| {}).await;
        site.up().await;
        site.publish(1).unwrap();
        let publish = client.publish().await;
        client.puback(publish.pkid, PubAckReason::Success).await;
        site.acked().await;
        drop(client);
        site.down().await;
    }
    site.until("gateway_id_in_use is raised", |site| site.conditions() == ["gateway_id_in_use"]).await;
    assert!(site.board.conditions()[0].text.contains("perhaps another client uses this gateway's id"));
    let _client = broker.welcome(|_| {}).await;
    site.up().await;
}

#[tokio::test]
async fn the_brokers_last_words_are_heard_though_we_are_writing() {
    let (_broker, mut client, mut site) = connected(1000).await;
    for token in 0..1000 {
        site.publish(token).unwrap();
    }
    client.publish().await;
    client.raw(&[0xE0, 2, 0x8B, 0]).await;
    drop(client);
    let error = site.down().await;
    assert!(error.contains("ServerShuttingDown"), "{error}");
}

#[tokio::test]
async fn a_packet_too_large_for_an_undeclared_limit_is_refused_to_its_token() {
    let (broker, mut client, mut site) = connected(10).await;
    for (token, bytes) in [(1, 10), (2, 500), (3, 20)] {
        site.publish_bytes(token, vec![b'x'; bytes]).unwrap();
    }
    client.publish().await;
    client.disconnect(DisconnectReasonCode::PacketTooLarge).await;
    assert_eq!(site.acked().await, (2, AckReason::PacketTooLarge));
    site.down().await;
    let _client = broker.welcome(|_| {}).await;
    site.up().await;
}

#[tokio::test]
async fn a_reason_code_the_library_does_not_know_is_refused_to_its_token() {
    let (_broker, mut client, mut site) = connected(10).await;
    for token in 1..=3 {
        site.publish(token).unwrap();
    }
    let first = client.publish().await;
    let second = client.publish().await;
    client.puback(first.pkid, PubAckReason::Success).await;
    assert_eq!(site.acked().await, (1, AckReason::Success));
    client.raw(&[0x40, 3, 0, second.pkid as u8, 0x95]).await;
    assert_eq!(site.acked().await, (2, AckReason::PacketTooLarge));
    site.down().await;
}

#[tokio::test]
async fn stop_waits_for_what_is_in_flight_and_says_disconnect() {
    let (_broker, mut client, site) = connected(10).await;
    site.publish(1).unwrap();
    let publish = client.publish().await;
    let stopping = tokio::spawn(site.uplink.stop(HANGS));
    tokio::task::yield_now().await;
    client.puback(publish.pkid, PubAckReason::Success).await;
    match client.packet().await {
        Some(Packet::Disconnect(disconnect)) => assert_eq!(disconnect.reason_code, DisconnectReasonCode::NormalDisconnection),
        other => panic!("{other:?}"),
    }
    assert!(client.packet().await.is_none());
    timeout(HANGS, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn stop_does_not_wait_for_a_connection_that_is_not_there() {
    let broker = Broker::start().await;
    let site = Site::start(&[&broker], 10, timing());
    let mut client = broker.client().await;
    timeout(HANGS, site.uplink.stop(HANGS * 10)).await.unwrap();
    assert!(client.packet().await.is_none());
}

#[tokio::test]
async fn a_dropped_uplink_closes_its_connection() {
    let (_broker, mut client, site) = connected(10).await;
    drop(site);
    assert!(client.packet().await.is_none());
}

#[tokio::test]
async fn no_socket_stays_behind() {
    let (_broker, _client, site) = connected(10).await;
    let run = site.directory.path().join("run");
    assert_eq!(std::fs::read_dir(&run).unwrap().count(), 0);
    assert_eq!(std::fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
}
