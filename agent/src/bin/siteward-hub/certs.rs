//! `siteward-hub certs`: requests for certificates are fetched, and what was issued is sent.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use siteward::hub::certs;
use siteward::hub::enrolment::authority::Authority;
use siteward::hub::enrolment::outside;
use siteward::hub::enrolment::state::State;
use siteward::hub::keys::Passphrase;
use siteward::record::Name;

use crate::enroll::At;
use crate::reach::Reach;

#[derive(Debug, Subcommand)]
pub enum Certs {
    /// Write the request (PKCS #10, PEM) of one gateway to a file.
    Fetch {
        #[command(flatten)]
        reach: Reach,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Send one gateway its certificate and the intermediates (PEM, retained); it is used once it is proven.
    Issue {
        #[command(flatten)]
        reach: Reach,
        file: PathBuf,
    },
    /// Write the request of a box that enrols and waits for another authority (PKCS #10, PEM) to a file.
    ExportCsr {
        #[command(flatten)]
        state: At,
        #[arg(long)]
        site: Name,
        #[arg(long)]
        gateway: Name,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Take the certificate that another authority issued for such a request, with its intermediates (PEM); whose it is, its key says.
    Import {
        #[command(flatten)]
        state: At,
        file: PathBuf,
    },
    /// Sign the request of a gateway that renews its certificate (`certs fetch`) with the desk's own authority.
    Sign {
        #[command(flatten)]
        state: At,
        file: PathBuf,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

pub fn carry_out(command: Certs) -> Result<(), String> {
    let runtime = crate::runtime()?;
    let write =
        |out: &Path, text: &str| std::fs::write(out, text).map_err(|error| format!("{}: cannot be written: {error}", out.display()));
    let read = |file: &Path| std::fs::read_to_string(file).map_err(|error| format!("{}: cannot be read: {error}", file.display()));
    match command {
        Certs::ExportCsr { state, site, gateway, out } => {
            write(&out, &outside::export(&State::open(&state.directory)?, &site, &gateway)?)?;
            println!("{}: the request of {gateway}", out.display());
        }
        Certs::Import { state, file } => {
            let (state, chain) = (State::open(&state.directory)?, read(&file)?);
            let told = |why: String| format!("{}: {why}", file.display());
            let record = outside::import(&state.hold("certs import")?, &chain).map_err(told)?;
            println!("{}: kept for {} at {}; next: `siteward-hub enroll approve`", file.display(), record.gateway, record.site);
        }
        Certs::Sign { state, file, out } => {
            let (state, csr) = (State::open(&state.directory)?, read(&file)?);
            let authority = Authority::open(&state, &Passphrase::usual())?;
            let told = |why: String| format!("{}: {why}", file.display());
            let (pem, record) = outside::renew(&state.hold("certs sign")?, &authority, &csr).map_err(told)?;
            write(&out, &pem)?;
            println!("{}: for {} at {}; next: `siteward-hub certs issue`", out.display(), record.gateway, record.site);
        }
        Certs::Fetch { reach, out } => {
            let push = reach.push("certs")?;
            let csr = runtime.block_on(certs::fetch(&push))?;
            std::fs::write(&out, csr).map_err(|error| format!("{}: cannot be written: {error}", out.display()))?;
            println!("{}: the request of {}", out.display(), push.gateway);
        }
        Certs::Issue { reach, file } => {
            let push = reach.push("certs")?;
            runtime.block_on(certs::issue(&push, &file))?;
            println!("{}: published for {}", file.display(), push.gateway);
        }
    }
    Ok(())
}
