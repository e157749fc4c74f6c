//! Two texts compared line by line: what went, what came, with a little around it. Pure and bounded.
//!
//! Equal lines at both ends are set aside first; what is left is compared by the longest common subsequence while its table stays within
//! [`DIFF_CELLS_MAX`], else it is shown as gone and come as a whole.

use crate::limits::DIFF_CELLS_MAX;

/// Lines around a change that are shown.
const AROUND: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Same,
    Gone,
    Come,
}

/// Lines with `- `, `+ ` or two blanks; empty where nothing differs.
pub(super) fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let mut changes: Vec<(Change, &str)> = old[..head].iter().map(|line| (Change::Same, *line)).collect();
    middle(&old[head..old.len() - tail], &new[head..new.len() - tail], &mut changes);
    changes.extend(old[old.len() - tail..].iter().map(|line| (Change::Same, *line)));
    render(&changes)
}

fn middle<'t>(old: &[&'t str], new: &[&'t str], changes: &mut Vec<(Change, &'t str)>) {
    let width = new.len() + 1;
    if (old.len() + 1).saturating_mul(width) > DIFF_CELLS_MAX {
        changes.extend(old.iter().map(|line| (Change::Gone, *line)));
        changes.extend(new.iter().map(|line| (Change::Come, *line)));
        return;
    }
    // common[i][j]: longest common subsequence of old[i..] and new[j..]
    let mut common = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            let (down, right) = (common[(i + 1) * width + j], common[i * width + j + 1]);
            common[i * width + j] = if old[i] == new[j] { common[(i + 1) * width + j + 1] + 1 } else { down.max(right) };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            changes.push((Change::Same, old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            changes.push((Change::Gone, old[i]));
            i += 1;
        } else {
            changes.push((Change::Come, new[j]));
            j += 1;
        }
    }
}

fn render(changes: &[(Change, &str)]) -> String {
    let is_near = |at: usize| {
        let around = at.saturating_sub(AROUND)..(at + AROUND + 1).min(changes.len());
        changes[around].iter().any(|(change, _)| *change != Change::Same)
    };
    let (mut out, mut left_out) = (String::new(), false);
    for (at, (change, line)) in changes.iter().enumerate() {
        if !is_near(at) {
            left_out = true;
            continue;
        }
        if std::mem::take(&mut left_out) && !out.is_empty() {
            out.push_str("  …\n");
        }
        out.push_str(match change {
            Change::Same => "  ",
            Change::Gone => "- ",
            Change::Come => "+ ",
        });
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_with_their_surroundings() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n";
        let new = "a\nb\nc\nD\ne\nf\ng\nh\ni\nj\n+k\n";
        assert_eq!(diff(old, new), "  b\n  c\n- d\n+ D\n  e\n  f\n  …\n  i\n  j\n- k\n+ +k\n");
        assert_eq!(diff(old, old), "");
        assert_eq!(diff("", "a\n"), "+ a\n");
        assert_eq!(diff("a\nb\n", "b\n"), "- a\n  b\n");
    }

    /// I4: texts that have nothing in common cost no table without a bound.
    #[test]
    fn texts_without_end_are_told_as_gone_and_come() {
        let lines = |letter: char| (0..5000).flat_map(|i| [letter.to_string(), i.to_string(), "\n".to_owned()]).collect::<String>();
        let shown = diff(&lines('a'), &lines('b'));
        assert_eq!(shown.lines().count(), 10_000);
        assert!(shown.starts_with("- a0\n- a1\n"));
    }
}
