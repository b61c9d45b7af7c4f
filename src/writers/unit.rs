//! The systemd unit behind a control group.

/// The ends of the names of units that have processes.
const KINDS: [&str; 7] = [
    ".service",
    ".scope",
    ".socket",
    ".mount",
    ".swap",
    ".automount",
    ".timer",
];

/// The unit of a control group, and that of the user's own systemd in it.
///
/// systemd puts units into slices, `/system.slice/network.service`, and a user's
/// units below `user@UID.service`; what a unit makes within itself is its own
/// business (systemd's cg_path_get_unit).
pub fn units(cgroup: &str) -> (Option<&str>, Option<&str>) {
    let mut names = cgroup.split('/').filter(|name| !name.is_empty()).peekable();
    let unit = next_unit(&mut names);
    let of_user = unit.is_some_and(|unit| unit.starts_with("user@"));
    let user_unit = of_user.then(|| next_unit(&mut names)).flatten();
    (unit, user_unit)
}

/// Skips slices, and takes the name after them where it is a unit's.
fn next_unit<'a>(names: &mut impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = names.find(|name| !name.ends_with(".slice"))?;
    // systemd escapes what might be taken for a file of the kernel's.
    let name = name.strip_prefix('_').unwrap_or(name);
    let is_unit = KINDS
        .iter()
        .any(|kind| name.len() > kind.len() && name.ends_with(kind));
    is_unit.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_as_systemd_finds_them() {
        for (cgroup, unit, user_unit) in [
            (
                "/system.slice/network.service",
                Some("network.service"),
                None,
            ),
            (
                "/system.slice/a.service/payload/b.scope",
                Some("a.service"),
                None,
            ),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                Some("getty@tty1.service"),
                None,
            ),
            (
                "/user.slice/user-1000.slice/session-2.scope",
                Some("session-2.scope"),
                None,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/tool.service",
                Some("user@1000.service"),
                Some("tool.service"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/init.scope",
                Some("user@1000.service"),
                Some("init.scope"),
            ),
            (
                "/kubepods.slice/kubepods-pod1.slice/cri-containerd-12.scope",
                Some("cri-containerd-12.scope"),
                None,
            ),
            ("/init.scope", Some("init.scope"), None),
            ("/_cgroup.service", Some("cgroup.service"), None),
            ("/docker/12ab", None, None),
            ("/.service", None, None),
            ("/../../x.service", None, None),
            ("/", None, None),
        ] {
            assert_eq!(units(cgroup), (unit, user_unit), "{cgroup}");
        }
    }
}
