//! The command line: one file per verb.

mod apply;
pub mod args;
mod check;
mod config;
mod conflicts;
mod demo;
mod explain;
mod fold;
mod history;
pub mod journal;
mod load;
mod moment;
mod print;
mod run;
mod status;
mod validate;
mod watch;

use std::process::ExitCode;

/// Exit codes, the same for every verb (netguard(8)).
pub mod exit {
    /// All is well.
    pub const OK: u8 = 0;
    /// Some invariant does not hold, or a file would undo it.
    pub const DRIFT: u8 = 1;
    /// The command line or the configuration is wrong.
    pub const USAGE: u8 = 2;
    /// It could not look or could not do what was asked.
    pub const TROUBLE: u8 = 3;
}

/// Parses the command line, runs the verb and says how the program ends.
pub fn main() -> ExitCode {
    let matches = match args::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let text = error.render().to_string();
            return ExitCode::from(if error.use_stderr() {
                print::note(&text);
                exit::USAGE
            } else {
                print::result(&text, exit::OK)
            });
        }
    };
    let ended = match matches.subcommand() {
        Some(("run", matches)) => run::run(matches),
        Some(("status", matches)) => status::run(matches),
        Some(("check", matches)) => check::run(matches),
        Some(("apply", matches)) => apply::run(matches),
        Some(("validate", matches)) => validate::run(matches),
        Some(("config", matches)) => config::run(matches),
        Some(("conflicts", matches)) => conflicts::run(matches),
        Some(("explain", matches)) => explain::run(matches),
        Some(("history", matches)) => history::run(matches),
        Some(("watch", matches)) => watch::run(matches),
        Some(("demo", matches)) => demo::run(matches),
        _ => Err(exit::USAGE),
    };
    ExitCode::from(ended.unwrap_or_else(|code| code))
}
