//! The Debian packages: what they hold, that the same sources give the same bytes, and what lintian says of them. What happens when they are
//! installed, upgraded and purged is in `boot`; that of siteward is only made with `SITEWARD_LONG=1`, since its tool is built first.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::site::{Configuration, Site};
use harness::wait;
use siteward::spool::admit::SPOOL_FORMAT;

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

fn has(program: &str) -> bool {
    Path::new("/usr/bin").join(program).exists()
}

/// Makes a package into a directory of its own.
fn package(what: &str, directory: &Path) -> PathBuf {
    let mut command = Command::new(harness::repository().join("cross/package"));
    command.arg(what).arg("--out").arg(directory);
    if what != "drop" {
        command.arg("--program").arg(harness::program("siteward"));
    }
    output(&mut command);
    let made = fs::read_dir(directory).expect("the directory is there").flatten().map(|entry| entry.path());
    made.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "deb")).expect("a package was made")
}

/// The same twice, and nothing that lintian objects to; the paths that are installed.
fn sound(what: &str) -> BTreeSet<String> {
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
    let [first, second] = [0, 1].map(|at| package(what, directories[at].path()));
    let (bytes, again) = (fs::read(&first).expect("a package"), fs::read(second).expect("a package"));
    assert!(bytes == again, "two packages of the same sources differ");
    if has("lintian") {
        // What is overridden is overridden in a file of the package that says why.
        let told = output(Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning"]).arg(&first));
        let complaints = told.lines().filter(|line| line.starts_with("E:") || line.starts_with("W:")).count();
        println!("package: {what}: {} bytes, the same twice; lintian: {complaints} errors and warnings", bytes.len());
    } else {
        println!("package: {what}: {} bytes, the same twice; lintian is not on this machine", bytes.len());
    }
    let listed = output(Command::new("dpkg-deb").arg("--contents").arg(&first));
    listed.lines().filter_map(|line| line.split_whitespace().nth(5)).map(|path| path.trim_start_matches('.').to_owned()).collect()
}

/// An older package is refused over a newer spool by this number.
#[test]
fn the_package_knows_the_spool_format_of_its_program() {
    let preinst = fs::read_to_string(harness::repository().join("systemd/debian/preinst")).expect("the script is there");
    assert!(preinst.lines().any(|line| line.starts_with(&format!("known={SPOOL_FORMAT} "))), "preinst does not say known={SPOOL_FORMAT}");
}

/// I2: the scripts look at the spool where it is, however the configuration says so; where they cannot tell, nothing is installed.
#[test]
fn the_packages_scripts_find_the_spool_as_the_program_does() {
    let script = |name: &str| {
        let text = fs::read_to_string(harness::repository().join("systemd/debian").join(name)).expect("the script is there");
        let lines: Vec<&str> = text.lines().map(str::trim).skip_while(|line| *line != "spool=").collect();
        let end = lines.iter().position(|line| line.starts_with(": \"${spool:=")).expect("its end") + 1;
        lines[..end].join("\n")
    };
    assert_eq!(script("preinst"), script("postrm"));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("siteward.toml");
    let shell = script("preinst").replace("/etc/siteward/siteward.toml", &file.display().to_string()) + "\nprintf %s \"$spool\"";
    for (text, place) in [
        ("[gateway]\nsite = \"a\"\n", "/var/lib/siteward"),
        ("[spool]\npath = \"/data/a\" # here\n", "/data/a"),
        ("[ spool ] # x\r\n  'path'='/data/b'\r\n", "/data/b"),
        ("spool.path = \"/data/c\"\n[gateway]\npath = \"/no\"\n", "/data/c"),
        ("[[feed]]\npath = \"/no\"\n[spool]\n# path = \"/old\"\nmax_bytes = 1\n\tpath\t= \"/data/d e\"\n", "/data/d e"),
        ("[spool.x]\npath = \"/no\"\n", "/var/lib/siteward"),
        ("spool = { path = \"/data/f\" }\n", "?"),
        ("[spool]\npath = \"/data/\\u0041\"\n", "?"),
        ("[spool]\npath = \"\"\"/data/g\"\"\"\n", "?"),
    ] {
        fs::write(&file, text).expect("a configuration");
        assert_eq!(output(Command::new("sh").args(["-ec", &shell])), place, "{text}");
    }
}

/// I2: what a newer version wrote is not taken for damage.
#[test]
fn an_older_program_leaves_a_newer_spool_alone_and_says_so() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut site = Site::new(directory.path(), Configuration::new(directory.path()));
    let spool = site.configuration.spool.clone();
    fs::create_dir_all(&spool).expect("a spool");
    fs::write(spool.join("format"), "2\n").expect("a mark");
    site.spawn();
    assert_eq!(site.process().ended(wait::SOON).code(), Some(78), "{}", site.log_tail());
    let told = site.log();
    assert!(told.contains("format 2") && told.contains("nothing was touched") && told.contains("install the version"), "{told}");
    let left: BTreeSet<_> = fs::read_dir(&spool).expect("the spool").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, BTreeSet::from(["format".into(), "spool.lock".into()]));
}

/// The configuration of a site is nobody's to overwrite, and the package brings all that the runbook counts on.
#[test]
fn the_package_of_siteward_is_whole_and_reproducible() {
    if !harness::long() {
        return println!("skipped: makes packages; SITEWARD_LONG=1 runs it");
    }
    if cfg!(not(target_arch = "x86_64")) || !has("dpkg-deb") {
        return println!("package: needs Debian on x86_64; skipped");
    }
    let paths = sound("x86_64");
    for path in [
        "/usr/bin/siteward",
        "/usr/lib/systemd/system/siteward.service",
        "/usr/lib/sysusers.d/siteward.conf",
        "/usr/lib/tmpfiles.d/siteward.conf",
        "/usr/share/siteward/siteward.toml",
        "/usr/share/siteward/siteward.cdx.json",
        "/usr/share/doc/siteward/RUNBOOK.md",
        "/usr/share/doc/siteward/third-party.txt",
        "/usr/share/man/man1/siteward.1.gz",
        "/usr/share/man/man1/siteward-status.1.gz",
        "/usr/share/bash-completion/completions/siteward",
        "/usr/share/zsh/vendor-completions/_siteward",
        "/usr/share/fish/vendor_completions.d/siteward.fish",
    ] {
        assert!(paths.contains(path), "{path} is missing in {paths:?}");
    }
    assert!(!paths.iter().any(|path| path.starts_with("/etc") || path.starts_with("/var")), "{paths:?}");
}

#[test]
fn the_package_for_deliveries_is_whole_and_reproducible() {
    if !has("dpkg-deb") {
        return println!("package: needs Debian; skipped");
    }
    let paths = sound("drop");
    for path in ["/usr/sbin/siteward-drop", "/etc/ssh/sshd_config.d/siteward-drop.conf", "/usr/share/man/man8/siteward-drop.8.gz"] {
        assert!(paths.contains(path), "{path} is missing in {paths:?}");
    }
}
