//! Installing guards: how a slot's low end is made to fault.
//!
//! | method  | system call                          | cost each | its limit                           |
//! |---------|--------------------------------------|----------:|-------------------------------------|
//! | Batched | one `process_madvise` for many slots |    1.0 us | none                                |
//! | Single  | one `madvise(GUARD_INSTALL)` a slot  |    1.4 us | none                                |
//! | Protect | one `mprotect(PROT_NONE)` a slot     |    4.1 us | two mappings each: vm.max_map_count |
//!
//! (Costs on Linux 6.18 in a virtual machine.)
//!
//! A process starts with the first and goes down the list, never up, when the kernel says that it
//! does not know the call (ENOSYS, EINVAL), forbids it (EPERM, a seccomp filter), or that the
//! memory is locked (EINVAL under `mlockall(MCL_FUTURE)`: a locked page cannot become a guard
//! marker). Guards of several methods may exist side by side; nothing but this file can tell them
//! apart.

use super::Top;
use super::slab::Shape;
use crate::sys::mask::{self, Cap};
use crate::sys::mem::{self, MADV_GUARD_INSTALL, Range};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// How guards are installed, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Method {
    Batched,
    Single,
    Protect,
}

/// The method in use; one for the process, others in tests.
#[derive(Debug)]
pub(crate) struct Guards {
    method: AtomicU8,
}

/// The process's own.
pub(crate) static GUARDS: Guards = Guards::starting_with(Method::Batched);

impl Guards {
    pub(crate) const fn starting_with(method: Method) -> Guards {
        Guards { method: AtomicU8::new(method as u8) }
    }

    pub(crate) fn method(&self) -> Method {
        match self.method.load(Ordering::Relaxed) {
            0 => Method::Batched,
            1 => Method::Single,
            _ => Method::Protect,
        }
    }

    /// Uses no method before `method` from now on.
    pub(crate) fn lower_to(&self, method: Method) {
        self.method.fetch_max(method as u8, Ordering::Relaxed);
    }

    /// Installs the guards of `tops`, from the front. Returns how many have theirs, and the error
    /// that kept the next one from it.
    pub(super) fn install(&self, shape: Shape, tops: &[Top]) -> (usize, io::Result<()>) {
        let mut done = 0;
        while done < tops.len() {
            let method = self.method(); // another thread may lower it meanwhile
            let (count, result) = match method {
                Method::Batched if hidden(Cap::GuardBatch) => (0, refusal()),
                Method::Single if hidden(Cap::GuardInstall) => (0, refusal()),
                Method::Batched => batched(shape, &tops[done..]),
                Method::Single => each(shape, &tops[done..], |range| {
                    // SAFETY: invariant 1: the slot is ours, and nothing has used its guard.
                    unsafe { mem::advise(range, MADV_GUARD_INSTALL) }
                }),
                Method::Protect => each(shape, &tops[done..], protect),
            };
            done += count;
            let Err(error) = result else { continue };
            let refused =
                matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPERM | libc::ENOSYS));
            match method {
                Method::Batched if refused => self.lower_to(Method::Single),
                Method::Single if refused => self.lower_to(Method::Protect),
                // Out of memory or descriptors: one by one, the slot to blame shows itself.
                Method::Batched if done < tops.len() => {
                    let next = &tops[done..done + 1];
                    let single = Guards::starting_with(Method::Single);
                    let (count, result) = single.install(shape, next);
                    done += count;
                    if result.is_err() {
                        return (done, result);
                    }
                }
                _ => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }
}

/// Whether the process is to do without: neither method works without the advice.
fn hidden(cap: Cap) -> bool {
    mask::hides(cap) || mask::hides(Cap::GuardInstall)
}

/// What an older kernel says.
fn refusal() -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

fn batched(shape: Shape, tops: &[Top]) -> (usize, io::Result<()>) {
    let ranges: Vec<Range> = tops.iter().map(|&top| shape.guard(top)).collect();
    // SAFETY: invariant 1: the slots are ours, and nothing has used their guards.
    unsafe { mem::advise_many(&ranges, MADV_GUARD_INSTALL) }
}

fn each(
    shape: Shape,
    tops: &[Top],
    install: impl Fn(Range) -> io::Result<()>,
) -> (usize, io::Result<()>) {
    for (done, &top) in tops.iter().enumerate() {
        if let Err(error) = install(shape.guard(top)) {
            return (done, Err(error));
        }
    }
    (tops.len(), Ok(()))
}

/// Slots guarded by `mprotect` so far in this process.
static PROTECTED: AtomicUsize = AtomicUsize::new(0);

fn protect(range: Range) -> io::Result<()> {
    // Stop a little short of the kernel's limit: at the limit malloc and thread creation fail too.
    let maps = max_map_count();
    if 2 * PROTECTED.fetch_add(1, Ordering::Relaxed) >= maps - maps / 16 {
        PROTECTED.fetch_sub(1, Ordering::Relaxed);
        return Err(too_many_mappings());
    }
    // SAFETY: invariant 1: the slot is ours, and nothing has used its guard.
    unsafe { mem::protect_none(range) }.map_err(|error| {
        PROTECTED.fetch_sub(1, Ordering::Relaxed);
        match error.raw_os_error() {
            Some(libc::ENOMEM) => too_many_mappings(),
            _ => error,
        }
    })
}

fn max_map_count() -> usize {
    static MAPS: OnceLock<usize> = OnceLock::new();
    *MAPS.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(65_530)
    })
}

#[cold]
fn too_many_mappings() -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "no mappings left for the guard of another fiber stack: {} stacks are guarded by \
             mprotect, which takes two mappings each, and vm.max_map_count is {}. Raise it \
             (`sysctl vm.max_map_count=1000000`), or run on Linux 6.13 or later, without \
             mlockall(MCL_FUTURE), where guards take no mappings",
            PROTECTED.load(Ordering::Relaxed),
            max_map_count()
        ),
    )
}
