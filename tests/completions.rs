//! The shells' completions are those of the command line as it is.
//!
//! They are kept as files, so that the program needs no verb to print them.
//! `NETGUARD_BLESS=1 cargo test --test completions` rewrites them.

use std::fs;
use std::path::Path;

use clap::{Arg, Command};
use clap_complete::{Shell, generate};
use netguard::cli::args;

const FILES: [(Shell, &str); 3] = [
    (Shell::Bash, "netguard.bash"),
    (Shell::Zsh, "_netguard"),
    (Shell::Fish, "netguard.fish"),
];

/// The command line as a person sees it: without what is hidden, which
/// clap_complete offers all the same, and so does what every verb inherits.
fn visible(command: &Command, inherited: &[Arg]) -> Command {
    // clap takes only names that live for ever.
    let forever = |text: &str| -> &'static str { text.to_owned().leak() };
    let names = |argument: &&Arg| {
        command
            .get_arguments()
            .any(|it| it.get_id() == argument.get_id())
    };
    let arguments: Vec<Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .chain(inherited.iter().filter(|argument| !names(argument)))
        .cloned()
        .collect();
    // Added to each verb explicitly: one that hides it does not have it.
    let global = arguments.iter().filter(|argument| argument.is_global_set());
    let global: Vec<Arg> = global.cloned().collect();
    let mut shown = Command::new(forever(command.get_name()))
        .disable_help_subcommand(!command.is_arg_required_else_help_set())
        .args(arguments.into_iter().map(|argument| argument.global(false)))
        .subcommands(command.get_subcommands().map(|verb| visible(verb, &global)));
    if let Some(version) = command.get_version() {
        shown = shown.version(forever(version));
    }
    match command.get_about() {
        Some(about) => shown.about(about.clone()),
        None => shown,
    }
}

#[test]
fn they_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/completions");
    for (shell, name) in FILES {
        let mut script = Vec::new();
        generate(
            shell,
            &mut visible(&args::command(), &[]),
            "netguard",
            &mut script,
        );
        let script = String::from_utf8(script).expect("a script in UTF-8");
        let file = folder.join(name);
        if std::env::var_os("NETGUARD_BLESS").is_some() {
            fs::write(&file, &script).expect("a completion written");
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            kept == script,
            "{} is not current: run NETGUARD_BLESS=1 cargo test --test completions",
            file.display()
        );
    }
}
