//! The RISC-V (64 bits, ELF psABI) switch.
//!
//! The register contract and the frame diagrams are at the head of `asm/riscv64/switch.s` and
//! `entry.S`; the policies (floating point, shadow stacks, unwinding) are in `asm/README.md`.
//!
//! Invariants, cited below.
//! 1. Of a suspended fiber, `Context::peer` is the frame at which the fiber waits; of a running
//!    one, the frame at which the context that resumed it waits.
//! 2. A frame is used once: the side that leaves writes its own and consumes the other's.

use super::Entry;
use core::arch::{asm, global_asm};

global_asm!(include_str!("../../asm/riscv64/entry.S"));
global_asm!(include_str!("../../asm/current.S"));
#[cfg(test)]
global_asm!(include_str!("../../asm/riscv64/check.S"));

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
    resume_at: unsafe extern "C" fn(),
    start_fiber: unsafe extern "C" fn(usize, *mut Frame, *const Start) -> !,
    unused: [usize; 2],
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
                resume_at: fiber_entry,
                start_fiber: start_fiber::<E>,
                unused: [0; 2],
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
    // SAFETY: `to` is a frame that nobody has consumed (invariant 2). The text saves s0 and s1;
    // every other register is listed here as lost, and memory is taken to have changed.
    unsafe {
        asm!(
            include_str!("../../asm/riscv64/switch.s"),
            inlateout("a0") word,
            inlateout("a1") peer,
            lateout("s2") _,
            lateout("s3") _,
            lateout("s4") _,
            lateout("s5") _,
            lateout("s6") _,
            lateout("s7") _,
            lateout("s8") _,
            lateout("s9") _,
            lateout("s10") _,
            lateout("s11") _,
            lateout("fs0") _,
            lateout("fs1") _,
            lateout("fs2") _,
            lateout("fs3") _,
            lateout("fs4") _,
            lateout("fs5") _,
            lateout("fs6") _,
            lateout("fs7") _,
            lateout("fs8") _,
            lateout("fs9") _,
            lateout("fs10") _,
            lateout("fs11") _,
            // The rest, with ra and the vector registers.
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
            "la.tls.ie {word}, ramie_v0_1_current",
            "add {word}, {word}, tp",
            "ld {word}, 0({word})",
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
            "la.tls.ie {offset}, ramie_v0_1_current",
            "add {offset}, {offset}, tp",
            "sd {word}, 0({offset})",
            offset = out(reg) _,
            word = in(reg) word,
            options(nostack, preserves_flags),
        );
    }
}

/// Asks for the cache line at an address, which may be any: a hint that is not taken.
#[allow(dead_code, reason = "no part of what the tests compare")]
#[inline(always)]
pub(crate) fn prefetch(_address: *const ()) {}

/// The stack pointer, in whatever frame this is inlined into.
#[allow(dead_code, reason = "no part of what the tests compare")]
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mv {0}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Whether this thread has a shadow stack, which the switch does not change. There is no harmless
/// way to ask on RISC-V, where Linux gives one only to programs that request it.
#[inline]
pub(crate) fn has_shadow_stack() -> bool {
    false
}

/// The registers that `check.S` fills, in its order.
#[cfg(test)]
#[rustfmt::skip]
pub(crate) const CALLEE_SAVED: &[&str] = &[
    "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
    "fs0", "fs1", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11",
];

/// The stack pointer at a function's entry, modulo 16.
#[cfg(test)]
pub(crate) const SP_AT_ENTRY: usize = 0;
