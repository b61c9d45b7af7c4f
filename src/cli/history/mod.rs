//! `netguard history`: what the guard did and saw, from the journal.
//!
//! * [`row`]: a record in the words of the table.
//! * [`table`]: the table in the width that there is.

mod row;
mod table;

use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::journal::{self, Entry, Error, Place, Query, is_volatile};
use super::moment::Zone;
use super::{exit, print};
use crate::model::Selector;
use row::Row;

/// Prints the records that are asked for, newest last.
///
/// # Errors
/// The exit code, where they cannot be read.
pub fn run(matches: &ArgMatches) -> Result<u8, u8> {
    let place = place(matches);
    let entries = journal::read(&place, query(matches)).map_err(|error| told(&error))?;
    let as_json = matches.get_flag("json");
    let mut code = exit::OK;
    let mut rows = Vec::new();
    let mut found = false;
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            // What was read before, if anything was, is shown all the same.
            Err(error) if error.is_passing() || found => {
                code = told(&error);
                continue;
            }
            Err(error) => return Err(told(&error)),
        };
        found = true;
        if !as_json {
            rows.push(Row::of(&entry));
        } else if let Some(end) = print::line(&entry.to_json()) {
            return Ok(end);
        }
    }
    if !found {
        print::note(&nothing(&place, matches));
    } else if !as_json {
        let width = print::width().unwrap_or(print::USUAL_WIDTH);
        code = print::result(&table::table(&rows, &Zone::local(), width), code);
    }
    Ok(code)
}

/// What the command line asks for. `watch` has fewer options; those that it
/// lacks ask for nothing.
pub(super) fn query(matches: &ArgMatches) -> Query {
    fn get<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Option<T> {
        matches.try_get_one::<T>(name).ok().flatten().cloned()
    }
    Query {
        since: get(matches, "since"),
        until: get(matches, "until"),
        key: get::<Selector>(matches, "key"),
        unit: get::<String>(matches, "unit").map(|unit| Query::unit_name(&unit)),
        episode: get(matches, "episode"),
        last: get(matches, "last"),
        follow: false,
    }
}

/// Where the command line says that records are.
pub(super) fn place(matches: &ArgMatches) -> Place {
    let path = |name| matches.try_get_one::<PathBuf>(name).ok().flatten().cloned();
    match (path("saved"), path("root")) {
        (Some(file), _) => Place::Saved(file),
        (None, Some(root)) if root != Path::new("/") => Place::Root(root),
        (None, _) => Place::System,
    }
}

/// Tells on standard error what went wrong, and gives the exit code.
pub(super) fn told(error: &Error) -> u8 {
    print::note(&format!("netguard: {error}\n"));
    if error.is_usage() {
        exit::USAGE
    } else {
        exit::TROUBLE
    }
}

/// Says that there is no record, and what to do about it.
fn nothing(place: &Place, matches: &ArgMatches) -> String {
    let narrowed = query(matches) != Query::default();
    let mut text = String::from(match (place, narrowed) {
        (Place::System, true) => "no record matches; `netguard history` shows all there are\n",
        (Place::System, false) => {
            "no record of netguard in the journal; is it running? (systemctl status netguard)\n"
        }
        (_, true) => "no record there matches\n",
        (_, false) => "no record of netguard there\n",
    });
    if *place == Place::System && is_volatile(Path::new("/")) {
        text.push_str(
            "this journal is kept in memory only and began with the last boot; \
             a folder /var/log/journal keeps it\n",
        );
    }
    text
}

/// One line per record, for those who watch.
pub(super) fn line(entry: &Entry, zone: &Zone) -> String {
    let time = zone.show(entry.time_usec(), false);
    format!("{time}  {}", crate::effects::words::line(entry.message()))
}
