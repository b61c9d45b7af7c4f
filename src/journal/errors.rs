//! Errors in words: those of the system, and of a configuration.

use nix::errno::Errno as Name;

use crate::engine::Errno;
use crate::sys::capabilities::{Capability, denial};
use crate::words::{Count, line, plain_errno};

/// The first error of a configuration's diagnostics, its place before it, and
/// how many others there are. They look as a compiler's do:
///
/// ```text
/// error: unknown field `sysctls`
///   --> /etc/netguard/netguard.toml:3:1
/// ```
pub fn first_error(diagnostics: &str) -> String {
    const ERROR: &str = "error: ";
    let mut lines = diagnostics
        .lines()
        .skip_while(|line| !line.starts_with(ERROR));
    let Some(first) = lines.next() else {
        let first = diagnostics.lines().find(|line| !line.trim().is_empty());
        return line(first.unwrap_or("no reason given"));
    };
    let mut text = line(&first[ERROR.len()..]);
    let mut rest = lines.clone();
    if let Some(place) = rest
        .next()
        .and_then(|next| next.trim_start().strip_prefix("--> "))
    {
        text = format!("{}: {text}", line(place));
    }
    match lines.filter(|line| line.starts_with(ERROR)).count() {
        0 => text,
        more => format!("{text}, and {}", Count(more, "more error")),
    }
}

/// Why reading or writing below `/proc/sys` failed, and what to do.
pub fn why(errno: Errno) -> String {
    let known = match Name::from_raw(errno.0) {
        Name::EROFS => "/proc/sys is mounted read-only here; run netguard where it is writable",
        // The kernel checks a file's mode for root too (proc_sys_permission).
        Name::EACCES | Name::EPERM => {
            return format!("{}: {}", plain_errno(errno), denial(&Capability::OF_KEYS));
        }
        Name::EINVAL | Name::ERANGE | Name::EDOM => {
            "the kernel does not accept this value for this key; correct the requirement"
        }
        Name::EBUSY => {
            "the kernel does not accept it at the moment; netguard retries with the next full scan"
        }
        // The key exists: its value names what the kernel does not have.
        Name::ENOENT => {
            "the kernel has nothing of this name; correct the value, or load the module that \
             provides it"
        }
        Name::EMFILE | Name::ENFILE => "too many open files; raise LimitNOFILE",
        _ => return plain_errno(errno),
    };
    known.to_owned()
}
