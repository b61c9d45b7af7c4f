//! A root with the real programs in namespaces of this thread: nothing that they
//! do reaches the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::chroot;

use super::generate::{EXISTING, LATER, NAMES, PLAIN};
use super::wide;

/// The namespaces and the root of this thread.
pub struct Machine {
    /// The keys of interfaces, as folder and name, that a tree is about.
    pub about: Vec<(&'static str, &'static str)>,
    /// The other keys, each with two values.
    pub plain: &'static [(&'static str, [&'static str; 2])],
    /// Interfaces that appear after the boot.
    pub later: [&'static str; 2],
    /// What somebody has set since the boot and nothing guards.
    pub start: &'static str,
    /// The kind of the interfaces, one that has keys only if its MTU is large.
    kind: &'static str,
    /// Their names.
    made: Vec<String>,
}

const NONE: Option<&str> = None;

fn mount_new(kind: &str, to: &Path) {
    mount(Some(kind), to, Some(kind), MsFlags::empty(), NONE).expect(kind);
}

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

/// The real programs, and the one that is compared with them.
const SYSTEMD_SYSCTL: &str = "/lib/systemd/systemd-sysctl";
const SYSCTL: &str = "/sbin/sysctl";
const NETGUARD: &str = "/netguard";
const IP: &str = "/sbin/ip";

impl Machine {
    /// Moves this thread into namespaces and a root of its own.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .expect("namespaces: this test needs root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NONE, "/", NONE, private, NONE).expect("a private tree");
        let root = &Path::new(env!("CARGO_TARGET_TMPDIR")).join("differential");
        fs::create_dir_all(root).expect("a folder");
        mount_new("tmpfs", root);
        for link in ["bin", "sbin", "lib", "lib64"] {
            fs::create_dir_all(root.join("usr").join(link)).expect("a folder");
            symlink(format!("usr/{link}"), root.join(link)).expect("a link");
        }
        for folder in ["dev", "proc", "sys", "usr/lib/sysctl.d"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        let here = Path::new("/");
        let tools = tools().unwrap_or(here.to_owned());
        for program in [SYSTEMD_SYSCTL, SYSCTL] {
            install(Path::new(program), &tools, root, program);
        }
        install(Path::new(IP), here, root, IP);
        install(
            Path::new(env!("CARGO_BIN_EXE_netguard")),
            here,
            root,
            NETGUARD,
        );
        versions(&tools, root);
        let null = root.join("dev/null");
        fs::write(&null, "").expect("a file");
        bind(Path::new("/dev/null"), &null, MsFlags::empty());
        mount_new("proc", &root.join("proc"));
        mount_new("sysfs", &root.join("sys"));
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
        chroot(root).expect("a root");
        std::env::set_current_dir("/").expect("a folder");
        let kinds = ["dummy", "ifb"];
        let is_known = |kind: &&str| {
            let arguments = ["link", "add", "name", "the-first", "type", kind];
            Command::new(IP)
                .args(arguments)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|it| it.success())
        };
        let mut machine = Machine {
            about: Vec::new(),
            plain: &PLAIN,
            start: "0",
            later: LATER[0],
            kind: kinds
                .into_iter()
                .find(is_known)
                .expect("dummy or ifb interfaces"),
            made: vec!["the-first".to_owned()],
        };
        set_mtu("the-first", "60");
        let names: BTreeSet<_> = kept().collect();
        names.iter().for_each(|name| machine.make(name));
        machine.appear(&EXISTING);
        // From now on no interface follows what `default` is.
        machine.about = [&NAMES[..], &wide::NAMES].concat();
        for (path, value) in machine.values() {
            fs::write(format!("/proc/sys/{path}"), value).expect("a key");
        }
        machine
    }

    /// Makes an interface that has no keys yet.
    fn make(&mut self, name: &str) {
        ip(&["link", "add", "name", name, "type", self.kind]);
        set_mtu(name, "60");
        self.made.push(name.to_owned());
    }

    /// Empties the folders that a tree is made in.
    pub fn clear(&self) {
        let mut folders = ["/etc", "/run", "/usr/local"].map(PathBuf::from).to_vec();
        folders.extend(names(Path::new("/usr/lib/sysctl.d")));
        for path in folders {
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        for folder in [
            "/etc/netguard",
            "/etc/sysctl.d",
            "/run/sysctl.d",
            "/usr/local/lib/sysctl.d",
        ] {
            fs::create_dir_all(folder).expect("a folder");
        }
    }

    /// Gives interfaces their keys, which begin with what `default` is: the
    /// kernel makes them again for one whose MTU is large enough again.
    pub fn appear(&mut self, names: &[&str]) {
        for name in names {
            if self.made.iter().any(|it| it == name) {
                continue;
            }
            let is_kept = |it: &str| names.contains(&it) || kept().any(|kept| kept == it);
            let spare = self.made.iter_mut().find(|it| !is_kept(it));
            match spare {
                Some(spare) => {
                    ip(&["link", "set", "dev", spare, "name", name]);
                    *spare = (*name).to_owned();
                }
                None => self.make(name),
            }
        }
        for name in names {
            set_mtu(name, "1500");
        }
    }

    /// Takes their keys.
    pub fn disappear(&self, names: &[&str]) {
        for name in names {
            set_mtu(name, "60");
        }
    }

    /// Has systemd-sysctl apply the files as at boot.
    pub fn boot(&self) {
        run(SYSTEMD_SYSCTL, &[]);
    }

    /// Has procps apply the files.
    pub fn sysctl_system(&self) {
        run(SYSCTL, &["--system"]);
    }

    /// What the guard prints of the files.
    pub fn netguard(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(NETGUARD)
            .args(["--root", "/"])
            .args(arguments)
            .output()
            .expect("netguard runs");
        assert!(!output.stdout.is_empty(), "{output:?}");
        output.stdout
    }

    /// What udev runs for a new interface (99-systemd.rules).
    pub fn udev(&self, interface: &str) {
        let folders = ["ipv4/conf", "ipv4/neigh", "ipv6/conf", "ipv6/neigh"];
        let prefixes = folders.map(|folder| format!("--prefix=/net/{folder}/{interface}"));
        run(SYSTEMD_SYSCTL, &prefixes.each_ref().map(String::as_str));
    }

    /// The values of all keys that a tree is about, by their paths.
    pub fn values(&self) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        let mut paths: Vec<String> = self
            .plain
            .iter()
            .map(|(path, _)| (*path).to_owned())
            .collect();
        for (folder, name) in &self.about {
            let interfaces = fs::read_dir(format!("/proc/sys/{folder}")).expect("a folder");
            paths.extend(interfaces.map(|it| {
                let interface = it.expect("an entry").file_name();
                format!("{folder}/{}/{name}", interface.to_str().expect("a name"))
            }));
        }
        for path in paths
            .into_iter()
            .filter(|path| !path.ends_with("/all/forwarding") || path.contains("ipv6"))
        {
            if let Ok(text) = fs::read_to_string(format!("/proc/sys/{path}")) {
                values.insert(path, text);
            }
        }
        values
    }

    /// Has a key at a value.
    pub fn set(&self, path: &str, value: &str) {
        let file = format!("/proc/sys/{path}");
        let now = fs::read_to_string(&file);
        if now.is_ok_and(|it| it.trim_end() == value) {
            return;
        }
        fs::write(file, value).unwrap_or_else(|error| panic!("{path} = {value}: {error}"));
    }
}

/// The interfaces of all trees, which are made once.
fn kept() -> impl Iterator<Item = &'static str> {
    let later = [LATER.as_flattened(), wide::LATER.as_flattened()];
    EXISTING.iter().chain(later.into_iter().flatten()).copied()
}

/// Runs one of the real programs.
fn run(program: &str, arguments: &[&str]) {
    let run = Command::new(program)
        .args(arguments)
        .env("SYSTEMD_LOG_TARGET", "null")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    run.expect(program);
}

/// The folder of other versions of the programs, with paths as in a root.
fn tools() -> Option<PathBuf> {
    std::env::var_os("NETGUARD_TOOLS").map(PathBuf::from)
}

/// Copies a program with what it needs, from a root.
fn install(program: &Path, from: &Path, root: &Path, to: &str) {
    let at = from.join(program.strip_prefix("/").unwrap_or(program));
    let libraries = folders(from);
    let libraries = std::env::join_paths(&libraries).expect("no colon in a path");
    let mut ldd = Command::new("ldd");
    if from != Path::new("/") {
        ldd.env("LD_LIBRARY_PATH", libraries);
    }
    let ldd = ldd.arg(&at).output().expect("ldd runs");
    let text = String::from_utf8(ldd.stdout).expect("a text");
    assert!(!text.contains("not found"), "{}: {text}", at.display());
    let libraries = text.split_whitespace().filter(|it| it.starts_with('/'));
    for library in libraries {
        let library = Path::new(library);
        let to = library.strip_prefix(from).unwrap_or(library);
        copy(
            library,
            root,
            &format!("/{}", to.display()).replace("//", "/"),
        );
    }
    copy(&at, root, to);
}

/// Copies a file, with the name that it has in truth.
fn copy(from: &Path, root: &Path, to: &str) {
    let real = from.canonicalize().expect("a file");
    let to = root.join(&to[1..]);
    let folder = to.parent().expect("a folder");
    fs::create_dir_all(folder).expect("a folder");
    fs::copy(&real, &to).expect("a file");
    let named = folder.join(real.file_name().expect("a name"));
    if named != to {
        fs::write(named, "").expect("a file");
    }
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).into_iter().flatten();
    all.map(|it| it.expect("an entry").path()).collect()
}

/// The folders of libraries in a root: those of machines, and systemd's.
fn folders(root: &Path) -> Vec<PathBuf> {
    let all = ["usr/lib", "lib"].map(|it| names(&root.join(it)));
    let all = all.into_iter().flatten();
    let is_one = |it: &PathBuf| {
        let name = it.file_name().and_then(|it| it.to_str()).unwrap_or("");
        it.is_dir() && (name.contains("-linux-") || name == "systemd")
    };
    all.filter(is_one).collect()
}

/// Copies the names of the libraries that show the versions that are installed in a root.
fn versions(from: &Path, root: &Path) {
    for path in folders(from).iter().flat_map(|folder| names(folder)) {
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or("");
        let tells = ["libproc", "libsystemd"]
            .iter()
            .any(|it| name.starts_with(it));
        let copy = root.join(path.strip_prefix(from).expect("a path"));
        if tells && name.contains(".so") && !copy.exists() {
            fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
            fs::write(copy, "").expect("a file");
        }
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new(IP).args(arguments).status();
    assert!(status.expect("ip runs").success(), "{arguments:?}");
}

fn set_mtu(name: &str, mtu: &str) {
    let path = format!("/sys/class/net/{name}/mtu");
    fs::write(&path, mtu).unwrap_or_else(|error| panic!("{path} = {mtu}: {error}"));
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
