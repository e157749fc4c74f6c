//! How often a refusal is told: to the hub, in the audit, in the log. Pure.
//!
//! Whoever may publish on a gateway's command topic can send rubbish as fast as the line takes it. Each is looked at and none is carried out; but what
//! is said about it must not push aside what matters. So there is a store of words that fills again slowly, and what was left out is counted and said
//! with the next word, at the latest when one may be spoken again: no attempt is invisible.

use std::time::Duration;

/// See the module's documentation.
#[derive(Debug)]
pub struct Refusals {
    most: u32,
    every_ms: u64,
    words: u32,
    filled_ms: u64,
    left_out: u64,
}

impl Refusals {
    /// `most` at once, then one in every `every`.
    pub fn new(most: u32, every: Duration) -> Self {
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { most, every_ms, words: most, filled_ms: 0, left_out: 0 }
    }

    fn fill(&mut self, now_ms: u64) {
        let more = now_ms.saturating_sub(self.filled_ms) / self.every_ms;
        if self.words == self.most {
            self.filled_ms = now_ms;
        } else {
            self.filled_ms += more * self.every_ms;
            self.words = u32::try_from(more).unwrap_or(u32::MAX).saturating_add(self.words).min(self.most);
        }
    }

    /// Something was refused: whether it is told, and how many before it were not.
    pub fn refused(&mut self, now_ms: u64) -> Option<u64> {
        self.fill(now_ms);
        if let Some(words) = self.words.checked_sub(1) {
            self.words = words;
            Some(std::mem::take(&mut self.left_out))
        } else {
            self.left_out += 1;
            None
        }
    }

    /// How many were left out, once a word may be spoken about them.
    pub fn due(&mut self, now_ms: u64) -> Option<u64> {
        self.fill(now_ms);
        if self.left_out == 0 {
            return None;
        }
        self.words = self.words.checked_sub(1)?;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I4: a flood costs a few words, and its size is known in the end.
    #[test]
    fn a_flood_is_told_in_a_few_words_and_counted_in_full() {
        let mut refusals = Refusals::new(8, Duration::from_mins(1));
        let mut told = Vec::new();
        for n in 0..100_000_u64 {
            told.extend(refusals.refused(1000 + n / 100)); // a second or so
        }
        assert_eq!(told, [0; 8]);
        assert_eq!(refusals.due(2000), None);
        assert_eq!(refusals.due(1000 + 60_000), Some(99_992));
        assert_eq!(refusals.due(1000 + 60_000), None);
        assert_eq!(refusals.refused(1000 + 60_001), None);
        assert_eq!(refusals.refused(1000 + 120_000), Some(1));
        let after_a_day = 1000 + 86_400_000;
        assert_eq!((0..20).filter_map(|_| refusals.refused(after_a_day)).count(), 8, "it does not save up");
    }
}
