//! When processes began: with its number that is what a process is known by.

use std::fs;

/// The name and the start (field 22) in the text of a `stat` file.
pub fn name_and_start(stat: &str) -> Option<(String, u64)> {
    let (name, fields) = stat.rsplit_once(") ")?;
    let (_, name) = name.split_once('(')?;
    let start = fields.split(' ').nth(19)?.parse().ok()?;
    Some((name.to_owned(), start))
}

/// When this process began, in ticks since the boot.
pub fn own_start() -> u64 {
    of("self").map_or(0, |(_, start)| start)
}

/// When a process began, in ticks since the boot; nothing where there is none.
pub fn start_of(pid: u32) -> Option<u64> {
    of(&pid.to_string()).map(|(_, start)| start)
}

/// The name and the start of a process.
pub fn of(pid: &str) -> Option<(String, u64)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    name_and_start(&String::from_utf8_lossy(&stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_anything_in_it() {
        let stat = "812 (a) (b) S 7 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 4711 0 0";
        assert_eq!(name_and_start(stat), Some(("a) (b".to_owned(), 4711)));
        assert_eq!(start_of(std::process::id()), Some(own_start()));
    }
}
