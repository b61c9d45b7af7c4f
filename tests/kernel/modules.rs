//! Modules where there is no systemd: the daemon runs modprobe itself.
//!
//! None is loaded: modprobe is a stand-in, and so is the kernel's list of modules.

use std::fs;
use std::path::Path;

use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{Socket, SocketAddr};

use crate::guard::Guard;
use crate::namespace::{bind, enter, run};

const CONFIGURATION: &str = "\
[guard]
sweep = \"1h\"
[module]
netguard-test = { load = true }
netguard_none = { load = true }
nf_conntrack = \"loaded\"
";

/// Loads one module, and knows no other.
const MODPROBE: &str = "\
#!/bin/sh
echo \"$@\" >> /run/modprobe
test \"$2\" = netguard_test && mkdir -p /sys/module/$2
";

/// Has this thread, and what it starts, see other programs and modules than the rest.
const STAND_INS: &str = "\
set -e
mount -t tmpfs none /run
mkdir /run/upper /run/work
cp \"$1\" /run/upper/modprobe
chmod 755 /run/upper/modprobe
sbin=$(realpath /sbin)
mount -t overlay -o lowerdir=$sbin,upperdir=/run/upper,workdir=/run/work none $sbin
mount -t tmpfs none /sys/module
mkdir /sys/module/nf_conntrack
";

/// Has the kernel send an uevent to the listeners of this network namespace.
fn send_uevent(action: &str, path: &str) {
    let fields = format!("{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM=module\0");
    let length = u32::try_from(16 + fields.len()).expect("a short message");
    // struct nlmsghdr: length, type NLMSG_MIN_TYPE, NLM_F_REQUEST, number, port.
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(0x10_u16.to_ne_bytes());
    message.extend(1_u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(fields.bytes());
    let socket = Socket::new(NETLINK_KOBJECT_UEVENT).expect("a socket");
    let sent = socket.send_to(&message, &SocketAddr::new(0, 0), 0);
    sent.expect("root is needed here");
}

#[test]
fn a_module_that_is_removed_is_loaded_at_once() {
    enter();
    // For its private mounts.
    let folder = std::env::temp_dir().join(format!("netguard-modules-{}", std::process::id()));
    bind("/proc", &folder.join("proc"));
    let program = folder.join("modprobe");
    fs::write(&program, MODPROBE).expect("a file");
    let program = program.to_str().expect("a path");
    run("sh", &["-c", STAND_INS, "sh", program]);

    let mut guard = Guard::start(CONFIGURATION);
    guard.wait_until_restored("module/netguard_test");
    let failed = guard.first_of("restore-failed");
    assert_eq!(failed.field("NETGUARD_RESOURCE"), "module/netguard_none");
    assert!(Path::new("/sys/module/netguard_test").is_dir());

    fs::remove_dir("/sys/module/netguard_test").expect("it goes");
    send_uevent("remove", "/module/netguard_test");
    let restored = guard.wait_for_restore("module/netguard_test");
    assert_eq!(restored.field("NETGUARD_SOURCE"), "uevent");
    assert_eq!(
        restored.drift(),
        "module/netguard_test loaded>absent>loaded"
    );
    assert!(Path::new("/sys/module/netguard_test").is_dir());
    let calls = fs::read_to_string("/run/modprobe").expect("calls");
    let of_it = calls.lines().filter(|line| *line == "-- netguard_test");
    assert_eq!(of_it.count(), 2, "{calls}");
    drop(guard);
    run("umount", &[folder.join("proc").to_str().expect("a path")]);
    fs::remove_dir_all(folder).expect("the scratch folder goes");
}
