//! Signals that are caught: a handler notes which have come, and one thread is told.
//!
//! The handler does what is async-signal-safe, and no more: it sets a bit, moves a counter on and
//! wakes whoever sleeps on that. There is no descriptor, so a child that `fork` has made shares
//! nothing with its parent: a signal that it gets before its `exec` stays its own.
//!
//! The handler runs on the alternate stack, whichever stack the thread is on, since a fiber's may
//! be nearly used up. All other signals but those of faults are kept waiting meanwhile, so that
//! their frames do not pile up there.

use super::futex;
use super::signal::{Action, Disposition};
use std::io::{Error, Result};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Signals have numbers from 1 to this.
const LAST: usize = 64;

/// Those that have come since the last [`next`], a bit each.
static COME: AtomicU64 = AtomicU64::new(0);
/// How often one has come; what [`next`] sleeps on.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// The action that each had before, leaked so that the handler may read it at any time.
static EARLIER: [AtomicPtr<Action>; LAST] = [const { AtomicPtr::new(ptr::null_mut()) }; LAST];

/// The bit of a signal; `None` if there is no such number.
pub(crate) fn bit(signal: i32) -> Option<u64> {
    let number = u32::try_from(signal).ok()?.checked_sub(1)?;
    1u64.checked_shl(number)
}

/// Has a signal caught from now on, for as long as the process lives. A handler that the process
/// has had for it is still called, after ours.
pub(crate) fn catch(signal: i32) -> Result<()> {
    static CAUGHT: Mutex<u64> = Mutex::new(0);
    let Some(bit) = bit(signal) else { return Err(Error::from_raw_os_error(libc::EINVAL)) };
    let mut caught = CAUGHT.lock().unwrap_or_else(PoisonError::into_inner);
    if *caught & bit == 0 {
        // Published first: the signal may come as soon as the handler is in force.
        let earlier = Box::into_raw(Box::new(Action::get(signal)?));
        EARLIER[bit.trailing_zeros() as usize].store(earlier, Ordering::Release);
        // SAFETY: `on_signal` is async-signal-safe and keeps errno.
        unsafe { Action::quiet_handler(on_signal).set(signal) }?;
        *caught |= bit;
    }
    Ok(())
}

/// Blocks the thread until some have come, and returns these. For one thread.
pub(crate) fn next() -> u64 {
    loop {
        let count = COUNT.load(Ordering::Acquire);
        match COME.swap(0, Ordering::AcqRel) {
            // What comes from here on changes the count, so there is no sleep then.
            0 => _ = futex::wait(&COUNT, count, None),
            come => return come,
        }
    }
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the address of the thread's own variable.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    if let Some(bit) = bit(signal) {
        COME.fetch_or(bit, Ordering::AcqRel);
        COUNT.fetch_add(1, Ordering::Release);
        futex::wake(&COUNT, 1);
        call_earlier(&EARLIER[bit.trailing_zeros() as usize], signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

fn call_earlier(
    slot: &AtomicPtr<Action>,
    signal: i32,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: never freed, never changed.
    let Some(earlier) = (unsafe { slot.load(Ordering::Acquire).as_ref() }) else { return };
    if earlier.is_one_shot() {
        slot.store(ptr::null_mut(), Ordering::Release);
    }
    match earlier.disposition() {
        // SAFETY: a handler of this signal, called with what the kernel passed.
        Disposition::Info(handler) => unsafe { handler(signal, info, context) },
        // SAFETY: as above.
        Disposition::Plain(handler) => unsafe { handler(signal) },
        Disposition::Default | Disposition::Ignore => {}
    }
}
