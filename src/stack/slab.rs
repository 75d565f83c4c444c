//! Slabs: the large mappings that slots are carved from, and a table to find a slot by its address.
//!
//! The table is static, append-only and read without locks, so that the overflow handler can ask
//! it: an entry is written once, before the count that covers it is stored (release), and never
//! again.
//!
//! May be called from: [`map`], any thread; [`find`], also signal handlers (no locks, no
//! allocation).

use super::Top;
use crate::sys::mem::{self, Range};
use std::io;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Slabs start on a boundary of what one page-table page maps, so that no two share one.
const ALIGN: usize = 2 << 20;

/// Room for this many slabs in the process. With doubling up to 16 GiB this is 64 TiB of stacks.
const MAX_SLABS: usize = 4096;

/// How the slots of one pool are cut: `guard_bytes` at the low end of every `stack_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) stack_bytes: usize,
    pub(super) guard_bytes: usize,
}

impl Shape {
    /// The guard is a quarter of the slot, but at most 64 KiB: C frames are not probed page by
    /// page, so one frame must not be able to step over it. 4 KiB of 16, 16 of 64, 64 of 256 and
    /// more.
    #[inline]
    pub(super) fn of(stack_bytes: usize) -> Shape {
        let most = (64 << 10).max(mem::page_size());
        Shape { stack_bytes, guard_bytes: (stack_bytes / 4).min(most) }
    }

    #[inline]
    pub(super) fn limit(&self, top: Top) -> NonNull<u8> {
        // SAFETY: `top` is the high end of a slot of `stack_bytes`, and `guard_bytes` are fewer.
        unsafe { top.0.sub(self.stack_bytes - self.guard_bytes) }
    }

    /// The slot's guard.
    pub(super) fn guard(&self, top: Top) -> Range {
        // SAFETY: `top` is the high end of a slot of `stack_bytes`.
        Range::new(unsafe { top.0.sub(self.stack_bytes) }, self.guard_bytes)
    }

    /// What the slot's user may touch.
    pub(super) fn usable(&self, top: Top) -> Range {
        Range::new(self.limit(top), self.stack_bytes - self.guard_bytes)
    }
}

struct Entry {
    base: AtomicUsize,
    len: AtomicUsize,
    stack_bytes: AtomicUsize,
    guard_bytes: AtomicUsize,
}

static TABLE: [Entry; MAX_SLABS] = [const {
    Entry {
        base: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        stack_bytes: AtomicUsize::new(0),
        guard_bytes: AtomicUsize::new(0),
    }
}; MAX_SLABS];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static APPEND: Mutex<()> = Mutex::new(());

/// Maps and registers a slab of up to `want` bytes, less if that much cannot be had; returns its
/// base and length, a multiple of the slot size.
pub(super) fn map(shape: Shape, want: usize) -> io::Result<(NonNull<u8>, usize)> {
    let mut len = want.next_multiple_of(shape.stack_bytes);
    let base = loop {
        match mem::reserve(len, ALIGN) {
            Ok(base) => break base,
            // ENOMEM: no room, or a limit; EAGAIN: more than may be locked under `mlockall`.
            Err(_) if len / 2 >= shape.stack_bytes => {
                len = (len / 2).next_multiple_of(shape.stack_bytes);
            }
            Err(error) => return Err(no_address_space(len, error)),
        }
    };
    let range = Range::new(base, len);
    // A huge page would make dozens of stacks resident at once. Kernels without them refuse: fine.
    // SAFETY: advice about page sizes only, on the mapping just made.
    let _ = unsafe { mem::advise(range, libc::MADV_NOHUGEPAGE) };
    mem::name(base, len, c"ramie stacks");

    let _appending = APPEND.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let count = COUNT.load(Ordering::Relaxed);
    let Some(entry) = TABLE.get(count) else {
        // SAFETY: the mapping just made; nobody else knows it.
        unsafe { mem::unmap(base, len) };
        return Err(io::Error::other("too many slabs of fiber stacks in this process"));
    };
    entry.base.store(base.addr().get(), Ordering::Relaxed);
    entry.len.store(len, Ordering::Relaxed);
    entry.stack_bytes.store(shape.stack_bytes, Ordering::Relaxed);
    entry.guard_bytes.store(shape.guard_bytes, Ordering::Relaxed);
    COUNT.store(count + 1, Ordering::Release); // publishes the entry to `find`
    Ok((base, len))
}

#[cold]
fn no_address_space(len: usize, error: io::Error) -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "cannot reserve {} KiB of address space for fiber stacks: {error} \
             (see `ulimit -v`, vm.overcommit_memory and vm.max_map_count)",
            len >> 10
        ),
    )
}

/// What [`find`] knows about an address in a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) shape: Shape,
    pub(super) in_guard: bool,
}

/// Finds the slot that `addr` lies in. Async-signal-safe.
pub(super) fn find(addr: usize) -> Option<Found> {
    let count = COUNT.load(Ordering::Acquire);
    TABLE[..count].iter().find_map(|entry| {
        let offset = addr.checked_sub(entry.base.load(Ordering::Relaxed))?;
        if offset >= entry.len.load(Ordering::Relaxed) {
            return None;
        }
        let stack_bytes = entry.stack_bytes.load(Ordering::Relaxed);
        let guard_bytes = entry.guard_bytes.load(Ordering::Relaxed);
        let in_guard = offset % stack_bytes < guard_bytes;
        Some(Found { shape: Shape { stack_bytes, guard_bytes }, in_guard })
    })
}
