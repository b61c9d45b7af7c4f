//! The configuration that the command line asks for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{exit, print};
use crate::clock;
use crate::config::{self, ConfigError, Loaded, Request};
use crate::effects::message::first_error;
use crate::effects::state;
use crate::effects::words::Span;
use crate::root::{Root, is_absent, plain};

/// Loads the configuration and tells on standard error what is wrong with it.
///
/// # Errors
/// The exit code, where it is refused.
pub fn load(request: &Request) -> Result<Loaded, u8> {
    load_or_why(request).map_err(|_| exit::USAGE)
}

/// As [`load`], and tells on standard error where the guard that runs has another
/// configuration in force.
///
/// # Errors
/// The exit code, where it is refused.
pub fn load_and_compare(request: &Request) -> Result<Loaded, u8> {
    let loaded = load(request)?;
    if let Some(in_force) = state::configuration_in_force(&request.root)
        && in_force.file == request.file
        && in_force.digest != state::digest(&loaded.settings)
    {
        let ago = clock::realtime_usec().saturating_sub(in_force.loaded_usec);
        print::note(&format!(
            "note: the running netguard has another configuration in force, loaded {} ago;\n  \
             `systemctl reload netguard` loads these files\n",
            Span(Duration::from_micros(ago))
        ));
    }
    Ok(loaded)
}

/// As [`load`], with what is wrong.
///
/// # Errors
/// What is wrong, which has been printed.
pub fn load_or_why(request: &Request) -> Result<Loaded, ConfigError> {
    let loaded = config::load(request);
    match &loaded {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                print::note(&format!("{warning}\n"));
            }
        }
        Err(error) => {
            let details = error.to_string();
            let summary = format!("netguard: invalid configuration: {}", first_error(&details));
            print::error(&summary, &details);
        }
    }
    loaded
}

/// The folder of the kernel's parameters that `--root` asks for.
///
/// # Errors
/// The exit code, where there is no such folder: nothing can be looked at, and
/// nothing guarded.
pub fn procsys(request: &Request) -> Result<PathBuf, u8> {
    let root = Root::new(&request.root);
    let path = Path::new("/proc/sys");
    let found = root.resolve(path, |_| {});
    let procsys = root.real(found.as_deref().unwrap_or(path));
    match found {
        Ok(_) if procsys.is_dir() => Ok(procsys),
        Err(error) if !is_absent(&error) => {
            let (shown, why) = (procsys.display(), plain(&error));
            print::note(&format!("netguard: {shown}: {why}\n"));
            Err(exit::TROUBLE)
        }
        _ => {
            let shown = procsys.display();
            print::note(&format!(
                "netguard: {shown} is no folder: is /proc mounted?\n"
            ));
            Err(exit::TROUBLE)
        }
    }
}
