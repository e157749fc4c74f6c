//! `siteward retire`: takes this gateway out of service for good. See `retirement`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::ask::{ask, other};
use super::{Failure, print};
use crate::clock;
use crate::config;
use crate::config::settings::Settings;
use crate::enrolment::bundle::hex;
use crate::limits::{RETIRE_POLL, RETIRE_STOP_WAIT};
use crate::retirement::count::{self, Loss};
use crate::retirement::disposal::{self, Progress, Record};
use crate::spool::{self, OpenError};
use crate::status::on_site::RETIREMENT_REPORTED;
use crate::status::question::{Order, Question, Request};
use crate::status::snapshot::Snapshot;

#[derive(Debug, clap::Args)]
pub(super) struct Retire {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    /// Why; kept in the disposal record and audited
    #[arg(long)]
    reason: String,
    /// With the agent running: takes nothing new, and waits so many seconds until the hub has confirmed everything
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
    /// What the hub has not confirmed, and what lies in quarantine, is lost
    #[arg(long)]
    lose: bool,
}

#[derive(serde::Deserialize)]
struct Done {
    done: String,
}

fn say(line: &str) {
    // Whoever closed stdout does not want to know.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn who() -> String {
    std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "somebody".to_owned())
}

pub(super) fn retire(args: &Retire) -> Result<(), Failure> {
    if args.reason.trim().is_empty() {
        return Err(other("say why: --reason is kept in the disposal record"));
    }
    let aside = disposal::set_aside(&args.config);
    let read = if args.config.exists() || !aside.exists() { &args.config } else { &aside };
    let settings = config::load_bootstrap_unchecked(read)?;
    let place = disposal::place(&args.config, &settings.gateway.id);
    let begun = Record::read(&place).map_err(other)?.filter(|record| record.progress == Progress::Begun);
    let (lock, reported) = match spool::lock(&settings.spool.path) {
        Ok(lock) => (lock, false),
        Err(OpenError::Locked { .. }) => drain(args, &settings)?,
        Err(error) => return Err(other(error)),
    };
    let mut lock = Some(lock);
    let record = if let Some(record) = begun {
        record
    } else {
        let (loss, held) = count::count(&settings, lock.take().expect("taken above"));
        lock = held;
        if !loss.is_none() && !args.lose {
            return Err(other(format!(
                "nothing was changed: this spool holds {loss}. Start the agent and say --drain SECONDS, so that they reach the hub; \
                 or say --lose, and they are gone"
            )));
        }
        let record = draft(args, &settings, loss, reported);
        record.write(&place).map_err(other)?;
        record
    };
    if lock.is_none() {
        // The spool could not be opened; the lock went with it.
        lock = Some(spool::lock(&settings.spool.path).map_err(other)?);
    }
    finish(record, &args.config, &place)?;
    drop(lock);
    Ok(())
}

fn finish(mut record: Record, config: &Path, place: &Path) -> Result<(), Failure> {
    record.carry_out(config).map_err(other)?;
    record.progress = Progress::Done;
    record.done_at = Some(clock::rfc3339(clock::now().unix_ms));
    record.write(place).map_err(other)?;
    let told = if record.reported { "the hub was told" } else { "the hub was not told: send it this file" };
    print(&format!(
        "gateway {} at {} is retired: {} keys erased, the spool removed; {}. The record is {}; {told}. Central IT takes its certificate from the \
         broker: siteward-hub enroll retire\n",
        record.gateway,
        record.site,
        record.keys.len(),
        if record.lost.is_none() { "nothing was lost".to_owned() } else { format!("lost: {}", record.lost) },
        place.display()
    ))
}

fn draft(args: &Retire, settings: &Settings, lost: Loss, reported: bool) -> Record {
    let (keys, not_erased) = disposal::keys(settings);
    let current = settings.spool.path.join("tls/current.pem");
    let certificate = if current.exists() { Some(current) } else { settings.uplink.cert.clone() };
    let leaf = certificate.and_then(|path| config::files::certificates(&path).ok()).and_then(|chain| chain.into_iter().next());
    let now = clock::now();
    Record {
        schema: 1,
        site: settings.gateway.site.clone(),
        gateway: settings.gateway.id.clone(),
        progress: Progress::Begun,
        by: who(),
        reason: args.reason.chars().filter(|c| !c.is_control()).collect(),
        begun_at: clock::rfc3339(now.unix_ms),
        done_at: None,
        clock_suspect: now.suspect,
        reported,
        lost,
        certificate_sha256: leaf.map(|der| hex(&Sha256::digest(der))),
        spool: settings.spool.path.clone(),
        keys,
        not_erased,
    }
}

/// With the agent running: paused, drained, reported, and stopped by whoever stands there. True: the hub has the audit record.
fn drain(args: &Retire, settings: &Settings) -> Result<(spool::Lock, bool), Failure> {
    let status = || ask::<Snapshot>(&args.config, &Request::Get(Question::Status {}));
    let waiting = |status: &Snapshot| status.feeds.iter().map(|feed| feed.queued).sum::<u64>();
    let kept = |status: &Snapshot| status.feeds.iter().map(|feed| feed.quarantined).sum::<u64>();
    let first = status()?;
    let Some(seconds) = args.drain else {
        return Err(other(format!(
            "the agent runs, with {} records that the hub has not confirmed and {} in quarantine; nothing was changed. Say --drain SECONDS to have \
             them delivered first, or stop the agent (systemctl disable --now siteward)",
            waiting(&first),
            kept(&first)
        )));
    };
    let why = format!("retired: {}", args.reason);
    for feed in &first.feeds {
        let order = Order::PauseFeed { feed: feed.id.to_string(), by: format!("{} on site", who()), why: why.clone() };
        // A feed that is not configured any more takes nothing anyway.
        if let Err(failure) = ask::<Done>(&args.config, &Request::Do(order))
            && !feed.retired
        {
            return Err(failure);
        }
    }
    say("no feed takes anything new; waiting until the hub has confirmed everything");
    let until = Instant::now() + Duration::from_secs(seconds);
    let left = loop {
        let now = status()?;
        if waiting(&now) == 0 || Instant::now() >= until {
            break now;
        }
        std::thread::sleep(RETIRE_POLL);
    };
    let (records, quarantined) = (waiting(&left), kept(&left));
    if (records > 0 || quarantined > 0) && !args.lose {
        return Err(other(format!(
            "{records} records are not confirmed after {seconds} s, and {quarantined} lie in quarantine. The feeds stay paused \
             (`siteward feeds resume` takes that back). Mend the uplink and release or drop the quarantine, then run this again; or say --lose"
        )));
    }
    let lost = if records + quarantined == 0 { String::new() } else { format!("lost: {records} unconfirmed, {quarantined} in quarantine") };
    let order = Order::Retire { reason: args.reason.clone(), lost, by: super::secret::by() };
    let done: Done = ask(&args.config, &Request::Do(order))?;
    let reported = done.done == RETIREMENT_REPORTED;
    say(&format!("{}; stop the agent now: systemctl disable --now siteward", done.done));
    let until = Instant::now() + RETIRE_STOP_WAIT;
    loop {
        match spool::lock(&settings.spool.path) {
            Ok(lock) => return Ok((lock, reported)),
            Err(OpenError::Locked { .. }) if Instant::now() < until => std::thread::sleep(RETIRE_POLL),
            Err(error) => return Err(other(error)),
        }
    }
}
