//! The manual page says everything there is, and is well formed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use netguard::cli::args;
use netguard::effects::fields::{self, Kind};

/// The page as it is read: escaped hyphens are hyphens.
fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man/netguard.8");
    let page = std::fs::read_to_string(path).expect("the page");
    page.replace("\\-", "-")
}

fn words(page: &str) -> BTreeSet<&str> {
    page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
        .collect()
}

fn long_options(command: &clap::Command) -> Vec<String> {
    let own = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .filter_map(clap::Arg::get_long);
    let own = own.map(|long| format!("--{long}"));
    own.chain(command.get_subcommands().flat_map(long_options))
        .collect()
}

#[test]
fn every_verb_and_option_is_there() {
    let page = page();
    let words = words(&page);
    let mut command = args::command();
    command.build();
    for verb in command.get_subcommands() {
        let entry = [
            format!("\n.TP\n.B {}\n", verb.get_name()),
            format!("\n.TP\n.BR {} ", verb.get_name()),
        ];
        assert!(
            entry.iter().any(|entry| page.contains(entry)),
            "{}",
            verb.get_name()
        );
    }
    let options = long_options(&command);
    assert!(options.contains(&"--dry-run".to_owned()), "{options:?}");
    for option in options {
        assert!(words.contains(option.as_str()), "{option}");
    }
}

#[test]
fn every_event_and_field_is_there() {
    let page = page();
    let words = words(&page);
    for name in fields::ALL {
        assert!(words.contains(name), "{name}");
    }
    for kind in Kind::ALL {
        let row = format!("\n{}|{}|", kind.event(), kind.message_id());
        assert!(page.contains(&row), "{row}");
    }
    for word in words {
        let known = fields::ALL.contains(&word);
        assert!(!word.starts_with("NETGUARD_") || known, "{word}");
    }
}

#[test]
fn the_page_is_of_this_version() {
    let version = format!("\"netguard {}\"", env!("CARGO_PKG_VERSION"));
    assert!(page().contains(&version), "{version}");
}

#[test]
fn man_has_nothing_to_complain_about() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man/netguard.8");
    let man = Command::new("man")
        .arg("--warnings")
        .arg("-l")
        .arg(path)
        .env("LC_ALL", "C.UTF-8")
        .env("MANWIDTH", "80")
        .output()
        .expect("man-db is installed");
    assert!(man.status.success());
    assert_eq!(String::from_utf8_lossy(&man.stderr), "");
    let text = String::from_utf8_lossy(&man.stdout);
    assert!(text.lines().count() > 200, "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}
