//! `netguard run`: the daemon.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use libsystemd::daemon::{self, NotifyState};
use nix::unistd::geteuid;

use super::load::{leave_out_running, load_or_errors, print_findings, procsys};
use super::{args, exit, print};
use crate::config::{self, ConfigError, Loaded, Request, Severity};
use crate::conflicts;
use crate::engine::LastGood;
use crate::journal::moment::Zone;
use crate::journal::write::Journal;
use crate::journal::write::diagnostics;
use crate::model::{Mode, Settings};
use crate::process_namespaces::NetworkNamespace;
use crate::resource::ResourceKind;
use crate::runtime::last_good::LastGoods;
use crate::runtime::{self, Daemon, Find, Load};
use crate::service::state::{self, Asked, Holder, starts};
use crate::sys::capabilities::{self, Capability};
use crate::words::plain;

/// How long the beginning and the end wait until a configuration that was just
/// loaded is kept: no longer, even if the disk is slow.
const LAST_GOOD: Duration = Duration::from_millis(100);

/// How long the reason of the end may take to print: stderr may stall.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Guards until asked to stop.
///
/// # Errors
/// The exit code, where the configuration is refused, where another guard does
/// the same already, or where the guard cannot run.
pub fn run(request: Request, options: &args::Run) -> Result<u8, u8> {
    let keeps_state = !options.no_state;
    if keeps_state {
        state::make_folder(&request.root);
    }
    refuse_second(&request.root)?;
    await_turn(&request.root);
    let goods = LastGoods::new(&request).filter(|_| keeps_state);
    let (mut settings, last_good, loaded) = match load_or_errors(&request) {
        Ok(loaded) => {
            print_findings(&loaded.warnings);
            (loaded.settings.clone(), None, Some(loaded))
        }
        Err(error) => {
            let (settings, last_good) = last_good(&error, goods.as_ref())?;
            (settings, Some(last_good), None)
        }
    };
    refuse_powerless(&request, &settings)?;
    let procsys = procsys(&request)?;
    // Only where there is something to guard: else nothing is written.
    if let (Some(goods), Some(loaded)) = (&goods, &loaded) {
        goods.keep(loaded);
    }
    let trouble = |error: std::io::Error| {
        let text = format!("netguard: {}", plain(&error));
        print::error(&text, &text);
        exit::TROUBLE
    };
    let journal = Journal::start(options.log);
    // Without a subscriber the program's own events are not logged; records are.
    let _ = diagnostics::install(&journal);
    leave_out_running(&mut settings, &request, &[ResourceKind::Sysctl]);
    let folder = request.root.clone();
    let daemon = Daemon {
        settings,
        last_good,
        file: request.file.clone(),
        procsys,
        state: keeps_state.then(|| request.root.clone()),
        find: find(request.root.clone(), loaded),
        load: load_again(request, goods.clone()),
        journal,
    };
    if let Some(goods) = &goods {
        goods.wait(LAST_GOOD);
    }
    let ended = runtime::run(daemon)
        .map_err(|error| within(LAST_WORDS, move || trouble(error)).unwrap_or(exit::TROUBLE));
    if let Some(goods) = &goods {
        goods.wait(LAST_GOOD);
    }
    ended?;
    // Where this fails, the next start is counted as one after a crash.
    let _ = starts::ended(&folder);
    Ok(exit::OK)
}

/// Loads the configuration when it has changed.
fn load_again(request: Request, goods: Option<LastGoods>) -> Arc<Load> {
    Arc::new(move || match config::load(&request) {
        Ok(mut loaded) => {
            warn(&loaded, &request.root);
            if let Some(goods) = &goods {
                goods.keep(&loaded);
            }
            leave_out_running(&mut loaded.settings, &request, &[ResourceKind::Sysctl]);
            Ok(loaded.settings)
        }
        Err(error) => Err(error.to_string()),
    })
}

/// Finds conflicting files, and the first time what is wrong with a configuration that was
/// loaded: with thousands of interfaces that takes longer than the first check.
fn find(root: PathBuf, loaded: Option<Loaded>) -> Arc<Find> {
    let unexamined = Mutex::new(loaded);
    Arc::new(move |settings| {
        let mut unexamined = unexamined.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = unexamined.take() {
            warn(&loaded, &root);
        }
        conflicts::find_lines(&root, settings)
    })
}

/// The settings to begin with where the configuration is invalid: the last good
/// ones, so that no slip and no upgrade leaves the node unguarded.
fn last_good(error: &ConfigError, goods: Option<&LastGoods>) -> Result<(Settings, LastGood), u8> {
    let kept = goods.and_then(LastGoods::read).ok_or(exit::USAGE)?;
    let last_good = LastGood {
        saved: kept.saved,
        diagnostics: error.to_string(),
    };
    Ok((kept.loaded.settings, last_good))
}

/// A service that has crashed several times in a row waits before it starts again.
fn await_turn(root: &Path) {
    if !is_service() {
        return;
    }
    if let Ok((before, wait)) = starts::begun(root)
        && !wait.is_zero()
    {
        let seconds = wait.as_secs_f32();
        let why = format!(
            "waiting {seconds} s to start: {before} starts without an orderly end in the last minute"
        );
        print::note(&format!("netguard: {why}\n"));
        let _ = daemon::notify(false, &[NotifyState::Status(why)]);
        thread::sleep(wait);
    }
}

/// Does `work` and returns its result, unless that takes longer than `at_most`.
fn within<T: Send + 'static>(
    at_most: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = mpsc::channel();
    let thread = thread::Builder::new();
    // Without a thread it is left undone.
    let _ = thread.spawn(move || done.send(work()));
    result.recv_timeout(at_most).ok()
}

fn is_service() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Two guards of the same values would both report each drift, and the end of
/// one would look like the end of the other. The service itself is never
/// refused: it must not depend on a process started manually.
fn refuse_second(root: &Path) -> Result<(), u8> {
    let Some((which, since)) = other_guard(root).filter(|_| !is_service()) else {
        return Ok(());
    };
    print::note(&format!(
        "netguard: already running here ({which}, since {}): stop it first \
         (`systemctl stop netguard`), or use `netguard check` or `netguard apply`, which run once\n",
        Zone::local().show(since, false)
    ));
    Err(exit::TROUBLE)
}

/// Who is neither root nor has its capabilities, as root of a user namespace has, cannot
/// restore anything, and takes for drift what it may not read.
fn refuse_powerless(request: &Request, settings: &Settings) -> Result<(), u8> {
    let restores = settings
        .invariants
        .iter()
        .any(|it| it.mode == Mode::Restore);
    let may_write = geteuid().is_root() || Capability::OF_KEYS.into_iter().any(capabilities::has);
    if request.root != Path::new("/") || !restores || may_write {
        return Ok(());
    }
    print::note("netguard: permission denied to restore anything: run as root\n");
    Err(exit::TROUBLE)
}

/// The guard that looks after the same values, and since when.
fn other_guard(root: &Path) -> Option<(String, u64)> {
    match state::running(root).ok()?? {
        Holder::Known(it) => {
            let is_it = it.is_guard() && it.shares_network();
            is_it.then(|| (format!("pid {}", it.pid), it.since))
        }
        // Its process cannot be seen from here; what it saved can.
        Holder::Unknown => match state::ask(root).ok()? {
            Asked::State(it, currency) => {
                let is_it = currency.is_running() && it.network == NetworkNamespace::own().ok();
                is_it.then(|| ("in another pid namespace".to_owned(), it.started_usec))
            }
            _ => None,
        },
    }
}

/// Warns of what the configuration takes away here, or does to no effect.
fn warn(loaded: &Loaded, root: &Path) {
    for finding in loaded.consequences(root) {
        if finding.severity() == Severity::Warning {
            tracing::warn!("{}", finding.one_line());
        }
    }
}
