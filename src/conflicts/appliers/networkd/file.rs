//! systemd's configuration files, as systemd reads them (systemd.syntax(7)), and
//! those of networkd: a file, its drop-ins, and what masks them.

use crate::conflicts::files::drop_in;
use crate::conflicts::files::tree::{Text, Tree, origin};
use crate::conflicts::setting::{by_name, conf_paths};
use crate::model::{Origin, text};

/// Where .network files are, from the one that wins.
const NETWORKS: [&str; 5] = [
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
];
/// Where networkd.conf is, from the one that wins; drop-ins in `networkd.conf.d` beside each.
/// Before 256 the first folder alone has the file itself.
const MAIN: [&str; 5] = [
    "/etc/systemd",
    "/run/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
    "/lib/systemd",
];
/// What systemd takes for white space.
pub const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// An assignment.
#[derive(Debug, Clone)]
pub struct Assignment {
    pub section: String,
    pub name: String,
    pub value: String,
    pub place: Origin,
}

/// A .network file with its drop-ins.
#[derive(Debug)]
pub struct Network {
    /// Its file name.
    pub name: String,
    /// The first line of its file.
    pub place: Origin,
    pub options: Vec<Assignment>,
    /// The name of the drop-in that remedies are written to.
    pub drop_in: String,
}

impl Network {
    /// The assignments of an option, from first to last.
    pub fn all(&self, section: &str, name: &str) -> impl Iterator<Item = &Assignment> {
        let named = move |it: &&Assignment| it.section == section && it.name == name;
        self.options.iter().filter(named)
    }

    /// The last assignment of an option that `read` understands; others do not count.
    pub fn valid<V>(
        &self,
        section: &str,
        name: &str,
        read: impl Fn(&str) -> Option<V>,
    ) -> Option<(V, &Origin)> {
        let all = self.all(section, name);
        let read = all.filter_map(|it| Some((read(&it.value)?, &it.place)));
        read.last()
    }
}

/// The .network files in the order in which they are tried.
pub fn networks(tree: &Tree) -> Vec<Network> {
    let mut names: Vec<String> = NETWORKS
        .iter()
        .flat_map(|folder| {
            tree.list(folder, |name| {
                name.ends_with(".network") && !name.starts_with('.')
            })
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter_map(|name| network(tree, name))
        .collect()
}

fn network(tree: &Tree, name: String) -> Option<Network> {
    let mut paths = NETWORKS.iter().map(|folder| format!("{folder}/{name}"));
    let path = paths.find(|path| tree.exists(path))?;
    let main = tree.read(path)?;
    if main.text.is_empty() {
        // It masks those of its name.
        return None;
    }
    let folders = NETWORKS.map(|folder| format!("{folder}/{name}.d"));
    let folders = folders.each_ref().map(String::as_str);
    // One that cannot be read as a file is as bad as one that is broken.
    let paths = conf_paths(tree, &folders, false);
    if paths.iter().any(|path| tree.is_folder(path)) {
        return None;
    }
    let drop_ins: Vec<Text> = paths.iter().filter_map(|path| tree.read(path)).collect();
    let place = origin(&main, 1);
    let mut options = Vec::new();
    for file in std::iter::once(&main).chain(&drop_ins) {
        // One that is broken is ignored with all of its drop-ins.
        options.extend(parse(file)?);
    }
    let drop_in = drop_in::last(file_names(&drop_ins));
    Some(Network {
        name,
        place,
        options,
        drop_in,
    })
}

fn file_names(files: &[Text]) -> impl Iterator<Item = &str> {
    files.iter().filter_map(|it| it.path.file_name()?.to_str())
}

/// The options of networkd.conf and its drop-ins, from the one that gives way, and
/// the drop-in that remedies are written to.
pub fn main(tree: &Tree, version: u32) -> (Vec<Assignment>, String) {
    let own = if version >= 256 {
        &MAIN[..]
    } else {
        &MAIN[..1]
    };
    let main = own
        .iter()
        .find_map(|it| tree.read(format!("{it}/networkd.conf")));
    let folders = MAIN.map(|folder| format!("{folder}/networkd.conf.d"));
    let drop_ins = by_name(tree, &folders.each_ref().map(String::as_str));
    let last = drop_in::last(file_names(&drop_ins));
    let files = main.into_iter().chain(drop_ins);
    let options = files.flat_map(|file| parse(&file).unwrap_or_default());
    let folder = MAIN[0];
    (
        options.collect(),
        format!("{folder}/networkd.conf.d/{last}"),
    )
}

/// The assignments of a file; `None` where systemd refuses all of it.
pub fn parse(file: &Text) -> Option<Vec<Assignment>> {
    let mut section = String::new();
    let mut options = Vec::new();
    let mut begun: Option<(u32, String)> = None;
    let mut mark_seen = false;
    for (mut line, number) in lines(&file.text).into_iter().zip(1..) {
        if line.trim_start_matches(BLANKS).starts_with(['#', ';']) {
            continue;
        }
        // The byte order mark of whichever line has the first.
        if let Some(rest) = line.strip_prefix('\u{feff}').filter(|_| !mark_seen) {
            (line, mark_seen) = (rest, true);
        }
        let (number, mut text) = match begun.take() {
            Some((number, begun)) => (number, begun + line),
            None => (number, line.to_owned()),
        };
        // An odd number of them: the line goes on.
        let backslashes = text.len() - text.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            text.pop();
            text.push(' ');
            begun = Some((number, text));
            continue;
        }
        assignment(&text, &mut section, &mut options, origin(file, number))?;
    }
    if let Some((number, text)) = begun {
        assignment(&text, &mut section, &mut options, origin(file, number))?;
    }
    Some(options)
}

/// The lines of a text: LF, CR, NUL and each of them once together end one.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['\n', '\r', '\0']).unwrap_or(rest.len());
        lines.push(&rest[..end]);
        let mut seen = Vec::new();
        rest = rest[end..].trim_start_matches(|c| {
            let ends =
                matches!(c, '\n' | '\r' | '\0') && !seen.contains(&c) && !seen.contains(&'\0');
            seen.push(c);
            ends
        });
    }
    lines
}

fn assignment(
    line: &str,
    section: &mut String,
    options: &mut Vec<Assignment>,
    place: Origin,
) -> Option<()> {
    let line = line.trim_matches(BLANKS);
    // Bytes that are no UTF-8, and characters that systemd does not take for any.
    if line.contains(|c| text::is_foreign(c) || is_noncharacter(c)) {
        return None;
    }
    if let Some(header) = line.strip_prefix('[') {
        let name = header.strip_suffix(']')?;
        let is_bad = |c: char| c.is_ascii_control() || matches!(c, '"' | '\'' | '\\');
        if name.contains(is_bad) {
            return None;
        }
        section.clear();
        section.push_str(name);
    } else if let Some((name, value)) = line.split_once('=') {
        options.push(Assignment {
            section: section.clone(),
            name: name.trim_matches(BLANKS).to_owned(),
            value: value.trim_matches(BLANKS).to_owned(),
            place,
        });
    }
    Some(())
}

/// Whether Unicode keeps a code point from ever being a character.
fn is_noncharacter(c: char) -> bool {
    let point = u32::from(c);
    (0xFDD0..=0xFDEF).contains(&point) || point & 0xFFFE == 0xFFFE
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_end_as_systemd_ends_them() {
        for (text, expected) in [
            ("a\nb", vec!["a", "b"]),
            ("a\r\nb\n", vec!["a", "b"]),
            ("a\n\nb\r", vec!["a", "", "b"]),
            ("a\n\r\nb", vec!["a", "", "b"]),
            ("a\n\0\nb", vec!["a", "", "b"]),
        ] {
            assert_eq!(super::lines(text), expected, "{text:?}");
        }
    }
}
