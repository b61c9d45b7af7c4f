//! The text of one file, and places in it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::Origin;

/// A range of bytes in a file's text, the end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Span {
            start: range.start,
            end: range.end,
        }
    }
}

/// A file of the configuration, read.
#[derive(Debug)]
pub struct ConfigFile {
    path: Arc<PathBuf>,
    text: String,
    /// Where each line starts; never empty.
    lines: Vec<usize>,
}

impl ConfigFile {
    /// The file that people know as `path`. A byte order mark is dropped.
    pub fn new(path: PathBuf, mut text: String) -> Arc<Self> {
        if text.starts_with('\u{feff}') {
            text.remove(0);
        }
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(i, _)| i + 1))
            .collect();
        Arc::new(ConfigFile {
            path: Arc::new(path),
            text,
            lines,
        })
    }

    /// The path as shown to people: below the root that was asked for.
    pub fn path(&self) -> &Arc<PathBuf> {
        &self.path
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of `span`.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    /// The index of the line with the byte at `offset`, from 0.
    pub fn line_index(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset) - 1
    }

    /// The offset at which a line starts.
    pub fn line_start(&self, index: usize) -> usize {
        self.lines.get(index).copied().unwrap_or(self.text.len())
    }

    /// A line without its end.
    pub fn line(&self, index: usize) -> &str {
        let end = self
            .lines
            .get(index + 1)
            .map_or(self.text.len(), |next| next - 1);
        let line = self.text.get(self.line_start(index)..end);
        line.map_or("", |line| line.strip_suffix('\r').unwrap_or(line))
    }

    /// `span`, made to lie within the text and on whole characters. One at the
    /// very end moves back behind the last thing that was written.
    pub fn fit(&self, span: Span) -> Span {
        let written = self.text.trim_end().len();
        let start = self.whole(span.start);
        let start = if start == self.text.len() {
            written
        } else {
            start
        };
        Span {
            start,
            end: self.whole(span.end.max(start)),
        }
    }

    fn whole(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

/// A place in a file.
#[derive(Debug, Clone)]
pub struct Place {
    pub file: Arc<ConfigFile>,
    pub span: Span,
}

impl Place {
    /// The place in `file` that `span` names, made to lie within it.
    pub fn new(file: &Arc<ConfigFile>, span: Span) -> Self {
        Place {
            file: Arc::clone(file),
            span: file.fit(span),
        }
    }

    /// The line, from 1.
    pub fn line(&self) -> u32 {
        u32::try_from(self.file.line_index(self.span.start) + 1).unwrap_or(u32::MAX)
    }

    /// The column, from 1, in characters.
    pub fn column(&self) -> usize {
        let index = self.file.line_index(self.span.start);
        let before = Span {
            start: self.file.line_start(index),
            end: self.span.start,
        };
        self.file.slice(before).chars().count() + 1
    }

    /// The first line after this one that is meant, without the blanks around it, in the
    /// same table; this place where there is none.
    #[must_use]
    pub fn line_below(&self, is_meant: impl Fn(&str) -> bool) -> Place {
        let file = &self.file;
        let first = file.line_index(self.span.start) + 1;
        let mut below = (first..file.lines.len()).map(|index| (index, file.line(index)));
        let found = below
            .by_ref()
            .take_while(|(_, line)| !line.starts_with('['))
            .find(|(_, line)| is_meant(line.trim()));
        let Some((index, line)) = found else {
            return self.clone();
        };
        let start = file.line_start(index) + line.len() - line.trim_start().len();
        let end = start + line.trim().len();
        Place::new(file, Span { start, end })
    }

    /// The place as the journal and `netguard config` name it.
    pub fn origin(&self) -> Origin {
        Origin {
            file: Arc::clone(&self.file.path),
            line: self.line(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, range: Range<usize>) -> (u32, usize) {
        let file = ConfigFile::new("f".into(), text.to_owned());
        let place = Place::new(&file, range.into());
        (place.line(), place.column())
    }

    #[test]
    fn lines_and_columns_count_from_one() {
        assert_eq!(place("a\nbc\n", 0..1), (1, 1));
        assert_eq!(place("a\nbc\n", 3..4), (2, 2));
        assert_eq!(place("é\té", 3..5), (1, 3));
        assert_eq!(place("\u{feff}a", 0..1), (1, 1));
        assert_eq!(place("", 0..0), (1, 1));
    }

    #[test]
    fn a_place_at_the_end_points_behind_the_last_text() {
        assert_eq!(place("x = [\n\n", 7..7), (1, 6));
        assert_eq!(place("x = [", 99..100), (1, 6));
    }

    #[test]
    fn lines_come_without_their_ends() {
        let file = ConfigFile::new("f".into(), "a\r\nb".to_owned());
        assert_eq!(file.line(0), "a");
        assert_eq!(file.line(1), "b");
        assert_eq!(file.line(2), "");
    }
}
