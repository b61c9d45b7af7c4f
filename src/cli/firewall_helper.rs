//! `netguard firewall-helper`: runs the programs of iptables for the daemon, which starts
//! it. Nothing is printed where people would read it.

use super::{exit, print};
use crate::drivers::firewall::helper;

/// Serves the daemon until it closes the connection.
///
/// # Errors
/// The exit code, where standard input is no connection of it.
pub fn run() -> Result<u8, u8> {
    helper::serve().map_err(|error| {
        print::note(&format!("netguard: the firewall helper: {error}\n"));
        exit::TROUBLE
    })?;
    Ok(exit::OK)
}
