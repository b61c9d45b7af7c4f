//! A root with the real programs in namespaces of this thread: nothing that they
//! do reaches the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::generate::{EXISTING, NAMES, PLAIN};

/// A root with the programs of this machine.
pub struct Machine {
    /// Its `/`.
    pub root: PathBuf,
}

const NONE: Option<&str> = None;

fn bind(from: &Path, to: &Path, flags: MsFlags) {
    let bound = mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE).and_then(|()| {
        mount(
            NONE,
            to,
            NONE,
            MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags,
            NONE,
        )
    });
    bound.unwrap_or_else(|error| panic!("{} on {}: {error}", from.display(), to.display()));
}

impl Machine {
    /// Moves this thread into namespaces of its own and makes the root.
    pub fn new(name: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .expect("namespaces: this test needs root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NONE, "/", NONE, private, NONE).expect("a private tree");
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&root).expect("a folder");
        mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::empty(), NONE).expect("a tmpfs");
        for folder in ["usr", "dev", "proc", "stage/usr", "stage/local"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).expect("a link");
        }
        bind(Path::new("/usr"), &root.join("usr"), MsFlags::MS_RDONLY);
        fs::write(root.join("dev/null"), "").expect("a file");
        bind(
            Path::new("/dev/null"),
            &root.join("dev/null"),
            MsFlags::empty(),
        );
        mount(
            Some("proc"),
            &root.join("proc"),
            Some("proc"),
            MsFlags::empty(),
            NONE,
        )
        .expect("proc");
        // Keys of the whole machine are not to be written.
        let sys = root.join("proc/sys");
        let net = sys.join("net");
        bind(&net, &net, MsFlags::empty());
        let all = fs::read_dir(&sys).expect("a folder");
        for folder in all
            .map(|it| it.expect("an entry").path())
            .filter(|it| !it.ends_with("net"))
        {
            bind(&folder, &folder, MsFlags::MS_RDONLY);
        }
        bind(
            &root.join("stage/usr"),
            &root.join("usr/lib/sysctl.d"),
            MsFlags::empty(),
        );
        bind(
            &root.join("stage/local"),
            &root.join("usr/local"),
            MsFlags::empty(),
        );
        let machine = Machine { root };
        machine.links("link set lo up\nlink add eth0 type veth peer name lxc7\nlink add cali1 type veth peer name eth0.100\nlink add br-x type veth peer name x=y\n");
        machine
    }

    /// Empties the folders that a tree is made in.
    pub fn clear(&self) {
        for folder in ["etc", "run"] {
            let _ = fs::remove_dir_all(self.root.join(folder));
        }
        for folder in ["stage/usr", "stage/local"] {
            for entry in fs::read_dir(self.root.join(folder)).expect("a folder") {
                let path = entry.expect("an entry").path();
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            }
        }
        for folder in [
            "etc/netguard",
            "etc/sysctl.d",
            "run/sysctl.d",
            "usr/local/lib/sysctl.d",
        ] {
            fs::create_dir_all(self.root.join(folder)).expect("a folder");
        }
    }

    /// Runs lines of ip(8).
    pub fn links(&self, batch: &str) {
        let ip = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn();
        let mut ip = ip.expect("ip runs");
        let mut stdin = ip.stdin.take().expect("a pipe");
        stdin.write_all(batch.as_bytes()).expect("a line");
        drop(stdin);
        assert!(ip.wait().expect("ip ends").success(), "{batch}");
    }

    /// Makes interfaces, in pairs.
    pub fn appear(&self, names: &[&str]) {
        for pair in names.chunks(2) {
            let peer = pair.get(1).unwrap_or(&"the-peer");
            let ip = Command::new("ip")
                .args(["link", "add", "name", pair[0], "group", "7", "type", "veth"])
                .args(["peer", "name", peer])
                .status();
            assert!(ip.expect("ip runs").success(), "{pair:?}");
        }
    }

    /// Removes all that have appeared, together: the kernel waits for each removal.
    pub fn disappear(&self) {
        self.links("link del group 7\n");
    }

    /// Runs one of the real programs in the root.
    pub fn run(&self, program: &str, arguments: &[String]) {
        let run = Command::new("chroot")
            .arg(&self.root)
            .arg(program)
            .args(arguments)
            .env("SYSTEMD_LOG_TARGET", "null")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        run.expect("chroot runs");
    }

    /// What udev runs for a new interface (99-systemd.rules).
    pub fn udev(&self, interface: &str) {
        let folders = ["ipv4/conf", "ipv4/neigh", "ipv6/conf", "ipv6/neigh"];
        let prefix = |folder| format!("--prefix=/net/{folder}/{interface}");
        self.run("/lib/systemd/systemd-sysctl", &folders.map(prefix));
    }

    /// The values of all keys that this test knows, by their paths.
    pub fn values(&self) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        let mut paths: Vec<String> = PLAIN.iter().map(|(path, _)| (*path).to_owned()).collect();
        for (folder, name) in NAMES {
            let interfaces = fs::read_dir(format!("/proc/sys/{folder}")).expect("a folder");
            paths.extend(interfaces.map(|it| {
                let interface = it.expect("an entry").file_name();
                format!("{folder}/{}/{name}", interface.to_str().expect("a name"))
            }));
        }
        for path in paths
            .into_iter()
            .filter(|path| !path.ends_with("all/forwarding") || path.contains("ipv6"))
        {
            if let Ok(text) = fs::read_to_string(format!("/proc/sys/{path}")) {
                values.insert(path, text);
            }
        }
        values
    }

    /// Writes a key.
    pub fn set(&self, path: &str, value: &str) {
        fs::write(format!("/proc/sys/{path}"), value)
            .unwrap_or_else(|error| panic!("{path} = {value}: {error}"));
    }
}

/// The interface, or what stands in its place, of a key of one.
pub fn interface(path: &str) -> Option<&str> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        [_, _, _, target, _] => Some(target),
        _ => None,
    }
}

/// Whether there is such an interface throughout.
pub fn is_present(name: &str) -> bool {
    ["all", "default", "lo"].contains(&name) || EXISTING.contains(&name)
}

/// Whether a key is of an interface that exists throughout.
pub fn is_existing(path: &str) -> bool {
    interface(path).is_none_or(is_present)
}
