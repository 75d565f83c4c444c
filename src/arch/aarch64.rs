//! The AArch64 (AAPCS64, ELF) switch.
//!
//! The register contract and the frame diagrams are at the head of `asm/aarch64/switch.s` and
//! `entry.S`; the policies (floating point, shadow stacks, unwinding) are in `asm/README.md`.
//!
//! Invariants, cited below.
//! 1. Of a suspended fiber, `Context::peer` is the frame at which the fiber waits; of a running
//!    one, the frame at which the context that resumed it waits.
//! 2. A frame is used once: the side that leaves writes its own and consumes the other's.

use super::Entry;
use core::arch::{asm, global_asm};

global_asm!(include_str!("../../asm/aarch64/entry.S"));
global_asm!(include_str!("../../asm/current.S"));
#[cfg(test)]
global_asm!(include_str!("../../asm/aarch64/check.S"));

unsafe extern "C" {
    #[link_name = "ramie_v0_1_fiber_entry"]
    fn fiber_entry();
}

/// One fiber's execution, in one word; all else lies on the stack that is not running.
#[repr(C)]
pub(crate) struct Context {
    peer: *mut Frame,
}

/// What a fiber needs for its start; it lies just below the top of the stack.
#[repr(C)]
struct Start {
    arg: *mut (),
    this: *mut Context,
}

/// The initial frame (diagram in `entry.S`).
#[repr(C)]
struct Frame {
    frame_pointer: usize,
    resume_at: unsafe extern "C" fn(),
    start_fiber: unsafe extern "C" fn(usize, *mut Frame, *const Start) -> !,
    unused: usize,
    start: Start,
}

// `start` is where the stack pointer will be at the call, so it must be aligned as the top is.
const _: () =
    assert!(size_of::<Start>().is_multiple_of(16) && core::mem::offset_of!(Frame, start) == 32);

impl Context {
    /// See the contract in `arch/mod.rs`.
    #[inline]
    pub(crate) unsafe fn init<E: Entry>(
        this: *mut Self,
        top: *mut u8,
        limit: impl FnOnce() -> *mut u8,
        arg: *mut (),
    ) {
        debug_assert!(top.addr().is_multiple_of(16) && top.addr() > limit().addr());
        let start = Start { arg, this };
        // SAFETY: the caller hands over the unused stack below `top`, larger than one frame.
        let frame = unsafe { top.cast::<Frame>().sub(1) };
        // SAFETY: as above.
        unsafe {
            frame.write(Frame {
                frame_pointer: 0,
                resume_at: fiber_entry,
                start_fiber: start_fiber::<E>,
                unused: 0,
                start,
            });
        }
        // SAFETY: the memory at `this` is the caller's to fill; invariant 1 holds from here.
        unsafe { this.write(Context { peer: frame }) }
    }

    /// See the contract in `arch/mod.rs`.
    #[inline(always)]
    pub(crate) unsafe fn resume(this: *mut Self, word: usize) -> usize {
        // SAFETY: the caller's promise: nobody else uses `this`.
        let to = unsafe { (*this).peer };
        // SAFETY: the caller's promise: the fiber is suspended, so this is its frame (invariant 1).
        let (word, peer) = unsafe { switch(word, to) };
        // SAFETY: the context is still ours, ended or not; this is the fiber's next frame.
        unsafe { (*this).peer = peer };
        word
    }

    /// See the contract in `arch/mod.rs`.
    #[inline(always)]
    pub(crate) unsafe fn suspend(this: *mut Self, word: usize) -> usize {
        // SAFETY: the caller's promise: we run on the fiber of `this`, which nobody else uses.
        let to = unsafe { (*this).peer };
        // SAFETY: we run, so this is the frame of whoever resumed us (invariant 1).
        let (word, peer) = unsafe { switch(word, to) };
        // SAFETY: we run again, so the context is ours; this is the frame of who resumed us now.
        unsafe { (*this).peer = peer };
        word
    }
}

/// The first Rust code on a fiber's stack, where `entry.S` goes on the first resume. The body is
/// inlined here: a call of it would be one that never returns (see `entry.S`).
unsafe extern "C" fn start_fiber<E: Entry>(
    word: usize,
    peer: *mut Frame,
    start: *const Start,
) -> ! {
    // SAFETY: `init` wrote it, and the stack pointer was at it when `entry.S` left.
    let Start { arg, this } = unsafe { start.read() };
    // SAFETY: we run, so the context is ours; `peer` is the frame of who resumed us (invariant 1).
    unsafe { (*this).peer = peer };
    // SAFETY: the caller of `init` gave them to be called once, here.
    let last = unsafe { E::enter(arg, word) };
    // SAFETY: the context is still ours.
    let to = unsafe { (*this).peer };
    // SAFETY: the frame of who resumed us last, which need not be `peer` (invariant 1).
    unsafe { switch(last, to) };
    // Somebody resumed a fiber that had ended.
    std::process::abort()
}

/// Leaves this stack for the frame `to`, handing over `word`; returns the word and the frame of
/// whoever comes back.
#[inline(always)]
unsafe fn switch(mut word: usize, to: *mut Frame) -> (usize, *mut Frame) {
    let mut peer = to;
    // SAFETY: `to` is a frame that nobody has consumed (invariant 2). The text saves x19 and x29;
    // every other register is listed here as lost, and memory is taken to have changed.
    unsafe {
        asm!(
            include_str!("../../asm/aarch64/switch.s"),
            inlateout("x0") word,
            inlateout("x1") peer,
            lateout("x20") _,
            lateout("x21") _,
            lateout("x22") _,
            lateout("x23") _,
            lateout("x24") _,
            lateout("x25") _,
            lateout("x26") _,
            lateout("x27") _,
            lateout("x28") _,
            // The rest, with x30 and v8 to v15 whole, and x18 unless the platform reserves it.
            clobber_abi("C"),
        );
    }
    (word, peer)
}

/// The word last stored by `set_current` on this thread; 0 at first.
#[inline(always)]
pub(crate) fn get_current() -> usize {
    let word: usize;
    // SAFETY: reads the thread's own slot. Not `pure`, so the compiler repeats it when asked to.
    unsafe {
        asm!(
            "mrs {thread}, tpidr_el0",
            "adrp {word}, :gottprel:ramie_v0_1_current",
            "ldr {word}, [{word}, #:gottprel_lo12:ramie_v0_1_current]",
            "ldr {word}, [{thread}, {word}]",
            thread = out(reg) _,
            word = out(reg) word,
            options(nostack, preserves_flags, readonly),
        );
    }
    word
}

/// Stores this thread's word.
#[inline(always)]
pub(crate) fn set_current(word: usize) {
    // SAFETY: writes the thread's own slot, which nothing else aliases.
    unsafe {
        asm!(
            "mrs {thread}, tpidr_el0",
            "adrp {offset}, :gottprel:ramie_v0_1_current",
            "ldr {offset}, [{offset}, #:gottprel_lo12:ramie_v0_1_current]",
            "str {word}, [{thread}, {offset}]",
            thread = out(reg) _,
            offset = out(reg) _,
            word = in(reg) word,
            options(nostack, preserves_flags),
        );
    }
}

/// Asks for the cache line at `address`, which may be any: a hint.
#[allow(dead_code, reason = "no part of what the tests compare")]
#[inline(always)]
pub(crate) fn prefetch(address: *const ()) {
    // SAFETY: changes no register and no memory, and does not fault.
    unsafe {
        asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
}

/// The stack pointer, in whatever frame this is inlined into.
#[allow(dead_code, reason = "no part of what the tests compare")]
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Whether this thread has a guarded control stack, which the switch does not change: the first
/// return after one would fault. Hint 40 is `chkfeat x16`, which does nothing where there is none.
#[inline]
pub(crate) fn has_shadow_stack() -> bool {
    let absent: usize;
    // SAFETY: changes x16 only.
    unsafe {
        asm!("hint #40", inout("x16") 1usize => absent, options(nomem, nostack, preserves_flags));
    }
    absent == 0
}

/// The registers that `check.S` fills, in its order.
#[cfg(test)]
pub(crate) const CALLEE_SAVED: &[&str] = &[
    "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "d8", "d9", "d10",
    "d11", "d12", "d13", "d14", "d15",
];

/// The stack pointer at a function's entry, modulo 16.
#[cfg(test)]
pub(crate) const SP_AT_ENTRY: usize = 0;
