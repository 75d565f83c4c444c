//! Stack overflow: a fault in a guard is reported as `std` reports it for a thread.
//!
//! ```text
//!
//! fiber 'NAME' has overflowed its stack
//! its stack has 192 KiB and a guard of 64 KiB: spawn it with a larger stack_size
//! fatal runtime error: stack overflow, aborting
//! ```
//!
//! A handler for SIGSEGV and SIGBUS is put in front of the one that the process had (`std`'s, or
//! the program's own) and looks at the fault's address only:
//!
//! | the fault is …                              | then                                          |
//! |---------------------------------------------|-----------------------------------------------|
//! | in a guard of a fiber stack                 | report, abort                                 |
//! | elsewhere, the earlier action is a handler  | it is called with the same arguments          |
//! | elsewhere, default                          | the default is restored, and returning faults again |
//! | elsewhere, ignored                          | the same: the kernel lets nobody ignore a fault |
//! | none: sent by `kill`, default or ignored    | what the action says                          |
//!
//! So a program's handler installed *before* ours is reached through ours, and one installed
//! *after* replaces ours, as it replaces `std`'s. `si_code` does not tell a guard's fault from
//! another (guard markers give MAPERR, `mprotect` ACCERR), so it is not asked.
//!
//! A fault that does damage before it reaches a guard cannot be seen: a C frame larger than the
//! guard, compiled without probes, may step over it.
//!
//! The handler runs on the alternate stack, which every `std` thread has; [`ensure_altstack`] gives
//! one to the others. It and all it calls are async-signal-safe: no lock, no allocation.

use super::slab::{self, Found};
use crate::sys::mem::{self, Range};
use crate::sys::signal::{self, Action, Disposition};
use std::io;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Calls its argument with the name of the fiber that this thread runs, if it runs one that has
/// one; in pieces if that is easier. Called in the signal handler: no lock, no allocation.
pub(crate) type Describe = fn(&mut dyn FnMut(&[u8]));

const SIGNALS: [i32; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// The action each of `SIGNALS` had before ours; leaked, so that the handler may read it at any
/// time. Null stands for the default action.
static EARLIER: [AtomicPtr<Action>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];

/// A `Describe`, or null.
static DESCRIBE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Sets how a report finds the running fiber's name.
pub(crate) fn set_describe(describe: Describe) {
    DESCRIBE.store(describe as *mut (), Ordering::Release);
}

/// Installs the handler. Only the first call that succeeds does anything.
///
/// # Errors
/// What `sigaction` says, which for these signals should be nothing.
pub(crate) fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !*installed {
        for (signal, earlier) in SIGNALS.into_iter().zip(&EARLIER) {
            // Published first: another thread may fault as soon as the handler is in force.
            let action = Action::get(signal)?;
            earlier.store(Box::leak(Box::new(action)), Ordering::Release);
            // SAFETY: `on_fault` is async-signal-safe and keeps errno.
            unsafe { Action::handler(on_fault, &action).set(signal) }?;
        }
        *installed = true;
    }
    Ok(())
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo for as long as the handler runs.
    let code = unsafe { (*info).si_code };
    let is_fault = code > 0; // 0 and below: sent by a process
    if is_fault {
        // SAFETY: as above, and a fault has an address.
        let addr = unsafe { (*info).si_addr() }.addr();
        if let Some(found) = slab::find(addr).filter(|found| found.in_guard) {
            report(found);
        }
    }
    let slot = &EARLIER[usize::from(signal == libc::SIGBUS)];
    // SAFETY: never freed, never changed.
    let earlier = unsafe { slot.load(Ordering::Acquire).as_ref() };
    if earlier.is_some_and(Action::is_one_shot) {
        slot.store(ptr::null_mut(), Ordering::Release);
    }
    match earlier.map_or(Disposition::Default, Action::disposition) {
        // SAFETY: a handler of this signal, called with what the kernel passed.
        Disposition::Info(handler) => unsafe { handler(signal, info, context) },
        // SAFETY: as above.
        Disposition::Plain(handler) => unsafe { handler(signal) },
        Disposition::Ignore if !is_fault => {}
        Disposition::Default | Disposition::Ignore => {
            // SAFETY: the default action is no handler.
            let _ = unsafe { Action::default_action().set(signal) };
            if !is_fault {
                signal::raise(signal); // pending until this handler returns
            }
        }
    }
}

/// A line of text on the stack, written at once so that reports of two threads do not mix.
struct Text {
    bytes: [u8; 1024],
    len: usize,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.len..];
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.len += len;
    }

    fn push_number(&mut self, number: usize) {
        if number >= 10 {
            self.push_number(number / 10);
        }
        self.push(&[b'0' + (number % 10) as u8]);
    }
}

fn report(Found { shape, .. }: Found) -> ! {
    /// What a name may take, so that the rest always fits.
    const LONGEST_NAME: usize = 512;
    let mut text = Text { bytes: [0; 1024], len: 0 };
    text.push(b"\nfiber '");
    let before = text.len;
    let describe = DESCRIBE.load(Ordering::Acquire);
    if !describe.is_null() {
        // SAFETY: only `set_describe` stores it, from this very type.
        let describe = unsafe { core::mem::transmute::<*mut (), Describe>(describe) };
        describe(&mut |piece| {
            let room = LONGEST_NAME - (text.len - before);
            text.push(&piece[..piece.len().min(room)]);
        });
    }
    if text.len == before {
        text.push(b"<unknown>");
    }
    text.push(b"' has overflowed its stack\nits stack has ");
    text.push_number((shape.stack_bytes - shape.guard_bytes) >> 10);
    text.push(b" KiB and a guard of ");
    text.push_number(shape.guard_bytes >> 10);
    text.push(b" KiB: spawn it with a larger stack_size\n");
    text.push(b"fatal runtime error: stack overflow, aborting\n");
    signal::write_stderr(&text.bytes[..text.len]);
    signal::abort()
}

/// An alternate signal stack that [`ensure_altstack`] gave this thread, taken away again on drop.
/// Empty where the thread had one.
#[must_use = "dropping it takes the alternate stack away"]
pub(crate) struct AltStack {
    /// The mapping: a guard page, then the stack.
    mapping: Option<(NonNull<u8>, usize)>,
    /// Of this thread and no other.
    _thread: PhantomData<*mut ()>,
}

/// Gives the calling thread an alternate signal stack if it has none, as threads that C code made
/// have none. Keep the result until the thread ends.
///
/// # Errors
/// No memory.
pub(crate) fn ensure_altstack() -> io::Result<AltStack> {
    if signal::alternate_stack().is_some() {
        return Ok(AltStack { mapping: None, _thread: PhantomData });
    }
    let page = mem::page_size();
    let len = page + signal::alternate_stack_bytes().next_multiple_of(page);
    let base = mem::reserve(len, page)?;
    let altstack = AltStack { mapping: Some((base, len)), _thread: PhantomData };
    // SAFETY: the mapping just made; its lowest page is the guard, the rest the stack, and it stays
    // until `drop` takes it away from the thread.
    unsafe {
        mem::protect_none(Range::new(base, page))?;
        signal::set_alternate_stack(Some((base.add(page).as_ptr(), len - page)))?;
    }
    Ok(altstack)
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let Some((base, len)) = self.mapping else { return };
        let ours = base.addr().get()..base.addr().get() + len;
        let current = signal::alternate_stack();
        if current.is_some_and(|(current, _)| ours.contains(&current.addr())) {
            // SAFETY: disables it; this code does not run on it.
            if unsafe { signal::set_alternate_stack(None) }.is_err() {
                return; // in use after all: let it leak
            }
        }
        // SAFETY: our mapping, and no thread's alternate stack any more.
        unsafe { mem::unmap(base, len) };
    }
}
