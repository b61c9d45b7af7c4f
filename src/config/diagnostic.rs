//! Errors and warnings of a configuration: what, where, and the remedy.

use std::path::PathBuf;
use std::sync::Arc;

use super::file::{ConfigFile, Place, Span};
use super::tables::Tables;
use crate::model::text::push_visible;

netguard_core::words! {
    /// How bad it is.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Severity {
        /// The configuration is refused.
        Error = "error",
        /// It is taken, and probably not what was meant.
        Warning = "warning",
        /// No error; informational.
        Note = "note",
    }
}

/// A place with a label.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub(super) place: Place,
    pub(super) text: String,
}

/// What the message is about.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// The configuration as a whole.
    Nothing,
    /// A file, or where one was searched.
    File(PathBuf),
    /// A place in a file.
    Place(Label),
}

/// One finding, shown as compilers show theirs: the message, the place with its
/// line and a caret, what to do.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) subject: Subject,
    /// A second place that matters, such as where a key was set first.
    pub(super) other: Option<Label>,
    /// Lines below: the word (`help`, `note`) and the text.
    pub(super) footers: Vec<(&'static str, String)>,
}

impl Diagnostic {
    fn new(severity: Severity, message: impl Into<String>, subject: Subject) -> Self {
        Diagnostic {
            severity,
            message: message.into(),
            subject,
            other: None,
            footers: Vec::new(),
        }
    }

    /// A finding about a place.
    pub fn at(severity: Severity, place: Place, message: impl Into<String>) -> Self {
        let label = Label {
            place,
            text: String::new(),
        };
        Self::new(severity, message, Subject::Place(label))
    }

    /// An error about a file as a whole.
    pub fn in_file(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message, Subject::File(path.into()))
    }

    /// A finding about no file in particular.
    pub fn general(severity: Severity, message: impl Into<String>) -> Self {
        Self::new(severity, message, Subject::Nothing)
    }

    /// Says something beside the caret.
    pub fn label(&mut self, text: impl Into<String>) -> &mut Self {
        if let Subject::Place(label) = &mut self.subject {
            label.text = text.into();
        }
        self
    }

    /// Shows a second place with a word on it.
    pub fn other(&mut self, place: Place, text: impl Into<String>) -> &mut Self {
        self.other = Some(Label {
            place,
            text: text.into(),
        });
        self
    }

    /// Says what to do.
    pub fn help(&mut self, text: impl Into<String>) -> &mut Self {
        self.footers.push(("help", text.into()));
        self
    }

    /// Adds what is worth knowing.
    pub fn note(&mut self, text: impl Into<String>) -> &mut Self {
        self.footers.push(("note", text.into()));
        self
    }

    /// Says `did you mean ...?` where there is a near miss.
    pub fn suggest(&mut self, near: Option<impl AsRef<str>>) -> &mut Self {
        if let Some(near) = near {
            self.help(format!("did you mean {}?", quoted(near.as_ref())));
        }
        self
    }

    /// The message, without its place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The message and what to do about it, on one line.
    pub fn one_line(&self) -> String {
        let help = self.footers.iter().filter(|(word, _)| *word == "help");
        let help: Vec<&str> = help.map(|(_, text)| text.as_str()).collect();
        match help.is_empty() {
            true => self.message.clone(),
            false => format!("{}; {}", self.message, help.join("; ")),
        }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The file it is about, as shown.
    pub(super) fn file(&self) -> Option<&PathBuf> {
        match &self.subject {
            Subject::Nothing => None,
            Subject::File(path) => Some(path),
            Subject::Place(label) => Some(label.place.file.path()),
        }
    }

    /// Where in its file it is: findings of one file are reported in this order.
    pub(super) fn offset(&self) -> usize {
        match &self.subject {
            Subject::Place(label) => label.place.span.start,
            _ => 0,
        }
    }
}

/// What is found while one file is read.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) file: Arc<ConfigFile>,
    /// The names of routing tables that the file may use.
    pub(super) tables: Arc<Tables>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Findings {
    pub(super) fn new(file: &Arc<ConfigFile>, tables: &Arc<Tables>) -> Self {
        Findings {
            file: Arc::clone(file),
            tables: Arc::clone(tables),
            diagnostics: Vec::new(),
        }
    }

    /// Adds an error; details are added to the returned value.
    pub(super) fn error(
        &mut self,
        span: impl Into<Span>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Severity::Error, span, message)
    }

    /// Adds a warning, likewise.
    pub(super) fn warning(
        &mut self,
        span: impl Into<Span>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Severity::Warning, span, message)
    }

    fn add(
        &mut self,
        severity: Severity,
        span: impl Into<Span>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let place = self.place(span);
        let at = self.diagnostics.len();
        self.diagnostics
            .push(Diagnostic::at(severity, place, message));
        &mut self.diagnostics[at]
    }

    /// The first line within a text of several that is meant, without the blanks around it;
    /// all of the text where there is none.
    pub(super) fn line_within(
        &self,
        span: impl Into<Span>,
        is_meant: impl Fn(&str) -> bool,
    ) -> Span {
        let span = span.into();
        let text = self.file.slice(span);
        let mut lines = text.split_inclusive('\n').scan(span.start, |next, line| {
            let start = *next;
            *next += line.len();
            let blanks = line.len() - line.trim_start().len();
            Some((start + blanks, line.trim()))
        });
        let line = lines.find(|(_, line)| is_meant(line));
        line.map_or(span, |(start, line)| Span {
            start,
            end: start + line.len(),
        })
    }

    pub(super) fn place(&self, span: impl Into<Span>) -> Place {
        Place::new(&self.file, span.into())
    }
}

/// A tab, as shown.
const TAB: &str = "    ";

/// Adds `c` as it can be shown on any terminal: control characters and what
/// changes the direction or the width of text are spelled out.
pub(super) fn push_safe(text: &mut String, c: char) {
    match c {
        '\t' => text.push_str(TAB),
        c => push_visible(text, c),
    }
}

/// `text` as it can be shown on any terminal.
pub(super) fn safe(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        push_safe(&mut shown, c);
    }
    shown
}

/// The most characters of a name that a message shows.
const LONGEST_NAME: usize = 80;

/// Text from a file, between backticks, safe to print and not too long.
pub fn quoted(text: &str) -> String {
    let mut shown = String::from("`");
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST_NAME {
            shown.push_str("...");
            break;
        }
        push_safe(&mut shown, c);
    }
    shown.push('`');
    shown
}

/// Names as a list, each between backticks: `a`, `b` and `c`.
pub fn all_of(names: &[&str]) -> String {
    let mut names: Vec<_> = names.iter().map(|name| quoted(name)).collect();
    match (names.pop(), names.is_empty()) {
        (Some(last), false) => format!("{} and {last}", names.join(", ")),
        (last, _) => last.unwrap_or_default(),
    }
}
