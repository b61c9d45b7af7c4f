//! Chains of iptables that are preserved, of both backends.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netguard::drivers::firewall::helper::sizes::sizes;
use netguard::model::Family;
use netguard::resource::{Backend, FirewallTable};

use crate::guard::{Guard, Root};
use crate::iptables::{alone, break_programs, iptables, rules};
use crate::network::{configured, shell, shown};

const PORTMAP: &str = "\
*nat
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-DN-0123456789abcdef01234 - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A PREROUTING -i eth7 -j ACCEPT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -o eth7 -j ACCEPT
-A POSTROUTING -m comment --comment \"CNI portfwd requiring masquerade\" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-SETMARK -m comment --comment \"-Masq \x1b[1m\"
-A CNI-HOSTPORT-SETMARK -m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark 0x2000/0x2000
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment \"dnat name: \\\"cbr0\\\" id: \\\"a\\\"\" -m multiport --dports 8080 -j CNI-DN-0123456789abcdef01234
-A CNI-DN-0123456789abcdef01234 -s 10.42.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-0123456789abcdef01234 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.42.0.7:80
COMMIT
";
const CNI: &str = "[guard]\nsweep = \"1h\"\n[[iptables]]\ntable = \"nat\"\nchain = \"CNI-*\"\n\
     family = \"ipv4\"\npreserve = true\n";
const CNI_KEY: &str = "chains/ipv4/nat/CNI-*";

const KUBE: &str = "[guard]\nsweep = \"1h\"\n[[iptables]]\ntable = \"nat\"\nchain = \"KUBE-*\"\n\
     family = \"ipv4\"\npreserve = true\n";
const KUBE_KEY: &str = "chains/ipv4/nat/KUBE-*";

/// Rules as kube-proxy writes them, with one service.
fn kube(service: u32) -> String {
    format!(
        "*nat\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-SVC-{service} - [0:0]\n\
         -A KUBE-SERVICES -d 10.96.0.{service}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-{service}\n\
         -A KUBE-POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\n\
         -A KUBE-SVC-{service} -j DNAT --to-destination 10.42.0.{service}\n\
         COMMIT\n"
    )
}

/// And without the service before that.
fn kube_after(service: u32) -> String {
    let removed = format!("-X KUBE-SVC-{}\nCOMMIT", service - 1);
    let flushed = format!(":KUBE-SVC-{} - [0:0]\n:KUBE-SERVICES", service - 1);
    let update = kube(service).replace("COMMIT", &removed);
    update.replacen(":KUBE-SERVICES", &flushed, 1)
}

/// What leads to them.
const KUBE_JUMPS: &str = "*nat\n\
     :KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n\
     -I PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
     -I OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
     -I POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
     COMMIT\n";

/// Makes rules as a program does that keeps others.
pub fn restore(rules: &str) {
    let program = Command::new("iptables-restore")
        .args(["-w", "10", "--noflush"])
        .stdin(Stdio::piped())
        .spawn();
    let mut program = program.expect("iptables-restore");
    let mut stdin = program.stdin.take().expect("its input");
    stdin.write_all(rules.as_bytes()).expect("it reads");
    drop(stdin);
    assert!(program.wait().expect("its end").success(), "{rules}");
}

/// The chains and rules of a table, without counters.
pub fn saved(table: &str) -> Vec<String> {
    let saved = Command::new("iptables-save").args(["-t", table]).output();
    let saved = String::from_utf8(saved.expect("iptables-save").stdout).expect("UTF-8");
    let lines = saved.lines().filter(|line| !line.starts_with('#'));
    let words = lines.map(|line| line.split(" [").next().unwrap_or_default());
    words.map(str::to_owned).collect()
}

/// Waits until the table has just these lines.
pub fn wait_for(table: &str, expected: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = saved(table);
        if found == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{found:#?}\nmust be\n{expected:#?}"
        );
    }
}

/// A rule that must not be in the table, which no flush makes. It is removed before preserved
/// chains are read; once it is removed a second time, all that was done before has been read.
const RULE_KEY: &str = "iptables/ipv4/nat/POSTROUTING/-o~eth8~-j~ACCEPT";
const RULE: &str = "-A POSTROUTING -o eth8 -j ACCEPT";

fn with_rule(configuration: &str) -> String {
    let rule = format!("family = \"ipv4\"\nrule = \"{RULE}\"\nabsent = true\n");
    format!("{configuration}[[iptables]]\ntable = \"nat\"\n{rule}")
}

/// Waits until the guard has read all that was done before.
fn wait_until_read(guard: &mut Guard) {
    for _ in 0..2 {
        iptables(&format!("-t nat {RULE}"));
        guard.wait_for_restore(RULE_KEY);
    }
}

fn started(configuration: &str) -> Guard {
    let mut guard = Guard::start(&with_rule(configuration));
    wait_until_read(&mut guard);
    guard
}

/// How often the guard has restored it.
fn restores(guard: &mut Guard, key: &str) -> usize {
    guard.so_far().iter().filter(|it| it.restores(key)).count()
}

/// The table without the rules of nobody.
fn without_others(lines: &[String]) -> Vec<String> {
    let rest = lines.iter().filter(|line| !line.contains("eth7"));
    rest.cloned().collect()
}

fn chains_come_back_after_a_flush(is_legacy: bool) {
    alone(is_legacy);
    restore(PORTMAP);
    let mut guard = started(CNI);
    let before = saved("nat");
    let flushes = match is_legacy {
        true => [
            "iptables -w -t nat -F",
            "iptables -w -t nat -F && iptables -w -t nat -X",
        ],
        false => ["iptables -t nat -F", "nft flush ruleset"],
    };
    for flush in flushes {
        shell(flush);
        // What is not preserved does not come back.
        wait_for("nat", &without_others(&before));
        let restored = guard.wait_for_restore(CNI_KEY);
        let source = ["iptables-nft", "xtables-lock"][usize::from(is_legacy)];
        assert_eq!(restored.field("NETGUARD_SOURCE"), source);
    }
    // A file of rules replaces the table, and what it has stays where it is.
    iptables("-t nat -I PREROUTING 2 -i eth7 -j ACCEPT");
    iptables("-t nat -I POSTROUTING -o eth7 -j ACCEPT");
    wait_until_read(&mut guard);
    shell("iptables-save -t nat | grep -v CNI | iptables-restore -w 10");
    wait_for("nat", &before);
    wait_until_read(&mut guard);
    // With other rules, what was first or last of a chain is so again.
    let after: Vec<String> = before
        .iter()
        .map(|line| line.replace("eth7", "eth6"))
        .collect();
    shell("iptables-save -t nat | grep -v CNI | sed s/eth7/eth6/ | iptables-restore -w 10");
    wait_for("nat", &after);
    assert!(guard.told_of("restore-failed").is_empty());
}

#[test]
fn chains_of_nf_tables_come_back_after_a_flush() {
    chains_come_back_after_a_flush(false);
}

/// That of 1.8.4 is such a one.
#[test]
fn chains_come_back_where_none_is_made_in_the_transaction_that_deletes_it() {
    alone(false);
    shell("cp /usr/sbin/xtables-nft-multi /run/multi");
    break_programs(
        "case ${0##*/} in *-restore) input=$(cat)\n\
         case $input in *'\n-X '*'\n-N '*) echo \"${0##*/}: line 3 failed\" >&2; exit 1; esac\n\
         printf '%s\\n' \"$input\" | exec /run/multi ${0##*/} \"$@\"; esac\n\
         exec /run/multi ${0##*/} \"$@\"",
    );
    restore(PORTMAP);
    let mut guard = started(CNI);
    let before = saved("nat");
    for _ in 0..2 {
        shell("iptables -t nat -F");
        wait_for("nat", &without_others(&before));
        guard.wait_for_restore(CNI_KEY);
    }
    assert!(guard.told_of("restore-failed").is_empty());
}

/// Between the two transactions of such a one, as others have made the chains by then.
#[test]
fn what_was_deleted_alone_is_not_taken_for_the_change_of_another() {
    alone(false);
    shell("cp /usr/sbin/xtables-nft-multi /run/multi");
    break_programs(
        "case ${0##*/} in *-restore) cat > /run/input.$$\n\
         case $(cat /run/input.$$) in\n\
         *'\n-X '*'\n-N '*) echo \"${0##*/}: line 3 failed\" >&2; exit 1;;\n\
         *'\n-N '*) for n in 1 2 3; do mkdir /run/refused.$n 2>&- || continue\n\
         echo \"${0##*/}: line 2 failed\" >&2; exit 1; done;; esac\n\
         exec < /run/input.$$; esac\n\
         exec /run/multi ${0##*/} \"$@\"",
    );
    restore(PORTMAP);
    let mut guard = started(CNI);
    let before = saved("nat");
    shell("iptables -t nat -F");
    wait_for("nat", &without_others(&before));
    let restored = guard.wait_for_restore(CNI_KEY);
    assert!(Path::new("/run/refused.3").exists());
    let input = format!("/run/input.{}", restored.field("OBJECT_PID"));
    assert!(!Path::new(&input).exists(), "{restored:?}");
}

#[test]
fn legacy_chains_come_back_after_a_flush() {
    chains_come_back_after_a_flush(true);
}

/// One chain after another, and the guard reads the table after each. Where nothing else is in
/// a chain, that may be its owner's removal, until the rule of somebody else goes too.
fn a_flush_in_steps_is_undone(is_legacy: bool) {
    alone(is_legacy);
    restore(PORTMAP);
    iptables("-t nat -D PREROUTING -i eth7 -j ACCEPT");
    let mut guard = started(CNI);
    let before = saved("nat");
    for chain in ["PREROUTING", "OUTPUT", "POSTROUTING"] {
        iptables(&format!("-t nat -F {chain}"));
        wait_until_read(&mut guard);
    }
    wait_for("nat", &without_others(&before));
}

/// Each rule that leads to them is the only one of its chain, and their owner removes one after
/// the other.
fn chains_that_their_owner_removes_stay_away(is_legacy: bool) {
    alone(is_legacy);
    let own = "-N CNI-A; -A CNI-A -j ACCEPT; -A PREROUTING -j CNI-A; -A INPUT -j CNI-A; -A OUTPUT -o a -j ACCEPT";
    let iptables_nat = |lines: &str| {
        for line in lines.split("; ") {
            iptables(&format!("-t nat {line}"));
        }
    };
    iptables_nat(own);
    let mut guard = started(CNI);
    for line in ["-D PREROUTING -j CNI-A", "-D INPUT -j CNI-A"] {
        iptables_nat(line);
        wait_until_read(&mut guard);
    }
    iptables_nat("-F CNI-A; -X CNI-A");
    wait_until_read(&mut guard);
    assert_eq!(rules("nat", "OUTPUT"), ["-o a -j ACCEPT"]);
    assert!(!saved("nat").iter().any(|line| line.contains("CNI-A")));
}

#[test]
fn chains_of_nf_tables_that_their_owner_removes_stay_away() {
    chains_that_their_owner_removes_stay_away(false);
}

#[test]
fn legacy_chains_that_their_owner_removes_stay_away() {
    chains_that_their_owner_removes_stay_away(true);
}

/// What leads to them from the others is there all the time.
fn a_flush_of_one_chain_is_undone(is_legacy: bool) {
    alone(is_legacy);
    restore(PORTMAP);
    let mut guard = started(CNI);
    let before = saved("nat");
    iptables("-t nat -F PREROUTING");
    guard.wait_for_restore(CNI_KEY);
    let is_other = |line: &&String| !line.starts_with("-A PREROUTING -i eth7");
    let after: Vec<String> = before.iter().filter(is_other).cloned().collect();
    wait_for("nat", &after);
}

#[test]
fn a_flush_of_one_chain_of_nf_tables_is_undone() {
    a_flush_of_one_chain_is_undone(false);
}

#[test]
fn a_flush_of_one_legacy_chain_is_undone() {
    a_flush_of_one_chain_is_undone(true);
}

#[test]
fn a_flush_of_nf_tables_in_steps_is_undone() {
    a_flush_in_steps_is_undone(false);
}

#[test]
fn a_flush_of_legacy_tables_in_steps_is_undone() {
    a_flush_in_steps_is_undone(true);
}

/// Rules that are guarded for their own sake come back first, and do not hide that the chains
/// were flushed with them.
fn guarded_rules_hide_no_flush(is_legacy: bool) {
    const GUARDED: &str = "-s 192.168.0.0/16 ! -d 192.168.0.0/16 -j MASQUERADE";
    const IN_CHAIN: &str = "-s 9.9.9.9/32 -j ACCEPT";
    alone(is_legacy);
    // One pod, as the bridge plugin has it.
    restore(&format!(
        "*nat\n:CNI-A - [0:0]\n:CNI-B - [0:0]\n-A POSTROUTING {GUARDED}\n\
         -A POSTROUTING -s 10.85.0.2/32 -j CNI-A\n-A CNI-A -d 10.85.0.0/16 -j ACCEPT\n\
         -A CNI-A {IN_CHAIN}\n-A CNI-A ! -d 224.0.0.0/4 -j CNI-B\n-A CNI-B -j MASQUERADE\nCOMMIT\n"
    ));
    let guarded = |chain: &str, rule: &str| {
        format!("[[iptables]]\ntable = \"nat\"\nfamily = \"ipv4\"\nrule = '-A {chain} {rule}'\n")
    };
    let first = guarded("POSTROUTING", GUARDED) + "position = \"first\"\n";
    let mut guard = started(&format!("{CNI}{first}{}", guarded("CNI-A", IN_CHAIN)));
    let before = saved("nat");
    for _ in 0..3 {
        iptables("-t nat -F");
        guard.wait_for_restore(CNI_KEY);
        wait_for("nat", &before);
        wait_until_read(&mut guard);
    }
    // Another program is as fast.
    shell("iptables -w -t nat -F && iptables -w -t nat -A OUTPUT -o eth7 -j ACCEPT");
    guard.wait_for_restore(CNI_KEY);
    let mut after = before.clone();
    let jump = after.iter().position(|it| it.starts_with("-A POSTROUTING"));
    after.insert(
        jump.expect("a rule"),
        "-A OUTPUT -o eth7 -j ACCEPT".to_owned(),
    );
    wait_for("nat", &after);
}

#[test]
fn guarded_rules_of_nf_tables_hide_no_flush() {
    guarded_rules_hide_no_flush(false);
}

#[test]
fn guarded_legacy_rules_hide_no_flush() {
    guarded_rules_hide_no_flush(true);
}

/// Its owner removes what leads to a chain, which is the only rule of all, and then the chain.
#[test]
fn a_chain_is_removed_by_its_owner_though_there_is_nothing_else() {
    alone(false);
    restore("*nat\n:CNI-A - [0:0]\n-A POSTROUTING -j CNI-A\n-A CNI-A -j ACCEPT\nCOMMIT\n");
    let mut guard = started(CNI);
    iptables("-t nat -D POSTROUTING -j CNI-A");
    wait_until_read(&mut guard);
    wait_until_read(&mut guard);
    restore("*nat\n-F CNI-A\n-X CNI-A\nCOMMIT\n");
    wait_until_read(&mut guard);
    assert!(!saved("nat").concat().contains("CNI-A"));
    assert_eq!(restores(&mut guard, CNI_KEY), 0);
}

/// What its owner does with its chains is what is preserved from then on.
fn what_an_owner_changes_stays(is_legacy: bool) {
    alone(is_legacy);
    restore(PORTMAP);
    let mut guard = started(CNI);
    // Another pod comes, and both go, as portmap does it.
    restore(
        "*nat\n:CNI-DN-1 - [0:0]\n-A CNI-DN-1 -p tcp -j DNAT --to-destination 10.42.0.8:80\n\
         -A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 8081 -j CNI-DN-1\nCOMMIT\n",
    );
    for chain in ["CNI-DN-0123456789abcdef01234", "CNI-DN-1"] {
        iptables("-t nat -D CNI-HOSTPORT-DNAT 1");
        iptables(&format!("-t nat -F {chain}"));
        iptables(&format!("-t nat -X {chain}"));
    }
    wait_until_read(&mut guard);
    let after = saved("nat");
    let is_left = after.iter().any(|line| line.contains("CNI-DN"));
    assert!(!is_left, "{after:#?} {:#?}", guard.so_far());
    iptables("-t nat -F");
    wait_for("nat", &without_others(&after));
    wait_until_read(&mut guard);
    assert_eq!(restores(&mut guard, CNI_KEY), 1);
}

#[test]
fn what_an_owner_changes_in_nf_tables_stays() {
    what_an_owner_changes_stays(false);
}

#[test]
fn what_an_owner_changes_in_legacy_tables_stays() {
    what_an_owner_changes_stays(true);
}

/// The lines with another service.
fn with_service(lines: &[String], number: u32) -> Vec<String> {
    let line = |line: &String| {
        line.replace("KUBE-SVC-1", &format!("KUBE-SVC-{number}"))
            .replace("10.96.0.1/", &format!("10.96.0.{number}/"))
            .replace("10.42.0.1", &format!("10.42.0.{number}"))
    };
    lines.iter().map(line).collect()
}

fn an_owner_goes_first(is_legacy: bool) {
    alone(is_legacy);
    restore(KUBE_JUMPS);
    restore(&kube(1));
    let mut guard = started(KUBE);
    let before = saved("nat");
    iptables("-t nat -F");
    let restored = guard.wait_for_restore(KUBE_KEY);
    let took: u64 = restored
        .field("NETGUARD_RESTORE_USEC")
        .parse()
        .expect("a duration");
    assert!(took >= 2_000_000, "{took} us");
    wait_for("nat", &before);

    // It makes them again itself, and otherwise.
    wait_until_read(&mut guard);
    iptables("-t nat -F");
    wait_until_read(&mut guard);
    restore(KUBE_JUMPS);
    restore(&kube(2));
    iptables("-t nat -X KUBE-SVC-1");
    wait_until_read(&mut guard);
    wait_for("nat", &with_service(&before, 2));
    iptables("-t nat -F");
    guard.wait_for_restore(KUBE_KEY);
    wait_for("nat", &with_service(&before, 2));
    assert_eq!(restores(&mut guard, KUBE_KEY), 2);
}

#[test]
fn the_owner_of_chains_of_nf_tables_goes_first() {
    an_owner_goes_first(false);
}

#[test]
fn the_owner_of_legacy_chains_goes_first() {
    an_owner_goes_first(true);
}

/// An owner that writes all its rules again and again loses no update to a flush, and none
/// to the guard.
fn no_update_is_lost(is_legacy: bool) {
    alone(is_legacy);
    restore(KUBE_JUMPS);
    restore(&kube(1));
    // Longer than the owner takes, however busy the machine is.
    let mut guard = started(&format!("{KUBE}grace = \"3s\"\n"));
    let first = saved("nat");
    for update in 2..22 {
        if update % 4 == 0 {
            iptables("-t nat -F");
            restore(KUBE_JUMPS);
        }
        restore(&kube_after(update));
    }
    wait_for("nat", &with_service(&first, 21));
    wait_until_read(&mut guard);
    assert_eq!(saved("nat"), with_service(&first, 21));
    iptables("-t nat -F");
    wait_for("nat", &with_service(&first, 21));
    let failures = guard.told_of("restore-failed");
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn no_update_of_chains_of_nf_tables_is_lost() {
    no_update_is_lost(false);
}

#[test]
fn no_update_of_legacy_chains_is_lost() {
    no_update_is_lost(true);
}

/// What an owner does now and then is known at once, even if a flush follows.
fn the_last_update_is_restored(is_legacy: bool) {
    alone(is_legacy);
    restore(KUBE_JUMPS);
    restore(&kube(1));
    iptables("-t nat -N OTHER");
    let rule = "-A OTHER -o eth8 -j ACCEPT";
    let rule = format!("family = \"ipv4\"\nrule = \"{rule}\"\nabsent = true\n");
    let rule = format!("[[iptables]]\ntable = \"nat\"\n{rule}");
    let mut guard = Guard::start(&format!("{KUBE}grace = \"100ms\"\n{rule}"));
    restore(&kube_after(2));
    // What was begun with the first reading is over before the second.
    for _ in 0..2 {
        iptables("-t nat -A OTHER -o eth8 -j ACCEPT");
        guard.wait_for_restore("iptables/ipv4/nat/OTHER/-o~eth8~-j~ACCEPT");
    }
    let after = saved("nat");
    iptables("-t nat -F");
    guard.wait_for_restore(KUBE_KEY);
    assert_eq!(saved("nat"), after);
}

#[test]
fn the_last_update_of_chains_of_nf_tables_is_restored() {
    the_last_update_is_restored(false);
}

#[test]
fn the_last_update_of_legacy_chains_is_restored() {
    the_last_update_is_restored(true);
}

/// What is read again of one backend says nothing of the other.
#[test]
fn chains_are_guarded_in_both_backends() {
    alone(false);
    restore(PORTMAP);
    shell("iptables-save -t nat | sed s/CNI/KUB/g | iptables-legacy-restore -w 10");
    let both = format!("{CNI}[[iptables]]\ntable = \"nat\"\nchain = \"KUB-*\"\npreserve = true\n");
    let mut guard = started(&format!("{both}grace = \"100ms\"\n"));
    let legacy = || shown("iptables-legacy-save -t nat | grep KUB- | sed 's/ .[0-9]*:[0-9]*.$//'");
    let before = (saved("nat"), legacy());
    shell("iptables-legacy -w -t nat -A OUTPUT -o eth7 -j ACCEPT");
    wait_until_read(&mut guard);
    shell("iptables-legacy -w -t nat -D OUTPUT -o eth7 -j ACCEPT");
    wait_until_read(&mut guard);
    let restored = [CNI_KEY, "chains/ipv4/nat/KUB-*"].map(|key| restores(&mut guard, key));
    assert_eq!(restored, [0, 0]);
    shell("iptables-legacy -w -t nat -F && nft flush ruleset");
    wait_for("nat", &without_others(&before.0));
    let deadline = Instant::now() + Duration::from_secs(30);
    while legacy() != before.1 {
        assert!(Instant::now() < deadline, "{}", legacy());
    }
}

#[test]
fn what_was_flushed_is_known_to_the_next_guard() {
    alone(false);
    restore(KUBE_JUMPS);
    restore(&kube(1));
    let configuration = with_rule(&format!("{KUBE}grace = \"10s\"\n"));
    let root: Root = configured("chains-next", &configuration);
    let mut guard = Guard::start_standard(&root.0);
    wait_until_read(&mut guard);
    let before = saved("nat");
    iptables("-t nat -F");
    let lost = root.0.join("run/netguard/preserved.json");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !lost.exists() {
        assert!(Instant::now() < deadline, "it is not saved");
    }
    guard.kill();
    let mut guard = Guard::start_standard(&root.0);
    guard.wait_for_restore(KUBE_KEY);
    wait_for("nat", &before);
}

#[test]
fn a_set_that_chains_need_comes_first() {
    alone(false);
    shell("ipset create pods hash:net && ipset add pods 10.42.0.0/16");
    restore(
        "*nat\n:CNI-A - [0:0]\n-A POSTROUTING -j CNI-A\n-A OUTPUT -j CNI-A\n\
         -A CNI-A -m set --match-set pods src -j ACCEPT\nCOMMIT\n",
    );
    let sets = "[[ipset]]\nname = \"pods\"\ntype = \"hash:net\"\nmembers = [\"10.42.0.0/16\"]\n";
    let configuration = CNI.replace("1h", "1s");
    let mut guard = started(&configuration.replace("[[iptables]]", &format!("{sets}[[iptables]]")));
    let before = saved("nat");
    shell("nft flush ruleset && ipset destroy pods");
    guard.wait_for_restore(CNI_KEY);
    wait_for("nat", &before);
}

const KUBE_PROXY: &str = include_str!("../../config/profiles/kube-proxy.toml");
const DOCKER: &str = include_str!("../../config/profiles/docker.toml");
const PORTMAP_PROFILE: &str = include_str!("../../config/profiles/portmap.toml");
const FLANNEL: &str = include_str!("../../config/profiles/flannel.toml");
const CALICO: &str = include_str!("../../config/profiles/calico.toml");

/// As dockerd makes them, with one published port.
const DOCKER_RULES: &str = "\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -j DOCKER
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
";
const FLANNEL_RULES: &str = "\
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG
-A POSTROUTING -o eth7 -j ACCEPT
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD
-A FORWARD -o eth7 -j ACCEPT
-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
COMMIT
";
/// As Felix makes them, with one pod.
const FELIX_RULES: &str = "\
*raw
:cali-PREROUTING - [0:0]
:cali-OUTPUT - [0:0]
-A PREROUTING -m comment --comment \"cali:6gwbT8clXdHdC1b1\" -j cali-PREROUTING
-A OUTPUT -m comment --comment \"cali:tVnHkvAo15HuiPy0\" -j cali-OUTPUT
-A cali-PREROUTING -m comment --comment \"cali:XFX5xbM8B9qR10JG\" -j MARK --set-xmark 0x0/0xf0000
-A cali-OUTPUT -m comment --comment \"cali:njdnLwYeGqBJyMxW\" -j MARK --set-xmark 0x0/0xf0000
COMMIT
*mangle
:cali-PREROUTING - [0:0]
:cali-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment \"cali:6gwbT8clXdHdC1b1\" -j cali-PREROUTING
-A POSTROUTING -m comment --comment \"cali:O3lYWMrLQYEMJtB5\" -j cali-POSTROUTING
-A cali-PREROUTING -m comment --comment \"cali:6BJqBjBC7crtA-7-\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-POSTROUTING -m comment --comment \"cali:NX-7roTexQ3fGRfU\" -m mark --mark 0x10000/0x10000 -j RETURN
COMMIT
*nat
:cali-PREROUTING - [0:0]
:cali-POSTROUTING - [0:0]
:cali-fip-dnat - [0:0]
:cali-nat-outgoing - [0:0]
:cali-fip-snat - [0:0]
-A PREROUTING -m comment --comment \"cali:6gwbT8clXdHdC1b1\" -j cali-PREROUTING
-A POSTROUTING -m comment --comment \"cali:O3lYWMrLQYEMJtB5\" -j cali-POSTROUTING
-A cali-PREROUTING -m comment --comment \"cali:r6XmIziWUJsdOK6Z\" -j cali-fip-dnat
-A cali-POSTROUTING -m comment --comment \"cali:Z-c7XtVd2Bq7s_hA\" -j cali-fip-snat
-A cali-POSTROUTING -m comment --comment \"cali:nYKhEzDlr11Jccal\" -j cali-nat-outgoing
-A cali-nat-outgoing -s 192.168.0.0/16 ! -d 192.168.0.0/16 -m comment --comment \"cali:flqWnvo8yq4ULQLa\" -j MASQUERADE
COMMIT
*filter
:cali-FORWARD - [0:0]
:cali-INPUT - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-fw-cali0 - [0:0]
-A INPUT -m comment --comment \"cali:Cz_u1IQiXIMmKD4c\" -j cali-INPUT
-A FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD
-A cali-INPUT -i cali+ -m comment --comment \"cali:msRIDfJRWnYwzW4g\" -g cali-from-wl-dispatch
-A cali-FORWARD -i cali+ -m comment --comment \"cali:8ZoYfO5HKXWbB3pk\" -j cali-from-wl-dispatch
-A cali-from-wl-dispatch -i cali0 -m comment --comment \"cali:gqgj8_1EnbVIDjJ1\" -g cali-fw-cali0
-A cali-from-wl-dispatch -m comment --comment \"cali:XYnnl8j1aBJtjSRR\" -j DROP
-A cali-fw-cali0 -m comment --comment \"cali:Wdc6sXOjDmQzvzLN\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-fw-cali0 -m comment --comment \"cali:zNjWOl8DvxSFMKgV\" -j DROP
COMMIT
";

/// The profile without what needs interfaces and sets, and with what shows that it was read.
fn only_chains(profile: &str) -> String {
    let tables = profile.split("\n[");
    let own = tables.filter(|it| it.starts_with("[iptables]]"));
    let own: Vec<String> = own.map(|it| format!("\n[{it}")).collect();
    with_rule(&own.concat())
}

fn a_flush_is_undone(profile: &str, rules: &str) {
    for is_legacy in [false, true] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                alone(is_legacy);
                restore(rules);
                let tables: Vec<&str> = rules
                    .lines()
                    .filter_map(|it| it.strip_prefix('*'))
                    .collect();
                let flush = |table: &str| match is_legacy {
                    true => format!("iptables -w -t {table} -F; iptables -w -t {table} -X; "),
                    false => "nft flush ruleset; ".to_owned(),
                };
                let flushes: Vec<String> = tables.iter().map(|table| flush(table)).collect();
                let mut guard = Guard::start(&only_chains(profile));
                wait_until_read(&mut guard);
                let kept = |table: &&str| without_others(&saved(table));
                let before: Vec<_> = tables.iter().map(kept).collect();
                shell(&flushes.concat());
                for (table, before) in tables.iter().zip(&before) {
                    wait_for(table, before);
                }
                assert!(guard.told_of("restore-failed").is_empty());
            });
        });
    }
}

#[test]
fn the_profile_kube_proxy_undoes_a_flush() {
    let filter = "*filter\n:KUBE-FORWARD - [0:0]\n:KUBE-FIREWALL - [0:0]\n\
         -A INPUT -j KUBE-FIREWALL\n\
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -j DROP\nCOMMIT\n";
    let nat = kube(1);
    a_flush_is_undone(KUBE_PROXY, &format!("{KUBE_JUMPS}{nat}{filter}"));
}

#[test]
fn the_profile_docker_undoes_a_flush() {
    a_flush_is_undone(DOCKER, DOCKER_RULES);
}

#[test]
fn the_profile_portmap_undoes_a_flush() {
    let own = PORTMAP
        .split_inclusive('\n')
        .filter(|line| !line.contains("eth7"));
    a_flush_is_undone(PORTMAP_PROFILE, &own.collect::<String>());
}

#[test]
fn the_profile_flannel_undoes_a_flush() {
    a_flush_is_undone(FLANNEL, FLANNEL_RULES);
}

#[test]
fn the_profile_calico_undoes_a_flush() {
    a_flush_is_undone(CALICO, FELIX_RULES);
}

/// What the kernel reports of a table, beside what iptables lists.
fn sizes_are_those_of_chains(is_legacy: bool) {
    alone(is_legacy);
    restore(PORTMAP);
    let backend = [Backend::Nft, Backend::Legacy][usize::from(is_legacy)];
    let measured = || sizes(backend, Family::Ipv4, FirewallTable::Nat).expect("sizes");
    let before = measured();
    let listed = saved("nat");
    let names = listed.iter().filter_map(|line| line.strip_prefix(':'));
    let names: BTreeSet<&str> = names.filter_map(|it| it.split(' ').next()).collect();
    // One that the kernel calls is made with its first rule.
    let is_used = |it: &&str| *it != "INPUT" || is_legacy;
    let measured_names: BTreeSet<&str> = before.keys().map(String::as_str).collect();
    assert_eq!(measured_names, names.into_iter().filter(is_used).collect());
    for chain in ["CNI-HOSTPORT-DNAT", "POSTROUTING"] {
        iptables(&format!("-t nat -A {chain} -o eth7 -j RETURN"));
        let after = measured();
        let changed = before.keys().filter(|it| before[*it] != after[*it]);
        assert_eq!(changed.collect::<Vec<_>>(), [chain]);
        assert!(after[chain] > before[chain], "{chain}");
        iptables(&format!("-t nat -D {chain} -o eth7 -j RETURN"));
        assert_eq!(measured(), before);
    }
}

#[test]
fn sizes_are_those_of_chains_of_nf_tables() {
    sizes_are_those_of_chains(false);
}

#[test]
fn sizes_are_those_of_legacy_chains() {
    sizes_are_those_of_chains(true);
}
