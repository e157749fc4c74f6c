//! Deliveries by SFTP: the package siteward-drop, installed into a box of its own, with a real OpenSSH server and client, and the agent that captures
//! what a vendor puts into its inbox. Needs root, overlay mounts and OpenSSH; nothing of the box stays on this machine.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use harness::files;
use harness::mosquitto;
use harness::process::Process;
use harness::scene::Scene;
use harness::site::Uplink;
use harness::{net, wait};

const PROGRAMS: [(&str, &str); 7] = [
    ("sshd", "openssh-server"),
    ("sftp", "openssh-client"),
    ("setfacl", "acl"),
    ("mkfs.ext4", "e2fsprogs"),
    ("unshare", "util-linux"),
    ("systemd-sysusers", "systemd"),
    ("dpkg-deb", "dpkg"),
];

/// What is missing here.
fn missing() -> Option<String> {
    let has = |program: &str| ["/usr/bin", "/usr/sbin", "/sbin", "/bin"].iter().any(|at| Path::new(at).join(program).exists());
    if !rustix::process::geteuid().is_root() {
        return Some("root".into());
    }
    if !fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("overlay") || !Path::new("/dev/loop-control").exists() {
        return Some("overlay and loop mounts".into());
    }
    PROGRAMS.iter().find(|(program, _)| !has(program)).map(|(program, package)| format!("{program} (Debian: {package})"))
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

struct Drop {
    directory: PathBuf,
    port: u16,
    process: Process,
}

impl Drop {
    /// Installs the package, makes the vendors `acme` and `other`, starts server and agent.
    fn start(scene: &Scene) -> Self {
        let directory = scene.directory.path().join("drop");
        for below in ["keys", "tls"] {
            fs::create_dir_all(directory.join(below)).expect("a directory");
        }
        run(Command::new(harness::repository().join("cross/package")).args(["drop", "--version", "0.1.0-1", "--out"]).arg(&directory));
        fs::rename(directory.join("siteward-drop_0.1.0-1_all.deb"), directory.join("siteward-drop.deb")).expect("the package is there");
        fs::copy(harness::program("siteward"), directory.join("siteward")).expect("the program is copied");
        fs::copy(harness::repository().join("tests/drop/box.sh"), directory.join("box.sh")).expect("the script is copied");
        fs::copy(harness::repository().join("systemd/siteward.sysusers"), directory.join("siteward.sysusers")).expect("a copy");
        for vendor in ["acme", "other", "stranger"] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.join("keys").join(vendor)));
        }
        let mut configuration = scene.site.configuration.clone();
        configuration.spool = "/var/lib/siteward".into();
        configuration.feeds.clear();
        if let Uplink::Tls { ca, client, .. } = &mut configuration.uplink {
            for (path, name) in [(ca, "ca.pem"), (&mut client.cert, "gateway.pem"), (&mut client.key, "gateway.key")] {
                fs::copy(&*path, directory.join("tls").join(name)).expect("a certificate is copied");
                *path = Path::new("/etc/siteward/tls").join(name);
            }
        }
        let folder = files::Folder { id: "acme".into(), path: "/srv/feeds/acme/inbox".into() };
        configuration.sections.push(folder.section(&["split = \"whole\"", "settle = \"2s\""]));
        fs::write(directory.join("siteward.toml"), configuration.text()).expect("the configuration is written");

        let port = net::free_port();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh"]).arg(directory.join("box.sh"));
        let process = Process::start("box", command.arg(&directory).arg(port.to_string()), &directory.join("box.log"));
        let mut it = Self { directory, port, process };
        let up = wait::try_until(wait::EVENTUALLY, || !it.process.running() || (net::listening(net::loopback(port)) && it.ready()));
        assert!(up && it.process.running(), "the box does not come up; its log ends with:\n{}", it.process.log_tail());
        it
    }

    fn ready(&self) -> bool {
        self.process.log_tail().contains("box: ready")
    }

    fn client(&self, program: &str, vendor: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-i").arg(self.directory.join("keys").join(vendor)).args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]);
        command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20", "-F", "none"]);
        command.current_dir(&self.directory);
        command
    }

    /// Runs commands of `sftp` with this vendor's key as that user: whether all went well, and what was said.
    fn sftp(&self, key: &str, user: &str, commands: &str) -> (bool, String) {
        let mut command = self.client("sftp", key);
        command.args(["-P", &self.port.to_string(), "-b", "-", &format!("{user}@127.0.0.1")]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sftp runs");
        child.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("sftp reads");
        told(&child.wait_with_output().expect("sftp ends"))
    }

    fn ssh(&self, vendor: &str, arguments: &[&str]) -> (bool, String) {
        let mut command = self.client("ssh", vendor);
        command.args(["-p", &self.port.to_string()]).args(arguments).stdin(Stdio::null());
        told(&command.output().expect("ssh runs"))
    }

    /// Runs a command in the box, as its root.
    fn inside(&self, arguments: &[&str]) -> (bool, String) {
        let comm = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let server = self.process.descendants().into_iter().find(|pid| comm(pid).trim() == "sshd").expect("the server runs");
        let mut command = Command::new("nsenter");
        command.args(["--target", &server.to_string(), "--mount", "--root", "--wd=/", "--"]).args(arguments);
        told(&command.stdin(Stdio::null()).output().expect("nsenter runs"))
    }

    fn put(&self, name: &str, content: &[u8], mode: &str) -> (bool, String) {
        fs::write(self.directory.join(name), content).expect("a file to deliver");
        run(Command::new("chmod").arg(mode).arg(self.directory.join(name)));
        self.sftp("acme", "acme", &format!("put {name}\n"))
    }
}

fn told(output: &Output) -> (bool, String) {
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    (output.status.success(), text)
}

/// Everything a vendor may not do, each with the words that say so.
fn confined(it: &Drop) -> usize {
    let refused = [
        it.sftp("acme", "acme", "get /etc/passwd\n"),
        it.sftp("acme", "acme", "get ../../etc/passwd\n"),
        it.sftp("acme", "acme", "ln -s /etc/passwd link\n"),
        it.sftp("acme", "acme", "put box.sh /box.sh\n"),
        it.sftp("acme", "acme", "ls done\n"),
        it.sftp("acme", "acme", "rename done other\n"),
        it.sftp("acme", "acme", "chmod 777 /inbox\n"),
        it.sftp("acme", "acme", "ls /../other\n"),
        it.sftp("acme", "other", "ls\n"),
        it.sftp("acme", "root", "ls\n"),
        it.sftp("stranger", "acme", "ls\n"),
        it.ssh("acme", &["acme@127.0.0.1", "id"]),
        it.ssh("acme", &["-tt", "acme@127.0.0.1"]),
        it.ssh("acme", &["-W", &format!("127.0.0.1:{}", it.port), "acme@127.0.0.1"]),
        it.ssh("acme", &["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22", "acme@127.0.0.1"]),
        it.ssh("acme", &["-o", "PubkeyAuthentication=no", "acme@127.0.0.1", "id"]),
    ];
    for (at, (went_well, text)) in refused.iter().enumerate() {
        assert!(!went_well && !text.contains("uid=") && !text.contains("root:x:"), "attempt {at} went well:\n{text}");
    }
    refused.len()
}

/// I1: what a vendor put into its inbox is captured, also where its client allowed only itself to read it, or filled the inbox; and a vendor can do
/// nothing but put files there.
#[test]
fn a_vendor_delivers_by_sftp_and_can_do_nothing_else() {
    if let Some(what) = missing() {
        return println!("drop: needs {what}, which this machine does not have; skipped");
    }
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |_| {});
    scene.hub.start();
    let it = Drop::start(&scene);

    let (went_well, text) = it.put("plain.dat", b"item,quantity\nA,1\n", "644");
    assert!(went_well, "{text}\n{}", it.process.log_tail());
    let (went_well, text) = it.put("private.dat", b"item,quantity\nB,2\n", "600");
    assert!(went_well, "{text}");
    let bodies = |enough: usize| -> Vec<Vec<u8>> {
        let found = wait::try_until(wait::EVENTUALLY, || files::read_events(&scene.hub.out(), "acme").0.len() >= enough);
        assert!(found, "the hub misses a file; the box's log ends with:\n{}", it.process.log_tail());
        files::read_events(&scene.hub.out(), "acme").0.into_iter().map(|event| event.body).collect()
    };
    let mut first = bodies(2);
    first.sort();
    assert_eq!(first, [b"item,quantity\nA,1\n", b"item,quantity\nB,2\n"]);

    let attempts = confined(&it);
    let (went_well, text) = it.sftp("acme", "acme", "ls -1 /\n");
    assert!(
        went_well && text.lines().filter(|line| !line.starts_with("sftp>")).all(|line| line.contains("inbox") || line.contains("Warning")),
        "{text}"
    );

    let (went_well, text) = it.put("huge.dat", &vec![b'x'; 24 << 20], "644");
    assert!(!went_well, "an inbox of 16 MiB takes no 24:\n{text}");
    it.sftp("acme", "acme", "rm huge.dat\n");
    assert!(it.put("after.dat", b"C\n", "640").0);
    assert!(bodies(3).iter().any(|body| body == b"C\n"));

    let (_, listed) = it.inside(&["siteward-drop", "list"]);
    assert!(listed.contains("acme") && listed.contains("other"), "{listed}");
    assert!(it.inside(&["mkdir", "-p", "/srv/feeds/third/inbox/ours"]).0);
    for (arguments, word) in [
        (&["siteward-drop", "add", "third", "/given/keys/other.pub"][..], "already and holds something"),
        (&["rm", "-r", "/srv/feeds/third/inbox/ours", "/nowhere"], "/nowhere"),
        (&["siteward-drop", "add", "root", "/given/keys/other.pub"], "already"),
        (&["siteward-drop", "add", "a/b", "/given/keys/other.pub"], "cannot be a vendor's name"),
        (&["siteward-drop", "add", "third", "/given/keys/other"], "private keys are not taken"),
        (&["siteward-drop", "add", "third", "/given/keys/other.pub", "1T"], "no size"),
        (&["dpkg", "--remove", "siteward-drop"], "there are vendors still"),
    ] {
        let (went_well, text) = it.inside(arguments);
        assert!(!went_well && text.contains(word), "{arguments:?}: {text}");
    }
    let (went_well, text) = it.inside(&["siteward-drop", "remove", "acme"]);
    assert!(went_well && text.contains("no access any more"), "{text}");
    assert!(!it.sftp("acme", "acme", "ls\n").0, "a vendor that was removed comes in");
    assert!(it.sftp("other", "other", "ls\n").0, "the other vendor stays");
    println!("drop: 3 files delivered by SFTP and captured; {attempts} ways out tried in vain; an inbox of 16 MiB refused 24");
}

/// What `siteward-drop add` prints is a feed as it is: whoever copies it is not sent away by `siteward check`.
#[test]
fn the_section_that_is_printed_for_a_vendor_is_a_good_one() {
    let script = fs::read_to_string(harness::repository().join("systemd/drop/siteward-drop")).expect("the script");
    let printed = script.split_once("Its feed, for ").expect("what is printed").1.split_once("\nEND\n").expect("its end").0;
    let section = printed.split_once("[[feed]]").expect("a section").1;
    let (before, after) = section.split_once("$((").expect("the size is computed");
    let after = after.split_once("))").expect("as the shell does").1;
    let section = format!("[[feed]]{before}170{after}").replace("$inbox", "/srv/feeds/acme/inbox").replace("$1", "acme");
    let text = format!(
        "[gateway]\nsite = \"s\"\nid = \"gw1\"\ntimezone = \"UTC\"\n[spool]\npath = \"/spool\"\nkey = \"auto\"\n\
         [uplink]\nendpoints = [\"mqtt://127.0.0.1:1\"]\nallow_plaintext = true\n{section}\n"
    );
    let settings = siteward::config::parse_text(Path::new("siteward.toml"), &text).unwrap_or_else(|faults| panic!("{faults}\n{section}"));
    assert_eq!(settings.feeds[0].id.as_str(), "acme");
    println!("drop: the printed section of a vendor is a good feed");
}
