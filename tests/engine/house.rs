//! What Cargo cannot hold the core to: std has files and clocks too, and the
//! model stands below the engine.

use std::fs;
use std::path::{Path, PathBuf};

/// The lines of a folder of the core that name what they may not.
fn violations(folder: &str, forbidden: &[&str]) -> Vec<String> {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core");
    let mut found = Vec::new();
    for path in files(&core.join(folder)) {
        let text = fs::read_to_string(&path).expect("a source file");
        for (i, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if forbidden.iter().any(|word| code.contains(word)) {
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
fn the_core_reads_no_file_and_no_clock() {
    let forbidden = [
        "std::fs",
        "std::io",
        "TcpListener",
        "TcpStream",
        "UdpSocket",
        "std::env",
        "std::process",
        "std::thread",
        "Instant::now",
        "SystemTime",
    ];
    assert_eq!(violations("", &forbidden), [""; 0]);
}

#[test]
fn the_engine_stands_above_reporting_and_that_above_the_model() {
    assert_eq!(violations("reporting", &["crate::engine"]), [""; 0]);
    let above = ["crate::engine", "crate::reporting"];
    assert_eq!(violations("model", &above), [""; 0]);
}
