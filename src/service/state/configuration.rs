//! Which configuration is in force, so that others can determine whether the files
//! are the same.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::model::Settings;

/// The configuration in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// When it was loaded; 0 where it is unknown.
    pub loaded_usec: u64,
    /// The file that it was loaded from alone (`--config`); else it is that of
    /// the standard places.
    #[serde(default)]
    pub file: Option<PathBuf>,
    #[serde(default)]
    pub digest: String,
}

impl Configuration {
    /// Settings with this digest, loaded just now, from `file` alone where there
    /// is one.
    pub fn now(digest: String, file: Option<&Path>) -> Self {
        Configuration {
            loaded_usec: clock::realtime_usec(),
            file: file.map(Path::to_owned),
            digest,
        }
    }
}

/// A number that is the same for settings that ask for the same: comments, the
/// order of the keys of a table and the places in the files are no part of it.
pub fn digest(settings: &Settings) -> String {
    let mut text = format!("{:?}\n{:?}\n", settings.guard, settings.conntrack);
    for it in &settings.invariants {
        let (mode, module, reason) = (it.mode.as_str(), &it.module, &it.reason);
        let (grace, restart) = (it.grace, it.restart);
        let _ = writeln!(
            text,
            "{} {:?} {mode} {grace:?} {module:?} {restart} {reason:?}",
            it.selector, it.desired
        );
    }
    // FNV-1a: no secret is kept from anybody.
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{hash:016x}")
}
