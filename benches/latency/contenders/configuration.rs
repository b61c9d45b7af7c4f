//! The contenders' configurations.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, getrlimit};

use super::own_file;
use crate::harness::Outcome;

/// netguard with one invariant.
pub const ONE: &str = "[sysctl]\n\"net.ipv4.ip_forward\" = 1\n";
/// netguard with the shipped profiles of a Calico node.
pub const PROFILES: &str = "profiles = [\"kubernetes\", \"calico\"]\n";
/// The previous netguard with its own.
pub const PREVIOUS_PROFILES: &str = "profiles = [\"previous-kubernetes\", \"previous-calico\"]\n";

/// Writes a configuration of netguard and returns its path.
pub fn write(name: &str, text: &str) -> Outcome<PathBuf> {
    let path = PathBuf::from(own_file(&format!("{name}.toml")));
    fs::write(&path, text)?;
    Ok(path)
}

/// ip_forward and four values of each `cali*` and `peer*` interface, but no
/// more values than may be held; with how many that are.
pub fn four_per_interface(sweep: &str, interfaces: usize) -> (String, usize) {
    let mut text = format!("[guard]\nsweep = \"{sweep}\"\n\n{ONE}");
    let mut values = 0;
    // Any value that the kernel takes holds: a sweep reads, and restores nothing.
    let names = [
        ("rp_filter", "[0, 1, 2]"),
        ("send_redirects", "[0, 1]"),
        ("accept_source_route", "[0, 1]"),
        ("log_martians", "[0, 1]"),
    ];
    for (name, any) in names {
        for prefix in ["cali", "peer"] {
            if values + interfaces / 2 <= most_values() {
                values += interfaces / 2;
                text.push_str(&format!("\"net.ipv4.conf.{prefix}*.{name}\" = {any}\n"));
            }
        }
    }
    (text, values)
}

/// How many values netguard can hold here beside all else: a descriptor each.
pub fn most_values() -> usize {
    const ELSE: u64 = 200;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    usize::try_from(limit.saturating_sub(ELSE)).unwrap_or(usize::MAX)
}

/// ip_forward and `count` values of each `cali*` and `peer*` interface, each
/// kept as it is on the interface `like`.
pub fn many_per_interface(sweep: &str, count: usize, like: &str) -> Outcome<String> {
    let mut text = format!("[guard]\nsweep = \"{sweep}\"\n\n{ONE}");
    let mut left = count;
    let folders = [
        "net/ipv4/conf",
        "net/ipv6/conf",
        "net/ipv4/neigh",
        "net/ipv6/neigh",
    ];
    for folder in folders {
        let mut names = Vec::new();
        for entry in fs::read_dir(Path::new("/proc/sys").join(folder).join(like))? {
            names.push(entry?);
        }
        names.sort_by_key(fs::DirEntry::file_name);
        for entry in names {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let value = fs::read_to_string(entry.path()).unwrap_or_default();
            // What follows ip_forward would be restored with it, and is not
            // what a sweep is about.
            let follows = matches!(&*name, "forwarding" | "accept_redirects" | "mtu");
            let Ok(value) = value.trim().parse::<i64>() else {
                continue;
            };
            if left > 0 && !follows && entry.metadata()?.permissions().mode() & 0o200 != 0 {
                left -= 1;
                for prefix in ["cali", "peer"] {
                    writeln!(text, "\"{folder}/{prefix}*/{name}\" = {value}")?;
                }
            }
        }
    }
    match left {
        0 => Ok(text),
        _ => Err(format!("an interface has {left} values less than wanted").into()),
    }
}

/// monit, every second, with the check that its manual has for a value.
pub fn monit() -> Outcome<String> {
    let folder = own_file("monit");
    fs::create_dir_all(&folder)?;
    let look = format!("{folder}/look");
    fs::write(
        &look,
        "#!/bin/sh\nread -r v </proc/sys/net/ipv4/ip_forward && [ \"$v\" = 1 ]\n",
    )?;
    fs::set_permissions(&look, fs::Permissions::from_mode(0o755))?;
    let file = format!("{folder}/monitrc");
    fs::write(
        &file,
        format!(
            "set daemon 1\nset pidfile {folder}/pid\nset idfile {folder}/id\nset statefile {folder}/state\n\
             check program ip_forward with path {look}\n\
             \tif status != 0 then exec \"/sbin/sysctl -qw net.ipv4.ip_forward=1\" repeat every 1 cycles\n"
        ),
    )?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// keepalived with a static route. It reads its other files in /run.
pub fn keepalived() -> Outcome<String> {
    let file = own_file("keepalived.conf");
    fs::write(
        &file,
        "global_defs {\n    router_id latency\n}\n\
         static_routes {\n    default via 10.1.0.254 dev eth0\n}\n",
    )?;
    Ok(file)
}

/// tuned, with folders of its own over the host's /etc/tuned and /var/log.
pub fn tuned() -> Outcome<()> {
    let none = None::<&str>;
    for folder in ["/etc/tuned", "/var/log"] {
        let marker = Path::new(folder).join("latency");
        if !marker.exists() {
            mount(Some("tuned"), folder, Some("tmpfs"), MsFlags::empty(), none)?;
            fs::create_dir_all(marker)?;
        }
    }
    fs::create_dir_all("/var/log/tuned")?;
    fs::write(
        "/etc/tuned/tuned-main.conf",
        "daemon = 1\ndynamic_tuning = 0\nreapply_sysctl = 1\n",
    )?;
    let profile = "[main]\nsummary=latency\n\n[sysctl]\nnet.ipv4.ip_forward=1\n";
    fs::write("/etc/tuned/latency/tuned.conf", profile)?;
    Ok(())
}
