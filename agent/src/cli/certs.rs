//! `siteward certs show | renew | csr | install | cancel`: asks the running agent about the certificate by which the hub knows this gateway.
//!
//! An enterprise authority signs files: `certs renew`, `certs csr --out FILE`, have it signed, `certs install FILE`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use super::ask::{self, ask, other, print_json};
use super::{ConfigFile, Failure, print};
use crate::contract::RenewalState;
use crate::limits::CERTIFICATE_BYTES_MAX;
use crate::renewal::handle::View;
use crate::status::question::{Order, Question, Request};
use crate::status::table::printable;

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Shows which certificate is in use, and how far a renewal is
    Show {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        json: bool,
    },
    /// Makes a new key on the box, which asks for its certificate; the one in use stays until the new one is proven
    Renew {
        #[command(flatten)]
        config: ConfigFile,
        /// A new certificate has so long to prove itself (10s to 24h)
        #[arg(long, value_parser = ask::duration, default_value = "15m")]
        trial: Duration,
    },
    /// Prints the request (PKCS #10, PEM) that waits for its certificate
    Csr {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Puts the certificate that was issued for the request on trial
    Install {
        #[command(flatten)]
        config: ConfigFile,
        /// The gateway's certificate and its intermediates (PEM)
        file: PathBuf,
    },
    /// Forgets the key that waits and the certificate on trial
    Cancel(ConfigFile),
}

pub fn carry_out(action: Action) -> Result<(), Failure> {
    match action {
        Action::Show { config, json } => show(&config.config, json),
        Action::Renew { config, trial } => renew(&config.config, trial),
        Action::Csr { config, out } => csr(&config.config, out.as_deref()),
        Action::Install { config, file } => install(&config.config, &file),
        Action::Cancel(at) => cancel(&at.config),
    }
}

fn who() -> String {
    std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "somebody".to_owned())
}

fn view(config: &Path) -> Result<View, Failure> {
    ask(config, &Request::Get(Question::Certificates {}))
}

fn done(config: &Path, order: Order) -> Result<(), Failure> {
    let view: View = ask(config, &Request::Do(order))?;
    print(&printable(&format!("{}\n", view.done.as_deref().unwrap_or_default())))
}

pub(super) fn show(config: &Path, json: bool) -> Result<(), Failure> {
    let view = view(config)?;
    if json { print_json(&view) } else { print(&printable(&render(&view))) }
}

fn render(view: &View) -> String {
    let in_use = match (&view.renewed, &view.ends) {
        (Some(file), Some(ends)) => format!("in use: {file}, until {ends}\n"),
        (Some(file), None) => format!("in use: {file}\n"),
        (None, _) => "in use: `cert` and `key` of the configuration file\n".to_owned(),
    };
    let state = match view.state {
        RenewalState::Idle => "no renewal is under way\n",
        RenewalState::Requested => "a key waits for its certificate; `siteward certs csr` prints the request\n",
        RenewalState::Trial => "a new certificate is on trial\n",
    };
    let last = view.last.as_ref().map(|last| format!("{}: {}\n", last.at, last.why));
    in_use + state + last.as_deref().unwrap_or_default()
}

pub(super) fn renew(config: &Path, trial: Duration) -> Result<(), Failure> {
    done(config, Order::CertificateRenew { by: who(), trial_s: trial.as_secs() })
}

/// The request, to a file or to stdout. It is no secret.
pub(super) fn csr(config: &Path, out: Option<&Path>) -> Result<(), Failure> {
    let Some(csr) = view(config)?.csr else {
        return Err(other("no key waits for a certificate; `siteward certs renew` makes one"));
    };
    let Some(out) = out else { return print(&csr) };
    std::fs::write(out, csr).map_err(|error| other(format!("{}: cannot be written: {error}", out.display())))?;
    print(&format!("{}: have it signed, then: siteward certs install FILE\n", out.display()))
}

pub(super) fn install(config: &Path, file: &Path) -> Result<(), Failure> {
    let failed = |why: String| other(format!("{}: {why}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| failed(format!("cannot be read: {error}")))?.len();
    if length > CERTIFICATE_BYTES_MAX as u64 {
        return Err(failed(format!("has more than {CERTIFICATE_BYTES_MAX} bytes; that is no certificate")));
    }
    let chain = std::fs::read_to_string(file).map_err(|error| failed(format!("cannot be read as PEM: {error}")))?;
    // A key in it would go over the socket for nothing.
    if chain.contains("PRIVATE KEY-----") {
        return Err(failed("holds a private key; give a file with the certificate and its intermediates only".to_owned()));
    }
    done(config, Order::CertificateInstall { by: who(), chain })
}

pub(super) fn cancel(config: &Path) -> Result<(), Failure> {
    done(config, Order::CertificateCancel { by: who() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::CertificateOutcome;

    #[test]
    fn what_is_shown_says_what_is_in_use_and_what_became_of_the_last() {
        let last = CertificateOutcome { taken: false, why: "it was refused".into(), at: "2026-11-01T00:00:00.000Z".into() };
        let (state, request, csr) = (RenewalState::Requested, None, Some("csr".into()));
        let view = View { state, request, csr, last: Some(last), renewed: None, ends: None, done: None };
        let expected = "in use: `cert` and `key` of the configuration file\n\
                        a key waits for its certificate; `siteward certs csr` prints the request\n\
                        2026-11-01T00:00:00.000Z: it was refused\n";
        assert_eq!(render(&view), expected);
    }
}
