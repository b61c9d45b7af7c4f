//! `netguard run`: the daemon.

use std::path::Path;
use std::sync::Arc;

use clap::ArgMatches;

use super::load::{load_request, procsys, request};
use super::moment::Zone;
use super::{exit, print};
use crate::config;
use crate::conflicts;
use crate::effects::diagnostics;
use crate::effects::journal::Journal;
use crate::effects::sink::LogTarget;
use crate::effects::state::{self, Holder};
use crate::runtime::{self, Daemon};

/// Guards until told to stop.
///
/// # Errors
/// The exit code, where the configuration is refused, where another guard does
/// the same already, or where the guard cannot run.
pub fn run(matches: &ArgMatches) -> Result<u8, u8> {
    let request = request(matches);
    refuse_second(&request.root)?;
    let loaded = load_request(&request)?;
    let procsys = procsys(&request)?;
    let trouble = |error: std::io::Error| {
        print::note(&format!("netguard: {error}\n"));
        exit::TROUBLE
    };
    let journal = Journal::start(log_target(matches)).map_err(trouble)?;
    // Without a subscriber the program's own events are not told; records are.
    let _ = diagnostics::install(&journal);
    let root = request.root.clone();
    let daemon = Daemon {
        settings: loaded.settings,
        procsys,
        state: (!matches.get_flag("no-state")).then(|| request.root.clone()),
        load: Arc::new(move || match config::load(&request) {
            Ok(loaded) => Ok(loaded.settings),
            Err(error) => Err(error.to_string()),
        }),
        find: Arc::new(move |settings| conflicts::find(&root, settings)),
        journal,
    };
    runtime::run(daemon).map_err(trouble)?;
    Ok(exit::OK)
}

/// Two guards of the same values would both report each drift, and the end of
/// one would look like the end of the other. The service itself is never
/// refused: it must not depend on what somebody has started by hand.
fn refuse_second(root: &Path) -> Result<(), u8> {
    let is_service = std::env::var_os("NOTIFY_SOCKET").is_some();
    let running = state::running(root).filter(|it| it.is_guard() && it.shares_network());
    let Some(Holder { pid, since, .. }) = running.filter(|_| !is_service) else {
        return Ok(());
    };
    print::note(&format!(
        "netguard: netguard already runs here (pid {pid}, since {}): stop it first \
         (`systemctl stop netguard`), or use `netguard check` or `netguard apply`, which run once\n",
        Zone::local().show(since, false)
    ));
    Err(exit::TROUBLE)
}

fn log_target(matches: &ArgMatches) -> LogTarget {
    let word = matches.get_one::<String>("log");
    LogTarget::ALL
        .into_iter()
        .find(|target| word.is_some_and(|word| word == target.as_str()))
        .unwrap_or_default()
}
