//! `siteward-hub config`: documents are begun, looked at, compared, rendered, signed and published; what became of them is shown.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use siteward::clock;
use siteward::config::document::BootstrapText;
use siteward::hub::config;
use siteward::hub::differences;
use siteward::hub::overview::{self, Filter};
use siteward::hub::reports::{self, Door, Reports};
use siteward::hub::template::{self, Sheet};
use siteward::hub::waves::plan::Threshold;
use siteward::hub::waves::start::{self, Signed, Whom, Wish};
use siteward::limits::{CONFIG_BYTES_MAX, TABLE_BYTES_MAX};
use siteward::record::Name;

use crate::keys::signers;
use crate::reach::{Broker, MaybeBroker};
use crate::told;

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Print a document to begin with, every part explained.
    New {
        /// The gateway it is for.
        #[arg(long, conflicts_with = "group")]
        gateway: Option<Name>,
        /// The group it is for.
        #[arg(long)]
        group: Option<Name>,
        #[arg(long, default_value_t = 1)]
        revision: u64,
        #[arg(long, default_value = "your name")]
        author: String,
    },
    /// Check a document as a gateway would, and list every fault; with --broker also against what gateways report there: version, groups, what runs,
    /// what was tried.
    Lint {
        file: PathBuf,
        /// The gateway's own configuration file, to check against it.
        #[arg(long, value_name = "FILE")]
        bootstrap: Option<PathBuf>,
        #[command(flatten)]
        broker: MaybeBroker,
        #[command(flatten)]
        whom: Chosen,
    },
    /// What changes from one document to another (TOML, or signed): feeds, who notices it, and every key.
    Diff {
        old: PathBuf,
        new: PathBuf,
        /// The gateway's own configuration file.
        #[arg(long, value_name = "FILE")]
        bootstrap: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// One document for each row of a table: values stand as {{ name }} inside the template's texts. All are checked before any is written.
    Render {
        template: PathBuf,
        /// CSV with a header; the columns site and gateway say whose row it is.
        #[arg(long, value_name = "FILE")]
        table: PathBuf,
        /// A directory; GATEWAY.toml is written for each row.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Say what changes, compared with the documents of this directory (GATEWAY.toml or GATEWAY.dsse).
        #[arg(long, value_name = "DIR")]
        against: Option<PathBuf>,
    },
    /// Sign documents; each is checked first.
    Sign {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Private key: of `keys generate`, or PEM (PKCS#8). Once for each signature.
        #[arg(long, value_name = "FILE", required = true)]
        key: Vec<PathBuf>,
        /// The envelope; or a directory that is there, for NAME.dsse of each NAME.toml.
        #[arg(long, value_name = "FILE|DIR")]
        out: PathBuf,
    },
    /// Publish a signed document for one gateway or for some (retained), at once. For many, and with care: `rollout`.
    Push {
        #[command(flatten)]
        broker: Broker,
        #[command(flatten)]
        whom: Chosen,
        file: PathBuf,
    },
    /// What gateways report: what runs, what was tried and why not.
    Status {
        #[command(flatten)]
        broker: Broker,
        #[command(flatten)]
        whom: Chosen,
        /// Say whether they trust exactly these public keys (PEM).
        #[arg(long, value_name = "FILE")]
        trusts: Vec<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of documents, for editors.
    Schema,
}

/// Which gateways.
#[derive(Debug, clap::Args)]
pub struct Chosen {
    /// The site of gateways that are named without one [default: as they report]
    #[arg(long)]
    site: Option<Name>,
    /// GATEWAY or SITE/GATEWAY; may be repeated.
    #[arg(long = "gateway", conflicts_with = "group")]
    gateways: Vec<String>,
    /// Every gateway that reports this group.
    #[arg(long)]
    group: Option<Name>,
    /// Our name at the broker.
    #[arg(long, value_name = "ID", default_value = "siteward-hub-config")]
    client_id: String,
}

/// 0: good or done; 1: could not be done; 78: the document has faults.
pub fn carry_out(command: Config) -> ExitCode {
    match command {
        Config::New { gateway, group, revision, author } => {
            told(config::skeleton(gateway.as_ref(), group.as_ref(), revision, &author).map(|text| print!("{text}")))
        }
        Config::Lint { file, bootstrap, broker, whom } => match lint(&file, bootstrap.as_deref()) {
            Ok(linted) => lint_against(&file, &linted, broker.given(), whom),
            Err(faults) => faulty(&faults),
        },
        Config::Diff { old, new, bootstrap, json } => told(diff(&old, &new, bootstrap.as_deref(), json)),
        Config::Render { template, table, out, against } => match render(&template, &table, &out, against.as_deref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(faults) => faulty(&faults),
        },
        Config::Sign { files, key, out } => sign(&files, &key, &out),
        Config::Push { broker, whom, file } => told(push(broker, whom, &file)),
        Config::Status { broker, whom, trusts, json } => told(status(broker, whom, &trusts, json)),
        Config::Schema => {
            print!("{}", config::SCHEMA);
            ExitCode::SUCCESS
        }
    }
}

/// Faults are in the form of compilers: file first.
fn faulty(faults: &str) -> ExitCode {
    eprintln!("{faults}");
    ExitCode::from(78)
}

fn lint(file: &Path, bootstrap: Option<&Path>) -> Result<config::Linted, String> {
    let linted = config::lint(file, bootstrap)?;
    for warning in &linted.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(linted)
}

fn door(broker: Broker, client_id: String) -> Result<Door, String> {
    let endpoint = broker.endpoint.clone();
    Ok(Door { broker: endpoint, tls: broker.tls()?, client_id })
}

fn collect(broker: Broker, client_id: &str) -> Result<Reports, String> {
    let door = door(broker, client_id.to_owned())?;
    crate::runtime()?.block_on(reports::collect(&door))
}

/// What the gateways that were named would say of it.
fn lint_against(file: &Path, linted: &config::Linted, broker: Option<Broker>, whom: Chosen) -> ExitCode {
    let mut faults = Vec::new();
    if let Some(broker) = broker {
        let reports = match collect(broker, &whom.client_id) {
            Ok(reports) => reports,
            Err(why) => return told(Err(why)),
        };
        for key in keys(whom, linted.document.header.selector.clone(), &reports, &mut faults) {
            match reports.get(&key).filter(|known| known.reported.is_some()) {
                Some(known) => {
                    let refused = start::refusals(&linted.document, None, known, clock::now().unix_ms);
                    faults.extend(refused.into_iter().map(|why| format!("{}/{}: {why}", key.0, key.1)));
                }
                None => eprintln!("warning: {}/{}: has not reported to this broker; nothing is known of it", key.0, key.1),
            }
        }
    }
    if faults.is_empty() {
        println!("{}: good; revision {}", file.display(), linted.document.header.revision);
        return ExitCode::SUCCESS;
    }
    let told: Vec<String> = faults.iter().map(|fault| format!("{}: {fault}", file.display())).collect();
    faulty(&told.join("\n"))
}

/// The gateways that were named; without names, whom the document names.
fn keys(
    whom: Chosen,
    selector: siteward::config::header::Selector,
    reports: &Reports,
    faults: &mut Vec<String>,
) -> Vec<reports::GatewayKey> {
    use siteward::config::header::Selector;
    let Chosen { site, gateways, group, .. } = whom;
    let mut found = Vec::new();
    let whoms = match (group, gateways.is_empty(), selector) {
        (Some(group), ..) => vec![Whom::Group(group)],
        (None, false, _) => vec![Whom::Gateways(gateways)],
        (None, true, Selector::Gateway(gateway)) => vec![Whom::Gateways(vec![gateway.to_string()])],
        (None, true, Selector::Groups(groups)) => groups.into_iter().map(Whom::Group).collect(),
    };
    for whom in whoms {
        let wish = Wish {
            whom,
            site: site.clone(),
            expected: Vec::new(),
            waves: String::new(),
            soak_s: Vec::new(),
            window: None,
            threshold: Threshold::Count(0),
            grace_s: 0,
        };
        found.extend(start::chosen(&wish, &[], reports, faults));
    }
    found.sort();
    found.dedup();
    found
}

/// A document from TOML or from its envelope.
fn document(file: &Path) -> Result<siteward::config::document::Document, String> {
    let bytes = config::read(file)?;
    if file.extension().is_some_and(|e| e == "dsse") || bytes.first() == Some(&b'{') {
        return Signed::read(&file.display().to_string(), bytes).map(|signed| signed.document);
    }
    config::lint_text(file, bytes, None).map(|linted| linted.document)
}

fn diff(old: &Path, new: &Path, bootstrap: Option<&Path>, json: bool) -> Result<(), String> {
    let local = match bootstrap {
        Some(file) => BootstrapText::read(file).map_err(|faults| faults.to_string())?,
        None => config::any_gateway(),
    };
    let found = differences::between(&local, &document(old)?, &document(new)?)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&found).expect("plain values"));
    } else {
        print!("{}", found.render());
    }
    Ok(())
}

fn read_text(file: &Path, most: u64) -> Result<String, String> {
    let told = |why: String| format!("{}: {why}", file.display());
    let length = std::fs::metadata(file).map_err(|error| told(format!("cannot be read: {error}")))?.len();
    if length > most {
        return Err(told(format!("has {length} bytes; at most {most} are read")));
    }
    let bytes = std::fs::read(file).map_err(|error| told(format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|_| told("is not UTF-8 text; save it as UTF-8".to_owned()))
}

fn render(template: &Path, table: &Path, out: &Path, against: Option<&Path>) -> Result<(), String> {
    let text = read_text(template, CONFIG_BYTES_MAX)?;
    let joined = |faults: Vec<String>| faults.join("\n");
    let sheet = Sheet::read(table, &read_text(table, TABLE_BYTES_MAX)?).map_err(joined)?;
    let rendered = template::render((template, &text), (table, &sheet)).map_err(joined)?;
    std::fs::create_dir_all(out).map_err(|error| format!("{}: cannot be made: {error}", out.display()))?;
    for one in &rendered {
        one.linted.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        let file = out.join(format!("{}.toml", one.gateway));
        if let Some(directory) = against {
            let old =
                ["toml", "dsse"].map(|ending| directory.join(format!("{}.{ending}", one.gateway))).into_iter().find(|old| old.exists());
            match old {
                None => println!("{}/{}: new; {} has none", one.site, one.gateway, directory.display()),
                Some(old) => {
                    let found = differences::between(&config::any_gateway(), &document(&old)?, &one.linted.document)?;
                    print!("{}/{}:\n{}", one.site, one.gateway, found.render());
                }
            }
        }
        config::write_whole(&file, one.text.as_bytes())?;
    }
    let known: Vec<String> = rendered.iter().map(|one| format!("{}.toml", one.gateway)).collect();
    let there = std::fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    for stranger in there.filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "toml") && !known.contains(name)) {
        eprintln!("warning: {}: is not in the table; it was left as it is", out.join(stranger).display());
    }
    println!("{}: {} documents, all good", out.display(), rendered.len());
    Ok(())
}

fn sign(files: &[PathBuf], keys: &[PathBuf], out: &Path) -> ExitCode {
    let mut all = Vec::with_capacity(files.len());
    for file in files {
        match lint(file, None) {
            Ok(linted) => all.push((file, linted)),
            Err(faults) => return faulty(&faults),
        }
    }
    let signed = || -> Result<(), String> {
        if files.len() > 1 && !out.is_dir() {
            return Err(format!("{}: is no directory; several documents need one", out.display()));
        }
        let signers = signers(keys)?;
        for (file, linted) in &all {
            let envelope = config::sign(linted, &signers)?;
            let path = if out.is_dir() { out.join(file.with_extension("dsse").file_name().unwrap_or_default()) } else { out.to_owned() };
            config::write_whole(&path, envelope.as_bytes())?;
            println!("{}: revision {}, {} signatures", path.display(), linted.document.header.revision, signers.len());
        }
        Ok(())
    };
    told(signed())
}

fn push(broker: Broker, whom: Chosen, file: &Path) -> Result<(), String> {
    let signed = Signed::read(&file.display().to_string(), config::read(file)?)?;
    let client_id = whom.client_id.clone();
    let endpoint = broker.endpoint.clone();
    let tls = broker.tls()?;
    let door = Door { broker: endpoint.clone(), tls: tls.clone(), client_id: client_id.clone() };
    let runtime = crate::runtime()?;
    // Who names site and gateway needs no report.
    let is_known =
        whom.group.is_none() && !whom.gateways.is_empty() && (whom.site.is_some() || whom.gateways.iter().all(|name| name.contains('/')));
    let reports = if is_known { Reports::new() } else { runtime.block_on(reports::collect(&door))? };
    let mut faults = Vec::new();
    let keys = keys(whom, signed.document.header.selector.clone(), &reports, &mut faults);
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }
    for (site, gateway) in keys {
        let push = config::Push { broker: endpoint.clone(), tls: tls.clone(), client_id: client_id.clone(), site, gateway };
        runtime.block_on(config::push(&push, file))?;
        println!("{}: published for {}/{}", file.display(), push.site, push.gateway);
    }
    Ok(())
}

fn status(broker: Broker, whom: Chosen, trusts: &[PathBuf], json: bool) -> Result<(), String> {
    let expected = trusts.iter().map(|file| siteward::hub::keys::public_id(file)).collect::<Result<Vec<_>, _>>()?;
    let reports = collect(broker, &whom.client_id)?;
    let filter = Filter { site: whom.site, gateways: whom.gateways, group: whom.group };
    if json {
        println!("{}", overview::json(&reports, &filter, &expected));
    } else {
        print!("{}", overview::render(&reports, &filter, &expected));
    }
    Ok(())
}
