//! The service as systemd sees it: the unit is understood without a warning, and leaves the agent nothing but its job.

use std::fs;
use std::process::{Command, Stdio};

const SYSTEMD_ANALYZE: &str = "systemd-analyze";

/// The unit with the built program in place of the installed one, in a directory of its own.
fn unit() -> Option<(tempfile::TempDir, std::path::PathBuf)> {
    let known = Command::new(SYSTEMD_ANALYZE).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        println!("service: {SYSTEMD_ANALYZE} is not on this machine (Debian: systemd); skipped");
        return None;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = fs::read_to_string(harness::repository().join("systemd/siteward.service")).expect("the unit lies in the repository");
    let program = harness::program("siteward").canonicalize().expect("the program is built");
    let installed = "ExecStart=/usr/bin/siteward";
    assert!(text.contains(installed));
    let file = directory.path().join("siteward.service");
    fs::write(&file, text.replace(installed, &format!("ExecStart={}", program.display()))).expect("a copy of the unit");
    Some((directory, file))
}

#[test]
fn the_unit_is_understood_without_a_warning() {
    let Some((_directory, file)) = unit() else { return };
    let output = Command::new(SYSTEMD_ANALYZE).args(["verify", "--man=no", "--recursive-errors=no"]).arg(&file).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    let own: Vec<&str> = told.lines().filter(|line| line.contains("siteward")).collect();
    assert!(output.status.success() && own.is_empty(), "{told}");
}

#[test]
fn the_unit_leaves_the_agent_nothing_but_its_job() {
    let Some((_directory, file)) = unit() else { return };
    let output = Command::new(SYSTEMD_ANALYZE)
        .args(["security", "--offline=true", "--no-pager", "--threshold=15"])
        .arg(&file)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    println!("service: {}", told.lines().last().unwrap_or_default());
    assert!(output.status.success(), "an exposure above 1.5:\n{told}{}", String::from_utf8_lossy(&output.stderr));
}

/// What the unit promises beyond its score; each of these once cost somebody a box.
#[test]
fn the_service_can_never_be_left_stopped_and_leaves_no_core() {
    let text = fs::read_to_string(harness::repository().join("systemd/siteward.service")).expect("the unit lies in the repository");
    for line in ["Type=notify", "Restart=always", "StartLimitIntervalSec=0", "LimitCORE=0", "WatchdogSec=60s", "StateDirectoryMode=0700"] {
        assert!(text.lines().any(|found| found == line), "{line} is missing");
    }
    assert!(!text.contains("network-online.target"), "capture does not wait for a network");
}
