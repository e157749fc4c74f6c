//! Secrets sealed at the desk for one gateway: what is printed goes into its document and is worth nothing to anybody else.

use crate::cli;
use crate::secrets::{name_fits, sealed};

/// Reads a value (terminal without echo, or standard input) and gives the section for a document.
pub fn seal(key: &str, name: &str) -> Result<String, String> {
    if !name_fits(name) {
        return Err("the name of a secret has 1 to 64 letters, digits, - _ .".to_owned());
    }
    let key = sealed::read_public_key(key).map_err(|why| format!("--key {why}"))?;
    let value = cli::read_secret_value(name)?;
    let sealed = sealed::seal(&key, name, &value)?;
    Ok(format!("[[secret]]\nname = \"{name}\"\nsealed = \"{sealed}\"\n"))
}
