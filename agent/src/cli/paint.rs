//! Colour for terminals, put on text that is finished: nothing else depends on it, and no text that came from outside can bring its own.
//!
//! Only on a terminal, not where `NO_COLOR` is set or the terminal is a dumb one. What is coloured says the same in words.

use std::io::{IsTerminal, stdout};

const RESET: &str = "\u{1b}[0m";
const BOLD: &str = "\u{1b}[1m";
const RED: &str = "\u{1b}[1;31m";
const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";

/// Whether standard output wants colour.
pub(super) fn is_wanted() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stdout().is_terminal() && !dumb && !refused
}

/// The table of the status in colour: severities, the uplink's state, the heads of tables.
pub(super) fn status(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

/// The beginnings that mean something, and in which colour.
const MARKS: [(&str, &str); 6] = [
    ("ERROR", RED),
    ("warning", YELLOW),
    ("no conditions: all is well", GREEN),
    ("uplink   connected", GREEN),
    ("uplink   connecting", YELLOW),
    ("uplink   down", RED),
];

fn line(text: &str) -> String {
    // "uplink   connected since" before "uplink   connecting since": a mark ends where a word ends.
    let is_mark = |mark: &str| text.strip_prefix(mark).is_some_and(|rest| rest.starts_with([' ', '\n']) || rest.is_empty());
    let painted = |mark: &str, colour: &str| format!("{colour}{}{RESET}{}", &text[..mark.len()], &text[mark.len()..]);
    if let Some((mark, colour)) = MARKS.into_iter().find(|(mark, _)| is_mark(mark)) {
        return painted(mark, colour);
    }
    if ["LANE ", "FEED "].iter().any(|head| text.starts_with(head)) {
        return painted(text.trim_end(), BOLD);
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_put_on_words_and_changes_no_text() {
        let text = "gateway  g\nuplink   connected since 1\nuplink   down since 2\n\nERROR    x: y\nwarning  z\nLANE  RECORDS\nwarnings are no mark\n";
        let painted = status(text);
        assert_eq!(painted.matches(RESET).count(), 5, "{painted:?}");
        assert!(painted.contains("\u{1b}[1;31mERROR\u{1b}[0m    x"), "{painted:?}");
        let bare = [RESET, BOLD, RED, GREEN, YELLOW].iter().fold(painted, |text, code| text.replace(code, ""));
        assert_eq!(bare, text);
    }
}
