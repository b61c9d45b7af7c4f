//! Why a value is pending, in words.

use super::moment::Zone;

/// Why a value is pending, and until when, where that is known.
pub fn text(because: &str, until_usec: Option<u64>, zone: &Zone) -> String {
    match until_usec {
        Some(until) => format!("{because} until {}", zone.time(until)),
        None => because.to_owned(),
    }
}
