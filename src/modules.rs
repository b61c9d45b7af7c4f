//! Which kernel modules there are, by what the kernel and the node's files show.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::libc;

use crate::engine::{Errno, ReadOutcome};
use crate::model::Value;
use crate::resource::{Attribute, Module, State};
use crate::root::Root;

/// No more of a file is read: each takes some 10 kB on a large node.
const LONGEST: u64 = 4 << 20;

/// The modules of the node below a root.
#[derive(Debug)]
pub struct Modules(Root);

impl Modules {
    /// Of the node below this root.
    pub fn new(root: &Path) -> Modules {
        Modules(Root::new(root))
    }

    /// The state of a module. One that is built in is loaded: it has a folder below
    /// /sys/module, if it has parameters, and stands in a list in any case.
    pub fn read(&self, module: &Module) -> ReadOutcome {
        let state = match self.state(module) {
            Ok(state) => state,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                return ReadOutcome::Refused(Errno(errno));
            }
        };
        let attributes = |state| vec![(Attribute::State, Value::new(state))];
        state.map_or(ReadOutcome::Absent, |state| {
            ReadOutcome::State(State::with(attributes(state)))
        })
    }

    fn state(&self, module: &Module) -> io::Result<Option<&'static str>> {
        // A kernel without loadable modules has no list of them.
        let listed = state(&self.text(Path::new("/proc/modules"))?, module);
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
        let release = self.text(Path::new("/proc/sys/kernel/osrelease"))?;
        let folder = PathBuf::from("/lib/modules").join(release.trim());
        let list = self.text(&folder.join("modules.builtin"))?;
        let mut lines = list.lines();
        Ok(lines.any(|line| Module::listed(line).as_ref() == Some(module)))
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
pub fn state(list: &str, module: &Module) -> Option<&'static str> {
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
    use super::*;

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
            assert_eq!(state(list, &module), expected, "{name}");
        }
    }
}
