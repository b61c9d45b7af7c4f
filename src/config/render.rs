//! Diagnostics as text: lines of the file with carets under them.

use std::fmt;

use unicode_width::UnicodeWidthStr;

use super::diagnostic::{Diagnostic, Label, Severity, Subject, push_safe, safe};
use super::file::Place;

/// The widest part of a line that is shown, in columns.
const WIDEST: usize = 120;
/// What is kept before the caret where a line is cut.
const BEFORE_CARET: usize = 40;
/// What stands for the rest of a line.
const CUT: &str = "...";

/// The message and its lines, without colour, ended by a newline.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        diagnostic(f, self)
    }
}

fn diagnostic(f: &mut fmt::Formatter<'_>, it: &Diagnostic) -> fmt::Result {
    writeln!(f, "{}: {}", it.severity.as_str(), it.message)?;
    let mut gutter = 1;
    match &it.subject {
        Subject::Nothing => {}
        Subject::File(path) => writeln!(f, "  --> {}", safe(&path.to_string_lossy()))?,
        Subject::Place(label) if it.severity == Severity::Note => arrow(f, 1, "-->", &label.place)?,
        Subject::Place(label) => {
            let marks = [
                Some(Mark::new(label, '^')),
                it.other.as_ref().map(|other| Mark::new(other, '-')),
            ];
            let marks = marks.into_iter().flatten().collect::<Vec<_>>();
            gutter = marks
                .iter()
                .map(|mark| mark.label.place.line().to_string().len())
                .max()
                .unwrap_or(1);
            snippets(f, gutter, marks)?;
        }
    }
    for (word, text) in &it.footers {
        writeln!(f, "{:gutter$}  = {word}: {text}", "")?;
    }
    Ok(())
}

/// A label with the character that underlines its place.
struct Mark<'a> {
    label: &'a Label,
    underline: char,
}

impl<'a> Mark<'a> {
    fn new(label: &'a Label, underline: char) -> Self {
        Mark { label, underline }
    }

    fn line(&self) -> u32 {
        self.label.place.line()
    }
}

fn arrow(f: &mut fmt::Formatter<'_>, gutter: usize, arrow: &str, place: &Place) -> fmt::Result {
    let path = safe(&place.file.path().to_string_lossy());
    let (line, column) = (place.line(), place.column());
    writeln!(f, "{:gutter$} {arrow} {path}:{line}:{column}", "")
}

/// Writes the lines that are marked: those of the first mark's file together, in
/// their order, then those of other files.
fn snippets(f: &mut fmt::Formatter<'_>, gutter: usize, marks: Vec<Mark<'_>>) -> fmt::Result {
    let Some(first) = marks.first() else {
        return Ok(());
    };
    let file = first.label.place.file.path().clone();
    arrow(f, gutter, "-->", &first.label.place)?;
    writeln!(f, "{:gutter$}  |", "")?;
    let (mut here, elsewhere): (Vec<_>, Vec<_>) = marks
        .into_iter()
        .partition(|mark| *mark.label.place.file.path() == file);
    here.sort_by_key(|mark| mark.label.place.span.start);
    let mut before: Option<u32> = None;
    for mark in &here {
        match before {
            Some(line) if line == mark.line() => {}
            previous => {
                if previous.is_some_and(|line| line + 1 < mark.line()) {
                    writeln!(f, "{CUT}")?;
                }
                source_line(f, gutter, mark)?;
            }
        }
        before = Some(mark.line());
        underline(f, gutter, mark)?;
    }
    for mark in &elsewhere {
        arrow(f, gutter, ":::", &mark.label.place)?;
        writeln!(f, "{:gutter$}  |", "")?;
        source_line(f, gutter, mark)?;
        underline(f, gutter, mark)?;
    }
    Ok(())
}

/// The part of a marked line that is shown, with the columns that are marked.
struct Shown {
    text: String,
    /// Columns before the mark.
    indent: usize,
    /// Columns of the mark, at least 1.
    width: usize,
}

fn shown(place: &Place) -> Shown {
    let file = &place.file;
    let index = file.line_index(place.span.start);
    let (line, offset) = (file.line(index), file.line_start(index));
    let mut cells: Vec<String> = Vec::new();
    let (mut from, mut to) = (None, None);
    for (i, c) in line.char_indices() {
        if i + offset >= place.span.start {
            from.get_or_insert(cells.len());
        }
        if i + offset >= place.span.end {
            to.get_or_insert(cells.len());
        }
        let mut cell = String::new();
        push_safe(&mut cell, c);
        cells.push(cell);
    }
    let from = from.unwrap_or(cells.len());
    let to = to.unwrap_or(cells.len()).max(from);
    let columns = |cells: &[String]| cells.iter().map(|cell| cell.width()).sum::<usize>();

    let (mut first, mut last) = (0, cells.len());
    if columns(&cells) > WIDEST {
        first = from.saturating_sub(BEFORE_CARET);
        let mut room = WIDEST;
        last = first;
        while let Some(cell) = cells.get(last) {
            match room.checked_sub(cell.width()) {
                Some(rest) => room = rest,
                None => break,
            }
            last += 1;
        }
    }
    let head = if first > 0 { CUT } else { "" };
    let tail = if last < cells.len() { CUT } else { "" };
    Shown {
        text: format!("{head}{}{tail}", cells[first..last].concat()),
        indent: head.len() + columns(&cells[first..from.min(last)]),
        width: columns(&cells[from.min(last)..to.min(last)]).max(1),
    }
}

fn source_line(f: &mut fmt::Formatter<'_>, gutter: usize, mark: &Mark<'_>) -> fmt::Result {
    let text = shown(&mark.label.place).text;
    let text = text.trim_end();
    let line = mark.line();
    if text.is_empty() {
        writeln!(f, " {line:>gutter$} |")
    } else {
        writeln!(f, " {line:>gutter$} | {text}")
    }
}

fn underline(f: &mut fmt::Formatter<'_>, gutter: usize, mark: &Mark<'_>) -> fmt::Result {
    let Shown { indent, width, .. } = shown(&mark.label.place);
    let carets = mark.underline.to_string().repeat(width);
    let text = &mark.label.text;
    let space = if text.is_empty() { "" } else { " " };
    writeln!(f, "{:gutter$}  | {:indent$}{carets}{space}{text}", "", "")
}

#[cfg(test)]
mod tests {
    use super::super::file::{ConfigFile, Place};
    use super::*;

    fn rendered(text: &str, span: std::ops::Range<usize>) -> String {
        let file = ConfigFile::new("/f.toml".into(), text.to_owned());
        let place = Place::new(&file, span.into());
        Diagnostic::at(Severity::Error, place, "wrong").to_string()
    }

    #[test]
    fn the_caret_stands_under_the_text() {
        assert_eq!(
            rendered("\tx = \u{1b}é\n", 5..8),
            "error: wrong\n  --> /f.toml:1:6\n   |\n 1 |     x = \\u{1b}é\n   |         ^^^^^^^\n"
        );
    }

    #[test]
    fn a_span_over_lines_is_marked_to_the_end_of_its_first() {
        assert_eq!(
            rendered("x = [\n1]\n", 4..8),
            "error: wrong\n  --> /f.toml:1:5\n   |\n 1 | x = [\n   |     ^\n"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("{} = 1", "x".repeat(1000));
        let shown = rendered(&text, 1003..1004);
        let lines = shown.lines().collect::<Vec<_>>();
        assert!(lines[3].starts_with(" 1 | ...xxx"), "{shown}");
        assert_eq!(lines[3].find('1').map(|_| lines[3].len()), Some(49));
        assert_eq!(lines[4].find('^'), lines[3].rfind('1'));
        let cut = rendered(&text, 0..1000);
        assert!(
            cut.lines()
                .all(|line| line.chars().count() <= WIDEST + BEFORE_CARET)
        );
    }
}
