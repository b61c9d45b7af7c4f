//! CentOS 7's kernel 3.10, as far as it lacks something.
//!
//! A seccomp filter on the test's thread, which everything that it starts
//! inherits: the whole container with its systemd, and netguard in it.

use std::collections::BTreeMap;

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OpenHow, openat2};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// And for the guard alone: the C library of this process would abort where
/// only its later threads are without it.
pub const DROP_IN: &str = "[Service]\nSystemCallFilter=~rseq:ENOSYS\n";

/// System calls that are not there: measured on 3.10.0-1062, and their younger
/// relatives.
const CALLS: [libc::c_long; 35] = [
    libc::SYS_bpf,
    libc::SYS_clone3,
    libc::SYS_close_range,
    libc::SYS_epoll_pwait2,
    libc::SYS_execveat,
    libc::SYS_faccessat2,
    libc::SYS_fchmodat2,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_futex_waitv,
    // io_pgetevents, on x86_64
    333,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_memfd_secret,
    libc::SYS_mlock2,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_openat2,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_preadv2,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pwritev2,
    libc::SYS_quotactl_fd,
    libc::SYS_statx,
    libc::SYS_userfaultfd,
];

/// Options of netlink sockets that are not there.
const NETLINK_OPTIONS: [libc::c_int; 4] = [
    libc::NETLINK_LIST_MEMBERSHIPS,
    libc::NETLINK_CAP_ACK,
    libc::NETLINK_EXT_ACK,
    // NETLINK_GET_STRICT_CHK
    12,
];

/// How many filters [`enter`] installs.
const FILTERS: u32 = 3;

/// Puts this thread, and what it starts from now on, on such a kernel.
pub fn enter() {
    let all = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    install(all, libc::ENOSYS);

    let options: Vec<_> = NETLINK_OPTIONS
        .iter()
        .map(|option| rule(&[(1, equal(libc::SOL_NETLINK)), (2, equal(*option))]))
        .collect();
    let calls = [libc::SYS_setsockopt, libc::SYS_getsockopt];
    let refused = calls.map(|call| (call, options.clone()));
    install(refused.into(), libc::ENOPROTOOPT);

    // A timer on the time since boot, a memfd that can be sealed.
    let sealing = u64::from(libc::MFD_ALLOW_SEALING);
    let sealable = (SeccompCmpOp::MaskedEq(sealing), sealing);
    let refused = [
        (
            libc::SYS_timerfd_create,
            vec![rule(&[(0, equal(libc::CLOCK_BOOTTIME))])],
        ),
        (libc::SYS_memfd_create, vec![rule(&[(1, sealable)])]),
        (
            libc::SYS_fcntl,
            vec![rule(&[(1, equal(libc::F_ADD_SEALS))])],
        ),
    ];
    install(refused.into(), libc::EINVAL);

    assert_lacking();
}

/// Asserts that a process is under the filters, beside those of its unit.
pub fn assert_holds_for(pid: u32) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let filters = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp_filters:"))
        .and_then(|number| number.trim().parse::<u32>().ok())
        .expect("a number of filters");
    assert!(filters > FILTERS, "{filters} filters");
}

/// The filters work: one call of each kind.
fn assert_lacking() {
    let opened = openat2(AT_FDCWD, "/", OpenHow::new());
    assert_eq!(opened.err(), Some(Errno::ENOSYS));
    let socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
    let refused = socket.set_ext_ack(true).expect_err("an option too new");
    assert_eq!(refused.raw_os_error(), Some(libc::ENOPROTOOPT));
}

/// Has calls that a rule is for fail; all of those that have none.
pub fn install(rules: BTreeMap<libc::c_long, Vec<SeccompRule>>, errno: libc::c_int) {
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, TargetArch::x86_64);
    let program: BpfProgram = filter
        .and_then(TryInto::try_into)
        .expect("a filter that the kernel takes");
    apply_filter(&program).expect("a filter in force");
}

/// All of the conditions on a call's arguments, by their number.
pub fn rule(conditions: &[(u8, (SeccompCmpOp, u64))]) -> SeccompRule {
    let condition = |(argument, (operator, value)): &(u8, (SeccompCmpOp, u64))| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
    };
    let conditions: Result<Vec<_>, _> = conditions.iter().map(condition).collect();
    conditions
        .and_then(SeccompRule::new)
        .expect("a condition on an argument")
}

pub fn equal(value: libc::c_int) -> (SeccompCmpOp, u64) {
    (SeccompCmpOp::Eq, u64::from(value.unsigned_abs()))
}
