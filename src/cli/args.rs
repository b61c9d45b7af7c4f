//! The command line's grammar: the one table that help, man page and parser share.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, Command, value_parser};

use crate::effects::fields::Kind;
use crate::model::Selector;

/// The end of a help text.
const AFTER: &str = "\
Exit status:
  0  all is well
  1  drift found, or a file would override a value
  2  invalid usage or configuration
  3  the check or operation failed;
     with status: the daemon is not running

See netguard(8) and netguard.toml(5).";

/// The whole command line.
pub fn command() -> Command {
    Command::new("netguard")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps a node's network sysctls as configured, through every network restart")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .after_help(AFTER)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .global(true)
                .value_parser(value_parser!(PathBuf))
                .help("Use only this configuration file; ignore drop-ins"),
        )
        .arg(
            Arg::new("root")
                .long("root")
                .value_name("DIR")
                .global(true)
                .value_parser(value_parser!(PathBuf))
                .help("Use DIR as an alternate root directory"),
        )
        .subcommand(
            Command::new("run").about("Run the daemon in the foreground").arg(
                Arg::new("log")
                    .long("log")
                    .value_name("WHERE")
                    .default_value("auto")
                    .value_parser(PossibleValuesParser::new(["auto", "journal", "text", "json"]))
                    .help("Where records go: the journal where there is one (auto), the journal, or stderr as text or as JSON"),
            )
            .arg(
                Arg::new("no-state").long("no-state").action(ArgAction::SetTrue).help("Neither read nor write the state in /run/netguard"),
            ),
        )
        .subcommand(
            Command::new("status")
                .about("Show daemon status and drift statistics")
                .arg(
                    Arg::new("brief").long("brief").action(ArgAction::SetTrue).conflicts_with("json").help("Print on one line whether the daemon runs, and exit with 1 if not (for node-problem-detector)"),
                )
                .arg(json()),
        )
        .subcommand(
            Command::new("check")
                .about("Check all values once, read-only, and report drift")
                .arg(json())
                .arg(
                    Arg::new("persistent")
                        .long("persistent")
                        .action(ArgAction::SetTrue)
                        .help("Also report conflicting configuration files (see `conflicts`)"),
                )
                .arg(all())
                .arg(
                    Arg::new("ignore-observed")
                        .long("ignore-observed")
                        .action(ArgAction::SetTrue)
                        .help("Ignore drift of keys in mode \"observe\""),
                )
                .arg(
                    Arg::new("brief").long("brief").action(ArgAction::SetTrue).conflicts_with("json").help("Print a one-line summary, the most important first (node-problem-detector keeps 80 bytes)"),
                ),
        )
        .subcommand(
            Command::new("apply").about("Restore all drifted values once").arg(
                Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue).help("Show what would be written and what cannot be, and write nothing"),
            )
            .arg(all()),
        )
        .subcommand(
            Command::new("validate").about("Check the configuration and show what is wrong with it").arg(
                Arg::new("file").value_name("FILE").value_parser(value_parser!(PathBuf)).help("Check only this file"),
            ),
        )
        .subcommand(
            Command::new("config").about("Print the effective configuration with the file and line of each entry").arg(json()),
        )
        .subcommand(
            Command::new("conflicts")
                .about("Find configuration files that would override guarded values, with fixes")
                .arg(json()),
        )
        .subcommand(
            Command::new("explain")
                .about("Explain a key: meaning, expected and current value, and what would change it")
                .arg(Arg::new("key").value_name("KEY").required(true).help("A key, a part of its name, a path below /proc/sys or a pattern"))
                .arg(all()),
        )
        .subcommand(
            Command::new("history")
                .about("Show past drift and repairs from the journal")
                .arg(time("since", "Show nothing older than this: \"2026-11-23 16:56\", yesterday, -1h (systemd.time(7))"))
                .arg(time("until", "Show nothing newer than this"))
                .arg(key())
                .arg(unit())
                .arg(
                    Arg::new("episode").long("episode").value_name("N").value_parser(value_parser!(u64)).help("Filter by network restart (the number is shown in the table)"),
                )
                .arg(
                    Arg::new("event").long("event").value_name("KIND").action(ArgAction::Append).value_parser(kinds()).help("Show only records of this kind: drift-restored, restore-failed ... (NETGUARD_EVENT); may be repeated"),
                )
                .arg(
                    Arg::new("last").long("last").value_name("N").value_parser(value_parser!(usize)).help("Show the last N"),
                )
                .arg(
                    Arg::new("brief").long("brief").action(ArgAction::SetTrue).conflicts_with("json").help("Print the newest record on one line, and exit with 1 if there is one (for node-problem-detector)"),
                )
                .arg(json().help("Print each record as a JSON object on a line of its own, with the journal's field names"))
                .arg(
                    Arg::new("saved").long("saved").value_name("FILE").value_parser(value_parser!(PathBuf)).conflicts_with("root").help("Read what journalctl -o json or run --log json printed, - for standard input"),
                ),
        )
        .subcommand(
            Command::new("watch")
                .about("Follow drift and repairs live")
                .arg(key())
                .arg(unit())
                .arg(json().help("Print each record as a JSON object on a line of its own, with the journal's field names")),
        )
        .subcommand(
            Command::new("demo")
                .about("Replay the incident in throwaway namespaces, without and with the guard")
                .arg(super::demo::role_argument())
                .arg(Arg::new("root").long("root").hide(true).value_parser(value_parser!(PathBuf))),
        )
        .mut_subcommands(|verb| verb.after_help(AFTER))
}

fn kinds() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::event))
        .try_map(|event| Kind::of_event(&event).ok_or_else(|| format!("there is no kind {event}")))
}

fn json() -> Arg {
    Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print JSON")
}

fn all() -> Arg {
    Arg::new("all")
        .long("all")
        .action(ArgAction::SetTrue)
        .help("Show each key, however many there are of one pattern")
}

fn time(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("TIME")
        .allow_hyphen_values(true)
        .help(help)
}

fn key() -> Arg {
    Arg::new("key")
        .long("key")
        .value_name("KEY")
        .value_parser(Selector::parse)
        .help("Filter by key or pattern")
}

fn unit() -> Arg {
    Arg::new("unit")
        .long("unit")
        .value_name("UNIT")
        .help("Filter by systemd unit")
}
