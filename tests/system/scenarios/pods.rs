//! Pods that come and go while the network restarts: nothing of those that stay is lost, and
//! nothing of those that went comes back.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::host::{self, say};
use crate::machine::Machine;
use crate::node::{Node, PODS_PRESERVED, Plan};

/// A program of the restart, which takes the pods' interfaces for its own.
const HOOK: &str = "\
#!/bin/sh
for link in /sys/class/net/cali*; do
	ip route flush dev \"${link##*/}\"
	ip neigh flush nud permanent dev \"${link##*/}\"
	ip link set \"${link##*/}\" down
	ip link set \"${link##*/}\" up
done 2>/dev/null
";

const MAC: &str = "46:2a:0d:29:d1:eb";

/// How many pods there are.
const PODS: u32 = 12;

/// A network plugin, which lives on, as Felix does: what it does with its pods.
struct Plugin<'a> {
    machine: &'a Machine,
    batch: Batch,
    pods: BTreeSet<u32>,
    /// Those that have a second address.
    seconds: BTreeSet<u32>,
    /// Second addresses that were gone when the plugin came to remove them.
    late: BTreeSet<u32>,
    last: u32,
    random: u32,
}

/// The first and second address of a pod.
fn addresses(pod: u32) -> [String; 2] {
    let (high, low) = (pod / 250, pod % 250 + 1);
    [64, 128].map(|of| format!("10.65.{}.{low}", of + high))
}

/// A process that does one command after another, and what it says of them.
struct Batch {
    process: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Batch {
    fn start(machine: &Machine) -> Self {
        let program = "exec stdbuf -oL ip -force -batch - 2>&1";
        let unit = ["systemd-run", "--pipe", "--quiet", "sh", "-c", program];
        let mut process = machine
            .command(&unit)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter");
        let answers = process.stdout.take().expect("its answers");
        Batch {
            commands: process.stdin.take().expect("its input"),
            answers: BufReader::new(answers).lines(),
            process,
        }
    }

    /// Whether it was done; nothing where the process has ended.
    fn does(&mut self, line: &str) -> Option<bool> {
        // What is printed of lo ends what is printed of this.
        writeln!(self.commands, "{line}\nlink show lo").ok()?;
        let mut said = String::new();
        while !said.contains("link/loopback") {
            said += &self.answers.next()?.expect("UTF-8");
        }
        Some(!said.contains("answers:") && !said.contains("Cannot"))
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Plugin<'_> {
    /// Whether it was done.
    fn ip(&mut self, line: &str) -> bool {
        let done = self.batch.does(line);
        // ip(8) ends where a neighbour is refused.
        done.unwrap_or_else(|| {
            self.batch = Batch::start(self.machine);
            false
        })
    }

    /// A number below this, as xorshift has it.
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random as usize % limit
    }

    fn any(&mut self) -> u32 {
        let at = self.below(self.pods.len());
        *self.pods.iter().nth(at).expect("a pod")
    }

    /// What fails while the link is down is repeated.
    fn add(&mut self) {
        self.last += 1;
        let pod = self.last;
        assert!(self.ip(&format!("link add cali{pod} type veth peer name pod{pod}")));
        assert!(self.ip(&format!("link set pod{pod} up")));
        assert!(self.ip(&format!("link set cali{pod} up")));
        for address in addresses(pod) {
            while !self.ip(&format!("route replace {address}/32 dev cali{pod}")) {}
            let neighbour = format!("neigh replace {address} lladdr {MAC} nud permanent");
            while !self.ip(&format!("{neighbour} dev cali{pod}")) {}
        }
        self.pods.insert(pod);
        self.seconds.insert(pod);
    }

    fn remove(&mut self) {
        let pod = self.any();
        self.ip(&format!("route del {}/32", addresses(pod)[0]));
        assert!(self.ip(&format!("link del cali{pod}")));
        for pods in [&mut self.pods, &mut self.seconds, &mut self.late] {
            pods.remove(&pod);
        }
    }

    fn remove_second(&mut self) {
        let pod = self.any();
        if self.seconds.remove(&pod) && !self.remove_second_of(pod) {
            self.late.insert(pod);
        }
    }

    fn remove_second_of(&mut self, pod: u32) -> bool {
        let second = &addresses(pod)[1];
        let neighbour = self.ip(&format!("neigh del {second} dev cali{pod}"));
        self.ip(&format!("route del {second}/32 dev cali{pod}")) && neighbour
    }

    /// What must be there, once the plugin has removed what had been gone for another reason.
    fn settle(&mut self) -> BTreeSet<String> {
        for pod in std::mem::take(&mut self.late) {
            self.remove_second_of(pod);
        }
        let mut expected = BTreeSet::new();
        for pod in &self.pods {
            let [first, second] = addresses(*pod);
            for address in [Some(first), self.seconds.contains(pod).then_some(second)] {
                let of = address.map(|it| {
                    let neighbour = format!("neighbour {it} dev cali{pod}");
                    [format!("route {it} dev cali{pod}"), neighbour]
                });
                expected.extend(of.into_iter().flatten());
            }
        }
        expected
    }

    /// What there is.
    fn found(&self) -> BTreeSet<String> {
        let routes = self.machine.run(&["ip", "route"]);
        let neighbours = self
            .machine
            .run(&["ip", "neigh", "show", "nud", "permanent"]);
        let of = |what: &str, lines: &str| {
            let lines = lines.lines().filter(|it| it.starts_with("10.65."));
            let lines = lines.map(|it| it.split(' ').take(3).collect::<Vec<_>>().join(" "));
            let lines = lines.filter(|it| !it.ends_with(crate::topology::CALI));
            lines.map(|it| format!("{what} {it}")).collect::<Vec<_>>()
        };
        let mut found: BTreeSet<String> = of("route", &routes).into_iter().collect();
        found.extend(of("neighbour", &neighbours));
        found
    }
}

fn pods_come_and_go(restarts: u32) {
    let Some(host) = host::prepare("pods that come and go while the network restarts") else {
        return;
    };
    let plan = Plan {
        netguard: Some(PODS_PRESERVED),
        ..Plan::default()
    };
    let node = Node::start(&host, &plan);
    let (machine, journal) = (&node.machine, node.journal());
    machine.root().write_program("/sbin/ifdown-local", HOOK);
    let random = std::process::id() | 1;
    say(&format!("the random numbers begin with {random}"));
    let mut plugin = Plugin {
        machine,
        batch: Batch::start(machine),
        pods: BTreeSet::new(),
        seconds: BTreeSet::new(),
        late: BTreeSet::new(),
        last: 0,
        random,
    };
    (0..PODS).for_each(|_| plugin.add());
    let mut acts = 0;
    for restart in 1..=restarts {
        let here = journal.position();
        let command = machine
            .command(&["systemctl", "restart", "network"])
            .spawn();
        let mut command = command.expect("systemctl");
        let ended = loop {
            match plugin.below(3) {
                0 if plugin.pods.len() > 1 => plugin.remove(),
                1 => plugin.remove_second(),
                _ => plugin.add(),
            }
            acts += 1;
            if let Some(ended) = command.try_wait().expect("its end") {
                break ended;
            }
        };
        assert!(ended.success(), "restart {restart}: {ended}");
        while plugin.pods.len() > PODS as usize {
            plugin.remove();
        }
        journal.wait_for(here, "restart-handled");
        let (expected, found) = (plugin.settle(), plugin.found());
        let differ: Vec<_> = expected.symmetric_difference(&found).collect();
        assert!(
            differ.is_empty(),
            "restart {restart}: {differ:#?} of {expected:#?}\n{:#?}",
            journal.since(here)
        );
    }
    say(&format!(
        "{restarts} restarts, and {acts} acts of the plugin in between"
    ));
    drop(plugin);
    node.stop_netguard(&journal);
}

#[test]
fn pods_come_and_go_while_the_network_restarts() {
    pods_come_and_go(10);
}

#[test]
#[ignore = "takes four minutes"]
fn pods_come_and_go_in_two_hundred_restarts() {
    pods_come_and_go(200);
}
