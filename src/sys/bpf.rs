//! Programs of BPF at interfaces, which netlink does not list.

use nix::libc;

/// `BPF_PROG_QUERY` of linux/bpf.h
const QUERY: libc::c_int = 16;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`, since Linux 6.6.
const TCX: [(u32, &str); 2] = [(46, "TCX ingress"), (47, "TCX egress")];

/// The part `query` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Query {
    index: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// Where an interface of this thread's network namespace has such programs; nowhere where the
/// kernel has no such places, or does not say.
pub fn places(index: u32) -> impl Iterator<Item = &'static str> {
    TCX.into_iter()
        .filter(move |(kind, _)| count(index, *kind) > 0)
        .map(|(_, name)| name)
}

fn count(index: u32, kind: u32) -> u32 {
    let mut query = Query {
        index,
        kind,
        ..Query::default()
    };
    let size = size_of::<Query>();
    // SAFETY: the kernel reads and writes no more than the part of the union that `query` is, as
    // it is given no room for the numbers of programs.
    let done = unsafe { libc::syscall(libc::SYS_bpf, QUERY, &raw mut query, size) };
    if done == 0 { query.count } else { 0 }
}

#[cfg(test)]
mod as_root {
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// `BPF_PROG_LOAD` and `BPF_LINK_CREATE`, and a program that passes all on.
    const LOAD: libc::c_int = 5;
    const CREATE: libc::c_int = 28;
    const CLASSIFIER: u64 = 3;
    const PROGRAM: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];

    fn bpf(command: libc::c_int, attributes: &[u64]) -> libc::c_long {
        let size = size_of_val(attributes);
        // SAFETY: the attributes are as long as is said, and what they point to lives.
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size) }
    }

    #[test]
    fn a_program_at_an_interface_is_found() {
        let alone = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: this needs root");
            assert_eq!(places(1).count(), 0);
            let license = c"GPL";
            let load = [
                CLASSIFIER | 2 << 32,
                PROGRAM.as_ptr() as u64,
                license.as_ptr() as u64,
                0,
                0,
                0,
            ];
            let program = bpf(LOAD, &load);
            assert!(program >= 0, "{}", std::io::Error::last_os_error());
            let create = [program.cast_unsigned() | 1 << 32, 46, 0, 0];
            if bpf(CREATE, &create) < 0 {
                let error = std::io::Error::last_os_error();
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "before Linux 6.6");
                return;
            }
            assert_eq!(places(1).collect::<Vec<_>>(), ["TCX ingress"]);
        });
        alone.join().expect("a thread");
    }
}
