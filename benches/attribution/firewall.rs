//! Short-lived writers of tables: each an `iptables -D`, in a network namespace of its own
//! with a lock of its own.

use std::process::Command;
use std::thread;

use netguard::drivers::firewall::protocol::Backend;
use netguard_lab::enter_network;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::Outcome;
use crate::guard::Guard;
use crate::writers::{Count, restored};

/// How many delete the rule from one guard: more for one resource would be a fight, of
/// which it reports sums.
const ROUND: usize = 10;

/// Besides this one.
const OTHERS: usize = 100;
const RULE: &str = "-s 10.7.0.0/16 ! -d 10.7.0.0/16 -j MASQUERADE";

/// Lets `tries` programs delete the rule, one after the other, and reads the reported writers.
pub fn measure(tries: usize, backend: Backend) -> Outcome<Count> {
    let mut count = Count::default();
    let measured = thread::scope(|scope| {
        let measured = scope.spawn(|| {
            let measured = alone(backend).and_then(|()| rounds(tries, &mut count));
            measured.map_err(|error| error.to_string())
        });
        measured
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    measured?;
    Ok(count)
}

/// Has this thread, and what it starts, have a network and a lock of its own, and the legacy backend in
/// place of the other where that is wanted.
fn alone(backend: Backend) -> Outcome<()> {
    let none = None::<&str>;
    enter_network()?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    if backend == Backend::Legacy {
        let [own, other] = ["legacy", "nft"].map(|it| format!("/usr/sbin/xtables-{it}-multi"));
        mount(Some(&own[..]), &other[..], none, MsFlags::MS_BIND, none)?;
    }
    Ok(())
}

fn rounds(tries: usize, count: &mut Count) -> Outcome<()> {
    for number in 0..OTHERS {
        let address = format!("10.8.{number}.0/24");
        run(&[
            "-A", "FORWARD", "-t", "filter", "-s", &address, "-j", "ACCEPT",
        ])?;
    }
    for begun in (0..tries).step_by(ROUND) {
        let guarded = format!("[[iptables]]\ntable = \"nat\"\nrule = \"-A POSTROUTING {RULE}\"\n");
        run(&["-t", "nat", "-F"])?;
        // One that is missing may be back before the guard reports that it has started.
        let mut arguments = vec!["-t", "nat", "-A", "POSTROUTING"];
        arguments.extend(RULE.split(' '));
        run(&arguments)?;
        let guard = Guard::start_with(&guarded)?;
        for _ in begun..tries.min(begun + ROUND) {
            let mut arguments = vec!["-w", "-t", "nat", "-D", "POSTROUTING"];
            arguments.extend(RULE.split(' '));
            let mut writer = Command::new("iptables").args(&arguments).spawn()?;
            let pid = writer.id().to_string();
            writer.wait()?;
            let cmdline = format!("iptables {}", arguments.join(" "));
            count.add(&restored(&guard)?, &pid, &cmdline);
        }
    }
    Ok(())
}

fn run(arguments: &[&str]) -> Outcome<()> {
    let status = Command::new("iptables")
        .arg("-w")
        .args(arguments)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("iptables {}: {status}", arguments.join(" ")).into()),
    }
}
