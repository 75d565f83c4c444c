//! The private futex system call.

use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

/// Sleeps while `word` holds `expected`, until a wake or `deadline`. Returns `false` when the
/// deadline has passed; may return `true` for no reason.
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> bool {
    let timeout = match deadline {
        None => None,
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            Some(libc::timespec {
                tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: left.subsec_nanos().into(),
            })
        }
    };
    let timeout = timeout.as_ref().map_or(ptr::null(), |timeout| timeout as *const _);
    // SAFETY: FUTEX_WAIT reads the word and the timeout, both alive during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            timeout,
        )
    };
    !(result < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT))
}

/// Wakes up to `count` waiters of `word`.
pub(crate) fn wake(word: &AtomicU32, count: i32) {
    wake_address(word, count);
}

/// As [`wake`], for a word that may be gone: the kernel only compares the address.
pub(crate) fn wake_address(word: *const AtomicU32, count: i32) {
    // SAFETY: FUTEX_WAKE does not access the memory.
    unsafe {
        libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, count);
    }
}
