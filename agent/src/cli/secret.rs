//! `siteward secret set | list | remove | key`: values that the configuration names. With the agent running they go over its control socket, sealed to
//! its own key; with the agent stopped the command has the spool's lock and writes them itself.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;

use super::ask::{ask, is_denied, other, print_json, writable};
use super::{ConfigFile, Failure, print};
use crate::audit::Book;
use crate::config;
use crate::limits::SECRET_BYTES_MAX;
use crate::record::{Incarnation, Name};
use crate::secrets::{Value, Vault, name_fits, sealed};
use crate::spool::disk::RealDisk;
use crate::spool::{self, Lock};
use crate::status::access::Door;
use crate::status::board::Board;
use crate::status::on_site::{Peer, SecretsView};
use crate::status::question::{Order, Question, Request};
use crate::status::table::{printable, put, rows};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Sets a secret; reads its value from the terminal without showing it, or from standard input
    Set {
        #[command(flatten)]
        config: ConfigFile,
        /// As the configuration names it: credential = "NAME"
        name: String,
    },
    /// Lists the secrets set here by name, with when they were set
    List {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        json: bool,
    },
    /// Removes a secret
    Remove {
        #[command(flatten)]
        config: ConfigFile,
        name: String,
    },
    /// Shows the gateway's own public key, for `siteward-hub secret seal`
    Key(ConfigFile),
}

pub(super) fn carry_out(action: Action) -> Result<(), Failure> {
    match action {
        Action::Set { config, name } => set(&config.config, &name),
        Action::List { config, json } => list(&config.config, json),
        Action::Remove { config, name } => remove(&config.config, &name),
        Action::Key(at) => key(&at.config),
    }
}

#[derive(serde::Deserialize)]
struct Done {
    done: String,
}

#[derive(serde::Deserialize)]
struct Key {
    key: String,
}

/// Where the work is done.
enum Way {
    /// The agent runs.
    Agent,
    /// It does not, and cannot start while this is held.
    Here { vault: Arc<Vault>, owner: (u32, u32), records: Records, _lock: Lock },
}

/// The audit log of a gateway whose agent does not run; its lock is held.
struct Records {
    spool: PathBuf,
    gateway: Name,
    owner: (u32, u32),
}

impl Records {
    /// Does it between its intent and its outcome, as the agent would.
    fn around<T>(&self, what: &str, name: &str, work: impl FnOnce() -> Result<T, String>) -> Result<T, Failure> {
        let mut incarnation = Incarnation([0; 16]);
        getrandom::fill(&mut incarnation.0).map_err(other)?;
        let book = Book::open(Arc::new(RealDisk), &self.spool, self.gateway.clone(), incarnation, Board::new([]));
        let uid = Some(rustix::process::getuid().as_raw());
        let who = format!("{} on site, the agent stopped", Peer { uid, door: Door::Owner }.name(by().as_deref()));
        let done = book.begin(&who, what, name, "").and_then(|intent| {
            let done = work();
            book.end(intent, done.is_ok(), done.as_ref().err().map_or("", String::as_str));
            done
        });
        self.give_back()?;
        done.map_err(told)
    }

    /// The files are the agent's, whoever wrote them.
    fn give_back(&self) -> Result<(), Failure> {
        let directory = self.spool.join(crate::audit::log::DIRECTORY);
        let (uid, gid) = (Some(self.owner.0), Some(self.owner.1));
        let give = |path: &Path| std::os::unix::fs::lchown(path, uid, gid);
        for entry in std::fs::read_dir(&directory).map_err(other)?.flatten() {
            give(&entry.path()).map_err(other)?;
        }
        give(&directory).map_err(other)
    }
}

fn told(why: impl Into<String>) -> Failure {
    Failure::Other(why.into().into())
}

fn way(file: &Path) -> Result<Way, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    // Members of the groups read neither the configuration nor the spool; they ask.
    if is_denied(std::fs::File::open(file)) {
        return Ok(Way::Agent);
    }
    let settings = config::load_bootstrap_unchecked(file)?;
    let path = &settings.spool.path;
    if is_denied(writable(path)) {
        return Ok(Way::Agent);
    }
    let metadata = std::fs::metadata(path).map_err(|error| {
        told(format!("the spool {} cannot be looked at ({error}); start the agent once, it makes its spool", path.display()))
    })?;
    match spool::lock(path) {
        Ok(lock) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(std::path::PathBuf::from);
            let vault = Arc::new(Vault::new(&settings.spool, directory.as_deref()));
            let owner = (metadata.uid(), metadata.gid());
            let records = Records { spool: path.clone(), gateway: settings.gateway.id.clone(), owner };
            Ok(Way::Here { vault, owner, records, _lock: lock })
        }
        Err(spool::OpenError::Locked { .. }) => Ok(Way::Agent),
        Err(error) => Err(other(error)),
    }
}

pub(super) fn by() -> Option<String> {
    std::env::var("SUDO_USER").ok()
}

/// From a terminal without echo, else all of standard input; one line end behind it does not count.
pub(super) fn read_value(name: &str) -> Result<Value, String> {
    let mut value = Value::new(Vec::with_capacity(SECRET_BYTES_MAX + 2)); // never grows, so that no copy is left behind
    let unreadable = |error: std::io::Error| format!("the value cannot be read: {error}");
    let input = std::io::stdin();
    if input.is_terminal() {
        let _quiet = Quiet::begin().map_err(|error| format!("the terminal cannot be kept from showing what is typed: {error}"))?;
        // A prompt that cannot be shown is nobody's problem.
        let _ = write!(std::io::stderr(), "value of {name} (one line, not shown): ");
        let mut byte = [0];
        let mut lock = input.lock();
        while value.len() <= SECRET_BYTES_MAX && lock.read(&mut byte).map_err(unreadable)? == 1 && byte[0] != b'\n' {
            value.push(byte[0]);
        }
        let _ = writeln!(std::io::stderr());
    } else {
        let most = SECRET_BYTES_MAX as u64 + 2;
        input.lock().take(most).read_to_end(&mut value).map_err(unreadable)?;
    }
    let end = value.strip_suffix(b"\n").map(|rest| rest.strip_suffix(b"\r").unwrap_or(rest).len());
    if let Some(end) = end {
        value.truncate(end);
    }
    if value.is_empty() || value.len() > SECRET_BYTES_MAX {
        return Err(format!("a secret has 1 to {SECRET_BYTES_MAX} bytes; nothing was set"));
    }
    Ok(value)
}

/// The terminal does not show what is typed, as long as this lives.
struct Quiet(rustix::termios::Termios);

impl Quiet {
    fn begin() -> std::io::Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nobody could be told; the shell resets its terminal.
        let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}

fn set(file: &Path, name: &str) -> Result<(), Failure> {
    if !name_fits(name) {
        return Err(told("the name of a secret has 1 to 64 letters, digits, - _ ."));
    }
    let value = read_value(name).map_err(told)?; // first: the spool is not kept locked while somebody types
    match way(file)? {
        Way::Here { vault, owner, records, _lock } => {
            records.around("secret_set", name, || vault.set(name, &value, Some(owner)))?;
            print(&format!("secret {name} is set; the agent reads it when it starts\n"))
        }
        Way::Agent => {
            let Key { key } = ask(file, &Request::Get(Question::SecretKey {}))?;
            let key = sealed::read_public_key(&key).map_err(|why| told(format!("the agent's answer {why}")))?;
            let sealed = sealed::seal(&key, name, &value).map_err(told)?;
            let done: Done = ask(file, &Request::Do(Order::SecretSet { name: name.to_owned(), sealed, by: by() }))?;
            print(&printable(&format!("{}\n", done.done)))
        }
    }
}

fn remove(file: &Path, name: &str) -> Result<(), Failure> {
    match way(file)? {
        Way::Here { vault, owner, records, _lock } => {
            if !records.around("secret_removed", name, || vault.remove(name, Some(owner)))? {
                return Err(told("no secret of this name is set here; see `siteward secret list`"));
            }
            print(&printable(&format!("secret {name} is removed\n")))
        }
        Way::Agent => {
            let done: Done = ask(file, &Request::Do(Order::SecretRemove { name: name.to_owned(), by: by() }))?;
            print(&printable(&format!("{}\n", done.done)))
        }
    }
}

fn list(file: &Path, json: bool) -> Result<(), Failure> {
    let view = match way(file)? {
        Way::Here { vault, .. } => SecretsView::of(&vault).map_err(told)?,
        Way::Agent => ask(file, &Request::Get(Question::Secrets {}))?,
    };
    if json {
        return print_json(&view);
    }
    if view.secrets.is_empty() {
        return print("no secret is set here\n");
    }
    let mut table = vec![vec!["NAME".to_owned(), "SET AT".to_owned()]];
    for secret in view.secrets {
        table.push(vec![secret.name, format!("{}{}", secret.set_at, if secret.clock_suspect { " (clock suspect)" } else { "" })]);
    }
    let mut out = String::new();
    for line in rows(&table) {
        put(&mut out, format_args!("{}\n", line.trim_end()));
    }
    print(&printable(&out))
}

/// The key that secrets in documents are sealed to.
fn key(file: &Path) -> Result<(), Failure> {
    let key = match way(file)? {
        Way::Here { vault, .. } => vault.public_key().map_err(|error| other(Box::new(error)))?,
        Way::Agent => ask::<Key>(file, &Request::Get(Question::SecretKey {}))?.key,
    };
    print(&printable(&format!("{key}\n")))
}
