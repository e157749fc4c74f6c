//! What a feed's answer settings change on the wire, and several messages in one frame.

use super::*;
use crate::config::settings::AppAck;

#[tokio::test]
async fn what_cannot_be_a_message_is_closed_where_the_feed_says_so_and_kept() {
    let rig = Rig::new(MllpSettings { on_invalid: OnInvalid::Close, ..settings() });
    for invalid in [&b"no header here"[..], b"MSH|^~\\&|A|B|C|D|||ADT^A01||P|2.3\r"] {
        let mut peer = rig.peer().await;
        peer.send(&[&framed(invalid)[..], &message("behind it")].concat()).await;
        assert!(peer.rest().await.is_empty());
    }
    let mut peer = rig.peer().await;
    peer.send(&large("1", 5 * LIMIT as usize)).await;
    assert_eq!(peer.answer().await, "AR 1", "a message too large is a message");
    assert_eq!((rig.stored(), rig.refused(), rig.quarantined().len()), (0, 3, 3));
}

#[tokio::test]
async fn a_batch_is_stored_whole_and_answered_in_one_write() {
    let answers = AnswerSettings { app_ack: AppAck::SameChannel, ..AnswerSettings::default() };
    let rig = Rig::new(MllpSettings { answers, ..settings() });
    let mut peer = rig.peer().await;
    let inner = |id: &str| format!("MSH|^~\\&|A|B|C|D|||ADT^A01|{id}|T|2.3\rPID|1||CANARY\r");
    let batch = format!("BHS|^~\\&|A|B|C|D|||||B1\r{}{}BTS|3\r", inner("1"), inner("2"));
    peer.send(&framed(batch.as_bytes())).await;
    let mut reply = [0u8; 4096];
    let read = timeout(PATIENCE, peer.stream.read(&mut reply)).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&reply[..read]).into_owned();
    assert!(text.starts_with("\x0BBHS|") && text.ends_with("\rBTS|2\r\x1C\r"), "{text}");
    assert!(text.contains("\rMSA|AA|1\r") && text.contains("\rMSA|AA|2\r") && !text.contains("CANARY"));
    assert_eq!(FakeStore::lock(&rig.store.bodies)[..], [batch.into_bytes()]);
    assert_eq!(rig.conditions(), ["batch_count_mismatch"]);
    assert_eq!(FakeStore::lock(&rig.store.stages)[..], [(Stage::Test, true)]);
    peer.send(&message("3")).await;
    assert_eq!(peer.answer().await, "AA 3");
    assert_eq!(FakeStore::lock(&rig.store.stages)[1], (Stage::Live, false));
}
