//! The table of records, laid out for the width that there is.
//!
//! Where all of it has room, a record is one line; so it always is where no
//! terminal reads. Else the columns that are read first keep their places and the
//! rest follows below them in words. A key is never cut, so that it can be
//! searched for and pasted.

use super::row::{Drift, Row, Told, Writer};
use crate::cli::moment::Zone;
use crate::cli::print::{cell, columns, wrapped};

/// The least that a command line is cut to, in columns.
const LEAST: usize = 30;
/// Between two columns.
const GAP: usize = 2;

/// The rows as text, `width` columns wide at most; only a longer word goes
/// beyond it. Without a width each row is one line.
pub fn table(rows: &[Row], zone: &Zone, width: Option<usize>) -> String {
    let drifts: Vec<&Drift> = rows
        .iter()
        .filter_map(|row| match &row.told {
            Told::Drift(drift) => Some(&**drift),
            Told::Else(_) => None,
        })
        .collect();
    let layout = match width {
        Some(width) => Layout::of(&drifts, width),
        None => Layout::endless(&drifts),
    };
    let newest = rows.last().map_or(0, |row| row.time);
    let time = format!("TIME ({})", zone.name(newest));
    let mut text = String::new();
    layout.push_heads(&mut text, &time);
    for row in rows {
        let time = zone.show(row.time, layout.short_time);
        match &row.told {
            Told::Drift(drift) => layout.push(&mut text, &time, drift),
            Told::Else(message) => layout.push_words(&mut text, &time, message),
        }
    }
    text
}

fn heads() -> Drift {
    Drift {
        what: "WHAT".to_owned(),
        key: "KEY".to_owned(),
        was: "WAS".to_owned(),
        changed: "CHANGED TO".to_owned(),
        restored: "RESTORED TO".to_owned(),
        took: "TOOK".to_owned(),
        heard: "DETECTED BY".to_owned(),
        during: "DURING".to_owned(),
        writer: Writer::Known("WRITER".to_owned()),
        ..Drift::default()
    }
}

/// The columns in which drifts are shown, with their widths, the gap after each
/// included. One that no drift fills has none.
#[derive(Debug)]
struct Layout {
    /// Of all, the last gap included; `None` without end.
    width: Option<usize>,
    short_time: bool,
    time: usize,
    what: usize,
    key: usize,
    /// What it was, was changed to and was restored to.
    values: [usize; 3],
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

const LONG_TIME: usize = "2026-11-23 16:56:18".len() + GAP;
const SHORT_TIME: usize = "11-23 16:56:18".len() + GAP;

/// The width of a column. A few cells longer than `most` are to make no wide
/// column for all: they go without.
fn column(drifts: &[&Drift], cell: fn(&Drift) -> &str, most: usize) -> usize {
    let lengths = drifts.iter().map(|it| columns(cell(it)));
    let widest = lengths.filter(|length| *length <= most).max();
    with_head(widest.unwrap_or(0), cell(&heads()))
}

const VALUES: [fn(&Drift) -> &str; 3] = [|it| &it.was, |it| &it.changed, |it| &it.restored];

impl Layout {
    /// One line for each, whatever its length.
    fn endless(drifts: &[&Drift]) -> Layout {
        const VALUE: usize = 24;
        const DURING: usize = 40;
        let column = |cell, most| column(drifts, cell, most);
        Layout {
            width: None,
            short_time: false,
            time: LONG_TIME,
            what: column(|it| &it.what, usize::MAX),
            key: column(|it| &it.key, usize::MAX),
            values: VALUES.map(|value| column(value, VALUE)),
            rest: Some(Rest {
                took: column(|it| &it.took, usize::MAX),
                heard: column(|it| &it.heard, DURING),
                during: column(|it| &it.during, DURING),
                writer: usize::MAX,
            }),
        }
    }

    fn of(drifts: &[&Drift], width: usize) -> Layout {
        let column = |cell, most| column(drifts, cell, most);
        // The last column needs no gap after it.
        let width = width + GAP;
        let what = column(|it| &it.what, width);
        let values = VALUES.map(|value| column(value, width / 9));
        let [took, heard] = [column(|it| &it.took, width), column(|it| &it.heard, width)];
        let during = column(|it| &it.during, width / 5);
        let writers = drifts.iter().map(|it| columns(&it.writer.cell()));
        let writer = with_head(writers.max().unwrap_or(0), "WRITER");
        let key = column(|it| &it.key, width);
        let fixed = what + values.iter().sum::<usize>();
        for time in [LONG_TIME, SHORT_TIME] {
            let before = time + fixed + key + took + heard + during;
            if before + writer.min(LEAST) <= width {
                return Layout {
                    width: Some(width),
                    short_time: time == SHORT_TIME,
                    time,
                    what,
                    key,
                    values,
                    rest: Some(Rest {
                        took,
                        heard,
                        during,
                        writer: writer.min(width - before),
                    }),
                };
            }
        }
        // Where not even their heads have room, values are said below.
        let narrow = SHORT_TIME + fixed + "KEY".len() + GAP > width;
        let values = if narrow { [0; 3] } else { values };
        let room = width.saturating_sub(SHORT_TIME + fixed + GAP);
        Layout {
            width: Some(width),
            short_time: true,
            time: SHORT_TIME,
            what,
            key: column(|it| &it.key, room).max(key.min("KEY".len() + GAP)),
            values,
            rest: None,
        }
    }

    /// A line of cells, of those columns that there are.
    fn cells(&self, time: &str, drift: &Drift) -> String {
        let mut line = String::new();
        cell(&mut line, time, self.time);
        let mut push = |text: &str, width: usize| {
            if width > 0 {
                cell(&mut line, text, width.max(columns(text) + GAP));
            }
        };
        push(&drift.what, self.what);
        push(&drift.key, self.key);
        for (value, width) in VALUES.into_iter().zip(self.values) {
            push(value(drift), width);
        }
        if let Some(rest) = &self.rest {
            push(&drift.took, rest.took);
            push(&drift.heard, rest.heard);
            push(&drift.during, rest.during);
            let writer = cut(&drift.writer.cell(), rest.writer.saturating_sub(GAP));
            line.push_str(&writer);
        }
        line
    }

    fn push_heads(&self, text: &mut String, time: &str) {
        let mut heads = heads();
        if self.rest.as_ref().is_some_and(|rest| rest.writer == 0) {
            heads.writer = Writer::default();
        }
        push_line(text, &self.cells(time, &heads));
    }

    /// A row of words.
    fn push_words(&self, text: &mut String, time: &str, message: &str) {
        let room = self
            .width
            .map_or(usize::MAX, |width| width.saturating_sub(GAP + self.time));
        let mut time = time;
        for words in wrapped(message, room) {
            let mut line = String::new();
            cell(&mut line, time, self.time);
            line.push_str(&words);
            push_line(text, &line);
            time = "";
        }
    }

    fn push(&self, text: &mut String, time: &str, drift: &Drift) {
        let notes = drift.notes.iter().chain([&drift.error]);
        let notes = notes.filter(|it| !it.is_empty());
        let Some(width) = self.width else {
            let line = self.cells(time, drift);
            let notes = notes.map(|note| format!("; {note}"));
            return push_line(
                text,
                &(line.trim_end().to_owned() + &notes.collect::<String>()),
            );
        };
        let fits = |cell: &str, column: usize| cell.is_empty() || columns(cell) + GAP <= column;
        let begun = fits(&drift.key, self.key)
            && VALUES
                .into_iter()
                .zip(self.values)
                .all(|(value, width)| fits(value(drift), width));
        let rest = self
            .rest
            .as_ref()
            .is_some_and(|rest| fits(&drift.during, rest.during));
        let mut below = Vec::new();
        if begun && rest {
            push_line(text, &self.cells(time, drift));
        } else if begun {
            let first = Drift {
                took: String::new(),
                heard: String::new(),
                during: String::new(),
                writer: Writer::default(),
                ..drift.clone()
            };
            push_line(text, &self.cells(time, &first));
            below.extend(in_words(drift));
        } else {
            let mut line = String::new();
            cell(&mut line, time, self.time);
            cell(&mut line, &drift.what, self.what);
            push_line(text, &(line + &drift.key));
            below.extend(values_in_words(drift));
            below.extend(in_words(drift));
        }
        below.extend(drift.notes.iter().cloned());
        for paragraph in [&below.join(", "), &drift.error] {
            for line in wrapped(paragraph, width.saturating_sub(self.time + GAP)) {
                push_line(text, &format!("{:indent$}{line}", "", indent = self.time));
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
        widest => widest.max(columns(head)) + GAP,
    }
}

/// What the columns of values say, where they say something.
fn values_in_words(drift: &Drift) -> impl Iterator<Item = String> {
    let said = [
        ("was ", &drift.was),
        ("changed to ", &drift.changed),
        ("restored to ", &drift.restored),
    ];
    said.into_iter()
        .filter(|(_, value)| !["-", "various"].contains(&value.as_str()))
        .map(|(word, value)| format!("{word}{value}"))
}

/// What else there are columns for, as MESSAGE says it.
fn in_words(drift: &Drift) -> impl Iterator<Item = String> {
    let said = [
        ("after ", &drift.took),
        ("detected by ", &drift.heard),
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
    if columns(text) <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(DOTS.len());
    let end = kept / 2;
    let fits = |part: &&str, room: usize| columns(part) <= room;
    let heads = text.char_indices().map(|(i, _)| &text[..i]);
    let head = heads.take_while(|head| fits(head, kept - end)).last();
    let mut tails = text.char_indices().map(|(i, _)| &text[i..]);
    let tail = tails.find(|tail| fits(tail, end));
    let [head, tail] = [head, tail].map(Option::unwrap_or_default);
    format!("{head}{DOTS}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(key: &str, writer: &str) -> Row {
        let drift = Drift {
            what: "restored".to_owned(),
            key: key.to_owned(),
            was: "1".to_owned(),
            changed: "0".to_owned(),
            restored: "1".to_owned(),
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
    fn without_a_terminal_a_record_is_one_line() {
        let mut long = drift("net.ipv4.ip_forward", &"argument ".repeat(400));
        if let Told::Drift(drift) = &mut long.told {
            drift.changed = "4096 131072 6291456 4096 131072 6291456".to_owned();
            drift.notes = vec!["9 times".to_owned(), "child of bash".to_owned()];
            drift.error = "EROFS".to_owned();
        }
        let rows = [long, told(&"word ".repeat(100))];
        let shown = table(&rows, &Zone::for_test(), None);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3, "{shown}");
        assert!(lines[1].ends_with("argument; 9 times; child of bash; EROFS"));
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
            let shown = table(&rows, &Zone::for_test(), Some(width));
            for line in shown.lines() {
                let own_key = keys.iter().any(|key| line.ends_with(key));
                assert!(columns(line) <= width || own_key, "{width}\n{shown}");
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
        let shown = table(&[told("stopped: bye")], &Zone::for_test(), Some(80));
        assert_eq!(shown, "TIME (+01)\n1970-01-01 01:00:00  stopped: bye\n");
        let mut row = drift("vm.swappiness", "");
        if let Told::Drift(drift) = &mut row.told {
            drift.during.clear();
        }
        assert_eq!(
            table(&[row], &Zone::for_test(), Some(130)),
            "TIME (+01)           WHAT      KEY            WAS  CHANGED TO  RESTORED TO  TOOK   DETECTED BY\n\
             1970-01-01 01:00:00  restored  vm.swappiness  1    0           1            31 us  fanotify\n"
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
        assert_eq!(cut("网络网络网络", 9), "网...络");
    }
}
