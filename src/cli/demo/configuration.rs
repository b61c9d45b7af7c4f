//! The configuration of the demo's guard.

use std::path::{Path, PathBuf};

use super::super::args::Files;
use super::super::load::{load_or_errors, print_findings};
use super::super::{exit, print};
use crate::model::Invariant;

/// The demo's own configuration.
pub const OWN: &str = "\
[sysctl]
\"net.ipv4.ip_forward\" = 1

[[route]]
dev = \"cali*\"
preserve = true

[[neighbour]]
dev = \"cali*\"
preserve = true
";

/// The configuration that the demo's guard reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DemoConfiguration {
    Own,
    /// A file of the user's, and whether it is about more than sysctls.
    File(PathBuf, bool),
}

impl DemoConfiguration {
    /// What the command line asks for.
    ///
    /// # Errors
    /// The exit code, where the file is refused: also for a key outside `net`,
    /// which no network namespace has of its own. The guard would change it on
    /// this machine.
    pub fn of(files: &Files) -> Result<Self, u8> {
        if files.root.is_some() {
            print::note("netguard: the demo has a /proc/sys of its own: leave --root out\n");
            return Err(exit::USAGE);
        }
        let Some(file) = files.config.clone() else {
            return Ok(DemoConfiguration::Own);
        };
        // The child that reads it has this working directory too; the name in
        // messages is the one that was given.
        let loaded = load_or_errors(&files.request()).map_err(|_| exit::USAGE)?;
        print_findings(&loaded.warnings);
        let settings = loaded.settings;
        match settings.invariants.iter().find(|it| reaches_the_host(it)) {
            None => {
                let mut all = settings.invariants.iter();
                let with_pods = all.any(|it| !it.is_off() && !it.selector.is_sysctl());
                Ok(DemoConfiguration::File(file, with_pods))
            }
            Some(invariant) => {
                let (key, origin) = (&invariant.selector, &invariant.origin);
                print::note(&format!(
                    "netguard: {origin}: {key} is not specific to a network namespace: the demo would change it on this machine\n"
                ));
                Err(exit::USAGE)
            }
        }
    }

    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            DemoConfiguration::Own => None,
            DemoConfiguration::File(file, _) => Some(file),
        }
    }

    /// Whether the restart takes away what is about pods: where nothing else than sysctls
    /// is guarded, it would only show that.
    pub fn with_pods(&self) -> bool {
        !matches!(self, DemoConfiguration::File(_, false))
    }
}

/// Whether an invariant is about a key outside `net`. What stands below
/// `/proc/sys/net` in a network namespace other than the first is its own.
fn reaches_the_host(invariant: &Invariant) -> bool {
    let selector = &invariant.selector;
    let is_own = !selector.is_sysctl() || selector.segments().starts_with(&["net"]);
    !invariant.is_off() && !is_own
}
