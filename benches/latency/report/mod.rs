//! The report: a table and the bars on stdout, JSON and SVG in files.

mod bars;
mod json;
mod svg;
mod table;

use std::fs;
use std::io::{self, IsTerminal, Write};

use crate::conditions::Results;
use crate::harness::Outcome;
use crate::options::Options;

/// Writes everything.
pub fn write(results: &Results, options: &Options) -> Outcome<()> {
    let bars = bars::all(results);
    say(&table::text(results, &bars));
    fs::create_dir_all(&options.out)?;
    let folder = options.out.canonicalize()?;
    let json = folder.join("latency.json");
    fs::write(&json, json::text(results, &bars, options)?)?;
    say(&format!("{}", json.display()));
    if let Some(plot) = svg::plot(&results.series) {
        let svg = folder.join("latency.svg");
        fs::write(&svg, plot)?;
        say(&format!("{}", svg.display()));
    }
    match results.failed.is_empty() {
        true => Ok(()),
        false => Err(format!("not measured: {}", results.failed.join(", ")).into()),
    }
}

/// A report for people.
pub fn say(text: &str) {
    // Nobody reads it any more: nothing is to be done about that.
    let _ = writeln!(io::stdout(), "{text}");
}

/// Warns that something is missing from the measurement.
pub fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "!!! {text}");
}

/// Shows the progress: in place on a terminal, line by line else.
pub fn progress(text: &str) {
    let mut stderr = io::stderr();
    let _ = match stderr.is_terminal() {
        true => write!(stderr, "\r\x1b[K{text}"),
        false => writeln!(stderr, "... {text}"),
    };
}
