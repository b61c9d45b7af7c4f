//! The table of records, laid out for the width that there is.
//!
//! Where all of it has room, a record is one line. Where not, the columns that
//! are read first keep their places and the rest follows below them in words.
//! A key is never cut, so that it can be searched for and pasted.

use super::row::{Drift, Row, Told, Writer};
use crate::cli::moment::Zone;

/// The least that a command line is cut to, in columns.
const LEAST: usize = 30;
/// Between two columns.
const GAP: usize = 2;

/// The rows as text, `width` columns wide at most; only a longer word goes
/// beyond it.
pub fn table(rows: &[Row], zone: &Zone, width: usize) -> String {
    let drifts: Vec<&Drift> = rows
        .iter()
        .filter_map(|row| match &row.told {
            Told::Drift(drift) => Some(&**drift),
            Told::Else(_) => None,
        })
        .collect();
    let layout = Layout::of(&drifts, width);
    let newest = rows.last().map_or(0, |row| row.time);
    let time = format!("TIME ({})", zone.name(newest));
    let mut text = String::new();
    layout.push_heads(&mut text, &time);
    for row in rows {
        let time = zone.show(row.time, layout.short_time);
        match &row.told {
            Told::Drift(drift) => layout.push(&mut text, &time, drift),
            Told::Else(message) => {
                let indent = layout.time;
                let mut time = time.as_str();
                for line in wrapped(message, width.saturating_sub(indent)) {
                    push_line(&mut text, &format!("{time:indent$}{line}"));
                    time = "";
                }
            }
        }
    }
    text
}

fn heads() -> Drift {
    Drift {
        what: "WHAT".to_owned(),
        key: "KEY".to_owned(),
        change: "OLD -> NEW".to_owned(),
        took: "TOOK".to_owned(),
        heard: "HEARD BY".to_owned(),
        during: "DURING".to_owned(),
        writer: Writer::Known("WRITER".to_owned()),
        ..Drift::default()
    }
}

/// The columns in which drifts are shown, with their widths, the gap after each
/// included. One that no drift fills has none.
#[derive(Debug)]
struct Layout {
    width: usize,
    short_time: bool,
    time: usize,
    what: usize,
    key: usize,
    change: usize,
    /// Where the line has room for all.
    rest: Option<Rest>,
}

/// The columns for what else can be said in words below.
#[derive(Debug)]
struct Rest {
    took: usize,
    heard: usize,
    during: usize,
    writer: usize,
}

impl Layout {
    fn of(drifts: &[&Drift], width: usize) -> Layout {
        const LONG: usize = "2026-11-23 16:56:18".len() + GAP;
        const SHORT: usize = "11-23 16:56:18".len() + GAP;
        // A few long cells are to make no wide column for all: their rows go
        // without.
        let column = |cell: fn(&Drift) -> &str, most: usize| {
            let lengths = drifts.iter().map(|it| length(cell(it)));
            let widest = lengths.filter(|length| *length <= most).max();
            with_head(widest.unwrap_or(0), cell(&heads()))
        };
        // The last column needs no gap after it.
        let width = width + GAP;
        let what = column(|it| &it.what, width);
        let change = column(|it| &it.change, width / 7);
        let [took, heard] = [column(|it| &it.took, width), column(|it| &it.heard, width)];
        let during = column(|it| &it.during, width / 6);
        let writers = drifts.iter().map(|it| length(&it.writer.cell()));
        let writer = with_head(writers.max().unwrap_or(0), "WRITER");
        let key = column(|it| &it.key, width);
        for time in [LONG, SHORT] {
            let before = time + what + key + change + took + heard + during;
            if before + writer.min(LEAST) <= width {
                return Layout {
                    width,
                    short_time: time == SHORT,
                    time,
                    what,
                    key,
                    change,
                    rest: Some(Rest {
                        took,
                        heard,
                        during,
                        writer: writer.min(width - before),
                    }),
                };
            }
        }
        let room = width.saturating_sub(SHORT + what + change + GAP);
        Layout {
            width,
            short_time: true,
            time: SHORT,
            what,
            key: column(|it| &it.key, room).max(key.min("KEY".len() + GAP)),
            change,
            rest: None,
        }
    }

    /// A line of cells, of those columns that there are.
    fn cells(&self, time: &str, drift: &Drift) -> String {
        let width = self.time;
        let mut line = format!("{time:width$}");
        let mut push = |cell: &str, width: usize| {
            if width > 0 {
                line.push_str(&format!("{cell:width$}"));
            }
        };
        push(&drift.what, self.what);
        push(&drift.key, self.key);
        push(&drift.change, self.change);
        if let Some(rest) = &self.rest {
            push(&drift.took, rest.took);
            push(&drift.heard, rest.heard);
            push(&drift.during, rest.during);
            push(
                &cut(&drift.writer.cell(), rest.writer.saturating_sub(GAP)),
                rest.writer,
            );
        }
        line
    }

    fn push_heads(&self, text: &mut String, time: &str) {
        push_line(text, &self.cells(time, &heads()));
    }

    fn push(&self, text: &mut String, time: &str, drift: &Drift) {
        let fits = |cell: &str, column: usize| cell.is_empty() || length(cell) + GAP <= column;
        let Layout {
            time: indent, what, ..
        } = *self;
        let begun = fits(&drift.key, self.key) && fits(&drift.change, self.change);
        let rest = self
            .rest
            .as_ref()
            .is_some_and(|rest| fits(&drift.during, rest.during));
        let mut below = Vec::new();
        if begun && rest {
            push_line(text, &self.cells(time, drift));
        } else if begun {
            let first = Drift {
                what: drift.what.clone(),
                key: drift.key.clone(),
                change: drift.change.clone(),
                ..Drift::default()
            };
            push_line(text, &self.cells(time, &first));
            below.extend(in_words(drift));
        } else {
            let line = format!("{time:indent$}{:what$}{}", drift.what, drift.key);
            push_line(text, &line);
            below.push(drift.change.clone());
            below.extend(in_words(drift));
        }
        below.extend(drift.notes.iter().cloned());
        for paragraph in [&below.join(", "), &drift.error] {
            for line in wrapped(paragraph, self.width.saturating_sub(indent + GAP)) {
                push_line(text, &format!("{:indent$}{line}", ""));
            }
        }
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// The width of a column whose widest cell is this wide; none where all are empty.
fn with_head(widest: usize, head: &str) -> usize {
    match widest {
        0 => 0,
        widest => widest.max(length(head)) + GAP,
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// What else there are columns for, as MESSAGE says it.
fn in_words(drift: &Drift) -> impl Iterator<Item = String> {
    let said = [
        ("after ", &drift.took),
        ("heard by ", &drift.heard),
        ("during ", &drift.during),
    ];
    said.into_iter()
        .filter(|(_, said)| !said.is_empty())
        .map(|(word, said)| format!("{word}{said}"))
        .chain(Some(drift.writer.words()).filter(|words| !words.is_empty()))
}

/// `text` cut in its middle to at most `width` columns: a command line's
/// program and its last arguments say most.
fn cut(text: &str, width: usize) -> String {
    const DOTS: &str = "...";
    let all = length(text);
    if all <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(DOTS.len());
    let tail = kept / 2;
    let head: String = text.chars().take(kept - tail).collect();
    let tail: String = text.chars().skip(all - tail).collect();
    format!("{head}{DOTS}{tail}")
}

/// `text` in lines of at most `width` columns, broken at blanks; a longer word
/// has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let added = length(word);
        match lines.last_mut() {
            Some(line) if length(line) + 1 + added <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(key: &str, writer: &str) -> Row {
        let drift = Drift {
            what: "restored".to_owned(),
            key: key.to_owned(),
            change: "1 -> 0".to_owned(),
            took: "31 us".to_owned(),
            heard: "fanotify".to_owned(),
            during: "network.service".to_owned(),
            writer: if writer.is_empty() {
                Writer::default()
            } else {
                Writer::Known(writer.to_owned())
            },
            ..Drift::default()
        };
        Row {
            time: 0,
            told: Told::Drift(Box::new(drift)),
        }
    }

    fn told(text: &str) -> Row {
        Row {
            time: 0,
            told: Told::Else(text.to_owned()),
        }
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_and_no_key_is_cut() {
        let keys = [
            "net.ipv4.ip_forward",
            "net.ipv4.conf.cali5f1d8a2c3b4.accept_redirects",
        ];
        let rows = [
            drift(keys[0], "sysctl -w net.ipv4.ip_forward=0 (pid 4711)"),
            drift(keys[1], &"argument ".repeat(40)),
            told("started: holding 6 of 6 values (0 pending, 0 wrong), 6 invariants"),
        ];
        for width in 50..300 {
            let shown = table(&rows, &Zone::for_test(), width);
            for line in shown.lines() {
                let own_key = keys.iter().any(|key| line.ends_with(key));
                assert!(length(line) <= width || own_key, "{width}\n{shown}");
                assert_eq!(line, line.trim_end(), "{width}\n{shown}");
            }
            for part in keys
                .iter()
                .chain(&["31 us", "fanotify", "network.service", "pid 4711"])
            {
                let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(words.contains(part), "{width}: {part}\n{shown}");
            }
        }
    }

    #[test]
    fn a_column_that_nothing_fills_is_left_out() {
        let shown = table(&[told("stopped: bye")], &Zone::for_test(), 80);
        assert_eq!(shown, "TIME (+01)\n1970-01-01 01:00:00  stopped: bye\n");
        let mut row = drift("vm.swappiness", "");
        if let Told::Drift(drift) = &mut row.told {
            drift.during.clear();
        }
        assert_eq!(
            table(&[row], &Zone::for_test(), 120),
            "TIME (+01)           WHAT      KEY            OLD -> NEW  TOOK   HEARD BY\n\
             1970-01-01 01:00:00  restored  vm.swappiness  1 -> 0      31 us  fanotify\n"
        );
    }

    #[test]
    fn a_command_line_is_cut_in_its_middle() {
        assert_eq!(cut("sysctl -w a=0", 13), "sysctl -w a=0");
        assert_eq!(
            cut("sysctl -w net.ipv4.ip_forward=0", 15),
            "sysctl...ward=0"
        );
        assert_eq!(cut("für", 2), "...");
        assert_eq!(cut("äöüß", 3), "...");
    }
}
