//! The `netguard` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    netguard::cli::main()
}
