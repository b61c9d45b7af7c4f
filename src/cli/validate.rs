//! `netguard validate`: checks the configuration and reports errors.

use super::load::load_files;
use super::{args, exit, print};
use crate::config::Request;
use crate::words::Count;

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
    let loaded = load_files(&request)?;
    let root = &request.root;
    let (of_kernel, unmatched) = (loaded.check_kernel(root), loaded.unmatched(root));
    let consequences = loaded.consequences(root);
    for finding in of_kernel.into_iter().chain(unmatched).chain(consequences) {
        print::note(&format!("{finding}\n"));
    }
    // An entry that leaves its keys alone is no invariant, here as in the journal.
    let entries = &loaded.settings.invariants;
    let off = entries.iter().filter(|it| it.is_off()).count();
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
