//! Searches every file under a directory for byte strings that must not be there (I7).

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

const CHUNK: usize = 1 << 20;

/// Files that contain one of the needles, with the needle.
pub fn find(root: &Path, needles: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let kind = entry.file_type().ok();
            if kind.is_some_and(|k| k.is_dir()) {
                directories.push(entry.path());
            } else if kind.is_some_and(|k| k.is_file()) {
                found.extend(find_in_file(&entry.path(), needles).into_iter().map(|n| (entry.path(), n)));
            }
        }
    }
    found
}

/// The needles that one file contains.
pub fn find_in_file(path: &Path, needles: &[&str]) -> Vec<String> {
    let Ok(mut file) = File::open(path) else { return Vec::new() };
    let overlap = needles.iter().map(|n| n.len()).max().unwrap_or(1) - 1;
    let mut found: Vec<String> = Vec::new();
    let mut buffer = vec![0u8; overlap + CHUNK];
    let mut kept = 0;
    loop {
        let read = file.read(&mut buffer[kept..]).unwrap_or(0);
        if read == 0 {
            return found;
        }
        let seen = &buffer[..kept + read];
        for &needle in needles {
            if !found.iter().any(|f| f == needle) && contains(seen, needle.as_bytes()) {
                found.push(needle.to_owned());
            }
        }
        let keep_from = seen.len().saturating_sub(overlap);
        let end = seen.len();
        buffer.copy_within(keep_from..end, 0);
        kept = end - keep_from;
    }
}

/// `needle` occurs in `haystack`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((&first, rest)) = needle.split_first() else { return true };
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|&b| b == first) {
        let after = from + at + 1;
        if haystack[after..].starts_with(rest) {
            return true;
        }
        from = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_is_found_across_the_edge_of_a_chunk_and_in_any_depth() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let mut bytes = vec![b'.'; CHUNK + 3];
        bytes.extend_from_slice(b"CANARY");
        fs::write(deep.join("file"), &bytes).unwrap();
        fs::write(directory.path().join("other"), b"CANAR").unwrap();
        let found = find(directory.path(), &["CANARY", "ZEBRA"]);
        assert_eq!(found, vec![(deep.join("file"), "CANARY".to_owned())]);
    }
}
