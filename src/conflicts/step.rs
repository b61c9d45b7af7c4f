//! Changes of files that a remedy consists of.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::files::tree::Tree;
use crate::model::{Origin, text};

/// The drop-in that takes precedence in sysctl.d(5).
pub const DROP_IN: &str = "/etc/sysctl.d/99-zz-netguard.conf";

/// A change of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    #[serde(serialize_with = "text::serialize_path")]
    pub file: PathBuf,
    /// The line to replace, from 1; `None` where one must be added
    /// at the end.
    pub line: Option<u32>,
    /// The line as it must be, or what must be added: several lines where a
    /// section comes with it.
    pub text: String,
}

impl Step {
    pub fn add(file: impl Into<PathBuf>, text: String) -> Self {
        Step {
            file: file.into(),
            line: None,
            text,
        }
    }

    pub fn change(place: &Origin, text: String) -> Self {
        Step {
            file: place.file.to_path_buf(),
            line: Some(place.line),
            text,
        }
    }

    /// Whether its file is there, and under no other name too, or can be made.
    pub fn is_possible(&self, tree: &Tree) -> bool {
        // No shell has the characters that stand for single bytes.
        let path = self
            .file
            .to_str()
            .filter(|it| !it.contains(text::is_foreign));
        path.is_some_and(|it| tree.is_plain(it) || (self.line.is_none() && !tree.exists(it)))
    }

    /// The tree with this change made.
    pub fn on(&self, tree: &Tree) -> Tree {
        let known = tree.read(&self.file);
        let text = known.map_or_else(String::new, |it| it.text.to_string());
        let mut lines: Vec<&str> = text.split('\n').collect();
        match self.line {
            Some(number) => {
                if let Some(line) = lines.get_mut(number as usize - 1) {
                    *line = &self.text;
                }
            }
            None => {
                if lines.last().is_some_and(|it| it.is_empty()) {
                    lines.pop();
                }
                lines.extend([&self.text, ""]);
            }
        }
        tree.with(&self.file, &lines.join("\n"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, text) = (self.file.display(), &self.text);
        match self.line {
            Some(line) => write!(f, "change {file}:{line} to `{text}`"),
            None => write!(f, "write `{text}` to {file}"),
        }
    }
}

/// What may be done about a line of a file that is not of sysctl.d(5).
#[derive(Debug, Default)]
pub struct Remedies {
    /// What to write, and how that reads; the best first.
    pub candidates: Vec<(Vec<Step>, String)>,
    /// What to do where none of them is confirmed.
    pub otherwise: String,
}
