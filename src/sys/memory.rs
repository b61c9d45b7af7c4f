//! Memory that is no longer needed goes back to the kernel.

use std::fs;

/// Returns what is free in the allocator's heap to the kernel (malloc_trim(3)).
/// glibc does so by itself only for what lies at the heap's end.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks and touches only what
    // is free.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Lets go of the program's own code that was needed to start: what reads a
/// configuration or a command line is not needed again, and what is comes back
/// from the page cache at its next use.
pub fn forget_start() {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else {
        return;
    };
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    for (start, length) in code_of(&maps, &program.to_string_lossy()) {
        // SAFETY: the kernel says that this range is code of this program,
        // mapped from its file and never written to: what is dropped is read
        // from there again (madvise(2), MADV_DONTNEED).
        unsafe {
            nix::libc::madvise(start as *mut _, length, nix::libc::MADV_DONTNEED);
        }
    }
}

/// The ranges of executable code that are mapped from `program`, in the text of
/// `/proc/PID/maps` (proc(5)): their starts and lengths.
fn code_of<'a>(maps: &'a str, program: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    maps.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let (start, end) = (address(start)?, address(end)?);
        let is_code = rights == "r-xp" && fields.nth(3) == Some(program);
        is_code.then_some((start, end.checked_sub(start)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_code_is_let_go_of() {
        let maps = "\
            55d0-55d4 r--p 00000000 fe:00 42 /usr/sbin/netguard\n\
            55d4-55f0 r-xp 00004000 fe:00 42 /usr/sbin/netguard\n\
            55f0-55f4 rw-p 00020000 fe:00 42 /usr/sbin/netguard\n\
            7f00-7f10 r-xp 00000000 fe:00 43 /usr/lib/libc.so.6\n\
            7fff-8000 r-xp 00000000 00:00 0 [vdso]\n\
            nonsense\n";
        let code: Vec<_> = code_of(maps, "/usr/sbin/netguard").collect();
        assert_eq!(code, [(0x55d4, 0x1c)]);
    }

    #[test]
    fn the_program_goes_on_without_its_start() {
        forget_start();
        trim();
        let text = format!("{:?}", std::time::Duration::from_millis(1500));
        assert_eq!(text, "1.5s");
    }
}
