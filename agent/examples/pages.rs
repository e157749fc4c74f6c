//! Writes the man pages and shell completions of `siteward` from its own definition of the command line: `pages DIRECTORY`.
//!
//! `cross/package` runs it; what it writes goes into the Debian package. The same command line gives the same bytes.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::Shell;

fn write(directory: &PathBuf) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = siteward::cli::command();
    clap_mangen::generate_to(command.clone(), directory)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "siteward", directory)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("pages: which directory? pages DIRECTORY");
        return ExitCode::from(2);
    };
    match write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
