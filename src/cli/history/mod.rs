//! `netguard history`: what the guard did and saw, from the journal.
//!
//! * [`row`]: a record in the words of the table.
//! * [`table`]: the table in the width that there is.

mod row;
mod table;

use std::path::Path;

use super::{args, exit, print};
use crate::config::{Request, selector_meant};
use crate::journal::moment::Zone;
use crate::journal::read::{
    self as journal, Entry, Error, Named, Newest, Place, Query, is_volatile,
};
use crate::model::Selector;
use row::Row;

/// Prints the records that are asked for, newest last.
///
/// # Errors
/// The exit code, where they cannot be read.
pub fn run(request: &Request, options: args::History) -> Result<u8, u8> {
    let (as_json, in_brief) = (options.json.json, options.brief);
    let (place, query) = asked(request, options);
    if in_brief {
        return brief(&place, query);
    }
    let narrowed = query != Query::default();
    let key = query.key.clone();
    let entries = journal::read(&place, query).map_err(|error| report_error(&error))?;
    let mut code = exit::OK;
    let mut rows = Newest::new(usize::MAX);
    let mut found = false;
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            // What was read before, if anything was, is shown all the same.
            Err(error) if error.is_passing() || found => {
                code = report_error(&error);
                continue;
            }
            Err(error) => return Err(report_error(&error)),
        };
        found = true;
        if !as_json {
            let row = Row::of(&entry);
            rows.push(row.size(), row);
        } else if let Some(end) = print::json_line(&entry.to_json()) {
            return Ok(end);
        }
    }
    if !found {
        print::note(&nothing(&place, narrowed, key_meant(key, request)));
    } else if !as_json {
        if rows.left_out {
            code = report_error(&Error::LeftOut);
        }
        let rows: Vec<Row> = rows.into_items().collect();
        code = print::result(&table::table(&rows, &Zone::local(), print::width()), code);
    }
    Ok(code)
}

/// The newest record on one line, and how many there are besides: for a monitor,
/// to which the exit code shows whether there is any.
fn brief(place: &Place, query: Query) -> Result<u8, u8> {
    let (mut newest, mut count) = (None, 0);
    let entries = journal::read(place, query);
    for entry in entries.map_err(|error| reported(&error))? {
        newest = Some(entry.map_err(|error| reported(&error))?);
        count += 1;
    }
    let Some(newest) = newest else {
        return Ok(exit::OK);
    };
    let more = match count {
        1 => String::new(),
        count => format!("({count}) "),
    };
    Ok(print::result(
        &format!("{more}{}\n", newest.message()),
        exit::DRIFT,
    ))
}

/// Where a monitor reads: it keeps standard output alone.
fn reported(error: &Error) -> u8 {
    print::result(&format!("netguard: {error}\n"), code_of(error))
}

/// What the command line asks for, and of which journal.
fn asked(request: &Request, options: args::History) -> (Place, Query) {
    let place = options
        .saved
        .map_or_else(|| Place::of(&request.root), Place::Saved);
    let query = Query {
        since: options.since,
        until: options.until,
        episode: options.restart,
        events: options.events,
        last: options
            .last
            .map(|it| usize::try_from(it).unwrap_or(usize::MAX)),
        ..options.about.into()
    };
    (place, query)
}

/// Prints the error on standard error, and returns the exit code.
pub(super) fn report_error(error: &Error) -> u8 {
    print::note(&format!("netguard: {error}\n"));
    code_of(error)
}

fn code_of(error: &Error) -> u8 {
    if error.is_usage() {
        exit::USAGE
    } else {
        exit::TROUBLE
    }
}

/// Says that there is no record, and what to do about it.
fn nothing(place: &Place, narrowed: bool, meant: Option<Selector>) -> String {
    if let Some(meant) = meant {
        return format!("no matching records; did you mean the key `{meant}`?\n");
    }
    let mut text = match (place, narrowed) {
        (Place::System, true) => {
            "no matching records (run `netguard history` for all)\n".to_owned()
        }
        (Place::System, false) => {
            "no netguard records in the journal; is it running? (systemctl status netguard)\n"
                .to_owned()
        }
        (place, true) => format!("no matching records in {}\n", shown(place)),
        (place, false) => format!("no netguard records in {}\n", shown(place)),
    };
    if *place == Place::System && is_volatile(Path::new("/")) {
        text.push_str(
            "the journal is volatile and begins with the last boot; create /var/log/journal to make it persistent\n",
        );
    }
    text
}

/// Where records are read, in words.
fn shown(place: &Place) -> String {
    match place {
        Place::System => "the journal".to_owned(),
        Place::Root(root) => format!("the journal of {}", root.display()),
        Place::Saved(file) if file == Path::new("-") => "standard input".to_owned(),
        Place::Saved(file) => file.display().to_string(),
    }
}

/// What was probably meant by the key that is asked for, where the kernel has none
/// like it.
fn key_meant(named: Option<Named>, request: &Request) -> Option<Selector> {
    let named = named?;
    let meant = selector_meant(&named.text, &request.root);
    meant.filter(|meant| !named.meets(meant))
}

/// One line per record, for those who watch.
pub(super) fn line(entry: &Entry, zone: &Zone) -> String {
    let time = zone.show(entry.time_usec(), false);
    format!("{time}  {}", row::message(entry))
}
