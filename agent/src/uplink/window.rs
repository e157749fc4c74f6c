//! Which publishes of one connection are unanswered, and which packet id belongs to which token. Pure: no clock, no I/O.
//!
//! ```text
//!   offer ──► slots: [answered? token id] [token id] [token id] [token –] [token –]
//!                     ▲ oldest                        ▲ unpaired: offered, not yet sent
//! ```
//!
//! rumqttc gives no id back for a publish. But publishes leave its channel in the order they went in, and each is announced once with its id:
//! so the n-th announcement belongs to the n-th offer. [`Window::sent`] pairs them, [`Window::answered`] gives the token back.
//!
//! Packet ids go round from 1 to `span`. A publish whose id is still unanswered from the round before would be held back inside rumqttc
//! (a "collision"), and be stuck for good if that answer is a refusal. So nothing is offered further than `span` ahead of the oldest
//! unanswered one, and no collision ever happens, in whatever order the broker answers.
//!
//! Full means: `limit` unanswered, or `bytes_max` unanswered bytes (one publish always goes), or `span` reached. The caller waits for an
//! answer. A window dies with its connection; what it still holds is unanswered for good.

use std::collections::VecDeque;

#[derive(Debug)]
struct Slot {
    token: u64,
    bytes: usize,
    answered: bool,
}

#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    span: usize,
    bytes_max: usize,
    slots: VecDeque<Slot>,
    /// Publishes offered before `slots[0]`, counted from the start of the connection.
    before: u64,
    /// The offer that the next announcement belongs to.
    unpaired: u64,
    /// Packet id to offer, plus one; 0 for none.
    by_packet: Vec<u64>,
    open: usize,
    bytes: usize,
}

/// No room; wait for an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Window {
    /// `limit` unanswered publishes at most; packet ids run from 1 to `span`.
    pub(super) fn new(limit: usize, span: usize, bytes_max: usize) -> Self {
        assert!(0 < limit && limit <= span, "a window of {limit} within {span} packet ids");
        Self {
            limit,
            span,
            bytes_max,
            slots: VecDeque::with_capacity(span.min(2 * limit)),
            before: 0,
            unpaired: 0,
            by_packet: vec![0; span + 1],
            open: 0,
            bytes: 0,
        }
    }

    /// Publishes without an answer.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn offer(&mut self, token: u64, bytes: usize) -> Result<(), Full> {
        let room = self.open < self.limit && self.slots.len() < self.span;
        if !room || (self.open > 0 && self.bytes + bytes > self.bytes_max) {
            return Err(Full);
        }
        self.slots.push_back(Slot { token, bytes, answered: false });
        self.open += 1;
        self.bytes += bytes;
        Ok(())
    }

    /// Takes the last offer back, where it could not be handed over after all.
    pub(super) fn retract(&mut self) {
        if let Some(slot) = self.slots.pop_back() {
            self.open -= 1;
            self.bytes -= slot.bytes;
        }
    }

    /// The next offer in order has been sent under this packet id.
    pub(super) fn sent(&mut self, packet: u16) {
        if self.unpaired < self.before + self.slots.len() as u64
            && let Some(entry) = self.by_packet.get_mut(usize::from(packet))
        {
            self.unpaired += 1;
            *entry = self.unpaired;
        }
    }

    /// The broker answered this packet id; `None` if nothing of ours has it.
    pub(super) fn answered(&mut self, packet: u16) -> Option<u64> {
        let entry = std::mem::take(self.by_packet.get_mut(usize::from(packet))?);
        let position = entry.checked_sub(1)?.checked_sub(self.before)?;
        self.settle(position as usize)
    }

    /// The broker refused the oldest unanswered publish in a way that does not tell its packet id.
    pub(super) fn oldest_answered(&mut self) -> Option<u64> {
        let position = self.slots.iter().position(|slot| !slot.answered)?;
        self.settle(position)
    }

    /// The broker refused the largest unanswered publish in a way that does not tell its packet id.
    pub(super) fn largest_answered(&mut self) -> Option<u64> {
        let open = self.slots.iter().enumerate().filter(|(_, slot)| !slot.answered);
        // Of several with the same size the first one.
        let (position, _) = open.max_by_key(|(position, slot)| (slot.bytes, std::cmp::Reverse(*position)))?;
        self.settle(position)
    }

    fn settle(&mut self, position: usize) -> Option<u64> {
        let slot = self.slots.get_mut(position).filter(|slot| !slot.answered)?;
        slot.answered = true;
        self.open -= 1;
        self.bytes -= slot.bytes;
        let token = slot.token;
        while self.slots.front().is_some_and(|slot| slot.answered) {
            self.slots.pop_front();
            self.before += 1;
        }
        // An offer settled without having been announced is not waited for any more.
        self.unpaired = self.unpaired.max(self.before);
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn filled(count: u64) -> Window {
        let mut window = Window::new(8, 16, 1000);
        for token in 0..count {
            window.offer(100 + token, 10).unwrap();
            window.sent(u16::try_from(token).unwrap() + 1);
        }
        window
    }

    #[test]
    fn an_answer_gives_the_token_back_once() {
        let mut window = filled(3);
        assert_eq!(window.answered(2), Some(101));
        assert_eq!(window.answered(2), None);
        assert_eq!(window.answered(9), None);
        assert_eq!(window.answered(60_000), None);
        assert_eq!(window.open(), 2);
    }

    #[test]
    fn the_window_is_full_at_its_limit() {
        let mut window = filled(8);
        assert_eq!(window.offer(1, 1), Err(Full));
        window.answered(5).unwrap();
        assert_eq!(window.offer(1, 1), Ok(()));
    }

    /// I4: one publish of any size goes, two large ones do not.
    #[test]
    fn bytes_in_flight_are_bounded_but_one_publish_always_goes() {
        let mut window = Window::new(8, 16, 1000);
        window.offer(1, 5000).unwrap();
        assert_eq!(window.offer(2, 1), Err(Full));
        window.sent(1);
        window.answered(1).unwrap();
        window.offer(2, 600).unwrap();
        assert_eq!(window.offer(3, 600), Err(Full));
    }

    #[test]
    fn a_retracted_offer_was_never_there() {
        let mut window = filled(2);
        window.offer(7, 10).unwrap();
        window.retract();
        window.offer(8, 10).unwrap();
        window.sent(3);
        assert_eq!(window.answered(3), Some(8));
    }

    #[test]
    fn nothing_is_offered_further_than_the_packet_ids_reach() {
        let mut window = Window::new(3, 4, 1000);
        for token in 0..3 {
            window.offer(token, 1).unwrap();
            window.sent(u16::try_from(token).unwrap() + 1);
        }
        window.answered(2).unwrap();
        window.answered(3).unwrap();
        window.offer(3, 1).unwrap();
        window.sent(4);
        // The next id would be 1 again, which is unanswered.
        assert_eq!(window.offer(4, 1), Err(Full));
        window.answered(1).unwrap();
        assert_eq!(window.offer(4, 1), Ok(()));
    }

    #[test]
    fn a_refusal_without_an_id_hits_the_oldest_or_the_largest() {
        let mut window = Window::new(8, 16, 1000);
        for (token, bytes) in [(1, 10), (2, 30), (3, 30), (4, 20)] {
            window.offer(token, bytes).unwrap();
        }
        window.sent(1);
        window.sent(2);
        assert_eq!(window.answered(1), Some(1));
        assert_eq!(window.largest_answered(), Some(2));
        assert_eq!(window.oldest_answered(), Some(3));
        assert_eq!(window.largest_answered(), Some(4));
        assert_eq!(window.oldest_answered(), None);
    }

    proptest! {
        /// Whatever the order of answers: every token comes back exactly once, under its own id, and no id is used twice at a time.
        #[test]
        fn tokens_and_packet_ids_stay_paired(limit in 1_usize..12, more in 0_usize..12, steps in prop::collection::vec(0_u8..=255, 1..400)) {
            let span = limit + more;
            let mut window = Window::new(limit, span, usize::MAX);
            let mut waiting: VecDeque<u64> = VecDeque::new(); // in rumqttc's channel
            let mut at_broker: HashMap<u16, u64> = HashMap::new();
            let (mut next_token, mut next_packet) = (0_u64, 1_u16);
            for step in steps {
                match step % 3 {
                    0 => if window.offer(next_token, 1).is_ok() {
                        waiting.push_back(next_token);
                        next_token += 1;
                    },
                    1 => if let Some(token) = waiting.pop_front() {
                        prop_assert!(at_broker.insert(next_packet, token).is_none(), "collision");
                        window.sent(next_packet);
                        next_packet = if usize::from(next_packet) == span { 1 } else { next_packet + 1 };
                    },
                    _ => {
                        let mut ids: Vec<u16> = at_broker.keys().copied().collect();
                        ids.sort_unstable();
                        if let Some(id) = ids.get(usize::from(step / 3) % ids.len().max(1)) {
                            let token = at_broker.remove(id);
                            prop_assert_eq!(window.answered(*id), token);
                        }
                    }
                }
                prop_assert_eq!(window.open(), waiting.len() + at_broker.len());
                prop_assert!(window.open() <= limit);
            }
        }
    }
}
