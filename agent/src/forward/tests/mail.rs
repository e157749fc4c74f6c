//! What the rollout has to say, among everything else.

use bytes::Bytes;

use super::{Bench, RULES, Sent};
use crate::forward::core::{Control, Effect};
use crate::forward::mailbox::Letter;
use crate::limits::PARK_MIN;
use crate::uplink::AckReason;

fn reported(text: &'static str) -> Letter {
    Letter::Reported(Bytes::from_static(text.as_bytes()))
}

impl Bench {
    fn post(&mut self, id: u64, letter: Letter) {
        self.core.post(id, letter);
        self.run();
    }

    fn letters(&self) -> Vec<(u64, Letter)> {
        let letter = |sent: &Sent| match sent {
            Sent::Control { token, what: Control::Mail(letter) } => Some((*token, letter.clone())),
            _ => None,
        };
        self.wire.iter().filter_map(letter).collect()
    }

    fn answers(&self) -> Vec<(u64, AckReason)> {
        let answer = |effect: &Effect| match effect {
            Effect::Answered { letter, reason } => Some((*letter, *reason)),
            _ => None,
        };
        self.effects.iter().filter_map(answer).collect()
    }
}

#[test]
fn a_letter_goes_though_the_lanes_have_used_up_their_window() {
    let mut bench = Bench::one(RULES, 500);
    bench.answer_controls(AckReason::Success);
    bench.post(1, reported("a"));
    let letters = bench.letters();
    assert_eq!(letters.len(), 1);
    bench.ack(letters[0].0, AckReason::Success);
    assert_eq!(bench.answers(), [(1, AckReason::Success)]);
}

#[test]
fn the_reported_state_is_the_second_word_on_every_connection() {
    let mut bench = Bench::one(RULES, 1);
    bench.post(1, reported("a"));
    bench.ack_all();
    bench.down();
    bench.up(100);
    let told: Vec<_> = bench.wire.iter().take(2).cloned().collect();
    assert!(matches!(&told[0], Sent::Control { what: Control::Status(_), .. }));
    assert!(matches!(&told[1], Sent::Control { what: Control::Mail(letter), .. } if *letter == reported("a")));
}

#[test]
fn an_unanswered_letter_is_answered_by_the_next_connection() {
    let mut bench = Bench::one(RULES, 0);
    bench.post(1, Letter::Audit(Bytes::from_static(b"x")));
    bench.down();
    bench.up(100);
    bench.ack_all();
    assert_eq!(bench.answers(), [(1, AckReason::Success)]);
    bench.down();
    bench.up(100);
    assert_eq!(bench.letters(), []);
}

#[test]
fn a_refused_state_is_told_to_its_author_and_goes_again_after_the_pause() {
    let mut bench = Bench::one(RULES, 0);
    bench.post(1, reported("a"));
    let (token, _) = bench.letters()[0].clone();
    bench.ack(token, AckReason::NotAuthorized);
    assert_eq!(bench.answers(), [(1, AckReason::NotAuthorized)]);
    assert_eq!(bench.letters(), []);
    bench.pass(PARK_MIN);
    assert_eq!(bench.letters().len(), 1);
    bench.ack_all();
    assert_eq!(bench.answers().last(), Some(&(1, AckReason::Success)));
}

#[test]
fn letters_wait_for_a_connection_and_a_newer_state_replaces_the_older() {
    let mut bench = Bench::one(RULES, 0);
    bench.down();
    bench.post(1, reported("a"));
    bench.post(2, reported("b"));
    assert!(bench.effects.contains(&Effect::Forgotten { letter: 1 }));
    bench.up(100);
    assert_eq!(bench.letters().into_iter().map(|(_, letter)| letter).collect::<Vec<_>>(), [reported("b")]);
}
