//! Standard output and standard error, where the reader may be gone.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use super::exit;

/// Writes a verb's result to standard output and gives `code`, or
/// [`exit::TROUBLE`] where it could not be written. A reader that has enough
/// (`| head`) is no trouble.
pub fn result(text: &str, code: u8) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => code,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => code,
        Err(error) => {
            note(&format!("netguard: standard output: {error}\n"));
            exit::TROUBLE
        }
    }
}

/// Writes a verb's result as JSON, as [`result`] writes text.
pub fn json(value: &impl Serialize, code: u8) -> u8 {
    match serde_json::to_string_pretty(value) {
        Ok(text) => result(&format!("{text}\n"), code),
        Err(error) => {
            note(&format!("netguard: {error}\n"));
            exit::TROUBLE
        }
    }
}

/// Writes to standard error, as far as that can be done.
pub fn note(text: &str) {
    // Nobody is left to tell that nobody is told.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
