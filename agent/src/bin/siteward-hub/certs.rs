//! `siteward-hub certs`: requests for certificates are fetched, and what was issued is sent.

use std::path::PathBuf;

use clap::Subcommand;
use siteward::hub::certs;

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
}

pub fn carry_out(command: Certs) -> Result<(), String> {
    let runtime = crate::runtime()?;
    match command {
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
