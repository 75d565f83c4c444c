//! The x86-64 (System V, ELF) switch.
//!
//! The register contract and the frame diagrams are at the head of `asm/x86_64/switch.s` and
//! `entry.S`; the policies (floating point, CET, unwinding) are in `asm/README.md`.
//!
//! Invariants, cited below.
//! 1. Of a suspended fiber, `Context::peer` is the frame at which the fiber waits; of a running one,
//!    the frame at which the context that resumed it waits.
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
    entry: Entry,
    arg: *mut (),
    this: *mut Context,
    unused: usize,
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
    pub(crate) unsafe fn init(
        this: *mut Self,
        top: *mut u8,
        limit: *mut u8,
        entry: Entry,
        arg: *mut (),
    ) {
        debug_assert!(top.addr().is_multiple_of(16) && top.addr() > limit.addr());
        // SAFETY: the caller hands over the unused stack below `top`, larger than one frame, and
        // the memory at `this`; this makes invariant 1 true.
        unsafe {
            let frame = top.cast::<Frame>().sub(1);
            let start = Start { entry, arg, this, unused: 0 };
            frame.write(Frame { resume_at: fiber_entry, start_fiber, start });
            this.write(Context { peer: frame });
        }
    }

    /// See the contract in `arch/mod.rs`.
    #[inline(always)]
    pub(crate) unsafe fn resume(this: *mut Self, word: usize) -> usize {
        // SAFETY: the caller's promise: the fiber is suspended and nobody else uses `this`, so by
        // invariant 1 `peer` is its frame; what comes back is its next frame.
        unsafe {
            let (word, peer) = switch(word, (*this).peer);
            (*this).peer = peer;
            word
        }
    }

    /// See the contract in `arch/mod.rs`.
    #[inline(always)]
    pub(crate) unsafe fn suspend(this: *mut Self, word: usize) -> usize {
        // SAFETY: the caller's promise: this runs on the fiber of `this`, so by invariant 1 `peer`
        // is the frame of the context that resumed it; what comes back is the next resumer's.
        unsafe {
            let (word, peer) = switch(word, (*this).peer);
            (*this).peer = peer;
            word
        }
    }
}

/// The first Rust code on a fiber's stack, called by `entry.S` on the first resume.
unsafe extern "C" fn start_fiber(word: usize, peer: *mut Frame, start: *const Start) -> ! {
    // SAFETY: `init` wrote `start`; `peer` is the frame of the context that resumed us (invariant
    // 1), which after `entry` may be another one.
    unsafe {
        let Start { entry, arg, this, .. } = start.read();
        (*this).peer = peer;
        let last = entry(arg, word);
        switch(last, (*this).peer);
    }
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
