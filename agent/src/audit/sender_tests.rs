//! The way of the audit log to the hub, with the uplink played by hand: only what the broker took counts, in order, and whatever it did not take goes
//! again.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::config::settings::Endpoint;
use crate::forward::mail::{Mail, Office, office};
use crate::status::board::Board;
use crate::uplink::credentials::Identities;
use crate::uplink::scripted::some_settings;

struct Rig {
    book: Book,
    office: Office,
    stop: watch::Sender<bool>,
    sender: JoinHandle<()>,
    _mail: Mail,
}

impl Rig {
    /// Connected; the log has its first record, which says that it was begun.
    fn new() -> Self {
        let book = Book::of_rig(&Board::new([]));
        let (mail, mut office) = office(some_settings(), Identities::default());
        office.stands(Endpoint::new("hub", 1883, false));
        let (stop, stopped) = watch::channel(false);
        let sender = tokio::spawn(run(book.clone(), mail.way_out(), stopped));
        Self { book, office, stop, sender, _mail: mail }
    }

    /// The number of the record that is published next, and the broker's answer to it.
    async fn answer(&mut self, reason: AckReason) -> u64 {
        let (id, letter) = self.office.numbered().await;
        let record: serde_json::Value = serde_json::from_slice(letter.payload()).unwrap();
        let n = record["n"].as_u64().unwrap();
        assert!(self.book.standing().1 < n, "it counts as sent before the broker has it");
        self.office.answered(id, reason);
        n
    }
}

/// I2: a record is the hub's when its broker took it: not when it was posted, not when nobody is subscribed, not when it was refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_broker_took_counts_as_sent_and_the_rest_goes_again() {
    let mut rig = Rig::new();
    rig.book.note("kim", "pause_feed", "lab", "cable");
    let mut sent = rig.book.watch_sent();
    for reason in [AckReason::NoMatchingSubscribers, AckReason::NotAuthorized] {
        assert_eq!(rig.answer(reason).await, 1);
        assert_eq!(rig.book.standing(), (2, 0), "{reason:?}");
    }
    assert_eq!(rig.answer(AckReason::Success).await, 1, "the same one again");
    sent.wait_for(|sent| *sent == 1).await.unwrap();
    assert_eq!(rig.answer(AckReason::Success).await, 2);
    sent.wait_for(|sent| *sent == 2).await.unwrap();
    rig.book.note("kim", "resume_feed", "lab", "cable");
    assert_eq!(rig.answer(AckReason::Success).await, 3, "each once, and as soon as it is there");
    rig.stop.send_replace(true);
    rig.sender.await.unwrap();
}
