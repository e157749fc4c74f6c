//! `siteward-hub keys`: keys that sign, and the signers that were asked for.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use siteward::hub::config::write_whole;
use siteward::hub::keys::{self, Passphrase};
use siteward::hub::rotation::{self, Rotation};

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
    /// Write the [bootstrap] section that gives gateways other signing keys; the recovery keys have to sign its document. The runbook says step by
    /// step how: add, roll out, confirm, sign with the new one, remove the old one.
    Rotate {
        /// A public key that gateways trust now. Once for each.
        #[arg(long, value_name = "FILE")]
        old: Vec<PathBuf>,
        /// A public key to trust from now on.
        #[arg(long, value_name = "FILE")]
        add: Vec<PathBuf>,
        /// A public key to trust no more.
        #[arg(long, value_name = "FILE")]
        remove: Vec<PathBuf>,
        /// How many of the keys have to sign [default: as it is in the document, else 1]
        #[arg(long)]
        threshold: Option<usize>,
        /// A recovery key (public), to see that none of them is used for daily work.
        #[arg(long, value_name = "FILE")]
        recovery: Vec<PathBuf>,
        /// The document that runs; what its [bootstrap] says of keys and endpoints is taken along.
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

pub fn carry_out(command: Keys) -> Result<(), String> {
    match command {
        Keys::Generate { out, name } => {
            let id = keys::generate(&out, &name, &Passphrase::usual())?;
            println!("{id}  {name}.pub");
            Ok(())
        }
        Keys::Rotate { old, add, remove, threshold, recovery, document, out } => {
            rotate(&Rotation { old, add, remove, threshold, recovery, document }, &out)
        }
    }
}

fn rotate(wish: &Rotation, out: &Path) -> Result<(), String> {
    let rotated = rotation::rotate(wish)?;
    write_whole(out, rotated.section.as_bytes())?;
    rotated.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    for id in &rotated.old {
        println!("{}  {id}", if rotated.new.contains(id) { "stays   " } else { "goes    " });
    }
    rotated.new.iter().filter(|id| !rotated.old.contains(id)).for_each(|id| println!("comes     {id}"));
    println!("{} of {} keys have to sign from then on", rotated.threshold, rotated.new.len());
    println!(
        "{}: put it into the next document, in place of its [bootstrap]; have the recovery keys sign that, and roll it out",
        out.display()
    );
    println!("then `siteward-hub config status --trusts FILE.pub …` says who trusts exactly these keys");
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
