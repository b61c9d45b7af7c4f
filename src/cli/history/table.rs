//! The table of records, laid out for the width that there is.
//!
//! Where all of it has room, a record is one line; so it always is where no
//! terminal reads. Else the columns that are read first keep their places and the
//! rest follows below them in words. A key is never cut, so that it can be
//! searched for and pasted, but for a rule of iptables that is longer than a line.

use std::array;

use super::row::{COLUMNS, Content, DURING, Drift, KEY, Row, TOOK, WAS, WHAT, Writer};
use crate::cli::print::{columns, wrapped};
use crate::cli::table::{GAP, push_line, width};
use crate::journal::moment::Zone;

/// The least that a command line is cut to, in columns.
const LEAST: usize = 30;
const WRITER: &str = "WRITER";
/// The head where no row has other columns.
const MESSAGE: &str = "MESSAGE";
const LONG_TIME: usize = "2026-11-23 16:56:18".len() + GAP;
const SHORT_TIME: usize = "11-23 16:56:18".len() + GAP;

/// The rows as text, `width` columns wide at most; only a longer word goes
/// beyond it. Without a width each row is one line.
pub fn table(rows: &[Row], zone: &Zone, width: Option<usize>) -> String {
    let drifts: Vec<&Drift> = rows
        .iter()
        .filter_map(|row| match &row.content {
            Content::Drift(drift) => Some(&**drift),
            Content::Else(_) => None,
        })
        .collect();
    let layout = match width {
        Some(width) => Layout::of(&drifts, width),
        None => Layout::endless(&drifts),
    };
    let newest = rows.last().map_or(0, |row| row.time);
    let heads = Drift {
        cells: COLUMNS.map(|(head, _)| head.to_owned()),
        writer: Writer::Known(WRITER.to_owned()),
        ..Drift::default()
    };
    let head = format!("TIME ({})", zone.name(newest));
    let mut text = String::new();
    match drifts.is_empty() {
        true => push_line(&mut text, [(&*head, layout.time), (MESSAGE, 1)]),
        false => text = layout.line(&head, &heads, true),
    }
    for row in rows {
        let time = zone.show(row.time, layout.time == SHORT_TIME);
        match &row.content {
            Content::Drift(drift) => layout.push(&mut text, &time, drift),
            Content::Else(message) => layout.push_words(&mut text, &time, message),
        }
    }
    text
}

/// The columns in which drifts are shown, with their widths, the gap after each
/// included. One that no drift fills has none.
#[derive(Debug)]
struct Layout {
    /// Of all, the last gap included; `None` without end.
    width: Option<usize>,
    time: usize,
    columns: [usize; COLUMNS.len()],
    writer: usize,
    /// Whether a line has room for what follows the values.
    whole: bool,
}

/// The width of a column. A few cells longer than `most` are to make no wide
/// column for all: they go without.
fn column(drifts: &[&Drift], i: usize, most: usize) -> usize {
    width(
        COLUMNS[i].0,
        drifts.iter().map(|it| it.cells[i].as_str()),
        most,
    )
}

impl Layout {
    /// One line for each, whatever its length.
    fn endless(drifts: &[&Drift]) -> Layout {
        const ANY: usize = usize::MAX;
        let most = [ANY, ANY, 24, 24, 24, ANY, 40, 40];
        Layout {
            width: None,
            time: LONG_TIME,
            columns: array::from_fn(|i| column(drifts, i, most[i])),
            writer: ANY,
            whole: true,
        }
    }

    fn of(drifts: &[&Drift], wide: usize) -> Layout {
        // The last column needs no gap after it.
        let wide = wide + GAP;
        let value = wide / 9;
        let most = [wide, wide, value, value, value, wide, wide, wide / 5];
        let mut columns: [usize; COLUMNS.len()] = array::from_fn(|i| column(drifts, i, most[i]));
        let writers: Vec<String> = drifts.iter().map(|it| it.writer.cell()).collect();
        let writer = width(WRITER, writers.iter().map(String::as_str), usize::MAX);
        for time in [LONG_TIME, SHORT_TIME] {
            let before = time + columns.iter().sum::<usize>();
            if before + writer.min(LEAST) <= wide {
                return Layout {
                    width: Some(wide),
                    time,
                    columns,
                    writer: writer.min(wide - before),
                    whole: true,
                };
            }
        }
        let before = SHORT_TIME + columns[WHAT] + columns[WAS..TOOK].iter().sum::<usize>() + GAP;
        let least = columns[KEY].min("KEY".len() + GAP);
        columns[KEY] = column(drifts, KEY, wide.saturating_sub(before)).max(least);
        columns[TOOK..].fill(0);
        // Where there is no room for their heads, values are printed below.
        if before + "KEY".len() > wide {
            columns[WAS..TOOK].fill(0);
        }
        Layout {
            width: Some(wide),
            time: SHORT_TIME,
            columns,
            writer: 0,
            whole: false,
        }
    }

    /// A line of cells, of those columns that there are; what follows the values
    /// only where `whole`.
    fn line(&self, time: &str, drift: &Drift, whole: bool) -> String {
        let shown = if whole { COLUMNS.len() } else { TOOK };
        let writer = match whole && self.writer > 0 {
            true => cut(&drift.writer.cell(), self.writer.saturating_sub(GAP)),
            false => String::new(),
        };
        let cells = drift.cells[..shown].iter().zip(self.columns);
        let cells = cells.map(|(cell, width)| (cell.as_str(), width));
        let mut line = String::new();
        push_line(
            &mut line,
            [(time, self.time)]
                .into_iter()
                .chain(cells)
                .chain([(&*writer, 1)]),
        );
        line
    }

    /// Whether its column has room for the writer: command lines alone are cut.
    fn shows(&self, writer: &Writer) -> bool {
        match writer {
            Writer::Known(_) => true,
            Writer::Unknown(reason) if reason.is_empty() => true,
            Writer::Unknown(_) => columns(&writer.cell()) + GAP <= self.writer,
        }
    }

    /// A row of words.
    fn push_words(&self, text: &mut String, time: &str, message: &str) {
        let room = self
            .width
            .map_or(usize::MAX, |width| width.saturating_sub(GAP + self.time));
        let mut time = time;
        for words in wrapped(message, room) {
            push_line(text, [(time, self.time), (&words, 1)]);
            time = "";
        }
    }

    fn push(&self, text: &mut String, time: &str, drift: &Drift) {
        let Some(width) = self.width else {
            let notes = drift.notes.iter().chain([&drift.error]);
            let notes = notes.filter(|it| !it.is_empty());
            let notes: String = notes.map(|note| format!("; {note}")).collect();
            let line = self.line(time, drift, true);
            return push_line(text, [(&*(line.trim_end().to_owned() + &notes), 1)]);
        };
        let fits = |i: usize| {
            let cell = &drift.cells[i];
            cell.is_empty() || columns(cell) + GAP <= self.columns[i]
        };
        let begun = (KEY..TOOK).all(fits);
        let whole = begun && self.whole && fits(DURING) && self.shows(&drift.writer);
        let mut below = Vec::new();
        if begun {
            text.push_str(&self.line(time, drift, whole));
        } else {
            let [what, key, ..] = &drift.cells;
            let room = width.saturating_sub(self.time + self.columns[WHAT] + GAP);
            let mut before = (time, what.as_str());
            for key in wrapped(key, room) {
                let (time, what) = std::mem::take(&mut before);
                push_line(
                    text,
                    [(time, self.time), (what, self.columns[WHAT]), (&key, 1)],
                );
            }
            below.extend(in_words(drift, WAS..TOOK));
        }
        if !whole {
            below.extend(in_words(drift, TOOK..COLUMNS.len()));
            below.extend(Some(drift.writer.words()).filter(|words| !words.is_empty()));
        }
        below.extend(drift.notes.iter().cloned());
        for paragraph in [&below.join(", "), &drift.error] {
            for line in wrapped(paragraph, width.saturating_sub(self.time + GAP)) {
                push_line(text, [("", self.time), (&line, 1)]);
            }
        }
    }
}

/// The non-empty columns, as in MESSAGE.
fn in_words(drift: &Drift, columns: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    let said = columns.map(|i| (COLUMNS[i].1, &drift.cells[i]));
    said.filter(|(_, cell)| !["", "-", "various"].contains(&cell.as_str()))
        .map(|(word, cell)| format!("{word}{cell}"))
}

/// `text` cut in its middle to at most `width` columns: a command line's
/// program and its last arguments are the most useful.
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
        let cells = [
            "restored",
            key,
            "1",
            "0",
            "1",
            "31 us",
            "fanotify",
            "network.service",
        ];
        let drift = Drift {
            cells: cells.map(str::to_owned),
            writer: if writer.is_empty() {
                Writer::default()
            } else {
                Writer::Known(writer.to_owned())
            },
            ..Drift::default()
        };
        Row {
            time: 0,
            content: Content::Drift(Box::new(drift)),
        }
    }

    fn row(text: &str) -> Row {
        Row {
            time: 0,
            content: Content::Else(text.to_owned()),
        }
    }

    #[test]
    fn without_a_terminal_a_record_is_one_line() {
        let mut long = drift("net.ipv4.ip_forward", &"argument ".repeat(400));
        if let Content::Drift(drift) = &mut long.content {
            drift.cells[WAS + 1] = "4096 131072 6291456 4096 131072 6291456".to_owned();
            drift.notes = vec!["9 times".to_owned(), "child of bash".to_owned()];
            drift.error = "EROFS".to_owned();
        }
        let rows = [long, row(&"word ".repeat(100))];
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
            row("started: 6 of 6 values OK, 6 invariants"),
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
    fn why_a_writer_is_unknown_is_never_cut() {
        let reason = "process 86 exited before it was examined";
        let mut unknown = drift("net.ipv4.ip_forward", "");
        if let Content::Drift(drift) = &mut unknown.content {
            drift.writer = Writer::Unknown(reason.to_owned());
        }
        for width in 60..300 {
            let shown = table(
                std::slice::from_ref(&unknown),
                &Zone::for_test(),
                Some(width),
            );
            let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains(reason), "{width}\n{shown}");
        }
    }

    #[test]
    fn a_rule_that_is_longer_than_a_line_is_broken_between_its_words() {
        let set = "kube-loadbalancer-source-ranges";
        let key = format!("iptables/ipv4/nat/POSTROUTING/-m~set~--match-set~{set}~src~-j~RETURN");
        let shown = table(&[drift(&key, "nft -f -")], &Zone::for_test(), Some(80));
        assert!(shown.lines().all(|line| columns(line) <= 80), "{shown}");
        let whole: String = shown.split_whitespace().collect();
        assert!(whole.contains(&key), "{shown}");
    }

    #[test]
    fn a_column_that_nothing_fills_is_left_out() {
        let shown = table(&[row("stopped: bye")], &Zone::for_test(), Some(80));
        assert_eq!(
            shown,
            "TIME (+01)           MESSAGE\n1970-01-01 01:00:00  stopped: bye\n"
        );
        assert_eq!(
            table(&[row("stopped: bye")], &Zone::for_test(), None),
            shown
        );
        let mut row = drift("vm.swappiness", "");
        if let Content::Drift(drift) = &mut row.content {
            drift.cells[DURING].clear();
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
