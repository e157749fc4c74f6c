//! `siteward-hub rollout`: signed documents for many gateways, in waves that stop by themselves and can be resumed after any interruption.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use siteward::clock;
use siteward::hub::config::any_gateway;
use siteward::hub::differences;
use siteward::hub::fleet::expected;
use siteward::hub::reports::{self, Door, Reports};
use siteward::hub::waves::drive::{Driver, Ending, Said, Until};
use siteward::hub::waves::entry::Entry;
use siteward::hub::waves::journal::{self, Journal, Memory};
use siteward::hub::waves::plan::{Threshold, Window, soak};
use siteward::hub::waves::start::{self, Planned, Signed, Whom, Wish};
use siteward::hub::waves::{Phase, Waves, told};
use siteward::limits::PUSH_GRACE_DEFAULT;
use siteward::record::Name;
use siteward::status::table::put;

use crate::reach::{Broker, MaybeBroker};

#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Begin: plan, write the plan down, publish wave after wave. Exit code 0: all waves are done; 3: it stopped; 1: it was interrupted, or could
    /// not go on.
    Start(Box<Start>),
    /// Go on with what is under way, or was stopped.
    Resume {
        #[command(flatten)]
        run: Run,
        /// Go on although it stopped: the failures and suspicions there are count no more.
        #[arg(long, requires = "why")]
        accept_failures: bool,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// How it stands; with --broker, what gateways report is read and written down first.
    Status {
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        #[command(flatten)]
        broker: MaybeBroker,
        #[arg(long, value_name = "ID", default_value = "siteward-hub-rollout-status")]
        client_id: String,
        #[arg(long)]
        json: bool,
    },
    /// Publish nothing more. A process that is at it stops; without one, --broker is needed to take the document away from those who have not begun
    /// with it.
    Stop {
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        #[command(flatten)]
        broker: MaybeBroker,
        #[arg(long, value_name = "ID", default_value = "siteward-hub-rollout")]
        client_id: String,
        #[arg(long, value_name = "TEXT")]
        why: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    broker: Broker,
    /// A directory of the desk: the journal of rollouts and every document that was published from it.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Our name at the broker. A second operator under the same name ends the first one's rollout with a word.
    #[arg(long, value_name = "ID", default_value = "siteward-hub-rollout")]
    client_id: String,
    /// After the last wave, or the stop, wait so many seconds for gateways that have not finished.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// Every event and the report at the end as a line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Start {
    #[command(flatten)]
    run: Run,
    /// A signed document, or a directory of them (*.dsse).
    #[arg(long, value_name = "FILE|DIR")]
    documents: PathBuf,
    /// Gateways: GATEWAY or SITE/GATEWAY, separated by commas [default: those that the documents name]
    #[arg(long, value_delimiter = ',', conflicts_with = "group")]
    gateways: Vec<String>,
    /// Every gateway that reports this group.
    #[arg(long)]
    group: Option<Name>,
    /// The site of gateways that are named without one [default: as they report]
    #[arg(long)]
    site: Option<Name>,
    /// A table of the gateways that there should be (CSV with the columns site and gateway): those that never reported to this broker are meant too,
    /// where a document names them, and are pending until they do.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// Where each wave ends: so many gateways, or so many of a hundred.
    #[arg(long, default_value = "1,10%,50%,100%")]
    waves: String,
    /// The rest after the first wave, and after each later one [default: 24h,1h]
    #[arg(long)]
    soak: Option<String>,
    /// Publish only in these hours, in the time of each site: 01:00-05:00.
    #[arg(long, value_parser = Window::parse)]
    window: Option<Window>,
    /// How many gateways may fail before it stops: a number, or so many of a hundred of those whose wave has begun.
    #[arg(long, default_value = "0", value_parser = Threshold::parse)]
    threshold: Threshold,
    /// No rest, no hours.
    #[arg(long, conflicts_with_all = ["soak", "window"])]
    now: bool,
    /// Seconds that a gateway which is there may say nothing before the same bytes are published again.
    #[arg(long, value_name = "SECONDS", default_value_t = PUSH_GRACE_DEFAULT.as_secs())]
    grace: u64,
    /// Show what every gateway would get, and publish nothing.
    #[arg(long)]
    dry_run: bool,
}

pub fn carry_out(command: Rollout) -> ExitCode {
    let done = match command {
        Rollout::Start(args) => begin(*args),
        Rollout::Resume { run, accept_failures, why } => resume(run, accept_failures, why.unwrap_or_default()),
        Rollout::Status { state, broker, client_id, json } => status(&state, broker.given(), client_id, json),
        Rollout::Stop { state, broker, client_id, why } => stop(&state, broker.given(), client_id, &why),
    };
    done.unwrap_or_else(|why| {
        eprintln!("siteward-hub: {why}");
        ExitCode::FAILURE
    })
}

fn door(broker: Broker, client_id: String) -> Result<Door, String> {
    let endpoint = broker.endpoint.clone();
    Ok(Door { broker: endpoint, tls: broker.tls()?, client_id })
}

/// For the lock and the journal.
fn who() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok()).filter(|name| !name.is_empty());
    let user = named.unwrap_or_else(|| "somebody".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{} (process {})", host.trim(), std::process::id())
}

fn begin(args: Start) -> Result<ExitCode, String> {
    let signed = read_documents(&args.documents)?;
    let whom = match args.group {
        Some(group) => Whom::Group(group),
        None if args.gateways.is_empty() => Whom::Named,
        None => Whom::Gateways(args.gateways),
    };
    let soak_s = if args.now { vec![0] } else { soak(args.soak.as_deref())? };
    let expected = args.expect.as_deref().map(expected::open).transpose()?.unwrap_or_default();
    let expected = expected.into_iter().map(|id| (id.site, id.gateway)).collect();
    let Start { site, waves, window, threshold, grace, dry_run, run, .. } = args;
    let Run { broker, state, client_id, wait, json } = run;
    let wish = Wish { whom, site, expected, waves, soak_s, window, threshold, grace_s: grace };
    let door = door(broker, client_id)?;
    let runtime = crate::runtime()?;
    let journal = if dry_run { None } else { Some(Journal::open(&state, &who())?) };
    let memory = match &journal {
        Some(journal) => journal.memory.clone(),
        None => journal::look(&state).unwrap_or_default(),
    };
    if let (Some(waves), Some(_)) = (restored(&memory), &journal)
        && !waves.is_over()
    {
        let id = &waves.plan().id;
        return Err(format!("{}: rollout {id} is under way; `rollout resume` goes on with it, `rollout stop` ends it", state.display()));
    }
    let reports = runtime.block_on(reports::collect(&door))?;
    let now_ms = clock::now().unix_ms;
    let planned = start::plan(&wish, &signed, &reports, &memory.contents, now_ms);
    let planned = planned.map_err(|faults| format!("nothing is published:\n  {}", faults.join("\n  ")))?;
    let Some(mut journal) = journal else {
        print!("{}", preview(&planned, &reports, &state));
        return Ok(ExitCode::SUCCESS);
    };
    for (target, document) in planned.plan.targets.iter().zip(&planned.documents) {
        journal.keep(target, &document.bytes)?;
    }
    let plan = planned.plan;
    let entry = Entry::Plan { plan: Box::new(plan.clone()), who: who(), at_ms: now_ms };
    journal.append(std::slice::from_ref(&entry))?;
    let waves = Waves::new(plan);
    let mut screen = Screen::new(json);
    screen.tell(&waves, &Said::Entry(&entry));
    drive(&runtime, &door, journal, waves, (Until::Over { then: Duration::from_secs(wait) }, None), screen)
}

fn resume(run: Run, accepts: bool, why: String) -> Result<ExitCode, String> {
    let Run { broker, state, client_id, wait, json } = run;
    let door = door(broker, client_id)?;
    let mut journal = Journal::open(&state, &who())?;
    let mut waves = restored(&journal.memory).ok_or_else(|| format!("{}: holds no rollout", state.display()))?;
    if let Phase::Stopped { why, .. } = waves.phase()
        && !accepts
        && waves.needs_acceptance()
    {
        return Err(format!("it was stopped: {why}\nto go on all the same, say so: --accept-failures --why REASON"));
    }
    let mut screen = Screen::new(json);
    if *waves.phase() != Phase::Finished {
        let entry = Entry::Resumed { who: who(), why, accepts, at_ms: clock::now().unix_ms };
        journal.append(std::slice::from_ref(&entry))?;
        waves = restored(&journal.memory).expect("it was there");
        screen.tell(&waves, &Said::Entry(&entry));
    }
    drive(&crate::runtime()?, &door, journal, waves, (Until::Over { then: Duration::from_secs(wait) }, None), screen)
}

fn status(state: &Path, broker: Option<Broker>, client_id: String, json: bool) -> Result<ExitCode, String> {
    let waves = restored(&journal::look(state)?).ok_or_else(|| format!("{}: holds no rollout", state.display()))?;
    if let Some(broker) = broker {
        match Journal::open(state, &who()) {
            Ok(journal) => {
                let door = door(broker, client_id)?;
                return drive(&crate::runtime()?, &door, journal, waves, (Until::Read, None), Screen::quiet(json))
                    .map(|_| ExitCode::SUCCESS);
            }
            Err(why) => eprintln!("siteward-hub: {why}; as the journal says it:"),
        }
    }
    print_report(&waves, json);
    Ok(ExitCode::SUCCESS)
}

fn stop(state: &Path, broker: Option<Broker>, client_id: String, why: &str) -> Result<ExitCode, String> {
    if why.trim().is_empty() {
        return Err("--why: say why; it is kept in the journal".to_owned());
    }
    let memory = journal::look(state)?;
    let before = restored(&memory).ok_or_else(|| format!("{}: holds no rollout", state.display()))?;
    if *before.phase() == Phase::Finished {
        return Err("all its waves are done; there is nothing to stop".to_owned());
    }
    let Ok(mut journal) = Journal::open(state, &who()) else {
        journal::ask_to_stop(state, &before.plan().id, &who(), why)?;
        println!("{} is asked to stop; it says so itself, and `rollout status` shows it", journal::holder(state));
        return Ok(ExitCode::SUCCESS);
    };
    let waves = restored(&journal.memory).expect("it was there");
    let Some(broker) = broker else {
        let entry = Entry::Stopped { why: format!("{} stopped it: {why}", who()), at_ms: clock::now().unix_ms };
        journal.append(&[entry])?;
        println!("stopped; the broker keeps what was published. With --broker it is taken away from those who have not begun with it");
        return Ok(ExitCode::SUCCESS);
    };
    let asked = Some((who(), why.to_owned()));
    let door = door(broker, client_id)?;
    drive(&crate::runtime()?, &door, journal, waves, (Until::Stopped, asked), Screen::new(false)).map(|_| ExitCode::SUCCESS)
}

/// The newest rollout of a journal.
fn restored(memory: &Memory) -> Option<Waves> {
    let (plan, ..) = memory.last.as_ref()?;
    Some(Waves::restore(plan.clone(), &memory.entries))
}

fn read_documents(path: &Path) -> Result<Vec<Signed>, String> {
    let unreadable = |error: std::io::Error| format!("{}: cannot be read: {error}", path.display());
    let mut files = vec![path.to_owned()];
    if std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        let entries = std::fs::read_dir(path).map_err(unreadable)?;
        files = entries.flatten().map(|entry| entry.path()).filter(|file| file.extension().is_some_and(|e| e == "dsse")).collect();
        files.sort();
        if files.is_empty() {
            return Err(format!("{}: holds no signed document (*.dsse)", path.display()));
        }
    }
    files.iter().map(|file| Signed::read(&file.display().to_string(), siteward::hub::config::read(file)?)).collect()
}

/// What every gateway would get.
fn preview(planned: &Planned<'_>, reports: &Reports, state: &Path) -> String {
    let plan = &planned.plan;
    let mut out = format!("{} gateways in {} waves; nothing is published\n", plan.targets.len(), plan.waves.len());
    for wave in 0..plan.waves.len() {
        for target in plan.wave(wave) {
            let (goal, document) = (&plan.targets[target], planned.documents[target]);
            let known = reports.get(&(goal.site.clone(), goal.gateway.clone()));
            let there = match known.and_then(|known| known.presence.as_ref()) {
                Some(presence) if presence.online => "online",
                Some(_) => "OFFLINE",
                None => "NEVER SEEN by this broker",
            };
            let name = goal.name();
            put(&mut out, format_args!("wave {}: {name} ({there}): revision {}, {}\n", wave + 1, goal.revision, document.file));
            let running = known.and_then(|known| known.reported.as_ref()).map(|reported| reported.running.clone());
            out.push_str(&match running {
                None => "  what it runs is not known\n".to_owned(),
                Some(running) if running.digest == Some(goal.digest) => "  it runs this already\n".to_owned(),
                Some(running) => match running.digest {
                    None => "  it runs its local file alone; every feed of the document may be new to it\n".to_owned(),
                    Some(digest) => changes(state, running.revision, digest, document),
                },
            });
        }
    }
    out
}

fn changes(state: &Path, revision: u64, digest: siteward::record::DocumentDigest, new: &Signed) -> String {
    let Some(bytes) = journal::known(state, digest) else {
        return format!("  it runs revision {revision}, which was not published from this state directory; what changes cannot be said\n");
    };
    let found = Signed::read("", bytes).and_then(|old| differences::between(&any_gateway(), &old.document, &new.document));
    match found {
        Ok(found) => format!("  it runs revision {revision}:\n{}", found.render()),
        Err(why) => format!("  it runs revision {revision}; what changes cannot be said: {why}\n"),
    }
}

/// Where it is told.
struct Screen {
    json: bool,
    quiet: bool,
    terminal: bool,
    shown: bool,
}

impl Screen {
    fn new(json: bool) -> Self {
        Self { json, quiet: false, terminal: std::io::stdout().is_terminal() && !json, shown: false }
    }

    fn quiet(json: bool) -> Self {
        Self { quiet: true, ..Self::new(json) }
    }

    fn tell(&mut self, waves: &Waves, said: &Said<'_>) {
        match said {
            _ if self.quiet => {}
            Said::Entry(entry) if self.json => println!("{}", told::entry_json(waves, entry)),
            Said::Entry(entry) => {
                if let Some(line) = told::entry(waves, entry) {
                    self.wipe();
                    println!("{line}");
                }
            }
            Said::Note(text) => {
                self.wipe();
                eprintln!("siteward-hub: {text}");
            }
            Said::Standing if self.terminal => {
                self.wipe();
                print!("{}", told::standing(waves, clock::now().unix_ms));
                // A terminal that is gone shows nothing; the journal has it all.
                let _ = std::io::stdout().flush();
                self.shown = true;
            }
            Said::Standing => {}
        }
    }

    fn wipe(&mut self) {
        if std::mem::take(&mut self.shown) {
            print!("\r\x1b[2K");
        }
    }
}

fn print_report(waves: &Waves, json: bool) {
    if json {
        println!("{}", told::report_json(waves));
    } else {
        print!("{}", told::report(waves, clock::now().unix_ms));
    }
}

fn drive(
    runtime: &tokio::runtime::Runtime,
    door: &Door,
    mut journal: Journal,
    mut waves: Waves,
    (until, stop): (Until, Option<(String, String)>),
    mut screen: Screen,
) -> Result<ExitCode, String> {
    let json = screen.json;
    let mut tell = |waves: &Waves, said: Said<'_>| screen.tell(waves, &said);
    let driver = Driver { door, journal: &mut journal, waves: &mut waves, until, stop, tell: &mut tell };
    let ended = runtime.block_on(async { driver.run(crate::until_signal()?).await });
    screen.wipe();
    let ending = ended?;
    print_report(&waves, json);
    Ok(match (ending, waves.phase()) {
        (Ending::Interrupted, _) => {
            eprintln!("siteward-hub: interrupted; `rollout resume` goes on, `rollout stop` ends it");
            ExitCode::FAILURE
        }
        (Ending::Over, Phase::Stopped { .. }) => ExitCode::from(3),
        (Ending::Over, _) => ExitCode::SUCCESS,
    })
}
