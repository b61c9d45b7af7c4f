//! Memory that is no longer needed goes back to the kernel.

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
