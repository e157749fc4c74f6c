//! Independent files through the splitters: X12 interchanges, whose envelope verdicts are held against pyx12's, with a rule for every
//! difference; FHIR resources and Bundles, whose entries are counted by a parser of whole documents.
//!
//! The corpus is no part of the project: `SITEWARD_CORPUS`, else `../shared/corpus` beside the repository; without it the tests say so and
//! pass. pyx12 is installed into a directory under `target/`; where that cannot be done its part says that it is skipped. Contents of files
//! never appear in the output, names do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use siteward::limits::{MESSAGE_BYTES_MAX_DEFAULT, SPLIT_FEED_BYTES};
use siteward::source::split::{Piece, PieceKind, SplitLimits, SplitSettings, Splitter, State, Verdict, X12Level};

const PYX12: &str = "pyx12==4.0.0";

/// Prints the envelope errors of each file: kind and code. What is said of single segments is not about the envelope.
const SCRIPT: &str = r#"
import sys, pyx12.x12file
for path in sys.argv[1:]:
    codes = []
    try:
        reader = pyx12.x12file.X12Reader(path)
        for segment in reader:
            codes += [e[0] + e[1] for e in reader.pop_errors()]
        reader.cleanup()
        codes += [e[0] + e[1] for e in reader.pop_errors()]
    except Exception as error:
        codes = ["unread"]
    print(path, *sorted({code for code in codes if not code.startswith("seg")}), sep="\t")
"#;

/// Our codes, and pyx12's.
const SAME: &[(&str, &str)] = &[
    ("x12_iea_number", "isa001"),
    ("x12_iea_count", "isa021"),
    ("x12_iea_missing", "isa023"),
    ("x12_isa_repeated", "isa025"),
    ("x12_ge_missing", "gs3"),
    ("x12_ge_number", "gs4"),
    ("x12_ge_count", "gs5"),
    ("x12_gs_repeated", "gs6"),
    ("x12_se_missing", "st2"),
    ("x12_se_number", "st3"),
    ("x12_se_count", "st4"),
    ("x12_st_repeated", "st23"),
];

/// Files about which the two differ: what only we say, what only pyx12 says, and why.
struct Difference {
    file: &'static str,
    ours: &'static [&'static str],
    theirs: &'static [&'static str],
    rule: &'static str,
}

const fn difference(file: &'static str, ours: &'static [&'static str], theirs: &'static [&'static str], rule: &'static str) -> Difference {
    Difference { file, ours, theirs, rule }
}

const VERSION: &str = "pyx12 reads no interchange of a version it does not know (00402); the envelope has nothing to do with it";
const ISA: &str = "pyx12 reads an ISA by position only and gives up; separators can be counted, what is left then is told";
const LAST: &str = "a last segment without its terminator counts here: files end like that, and a header without its trailer is told";
const BINARY: &str = "pyx12 does not know binary segments; their length is checked here";
const BYTES: &str = "pyx12 reads ASCII only; here bytes are bytes, and an interchange without its end is told (a terminator is one byte)";

const DIFFERENCES: &[Difference] = &[
    difference("x12-imsweb/x12_bad_first_line.txt", &["x12_isa_unpadded", "x12_se_count"], &["unread"], ISA),
    difference("x12-staedi/EventSequenceTest__004.x12", &[], &["unread"], VERSION),
    difference("x12-staedi/EventSequenceTest__005.x12", &[], &["unread"], VERSION),
    difference("x12-staedi/LexerTest__003.x12", &["x12_ge_missing"], &[], LAST),
    difference("x12-staedi/LexerTest__004.x12", &["x12_iea_missing"], &["unread"], BYTES),
    difference("x12-staedi/X12DialectTest__002.x12", &["x12_isa", "x12_no_interchange"], &["unread"], ISA),
    difference("x12-staedi/nonnumeric_BIN01.edi", &["x12_binary_length"], &[], BINARY),
    difference("x12-staedi/sample275_with_HL7_invalid_BIN01.edi", &["x12_binary_length"], &[], BINARY),
    difference("x12-staedi/sample837-original.edi", &[], &["unread"], VERSION),
    difference("x12-staedi/sample837-small.edi", &[], &["unread"], VERSION),
    difference("x12-staedi/ts210_80char.edi", &["x12_isa_unpadded", "x12_se_number"], &["unread"], ISA),
    difference("x12-staedi/ts214_ellipses_segterm.edi", &["x12_iea_missing"], &["unread"], BYTES),
];

fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("SITEWARD_CORPUS").map_or_else(|| harness::repository().join("../shared/corpus"), PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// Files of the folders of the corpus whose name begins with `name`.
fn files(corpus: &Path, name: &str) -> Vec<PathBuf> {
    let list = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let folders = list(corpus).into_iter().filter(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)));
    let mut files: Vec<PathBuf> = folders.flat_map(|folder| list(&folder)).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn split(settings: &SplitSettings, path: &Path) -> (Vec<Piece>, Verdict) {
    let bytes = fs::read(path).expect("a file of the corpus");
    let mut splitter = Splitter::new(settings, SplitLimits::new(MESSAGE_BYTES_MAX_DEFAULT)).expect("these settings are fine");
    let mut pieces = Vec::new();
    for portion in bytes.chunks(SPLIT_FEED_BYTES) {
        splitter.feed(portion);
        pieces.extend(std::iter::from_fn(|| splitter.next_piece()));
    }
    let (rest, verdict) = splitter.finish();
    pieces.extend(rest);
    (pieces, verdict)
}

fn shown(corpus: &Path, path: &Path) -> String {
    path.strip_prefix(corpus).unwrap_or(path).display().to_string()
}

fn pyx12() -> Option<PathBuf> {
    let home = harness::repository().join("target/pyx12");
    let python = home.join("bin/python");
    let works = |python: &Path| Command::new(python).args(["-c", "import pyx12"]).output().is_ok_and(|o| o.status.success());
    if !works(&python) {
        let run = |program: &Path, arguments: &[&str]| Command::new(program).args(arguments).output().is_ok_and(|o| o.status.success());
        let made = run(Path::new("python3"), &["-m", "venv", home.to_str()?]) && run(&python, &["-m", "pip", "install", "--quiet", PYX12]);
        if !made || !works(&python) {
            return None;
        }
    }
    Some(python)
}

#[test]
fn envelope_verdicts_agree_with_pyx12_or_a_rule_says_why() {
    let Some(corpus) = corpus() else { return println!("skipped: no corpus") };
    let files = files(&corpus, "x12-");
    let Some(python) = pyx12() else { return println!("skipped: no {PYX12} (python3 with venv, and a package index)") };
    let output = Command::new(python).args(["-c", SCRIPT]).args(&files).output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let opinions: BTreeMap<&str, BTreeSet<&str>> = text
        .lines()
        .map(|line| line.split_once('\t').unwrap_or((line, "")))
        .map(|(path, codes)| (path, codes.split('\t').filter(|c| !c.is_empty()).collect()))
        .collect();
    let (mut same, mut explained, mut unexplained, mut rules) = (0, 0, Vec::new(), BTreeSet::new());
    for path in &files {
        let theirs = &opinions[path.to_str().expect("names of the corpus are text")];
        let (_, verdict) = split(&SplitSettings::X12 { level: X12Level::Interchange }, path);
        let ours: BTreeSet<&str> = verdict.findings.iter().map(|finding| finding.code).chain(verdict.state.code()).collect();
        let translated = |code: &str| SAME.iter().find(|(our, _)| *our == code).map(|(_, their)| *their);
        let only_ours: Vec<&str> =
            ours.iter().copied().filter(|code| !translated(code).is_some_and(|code| theirs.contains(code))).collect();
        let only_theirs: Vec<&str> = theirs.iter().copied().filter(|code| !ours.iter().any(|our| translated(our) == Some(*code))).collect();
        let name = shown(&corpus, path);
        if only_ours.is_empty() && only_theirs.is_empty() {
            same += 1;
        } else if let Some(known) = DIFFERENCES.iter().find(|d| d.file == name && d.ours == only_ours && d.theirs == only_theirs) {
            explained += 1;
            rules.insert(known.rule);
        } else {
            unexplained.push((name, only_ours, only_theirs));
        }
    }
    println!("pyx12 agrees about {same} of {} files; {explained} differences are explained by {} rules", files.len(), rules.len());
    assert!(unexplained.is_empty(), "differences without a rule (file, only ours, only pyx12's): {unexplained:#?}");
}

/// Whatever the file, every level gives pieces that lie in order and a verdict that counts them.
#[test]
fn x12_levels_agree_with_each_other() {
    let Some(corpus) = corpus() else { return println!("skipped: no corpus") };
    for path in files(&corpus, "x12-") {
        let verdicts =
            [X12Level::Transaction, X12Level::Group, X12Level::Interchange].map(|level| split(&SplitSettings::X12 { level }, &path).1);
        let name = shown(&corpus, &path);
        let codes = |verdict: &Verdict| verdict.findings.iter().map(|finding| finding.code).collect::<Vec<_>>();
        assert_eq!(codes(&verdicts[0]), codes(&verdicts[1]), "{name}");
        assert_eq!(codes(&verdicts[0]), codes(&verdicts[2]), "{name}");
        assert_eq!(verdicts[0].state.holds_file(), verdicts[2].state.holds_file(), "{name}");
    }
}

#[test]
fn bundles_have_the_entries_that_a_parser_of_whole_documents_finds() {
    let Some(corpus) = corpus() else { return println!("skipped: no corpus") };
    let (mut bundles, mut entries, mut resources, mut lines) = (0, 0, 0, 0);
    for path in files(&corpus, "fhir-") {
        let name = shown(&corpus, &path);
        let text = fs::read_to_string(&path).expect("FHIR is text");
        if path.extension().is_some_and(|ending| ending == "ndjson") {
            let (pieces, verdict) = split(&SplitSettings::Ndjson, &path);
            let expected: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let found: Vec<&str> = pieces.iter().map(|piece| &text[piece.range.start as usize..piece.range.end as usize]).collect();
            let invalid = expected.iter().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).count();
            assert_eq!((found.len(), verdict.bad, verdict.state), (expected.len(), invalid as u64, State::Complete), "{name}");
            assert!(found == expected, "{name}");
            lines += found.len();
            continue;
        }
        let (pieces, verdict) = split(&SplitSettings::FhirBundle, &path);
        let document = serde_json::from_str::<serde_json::Value>(&text).ok().filter(|document| document.get("resourceType").is_some());
        let Some(document) = document else {
            assert!(verdict.bad > 0 || verdict.state.holds_file(), "{name} is no resource");
            continue;
        };
        assert_eq!((verdict.bad, verdict.state), (0, State::Complete), "{name}");
        let values = pieces.iter().map(|piece| match &piece.kind {
            PieceKind::Record(bytes) => serde_json::from_slice::<serde_json::Value>(bytes).expect("a record is JSON"),
            PieceKind::Bad { code, .. } => panic!("{name}: {code}"),
        });
        let values: Vec<_> = values.collect();
        if document["resourceType"] == "Bundle" {
            let expected = document["entry"].as_array().cloned().unwrap_or_default();
            assert!(values == expected, "{name}: {} entries, expected {}", values.len(), expected.len());
            bundles += 1;
            entries += values.len();
        } else {
            assert!(values == [document], "{name}");
            resources += 1;
        }
    }
    println!("{bundles} Bundles with {entries} entries, {resources} resources, {lines} lines of NDJSON");
}
