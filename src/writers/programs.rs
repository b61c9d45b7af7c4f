//! Programs that change the firewall and may be reported by nothing but their end.

use std::collections::HashMap;
use std::process;
use std::time::Duration;

use super::image::Image;
use crate::events::{Ended, Program};
use crate::model::{Monotonic, Parent, Source, Writer, WriterId};
use crate::process_namespaces::NetworkNamespace;

/// How long the end of one is waited for: meanwhile the end of every process of this
/// host is reported. What it changes later is found by the full scan.
const LONGEST: Duration = Duration::from_secs(10);

/// One that runs.
#[derive(Debug)]
struct Running {
    program: Program,
    since: Monotonic,
    /// Whether it is known to be in the network namespace that is guarded.
    is_here: bool,
}

/// The unit of netguard's own helper, which reads again what it changes.
const HELPER: &str = "/netguard-firewall@";

/// Those that run.
#[derive(Debug)]
pub struct Programs {
    running: HashMap<i32, Running>,
    /// The network namespace that is guarded.
    network: Option<NetworkNamespace>,
}

impl Programs {
    /// None yet, in the network namespace of the calling thread.
    pub fn new() -> Self {
        Programs {
            running: HashMap::new(),
            network: NetworkNamespace::own().ok(),
        }
    }

    /// Whether the end of any is waited for.
    pub fn are_awaited(&self) -> bool {
        !self.running.is_empty()
    }

    /// The numbers of those that run.
    pub fn running(&self) -> Vec<i32> {
        self.running.keys().copied().collect()
    }

    /// A process has executed a program, and has these parents.
    pub fn executed(&mut self, pid: i32, image: &Image, parents: &[Parent], at: Monotonic) {
        let Some(program) = program(image) else {
            return;
        };
        let own = process::id().cast_signed();
        let is_own = parents.iter().any(|it| it.pid == own)
            || image.cgroup.as_ref().is_some_and(|it| it.contains(HELPER));
        let network = NetworkNamespace::of_process(pid).ok();
        let is_here = network.zip(self.network).map(|(its, own)| its == own);
        if !is_own {
            self.runs(pid, program, is_here, at);
        }
    }

    fn runs(&mut self, pid: i32, program: Program, is_here: Option<bool>, since: Monotonic) {
        // One that was gone before that was known may have changed something here.
        if is_here != Some(false) {
            let is_here = is_here == Some(true);
            let running = Running {
                program,
                since,
                is_here,
            };
            self.running.insert(pid, running);
        }
    }

    /// A process has ended, or executed another program.
    pub fn ended(&mut self, pid: i32, at: Monotonic) -> Option<Ended> {
        let Running {
            program, is_here, ..
        } = self.running.remove(&pid)?;
        // What one that still runs has changed is not known.
        let is_alone = !self.running.values().any(|it| it.program == program);
        let writer = Writer {
            id: WriterId::Pid(pid),
            source: Source::Connector,
            after: at,
            detected: at,
        };
        Some(Ended {
            program,
            writer: (is_alone && is_here).then_some(writer),
        })
    }

    /// Those that run for too long.
    pub fn overdue(&self, now: Monotonic) -> Vec<i32> {
        let is_overdue = |(_, it): &(_, &Running)| now.since(it.since) >= LONGEST;
        let overdue = self.running.iter().filter(is_overdue);
        overdue.map(|(pid, _)| *pid).collect()
    }
}

/// Whether this is a program that may change the firewall.
pub fn is_any(image: &Image) -> bool {
    program(image).is_some()
}

/// Which program a process runs, where that may change the firewall.
fn program(image: &Image) -> Option<Program> {
    let mut words = image.cmdline.split(' ').skip(1);
    let program = Program::of(&image.comm)?;
    let reads = match program {
        Program::Ipset => ipset_reads(words),
        Program::Nft => false,
        Program::Iptables => {
            // One program may be all of them, and have the name as an argument.
            let mut names = image.cmdline.split(' ').take(2);
            names.any(|it| it.ends_with("-save")) || iptables_reads(&mut words)
        }
    };
    (!reads).then_some(program)
}

/// Whether `ipset` with these arguments changes nothing.
fn ipset_reads<'a>(mut words: impl Iterator<Item = &'a str>) -> bool {
    let changes = [
        "add", "create", "del", "destroy", "flush", "rename", "restore", "swap", "-", "-A", "-N",
        "-D", "-X", "-F", "-E", "-R", "-W",
    ];
    let reads = [
        "list", "save", "test", "help", "version", "-L", "-S", "-T", "-H", "-V",
    ];
    let command = words.find(|it| changes.contains(it) || reads.contains(it));
    command.is_some_and(|it| reads.contains(&it))
}

/// Whether `iptables` with these arguments changes nothing.
fn iptables_reads<'a>(words: impl Iterator<Item = &'a str>) -> bool {
    for word in words {
        let (changes, reads) = match (word.strip_prefix("--"), word.strip_prefix('-')) {
            (Some(word), _) => {
                let word = word.split('=').next().unwrap_or_default();
                let changes = [
                    "append",
                    "delete",
                    "delete-chain",
                    "flush",
                    "insert",
                    "new-chain",
                    "policy",
                    "rename-chain",
                    "replace",
                    "zero",
                ];
                let reads = ["check", "help", "list", "list-rules", "version"];
                (changes.contains(&word), reads.contains(&word))
            }
            (None, Some(letters)) => (
                letters.contains(['A', 'D', 'I', 'R', 'F', 'Z', 'N', 'X', 'P', 'E']),
                letters.contains(['C', 'L', 'S', 'V', 'h']),
            ),
            (None, None) => continue,
        };
        if changes || reads {
            return reads && !changes;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(comm: &str, cmdline: &str) -> Option<Program> {
        program(&Image {
            comm: comm.into(),
            cmdline: cmdline.into(),
            cgroup: None,
            uid: 0,
            login_uid: None,
        })
    }

    #[test]
    fn programs_that_only_read_are_not_waited_for() {
        let (ipset, iptables) = (Some(Program::Ipset), Some(Program::Iptables));
        for (comm, cmdline, expected) in [
            ("ipset", "ipset flush pods", ipset),
            ("ipset", "ipset -exist add list 10.0.0.1", ipset),
            ("ipset", "ipset restore -exist", ipset),
            ("ipset", "ipset -", ipset),
            ("ipset", "ipset list -name", None),
            ("ipset", "ipset -o xml save", None),
            (
                "iptables",
                "iptables -w -t nat -D POSTROUTING -j X",
                iptables,
            ),
            ("iptables", "iptables -t nat -F", iptables),
            (
                "iptables",
                "iptables --wait=5 --table nat --flush",
                iptables,
            ),
            ("iptables", "iptables -t nat -nvL POSTROUTING", None),
            ("iptables", "iptables -w 5 --list-rules", None),
            ("iptables", "iptables -C INPUT -j ACCEPT", None),
            (
                "iptables",
                "iptables -A INPUT -m comment --comment x -L -j ACCEPT",
                iptables,
            ),
            ("iptables-restor", "iptables-restore --noflush", iptables),
            ("ip6tables-legac", "ip6tables-legacy -X", iptables),
            ("iptables-save", "iptables-save -t nat", None),
            ("iptables-legacy", "iptables-legacy-save", None),
            (
                "xtables-legacy-",
                "xtables-legacy-multi iptables -F",
                iptables,
            ),
            ("xtables-nft-mul", "xtables-nft-multi iptables-save", None),
            ("xtables-multi", "xtables-multi iptables -F", iptables),
            ("nft", "nft flush ruleset", Some(Program::Nft)),
            ("sh", "sh -c ipset flush", None),
        ] {
            assert_eq!(of(comm, cmdline), expected, "{cmdline}");
        }
    }

    #[test]
    fn no_writer_is_suspected_while_another_runs() {
        let mut programs = Programs::new();
        let at = Monotonic::from_nanos(1);
        for (pid, name) in [(1, "ipset"), (2, "ipset"), (3, "nft")] {
            let image = Image {
                comm: name.into(),
                cmdline: format!("{name} -").into(),
                cgroup: None,
                uid: 0,
                login_uid: None,
            };
            let program = program(&image).expect("a program");
            programs.runs(pid, program, Some(true), at);
        }
        // Of the first of these it is not known where it ran.
        programs.runs(4, Program::Iptables, None, at);
        programs.runs(5, Program::Iptables, Some(false), at);
        let mut suspect = |pid| {
            let ended = programs.ended(pid, at)?;
            Some(ended.writer.as_ref().and_then(Writer::pid))
        };
        assert_eq!(suspect(1), Some(None));
        assert_eq!(suspect(2), Some(Some(2)));
        assert_eq!(suspect(2), None);
        assert_eq!(suspect(3), Some(Some(3)));
        assert_eq!(suspect(4), Some(None));
        assert_eq!(suspect(5), None);
    }
}
