//! Which names a feed takes: `*` any text, `?` one character, everything else itself; letters without regard to case, since half of the names
//! come from systems that have none. Names that begin with a dot are never taken: transfer programs give them to what is not finished.

/// A pattern that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// `Err` says what is wrong.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.contains('/') {
            return Err("a pattern is for the name of a file and holds no /; use subfolders = true for folders below");
        }
        if text.contains(['[', ']', '{', '}']) {
            return Err("a pattern knows * and ? only; list several patterns for alternatives");
        }
        Ok(Self(text.to_lowercase()))
    }

    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name): (Vec<char>, Vec<char>) = (self.0.chars().collect(), name.to_lowercase().chars().collect());
        // Where the last star stands, and what of the name it has taken: linear in practice, quadratic at worst.
        let (mut p, mut n, mut star) = (0, 0, None);
        while n < name.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
                _ => {
                    let Some((at, taken)) = star else { return false };
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
            }
        }
        pattern[p..].iter().all(|c| *c == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_as_everywhere() {
        for (pattern, name, expected) in [
            ("*.csv", "USAGE.CSV", true),
            ("*.csv", "usage.csv.tmp", false),
            ("use?.txt", "used.txt", true),
            ("use?.txt", "use.txt", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "abab", true),
            ("*", "anything", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
        assert!(Pattern::new("a/b").is_err() && Pattern::new("").is_err() && Pattern::new("[ab]").is_err());
    }
}
