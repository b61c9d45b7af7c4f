//! The manual page says everything there is, and is well formed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use netguard::cli::args;
use netguard::diagnosis::verdict::Reason;
use netguard::journal::fields::{self, Kind};
use netguard::journal::message::PATTERN;

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
fn every_exit_status_is_there_in_the_words_of_the_help() {
    let page = page();
    let (_, section) = page.split_once("\n.SH EXIT STATUS\n").expect("it");
    let mut command = args::command();
    command.build();
    for verb in command
        .get_subcommands()
        .filter(|it| it.get_name() != "help")
    {
        let name = verb.get_name();
        let help = verb.get_after_help().expect(name).to_string();
        let (statuses, _) = help.split_once("\n\n").expect(name);
        let mut expected = String::new();
        for line in statuses.lines().skip(1) {
            match line.trim_start().split_once("  ") {
                Some((number, what)) => expected.push_str(&format!("\n.br\n{number}: {what}")),
                None => expected.push_str(&format!(" {}", line.trim_start())),
            }
        }
        let expected = expected.strip_prefix("\n.br\n").expect(name);
        let entry = format!("\n.TP\n.B {name}\n{expected}\n.");
        assert!(section.contains(&entry), "{entry}");
    }
}

#[test]
fn every_reason_of_a_diagnosis_is_there() {
    let page = page();
    for reason in Reason::ALL {
        let row = format!("\n{}\tT{{\n", reason.as_str());
        assert_eq!(page.matches(&row).count(), 1, "{}", reason.as_str());
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
        let row = format!("\n{}|{}|", kind.as_str(), kind.message_id());
        assert!(page.contains(&row), "{row}");
    }
    for word in words {
        let known = fields::ALL.contains(&word);
        assert!(!word.starts_with("NETGUARD_") || known, "{word}");
    }
}

/// The rows of the table of fields: name and unit.
fn field_rows(page: &str) -> Vec<(&str, &str)> {
    let (_, table) = page
        .split_once("\nFIELD|UNIT|MEANING\n")
        .expect("the table");
    let (table, _) = table.split_once("\n.TE\n").expect("its end");
    table
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once('|')?;
            Some((name, rest.strip_suffix("|T{")?))
        })
        .collect()
}

#[test]
fn the_table_has_each_field_once_and_its_unit() {
    let page = page();
    let rows = field_rows(&page);
    let names: BTreeSet<&str> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), rows.len(), "a field stands there twice");
    let known: BTreeSet<&str> = fields::ALL.iter().copied().collect();
    assert_eq!(names, known, "the table and src/journal/fields.rs differ");
    for (name, unit) in rows {
        assert_eq!(
            name.ends_with("_USEC"),
            unit.starts_with("us"),
            "{name}: {unit}"
        );
    }
}

#[test]
fn the_pattern_of_messages_is_there() {
    let page = page().replace("\\e", "\\");
    assert!(page.contains(&format!("\n{PATTERN}\n")), "{PATTERN}");
}

#[test]
fn the_page_is_of_this_version() {
    let version = format!("\"netguard {}\"", env!("CARGO_PKG_VERSION"));
    assert!(page().contains(&version), "{version}");
}

#[test]
fn man_has_nothing_to_complain_about_and_cuts_no_word() {
    for page in ["netguard.8", "netguard.toml.5"] {
        renders(page);
    }
}

fn renders(page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man");
    let path = path.join(page);
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
        assert!(!line.ends_with('\u{2010}'), "{line}");
    }
}
