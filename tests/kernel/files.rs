//! Files that would override guarded values: reported at startup and when they change.

use std::fs;
use std::path::PathBuf;

use crate::guard::{Guard, Record};
use crate::namespace::{bind, enter, set, unbind};

/// A root whose `/proc/sys` is this namespace's.
fn root(name: &str) -> PathBuf {
    let root = std::env::temp_dir().join(format!("netguard-files-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    bind("/proc/sys", &root.join("proc/sys"));
    root
}

fn line(record: &Record) -> String {
    let [file, line] =
        ["NETGUARD_CONFLICT_FILE", "NETGUARD_CONFLICT_LINE"].map(|name| record.field(name));
    format!("{file}:{line}")
}

#[test]
fn a_file_that_undoes_it_is_reported_when_it_is_there_when_it_comes_and_when_it_goes() {
    enter();
    let root = root("change");
    let folder = root.join("etc/sysctl.d");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(
        folder.join("90-cis.conf"),
        "# CIS\nnet.ipv4.ip_forward = 0\n",
    )
    .expect("a file");
    let mut guard = Guard::start_below(&root, "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n");
    let found = guard.wait_for("the conflict", |r| r.event() == "conflict-found");
    assert_eq!(line(&found), "/etc/sysctl.d/90-cis.conf:2");
    assert_eq!(found.field("NETGUARD_KEY"), "net.ipv4.ip_forward");
    assert_eq!(found.field("NETGUARD_CONFLICT_VALUE"), "0");

    // What will do it again stands in the drift.
    set("net/ipv4/ip_forward", "0");
    let drift = guard.wait_for_restore("net.ipv4.ip_forward");
    assert_eq!(line(&drift), "/etc/sysctl.d/90-cis.conf:2");

    // A file that takes precedence.
    let last = folder.join("99-kubernetes.conf");
    fs::write(&last, "net.ipv4.ip_forward = 1\n").expect("a file");
    let gone = guard.wait_for("its end", |r| r.event() == "conflict-resolved");
    assert_eq!(line(&gone), "/etc/sysctl.d/90-cis.conf:2");

    // One in a folder that was not there before.
    let usr = root.join("usr/lib/sysctl.d");
    fs::create_dir_all(&usr).expect("a folder");
    fs::write(usr.join("99-zz.conf"), "net.ipv4.ip_forward = 0\n").expect("a file");
    let found = guard.wait_for("the next one", |r| r.event() == "conflict-found");
    assert_eq!(line(&found), "/usr/lib/sysctl.d/99-zz.conf:1");

    // One that is replaced, as editors and package managers do.
    fs::write(usr.join("new"), "net.ipv4.ip_forward = 1\n").expect("a file");
    fs::rename(usr.join("new"), usr.join("99-zz.conf")).expect("a rename");
    guard.wait_for("its end", |r| r.event() == "conflict-resolved");
    let (status, _, records) = guard.stop();
    assert!(status.success());
    let told = records.iter().filter(|r| r.event().starts_with("conflict"));
    assert_eq!(told.count(), 4, "each once");
    unbind(&root.join("proc/sys"));
    fs::remove_dir_all(root).expect("the scratch folder goes");
}

#[test]
fn a_folder_that_takes_the_place_of_another_is_detected() {
    enter();
    let root = root("replaced");
    let folder = root.join("etc/sysctl.d");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("90-cis.conf"), "net.ipv4.ip_forward = 0\n").expect("a file");
    let mut guard = Guard::start_below(&root, "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n");
    guard.wait_for("the conflict", |r| r.event() == "conflict-found");

    // As a deployment does it: the whole folder in one step, with files of the
    // same names, so that nothing else has to be listened to.
    let new = root.join("etc/sysctl.d.new");
    fs::create_dir(&new).expect("a folder");
    fs::write(new.join("90-cis.conf"), "net.ipv4.ip_forward = 2\n").expect("a file");
    fs::rename(&folder, root.join("etc/sysctl.d.old")).expect("a rename");
    fs::rename(&new, &folder).expect("a rename");
    let is = |r: &Record, event: &str, value: &str| {
        r.event() == event && r.field("NETGUARD_CONFLICT_VALUE") == value
    };
    guard.wait_for("the other's", |r| is(r, "conflict-found", "2"));

    fs::write(folder.join("99-last.conf"), "net.ipv4.ip_forward = 1\n").expect("a file");
    guard.wait_for("its end", |r| is(r, "conflict-resolved", "2"));
    let (status, ..) = guard.stop();
    assert!(status.success());
    unbind(&root.join("proc/sys"));
    fs::remove_dir_all(root).expect("the scratch folder goes");
}
