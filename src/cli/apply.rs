//! `netguard apply`: restores once what does not hold.

use std::fmt::Write as _;

use clap::ArgMatches;

use super::check::{Standing, look, summary, verdict};
use super::load::{load, procsys, request};
use super::{exit, print};
use crate::effects::entry::Entry;
use crate::effects::message::error;
use crate::engine::Record;
use crate::model::{Mode, Settings, Value};
use crate::runtime;

/// Restores once, or says what would be written.
///
/// # Errors
/// The exit code, where the configuration is refused or there is nothing to look at.
pub fn run(matches: &ArgMatches) -> Result<u8, u8> {
    let settings = load(matches)?.settings;
    if matches.get_flag("dry-run") {
        return plan(settings, matches);
    }
    let (engine, records) = runtime::once(settings, procsys(&request(matches))?);
    let mut text = String::new();
    let mut failed = false;
    for record in &records {
        failed |= matches!(record, Record::RestoreFailed(..));
        told(&mut text, record);
    }
    let restored = engine.tally().restored;
    let _ = writeln!(text, "{}, {restored} restored", summary(&engine));
    let code = match (failed, verdict(&engine)) {
        (true, _) => exit::TROUBLE,
        (false, code) => code,
    };
    Ok(print::result(&text, code))
}

/// Says what was done, in the words in which [`plan`] says what would be. How it
/// was heard, which the journal tells, is no question here.
fn told(text: &mut String, record: &Record) {
    let shown = |found: &Option<Value>| found.as_ref().map_or("?".to_owned(), Value::to_string);
    let _ = match record {
        Record::Started(..) => Ok(()),
        Record::DriftRestored(drift) => {
            let (key, ours, new) = (&drift.key, shown(&drift.ours), shown(&drift.new));
            writeln!(text, "wrote {key} = {ours} (was {new})")
        }
        Record::DriftObserved(drift) => {
            let (key, new) = (&drift.key, shown(&drift.new));
            writeln!(text, "left {key} = {new}: mode is observe")
        }
        Record::RestoreFailed(drift, failure) => {
            let (key, why) = (&drift.key, error(drift, failure));
            writeln!(text, "cannot restore {key}: {why}")
        }
        record => writeln!(text, "{}", Entry::of(record, 0).message),
    };
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
