//! `siteward-hub enroll`: bundles are made, boxes are answered, gateways are retired.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use siteward::enrolment::bundle::{Trust, grouped};
use siteward::hub::ends::{self, Sources};
use siteward::hub::enrolment::answer::{self, Answering, Reach};
use siteward::hub::enrolment::authority::{self, Authority};
use siteward::hub::enrolment::issue::{self, Made, Wish};
use siteward::hub::enrolment::state::{Identity, Record, Role, State};
use siteward::hub::enrolment::{identity, seen};
use siteward::hub::keys::Passphrase;
use siteward::record::Name;

use crate::keys::signers;
use crate::reach::Broker;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Enroll {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    make: Make,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the desk's state and its own authority, whose key is sealed with a passphrase
    Init {
        #[command(flatten)]
        state: At,
        /// What the authority is called in its certificates
        #[arg(long, default_value = "siteward gateways")]
        name: String,
    },
    /// Answer boxes as they come, until stopped; over lost connections
    Serve {
        #[command(flatten)]
        state: At,
        #[command(flatten)]
        broker: Broker,
        /// Our name at the broker [default: siteward-hub-enroll- and the process]
        #[arg(long, value_name = "ID")]
        client_id: Option<String>,
    },
    /// Answer the boxes that wait now, and end
    Approve {
        #[command(flatten)]
        state: At,
        #[command(flatten)]
        broker: Broker,
        /// Our name at the broker [default: siteward-hub-enroll- and the process]
        #[arg(long, value_name = "ID")]
        client_id: Option<String>,
    },
    /// List bundles and what became of them
    List {
        #[command(flatten)]
        state: At,
        #[arg(long)]
        json: bool,
    },
    /// Retire a gateway: its names are admitted no more once the broker has its new files
    Retire {
        #[command(flatten)]
        state: At,
        #[arg(long)]
        site: Name,
        #[arg(long)]
        gateway: Name,
        #[arg(long)]
        reason: String,
    },
    /// Make key and certificate of a client that is no gateway: the receiver, or the desk itself
    Identity {
        #[command(flatten)]
        state: At,
        #[arg(long)]
        name: String,
        /// It has a certificate that ends, or a key that is known to others: the next one under the same name, with a new key. The one from before
        /// counts no more when the broker has its new files
        #[arg(long)]
        again: bool,
        /// receiver: `siteward-hub receive`; desk: every other verb
        #[arg(long, value_parser = role)]
        role: Role,
        /// A directory that is there, without files of this name
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub struct At {
    /// The desk's state, made by `enroll init`
    #[arg(long = "state", value_name = "DIR")]
    pub directory: PathBuf,
}

/// A bundle for one box. What is required is so without a subcommand only, so nothing here may be missing to the parser.
#[derive(Debug, clap::Args)]
struct Make {
    /// The desk's state, made by `enroll init`
    #[arg(long, value_name = "DIR", required = true)]
    state: Option<PathBuf>,
    #[arg(long, required = true)]
    site: Option<Name>,
    #[arg(long, required = true)]
    gateway: Option<Name>,
    /// The zone of the site, like America/New_York
    #[arg(long, required = true)]
    timezone: Option<String>,
    /// A group by which documents may mean it among others; once for each
    #[arg(long)]
    group: Vec<Name>,
    /// A broker, mqtts://host:port; once for each, in order of preference
    #[arg(long, value_name = "URL", required = true)]
    endpoint: Vec<String>,
    /// The site's HTTP proxy, http://host:port, where nothing leaves except through one
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// The name of a secret (user:password) for the proxy; it is set on the box and never in a bundle
    #[arg(long, value_name = "NAME", requires = "proxy")]
    proxy_credential: Option<String>,
    /// Certificates of the CA that signed the broker's certificate (PEM)
    #[arg(long, value_name = "FILE", required = true)]
    ca: Option<PathBuf>,
    /// A public key that signs documents for this gateway; once for each
    #[arg(long, value_name = "FILE", required = true)]
    trust: Vec<PathBuf>,
    /// So many of them have to sign
    #[arg(long, default_value_t = 1)]
    threshold: usize,
    /// A public key kept apart, for recovery: only with one can the keys of --trust ever be changed from here
    #[arg(long, value_name = "FILE")]
    recovery: Vec<PathBuf>,
    /// There is none, and none will be: other keys and another hub then need somebody at the box
    #[arg(long, conflicts_with = "recovery")]
    no_recovery: bool,
    #[arg(long, default_value_t = 1)]
    recovery_threshold: usize,
    /// A public key that signs commands, where these are other ones
    #[arg(long, value_name = "FILE")]
    command_key: Vec<PathBuf>,
    #[arg(long, default_value_t = 1)]
    command_threshold: usize,
    /// A private key that signs the bundle; one of those of --trust, and as many as --threshold
    #[arg(long, value_name = "FILE", required = true)]
    sign_with: Vec<PathBuf>,
    /// Where the bundle goes. It holds a secret: who has it first is the gateway
    #[arg(long, value_name = "FILE", required = true)]
    out: Option<PathBuf>,
    /// It can be used for so many days
    #[arg(long, default_value_t = siteward::limits::BUNDLE_DAYS_DEFAULT,
          value_parser = clap::value_parser!(u32).range(i64::from(siteward::limits::BUNDLE_DAYS_RANGE.0)..=i64::from(siteward::limits::BUNDLE_DAYS_RANGE.1)))]
    days: u32,
    /// The box takes the place of one with this name, which is retired
    #[arg(long)]
    replace: bool,
    /// The receiver's output (`receive --out`): says what it has of the box that is replaced
    #[arg(long, value_name = "FILE", requires = "replace")]
    account: Option<PathBuf>,
    /// The gateway's certificate is issued by another authority: `certs export-csr`, `certs import`
    #[arg(long)]
    outside: bool,
    /// That authority's certificate (PEM), by which the box checks what it gets
    #[arg(long, value_name = "FILE", requires = "outside")]
    outside_ca: Option<PathBuf>,
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "receiver" => Ok(Role::Receiver),
        "desk" => Ok(Role::Desk),
        _ => Err("must be receiver or desk".to_owned()),
    }
}

pub fn carry_out(args: Enroll) -> Result<(), String> {
    match args.action {
        Some(action) => act(action),
        None => bundle(&args.make),
    }
}

fn act(action: Action) -> Result<(), String> {
    match action {
        Action::Init { state, name } => {
            let state = State::make(&state.directory)?;
            authority::make(&state.hold("enroll init")?, &name, &Passphrase::usual())?;
            println!("{}: the authority is made; keep a copy of the whole directory", state.path("").display());
            Ok(())
        }
        Action::Serve { state, broker, client_id } => answer_boxes(&state, broker, client_id, true),
        Action::Approve { state, broker, client_id } => answer_boxes(&state, broker, client_id, false),
        Action::List { state, json } => list(&State::open(&state.directory)?, json),
        Action::Retire { state, site, gateway, reason } => {
            let state = State::open(&state.directory)?;
            for record in issue::retire(&state.hold("enroll retire")?, &site, &gateway, &reason)? {
                println!("retired: {}", shown(&record));
            }
            println!("{NEXT}");
            Ok(())
        }
        Action::Identity { state, name, again, role, out } => {
            let state = State::open(&state.directory)?;
            let authority = Authority::open(&state, &Passphrase::usual())?;
            let wish = identity::Wish { name: &name, role, again, out: &out };
            identity::make(&state.hold("enroll identity")?, &authority, wish)?;
            println!("{0}/{name}.pem and {0}/{name}.key", out.display());
            if again {
                println!("first let {name} use them; the certificate from before is refused as soon as the broker has its new files");
            }
            println!("{NEXT}");
            Ok(())
        }
    }
}

const MISSING: &str = "say --state, --site, --gateway, --timezone, --ca and --out";
const NO_RECOVERY: &str = "say --recovery FILE: without a recovery key the gateway's signing keys can never be changed from here, nor its hub. One is made \
                           with `siteward-hub keys generate --out VAULT --name recovery`, for all gateways. To go without, say --no-recovery";
const NEXT: &str = "next: `siteward-hub broker mosquitto`, and give the broker its new files";

fn text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))
}

fn bundle(make: &Make) -> Result<(), String> {
    let (Some(state), Some(site), Some(gateway)) = (&make.state, &make.site, &make.gateway) else { return Err(MISSING.to_owned()) };
    let (Some(timezone), Some(ca), Some(path)) = (&make.timezone, &make.ca, &make.out) else { return Err(MISSING.to_owned()) };
    if make.recovery.is_empty() && !make.no_recovery {
        return Err(NO_RECOVERY.to_owned());
    }
    let all = |files: &[PathBuf]| files.iter().map(|file| text(file)).collect::<Result<Vec<_>, _>>();
    let outside = match (&make.outside_ca, make.outside) {
        (Some(file), _) => Some(Some(text(file)?)),
        (None, true) => Some(None),
        (None, false) => None,
    };
    let wish = Wish {
        site: site.clone(),
        gateway: gateway.clone(),
        timezone: timezone.clone(),
        groups: make.group.clone(),
        endpoints: make.endpoint.clone(),
        proxy: make.proxy.clone(),
        proxy_credential: make.proxy_credential.clone(),
        ca_pem: text(ca)?,
        trust: Trust {
            keys: all(&make.trust)?,
            threshold: make.threshold,
            recovery_keys: all(&make.recovery)?,
            recovery_threshold: make.recovery_threshold,
            command_keys: all(&make.command_key)?,
            command_threshold: make.command_threshold,
        },
        days: make.days,
        replace: make.replace,
        outside,
    };
    let account = make.account.as_ref().map(|account| seen::seen(account, site, gateway)).transpose()?;
    let state = State::open(state)?;
    let authority = Authority::open(&state, &Passphrase::usual())?;
    let signers = signers(&make.sign_with)?;
    let mut out = fresh(path)?; // before anything is retired
    let made = state.hold("enroll").and_then(|held| issue::make(&held, &authority, &wish, &signers)).inspect_err(|_| {
        // Empty: one that cannot be removed only has to be named otherwise the next time.
        let _ = std::fs::remove_file(path);
    })?;
    let Made { record, envelope, replaced, withdrawn } = made;
    let written = out.write_all(envelope.as_bytes()).and_then(|()| out.sync_all());
    written.map_err(|error| format!("{}: cannot be written: {error}; make the bundle again elsewhere", path.display()))?;
    for old in &replaced {
        println!("retired: {}", shown(old));
    }
    for old in &withdrawn {
        println!("withdrawn, unused: {}", shown(old));
    }
    if make.replace && replaced.is_empty() {
        println!("no box of this name was enrolled here; if it has a certificate from elsewhere, take it from the broker by hand");
    }
    if let Some(account) = account {
        println!("{account}");
    }
    println!("{}: {}", path.display(), shown(&record));
    for signer in &signers {
        println!("signed by {}", grouped(signer.id()));
    }
    println!("tell the technician these groups by phone or on paper, not in the mail with the bundle");
    println!("{NEXT}");
    Ok(())
}

/// Private, and never over another file.
fn fresh(path: &Path) -> Result<std::fs::File, String> {
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    open.map_err(|error| {
        format!("{}: cannot be written: {error}; its directory has to be there, and nothing is ever written over", path.display())
    })
}

fn shown(record: &Record) -> String {
    let at = siteward::clock::rfc3339;
    let state = match (&record.retired, &record.used) {
        (Some(retired), _) => format!("retired {} ({})", at(retired.at * 1000), retired.why),
        (None, Some(used)) if used.chain.is_none() => "waits for another authority".to_owned(),
        (None, Some(used)) => format!("used {} by key {}", at(used.at * 1000), &used.key[..16.min(used.key.len())]),
        (None, None) => format!("unused, until {}", at(record.not_after * 1000)),
    };
    let certificate = record.certificates.last().map(|c| format!(", certificate {}", &c.fingerprint[..16.min(c.fingerprint.len())]));
    format!("{} at {} as {}: {state}{}", record.gateway, record.site, record.subject, certificate.unwrap_or_default())
}

fn list(state: &State, json: bool) -> Result<(), String> {
    let records = state.records()?;
    if json {
        let mut all = serde_json::to_value(&records).expect("plain values");
        for record in all.as_array_mut().into_iter().flatten().filter_map(|record| record.as_object_mut()) {
            record.remove("verifier"); // not for a screen
        }
        println!("{}", serde_json::to_string_pretty(&all).expect("plain values"));
        return Ok(());
    }
    for record in &records {
        println!("{}", shown(record));
    }
    for Identity { name, role, certificate, .. } in state.identities()? {
        let end = certificate.not_after.map_or_else(|| "?".to_owned(), |end| siteward::clock::rfc3339(end * 1000));
        println!("{name} ({}): its certificate ends {end}", role.as_str());
    }
    warn_of_ends(state)
}

/// Certificates of the desk and lists that end soon, on stderr.
pub fn warn_of_ends(state: &State) -> Result<(), String> {
    for told in ends::told(&ends::of_state(state)?, siteward::clock::now().unix_ms / 1000) {
        eprintln!("{}: {}", if told.is_urgent { "error" } else { "warning" }, told.text);
    }
    Ok(())
}

fn answer_boxes(state: &At, broker: Broker, client_id: Option<String>, until_stopped: bool) -> Result<(), String> {
    let state = State::open(&state.directory)?;
    let authority = Authority::open(&state, &Passphrase::usual())?;
    let endpoint = broker.endpoint.clone();
    let own = Sources { files: broker.certificate().into_iter().collect(), state: Some(state.clone()) };
    // Two desks under one name would push each other off the broker.
    let client_id = client_id.unwrap_or_else(|| format!("siteward-hub-enroll-{}", std::process::id()));
    let reach = Reach { broker: endpoint, tls: broker.tls()?, client_id };
    let answering = Answering { state, authority };
    crate::runtime()?.block_on(async {
        tokio::spawn(ends::watch(own, |_| {})); // ends with the runtime
        answer::serve(&reach, &answering, until_stopped, crate::until_signal()?, |line| println!("{line}")).await
    })
}
