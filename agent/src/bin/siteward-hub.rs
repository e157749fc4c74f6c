//! `siteward-hub`: the hub side, for central IT.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use siteward::config::settings::Endpoint;
use siteward::hub::certs;
use siteward::hub::command;
use siteward::hub::config;
use siteward::hub::keys::{self, Passphrase};
use siteward::hub::receive::{self, Options, parse_endpoint};
use siteward::hub::secrets;
use siteward::limits::HUB_COMMAND_WAIT;
use siteward::record::Name;
use siteward::rollout::command::{Answer, Outcome};
use siteward::uplink::tls::TlsFiles;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Receives, verifies and accounts for what gateways send.
#[derive(Debug, Parser)]
#[command(name = "siteward-hub", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive events from a broker into a file of JSON lines; verify, deduplicate, confirm.
    Receive(Receive),
    /// Make keys that sign documents.
    #[command(subcommand)]
    Keys(Keys),
    /// Check, sign and publish configuration documents.
    #[command(subcommand)]
    Config(Config),
    /// Sign commands for one gateway, send them, and wait for what became of them.
    #[command(name = "command", subcommand)]
    Order(Commands),
    /// Fetch requests for certificates and send what was issued.
    #[command(subcommand)]
    Certs(Certs),
    /// Seal secrets for one gateway.
    #[command(subcommand)]
    Secret(Secret),
    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
enum Certs {
    /// Write the request (PKCS #10, PEM) of one gateway to a file.
    Fetch {
        #[command(flatten)]
        whom: Whom,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Send one gateway its certificate and the intermediates (PEM, retained); it is used once it is proven.
    Issue {
        #[command(flatten)]
        whom: Whom,
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Whom {
    #[command(flatten)]
    broker: Broker,
    #[arg(long)]
    site: Name,
    #[arg(long)]
    gateway: Name,
    /// Our name at the broker.
    #[arg(long, value_name = "ID", default_value = "siteward-hub-certs")]
    client_id: String,
}

#[derive(Debug, Subcommand)]
enum Secret {
    /// Seal a value that only one gateway can open; prints the [[secret]] section for its document. The value is read from the terminal without
    /// showing it, or from standard input.
    Seal {
        /// The gateway's key: `secret_key` of what it reports, or `siteward secret key` there.
        #[arg(long, value_name = "BASE64")]
        key: String,
        /// As its feeds name it: credential = "NAME".
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum Keys {
    /// Make an Ed25519 pair: NAME.key, sealed with a passphrase, and NAME.pub for [trust] keys of the gateways. The passphrase is the first line
    /// of the file that SITEWARD_HUB_PASSPHRASE_FILE names, else it is asked for.
    Generate {
        /// A directory that is there.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum Config {
    /// Check a document as a gateway would, and list every fault.
    Lint {
        file: PathBuf,
        /// The gateway's own configuration file, to check against it.
        #[arg(long, value_name = "FILE")]
        bootstrap: Option<PathBuf>,
    },
    /// Sign a document; it is checked first.
    Sign {
        file: PathBuf,
        /// Private key: of `keys generate`, or PEM (PKCS#8). Once for each signature.
        #[arg(long, value_name = "FILE", required = true)]
        key: Vec<PathBuf>,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Publish a signed document for one gateway (retained).
    Push {
        #[command(flatten)]
        broker: Broker,
        #[arg(long)]
        site: Name,
        #[arg(long)]
        gateway: Name,
        /// Our name at the broker.
        #[arg(long, value_name = "ID", default_value = "siteward-hub-config")]
        client_id: String,
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Print what a gateway reports for whoever signs a command: challenge, highest counter, what it allows.
    Standing(To),
    /// Sign a command for what the gateway reported last: read from the broker with `command standing`, or given by hand.
    Sign {
        #[arg(long)]
        gateway: Name,
        /// The challenge it reports.
        #[arg(long)]
        challenge: String,
        /// The highest counter it reports; the command gets the next one.
        #[arg(long, value_name = "COUNTER")]
        highest: u64,
        #[command(flatten)]
        wish: Wished,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Send a signed command and print its result; it is carried out at most once, however often it is sent.
    Send {
        #[command(flatten)]
        to: To,
        /// Seconds to wait for the result.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
        file: PathBuf,
    },
    /// All at once: read what the gateway reported, sign, send, and print the result.
    Run {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        wish: Wished,
        /// Seconds to wait for the result.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
}

#[derive(Debug, clap::Args)]
struct To {
    #[command(flatten)]
    broker: Broker,
    #[arg(long)]
    site: Name,
    #[arg(long)]
    gateway: Name,
    /// Our name at the broker.
    #[arg(long, value_name = "ID", default_value = "siteward-hub-command")]
    client_id: String,
}

impl To {
    fn push(self) -> Result<config::Push, String> {
        let endpoint = self.broker.endpoint.clone();
        Ok(config::Push { broker: endpoint, tls: self.broker.tls()?, client_id: self.client_id, site: self.site, gateway: self.gateway })
    }
}

#[derive(Debug, clap::Args)]
struct Wished {
    /// Private key that signs: of `keys generate`, or PEM (PKCS#8). Once for each signature.
    #[arg(long = "sign-with", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// Who wants it.
    #[arg(long)]
    author: String,
    /// Why; it is audited at the gateway.
    #[arg(long)]
    reason: String,
    /// pause_feed, resume_feed, accept_resend, release_quarantine, drop_quarantine, checkpoint, diagnose or log_level.
    verb: String,
    /// Its arguments: feed=or-usage, for_s=600, first=7, last=9, level=debug.
    #[arg(value_name = "NAME=VALUE")]
    args: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Broker {
    /// The broker: mqtts://host:port, or mqtt://host:port without TLS.
    #[arg(long = "broker", value_name = "URL", value_parser = parse_endpoint)]
    endpoint: Endpoint,
    /// Certificates of the CA that signed the broker's certificate (PEM). Required for mqtts.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl Broker {
    fn tls(self) -> Result<Option<TlsFiles>, &'static str> {
        match (self.endpoint.tls, self.ca) {
            (true, Some(ca)) => Ok(Some(TlsFiles { ca: ca.into(), cert: self.cert, key: self.key })),
            (true, None) => Err("an mqtts:// broker needs --ca FILE, the CA that signed its certificate"),
            (false, _) => Ok(None),
        }
    }
}

#[derive(Debug, clap::Args)]
struct Receive {
    #[command(flatten)]
    broker: Broker,
    /// Where events go; the ledger and the index are kept beside it. It holds message content.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Name of our session at the broker; it must be the same at every start.
    #[arg(long, value_name = "ID", default_value = "siteward-hub")]
    client_id: String,
    /// Stop when nothing arrived for so many seconds, and print how every feed stands.
    #[arg(long, value_name = "SECONDS")]
    once_idle: Option<u64>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("SITEWARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match cli.command {
        Command::Receive(args) => run(args),
        Command::Keys(Keys::Generate { out, name }) => told(keys::generate(&out, &name, &Passphrase::usual()).map(|id| {
            println!("{id}  {name}.pub");
        })),
        Command::Config(command) => configure(command),
        Command::Order(command) => order(command),
        Command::Certs(command) => told(certify(command)),
        Command::Secret(Secret::Seal { key, name }) => told(secrets::seal(&key, &name).map(|section| print!("{section}"))),
        Command::Version => {
            println!("siteward-hub {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

/// The end of a command: a failure goes to stderr.
fn told(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("siteward-hub: {why}");
            ExitCode::FAILURE
        }
    }
}

fn configure(command: Config) -> ExitCode {
    match command {
        // Faults are in the form of compilers: file first.
        Config::Lint { file, bootstrap } => match lint(&file, bootstrap.as_deref()) {
            Ok(linted) => {
                println!("{}: good; revision {}", file.display(), linted.document.header.revision);
                ExitCode::SUCCESS
            }
            Err(faults) => {
                eprintln!("{faults}");
                ExitCode::from(78)
            }
        },
        Config::Sign { file, key, out } => match lint(&file, None) {
            Ok(linted) => told(sign(&linted, &key, &out)),
            Err(faults) => {
                eprintln!("{faults}");
                ExitCode::from(78)
            }
        },
        Config::Push { broker, site, gateway, client_id, file } => told(push(broker, site, gateway, client_id, &file)),
    }
}

fn lint(file: &Path, bootstrap: Option<&Path>) -> Result<config::Linted, String> {
    let linted = config::lint(file, bootstrap)?;
    for warning in &linted.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(linted)
}

fn signers(files: &[PathBuf]) -> Result<Vec<keys::Signer>, String> {
    let mut signers = Vec::with_capacity(files.len());
    for file in files {
        let (signer, sealed) = keys::open(file, &Passphrase::usual())?;
        if !sealed {
            eprintln!("warning: {}: is not sealed with a passphrase; whoever copies it can sign", file.display());
        }
        signers.push(signer);
    }
    Ok(signers)
}

/// 0: done; 1: nothing came of it, or nothing is known; 3: the gateway refused or failed, or it is in doubt.
fn order(command: Commands) -> ExitCode {
    match ordered(command) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(answer)) => {
            println!("{}", serde_json::to_string_pretty(&answer).expect("plain values"));
            if answer.outcome == Outcome::Done { ExitCode::SUCCESS } else { ExitCode::from(3) }
        }
        Err(why) => told(Err(why)),
    }
}

fn ordered(commands: Commands) -> Result<Option<Answer>, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("cannot start: {error}"))?;
    let within = |wait: Option<u64>| wait.map_or(HUB_COMMAND_WAIT, Duration::from_secs);
    match commands {
        Commands::Standing(to) => {
            let standing = runtime.block_on(command::standing(&to.push()?))?;
            let allowed: Vec<&str> = standing.allowed.iter().map(|verb| verb.as_str()).collect();
            println!("challenge {}\nhighest {}\nallowed {}", standing.challenge, standing.highest_counter, allowed.join(" "));
            Ok(None)
        }
        Commands::Sign { gateway, challenge, highest, wish, out } => {
            let standing = command::Standing { challenge, highest_counter: highest, allowed: Vec::new() };
            let envelope = signed(&wish, &gateway, &standing)?;
            std::fs::write(&out, envelope).map_err(|error| format!("{}: cannot be written: {error}", out.display()))?;
            println!("{}: command {} for {gateway}", out.display(), highest + 1);
            Ok(None)
        }
        Commands::Send { to, wait, file } => runtime.block_on(command::send(&to.push()?, &file, within(wait))).map(Some),
        Commands::Run { to, wish, wait } => {
            let to = to.push()?;
            let standing = runtime.block_on(command::standing(&to))?;
            let envelope = signed(&wish, &to.gateway, &standing)?;
            runtime.block_on(command::send_bytes(&to, envelope.into_bytes(), within(wait))).map(Some)
        }
    }
}

fn signed(wish: &Wished, gateway: &Name, standing: &command::Standing) -> Result<String, String> {
    let read = command::Wish::read(&wish.verb, &wish.args, &wish.author, &wish.reason)?;
    if !standing.allowed.is_empty() && !standing.allowed.contains(&read.verb) {
        eprintln!("warning: {gateway} does not list {} among the commands it takes", read.verb);
    }
    command::sign(&read, gateway, standing, &signers(&wish.keys)?)
}

fn sign(linted: &config::Linted, files: &[PathBuf], out: &Path) -> Result<(), String> {
    let signers = signers(files)?;
    let envelope = config::sign(linted, &signers)?;
    std::fs::write(out, envelope).map_err(|error| format!("{}: cannot be written: {error}", out.display()))?;
    println!("{}: revision {}, {} signatures", out.display(), linted.document.header.revision, signers.len());
    Ok(())
}

fn push(broker: Broker, site: Name, gateway: Name, client_id: String, file: &Path) -> Result<(), String> {
    let endpoint = broker.endpoint.clone();
    let push = config::Push { broker: endpoint, tls: broker.tls()?, client_id, site, gateway };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(config::push(&push, file))?;
    println!("{}: published for {}", file.display(), push.gateway);
    Ok(())
}

fn certify(command: Certs) -> Result<(), String> {
    let push = |whom: Whom| {
        let Whom { broker, site, gateway, client_id } = whom;
        let endpoint = broker.endpoint.clone();
        Ok::<_, &str>(config::Push { broker: endpoint, tls: broker.tls()?, client_id, site, gateway })
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("cannot start: {error}"))?;
    match command {
        Certs::Fetch { whom, out } => {
            let push = push(whom)?;
            let csr = runtime.block_on(certs::fetch(&push))?;
            std::fs::write(&out, csr).map_err(|error| format!("{}: cannot be written: {error}", out.display()))?;
            println!("{}: the request of {}", out.display(), push.gateway);
        }
        Certs::Issue { whom, file } => {
            let push = push(whom)?;
            runtime.block_on(certs::issue(&push, &file))?;
            println!("{}: published for {}", file.display(), push.gateway);
        }
    }
    Ok(())
}

fn run(args: Receive) -> ExitCode {
    let endpoint = args.broker.endpoint.clone();
    let tls = match args.broker.tls() {
        Ok(tls) => tls,
        Err(why) => {
            eprintln!("siteward-hub: {why}");
            return ExitCode::from(78);
        }
    };
    let print = args.once_idle.is_some();
    let once_idle = args.once_idle.map(Duration::from_secs);
    let options = Options { endpoint, tls, out: args.out, client_id: args.client_id, once_idle };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("siteward-hub: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(until_signal(options)) {
        Ok(summary) => {
            for feed in &summary {
                tracing::info!(feed = %feed.key, through = feed.through_seq, events = feed.tally.events, missing = ?feed.missing, "feed");
                if print {
                    println!("{}", serde_json::to_string(feed).expect("a summary is plain data"));
                }
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("siteward-hub: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn until_signal(options: Options) -> Result<Vec<siteward::hub::desk::Summary>, String> {
    let (stop, stopped) = watch::channel(false);
    let caught = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
    let (mut terminate, mut interrupt) = (caught(SignalKind::terminate())?, caught(SignalKind::interrupt())?);
    let waiting = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Nobody left to tell means that it has ended already.
        let _ = stop.send(true);
    });
    let received = receive::receive(options, None, stopped).await.map_err(|error| receive::explain(&error));
    waiting.abort();
    received
}
