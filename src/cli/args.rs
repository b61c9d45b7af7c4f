//! The command line's grammar: the one table that help, man page, completions and
//! parser share.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::print;
use crate::config::Request;
use crate::diagnosis::observed::Protocol;
use crate::journal::fields::Kind;
use crate::journal::read::{Named, Query};
use crate::journal::write::sink::LogTarget;
use crate::resource::ResourceKind;

/// The end of the help text without a verb.
const AFTER: &str = "\
Exit status:
  0  no drift, no conflict, no error
  1  drift found, or a file would override a value
  2  invalid usage or configuration
  3  the check or operation failed
  4  with diagnose: packets do not arrive, and no cause was found
`netguard help COMMAND` lists the exit statuses of COMMAND.

See netguard(8) and netguard.toml(5).";

/// The exit statuses of a verb, and what each means.
fn exit_statuses(verb: &str) -> &'static [(u8, &'static str)] {
    const USAGE: (u8, &str) = (2, "invalid usage");
    const CONFIGURATION: (u8, &str) = (2, "invalid usage or configuration");
    match verb {
        "run" => &[
            (0, "ended by SIGTERM or SIGINT"),
            (
                2,
                "invalid usage; or invalid configuration, and no last good one",
            ),
            (
                3,
                "another netguard guards the same values, or netguard cannot run here",
            ),
        ],
        "status" => &[
            (
                0,
                "running, and all values are OK or pending; with --brief: running",
            ),
            (
                1,
                "drift found, or the conntrack table is nearly full; with --brief: not running",
            ),
            USAGE,
            (
                3,
                "not running, still starting, unable to save its state, or values cannot be read \
                 or restored; with --brief: whether it is running is unknown",
            ),
        ],
        "check" => &[
            (0, "all values are OK or pending"),
            (
                1,
                "drift found, or the conntrack table is nearly full; with --persistent also: a \
                 file would override a value",
            ),
            CONFIGURATION,
            (
                3,
                "no drift, but a value cannot be read or restored here; with --persistent also: \
                 what a file sets is unknown",
            ),
        ],
        "apply" => &[
            (0, "all values are OK or pending"),
            (
                1,
                "no restore failed, but values are still drifted, as in observe mode; with --dry-run: \
                 drift found",
            ),
            CONFIGURATION,
            (
                3,
                "a restore failed; or nothing is drifted, and a value cannot be read",
            ),
        ],
        "validate" => &[
            (0, "no errors; there may be warnings"),
            CONFIGURATION,
            (3, "the operation failed"),
        ],
        "conflicts" => &[
            (0, "no conflict"),
            (1, "a file would override a value"),
            CONFIGURATION,
            (3, "no known conflict, but what a file sets is unknown"),
        ],
        "explain" => &[
            (0, "success, also without a configuration"),
            (2, "invalid usage or configuration, or no such key"),
            (3, "the operation failed"),
        ],
        "history" => &[
            (
                0,
                "the journal was read, with or without matching records; with --brief: none matches",
            ),
            (1, "with --brief: a record matches"),
            USAGE,
            (3, "the journal could not be read, or not all of it"),
        ],
        "watch" => &[
            (0, "ended by Ctrl-C, or its output was closed"),
            USAGE,
            (3, "the journal cannot be read"),
        ],
        "diagnose" => &[
            (
                0,
                "the path works; without probes: nothing that was read blocks it",
            ),
            (1, "a cause was found"),
            USAGE,
            (
                3,
                "no cause was found, and something is unknown; or it could not be read",
            ),
            (
                4,
                "packets do not arrive, or some are lost, and no cause was found",
            ),
        ],
        "demo" => &[
            (
                0,
                "the pod's network worked after the restart with netguard",
            ),
            (1, "it did not"),
            USAGE,
            (3, "namespaces cannot be created here, or the demo failed"),
        ],
        _ => &[(0, "success"), CONFIGURATION, (3, "the operation failed")],
    }
}

/// The end of a verb's help text.
fn after(verb: &str) -> String {
    let mut text = String::from("Exit status:\n");
    for (number, what) in exit_statuses(verb) {
        let head = format!("  {number}  ");
        print::paragraph(&mut text, &head, what, Some(print::USUAL_WIDTH));
    }
    text + "\nSee netguard(8) and netguard.toml(5)."
}

/// Keeps a node's network state as configured, also across network restarts
#[derive(Debug, Parser)]
#[command(
    name = "netguard",
    version,
    after_help = AFTER,
    arg_required_else_help = true,
    mut_subcommands = |verb| { let after = after(verb.get_name()); verb.after_help(after) }
)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The whole command line.
pub fn command() -> clap::Command {
    CommandLine::command()
}

/// Options of every verb.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Use only this configuration file; ignore drop-ins
    #[arg(long, value_name = "FILE", global = true, display_order = 100)]
    pub(crate) config: Option<PathBuf>,
    /// Use DIR as an alternate root directory
    #[arg(long, value_name = "DIR", global = true, display_order = 100)]
    pub(crate) root: Option<PathBuf>,
}

impl Files {
    /// The configuration to load.
    pub(crate) fn request(&self) -> Request {
        let root = self.root.clone();
        Request {
            root: root.unwrap_or(Request::default().root),
            file: self.config.clone(),
        }
    }
}

/// Of a verb that reads no configuration: the option has no effect, so it is not shown.
#[derive(Debug, Args)]
pub(crate) struct NoConfig {
    #[arg(long, hide = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the daemon in the foreground
    Run(Run),
    /// Show daemon status and drift statistics
    Status(Status),
    /// Check all values once, read-only, and report drift
    Check(Check),
    /// Restore all drifted values once
    Apply(Apply),
    /// Check the configuration and report errors
    Validate(Validate),
    /// Print the effective configuration, with the source of each entry
    Config(Json),
    /// Find configuration files that override guarded values, with fixes
    Conflicts(Json),
    /// Explain a key: meaning, expected and current value, conflicts
    Explain(Explain),
    /// Show past drift and repairs from the journal
    History(History),
    /// Follow drift and repairs live
    Watch(Watch),
    /// Find out why packets between a pod and a destination do not arrive
    Diagnose(Diagnose),
    /// Replay the incident, without and with netguard
    Demo(Demo),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Log destination: the journal if available, else stderr (auto), the journal, or stderr as text or JSON
    #[arg(long, value_name = "WHERE", default_value = "auto", value_parser = log_targets())]
    pub(crate) log: LogTarget,
    /// Do not read or write the state in /run/netguard
    #[arg(long)]
    pub(crate) no_state: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Print one line, whether the daemon is running; exit 1 if not (for node-problem-detector)
    #[arg(long, conflicts_with = "json")]
    pub(crate) brief: bool,
    #[command(flatten)]
    pub(crate) json: Json,
    #[command(flatten)]
    unread: NoConfig,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) json: Json,
    /// Also report conflicting configuration files (see `conflicts`)
    #[arg(long)]
    pub(crate) persistent: bool,
    #[command(flatten)]
    pub(crate) all: All,
    /// Ignore drift of keys in mode "observe"
    #[arg(long)]
    pub(crate) ignore_observed: bool,
    /// Print a one-line summary, most important first (node-problem-detector keeps 80 bytes)
    #[arg(long, conflicts_with = "json")]
    pub(crate) brief: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// Only show what would be written, and what cannot be
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) all: All,
}

#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// Check only this file
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A key, a part of its name, a path below /proc/sys, a pattern, another resource (link/eth0), or conntrack
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) all: All,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Show entries since this time: "2026-11-23 16:56", yesterday, -1h (systemd.time(7))
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Show entries until this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
    #[command(flatten)]
    pub(crate) about: About,
    /// Filter by network restart, by the number shown in the table
    #[arg(long = "restart", alias = "episode", value_name = "N", value_parser = number)]
    pub(crate) restart: Option<u64>,
    /// Filter by kind of record (NETGUARD_EVENT); may be repeated
    #[arg(long = "event", value_name = "KIND", value_parser = kinds())]
    pub(crate) events: Vec<Kind>,
    /// Show only the last N entries
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) last: Option<u64>,
    /// Print the newest entry on one line; exit 1 if there is one (for node-problem-detector)
    #[arg(long, conflicts_with = "json")]
    pub(crate) brief: bool,
    #[command(flatten)]
    pub(crate) json: JsonLines,
    /// Read saved output of journalctl -o json or run --log json; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    pub(crate) saved: Option<PathBuf>,
    #[command(flatten)]
    unread: NoConfig,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) about: About,
    #[command(flatten)]
    pub(crate) json: JsonLines,
    #[command(flatten)]
    unread: NoConfig,
}

#[derive(Debug, Args)]
pub(crate) struct Diagnose {
    /// A pod of this node: its address, its interface (cali...), or its network namespace (name, path or pid)
    #[arg(value_name = "POD")]
    pub(crate) pod: String,
    /// An address, or another pod
    #[arg(value_name = "DEST")]
    pub(crate) dest: String,
    /// Protocol and port at the destination: tcp/443, udp/53; default: ICMP echo
    #[arg(long, value_name = "PROTOCOL/PORT", value_parser = port)]
    pub(crate) port: Option<(Protocol, u16)>,
    /// Diagnose packets from DEST to the pod
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Only read; send no packets
    #[arg(long)]
    pub(crate) no_probe: bool,
    /// Show each rule that the packets met; adds rules that mark them, and removes these at the end
    #[arg(long, conflicts_with = "no_probe")]
    pub(crate) trace: bool,
    /// Write the packets that were seen to FILE (pcapng); it must not exist
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_probe", "watch"])]
    pub(crate) pcap: Option<PathBuf>,
    /// Repeat until it works; print each result that differs from the last, with the time
    #[arg(long, conflicts_with = "json")]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

/// A number of a record or of records.
fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "expected a number".to_owned())
}

fn positive(text: &str) -> Result<u64, String> {
    let number = number(text).ok().filter(|it| *it > 0);
    number.ok_or_else(|| "expected a number of 1 or more".to_owned())
}

/// `tcp/443`
fn port(text: &str) -> Result<(Protocol, u16), String> {
    let parsed = text.split_once('/').and_then(|(protocol, port)| {
        let protocol = Protocol::of(protocol).filter(|it| *it != Protocol::Icmp)?;
        Some((protocol, port.parse().ok().filter(|port| *port != 0)?))
    });
    parsed.ok_or_else(|| "expected tcp/PORT or udp/PORT".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The role of a child process of the demo. Internal.
    #[arg(long, hide = true, value_enum)]
    pub(crate) role: Option<Role>,
    // Rejected, so not shown.
    #[arg(long, hide = true)]
    root: Option<PathBuf>,
}

/// The demo's children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub(crate) enum Role {
    NetworkRestart,
    /// NetworkManager manages the interfaces of pods.
    NetworkRestartWithPods,
    Guard,
}

fn resource_kinds() -> impl TypedValueParser<Value = ResourceKind> {
    let aliases = |kind| {
        let own = ResourceKind::ALIASES.iter().filter(move |it| it.1 == kind);
        own.map(|it| it.0)
    };
    let value = |kind: ResourceKind| PossibleValue::new(kind.as_str()).aliases(aliases(kind));
    PossibleValuesParser::new(ResourceKind::ALL.map(value))
        .try_map(|word| ResourceKind::called(&word).ok_or("no kind"))
}

/// What records are about.
#[derive(Debug, Clone, Args)]
pub(crate) struct About {
    /// Filter by key, a part of its name, a path below /proc/sys, a pattern, or another resource (link/eth0)
    #[arg(long, value_name = "KEY", value_parser = Named::parse)]
    pub(crate) key: Option<Named>,
    /// Filter by kind of resource
    #[arg(long, value_name = "KIND", value_parser = resource_kinds())]
    pub(crate) kind: Option<ResourceKind>,
    /// Filter by systemd unit
    #[arg(long, value_name = "UNIT", value_parser = |unit: &str| Ok::<_, Infallible>(Query::unit_name(unit)))]
    pub(crate) unit: Option<String>,
}

impl From<About> for Query {
    fn from(About { key, kind, unit }: About) -> Query {
        Query {
            key,
            kind,
            unit,
            ..Query::default()
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Json {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JsonLines {
    /// Print one JSON object per line, with the journal's field names
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct All {
    /// List every key instead of grouping the keys of a pattern
    #[arg(long)]
    pub(crate) all: bool,
}

fn kinds() -> impl TypedValueParser<Value = Kind> {
    one_of(Kind::ALL, Kind::as_str)
}

fn log_targets() -> impl TypedValueParser<Value = LogTarget> {
    one_of(LogTarget::ALL, LogTarget::as_str)
}

/// Takes the name of one of `all`.
fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.map(name)).try_map(move |word| {
        let known = all.into_iter().find(|it| name(*it) == word);
        known.ok_or_else(|| format!("there is no {word}"))
    })
}
