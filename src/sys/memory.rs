//! Memory that is no longer needed goes back to the kernel.

use nix::libc::{MADV_DONTNEED, PF_W, PT_LOAD, c_int, c_void, dl_phdr_info, madvise};

/// Pages are at least as large, and segments begin with one.
const PAGE: usize = 4096;

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

/// Takes the program's code and constants out of this process's memory: what is
/// executed comes back page by page from the page cache, and what only a search of
/// all files needs stays away.
pub fn drop_code() {
    // SAFETY: the callback takes no data, and the list of loaded objects is
    // locked while it runs.
    unsafe {
        nix::libc::dl_iterate_phdr(Some(drop_object), std::ptr::null_mut());
    }
}

/// Drops the segments of a loaded object that are never written.
///
/// # Safety
/// `object` is what dl_iterate_phdr(3) passes.
unsafe extern "C" fn drop_object(object: *mut dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: `object` is valid, with its program headers, while the callback runs.
    let (object, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        (object, std::slice::from_raw_parts(object.dlpi_phdr, count))
    };
    let constant = headers
        .iter()
        .filter(|it| it.p_type == PT_LOAD && it.p_flags & PF_W == 0);
    for segment in constant {
        let begin = (object.dlpi_addr + segment.p_vaddr) as usize & !(PAGE - 1);
        let end = (object.dlpi_addr + segment.p_vaddr + segment.p_memsz) as usize;
        // SAFETY: the segment is a private mapping of a file, and was never writable:
        // a page of it that is needed again is read from that file. What relocations
        // change (RELRO) lies in segments that are.
        unsafe {
            madvise(begin as *mut c_void, end - begin, MADV_DONTNEED);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::drop_code;

    /// How much of files this process has in its memory, in kB.
    fn of_files() -> u64 {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("smaps_rollup");
        let field = |name: &str| -> u64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.expect(name)
        };
        field("Rss:") - field("Anonymous:")
    }

    #[test]
    fn dropped_code_comes_back_when_it_is_needed() {
        // What other tests call meanwhile brings a part of it back.
        let is_less = || {
            let before = of_files();
            drop_code();
            of_files() < before
        };
        assert!((0..1000).any(|_| is_less()));
        // A part of libc that no other test calls.
        let code = nix::libc::regcomp as *const u8;
        // SAFETY: the first byte of a function can be read.
        let read = || unsafe { code.read_volatile() };
        let before = read();
        drop_code();
        assert_eq!(read(), before);
    }
}
