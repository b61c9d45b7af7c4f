//! Why a module is not loaded, a unit not active, or a part of the firewall not there, in words:
//! what the program answered, and what to do.

use nix::errno::Errno as Name;

use crate::engine::{Errno, Fault};
use crate::resource::{Attribute, Chains, Resource, State, TableContents};
use crate::words::plain_errno;

/// Why a module was not loaded, a unit not started, or a part of the firewall not made;
/// nothing where the resource is of another kind.
pub fn refused(resource: &Resource, fault: &Fault) -> Option<String> {
    let errno = fault.errno;
    match resource {
        Resource::Module(_) => Some(match Name::from_raw(errno.0) {
            Name::ENOENT => "there is no /sbin/modprobe here".to_owned(),
            Name::EIO => format!("modprobe failed; see {}", modprobe_log(resource)),
            Name::ETIME => format!(
                "modprobe did not end in time; see {}",
                modprobe_log(resource)
            ),
            _ => format!("modprobe was not run: {}", manager(errno)),
        }),
        Resource::Unit(_) => {
            let unit = resource_name(resource);
            Some(match Name::from_raw(errno.0) {
                Name::ENOENT => "there is no such unit; install it, then run \
                     `systemctl daemon-reload`"
                    .to_owned(),
                Name::ERFKILL => {
                    format!("the unit is masked; to allow its start run `systemctl unmask {unit}`")
                }
                Name::EINVAL => {
                    "the unit cannot be started by itself (RefuseManualStart=)".to_owned()
                }
                Name::EIO => format!("it failed to start; see `systemctl status {unit}`"),
                Name::ETIME => format!("its start timed out; see `systemctl status {unit}`"),
                Name::ENOLINK => {
                    format!("a unit that it requires failed; see `systemctl status {unit}`")
                }
                Name::ENOEXEC => {
                    format!("its unit file cannot be loaded; see `systemctl status {unit}`")
                }
                Name::EPROTO => format!(
                    "a condition of the unit that must be met is not (Assert*=); see `systemctl \
                     status {unit}`"
                ),
                Name::EBADR => "a unit of this type cannot be started".to_owned(),
                Name::EOPNOTSUPP => "this system does not support units of this type".to_owned(),
                _ => format!("it was not started: {}", manager(errno)),
            })
        }
        Resource::Chain(_) | Resource::Chains(_) | Resource::Iptables(_) => {
            Some(match Name::from_raw(errno.0) {
                Name::EINVAL => answered("iptables-restore refused it", fault),
                Name::EPROTO if matches!(resource, Resource::Iptables(_)) => {
                    answered("iptables cannot remove it alone", fault)
                }
                _ => iptables(fault),
            })
        }
        Resource::Set(_) => Some(match Name::from_raw(errno.0) {
            Name::EADDRINUSE => "the kernel removes no set that is in use; delete the rules and \
                 sets that use it first"
                .to_owned(),
            Name::ENOTUNIQ => "a set with this name and another type or family exists; netguard \
                 replaces only sets whose type is configured"
                .to_owned(),
            Name::EINVAL => answered("ipset refused it", fault),
            _ => ipset(fault),
        }),
        Resource::Nftables(_) => Some(match Name::from_raw(errno.0) {
            Name::ENOTUNIQ => {
                "another table has this name, which netguard leaves alone: delete it, \
                 or name another"
                    .to_owned()
            }
            Name::EOPNOTSUPP => "this kernel (before 5.12) or nft has no tables that their owner \
                 holds"
                .to_owned(),
            Name::ENOTCONN => "only the daemon (`netguard run`) can pin a table".to_owned(),
            Name::EINVAL => answered("nft refused it", fault),
            _ => nft(fault),
        }),
        _ => None,
    }
}

/// Why the state of a unit, a module or a part of the firewall is not known; nothing where
/// the resource is of another kind.
pub fn unreadable(resource: &Resource, fault: &Fault) -> Option<String> {
    let errno = fault.errno;
    match resource {
        Resource::Module(_) => Some(format!(
            "reading the lists of modules failed: {}",
            plain_errno(errno)
        )),
        Resource::Unit(_) => Some(manager(errno)),
        Resource::Chain(_) | Resource::Chains(_) | Resource::Iptables(_) => Some(iptables(fault)),
        Resource::Set(_) => Some(ipset(fault)),
        Resource::Nftables(_) => Some(nft(fault)),
        _ => None,
    }
}

/// What it means that a start succeeded, and the state is still another; nothing where
/// the resource is of another kind.
pub fn without_effect(resource: &Resource, reads: &State) -> Option<String> {
    match resource {
        Resource::Module(_) => Some(
            "modprobe succeeded, and the kernel does not list the module: the name may be an \
             alias, or modprobe.d may have an `install` command for it"
                .to_owned(),
        ),
        Resource::Unit(unit) if is_failed(reads) => Some(format!(
            "systemd started it, and it failed; see `systemctl status {unit}`"
        )),
        Resource::Unit(_) => Some(format!(
            "systemd started it, and it is {reads}; a service that ends needs \
             RemainAfterExit=yes to stay active, and a condition may have kept it from starting"
        )),
        Resource::Chain(_) | Resource::Chains(_) | Resource::Iptables(_) => Some(format!(
            "iptables-restore succeeded, and it is {reads}: another program may have changed \
             the table in between"
        )),
        Resource::Set(_) => Some(format!(
            "ipset succeeded, and the set is {reads}: another program may have changed it in \
             between"
        )),
        Resource::Nftables(_) => Some(format!(
            "nft succeeded, and the table is {reads}: another program may have changed it in \
             between"
        )),
        _ => None,
    }
}

/// What the helper answered that runs iptables.
fn iptables(fault: &Fault) -> String {
    match Name::from_raw(fault.errno.0) {
        Name::ENOPKG => "iptables is not installed".to_owned(),
        Name::EBUSY => answered("another program is at work on the tables", fault),
        Name::EFBIG => format!(
            "the chains are too large to be preserved: their rules take more than {} MiB",
            Chains::LONGEST >> 20
        ),
        Name::EACCES => "iptables must run as root".to_owned(),
        Name::ETIME => "iptables was killed, as it did not end in 10 s".to_owned(),
        Name::ENOTUNIQ => answered("invalid configuration", fault),
        Name::ENOEXEC => answered("iptables refuses the rule", fault),
        Name::EPROTO => answered("they cannot be preserved", fault),
        Name::EPERM => "this needs root, and CAP_SYS_ADMIN to try rules out in an empty network \
             namespace"
            .to_owned(),
        Name::ENOSYS => "how iptables lists the rule is not known without a module that is not \
             loaded; netguard loads none in mode \"observe\""
            .to_owned(),
        _ => helper(fault, "iptables"),
    }
}

/// What the helper answered that runs ipset.
fn ipset(fault: &Fault) -> String {
    match Name::from_raw(fault.errno.0) {
        Name::EFBIG => {
            "the set is too large to be guarded: it has more than 65536 members".to_owned()
        }
        Name::ENOPKG => "ipset is not installed".to_owned(),
        Name::ETIME => "ipset was killed, as it did not end in 10 s".to_owned(),
        _ => helper(fault, "ipset"),
    }
}

/// What the helper answered that runs nft.
fn nft(fault: &Fault) -> String {
    match Name::from_raw(fault.errno.0) {
        Name::EPERM => "a process holds the table with the flag `owner`: no other program can \
             change it"
            .to_owned(),
        Name::EMEDIUMTYPE => {
            "iptables' table; guard it with [[iptables]] chain = ..., preserve = true".to_owned()
        }
        Name::EFBIG => format!(
            "the table is too large to be preserved: nft prints more than {} MiB of it",
            TableContents::LONGEST >> 20
        ),
        Name::ENXIO => {
            "a rule or an element of the table is for an interface that is gone".to_owned()
        }
        Name::EPROTO => answered("what nft prints of the table cannot be read back", fault),
        Name::ENOPKG => "nft is not installed".to_owned(),
        Name::ETIME => "nft was killed, as it did not end in 10 s".to_owned(),
        _ => helper(fault, "nft"),
    }
}

fn helper(fault: &Fault, program: &str) -> String {
    match Name::from_raw(fault.errno.0) {
        Name::ENOENT | Name::ECONNREFUSED => "the firewall helper cannot be reached; see \
             `systemctl status netguard-firewall.socket`"
            .to_owned(),
        Name::ECONNRESET => "the firewall helper ended".to_owned(),
        Name::ETIMEDOUT => match &fault.why {
            Some(why) => why.to_string(),
            None => "the firewall helper did not answer".to_owned(),
        },
        Name::EINPROGRESS => format!("{program} has not answered yet"),
        _ => answered(&format!("{program} failed"), fault),
    }
}

/// This, and what the program printed, where that is known.
fn answered(what: &str, fault: &Fault) -> String {
    match &fault.why {
        Some(why) => format!("{what}: {why}"),
        None => format!("{what}: {}", plain_errno(fault.errno)),
    }
}

fn is_failed(unit: &State) -> bool {
    unit.attribute(Attribute::State).as_str() == "failed"
}

/// What systemd's manager answered to any call.
fn manager(errno: Errno) -> String {
    match Name::from_raw(errno.0) {
        Name::ENOTCONN | Name::ECONNRESET => "systemd cannot be reached".to_owned(),
        Name::EACCES => "systemd refuses it to this user; run netguard as root".to_owned(),
        // systemd says more than its answer.
        _ => format!("{}; see `journalctl -b _PID=1`", plain_errno(errno)),
    }
}

/// The command that shows what modprobe printed, and what systemd reports of it.
fn modprobe_log(module: &Resource) -> String {
    format!(
        "`journalctl -u netguard-modprobe-{}`",
        resource_name(module)
    )
}

fn resource_name(resource: &Resource) -> &str {
    match resource {
        Resource::Module(module) => module.as_str(),
        Resource::Unit(unit) => unit.as_str(),
        _ => "",
    }
}
