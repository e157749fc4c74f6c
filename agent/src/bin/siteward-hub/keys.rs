//! `siteward-hub keys`: keys that sign, and the signers that were asked for.

use std::path::PathBuf;

use clap::Subcommand;
use siteward::hub::keys::{self, Passphrase};

#[derive(Debug, Subcommand)]
pub enum Keys {
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

pub fn carry_out(command: Keys) -> Result<(), String> {
    let Keys::Generate { out, name } = command;
    let id = keys::generate(&out, &name, &Passphrase::usual())?;
    println!("{id}  {name}.pub");
    Ok(())
}

/// The signers of these files; one that lies open is warned of.
pub fn signers(files: &[PathBuf]) -> Result<Vec<keys::Signer>, String> {
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
