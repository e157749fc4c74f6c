//! The connection against a broker that keeps to nothing.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnectReturnCode, Packet, Publish, SubAck, SubscribeReasonCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::connection::Connection;
use crate::config::settings::Endpoint;
use crate::limits::HUB_RECEIVE_MAX;

const PATIENCE: Duration = Duration::from_secs(25);
/// So many are written before the first is answered, and so many more wait behind them.
const WRITTEN: u16 = 4 * HUB_RECEIVE_MAX;
const BEHIND: u16 = 2 * HUB_RECEIVE_MAX;

async fn next(stream: &mut (impl tokio::io::AsyncRead + Unpin), buffer: &mut BytesMut) -> Packet {
    loop {
        if let Ok(packet) = Packet::read(buffer, Some(1 << 20)) {
            return packet;
        }
        assert!(stream.read_buf(buffer).await.unwrap() > 0, "the receiver closed");
    }
}

/// Lets the receiver in, sends everything at once whatever receive maximum it asked for, and counts acknowledgements.
async fn flooding_broker(mut stream: TcpStream, acknowledged: tokio::sync::oneshot::Sender<u16>) {
    let mut buffer = BytesMut::new();
    let mut answer = BytesMut::new();
    assert!(matches!(next(&mut stream, &mut buffer).await, Packet::Connect(..)));
    Packet::ConnAck(ConnAck { session_present: false, code: ConnectReturnCode::Success, properties: None })
        .write(&mut answer, None)
        .unwrap();
    let Packet::Subscribe(subscribe) = ({
        stream.write_all(&answer.split()).await.unwrap();
        next(&mut stream, &mut buffer).await
    }) else {
        panic!("no subscription")
    };
    let return_codes = subscribe.filters.iter().map(|_| SubscribeReasonCode::Success(QoS::AtLeastOnce)).collect();
    Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None }).write(&mut answer, None).unwrap();
    for pkid in 1..=WRITTEN + BEHIND {
        let mut publish = Publish::new("siteward/v1/s/g/event/f", QoS::AtLeastOnce, Bytes::from_static(b"x"), None);
        publish.pkid = pkid;
        Packet::Publish(publish).write(&mut answer, None).unwrap();
    }
    let (mut read, mut write) = stream.split();
    let sending = async { write.write_all(&answer).await.unwrap() };
    let counting = async {
        for _ in 1..=WRITTEN {
            assert!(matches!(next(&mut read, &mut buffer).await, Packet::PubAck(_)));
        }
    };
    tokio::join!(sending, counting);
    acknowledged.send(WRITTEN).unwrap();
}

/// A broker that sends more than the receive maximum (Mosquitto 2.0.11 with `max_inflight_messages` set does): acknowledging must not wait for a
/// place that only the poll can free, while the poll waits for a place that only the receiver can free.
#[tokio::test]
async fn a_broker_that_exceeds_the_receive_maximum_is_still_acknowledged() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port(), false);
    let (sender, acknowledged) = tokio::sync::oneshot::channel();
    tokio::spawn(async move { flooding_broker(listener.accept().await.unwrap().0, sender).await });
    let directory = tempfile::tempdir().unwrap();
    let mut connection = Connection::open(&endpoint, None, "hub", directory.path()).await.unwrap();
    let mut written = Vec::new();
    for _ in 1..=WRITTEN {
        written.push(timeout(PATIENCE, connection.deliveries.recv()).await.unwrap().unwrap().written());
    }
    // What is behind fills every place there is; nobody takes it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answered = timeout(PATIENCE, connection.answer(written, Vec::new())).await;
    assert_eq!(answered, Ok(Ok(())), "acknowledgements wait for a poll that waits for us");
    while connection.deliveries.try_recv().is_ok() {}
    assert_eq!(timeout(PATIENCE, acknowledged).await.unwrap().unwrap(), WRITTEN);
}
