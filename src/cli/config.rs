//! `netguard config`: the effective invariants, each with the file and line it
//! comes from.

use super::load::load;
use super::table::{self, GAP, push_line};
use super::{args, exit, print};
use crate::config::{Effective, Request, show_duration};
use crate::model::text::visible;
use crate::model::{Invariant, Mode};
use crate::resource::Desired;

/// Prints the effective configuration.
///
/// # Errors
/// The exit code, where the configuration is refused.
pub fn run(request: &Request, options: &args::Json) -> Result<u8, u8> {
    let loaded = load(request)?;
    Ok(if options.json {
        print::json(&Effective::of(&loaded), exit::OK)
    } else {
        print::result(
            &table(&loaded.settings.invariants, print::width()),
            exit::OK,
        )
    })
}

/// The word for what is done about drift, `off` included.
fn mode(invariant: &Invariant) -> String {
    match (&invariant.desired, invariant.grace) {
        (Desired::Anything, _) => "off".to_owned(),
        (_, Some(grace)) if invariant.mode == Mode::Restore => {
            format!("restore after {}", show_duration(grace))
        }
        _ if invariant.restart && invariant.mode == Mode::Restore => "restart".to_owned(),
        _ => invariant.mode.as_str().to_owned(),
    }
}

/// What is required, for people; an empty value can be seen.
fn required(desired: &Desired) -> String {
    match desired.to_string() {
        empty if empty.is_empty() => "\"\"".to_owned(),
        required => required,
    }
}

const HEADS: [&str; 5] = ["KEY", "REQUIRED", "MODE", "FROM", "REASON"];

/// The invariants by key. For people at a terminal of `width` columns a reason
/// that has no room moves to a line of its own, then the place, then everything
/// but the key; nothing is ever left out.
fn table(invariants: &[Invariant], width: Option<usize>) -> String {
    let mut rows: Vec<[String; 5]> = invariants
        .iter()
        .map(|it| {
            [
                it.selector.to_string(),
                required(&it.desired),
                mode(it),
                it.origin.to_string(),
                it.reason.clone().unwrap_or_default(),
            ]
            .map(|cell| visible(&cell).into_owned())
        })
        .collect();
    rows.sort();
    rows.insert(0, HEADS.map(str::to_owned));
    let mut widths = [1; 5];
    for i in 0..4 {
        widths[i] = table::width(HEADS[i], rows.iter().map(|row| row[i].as_str()), usize::MAX);
    }
    let wide = |columns: usize| widths[..columns].iter().sum::<usize>();
    let width = width.unwrap_or(usize::MAX - GAP) + GAP;
    let columns = [4, 3].into_iter().find(|it| wide(*it) <= width);
    let columns = columns.unwrap_or(1);
    let room = (width - GAP).saturating_sub(wide(4));
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        let on_line = match columns {
            4 if print::columns(&row[4]) <= room => 5,
            columns => columns,
        };
        let cells = row[..on_line].iter().map(String::as_str);
        push_line(&mut text, cells.zip(widths));
        if i == 0 {
            continue;
        }
        let mut below = &row[on_line..];
        if on_line == 1 {
            text.push_str(&format!("    {}  {}\n", row[1], row[2]));
            below = &row[3..];
        }
        for cell in below.iter().filter(|cell| !cell.is_empty()) {
            text.push_str(&format!("    {cell}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::model::{Origin, Selector, Value};

    fn invariant(key: &str, reason: &str) -> Invariant {
        Invariant {
            selector: Selector::parse(key).expect("a key"),
            desired: Desired::equal(Value::new("1")),
            mode: Mode::Restore,
            grace: None,
            module: None,
            restart: false,
            reason: Some(reason.to_owned()),
            origin: Origin {
                file: Arc::new(PathBuf::from("/etc/netguard/netguard.toml")),
                line: 3,
            },
        }
    }

    #[test]
    fn the_table_fits_the_terminal_and_loses_nothing_in_a_pipe() {
        let rows = [invariant(
            "net.ipv4.ip_forward",
            "pods are routed through the node",
        )];
        let piped = table(&rows, None);
        assert_eq!(piped.lines().count(), 2);
        assert!(piped.contains("netguard.toml:3  pods are routed"));
        for width in 36..140 {
            let shown = table(&rows, Some(width));
            let widest = shown.lines().map(str::len).max();
            assert!(widest <= Some(width), "{width}\n{shown}");
            for part in [
                "ip_forward",
                "netguard.toml:3",
                "pods are routed",
                "restore",
            ] {
                assert!(shown.contains(part), "{width}\n{shown}");
            }
        }
        assert_eq!(table(&rows, Some(140)), piped);
    }
}
