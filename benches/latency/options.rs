//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::harness::Outcome;
use crate::subject::{self, Subject};

/// What `--help` says.
pub const HELP: &str = "\
Measures how long net.ipv4.ip_forward stays 0, and what else stays away, under
netguard and its rivals.

cargo bench --bench latency [-- OPTIONS]      (as root)

  --only LIST          conditions, of: idle, busy, memory, interfaces, sweep,
                       storm, journal, start, cost, packets, network
                       (default: all)
  --kind LIST          the condition network, of these only: link, address,
                       neighbour, fdb, route, gateway, rule, iptables
                       (default: all)
  --contenders LIST    of: floor, netguard, netguard-profiles, previous,
                       previous-profiles, inotifywait-m, inotifywait, loop,
                       monit, tuned, ip-monitor, keepalived  (default: all)
  --quick              a tenth of everything, for a first look
  --previous DIR       a checkout with a release build, to measure beside this one
  --tries N            tries of each fast contender in each condition (1000)
  --idle-seconds N     how long the cost of doing nothing is measured (60)
  --memory GIB         the most memory that memory pressure takes (4)
  --out DIR            for latency.json and latency.svg (target/bench)";

/// What is measured, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The conditions; empty for all.
    pub only: Vec<String>,
    /// The kinds of the condition `network`; empty for all.
    pub kinds: Vec<String>,
    /// The contenders; empty for all.
    pub contenders: Vec<String>,
    /// Whether this is a quick first measurement only.
    pub quick: bool,
    /// A checkout whose release build is measured too.
    pub previous: Option<PathBuf>,
    /// Tries of each fast contender in each condition.
    pub tries: usize,
    /// How long the cost of doing nothing is measured.
    pub idle: Duration,
    /// The most memory that memory pressure takes, in bytes.
    pub memory: u64,
    /// Where the files go.
    pub out: PathBuf,
}

impl Options {
    /// Whether a condition is asked for.
    pub fn wants(&self, condition: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == condition)
    }

    /// Whether a kind is asked for.
    pub fn wants_kind(&self, subject: &Subject) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|name| subject.is_meant(name))
    }

    /// `count`, or a tenth of it in a quick measurement.
    pub fn scaled(&self, count: usize) -> usize {
        if self.quick {
            count.div_ceil(10)
        } else {
            count
        }
    }
}

/// What the program is to do.
pub enum Invocation {
    /// Tell the options.
    Help,
    /// Make the place and measure in it.
    Enter,
    /// Measure: this process is in the place.
    Measure(Options),
    /// Play the part of a child.
    Role(Vec<String>),
}

/// The hidden first argument of a child.
pub const ROLE: &str = "--role";
/// The hidden last argument of the process that measures.
pub const INSIDE: &str = "--inside";

const CONDITIONS: &str =
    "idle busy memory interfaces sweep storm journal start cost packets network";

/// Reads the arguments.
pub fn parse(arguments: impl Iterator<Item = String>) -> Outcome<Invocation> {
    let mut arguments = arguments.peekable();
    if arguments.next_if(|first| first == ROLE).is_some() {
        return Ok(Invocation::Role(arguments.collect()));
    }
    let mut options = Options {
        only: Vec::new(),
        kinds: Vec::new(),
        contenders: Vec::new(),
        quick: false,
        previous: None,
        tries: 1000,
        idle: Duration::from_secs(60),
        memory: 4 << 30,
        // Cargo's folder for what benches write is target/tmp.
        out: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../bench"),
    };
    let (mut tries, mut idle, mut inside) = (None, None, false);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let missing = || format!("{argument} wants a value");
            arguments.next().ok_or_else(missing)
        };
        match argument.as_str() {
            // What `cargo bench` adds.
            "--bench" => {}
            "--help" | "-h" => return Ok(Invocation::Help),
            "--quick" => options.quick = true,
            "--only" => options.only = list(&value()?),
            "--kind" => options.kinds = list(&value()?),
            "--contenders" => options.contenders = list(&value()?),
            "--previous" => options.previous = Some(PathBuf::from(value()?)),
            "--tries" => tries = Some(value()?.parse()?),
            "--idle-seconds" => idle = Some(value()?.parse()?),
            "--memory" => options.memory = value()?.parse::<u64>()? << 30,
            "--out" => options.out = PathBuf::from(value()?),
            INSIDE => inside = true,
            other => return Err(format!("{other}: see --help").into()),
        }
    }
    for name in &options.only {
        if !CONDITIONS.split(' ').any(|known| known == name) {
            return Err(format!("--only {name}: the conditions are {CONDITIONS}").into());
        }
    }
    for name in &options.kinds {
        if !subject::kinds().any(|known| known.is_meant(name)) {
            return Err(format!("--kind {name}: see --help").into());
        }
    }
    if options.only.is_empty() && !options.kinds.is_empty() {
        options.only = vec!["network".to_owned()];
    }
    for name in &options.contenders {
        if crate::contenders::Contender::named(name).is_none() {
            return Err(format!("--contenders {name}: see --help").into());
        }
    }
    options.tries = tries.unwrap_or(if options.quick { 100 } else { 1000 });
    options.idle = Duration::from_secs(idle.unwrap_or(if options.quick { 10 } else { 60 }));
    Ok(match inside {
        true => Invocation::Measure(options),
        false => Invocation::Enter,
    })
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}
