//! The engine and the model depend on no runtime, no file system and no clock.

use std::fs;
use std::path::{Path, PathBuf};

/// What may not stand in a room, and what a room may use of the crate.
fn violations(room: &str, allowed: &[&str]) -> Vec<String> {
    const FORBIDDEN: [&str; 12] = [
        "tokio",
        "zbus",
        "netlink_",
        "nix::",
        "signal_hook",
        "std::fs",
        "std::io",
        "std::net",
        "std::env",
        "std::thread",
        "Instant::now",
        "SystemTime",
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room);
    let mut found = Vec::new();
    for path in files(&folder) {
        let text = fs::read_to_string(&path).expect("a source file");
        for (i, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            // std's, not the crate nix.
            let code = code.replace("os::unix::", "");
            let foreign = code
                .split("crate::")
                .skip(1)
                .any(|rest| !allowed.iter().any(|name| rest.starts_with(name)));
            if foreign || FORBIDDEN.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {line}", path.display(), i + 1));
            }
        }
    }
    found
}

/// The files in a folder and those below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the room is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn the_engine_is_pure() {
    assert_eq!(violations("engine", &["model", "engine"]), [""; 0]);
}

#[test]
fn the_model_uses_std_alone() {
    assert_eq!(violations("model", &["model"]), [""; 0]);
}
