//! Windows, tokens, sizes.

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, Publish, PublishProperties};

use super::broker::Broker;
use super::{Site, connected, timing};
use crate::uplink::{AckReason, NotTaken, Outgoing, UplinkEvent, publisher};

#[tokio::test]
async fn the_window_is_the_smaller_of_ours_and_the_brokers() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 10, timing());
    let mut client = broker.welcome(|terms| terms.receive_max = Some(3)).await;
    assert_eq!(site.up().await, 3);
    for token in 0..3 {
        site.publish(token).unwrap();
    }
    assert_eq!(site.publish(3), Err(NotTaken::WindowFull));
    let publish = client.publish().await;
    client.puback(publish.pkid, PubAckReason::Success).await;
    assert_eq!(site.acked().await, (0, AckReason::Success));
    assert_eq!(site.publish(3), Ok(()));
}

#[tokio::test]
async fn a_receive_maximum_that_shrinks_between_connections_loses_nothing() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 20, timing());
    for receive_max in [20, 5, 1, 12] {
        let mut client = broker.welcome(|terms| terms.receive_max = Some(receive_max)).await;
        let window = site.up().await as u64;
        assert_eq!(window, u64::from(receive_max));
        let mut next = 0;
        for token in 0..window * 5 {
            while next < token + window && site.publish(next).is_ok() {
                next += 1;
            }
            let publish = client.publish().await;
            assert!(publish.pkid <= receive_max.max(1));
            assert_eq!(publish.payload, token.to_string());
            client.puback(publish.pkid, PubAckReason::Success).await;
            assert_eq!(site.acked().await, (token, AckReason::Success));
        }
        drop(client);
        site.down().await;
    }
}

#[tokio::test]
async fn every_reason_comes_back_with_its_token() {
    let (_broker, mut client, mut site) = connected(10).await;
    let reasons = [
        (PubAckReason::Success, AckReason::Success),
        (PubAckReason::NoMatchingSubscribers, AckReason::NoMatchingSubscribers),
        (PubAckReason::NotAuthorized, AckReason::NotAuthorized),
        (PubAckReason::QuotaExceeded, AckReason::QuotaExceeded),
        (PubAckReason::PayloadFormatInvalid, AckReason::PayloadFormatInvalid),
        (PubAckReason::TopicNameInvalid, AckReason::TopicNameInvalid),
        (PubAckReason::UnspecifiedError, AckReason::Other(0x80)),
    ];
    for (token, (reason, expected)) in (0..).zip(reasons) {
        site.publish(token).unwrap();
        let publish = client.publish().await;
        client.puback(publish.pkid, reason).await;
        assert_eq!(site.acked().await, (token, expected));
    }
}

#[tokio::test]
async fn tokens_are_paired_right_when_the_broker_answers_out_of_order() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 4, timing());
    let mut client = broker.welcome(|terms| terms.receive_max = Some(4)).await;
    site.up().await;
    let mut next = 0;
    // The first of each four is answered last, with a refusal: the case in which rumqttc's own window would never move again.
    for _ in 0..20 {
        let mut sent = Vec::new();
        while site.publish(next).is_ok() {
            next += 1;
            sent.push(client.publish().await);
        }
        assert_eq!(sent.len(), 4);
        for publish in sent.iter().skip(1).chain(sent.first()) {
            client.puback(publish.pkid, PubAckReason::QuotaExceeded).await;
            let expected: u64 = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
            assert_eq!(site.acked().await, (expected, AckReason::QuotaExceeded));
        }
    }
}

#[tokio::test]
async fn a_packet_over_the_brokers_limit_is_given_back_and_the_connection_stays() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 10, timing());
    let mut client = broker.welcome(|terms| terms.max_packet_size = Some(200)).await;
    assert_eq!(site.up().await, 10);
    assert_eq!(site.publish_bytes(1, vec![b'x'; 200]), Err(NotTaken::TooLarge { packet_bytes_max: 200 }));
    site.publish(2).unwrap();
    assert_eq!(client.publish().await.payload, "2");
}

#[test]
fn a_packet_is_measured_as_it_is_written() {
    for payload in [0, 1, 90, 127, 128, 16_000, 16_384, 2_097_152] {
        for (content_type, count) in [(None, 0), (Some("application/hl7-v2".to_owned()), 16)] {
            let properties: Vec<_> = (0..count).map(|n| (format!("name{n}"), "value".repeat(n))).collect();
            let outgoing = Outgoing {
                token: 0,
                topic: "a/topic".into(),
                payload: vec![0; payload].into(),
                content_type: content_type.clone(),
                properties: properties.clone(),
                retain: false,
            };
            let properties = PublishProperties { user_properties: properties, content_type, ..PublishProperties::default() };
            let mut publish = Publish::new("a/topic", QoS::AtLeastOnce, vec![0; payload], Some(properties));
            publish.pkid = 1;
            assert_eq!(publisher::packet_bytes(&outgoing, None), Ok(publish.size()));
        }
    }
}

#[tokio::test]
async fn a_retained_publish_goes_without_the_flag_where_the_broker_cannot_retain() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 10, timing());
    let mut client = broker.welcome(|terms| terms.retain_available = Some(0)).await;
    site.up().await;
    let outgoing =
        Outgoing { token: 1, topic: "t".into(), payload: Bytes::new(), content_type: None, properties: Vec::new(), retain: true };
    site.uplink.try_publish(outgoing).unwrap();
    assert!(!client.publish().await.retain);
}

/// I7
#[test]
fn neither_publishes_nor_messages_show_their_content() {
    let canary = || Bytes::from_static(b"CANARY");
    let properties = vec![("controlid".into(), "CANARY".into())];
    let outgoing = Outgoing { token: 1, topic: "t".into(), payload: canary(), content_type: None, properties, retain: false };
    let message = UplinkEvent::Message { topic: "t".into(), payload: canary(), retained: false };
    assert_eq!(format!("{outgoing:?} / {message:?}"), "publish 1 to t [6 bytes, 1 properties, retain false] / message on t [6 bytes]");
}
