//! `siteward-hub broker`: what the broker has to know of gateways.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use siteward::hub::ends::{self, Kind};
use siteward::hub::enrolment::authority::{self, Authority};
use siteward::hub::enrolment::mosquitto;
use siteward::hub::enrolment::state::{List, State, put};
use siteward::hub::keys::Passphrase;

use crate::enroll::At;

#[derive(Debug, Subcommand)]
pub enum BrokerFiles {
    /// Write access list, list of revoked certificates and the lines of configuration for Mosquitto 2.0
    Mosquitto {
        #[command(flatten)]
        state: At,
        /// A directory that is there; files of an earlier run are replaced
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Where the broker will find them, if that is elsewhere
        #[arg(long, value_name = "DIR")]
        installed: Option<PathBuf>,
        /// The certificate of another authority that issues certificates of gateways or hub clients (PEM)
        #[arg(long, value_name = "FILE")]
        client_ca: Vec<PathBuf>,
        /// Its list of revoked certificates (PEM); the broker refuses every certificate of an authority whose list it does not have, or whose list
        /// has ended
        #[arg(long, value_name = "FILE")]
        crl: Vec<PathBuf>,
    },
}

/// Among the files that are written.
const ACCESS: usize = 0;
const REVOKED: usize = 1;
const CLIENTS: usize = 3;
const LINES: usize = 4;

/// What the broker has to do for its new files to count.
enum Needs {
    Nothing,
    Reload,
    Restart,
}

impl Needs {
    fn told(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing changed since the files of before; where the broker has those, there is nothing to do",
            Self::Reload => {
                "copy the files to the broker, then: systemctl reload mosquitto (only the access list changed; nobody is disconnected)"
            }
            Self::Restart => {
                "copy the files to the broker, then: systemctl restart mosquitto (a certificate was revoked, or authorities or lines of configuration \
                 changed; a reload would leave who is connected as it is). Gateways are back within seconds, and no message is lost"
            }
        }
    }
}

pub fn carry_out(command: BrokerFiles) -> Result<(), String> {
    let BrokerFiles::Mosquitto { state, out, installed, client_ca, crl } = command;
    if !out.is_dir() {
        return Err(format!("{}: is no directory; make it first", out.display()));
    }
    if client_ca.len() != crl.len() {
        return Err("--client-ca and --crl belong together: give the list of each authority".to_owned());
    }
    let state = State::open(&state.directory)?;
    let authority = Authority::open(&state, &Passphrase::usual())?;
    let held = state.hold("broker mosquitto")?;
    let (records, identities) = (state.records()?, state.identities()?);
    let now = siteward::clock::now().unix_ms / 1000;
    let joined =
        |first: String, files: &[PathBuf]| -> Result<String, String> { files.iter().try_fold(first, |all, file| Ok(all + &text(file)?)) };
    let revoked = mosquitto::revoked(&records, &identities);
    let files: [(&str, String); 5] = [
        ("acl", mosquitto::access(&records, &identities, now)),
        ("revoked", mosquitto::serials(&revoked, &crl.iter().map(|file| text(file)).collect::<Result<Vec<_>, _>>()?)),
        ("crl.pem", joined(authority.list(&held, &revoked)?, &crl)?),
        ("clients-ca.pem", joined(authority::certificate(&state)?, &client_ca)?),
        ("siteward.conf", mosquitto::configuration(&installed.unwrap_or_else(|| out.clone()).display().to_string())),
    ];
    let old: Vec<Option<String>> = files.iter().map(|(name, _)| std::fs::read_to_string(out.join(name)).ok()).collect();
    let is_new = |at: usize| old[at].as_deref() != Some(files[at].1.as_str());
    // A list of revoked certificates is signed anew each time: what is on it tells whether it changed.
    let needs = match (is_new(REVOKED) || is_new(CLIENTS) || is_new(LINES), is_new(ACCESS)) {
        (true, _) => Needs::Restart,
        (false, true) => Needs::Reload,
        (false, false) => Needs::Nothing,
    };
    for (name, text) in &files {
        put(&out.join(name), text.as_bytes(), 0o644)?;
        println!("{}", out.join(name).display());
    }
    println!(
        "{} gateways admitted, {} bundles not used yet, {} certificates revoked",
        records.iter().filter(|r| r.is_admitted() && r.used.is_some()).count(),
        records.iter().filter(|r| r.is_admitted() && r.used.is_none()).count(),
        revoked.len()
    );
    println!("{}", needs.told());
    held.save_lists(&lists(&crl)?)?;
    drop(held);
    crate::enroll::warn_of_ends(&state)
}

/// When each list has to be followed by another: one that has ended shuts out every certificate of its authority.
fn lists(files: &[PathBuf]) -> Result<Vec<List>, String> {
    let read = |file: &PathBuf| {
        let end = ends::of_pem("", text(file)?.as_bytes()).filter(|end| end.kind == Kind::List);
        Ok(List { file: file.display().to_string(), ends: end.map(|end| end.at) })
    };
    files.iter().map(read).collect()
}

fn text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))
}
