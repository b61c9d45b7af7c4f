//! The configuration that the command line asks for.

use std::path::PathBuf;

use clap::ArgMatches;

use super::{exit, print};
use crate::config::{self, ConfigError, Loaded, Request};

/// What `--config` and `--root` ask for.
pub fn request(matches: &ArgMatches) -> Request {
    let path = |name| matches.get_one::<PathBuf>(name).cloned();
    Request {
        root: path("root").unwrap_or(Request::default().root),
        file: path("config"),
    }
}

/// Loads the configuration and tells on standard error what is wrong with it.
///
/// # Errors
/// The exit code, where it is refused.
pub fn load(matches: &ArgMatches) -> Result<Loaded, u8> {
    load_request(&request(matches))
}

/// As [`load`], of a request.
///
/// # Errors
/// The exit code, where it is refused.
pub fn load_request(request: &Request) -> Result<Loaded, u8> {
    load_or_why(request).map_err(|_| exit::USAGE)
}

/// As [`load_request`], with what is wrong.
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
        Err(error) => print::note(&error.to_string()),
    }
    loaded
}

/// The folder of the kernel's parameters that `--root` asks for.
///
/// # Errors
/// The exit code, where there is no such folder: nothing can be looked at, and
/// nothing guarded.
pub fn procsys(request: &Request) -> Result<PathBuf, u8> {
    let procsys = request.root.join("proc/sys");
    if procsys.is_dir() {
        return Ok(procsys);
    }
    let shown = procsys.display();
    print::note(&format!(
        "netguard: {shown} is no folder: is /proc mounted?\n"
    ));
    Err(exit::TROUBLE)
}
