//! `siteward-hub secret`: values that only one gateway can open.

use clap::Subcommand;
use siteward::hub::secrets;

#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Seal a value that only one gateway can open; prints the [[secret]] section for its document. The value is read from the terminal without
    /// showing it, or from standard input.
    Seal {
        /// The gateway's key: `secret_key` of what it reports, or `siteward secret key` there.
        #[arg(long, value_name = "BASE64")]
        key: String,
        /// As its feeds name it: credential = "NAME".
        #[arg(long)]
        name: String,
    },
}

pub fn carry_out(command: Secret) -> Result<(), String> {
    let Secret::Seal { key, name } = command;
    secrets::seal(&key, &name).map(|section| print!("{section}"))
}
