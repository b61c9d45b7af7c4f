//! The command line: one file per verb.

mod apply;
pub mod args;
mod check;
mod config;
mod conflicts;
mod demo;
mod diagnose;
mod explain;
mod firewall_helper;
mod fold;
mod history;
mod load;
mod print;
mod run;
mod status;
mod table;
mod validate;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::drivers::firewall;

use args::{CommandLine, Verb};

/// Exit codes, the same for every verb (netguard(8)).
pub mod exit {
    /// All is well.
    pub const OK: u8 = 0;
    /// Drift found, or a file would override a value.
    pub const DRIFT: u8 = 1;
    /// Invalid usage or configuration.
    pub const USAGE: u8 = 2;
    /// The check or operation failed.
    pub const TROUBLE: u8 = 3;
    /// `diagnose`: packets do not arrive, or some are lost, and the cause was not found.
    pub const UNEXPLAINED: u8 = 4;
}

/// Parses the command line, runs the verb and returns the exit code.
pub fn main() -> ExitCode {
    // No verb for people.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|verb| verb == firewall::VERB)
    {
        return ExitCode::from(firewall_helper::run().unwrap_or_else(|code| code));
    }
    let CommandLine { files, verb } = match CommandLine::try_parse() {
        Ok(line) => line,
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
    let request = files.request();
    let ended = match verb {
        Verb::Run(options) => run::run(request, &options),
        Verb::Status(options) => status::run(request, &options),
        Verb::Check(options) => check::run(&request, &options),
        Verb::Apply(options) => apply::run(&request, &options),
        Verb::Validate(options) => validate::run(request, options),
        Verb::Config(options) => config::run(&request, &options),
        Verb::Conflicts(options) => conflicts::run(&request, &options),
        Verb::Explain(options) => explain::run(&request, &options),
        Verb::History(options) => history::run(&request, options),
        Verb::Watch(options) => watch::run(&request, options),
        Verb::Diagnose(options) => diagnose::run(&request, &options),
        Verb::Demo(options) => demo::run(&files, options.role),
    };
    ExitCode::from(ended.unwrap_or_else(|code| code))
}
