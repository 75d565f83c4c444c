//! What the ring leaves behind.

use super::*;
use std::time::Duration;

/// How many waits the kernel still has in line for the word, which are thereby ended.
fn waits_in_line(word: &SleepWord) -> i64 {
    // SAFETY: FUTEX_WAKE does not access the memory.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.word().as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            i32::MAX,
        )
    }
}

/// The next worker that sleeps on the word must be the only one that a wake-up can reach.
#[test]
fn a_dropped_ring_does_not_wait_for_its_word() {
    let works = crate::driver::caps::wake_method(&[WakeMethod::Futex]);
    if works.is_err() {
        return; // an older kernel
    }
    let word: &'static SleepWord = Box::leak(Box::new(SleepWord::new()));
    for _ in 0..50 {
        let mut uring = Uring::new(8, WakeMethod::Futex, word).unwrap();
        word.announce();
        uring.turn(&FiberList::default(), Wait::Until(Some(Duration::from_micros(50))));
        word.retire();
        drop(uring);
        assert_eq!(waits_in_line(word), 0);
    }
}
