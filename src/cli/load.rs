//! The configuration that the command line asks for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};

use super::{exit, print};
use crate::clock;
use crate::config::{self, ConfigError, Diagnostic, Loaded, Request, Severity, in_order};
use crate::drivers::sysctl::network;
use crate::journal::errors::first_error;
use crate::model::{Invariant, Settings};
use crate::resource::ResourceKind;
use crate::root::{Root, is_absent};
use crate::runtime::last_good::LastGoods;
use crate::service::state::{self, Configuration};
use crate::words::{Count, Span, plain};

/// The configuration to judge by: the files or, where they are invalid,
/// what the running daemon has in force. Prints on standard error what is invalid
/// with the files, and where they differ from what is in force.
///
/// # Errors
/// The exit code, where the files are invalid and no guard runs with others, or
/// where the command line names the file.
pub fn load(request: &Request) -> Result<Loaded, u8> {
    load_or_running(request).map(|(loaded, _)| loaded)
}

/// As [`load`]; where there is no configuration nothing is guarded, which is noted.
///
/// # Errors
/// As there.
pub fn load_or_nothing(request: &Request) -> Result<Settings, u8> {
    let in_force = state::configuration_in_force(&request.root);
    let loaded = config::load(request);
    if in_force.is_none() && loaded.as_ref().is_err_and(|error| error.is_absent) {
        print::note("note: there is no configuration, so nothing is guarded\n");
        return Ok(Settings::default());
    }
    choose(request, loaded, in_force).map(|(loaded, _)| loaded.settings)
}

/// As [`load`], with the errors of the files where they are invalid.
///
/// # Errors
/// As there.
pub fn load_or_running(request: &Request) -> Result<(Loaded, Option<String>), u8> {
    let in_force = state::configuration_in_force(&request.root);
    choose(request, config::load(request), in_force)
}

/// Chooses between the files as they were loaded and what the running daemon has in force.
fn choose(
    request: &Request,
    loaded: Result<Loaded, ConfigError>,
    in_force: Option<Configuration>,
) -> Result<(Loaded, Option<String>), u8> {
    let in_force = in_force.filter(|it| it.file == request.file);
    let ago = |it: &Configuration| {
        let ago = clock::realtime_usec().saturating_sub(it.loaded_usec);
        Span(Duration::from_micros(ago))
    };
    if let (Err(error), Some(in_force)) = (&loaded, &in_force)
        && let Some(running) = running(request, in_force)
    {
        let reason = first_error(&error.to_string());
        print::note(&format!(
            "warning: the configuration files are invalid: {reason} \
             (`netguard validate` shows it); using the configuration that the running netguard \
             has in force, loaded {} ago\n",
            ago(in_force)
        ));
        return Ok((running, Some(reason)));
    }
    let mut loaded = print_errors(loaded).map_err(|_| exit::USAGE)?;
    let root = &request.root;
    let mut findings = std::mem::take(&mut loaded.warnings);
    let doubts = loaded.check_kernel(root).into_iter();
    let doubts = doubts.chain(loaded.unmatched(root));
    findings.extend(doubts.filter(|it| it.severity() == Severity::Warning));
    in_order(&mut findings);
    print_findings(&findings);
    if let Some(in_force) = in_force
        && in_force.digest != state::digest(&loaded.settings)
    {
        print::note(&format!(
            "note: the running netguard has another configuration in force, loaded {} ago; \
             `systemctl reload netguard` loads these files\n",
            ago(&in_force)
        ));
    }
    Ok((loaded, None))
}

/// The configuration that the guard has in force which runs, as that kept it;
/// nothing where the command line names a file, which is then what is asked about.
fn running(request: &Request, in_force: &Configuration) -> Option<Loaded> {
    let kept = LastGoods::new(request)?.read()?;
    let is_it = request.file.is_none() && state::digest(&kept.loaded.settings) == in_force.digest;
    is_it.then_some(kept.loaded)
}

/// The configuration of the files. Prints their errors on standard error.
///
/// # Errors
/// The errors, which have been printed.
pub fn load_or_errors(request: &Request) -> Result<Loaded, ConfigError> {
    print_errors(config::load(request))
}

fn print_errors(loaded: Result<Loaded, ConfigError>) -> Result<Loaded, ConfigError> {
    if let Err(error) = &loaded {
        let details = error.to_string();
        let summary = format!("netguard: invalid configuration: {}", first_error(&details));
        print::error(&summary, &details);
    }
    loaded
}

/// Prints findings that are no errors on standard error.
pub fn print_findings(findings: &[Diagnostic]) {
    for finding in findings {
        print::note(&format!("{finding}\n"));
    }
}

/// Whether the folder of `--root` has the running kernel's `/proc`, as the node's root
/// mounted in a container has.
pub fn is_running(request: &Request) -> bool {
    let procsys = Root::new(&request.root).real(Path::new("/proc/sys"));
    statfs(&procsys).is_ok_and(|it| it.filesystem_type() == PROC_SUPER_MAGIC)
}

/// Leaves out what is neither checked nor changed for another root, as it is the running
/// system's: all but these kinds, which are below the folder of `--root`.
pub fn leave_out_running(settings: &mut Settings, request: &Request, below: &[ResourceKind]) {
    if is_running(request) {
        return;
    }
    let is_below = |it: &Invariant| below.contains(&it.selector.kind());
    let before = settings.invariants.len();
    settings.invariants.retain(is_below);
    let left_out = before - settings.invariants.len();
    if left_out > 0 {
        print::note(&format!(
            "note: {} about the running system left out: this root does not have its /proc\n",
            Count(left_out, "invariant")
        ));
    }
}

/// Prints a note where this is not the network that the node's configuration is about.
pub fn note_foreign_network(request: &Request) {
    if request.root == Path::new("/")
        && let Some(reason) = network::is_foreign()
    {
        print::note(&format!("note: {reason}\n"));
    }
}

/// The folder of the kernel's parameters that `--root` asks for.
///
/// # Errors
/// The exit code, where there is no such folder: nothing can be checked, and
/// nothing guarded.
pub fn procsys(request: &Request) -> Result<PathBuf, u8> {
    let root = Root::new(&request.root);
    let path = Path::new("/proc/sys");
    let found = root.resolve(path, |_| {});
    let procsys = root.real(found.as_deref().unwrap_or(path));
    let why = match found {
        Ok(_) if procsys.is_dir() => return Ok(procsys),
        Err(error) if !is_absent(&error) => format!(": {}", plain(&error)),
        _ => " is not a directory: is /proc mounted?".to_owned(),
    };
    print::note(&format!("netguard: {}{why}\n", procsys.display()));
    Err(exit::TROUBLE)
}
