//! Files as Python's configparser reads them, the way tuned asks it to: `=`
//! alone parts name and value, `#` begins a comment also behind a value, what is
//! set twice counts the last time.

use crate::conflicts::files::ordered::Ordered;
use crate::model::text;

/// The value of an option and the line that has it; `None` where the line is the
/// bare name.
#[derive(Debug, Clone)]
pub struct Entry {
    pub value: Option<String>,
    pub line: u32,
    /// The characters before it: the lines below it go by them.
    pub indent: usize,
}

/// The options of each section.
pub type Config = Ordered<Ordered<Entry>>;

/// Which files are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A profile: sections of `name = value`.
    Profile,
    /// tuned-main.conf: options, in no section.
    Main,
    /// A file of variables: options in a section or none; a bare name does not matter.
    Variables,
}

/// The section of options that are in none.
pub const NO_SECTION: &str = "";

const DEFAULT: &str = "DEFAULT";

/// The sections of a file; `None` where Python finds it broken, all of it, which
/// of a file of variables ends tuned.
pub fn parse(text: &str, form: Form) -> Option<Config> {
    // Python decodes strictly, and ends lines at `\r` too.
    if text.contains(text::is_foreign) {
        return None;
    }
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut parser = Parser::new(form);
    for (line, number) in text.split('\n').zip(1..) {
        parser.line(line, number)?;
    }
    Some(parser.finish())
}

struct Parser {
    form: Form,
    config: Config,
    defaults: Ordered<Entry>,
    section: Option<String>,
    option: Option<String>,
    indent: usize,
}

impl Parser {
    fn new(form: Form) -> Self {
        let mut config = Config::default();
        let section = (form != Form::Profile).then(|| NO_SECTION.to_owned());
        if let Some(name) = &section {
            config.insert(name.clone(), Ordered::default());
        }
        Parser {
            form,
            config,
            defaults: Ordered::default(),
            section,
            option: None,
            indent: 0,
        }
    }

    fn line(&mut self, line: &str, number: u32) -> Option<()> {
        let is_comment = line.trim_start_matches(is_blank).starts_with(['#', ';']);
        let inline = inline_comment(line);
        let end = if is_comment { Some(0) } else { inline };
        let value = line[..end.unwrap_or(line.len())].trim_matches(is_blank);
        if value.is_empty() {
            if end.is_none() {
                self.go_on("");
            }
            return Some(());
        }
        let indent = line.chars().position(|c| !is_blank(c)).unwrap_or_default();
        if self.section.is_some() && self.option.is_some() && indent > self.indent {
            return self.go_on(value);
        }
        self.indent = indent;
        if let Some(name) = header(value) {
            if name != DEFAULT && self.config.get(name).is_none() {
                self.config.insert(name.to_owned(), Ordered::default());
            }
            self.section = Some(name.to_owned());
            self.option = None;
            return Some(());
        }
        let (name, text) = match value.split_once('=') {
            Some((name, text)) => (
                name.trim_end_matches(is_blank),
                Some(strip(text).to_owned()),
            ),
            None if self.form == Form::Variables => (value, None),
            None => return None,
        };
        if name.is_empty() {
            return None;
        }
        let entry = Entry {
            value: text,
            line: number,
            indent,
        };
        self.option = Some(name.to_owned());
        self.options()?.insert(name.to_owned(), entry);
        Some(())
    }

    /// One more line of the last option's value.
    fn go_on(&mut self, value: &str) -> Option<()> {
        let option = self.option.clone()?;
        let entry = self.options()?.get_mut(&option)?;
        let text = entry.value.as_mut()?;
        text.push('\n');
        text.push_str(value);
        Some(())
    }

    fn options(&mut self) -> Option<&mut Ordered<Entry>> {
        match self.section.as_deref()? {
            DEFAULT => Some(&mut self.defaults),
            name => self.config.get_mut(name),
        }
    }

    fn finish(self) -> Config {
        let mut config = Config::default();
        for (name, mut options) in self.config {
            for (option, entry) in self.defaults.iter() {
                if options.get(option).is_none() {
                    options.insert(option.to_owned(), entry.clone());
                }
            }
            let mut ended = Ordered::default();
            for (option, mut entry) in options {
                if let Some(text) = &mut entry.value {
                    text.truncate(text.trim_end_matches(is_blank).len());
                }
                ended.insert(option, entry);
            }
            config.insert(name, ended);
        }
        config
    }
}

/// White space as Python has it.
pub fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// A text without the white space around it.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_blank)
}

/// An integer as Python's int() reads it.
pub fn integer(text: &str) -> Option<i128> {
    let text = strip(text);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = |it: &str| !it.is_empty() && it.chars().all(|c| c.is_ascii_digit());
    let plain = text.replace('_', "");
    digits
        .split('_')
        .all(is_number)
        .then(|| plain.parse().ok())?
}

/// Where a comment begins: at the first `#` that begins the line or follows a blank.
fn inline_comment(line: &str) -> Option<usize> {
    let marks = line.match_indices('#').map(|(at, _)| at);
    let mut comments = marks.filter(|at| line[..*at].chars().next_back().is_none_or(is_blank));
    comments.next()
}

/// The name in `[NAME]`: up to the last bracket, blanks and all.
fn header(line: &str) -> Option<&str> {
    let inner = line.strip_prefix('[')?;
    let name = &inner[..inner.rfind(']')?];
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, form: Form) -> Option<String> {
        let config = parse(text, form)?;
        let mut shown = String::new();
        for (section, options) in config.iter() {
            for (name, entry) in options.iter() {
                let value = entry.value.as_deref().unwrap_or("-");
                shown += &format!("[{section}]{name}={value:?}@{};", entry.line);
            }
        }
        Some(shown)
    }

    #[test]
    fn files_are_read_as_python_reads_them() {
        for (text, expected) in [
            ("[a]\nx = 1 # one\n", Some("[a]x=\"1\"@2;")),
            ("[a]\nx=1#one\n;x=2\n #x=2\n", Some("[a]x=\"1#one\"@2;")),
            (
                "[a]\nx=1\n  2\n\n\ty\nz=3",
                Some("[a]x=\"1\\n2\\n\\ny\"@2;[a]z=\"3\"@6;"),
            ),
            (
                "[a]\nx=1\ny=2\n[b]\nx=3\n[a]\nx=4\r\n",
                Some("[a]x=\"4\"@7;[a]y=\"2\"@3;[b]x=\"3\"@5;"),
            ),
            (
                "[DEFAULT]\nx=1\n[a]\ny=2",
                Some("[a]y=\"2\"@4;[a]x=\"1\"@2;"),
            ),
            ("[ a ] b\n  x=1", Some("[ a ]x=\"1\"@2;")),
            ("x=1", None),
            ("[a]\nx", None),
            ("[a]\n=1", None),
        ] {
            assert_eq!(shown(text, Form::Profile).as_deref(), expected, "{text}");
        }
        let bare = shown("x\ny=1", Form::Variables);
        assert_eq!(bare.as_deref(), Some("[]x=\"-\"@1;[]y=\"1\"@2;"));
    }
}
