//! Searches every file under a directory for byte strings that must not be there (I7), neither as they are nor as base64: what one place hands out
//! encoded, another writes down without looking.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;

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

/// Shortest text whose base64 says enough to be looked for.
const ENCODED_MIN: usize = 8;

/// A text as it may stand somewhere: itself, and what base64 makes of it at each of the three places it can begin at, without the characters that
/// depend on what stands around it.
fn forms(needle: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![needle.as_bytes().to_vec()];
    if needle.len() >= ENCODED_MIN {
        for before in 0..3 {
            let encoded = BASE64_STANDARD_NO_PAD.encode([&b"..."[..before], needle.as_bytes()].concat());
            let whole = (before + needle.len()) / 3 * 4;
            forms.push(encoded.as_bytes()[(before * 4).div_ceil(3)..whole].to_vec());
        }
    }
    forms
}

/// The needles that one file contains.
pub fn find_in_file(path: &Path, needles: &[&str]) -> Vec<String> {
    let Ok(mut file) = File::open(path) else { return Vec::new() };
    let needles: Vec<(&str, Vec<Vec<u8>>)> = needles.iter().map(|needle| (*needle, forms(needle))).collect();
    let overlap = needles.iter().flat_map(|(_, forms)| forms).map(Vec::len).max().unwrap_or(1) - 1;
    let mut found: Vec<String> = Vec::new();
    let mut buffer = vec![0u8; overlap + CHUNK];
    let mut kept = 0;
    loop {
        let read = file.read(&mut buffer[kept..]).unwrap_or(0);
        if read == 0 {
            return found;
        }
        let seen = &buffer[..kept + read];
        for (needle, forms) in &needles {
            if !found.iter().any(|known| known == needle) && forms.iter().any(|form| contains(seen, form)) {
                found.push((*needle).to_owned());
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

    #[test]
    fn a_needle_is_found_in_base64_wherever_it_begins() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        for before in 0..7 {
            let around = format!("{}PATIENT-CANARY|after", "x".repeat(before));
            fs::write(&file, format!("{{\"content\":\"{}\"}}", base64::prelude::BASE64_STANDARD.encode(around))).unwrap();
            assert_eq!(find_in_file(&file, &["PATIENT-CANARY", "ANOTHER-CANARY"]), ["PATIENT-CANARY"], "{before}");
        }
    }
}
