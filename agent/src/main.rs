//! The program on the gateway.

use std::process::ExitCode;

fn main() -> ExitCode {
    siteward::cli::main()
}
