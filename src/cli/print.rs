//! Standard output and standard error, where the reader may be gone.

use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;

use super::exit;

/// Writes a verb's result to standard output and gives `code`, or
/// [`exit::TROUBLE`] where it could not be written. A reader that has enough
/// (`| head`) is no trouble.
pub fn result(text: &str, code: u8) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => code,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => code,
        Err(error) => {
            note(&format!("netguard: standard output: {error}\n"));
            exit::TROUBLE
        }
    }
}

/// Writes one line at once, of a result that comes line by line. The exit code
/// where there is no use in going on: the reader has enough, or it could not be
/// written.
pub fn line(text: &str) -> Option<u8> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => None,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Some(exit::OK),
        Err(error) => {
            note(&format!("netguard: standard output: {error}\n"));
            Some(exit::TROUBLE)
        }
    }
}

/// Writes a verb's result as JSON, as [`result`] writes text.
pub fn json(value: &impl Serialize, code: u8) -> u8 {
    match serde_json::to_string_pretty(value) {
        Ok(text) => result(&format!("{text}\n"), code),
        Err(error) => {
            note(&format!("netguard: {error}\n"));
            exit::TROUBLE
        }
    }
}

/// Writes to standard error, as far as that can be done.
pub fn note(text: &str) {
    // Nobody is left to tell that nobody is told.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// The columns of a terminal that does not say, and of text for people where
/// there is none.
pub const USUAL_WIDTH: usize = 80;

/// The columns of the terminal; `None` where a program or a file reads along.
pub fn width() -> Option<usize> {
    let stdout = io::stdout();
    stdout.is_terminal().then(|| {
        terminal_size::terminal_size_of(&stdout)
            .map_or(USUAL_WIDTH, |(width, _)| usize::from(width.0))
    })
}

/// Appends a paragraph, broken between words where the lines of a terminal of
/// `width` columns end. Its first line begins with `first`, the others with as
/// many spaces.
pub fn paragraph(text: &mut String, first: &str, words: &str, width: Option<usize>) {
    let indent = first.chars().count();
    let width = width.unwrap_or(usize::MAX);
    text.push_str(first);
    let mut column = indent;
    for word in words.split(' ') {
        let length = word.chars().count();
        if column > indent && column.saturating_add(1 + length) > width {
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_broken_between_words() {
        let mut text = String::new();
        paragraph(&mut text, "  * ", "one two three four", Some(12));
        assert_eq!(text, "  * one two\n    three\n    four\n");
        text.clear();
        paragraph(&mut text, "", "averyverylongword x", Some(5));
        assert_eq!(text, "averyverylongword\nx\n");
        text.clear();
        paragraph(&mut text, "  ", "one two three four", None);
        assert_eq!(text, "  one two three four\n");
    }
}
