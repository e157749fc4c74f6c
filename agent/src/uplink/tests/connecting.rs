//! Being let in, or not.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet, PubAckReason, SubscribeReasonCode};

use super::broker::Broker;
use super::{Site, connected, timing};
use crate::status::board::UplinkState;
use crate::uplink::{AckReason, NotTaken, Timing, UplinkEvent, sockets};

#[tokio::test]
async fn a_connection_asks_for_what_the_design_says() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 10, timing());
    let mut client = broker.client().await;
    let properties = client.connect.properties.clone().unwrap();
    assert_eq!(client.connect.client_id, "st-marys-gw1");
    assert!(!client.connect.clean_start);
    assert_eq!(properties.session_expiry_interval, Some(7 * 24 * 3600));
    assert_eq!(properties.max_packet_size, Some(1024 * 1024));
    let will = client.will.clone().unwrap();
    assert_eq!((will.topic.as_ref(), will.message.as_ref(), will.retain), (&b"siteward/v1/s/g/status"[..], &b"offline"[..], true));
    client.connack(ConnectReturnCode::Success, |_| {}).await;
    assert_eq!(site.publish(1), Err(NotTaken::NoConnection));
    assert_eq!(client.grant(SubscribeReasonCode::Success(QoS::AtLeastOnce)).await, ["siteward/v1/s/g/receipt", "siteward/v1/s/g/command"]);
    assert_eq!(site.up().await, 10);
    assert_eq!(site.board.uplink().state, UplinkState::Connected);
}

#[tokio::test]
async fn properties_and_payload_arrive_as_they_were_given() {
    let (_broker, mut client, mut site) = connected(10).await;
    site.publish(5).unwrap();
    let publish = client.publish().await;
    let properties = publish.properties.unwrap();
    assert_eq!(publish.payload.as_ref(), b"5");
    assert_eq!(properties.content_type.as_deref(), Some("application/hl7-v2"));
    assert_eq!(properties.user_properties, [("id".to_owned(), "5".to_owned())]);
    client.puback(publish.pkid, PubAckReason::Success).await;
    assert_eq!(site.acked().await, (5, AckReason::Success));
}

#[tokio::test]
async fn a_message_from_the_hub_is_passed_on() {
    let (_broker, mut client, mut site) = connected(10).await;
    client.send("siteward/v1/s/g/receipt", b"{}").await;
    match site.event().await {
        UplinkEvent::Message { topic, payload, .. } => {
            assert_eq!((topic.as_str(), payload.as_ref()), ("siteward/v1/s/g/receipt", &b"{}"[..]));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.packet().await, Some(Packet::PubAck(ack)) if ack.pkid == 7));
}

#[tokio::test]
async fn a_refused_port_is_tried_again_until_somebody_listens() {
    let Broker { listener, endpoint } = Broker::start().await;
    drop(listener);
    let mut site = Site::start_at(vec![endpoint.clone()], 10, timing());
    site.until("uplink_down is raised", |site| site.conditions() == ["uplink_down"]).await;
    let view = site.board.uplink();
    assert_eq!(view.state, UplinkState::Down);
    assert!(view.last_error.unwrap().contains("refuses connections; check that the broker runs"));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", endpoint.port)).await.unwrap();
    let _client = Broker { listener, endpoint }.welcome(|_| {}).await;
    site.up().await;
    site.until("uplink_down is over", |site| site.conditions().is_empty() || site.publish(1).is_ok()).await;
}

#[tokio::test]
async fn bad_credentials_are_told_apart_and_still_tried_again() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 10, timing());
    for _ in 0..3 {
        broker.client().await.connack(ConnectReturnCode::NotAuthorized, |_| {}).await;
    }
    site.until("uplink_refused is raised", |site| site.conditions() == ["uplink_refused"]).await;
    let text = site.board.conditions()[0].text.clone();
    assert!(text.contains(&broker.endpoint.to_string()) && text.contains("register its client id and certificate"), "{text}");
    let _client = broker.welcome(|_| {}).await;
    site.up().await;
    assert_eq!(site.conditions(), [""; 0]);
}

#[tokio::test]
async fn a_refused_subscription_is_not_up() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 10, timing());
    let mut client = broker.client().await;
    client.connack(ConnectReturnCode::Success, |_| {}).await;
    client.grant(SubscribeReasonCode::NotAuthorized).await;
    assert!(client.packet().await.is_none());
    let _client = broker.welcome(|_| {}).await;
    site.until("uplink_refused is gone", |site| site.conditions().is_empty()).await;
    site.up().await;
}

#[tokio::test]
async fn access_rules_that_know_no_commands_yet_do_not_keep_a_gateway_out() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 10, timing());
    let mut client = broker.client().await;
    client.connack(ConnectReturnCode::Success, |_| {}).await;
    client.answer_subscribe(&[SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::NotAuthorized]).await;
    site.up().await;
}

#[tokio::test]
async fn the_next_endpoint_is_tried_when_one_fails_and_the_preferred_one_first_after_progress() {
    let (first, second) = (Broker::start().await, Broker::start().await);
    let mut site = Site::start(&[&first, &second], 10, timing());
    drop(first.client().await);
    let mut client = second.welcome(|_| {}).await;
    site.up().await;
    site.publish(1).unwrap();
    let publish = client.publish().await;
    client.puback(publish.pkid, PubAckReason::Success).await;
    site.acked().await;
    drop(client);
    site.down().await;
    let _client = first.welcome(|_| {}).await;
    site.up().await;
}

#[tokio::test]
async fn a_broker_that_says_nothing_is_given_up() {
    let broker = Broker::start().await;
    let timing = Timing { connect: Duration::from_millis(100), ..timing() };
    let site = Site::start(&[&broker], 10, timing);
    let mut silent = broker.client().await;
    assert!(silent.packet().await.is_none());
    site.until("uplink_down is raised", |site| site.conditions() == ["uplink_down"]).await;
}

#[tokio::test]
async fn a_keep_alive_of_zero_from_the_broker_does_not_spin() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 10, timing());
    let mut client = broker.welcome(|terms| terms.server_keep_alive = Some(0)).await;
    site.up().await;
    for token in 0..50 {
        site.publish(token).unwrap();
        let publish = client.publish().await;
        client.puback(publish.pkid, PubAckReason::Success).await;
        assert_eq!(site.acked().await.0, token);
    }
    assert!(client.line.pings <= 2, "{} pings", client.line.pings);
}

/// A disk that takes no more writes must not keep what it holds: a socket's name is not made on it where the service has a better place.
#[test]
fn sockets_are_in_the_runtime_directory_where_there_is_one() {
    let at = |given: Option<&str>| sockets(given.map(std::ffi::OsStr::new), std::path::Path::new("/var/lib/siteward"));
    assert_eq!(at(Some("/run/siteward")), std::path::Path::new("/run/siteward/uplink"));
    assert_eq!(at(Some("/run/siteward:/run/other")), std::path::Path::new("/run/siteward/uplink"));
    for none in [None, Some(""), Some("relative")] {
        assert_eq!(at(none), std::path::Path::new("/var/lib/siteward/run"));
    }
}
