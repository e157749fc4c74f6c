//! A gateway box with a kernel of its own: the system of a [`Machine`](crate::machine::Machine) on a disk, booted by an emulated PC. What a
//! container on a borrowed kernel cannot show is real there: cgroup v2 with its limits, and a page cache that is lost when the power is cut.
//!
//! Debian's kernel for clouds is downloaded once and kept under `target/boot`; NVMe and ext4 are built into it, the network card is a module. The
//! box has one way in, a port of this machine's loopback, and none out. Commands go over its second serial port, one line each.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{Process, tail};
use crate::wait;

const KERNEL: &str = "linux-image-cloud-amd64";
/// Ends every answer of the box, before its exit code.
const END: u8 = 4;

/// Runs in the box: brings its card up, and answers each line of the second serial port.
const SHELL: &str = r#"#!/bin/bash
# The card's module may come later than this.
until ip link set eth0 up; do sleep 0.2; done 2>/dev/null
ip address add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
printf 'ready\n\0040\n' >&3
while IFS= read -r line <&3; do
    said=$(eval "$line" 2>&1); code=$?
    printf '%s\n\004%d\n' "$said" "$code" >&3
done
"#;

const UNIT: &str = "[Unit]\nAfter=network.target\n[Service]\nExecStart=/bin/bash /opt/shell\nRestart=always\nOOMScoreAdjust=-900\n";

/// What is missing for it on this machine, beside what [`crate::machine::missing`] names.
pub fn missing() -> Option<&'static str> {
    let has = |program: &str| ["/usr/bin", "/usr/sbin"].iter().any(|directory| Path::new(directory).join(program).exists());
    match () {
        () if !has("qemu-system-x86_64") => Some("qemu-system-x86_64 (Debian: qemu-system-x86)"),
        () if !has("depmod") => Some("depmod (Debian: kmod)"),
        () if !has("debugfs") || !has("mkfs.ext4") => Some("debugfs and mkfs.ext4 (Debian: e2fsprogs)"),
        () if !has("apt-get") => Some("apt-get, for a kernel"),
        () => None,
    }
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The kernel's package, unpacked; made where it is not there yet.
fn kernel() -> PathBuf {
    let kernel = crate::repository().join("target/boot/kernel");
    if !kernel.exists() {
        let partly = kernel.with_extension("partly");
        let _ = fs::remove_dir_all(&partly); // of an attempt that was broken off; absent otherwise
        fs::create_dir_all(&partly).expect("a directory for the kernel");
        let depends = run(Command::new("apt-cache").args(["depends", KERNEL]));
        let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).expect("the package of the kernel");
        run(Command::new("apt-get").args(["-qq", "download", package]).current_dir(&partly));
        let file = only(&partly, |name| name.starts_with("linux-image"));
        run(Command::new("dpkg").arg("-x").args([&file, &partly]));
        fs::remove_file(file).expect("the package is not needed any more");
        let version = only(&partly.join("lib/modules"), |_| true);
        run(Command::new("depmod").arg("-b").arg(&partly).arg(version.file_name().expect("a version")));
        fs::rename(&partly, &kernel).expect("the kernel is complete");
    }
    kernel
}

fn only(directory: &Path, wanted: impl Fn(&str) -> bool) -> PathBuf {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut found = entries.flatten().filter(|entry| wanted(&entry.file_name().to_string_lossy())).map(|entry| entry.path());
    found.next().unwrap_or_else(|| panic!("{}: nothing of it is there", directory.display()))
}

/// A running box.
#[derive(Debug)]
pub struct Booted {
    process: Option<Process>,
    disk: PathBuf,
    log: PathBuf,
    line: UnixStream,
}

impl Booted {
    /// Puts the system at `root` on a disk and boots it. `port` of its card is reached at the same port of our loopback.
    pub fn boot(root: &Path, directory: &Path, port: u16) -> Self {
        let kernel = kernel();
        run(Command::new("cp").arg("-a").arg(kernel.join("lib/modules")).arg(root.join("usr/lib/")));
        fs::write(root.join("opt/shell"), SHELL).expect("the shell's script");
        fs::write(root.join("etc/systemd/system/shell.service"), UNIT).expect("the shell's unit");
        let wants = root.join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).expect("a directory for wants");
        std::os::unix::fs::symlink("/etc/systemd/system/shell.service", wants.join("shell.service")).expect("the shell is wanted");

        let (disk, log, socket) = (directory.join("disk"), directory.join("kernel.log"), directory.join("line"));
        run(Command::new("mkfs.ext4").args(["-q", "-d"]).args([root, &disk]).arg("2G"));
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-machine",
            "q35",
            "-cpu",
            "max",
            "-accel",
            "tcg",
            "-smp",
            "2",
            "-m",
            "1024",
            "-display",
            "none",
            "-no-reboot",
            "-nodefaults",
        ]);
        command.args(["-serial", "stdio", "-serial", &format!("unix:{},server=on,wait=off", socket.display())]);
        command.arg("-kernel").arg(only(&kernel.join("boot"), |name| name.starts_with("vmlinuz")));
        command.args(["-append", "root=/dev/nvme0n1 rw console=ttyS0 net.ifnames=0 panic=-1 quiet systemd.unit=multi-user.target"]);
        // Of what the box has not synced nothing is on this disk; what it has is in our page cache, which ending the emulator does not touch.
        command.args([
            "-drive",
            &format!("file={},if=none,id=d,format=raw,cache=unsafe", disk.display()),
            "-device",
            "nvme,drive=d,serial=x",
        ]);
        let way_in = format!("user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{port}");
        let process = Process::start("qemu-system-x86_64", command.args(["-nic", &way_in]), &log);
        let connected = || UnixStream::connect(&socket).ok();
        let line = wait::wait_for("the box's serial port", wait::SOON, connected);
        line.set_read_timeout(Some(wait::EVENTUALLY)).expect("a deadline");
        let mut booted = Self { process: Some(process), disk, log, line };
        let (said, _) = booted.answer("to boot");
        assert!(said.contains("ready"), "the box says {said}");
        booted
    }

    fn answer(&mut self, question: &str) -> (String, i32) {
        let (mut said, mut code) = (Vec::new(), Vec::new());
        let mut is_over = false;
        loop {
            let mut byte = [0];
            if let Err(error) = self.line.read_exact(&mut byte) {
                panic!("{question}: no answer: {error}; the console ends with:\n{}", tail(&self.log));
            }
            match byte[0] {
                END => is_over = true,
                b'\n' if is_over => break,
                byte if is_over => code.push(byte),
                byte => said.push(byte),
            }
        }
        let code = String::from_utf8_lossy(&code).parse().expect("an exit code");
        (String::from_utf8_lossy(&said).trim_end().to_owned(), code)
    }

    /// Runs a line of shell inside; what it said, and its exit code.
    pub fn ask(&mut self, line: &str) -> (String, i32) {
        self.line.write_all(format!("{line}\n").as_bytes()).expect("the line is sent");
        self.answer(line)
    }

    /// The same, where it must succeed.
    pub fn must(&mut self, line: &str) -> String {
        let (said, code) = self.ask(line);
        assert_eq!(code, 0, "{line}: {said}");
        said
    }

    /// Asks until it succeeds.
    pub fn wait_for(&mut self, what: &str, within: Duration, line: &str) {
        let mut last = String::new();
        let found = wait::try_until(within, || {
            let (said, code) = self.ask(line);
            last = said;
            code == 0
        });
        assert!(found, "waited {} s in vain: {what}: {last}; the console ends with:\n{}", within.as_secs(), tail(&self.log));
    }

    /// Power off, without a word to anybody: what was not on the disk is lost. Then `inside` of the disk takes the place of that of `root`.
    pub fn cut_power_and_bring_home(mut self, root: &Path, inside: &str) {
        self.process = None;
        // Replays the journal of the file system, as the next boot would.
        let checked = Command::new("e2fsck").args(["-f", "-y"]).arg(&self.disk).stdin(Stdio::null()).output().expect("e2fsck runs");
        assert!(matches!(checked.status.code(), Some(0 | 1)), "the file system: {}", String::from_utf8_lossy(&checked.stdout));
        let place = root.join(inside.trim_start_matches('/'));
        let _ = fs::remove_dir_all(&place); // of a boot before this one; absent otherwise
        let into = place.parent().expect("it is no root").display();
        run(Command::new("debugfs").args(["-R", &format!("rdump {inside} {into}")]).arg(&self.disk));
        assert!(place.exists(), "{inside} is on the disk");
    }
}
