//! Signal actions and alternate signal stacks.
//!
//! May be called from any thread; what a handler may call too says "async-signal-safe".

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// A handler in the three-argument form (`SA_SIGINFO`).
pub(crate) type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// What a process does when a signal arrives.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Action(libc::sigaction);

/// The signals that the kernel sends a thread for what it has just done.
pub(crate) const FAULTS: [i32; 6] =
    [libc::SIGILL, libc::SIGTRAP, libc::SIGBUS, libc::SIGFPE, libc::SIGSEGV, libc::SIGSYS];

/// An action, taken apart.
#[derive(Clone, Copy)]
pub(crate) enum Disposition {
    Default,
    Ignore,
    /// `SA_SIGINFO`.
    Info(unsafe extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)),
    Plain(unsafe extern "C" fn(i32)),
}

/// A handler that is told about the fault.
type InfoHandler = unsafe extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

impl Action {
    /// `SIG_DFL`.
    pub(crate) fn default_action() -> Action {
        // SAFETY: all zeroes is a valid `sigaction`: SIG_DFL, no flags, an empty mask.
        Action(unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() })
    }

    /// Runs `handler` on the alternate stack. Whatever else `like` asks for while its own handler
    /// runs (signals blocked, system calls restarted) is asked for too.
    pub(crate) fn handler(handler: Handler, like: &Action) -> Action {
        let mut action = *like;
        action.0.sa_sigaction = handler as usize;
        action.0.sa_flags &= libc::SA_RESTART | libc::SA_NODEFER;
        action.0.sa_flags |= libc::SA_SIGINFO | libc::SA_ONSTACK;
        action
    }

    /// Runs `handler` on the alternate stack, with all signals kept waiting but those of `FAULTS`.
    /// System calls that it breaks off are repeated, where the kernel can.
    pub(crate) fn quiet_handler(handler: Handler) -> Action {
        let mut action = Action::default_action();
        action.0.sa_sigaction = handler as usize;
        action.0.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        // SAFETY: the set is ours to write.
        unsafe { libc::sigfillset(&mut action.0.sa_mask) };
        for fault in FAULTS {
            // SAFETY: as above.
            unsafe { libc::sigdelset(&mut action.0.sa_mask, fault) };
        }
        action
    }

    pub(crate) fn disposition(&self) -> Disposition {
        use core::mem::transmute;
        let address = self.0.sa_sigaction;
        match address {
            libc::SIG_DFL => Disposition::Default,
            libc::SIG_IGN => Disposition::Ignore,
            _ if self.0.sa_flags & libc::SA_SIGINFO != 0 => {
                // SAFETY: whoever installed the action promised a handler of this form.
                Disposition::Info(unsafe { transmute::<usize, InfoHandler>(address) })
            }
            // SAFETY: as above.
            _ => Disposition::Plain(unsafe {
                transmute::<usize, unsafe extern "C" fn(i32)>(address)
            }),
        }
    }

    /// Whether it gives way to the default action when it is first used (`SA_RESETHAND`).
    pub(crate) fn is_one_shot(&self) -> bool {
        self.0.sa_flags & libc::SA_RESETHAND != 0
    }

    /// The action now in force. Async-signal-safe.
    pub(crate) fn get(signal: i32) -> io::Result<Action> {
        let mut old = Action::default_action();
        // SAFETY: only writes `old`.
        match unsafe { libc::sigaction(signal, ptr::null(), &mut old.0) } {
            0 => Ok(old),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Puts the action in force; returns the one before. Async-signal-safe.
    ///
    /// # Safety
    /// A handler must be fit to run at any point of any thread of the program.
    pub(crate) unsafe fn set(&self, signal: i32) -> io::Result<Action> {
        let mut old = Action::default_action();
        // SAFETY: the caller's promise.
        match unsafe { libc::sigaction(signal, &self.0, &mut old.0) } {
            0 => Ok(old),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Sends this thread a signal. Async-signal-safe.
pub(crate) fn raise(signal: i32) {
    // SAFETY: what the signal does is as its action says.
    unsafe { libc::raise(signal) };
}

/// Ends the process with SIGABRT. Async-signal-safe.
pub(crate) fn abort() -> ! {
    // SAFETY: does not return.
    unsafe { libc::abort() }
}

/// Writes to standard error, without locks and without reporting failure. Async-signal-safe.
pub(crate) fn write_stderr(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: reads `bytes`.
        match unsafe { libc::write(2, bytes.as_ptr().cast(), bytes.len()) } {
            written if written > 0 => bytes = &bytes[written as usize..],
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// The thread's alternate signal stack: its low end and size, `None` when there is none.
pub(crate) fn alternate_stack() -> Option<(*mut u8, usize)> {
    let mut old = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: only writes `old`.
    let result = unsafe { libc::sigaltstack(ptr::null(), &mut old) };
    (result == 0 && old.ss_flags & libc::SS_DISABLE == 0).then(|| (old.ss_sp.cast(), old.ss_size))
}

/// Sets the thread's alternate signal stack, or with `None` disables it.
///
/// # Safety
/// The memory is the thread's for this purpose until another call replaces it.
pub(crate) unsafe fn set_alternate_stack(stack: Option<(*mut u8, usize)>) -> io::Result<()> {
    let new = match stack {
        Some((base, size)) => libc::stack_t { ss_sp: base.cast(), ss_flags: 0, ss_size: size },
        None => libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 },
    };
    // SAFETY: the caller's promise.
    match unsafe { libc::sigaltstack(&new, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The smallest alternate stack that the kernel can put a signal frame on, with room for a handler.
pub(crate) fn alternate_stack_bytes() -> usize {
    const AT_MINSIGSTKSZ: libc::c_ulong = 51;
    // SAFETY: reads the auxiliary vector.
    let frame = unsafe { libc::getauxval(AT_MINSIGSTKSZ) } as usize;
    frame.max(libc::MINSIGSTKSZ) + (16 << 10)
}
