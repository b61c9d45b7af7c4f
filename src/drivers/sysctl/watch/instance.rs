//! Which procfs the others write to.
//!
//! fanotify and inotify detect only what is written through the same instance of
//! procfs. systemd can give a service another one (ProtectProc=, ProcSubset=,
//! with some versions ProtectControlGroups= too): nothing fails then, and
//! nothing is detected.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::stat::{major, minor};

/// Why writes of other processes are not detected, where it is known that they
/// are not: PID 1's `/proc` is another procfs than this process's.
pub fn deafness() -> Option<String> {
    let own = fs::metadata("/proc/sys").ok()?.dev();
    let own = format!("{}:{}", major(own), minor(own));
    let mounts = fs::read_to_string("/proc/1/mountinfo").ok()?;
    let theirs = device_of_proc(&mounts)?;
    (theirs != own).then(|| {
        "this service has a procfs of its own, so writes through the node's are not detected; remove ProtectProc=, ProcSubset= and ProtectControlGroups= from its unit"
            .to_owned()
    })
}

/// The device of the procfs on `/proc`, as `MAJOR:MINOR`, in the text of a
/// mountinfo file (proc(5)): the last mount there is the one that is seen.
fn device_of_proc(mounts: &str) -> Option<&str> {
    mounts.lines().rev().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(2);
        let (device, root, place) = (fields.next()?, fields.next()?, fields.next()?);
        let is_proc = root == "/" && place == "/proc" && kind.starts_with("proc ");
        is_proc.then_some(device)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_that_of_the_topmost_mount() {
        let mounts = "\
            24 30 0:22 / /sys rw,relatime shared:7 - sysfs sysfs rw\n\
            25 30 0:23 / /proc rw,relatime shared:12 - proc proc rw\n\
            26 25 0:24 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n\
            90 25 0:23 /sys /proc/sys ro - proc proc rw\n\
            91 30 0:55 / /proc rw - proc proc rw,hidepid=invisible\n";
        assert_eq!(device_of_proc(mounts), Some("0:55"));
        assert_eq!(device_of_proc("nonsense\n - \n"), None);
    }

    #[test]
    fn here_the_others_are_detected() {
        assert_eq!(deafness(), None);
    }
}
