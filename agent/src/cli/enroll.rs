//! `siteward enroll FILE`: makes a gateway of this box, with a bundle of central IT. The work is in `enrolment::install`; here are the questions, and
//! at the end the preflight of the gateway that it has become.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use super::ask::{self, other};
use super::{Failure, print};
use crate::enrolment::bundle::{Opened, grouped};
use crate::enrolment::install::{self, Options, Talk, Way};

#[derive(Debug, clap::Args)]
pub(super) struct Enroll {
    /// The bundle that central IT made for this box (.bundle)
    file: PathBuf,
    /// Where the configuration goes; certificates and keys go into `enrolled/` beside it
    #[arg(long, value_name = "FILE", default_value = crate::config::DEFAULT_FILE)]
    config: PathBuf,
    /// The fingerprint of the key that signed the bundle, as central IT told you by phone or on paper; without it, it is shown and asked for
    #[arg(long, value_name = "FINGERPRINT")]
    trust: Option<String>,
    /// Where messages are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/siteward")]
    spool: PathBuf,
    /// The site's HTTP proxy, http://host:port, in place of what the bundle says
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// The name of a secret (user:password) for that proxy; before there is a spool it is looked for in $CREDENTIALS_DIRECTORY
    #[arg(long, value_name = "NAME", requires = "proxy")]
    proxy_credential: Option<String>,
    /// Gives this box, which is this gateway already, a new certificate
    #[arg(long)]
    again: bool,
    /// Waits so long for central IT (30s, 10m, 2h)
    #[arg(long, value_name = "TIME", value_parser = ask::duration, default_value = "10m")]
    wait: Duration,
}

pub(super) fn enroll(args: Enroll) -> Result<(), Failure> {
    let Enroll { file, config, trust, spool, proxy, proxy_credential, again, wait } = args;
    let way = proxy.map(|proxy| Way { proxy, credential: proxy_credential });
    let options = Options { bundle: file, config, spool, way, again, wait };
    let mut person = Person { trust };
    install::enrol(&options, &mut person).map_err(other)?;
    let report = super::preflight::look(&options.config)?;
    person.say("7/7 preflight, with the certificate of this gateway:");
    print(&report.text())?;
    if let Some((endpoint, step)) = report.failed().filter(|_| !report.has_a_way()) {
        return Err(other(format!(
            "this box is enrolled ({} is in place), and preflight stops: {endpoint} fails at step {}. Mend that, or give its ticket to whom it \
             names; then run the same command again, or `siteward preflight`. Nothing is lost",
            options.config.display(),
            step.as_str()
        )));
    }
    print("done. Start the gateway: systemctl enable --now siteward; then look: siteward status\n")
}

struct Person {
    trust: Option<String>,
}

impl Talk for Person {
    fn say(&mut self, line: &str) {
        // Whoever closed stdout does not want to know.
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    fn confirm(&mut self, opened: &Opened) -> Result<(), String> {
        const NOT_OURS: &str = "the bundle is not signed by the key with that fingerprint; do not use it, and tell central IT";
        self.say("the bundle is signed by");
        for signer in &opened.signers {
            self.say(&format!("    {}", grouped(signer)));
        }
        if let Some(typed) = &self.trust {
            return if opened.is_signed_by(typed)? { Ok(()) } else { Err(NOT_OURS.to_owned()) };
        }
        if !std::io::stdin().is_terminal() {
            return Err("nobody is here to compare the fingerprint; say --trust with the one that central IT told you".to_owned());
        }
        self.say(
            "Compare it with the fingerprint that central IT told you by phone or on paper, not with the mail that brought the bundle.",
        );
        // A prompt that cannot be shown is nobody's problem.
        let _ = write!(std::io::stdout(), "Type its first five groups: ").and_then(|()| std::io::stdout().flush());
        let mut typed = String::new();
        std::io::stdin().lock().read_line(&mut typed).map_err(|error| format!("what was typed cannot be read: {error}"))?;
        if opened.is_signed_by(&typed)? { Ok(()) } else { Err(NOT_OURS.to_owned()) }
    }
}
