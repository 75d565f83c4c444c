//! Fences of which only one side pays: a compiler's fence on the side that is taken all the time
//! ([`light`]), and a system call on the other one ([`heavy`]), which has every running thread of
//! the process execute a full fence.
//!
//! ```text
//!   often                          rarely
//!   -----                          ------
//!   a.store(1)                     b.store(1)
//!   light()                        heavy()
//!   look at b                      look at a
//! ```
//!
//! At least one of the two sees what the other has stored, if [`is_on`] told the frequent side so;
//! where it did not, that side needs a fence, and `heavy` is one for the rare side. Why: the thread
//! on the left executes a full fence at some point during `heavy`. If that is before its look, the
//! look comes after the store to `b`. If it is after its look, it is after its store as well, which
//! the look at `a` then sees. A thread that does not run has had a fence when it was taken off its
//! core.

use super::clock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence, fence};
use std::time::Duration;

/// Whether the process is registered for `heavy`. Set and cleared once.
static ON: AtomicBool = AtomicBool::new(false);
/// When `heavy` was refused first, if it ever was. Written before `ON` is cleared.
static REFUSED_NS: AtomicU64 = AtomicU64::new(0);
/// For how long after that somebody may act on an earlier yes from `is_on`. He would have to be off
/// his core for as long, between that and the next instruction.
const NEWS_NS: u64 = 1_000_000_000;
/// No store stays in its core for that long.
const PAUSE: Duration = Duration::from_millis(1);

/// Asks the kernel, once; `is_on` says what came of it.
pub(crate) fn set_up() {
    let refused = REFUSED_NS.load(Ordering::SeqCst) != 0;
    if !refused && !is_on() && call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) {
        ON.store(true, Ordering::SeqCst);
    }
}

/// Whether `light` is enough. Asked anew each time, beside the store: right before it, or right
/// after. Who is told yes has looked before `NEWS_NS` have passed, and until then each `heavy` that
/// is told no pauses: for longer than a store that came before it stays in its core, and than a
/// look may run ahead of a store that comes after it.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Acquire)
}

/// See the module's head.
#[inline(always)]
pub(crate) fn light() {
    compiler_fence(Ordering::SeqCst);
}

/// See the module's head.
pub(crate) fn heavy() {
    fence(Ordering::SeqCst);
    if is_on() {
        if !call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
            refused();
        }
    } else if is_news(REFUSED_NS.load(Ordering::SeqCst), clock::now_ns) {
        pause();
    }
}

/// As `heavy`, where the others do not ask `is_on` anew but once and for all.
pub(crate) fn heavy_for_good() {
    fence(Ordering::SeqCst);
    if !is_on() {
        pause();
    } else if !call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
        refused();
    }
}

/// It was granted, and is not any more: a filter of system calls was installed since. The others
/// pay for fences of their own from now on. Those who have not heard of it yet do without, so for
/// some time all who call `heavy` pause instead, not only the one that was refused.
#[cold]
fn refused() {
    let now_ns = clock::now_ns().max(1);
    _ = REFUSED_NS.compare_exchange(0, now_ns, Ordering::SeqCst, Ordering::SeqCst);
    ON.store(false, Ordering::SeqCst);
    pause();
}

/// Whether somebody may not know yet that `heavy` was refused at that time, if it was.
fn is_news(refused_ns: u64, now_ns: impl FnOnce() -> u64) -> bool {
    refused_ns != 0 && now_ns().saturating_sub(refused_ns) < NEWS_NS
}

/// Until what the others have stored before is seen by all.
#[cold]
fn pause() {
    std::thread::sleep(PAUSE);
    fence(Ordering::SeqCst);
}

fn call(command: libc::c_int) -> bool {
    // SAFETY: takes numbers only.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// A fence that one side has executed by the other is more than loom knows: both have one.
#[cfg(all(test, loom))]
pub(crate) mod model {
    use crate::atomic::{Ordering, fence};
    use std::cell::Cell;

    std::thread_local! {
        /// Whether the heavy side is left out, which has to be noticed.
        pub(crate) static NO_HEAVY: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn is_on() -> bool {
        true
    }

    pub(crate) fn light() {
        fence(Ordering::SeqCst);
    }

    pub(crate) fn heavy() {
        if !NO_HEAVY.get() {
            fence(Ordering::SeqCst);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{NEWS_NS, heavy, is_news, is_on, light, set_up};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::thread;

    /// One thread has been refused. Others, who are told no then, must not rely on everybody's
    /// having been told so: not before some time has passed.
    #[test]
    fn a_refusal_takes_time_to_get_about() {
        assert!(!is_news(0, || unreachable!("it was never on")));
        assert!(is_news(5, || 5));
        assert!(is_news(5, || 4 + NEWS_NS));
        assert!(!is_news(5, || 5 + NEWS_NS));
    }

    /// Both sides at the same time, again and again: one of them sees the other.
    #[test]
    fn one_side_sees_the_other() {
        const ROUNDS: usize = 2_000;
        set_up();
        if !is_on() {
            return;
        }
        let (a, b) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let seen: Vec<AtomicUsize> = (0..ROUNDS).map(|_| AtomicUsize::new(0)).collect();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                for (round, seen) in (1..).zip(&seen) {
                    a.store(round, Relaxed);
                    light();
                    if b.load(Relaxed) >= round {
                        seen.fetch_add(1, Relaxed);
                    }
                    // Not far ahead of the other side.
                    while round > b.load(Relaxed) + 1 {
                        thread::yield_now();
                    }
                }
            });
            start.wait();
            for (round, seen) in (1..).zip(&seen) {
                b.store(round, Relaxed);
                heavy();
                if a.load(Relaxed) >= round {
                    seen.fetch_add(1, Relaxed);
                }
                while round > a.load(Relaxed) + 1 {
                    thread::yield_now();
                }
            }
        });
        assert!(seen.iter().all(|seen| seen.load(Relaxed) > 0), "neither saw the other");
    }
}
