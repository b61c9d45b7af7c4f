//! The journal's catalog explains each kind of record, in what systemd 219 reads.

use std::collections::BTreeMap;
use std::path::Path;

use netguard::journal::fields::{self, Kind};

/// The catalog's entries by MESSAGE_ID: the header's lines and the text.
fn entries() -> BTreeMap<String, (Vec<String>, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/catalog/netguard.catalog");
    let catalog = std::fs::read_to_string(path).expect("the catalog");
    let mut entries = BTreeMap::new();
    let parts = catalog.split("\n-- ");
    for part in parts.skip(1) {
        let (id, rest) = part.split_once('\n').expect("lines");
        let (header, text) = rest.split_once("\n\n").expect("a header, then text");
        let header = header.lines().map(str::to_owned).collect();
        let double = entries.insert(id.to_owned(), (header, text.to_owned()));
        assert!(double.is_none(), "{id} is explained twice");
    }
    entries
}

#[test]
fn every_kind_is_explained_and_nothing_else() {
    let entries = entries();
    for kind in Kind::ALL {
        let (id, event) = (kind.message_id(), kind.as_str());
        assert!(
            entries.contains_key(id),
            "{event}: `-- {id}` is not in packaging/catalog/netguard.catalog"
        );
    }
    for id in entries.keys() {
        let known = Kind::ALL.iter().any(|kind| kind.message_id() == id);
        assert!(known, "{id} is no kind's MESSAGE_ID");
    }
}

#[test]
fn every_entry_has_a_header_and_says_what_to_do() {
    for (id, (header, text)) in entries() {
        let names: Vec<&str> = header
            .iter()
            .map(|line| line.split(':').next().unwrap_or_default())
            .collect();
        assert_eq!(
            names,
            ["Subject", "Defined-By", "Support", "Documentation"],
            "{id}"
        );
        assert!(text.lines().count() > 1, "{id}: {text}");
        for line in header
            .iter()
            .chain(text.lines().map(str::to_owned).collect::<Vec<_>>().iter())
        {
            // A comment's first character; and what `-x` shows within 80 columns.
            assert!(!line.starts_with(['#', ';']), "{id}: {line}");
            assert!(line.chars().count() <= 80, "{id}: {line}");
            // Between two @ stands a field's name; tests/records.rs looks
            // whether each record has it.
            for name in line.split('@').skip(1).step_by(2) {
                assert!(fields::ALL.contains(&name), "{id}: @{name}@");
            }
            assert_eq!(line.matches('@').count() % 2, 0, "{id}: {line}");
        }
    }
}
