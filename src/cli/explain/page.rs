//! The answer, item by item.

use super::super::print;

/// The answer, item by item.
pub(super) struct Page {
    pub text: String,
    /// Whether each key is shown.
    pub all: bool,
    pub width: Option<usize>,
    last: &'static str,
}

impl Page {
    pub fn new(all: bool) -> Self {
        Page {
            text: String::new(),
            all,
            width: print::width(),
            last: "",
        }
    }

    /// One item; a repeated label is left blank.
    pub fn item(&mut self, label: &'static str, words: &str) {
        let shown = if label == self.last { "" } else { label };
        if !label.is_empty() {
            self.last = label;
        }
        print::paragraph(&mut self.text, &label_cell(shown), words, self.width);
    }

    /// Lines that belong to the item before them, which are indented as it is.
    pub fn below(&mut self, lines: &str) {
        for line in lines.lines() {
            let indented = format!("{}{line}", label_cell(""));
            self.text.push_str(indented.trim_end());
            self.text.push('\n');
        }
    }
}

/// The beginning of a line, with its label.
pub(super) fn label_cell(label: &str) -> String {
    format!("  {label:<9} ")
}
