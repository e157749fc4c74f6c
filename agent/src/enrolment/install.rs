//! `siteward enroll` behind its command line: the six steps on the box before its preflight.
//!
//! Each step looks first for what an interrupted run left, and goes on from there; the bundle is the only thing it needs to be given again. Nothing
//! of what ran before is touched until step 6, whose last act is one rename. Where no broker can be reached the steps of a preflight up to the
//! certificates say which one fails.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::watch;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::bundle::{self, Bundle, Opened};
use super::chain;
pub use super::place::Way;
use super::place::{self, Before, Place};
use super::proof::{self, About, Answer, Outcome, Request, Verifier};
use crate::clock;
use crate::config;
use crate::config::settings::{Endpoint, Proxy, Settings, TlsKeySource};
use crate::limits::{BUNDLE_BYTES_MAX, ENROLMENT_BYTES_MAX, VISIT_RETRY};
use crate::preflight;
use crate::secrets::Vault;
use crate::threads::{self, SCARCE};
use crate::uplink::csr;
use crate::uplink::tls::TlsFiles;
use crate::uplink::visit::{self, Failed, Next, Said, Step, Terms, Visitor};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub bundle: PathBuf,
    pub config: PathBuf,
    /// Of a configuration that is written anew.
    pub spool: PathBuf,
    /// In place of what the bundle says.
    pub way: Option<Way>,
    /// This box is a gateway already, and gets a new certificate.
    pub again: bool,
    /// How long the desk is waited for.
    pub wait: Duration,
}

/// How a run talks to whoever runs it.
pub trait Talk {
    /// Progress, a line at a time.
    fn say(&mut self, line: &str);
    /// Whether the key that signed the bundle is the one that central IT named. The error is a sentence.
    fn confirm(&mut self, opened: &Opened) -> Result<(), String>;
}

/// Does all of it. The error is a sentence that says what to do.
pub fn enrol(options: &Options, talk: &mut dyn Talk) -> Result<(), String> {
    let opened = read(options)?;
    let bundle = &opened.bundle;
    is_in_time(bundle)?;
    talk.confirm(&opened)?;
    let signer = opened.signers.first().map_or("", String::as_str);
    let config = std::path::absolute(&options.config).map_err(|error| format!("{}: {error}", options.config.display()))?;
    let mut run = Run { bundle, signer, options, place: Place::open(&config, bundle)?, config, way: None };
    let before = place::before(&run.config, &run.place.path(""), bundle)?;
    if matches!(before, Before::SameGateway(_)) && !options.again {
        return Err(format!(
            "this box is gateway {} already ({}); nothing was changed. To give it a new certificate, say --again",
            bundle.gateway,
            run.config.display()
        ));
    }
    run.way = run.way_out(&before)?;
    talk.say(&format!("1/7 the bundle makes this box gateway {} at {}", bundle.gateway, bundle.site));
    if before != Before::Ours {
        let key = run.key(talk)?;
        run.certificate(&key, talk)?;
        run.write(&before)?;
    }
    run.finish(talk)
}

fn read(options: &Options) -> Result<Opened, String> {
    use std::io::Read as _;
    let file = options.bundle.display();
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
    let open = std::fs::File::open(&options.bundle).map_err(|error| format!("{file}: cannot be read: {error}; check the path"))?;
    open.take(BUNDLE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| format!("{file}: cannot be read: {error}"))?;
    bundle::open(&bytes).map_err(|why| format!("{file}: {why}"))
}

/// By our own clock, where it can be believed; the desk judges by its own anyway.
fn is_in_time(bundle: &Bundle) -> Result<(), String> {
    let now = clock::now();
    if now.suspect || now.unix_ms / 1000 <= bundle.not_after {
        return Ok(());
    }
    Err(format!(
        "the bundle ended at {}, and it is {} by the clock of this box; set the clock if it is wrong (timedatectl), else ask central IT for a \
         new bundle",
        clock::rfc3339(bundle.not_after.saturating_mul(1000)),
        clock::rfc3339(now.unix_ms)
    ))
}

struct Run<'a> {
    bundle: &'a Bundle,
    signer: &'a str,
    options: &'a Options,
    place: Place,
    config: PathBuf,
    way: Option<Way>,
}

impl Run<'_> {
    fn about(&self) -> About<'_> {
        About { bundle: &self.bundle.bundle, site: &self.bundle.site, gateway: &self.bundle.gateway }
    }

    /// What was said here, else what the bundle says, else what the site had set.
    fn way_out(&self, before: &Before) -> Result<Option<Way>, String> {
        let said = self.options.way.clone().or_else(|| Way::of(self.bundle));
        if said.is_some() || !matches!(before, Before::SameGateway(_)) {
            return Ok(said);
        }
        let settings = config::load_bootstrap_unchecked(&self.config).map_err(|faults| faults.to_string())?;
        let of = |proxy: Proxy| Way { proxy: proxy.to_string(), credential: proxy.credential.map(|secret| secret.name().to_owned()) };
        Ok(settings.uplink.proxy.map(of))
    }

    /// The configuration to come.
    fn configuration(&self, kept: Option<&str>) -> Result<String, String> {
        let directory = self.place.path("");
        let spool = std::path::absolute(&self.options.spool).map_err(|error| format!("{}: {error}", self.options.spool.display()))?;
        Ok(place::configuration(self.bundle, self.signer, directory.components().as_path(), &spool, self.way.as_ref(), kept))
    }

    /// The settings of the gateway that this box will be, with the certificate that it has for enrolment.
    fn settings(&self) -> Result<Settings, String> {
        let told = |faults: config::Faults| format!("the gateway could not use what the bundle or --proxy says:\n{faults}");
        let mut settings = config::parse_text(&self.config, &self.configuration(None)?).map_err(told)?;
        let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let vault = Arc::new(Vault::new(&settings.spool, directory.as_deref()));
        if let Some(credential) = settings.uplink.proxy.as_mut().and_then(|proxy| proxy.credential.as_mut()) {
            *credential = credential.within(&vault, None);
        }
        settings.uplink.cert = Some(self.place.path(place::ENROLMENT_CERT));
        settings.uplink.key = Some(TlsKeySource::File(self.place.path(place::ENROLMENT_KEY)));
        Ok(settings)
    }

    /// The key of this box, made once.
    fn key(&mut self, talk: &mut dyn Talk) -> Result<Zeroizing<Vec<u8>>, String> {
        if let Some(key) = self.place.read(place::GATEWAY_KEY)?.filter(|key| PrivateKeyDer::from_pem_slice(key).is_ok()) {
            talk.say("2/7 the key of this box is there from before");
            return Ok(key);
        }
        let key = csr::key().map_err(|error| error.to_string())?;
        self.place.write(place::GATEWAY_KEY, key.as_bytes(), 0o640)?;
        talk.say("2/7 a key was made; it never leaves this box");
        Ok(Zeroizing::new(key.as_bytes().to_vec()))
    }

    /// Steps 3 to 5: until a good certificate lies there.
    fn certificate(&mut self, key: &[u8], talk: &mut dyn Talk) -> Result<(), String> {
        if let Some(chain) = self.place.read(place::GATEWAY_CERT)?
            && self.fits(&String::from_utf8_lossy(&chain), key).is_ok()
        {
            talk.say("3/7 not needed: the certificate is there from before");
            talk.say("4/7 not needed");
            talk.say("5/7 the certificate fits the key, the name and the authority");
            return Ok(());
        }
        let parsed = PrivateKeyDer::from_pem_slice(key).map_err(|_| "the key of this box is damaged".to_owned())?;
        let print = proof::print_of(&csr::public_key(parsed.secret_der()).map_err(|error| error.to_string())?);
        let csr = csr::request(parsed.secret_der(), &self.bundle.subject).map_err(|error| error.to_string())?;
        let secret = self.bundle.secret().ok_or("the secret in the bundle cannot be used; ask central IT for a new bundle")?;
        let verifier = Verifier::of(&secret);
        self.place.write(place::CA, self.bundle.ca_pem.as_bytes(), 0o644)?;
        self.place.write(place::ENROLMENT_CERT, self.bundle.enrolment_cert_pem.as_bytes(), 0o640)?;
        self.place.write(place::ENROLMENT_KEY, self.bundle.enrolment_key_pem.as_bytes(), 0o640)?;
        let ask = Ask { run: self, settings: self.settings()?, key, print: &print, verifier: &verifier, csr: &csr };
        let chain = ask.ask(talk)?;
        self.place.write(place::GATEWAY_CERT, chain.as_bytes(), 0o640)?;
        talk.say("5/7 the certificate came; it fits the key, the name and the authority");
        Ok(())
    }

    fn fits(&self, chain: &str, key: &[u8]) -> Result<(), String> {
        chain::check(chain, key, &self.bundle.subject, self.bundle.issuer_pem.as_deref())
    }

    /// Everything the configuration names, then the configuration.
    fn write(&mut self, before: &Before) -> Result<(), String> {
        let trust = &self.bundle.trust;
        for (kind, keys) in [("desk", &trust.keys), ("recovery", &trust.recovery_keys), ("command", &trust.command_keys)] {
            for (index, pem) in keys.iter().enumerate() {
                self.place.write(&place::trust_file(kind, index + 1), pem.as_bytes(), 0o644)?;
            }
        }
        self.place.write(place::CA, self.bundle.ca_pem.as_bytes(), 0o644)?;
        let kept = match before {
            Before::SameGateway(text) => Some(place::others(text)),
            Before::Free | Before::Ours => None,
        };
        let text = self.configuration(kept.as_deref())?;
        if kept.is_some() {
            self.is_kept(&text)?;
        }
        self.place.commit(&text)
    }

    /// What the site set in the old file holds in the new one, or nothing is changed.
    fn is_kept(&self, text: &str) -> Result<(), String> {
        let by_hand = "the configuration file holds settings of [gateway], [uplink] or [trust] that a bundle does not carry, or is written in a way \
                       that cannot be carried over; nothing was changed. Move the file away, enrol, and put those settings back by hand";
        let old = config::load_with(&self.config, config::Files::NotChecked).map_err(|_| by_hand.to_owned())?;
        let new = config::parse_text(&self.config, text).map_err(|_| by_hand.to_owned())?;
        let on_site = |settings: &Settings| {
            let Settings { gateway, spool, uplink, trust, status, feeds, .. } = settings.clone();
            let gateway = (gateway.control_socket, gateway.access_directory, gateway.clock_synchronised_file);
            let uplink = (uplink.in_flight, uplink.confirm, uplink.receipt_timeout, uplink.on_no_subscriber);
            (gateway, spool, uplink, trust.commands, status, feeds)
        };
        if on_site(&old) == on_site(&new) { Ok(()) } else { Err(by_hand.to_owned()) }
    }

    fn finish(&mut self, talk: &mut dyn Talk) -> Result<(), String> {
        self.place.remove(place::ENROLMENT_KEY)?;
        self.place.remove(place::ENROLMENT_CERT)?;
        config::load_with(&self.config, config::Files::OnSite).map_err(|faults| faults.to_string())?;
        talk.say(&format!("6/7 {} is written and checked", self.config.display()));
        Ok(())
    }
}

/// Asking the desk.
struct Ask<'a> {
    run: &'a Run<'a>,
    settings: Settings,
    key: &'a [u8],
    print: &'a str,
    verifier: &'a Verifier,
    csr: &'a str,
}

/// What the desk said last.
enum Heard {
    Nothing,
    Waiting,
    Issued(String),
    No(String),
}

impl Ask<'_> {
    fn ask(&self, talk: &mut dyn Talk) -> Result<String, String> {
        let runtime = threads::runtime(&mut tokio::runtime::Builder::new_current_thread(), 1);
        let runtime = runtime.map_err(|error| format!("cannot start: {SCARCE} ({error})"))?;
        runtime.block_on(self.until_answered(talk))
    }

    /// Every broker in turn, until one carries the answer.
    async fn until_answered(&self, talk: &mut dyn Talk) -> Result<String, String> {
        let deadline = Instant::now() + self.run.options.wait;
        let endpoints = &self.settings.uplink.endpoints;
        let tls = TlsFiles {
            ca: self.run.place.path(place::CA).into(),
            cert: Some(self.run.place.path(place::ENROLMENT_CERT)),
            key: Some(self.run.place.path(place::ENROLMENT_KEY)),
        };
        let mut told = String::new();
        loop {
            for endpoint in endpoints {
                match self.visit(endpoint, &tls, deadline, talk).await {
                    Ok(Heard::Issued(chain)) => return Ok(chain),
                    Ok(Heard::No(why)) => return Err(why),
                    Ok(Heard::Waiting) => return Err(waiting(self.run.options.wait)),
                    Ok(Heard::Nothing) | Err(Failed::NoAnswer) => return Err(unanswered(self.run.options.wait)),
                    Err(Failed::Line { why, permanent }) => {
                        if permanent && endpoints.len() == 1 {
                            return Err(self.stopped(&why, talk).await);
                        }
                        if told != why {
                            talk.say(&format!("    {why}; trying on"));
                        }
                        told = why;
                    }
                }
            }
            if Instant::now() + VISIT_RETRY >= deadline {
                return Err(self.stopped(&format!("no broker could be reached: {told}"), talk).await);
            }
            tokio::time::sleep(VISIT_RETRY).await;
        }
    }

    /// No way to a broker: the steps that were taken, and which one fails.
    async fn stopped(&self, why: &str, talk: &mut dyn Talk) -> String {
        let report = preflight::line(&self.settings).await;
        talk.say(&report.text());
        match report.failed() {
            Some((endpoint, step)) => format!("{why}. {endpoint} fails at step {}: see above. {REFUSED}", step.as_str()),
            None => format!("{why}. {REFUSED}"),
        }
    }

    async fn visit(&self, endpoint: &Endpoint, tls: &TlsFiles, deadline: Instant, talk: &mut dyn Talk) -> Result<Heard, Failed> {
        let about = self.run.about();
        let request = Request::new(self.verifier, about, self.csr.to_owned());
        let ours = proof::request_topic(about, self.print);
        let said = |payload| Said { topic: ours.clone(), payload, retain: true };
        let client_id = format!("enrol-{}-{}", proof::short(about.bundle), proof::short(self.print));
        let visitor = Visitor { endpoint, proxy: self.settings.uplink.proxy.as_ref(), tls: Some(tls), client_id: &client_id };
        let filter = proof::answer_topic(about.site, about.gateway, self.print);
        let terms = Terms { filter, quiet: None, deadline: Some(deadline) };
        let mut heard = Heard::Nothing;
        let (_never, mut stop) = watch::channel(false);
        let each = |step: Step<'_>| {
            let Step::Came(_, payload) = step else {
                let through = self.settings.uplink.proxy.as_ref().map_or_else(String::new, |proxy| format!(" through {proxy}"));
                talk.say(&format!("3/7 connected to {endpoint}{through}"));
                talk.say("4/7 the request for a certificate is with the broker; waiting for central IT");
                return Next::Stay(vec![said(serde_json::to_vec(&request).expect("plain values"))]);
            };
            match self.judge(payload) {
                Heard::Nothing => return Next::Stay(Vec::new()),
                Heard::Waiting if matches!(heard, Heard::Waiting) => return Next::Stay(Vec::new()),
                Heard::Waiting => {
                    talk.say("    central IT has it; the certificate comes from another authority");
                    heard = Heard::Waiting;
                    return Next::Stay(Vec::new());
                }
                other => heard = other,
            }
            Next::Leave(vec![said(Vec::new())]) // nothing is left to ask
        };
        let ended = visit::visit(&visitor, terms, &mut stop, each).await;
        match ended {
            Err(Failed::NoAnswer) if matches!(heard, Heard::Waiting) => Ok(heard),
            Err(failed) => Err(failed),
            Ok(_) => Ok(heard),
        }
    }

    /// What is not the desk's word to this key is nothing.
    fn judge(&self, payload: &[u8]) -> Heard {
        if payload.is_empty() || payload.len() > ENROLMENT_BYTES_MAX {
            return Heard::Nothing;
        }
        let Ok(answer) = serde_json::from_slice::<Answer>(payload) else { return Heard::Nothing };
        if !answer.is_proven(self.verifier, self.run.about(), self.print) {
            return Heard::Nothing;
        }
        match answer.outcome {
            Outcome::Waiting {} => Heard::Waiting,
            Outcome::Refused { why, .. } => Heard::No(format!("central IT refuses this box: {why}")),
            Outcome::Issued { chain } => match self.run.fits(&chain, self.key) {
                Ok(()) => Heard::Issued(chain),
                Err(why) => Heard::No(why),
            },
        }
    }
}

const REFUSED: &str = "Check the network of this box (address, default route, DNS, a firewall that lets it out to the broker's port), and ask \
                       central IT whether the broker admits this bundle. Then run the same command again; nothing is lost";

fn unanswered(wait: Duration) -> String {
    format!(
        "the broker has the request, and central IT did not answer within {} s; ask them to run `siteward-hub enroll serve`, then run the same \
         command again",
        wait.as_secs()
    )
}

fn waiting(wait: Duration) -> String {
    format!(
        "central IT has the request, and the certificate did not come within {} s; run the same command again when they have it",
        wait.as_secs()
    )
}
