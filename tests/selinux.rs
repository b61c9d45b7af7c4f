//! The SELinux module compiles, and allows what the unit gives the daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs one of checkpolicy's or semodule-utils' programs.
fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} (checkpolicy, semodule-utils): {error}"));
    assert!(
        output.status.success(),
        "{program}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_module_compiles() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("selinux");
    fs::create_dir_all(&folder).expect("a folder");
    // checkmodule wants the module's own name.
    let module = folder.join("netguard.mod");
    let package = folder.join("netguard.pp");
    let [m, o, f] = ["-m", "-o", "-f"].map(Path::new);
    let te = source("packaging/selinux/netguard.te");
    run("checkmodule", &[Path::new("-M"), m, o, &module, &te]);
    let fc = source("packaging/selinux/netguard.fc");
    run("semodule_package", &[o, &package, m, &module, f, &fc]);
    let length = fs::metadata(&package).expect("a policy package").len();
    assert!(length > 1000, "{length} bytes are no policy");
}

/// The value of a setting of a unit.
fn setting(unit: &str, name: &str) -> String {
    let unit = fs::read_to_string(source("systemd").join(unit)).expect("the unit");
    let setting = unit
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    setting.expect("the setting").to_owned()
}

#[test]
fn it_allows_the_capabilities_that_the_units_leave() {
    let te = fs::read_to_string(source("packaging/selinux/netguard.te")).expect("the module");
    for (unit, domain) in [
        ("netguard.service", "netguard_t"),
        ("netguard-firewall@.service", "netguard_firewall_t"),
    ] {
        let rule = format!("allow {domain} self:capability {{ ");
        let allowed = te
            .lines()
            .find_map(|line| line.strip_prefix(&rule)?.strip_suffix(" };"))
            .expect("a rule for capabilities");
        let left = setting(unit, "CapabilityBoundingSet");
        let left = left.split(' ');
        let left = left.map(|it| it.trim_start_matches("CAP_").to_lowercase());
        let left: Vec<_> = left.collect();
        assert_eq!(allowed.split(' ').collect::<Vec<_>>(), left, "{unit}");
    }
    // Both have the same program: the helper's unit names its domain, and does without.
    let context = setting("netguard-firewall@.service", "SELinuxContext");
    assert_eq!(context, "-system_u:system_r:netguard_firewall_t:s0");
    assert!(te.contains("\ntype netguard_firewall_t;"));
}
