//! Names of routing tables, as ip(8) knows them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::model::facts::integer;
use crate::resource::table_number;
use crate::root::Root;

/// The folders of iproute2, highest precedence first: up to version 6.4 only the
/// first; then the vendor's is below /usr.
const FOLDERS: [&str; 3] = ["/etc/iproute2", "/usr/share/iproute2", "/usr/lib/iproute2"];
const FILE: &str = "rt_tables";
const DROP_INS: &str = "rt_tables.d";
/// No more of a file is read.
const LONGEST: u64 = 1 << 20;

/// The routing tables that have a name on the node, beside those of every kernel.
#[derive(Debug, Default)]
pub(super) struct Tables(BTreeMap<String, u32>);

impl Tables {
    /// Those of the node below `root`.
    pub(super) fn read(root: &Path) -> Tables {
        let root = Root::new(root);
        let mut tables = Tables::default();
        let main = FOLDERS.map(|folder| Path::new(folder).join(FILE));
        if let Some(text) = main.iter().find_map(|path| read(&root, path)) {
            tables.add(&text);
        }
        // From the one that gives way on.
        for folder in FOLDERS.iter().rev() {
            for path in drop_ins(&root, &Path::new(folder).join(DROP_INS)) {
                tables.add(&read(&root, &path).unwrap_or_default());
            }
        }
        tables
    }

    fn add(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let (Some(number), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            let number = integer(number).and_then(|it| u32::try_from(it).ok());
            if let Some(number) = number.filter(|it| *it != 0) {
                self.0.insert(name.to_owned(), number);
            }
        }
    }

    /// The number of a table that is spelled by name or number.
    pub(super) fn number(&self, text: &str) -> Option<u32> {
        self.0.get(text).copied().or_else(|| table_number(text))
    }

    /// The names that there are.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        ["default", "main", "local"]
            .into_iter()
            .chain(self.0.keys().map(String::as_str))
    }
}

fn read(root: &Root, path: &Path) -> Option<String> {
    let file = root.open(&root.resolve(path, |_| {}).ok()?).ok()??;
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn drop_ins(root: &Root, folder: &Path) -> Vec<PathBuf> {
    let real = root.resolve(folder, |_| {}).map(|it| root.real(&it));
    let entries = real.and_then(fs::read_dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| folder.join(entry.file_name()));
    let mut paths: Vec<_> = names
        .filter(|path| path.extension().is_some_and(|it| it == "conf"))
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_ip_reads_them() {
        let mut tables = Tables::default();
        tables.add("# reserved\n255\tlocal\n0 unspec\n\n200 pods # ours\n0x7d4 cilium\nx y\n7\n");
        for (text, number) in [
            ("pods", Some(200)),
            ("cilium", Some(2004)),
            ("main", Some(254)),
            ("local", Some(255)),
            ("201", Some(201)),
            ("unspec", None),
            ("0", None),
            ("y", None),
        ] {
            assert_eq!(tables.number(text), number, "{text}");
        }
    }
}
