//! `netguard validate`: is the configuration right, and where is it wrong?

use std::path::Path;

use super::load::load;
use super::{args, exit, print};
use crate::config::Request;
use crate::effects::words::Count;
use crate::model::Requirement;

/// Checks the configuration, or the one file that is named.
///
/// # Errors
/// The exit code, where it is refused.
pub fn run(mut request: Request, options: args::Validate) -> Result<u8, u8> {
    if options.file.is_some() {
        if request.file.is_some() {
            print::note("netguard: name one file: as an argument or with --config\n");
            return Err(exit::USAGE);
        }
        request.file = options.file;
    }
    let loaded = load(&request)?;
    // The kernel of this machine says nothing of a configuration for another.
    if request.root == Path::new("/") {
        for finding in loaded.look_at_kernel() {
            print::note(&format!("{finding}\n"));
        }
    }
    let unmatched = loaded.unmatched(&request.root);
    let consequences = loaded.consequences(&request.root);
    for finding in unmatched.into_iter().chain(consequences) {
        print::note(&format!("{finding}\n"));
    }
    // An entry that leaves its keys alone is no invariant, here as in the journal.
    let entries = &loaded.settings.invariants;
    let off = entries
        .iter()
        .filter(|it| it.requirement == Requirement::Anything)
        .count();
    let off_too = match off {
        0 => String::new(),
        off => format!(", {off} off"),
    };
    let text = format!(
        "ok: {}{off_too}, {}, {}\n",
        Count(entries.len() - off, "invariant"),
        Count(loaded.profiles.len(), "profile"),
        Count(loaded.files.len(), "file"),
    );
    Ok(print::result(&text, exit::OK))
}
