//! The x86-64 (System V, ELF) switch.
//!
//! The register contract and the frame diagrams are at the head of `asm/x86_64/switch.s` and
//! `entry.S`; the policies (floating point, CET, unwinding) are in `asm/README.md`.
//!
//! Invariants, cited below.
//! 1. Of a suspended fiber, `Context::peer` is the frame at which the fiber waits; of a running
//!    one, the frame at which the context that resumed it waits.
//! 2. A frame is used once: the side that leaves writes its own and consumes the other's.

use super::Entry;
use core::arch::{asm, global_asm};

global_asm!(include_str!("../../asm/x86_64/entry.S"));
global_asm!(include_str!("../../asm/current.S"));
#[cfg(test)]
global_asm!(include_str!("../../asm/x86_64/check.S"));

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
    start: Start,
}

// `start` is where the stack pointer will be at the call, so it must be aligned as the top is.
const _: () =
    assert!(size_of::<Start>().is_multiple_of(16) && core::mem::offset_of!(Frame, start) == 16);

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
            frame.write(Frame { resume_at: fiber_entry, start_fiber: start_fiber::<E>, start });
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
    // SAFETY: `to` is a frame that nobody has consumed (invariant 2). The text saves rbx and rbp;
    // every other register is listed here as lost, and memory is taken to have changed.
    unsafe {
        asm!(
            include_str!("../../asm/x86_64/switch.s"),
            inlateout("rdi") word,
            inlateout("rsi") peer,
            lateout("r12") _,
            lateout("r13") _,
            lateout("r14") _,
            lateout("r15") _,
            clobber_abi("sysv64"),
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
            "mov {word}, qword ptr [rip + ramie_v0_1_current@gottpoff]",
            "mov {word}, qword ptr fs:[{word}]",
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
            "mov {offset}, qword ptr [rip + ramie_v0_1_current@gottpoff]",
            "mov qword ptr fs:[{offset}], {word}",
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
        asm!(
            "prefetcht0 byte ptr [{}]",
            in(reg) address,
            options(nostack, preserves_flags, readonly)
        );
    }
}

/// The stack pointer, in whatever frame this is inlined into.
#[allow(dead_code, reason = "no part of what the tests compare")]
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Whether this thread has a shadow stack, which the switch does not change: the first return after
/// one would fault. `rdsspq` does nothing where there is none.
#[inline]
pub(crate) fn has_shadow_stack() -> bool {
    let pointer: usize;
    // SAFETY: reads a register.
    unsafe {
        asm!("rdsspq {0}", inout(reg) 0usize => pointer, options(nomem, nostack, preserves_flags));
    }
    pointer != 0
}

/// The registers that `check.S` fills, in its order.
#[cfg(test)]
pub(crate) const CALLEE_SAVED: &[&str] = &["rbx", "rbp", "r12", "r13", "r14", "r15"];

/// The stack pointer at a function's entry, modulo 16: aligned, less the return address.
#[cfg(test)]
pub(crate) const SP_AT_ENTRY: usize = 8;
