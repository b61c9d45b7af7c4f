//! Which kernel modules there are, by what the kernel and the node's files show.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::resource::Module;
use crate::root::Root;

/// No more of a file is read: /proc/modules and `modules.builtin` take some 10 kB, and
/// `modules.dep` several 100 kB with a kernel of a distribution.
const LONGEST: u64 = 4 << 20;

/// The lists of a kernel's modules, below /lib/modules/RELEASE.
const LOADABLE: &str = "modules.dep";
const BUILT_IN: &str = "modules.builtin";

/// The modules of the node below a root.
#[derive(Debug)]
pub struct Modules(Root);

impl Modules {
    /// Of the node below this root.
    pub fn new(root: &Path) -> Modules {
        Modules(Root::new(root))
    }

    /// Those of this machine.
    pub fn here() -> Modules {
        Modules::new(Path::new("/"))
    }

    /// Whether the kernel may load modules.
    pub fn may_be_loaded(&self) -> bool {
        self.0.real(Path::new("/proc/modules")).exists()
    }

    /// Whether what a module is for can be used without having it loaded.
    pub fn may_use(&self, name: &str) -> bool {
        !self.may_be_loaded()
            || Module::parse(name).is_some_and(|module| {
                self.has_folder(&module) || matches!(self.state(&module), Ok(Some("loaded")))
            })
    }

    /// The release of the kernel.
    ///
    /// # Errors
    /// The system's.
    pub fn release(&self) -> io::Result<String> {
        let release = self.text(Path::new("/proc/sys/kernel/osrelease"))?;
        Ok(release.trim().to_owned())
    }

    /// Those that there are for the kernel; nothing where they are not known.
    pub fn all(&self) -> Option<Vec<Module>> {
        let loadable = self.list(LOADABLE).ok().filter(|it| !it.is_empty())?;
        let built_in = self.list(BUILT_IN).unwrap_or_default();
        let lines = loadable.lines().chain(built_in.lines());
        Some(lines.filter_map(Module::listed).collect())
    }

    /// The file that lists those that can be loaded.
    pub fn loadable(&self) -> Option<PathBuf> {
        Some(self.folder().ok()?.join(LOADABLE))
    }

    /// The names of those that are loaded, as far as they are known.
    pub fn loaded(&self) -> Vec<String> {
        let list = self.text(Path::new("/proc/modules")).unwrap_or_default();
        let names = list.lines().filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect()
    }

    /// The state of a module, where it has one. One that is built in is loaded: it has a
    /// folder below /sys/module, if it has parameters, and stands in a list in any case.
    ///
    /// # Errors
    /// The system's.
    pub fn state(&self, module: &Module) -> io::Result<Option<&'static str>> {
        // A kernel without loadable modules has no list of them.
        let listed = listed_state(&self.text(Path::new("/proc/modules"))?, module);
        if listed.is_some() {
            return Ok(listed);
        }
        let is_built_in = self.has_folder(module) || self.is_built_in(module)?;
        Ok(is_built_in.then_some("loaded"))
    }

    fn has_folder(&self, module: &Module) -> bool {
        let folder = Path::new("/sys/module").join(module.as_str());
        let folder = self.0.resolve(&folder, |_| {});
        folder.is_ok_and(|it| self.0.real(&it).is_dir())
    }

    fn is_built_in(&self, module: &Module) -> io::Result<bool> {
        let list = self.list(BUILT_IN)?;
        let mut lines = list.lines();
        Ok(lines.any(|line| Module::listed(line).as_ref() == Some(module)))
    }

    fn list(&self, name: &str) -> io::Result<String> {
        self.text(&self.folder()?.join(name))
    }

    fn folder(&self) -> io::Result<PathBuf> {
        Ok(PathBuf::from("/lib/modules").join(self.release()?))
    }

    /// What a file contains; nothing where there is none.
    fn text(&self, path: &Path) -> io::Result<String> {
        let read = || -> io::Result<String> {
            let path = self.0.resolve(path, |_| {})?;
            let mut text = Vec::new();
            if let Some(file) = self.0.open(&path)? {
                file.take(LONGEST).read_to_end(&mut text)?;
            }
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            text => text,
        }
    }
}

/// The state of a module in `/proc/modules`:
/// `br_netfilter 32768 0 - Live 0x0000000000000000`.
pub fn listed_state(list: &str, module: &Module) -> Option<&'static str> {
    let mut lines = list.lines().map(str::split_ascii_whitespace);
    let mut line = lines.find_map(|mut line| (line.next()? == module.as_str()).then_some(line))?;
    // After the size, the users' count and their names.
    Some(match line.nth(3) {
        Some("Loading") => "loading",
        Some("Unloading") => "unloading",
        _ => "loaded",
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_built_in_is_used_and_nothing_is_loaded_for_that() {
        let root = std::env::temp_dir().join(format!("netguard-modules-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        let modules = Modules::new(&root);
        assert!(modules.may_use("nf_tables"), "nothing can be loaded");
        write(
            "proc/modules",
            "ip_set 57344 0 - Live 0x0\nnft_nat 1 0 - Loading 0x0\n",
        );
        write("proc/sys/kernel/osrelease", "6.1.0\n");
        assert_eq!(modules.all(), None);
        write(
            "lib/modules/6.1.0/modules.dep",
            "kernel/a/br-netfilter.ko.xz: kernel/b/c.ko\n",
        );
        let builtin = "kernel/net/netfilter/nf_tables.ko\nkernel/net/netfilter/xt_tcpudp.ko\n";
        write("lib/modules/6.1.0/modules.builtin", builtin);
        fs::create_dir_all(root.join("sys/module/nf_conntrack")).expect("a folder");
        for (name, expected) in [
            ("nf_tables", true),
            ("xt_tcpudp", true),
            ("ip_set", true),
            ("nf_conntrack", true),
            ("nft_nat", false),
            ("tables", false),
            ("br_netfilter", false),
            ("a/b", false),
        ] {
            assert_eq!(modules.may_use(name), expected, "{name}");
        }
        let all = modules.all().expect("a list");
        let all: Vec<&str> = all.iter().map(Module::as_str).collect();
        assert_eq!(all, ["br_netfilter", "nf_tables", "xt_tcpudp"]);
        fs::remove_dir_all(&root).expect("the folder");
    }

    #[test]
    fn the_kernels_list_is_read() {
        let list = "\
            br_netfilter 32768 0 - Live 0x0000000000000000\n\
            bridge 413696 1 br_netfilter, Live 0x0000000000000000\n\
            ip_vs 200704 0 [permanent], Loading 0x0000000000000000\n\
            nf_nat 57344 2 - Unloading 0x0000000000000000 (O+)\n\
            odd 1\n";
        for (name, expected) in [
            ("br-netfilter", Some("loaded")),
            ("bridge", Some("loaded")),
            ("ip_vs", Some("loading")),
            ("nf_nat", Some("unloading")),
            ("odd", Some("loaded")),
            ("br", None),
            ("live", None),
        ] {
            let module = Module::parse(name).expect(name);
            assert_eq!(listed_state(list, &module), expected, "{name}");
        }
    }
}
