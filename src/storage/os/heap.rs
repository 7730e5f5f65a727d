//! Memory that the allocator holds though nobody uses it.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(
        unsafe_code,
        reason = "a function of glibc's allocator that has no safe face"
    )
)]

/// Gives whole pages that were freed back to the system, those of other threads too. Takes some
/// milliseconds; elsewhere than with glibc it does nothing.
pub(in crate::storage) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes no pointer, and locks each heap while it works on it.
    unsafe {
        libc::malloc_trim(0);
    }
}
