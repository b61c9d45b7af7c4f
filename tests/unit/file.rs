//! The lines of a unit file.

use std::fmt;
use std::fs;
use std::path::Path;

/// One assignment.
pub struct Line {
    place: String,
    /// `Unit`, `Service` or `Install`.
    pub section: String,
    /// The directive.
    pub name: String,
    /// What stands behind the equals sign.
    pub value: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}={}", self.place, self.name, self.value)
    }
}

/// Reads a file of which no line continues in the next one.
pub fn lines(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).expect("a unit file");
    let file = path.file_name().expect("a file").to_string_lossy();
    let mut section = String::new();
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", number + 1);
        assert!(!line.ends_with('\\'), "{place} goes on in the next line");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            name.clone_into(&mut section);
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .unwrap_or_else(|| panic!("{place} is no assignment: {line}"));
        lines.push(Line {
            place,
            section: section.clone(),
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }
    assert!(!lines.is_empty(), "{file} says nothing");
    lines
}
