//! Waiting with a deadline. A deadline is a guard against hanging on a machine under load, never a measurement: tests assert what happened,
//! not how fast.

use std::time::{Duration, Instant};

/// Deadline for what should take a second or two on an idle machine.
pub const SOON: Duration = Duration::from_secs(30);
/// Deadline for what includes back-offs, restarts and backlogs.
pub const EVENTUALLY: Duration = Duration::from_mins(3);

/// Asks until the answer is yes; `false` when the deadline passed first.
pub fn try_until(within: Duration, mut ask: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if ask() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks until the answer is yes; panics with `what` when the deadline passed first.
pub fn wait_until(what: &str, within: Duration, ask: impl FnMut() -> bool) {
    assert!(try_until(within, ask), "waited {} s in vain: {what}", within.as_secs());
}

/// Asks until there is a value; panics with `what` when the deadline passed first.
pub fn wait_for<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_until(what, within, || {
        found = ask();
        found.is_some()
    });
    found.expect("wait_until returned")
}

/// Waits while a number grows: gives up only when it stood still for `patience`.
pub fn wait_while_growing(what: &str, patience: Duration, mut number: impl FnMut() -> u64, enough: u64) {
    let mut best = 0;
    let mut since = Instant::now();
    loop {
        let now = number();
        if now >= enough {
            return;
        }
        if now > best {
            best = now;
            since = Instant::now();
        }
        assert!(since.elapsed() < patience, "{what}: {best} of {enough}, and no progress for {} s", patience.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_answer_or_with_the_deadline() {
        let mut asked = 0;
        assert!(try_until(SOON, || {
            asked += 1;
            asked == 3
        }));
        assert!(!try_until(Duration::from_millis(1), || false));
        assert_eq!(wait_for("a value", SOON, || Some(7)), 7);
    }
}
