//! A gateway box: a small Debian with systemd as process 1, in which the package of siteward is installed as the runbook says and runs as a service.
//!
//! It is booted with `systemd-nspawn` on the network of this machine, so that broker, hub and senders of a scene are reached on loopback. Power is
//! cut by killing all of it at once. (What a real power cut does to a disk is the business of the power-loss model; here it is what a cut does to
//! a service manager.) Needs root, `systemd-nspawn` and `debootstrap`; the bare system is made once and kept under `target/boot`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::process::Process;
use crate::site::{Configuration, Uplink};
use crate::wait;

const PACKAGES: &str = "systemd,systemd-sysv,dbus,libpam-systemd,udev,procps,iproute2";

/// What is missing for these tests on this machine.
pub fn missing() -> Option<&'static str> {
    let has = |program: &str| ["/usr/bin", "/usr/sbin"].iter().any(|directory| Path::new(directory).join(program).exists());
    match () {
        () if cfg!(not(target_arch = "x86_64")) => Some("an x86_64 processor"),
        () if !rustix::process::geteuid().is_root() => Some("root"),
        () if !has("systemd-nspawn") => Some("systemd-nspawn (Debian: systemd-container)"),
        () if !has("debootstrap") => Some("debootstrap"),
        () => None,
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

/// The bare system, made where it is not there yet.
fn bare() -> PathBuf {
    let bare = crate::repository().join("target/boot/bare");
    if !bare.join("usr/lib/systemd/systemd").exists() {
        let partly = bare.with_extension("partly");
        let _ = fs::remove_dir_all(&partly); // of an attempt that was broken off; absent otherwise
        fs::create_dir_all(&partly).expect("a directory for the system");
        run(Command::new("debootstrap").args(["--variant=minbase", &format!("--include={PACKAGES}"), "bookworm"]).arg(&partly));
        fs::rename(&partly, &bare).expect("the system is complete");
    }
    bare
}

/// The package of the program under test, with this version; made by `cross/package` into `directory`.
pub fn package(directory: &Path, version: &str) -> PathBuf {
    let repository = crate::repository();
    let mut command = Command::new(repository.join("cross/package"));
    command.args(["x86_64", "--version", version, "--program"]).arg(crate::program("siteward"));
    run(command.arg("--out").arg(directory.join(version)));
    directory.join(version).join(format!("siteward_{version}_amd64.deb"))
}

#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Machine {
    /// Installs the package and this configuration, whose files are copied; nothing runs yet. `drop_in` is appended to the service.
    pub fn install(directory: &Path, package: &Path, configuration: &Configuration, drop_in: &str) -> Self {
        let machine = Self::unconfigured(directory, package);
        machine.configure(configuration, drop_in);
        machine
    }

    /// Installs the package.
    pub fn unconfigured(directory: &Path, package: &Path) -> Self {
        let root = directory.join("root");
        fs::create_dir_all(directory).expect("a directory for the machine");
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(bare()).arg(&root));
        let machine = Self { log: directory.join("console.log"), root, process: None };
        let package = machine.bring(package);
        machine.maintain(&["dpkg", "--install", &package]);
        machine.keys();
        machine
    }

    /// Copies a package into the machine; its path there.
    pub fn bring(&self, package: &Path) -> String {
        let name = package.file_name().expect("a package has a name").to_string_lossy();
        fs::copy(package, self.root.join("root").join(&*name)).expect("the package is copied");
        format!("/root/{name}")
    }

    /// Puts this configuration in place, whose files are copied, last of all; while the machine is off, and while it is on.
    pub fn configure(&self, configuration: &Configuration, drop_in: &str) {
        let mut inside = configuration.clone();
        inside.spool = "/var/lib/siteward".into();
        inside.spool_lines.push("key = \"credential:spool-key\"".into());
        if let Uplink::Tls { ca, client, .. } = &mut inside.uplink {
            for (path, name) in [(ca, "ca.pem"), (&mut client.cert, "gateway.pem"), (&mut client.key, "gateway.key")] {
                fs::copy(&*path, self.root.join("etc/siteward/tls").join(name)).expect("a certificate is copied");
                *path = Path::new("/etc/siteward/tls").join(name);
            }
        }
        let drop_ins = self.root.join("etc/systemd/system/siteward.service.d");
        fs::create_dir_all(&drop_ins).expect("a directory for the drop-in");
        fs::write(drop_ins.join("test.conf"), format!("[Service]\n{drop_in}\n")).expect("the drop-in is written");
        let file = self.root.join("etc/siteward/siteward.toml");
        let fresh = file.with_extension("fresh");
        fs::write(&fresh, inside.text()).expect("the configuration is written");
        for arguments in [&["chgrp", "-R", "siteward", "/etc/siteward"][..], &["chmod", "-R", "u=rwX,g=rX,o=", "/etc/siteward"]] {
            if self.process.is_some() {
                self.must(arguments);
            } else {
                self.maintain(arguments);
            }
        }
        fs::rename(fresh, file).expect("the configuration is in place");
    }

    /// The spool's key, sealed to this machine.
    fn keys(&self) {
        let credentials = self.root.join("etc/credstore.encrypted");
        // As `systemd-tmpfiles` makes it when the package comes, which is later here.
        fs::create_dir_all(&credentials).expect("a directory for credentials");
        fs::write(self.root.join("root/key"), [7; 32]).expect("a key");
        self.maintain(&[
            "systemd-creds",
            "encrypt",
            "--with-key=host",
            "--name=spool-key",
            "/root/key",
            "/etc/credstore.encrypted/spool-key",
        ]);
        fs::remove_file(self.root.join("root/key")).expect("the key in the clear is not needed any more");
    }

    /// Runs a command in the system while it is off.
    fn maintain(&self, arguments: &[&str]) -> Output {
        run(self.container().arg("--pipe").args(arguments))
    }

    fn container(&self) -> Command {
        let mut command = Command::new("systemd-nspawn");
        command.args(["--quiet", "--register=no", "--keep-unit", "-D"]).arg(&self.root);
        command
    }

    /// Power on.
    pub fn boot(&mut self) {
        self.process = Some(Process::start("systemd-nspawn", self.container().args(["--console=pipe", "--boot"]), &self.log));
    }

    /// Power on, with nothing but its own loopback.
    pub fn boot_without_network(&mut self) {
        let mut command = self.container();
        command.args(["--private-network", "--console=pipe", "--boot"]);
        self.process = Some(Process::start("systemd-nspawn", &mut command, &self.log));
    }

    /// Waits until systemd says that the service is ready.
    pub fn active(&self) {
        let is_active = || self.attempt(&["systemctl", "is-active", "--quiet", "siteward.service"]).status.success();
        assert!(wait::try_until(wait::EVENTUALLY, is_active), "the service does not run; the console ends with:\n{}", self.log_tail());
    }

    /// Power off, without a word to anybody.
    pub fn cut_power(&mut self) {
        self.process = None;
    }

    /// The process of the service, where it runs.
    pub fn agent(&self) -> Option<u32> {
        self.found("siteward")
    }

    fn found(&self, name: &str) -> Option<u32> {
        let all = self.process.as_ref()?.descendants();
        all.into_iter().find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name))
    }

    /// Another process of the service than this.
    pub fn agent_after(&self, before: u32) -> u32 {
        wait::wait_for("the service to be started again", wait::EVENTUALLY, || self.agent().filter(|pid| *pid != before))
    }

    /// Runs a command inside; its standard output.
    pub fn command(&self, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&self.attempt(arguments).stdout).into_owned()
    }

    /// Runs a command inside that must succeed; its standard output.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.attempt(arguments);
        let (told, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{told}{complaint}", output.status);
        told.into_owned()
    }

    /// Runs a command inside, whatever comes of it.
    pub fn attempt(&self, arguments: &[&str]) -> Output {
        let init = wait::wait_for("process 1 of the machine", wait::SOON, || self.found("systemd"));
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &init.to_string(), "--"]).args(arguments);
        command.stdin(Stdio::null()).output().expect("nsenter runs")
    }

    /// A path inside, as seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    pub fn log_tail(&self) -> String {
        crate::process::tail(&self.log)
    }
}
