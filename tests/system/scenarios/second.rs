//! A guard that is started manually beside the service, and what is left of
//! one that is gone.

use std::process::Stdio;

use crate::host;
use crate::node::{IP_FORWARD, Node, Plan};

#[test]
fn a_second_guard_is_refused_and_one_before_the_service_does_not_stop_it() {
    let Some(host) = host::prepare("a guard beside the service") else {
        return;
    };
    let node = Node::start(&host, &Plan::default());
    let (machine, journal) = (&node.machine, node.journal());
    let pid = machine.property("netguard", "MainPID");
    let here = journal.position();
    let second = machine.output(&["netguard", "run"]);
    assert_eq!(second.status.code(), Some(3), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(
        said.contains(&format!("already running here (pid {pid}, since ")),
        "{said}"
    );
    assert!(
        journal
            .since(here)
            .iter()
            .all(|record| !record.is("stopped"))
    );

    // The other way round: the service guards all the same, and says why its
    // state is not saved.
    machine.systemctl("stop netguard");
    let mut by_hand = machine
        .command(&["netguard", "run", "--log", "text"])
        .stderr(Stdio::null())
        .spawn()
        .expect("nsenter");
    let status = || machine.output(&["netguard", "status"]).status.code();
    while status() != Some(0) {}
    let here = journal.position();
    machine.systemctl("start netguard");
    let degraded = journal.wait_for(here, "degraded");
    assert_eq!(degraded.field("NETGUARD_LIMITATION"), "unsaved");
    let message = degraded.field("MESSAGE");
    assert!(message.contains("locked by netguard["), "{message}");
    machine.set_sysctl(IP_FORWARD, "0");
    assert_eq!(machine.property("netguard", "ActiveState"), "active");

    // It ends, and the service takes over.
    let pid = machine.property("netguard", "MainPID");
    let others = machine.run(&["pgrep", "-x", "netguard"]);
    let other = others.lines().find(|it| *it != pid).expect("two guards");
    machine.run(&["kill", other]);
    by_hand.wait().expect("its end");
    journal.wait(here, "the recovery", |record| {
        record.is("recovered") && record.field("NETGUARD_LIMITATION") == "unsaved"
    });
    // The drift above may still be in it, which makes its exit status 1.
    let status = machine.output(&["netguard", "status"]).stdout;
    let status = String::from_utf8_lossy(&status);
    assert!(status.contains(&format!("pid {pid}")), "{status}");
    assert_eq!(machine.sysctl(IP_FORWARD), "1");
}
