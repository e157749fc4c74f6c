//! Several endpoints: other settings at run time, and the way back to a preferred one.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet, PubAckReason};

use super::broker::{Broker, Client};
use super::{Site, settings, timing};
use crate::config::settings::EndpointOrigin;
use crate::uplink::{NotTaken, Timing, UplinkEvent};

/// Returns are tried soon.
fn eager() -> Timing {
    let soon = Duration::from_millis(20);
    Timing { return_min: soon, return_dial_max: soon, return_max: soon, ..timing() }
}

/// A client that leaves in order: its last publish is `offline`, then DISCONNECT.
async fn left(client: &mut Client) {
    let farewell = client.publish().await;
    assert_eq!((farewell.topic.as_ref(), farewell.payload.as_ref()), (&b"siteward/v1/s/g/status"[..], &b"offline"[..]));
    assert!(farewell.retain);
    client.puback(farewell.pkid, PubAckReason::Success).await;
    assert!(matches!(client.packet().await, Some(Packet::Disconnect(_))));
}

#[tokio::test]
async fn other_settings_end_the_connection_when_everything_is_answered_and_dial_by_the_new_preference() {
    let (old, new) = (Broker::start().await, Broker::start().await);
    let mut site = Site::start(&[&old], 10, timing());
    let mut client = old.welcome(|_| {}).await;
    site.up().await;
    site.publish(1).unwrap();
    let publish = client.publish().await;
    let added = new.endpoint.clone().added(None);
    site.uplink.replace(settings(vec![added.clone(), old.endpoint.clone()], 10));
    assert_eq!(site.publish(2), Err(NotTaken::NoConnection), "nothing more goes over the old connection");
    let farewell = client.publish().await;
    client.puback(publish.pkid, PubAckReason::Success).await;
    assert_eq!(site.acked().await.0, 1);
    client.puback(farewell.pkid, PubAckReason::Success).await;
    assert!(matches!(client.packet().await, Some(Packet::Disconnect(_))));
    assert_eq!(site.acked().await.0, u64::MAX);
    site.down().await;
    let _client = new.welcome(|_| {}).await;
    match site.event().await {
        UplinkEvent::Up { endpoint, .. } => assert_eq!((endpoint.origin, &endpoint), (EndpointOrigin::Added, &added)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_broker_that_owes_an_answer_does_not_hold_up_other_settings_for_ever() {
    let (old, new) = (Broker::start().await, Broker::start().await);
    let mut site = Site::start(&[&old], 10, Timing { leave: Duration::from_millis(50), ..timing() });
    let mut client = old.welcome(|_| {}).await;
    site.up().await;
    site.publish(1).unwrap();
    client.publish().await;
    site.uplink.replace(settings(vec![new.endpoint.clone()], 10));
    site.down().await;
    let _client = new.welcome(|_| {}).await;
    site.up().await;
}

#[tokio::test]
async fn other_settings_are_taken_while_nothing_is_connected() {
    let (dead, new) = (Broker::start().await, Broker::start().await);
    let endpoint = dead.endpoint.clone();
    drop(dead);
    let slow = Duration::from_secs(3600);
    let mut site = Site::start_at(vec![endpoint], 10, Timing { backoff_min: slow, backoff_max: slow, ..timing() });
    site.until("uplink_down is raised", |site| site.conditions() == ["uplink_down"]).await;
    site.uplink.replace(settings(vec![new.endpoint.clone()], 10));
    let _client = new.welcome(|_| {}).await;
    site.up().await;
}

#[tokio::test]
async fn the_same_settings_change_nothing() {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], 10, timing());
    let mut client = broker.welcome(|_| {}).await;
    site.up().await;
    site.uplink.replace(settings(vec![broker.endpoint.clone()], 10));
    site.publish(1).unwrap();
    client.publish().await;
}

#[tokio::test]
async fn a_preferred_endpoint_that_is_back_is_returned_to_in_order() {
    let Broker { listener, endpoint } = Broker::start().await;
    drop(listener);
    let spare = Broker::start().await;
    let mut site = Site::start_at(vec![endpoint.clone(), spare.endpoint.clone()], 10, eager());
    let mut client = spare.welcome(|_| {}).await;
    site.up().await;
    site.publish(1).unwrap();
    let publish = client.publish().await;
    client.puback(publish.pkid, PubAckReason::Success).await;
    site.acked().await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", endpoint.port)).await.unwrap();
    let preferred = Broker { listener, endpoint };
    drop(preferred.listener.accept().await.unwrap()); // the dial, nothing is said on it
    left(&mut client).await;
    site.acked().await;
    site.down().await;
    let _client = preferred.welcome(|_| {}).await;
    site.up().await;
}

#[tokio::test]
async fn a_preferred_endpoint_that_answers_the_dial_but_lets_nobody_in_gives_way_to_the_spare_again() {
    let (preferred, spare) = (Broker::start().await, Broker::start().await);
    let late = Duration::from_secs(3600);
    let mut site = Site::start(&[&preferred, &spare], 10, Timing { return_max: late, ..eager() });
    preferred.client().await.connack(ConnectReturnCode::NotAuthorized, |_| {}).await;
    let mut client = spare.welcome(|_| {}).await;
    site.up().await;
    drop(preferred.listener.accept().await.unwrap());
    left(&mut client).await;
    site.acked().await;
    site.down().await;
    preferred.client().await.connack(ConnectReturnCode::NotAuthorized, |_| {}).await;
    let _client = spare.welcome(|_| {}).await;
    site.up().await;
}

#[tokio::test]
async fn a_preferred_endpoint_that_takes_one_publish_and_dies_does_not_starve_the_spare() {
    let (preferred, spare) = (Broker::start().await, Broker::start().await);
    let mut site = Site::start(&[&preferred, &spare], 10, timing());
    let mut client = preferred.welcome(|_| {}).await;
    site.up().await;
    site.publish(1).unwrap();
    let publish = client.publish().await;
    client.puback(publish.pkid, PubAckReason::Success).await;
    site.acked().await;
    drop(client);
    site.down().await;
    let _client = spare.welcome(|_| {}).await;
    site.up().await;
}
