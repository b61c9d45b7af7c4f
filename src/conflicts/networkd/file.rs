//! systemd's configuration files, as systemd reads them (systemd.syntax(7)), and
//! those of networkd: a file, its drop-ins, and what masks them.

use super::super::drop_in;
use super::super::setting::{by_name, origin};
use super::super::tree::{Text, Tree};
use crate::model::Origin;

/// Where .network files are, from the one that wins.
const NETWORKS: [&str; 4] = [
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
];
/// Where networkd.conf is, from the one that wins; drop-ins in `networkd.conf.d` beside each.
const MAIN: [&str; 4] = [
    "/etc/systemd",
    "/run/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
];

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

    /// The last assignment of an option that is not empty: an empty one takes
    /// back those before it.
    pub fn last(&self, section: &str, name: &str) -> Option<&Assignment> {
        let last = self.all(section, name).last();
        last.filter(|it| !it.value.is_empty())
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
        .flat_map(|folder| tree.list(folder, |name| name.ends_with(".network")))
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
    let drop_ins = by_name(tree, &folders.each_ref().map(String::as_str));
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
pub fn main(tree: &Tree) -> (Vec<Assignment>, String) {
    let main = MAIN
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

/// The assignments of a file; `None` where a section's header is broken.
pub fn parse(file: &Text) -> Option<Vec<Assignment>> {
    let mut section = String::new();
    let mut options = Vec::new();
    let mut begun: Option<(u32, String)> = None;
    // A carriage return ends a line too.
    let text = file.text.replace("\r\n", "\n").replace('\r', "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    for (line, number) in text.split('\n').zip(1..) {
        let line = line.trim_start();
        if line.starts_with(['#', ';']) {
            continue;
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

fn assignment(
    line: &str,
    section: &mut String,
    options: &mut Vec<Assignment>,
    place: Origin,
) -> Option<()> {
    let line = line.trim();
    if let Some(header) = line.strip_prefix('[') {
        section.clear();
        section.push_str(header.strip_suffix(']')?);
    } else if let Some((name, value)) = line.split_once('=') {
        options.push(Assignment {
            section: section.clone(),
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
            place,
        });
    }
    Some(())
}
