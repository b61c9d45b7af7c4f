//! `netguard apply`: restores once what does not hold.

use std::fmt::Write as _;

use clap::ArgMatches;

use super::check::{Standing, look, look_and_act, verdict};
use super::load::load;
use super::{exit, print};
use crate::effects::entry::Entry;
use crate::engine::{Record, Tally};
use crate::model::{Mode, Settings};

/// Restores once, or says what would be written.
///
/// # Errors
/// The exit code, where the configuration is refused or there is nothing to look at.
pub fn run(matches: &ArgMatches) -> Result<u8, u8> {
    let settings = load(matches)?.settings;
    if matches.get_flag("dry-run") {
        return plan(settings, matches);
    }
    let (engine, records) = look_and_act(settings, matches)?;
    let mut text = String::new();
    let mut failed = false;
    for record in &records {
        failed |= matches!(record, Record::RestoreFailed(..));
        if !matches!(record, Record::Started(_)) {
            let _ = writeln!(text, "{}", Entry::of(record, 0).message);
        }
    }
    let Tally {
        values,
        holding,
        restored,
        ..
    } = engine.tally();
    let _ = writeln!(
        text,
        "{holding} of {values} values hold, {restored} restored"
    );
    let code = match (failed, verdict(&engine)) {
        (true, _) => exit::TROUBLE,
        (false, code) => code,
    };
    Ok(print::result(&text, code))
}

/// Says what would be written, and ends as `check` would.
fn plan(settings: Settings, matches: &ArgMatches) -> Result<u8, u8> {
    let modes: Vec<Mode> = settings.invariants.iter().map(|it| it.mode).collect();
    let engine = look(settings, matches)?;
    let mut text = String::new();
    for watched in engine.watched() {
        let requirement = &engine.settings().invariants[watched.invariant].requirement;
        let (Standing::Drifted, Some(seen)) = (Standing::of(&watched), watched.seen) else {
            continue;
        };
        let key = watched.key;
        let _ = match (modes[watched.invariant], requirement.restore_to(seen)) {
            (Mode::Restore, Some(value)) => {
                writeln!(text, "would write {key} = {value} (is {seen})")
            }
            (Mode::Observe, _) => {
                writeln!(text, "would leave {key} = {seen}: mode is observe")
            }
            (Mode::Restore, None) => writeln!(
                text,
                "cannot restore {key} = {seen}: {requirement} is about other fields"
            ),
        };
    }
    if text.is_empty() {
        text.push_str("nothing to write\n");
    }
    Ok(print::result(&text, verdict(&engine)))
}
