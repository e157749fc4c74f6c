//! python-hl7 must be able to read every reply. It is installed into a directory under `target/`; where that cannot be done this part says
//! that it is skipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;

use crate::facts::Facts;
use crate::oracle::Opinion;

/// Reads base64 lines, prints MSA-2 of every acknowledgement in each as hexadecimal digits, or what is wrong. Bytes are read as 8859/1, which
/// loses none.
const SCRIPT: &str = r#"
import base64, sys, hl7
for line in open(sys.argv[1]):
    text = base64.b64decode(line).decode("latin-1")
    try:
        if text.startswith("BHS"):
            messages = list(hl7.parse_batch(text))
        else:
            messages = [hl7.parse(text)]
        print(" ".join(str(m.segment("MSA")[2]).encode("latin-1").hex() or "-" for m in messages))
    except Exception as error:
        print("error", type(error).__name__)
"#;

fn interpreter() -> Option<PathBuf> {
    let home = harness::repository().join("target/python-hl7");
    let python = home.join("bin/python");
    let works = |python: &Path| Command::new(python).args(["-c", "import hl7"]).output().is_ok_and(|o| o.status.success());
    if !works(&python) {
        let run = |program: &Path, arguments: &[&str]| Command::new(program).args(arguments).output().is_ok_and(|o| o.status.success());
        let made =
            run(Path::new("python3"), &["-m", "venv", home.to_str()?]) && run(&python, &["-m", "pip", "install", "--quiet", "hl7==0.4.5"]);
        if !made || !works(&python) {
            return None;
        }
    }
    Some(python)
}

/// Every reply parses, and python-hl7 finds the sender's own MSH-10 in MSA-2. Excused are senders whose own message it cannot parse: the reply
/// speaks with their delimiters (HL7.md 2a, MSH-1 and MSH-2).
pub fn check(directory: &Path, files: &[Facts], replies: &[Vec<u8>], opinions: &BTreeMap<String, Opinion>) {
    let Some(python) = interpreter() else {
        println!("skipped: no python-hl7 (python3 with venv, and a package index)");
        return;
    };
    let (script, input) = (directory.join("read.py"), directory.join("replies"));
    std::fs::write(&script, SCRIPT).expect("the script is written");
    let answered: Vec<(&Facts, &Vec<u8>)> = files.iter().zip(replies).filter(|(_, reply)| !reply.is_empty()).collect();
    let encode = |reply: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(reply) + "\n";
    std::fs::write(&input, answered.iter().map(|(_, reply)| encode(reply)).collect::<String>()).expect("the replies are written");
    let output = Command::new(python).arg(&script).arg(&input).output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let read: Vec<&str> = lines.lines().collect();
    assert_eq!(read.len(), answered.len(), "one line for each reply");
    let (mut differs, mut excused) = (Vec::new(), 0);
    for ((facts, reply), read) in answered.iter().zip(&read) {
        let due = crate::segments_of(reply);
        let ids: Vec<String> = due.iter().filter(|(name, _)| name == b"MSA").map(|(_, msa)| hex(msa.msa(2))).collect();
        let unreadable = opinions.get(&facts.file).is_some_and(|opinion| !matches!(&opinion.python[..], "ok" | "file"));
        if unreadable && *read == "error AssertionError" {
            excused += 1;
        } else if *read != ids.join(" ") {
            differs.push((facts.file.as_str(), if read.starts_with("error") { *read } else { "another MSA-2" }));
        }
    }
    println!("python-hl7 read {} replies; {excused} more speak with delimiters that it takes from nobody", answered.len() - excused);
    assert!(differs.is_empty(), "replies that python-hl7 reads otherwise: {differs:#?}");
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let digits = bytes.iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").expect("writing to a string");
        text
    });
    if digits.is_empty() { "-".into() } else { digits }
}
