//! The x86-64 (System V) switch; the register contract and the frame diagram are in `asm/README.md`.

use super::Entry;
use core::arch::{asm, global_asm};

global_asm!(include_str!("../../asm/x86_64/entry.S"));
global_asm!(
    ".pushsection .tbss.ramie_current,\"awT\",@nobits",
    ".globl ramie_current",
    ".hidden ramie_current",
    ".type ramie_current, @tls_object",
    ".size ramie_current, 8",
    ".p2align 3",
    "ramie_current: .zero 8",
    ".popsection",
);

unsafe extern "C" {
    fn ramie_fiber_entry();
}

/// One fiber's execution: while it is suspended, its stack pointer; while it runs, that of the
/// context which resumed it. Everything else is on the suspended stack.
#[repr(C)]
pub(crate) struct Context {
    peer: usize,
}

#[repr(C)]
struct Start {
    entry: Entry,
    arg: *mut (),
    this: *mut Context,
}

impl Context {
    /// See the contract in `arch/mod.rs`.
    #[inline]
    pub(crate) unsafe fn init(
        this: *mut Self,
        top: *mut u8,
        _limit: *mut u8,
        entry: Entry,
        arg: *mut (),
    ) {
        debug_assert!(top.addr() % 16 == 0);
        // SAFETY: the caller gives us an unused stack; 64 bytes of it are always there.
        unsafe {
            let start = top.cast::<Start>().sub(2); // 48 bytes below the top: keeps alignment
            start.write(Start { entry, arg, this });
            let frame = start.cast::<usize>().sub(3); // three pops make it 16-aligned again
            frame.write(ramie_fiber_entry as *const () as usize);
            frame.add(1).write(start as usize);
            frame.add(2).write(start_fiber as *const () as usize);
            (*this).peer = frame as usize;
        }
    }

    /// See the contract in `arch/mod.rs`.
    #[inline(always)]
    pub(crate) unsafe fn resume(this: *mut Self, word: usize) -> usize {
        // SAFETY: the caller's promise: `this` is suspended, so `peer` is its stack pointer.
        unsafe {
            let (word, sp) = switch(word, (*this).peer);
            (*this).peer = sp;
            word
        }
    }

    /// See the contract in `arch/mod.rs`.
    #[inline(always)]
    pub(crate) unsafe fn suspend(this: *mut Self, word: usize) -> usize {
        // SAFETY: the caller's promise: `this` is running, so `peer` is who resumed it.
        unsafe {
            let (word, sp) = switch(word, (*this).peer);
            (*this).peer = sp;
            word
        }
    }
}

unsafe extern "C" fn start_fiber(start: *mut Start, word: usize, peer: usize) -> ! {
    // SAFETY: `init` wrote `start`; the context that resumed us is at `peer`.
    unsafe {
        let Start { entry, arg, this } = start.read();
        (*this).peer = peer;
        let word = entry(arg, word);
        switch(word, (*this).peer);
        core::hint::unreachable_unchecked()
    }
}

#[inline(always)]
unsafe fn switch(mut word: usize, mut sp: usize) -> (usize, usize) {
    // SAFETY: `sp` is a frame made by `init` or by this very code; all other registers are given up.
    unsafe {
        asm!(
            include_str!("../../asm/x86_64/switch.s"),
            inlateout("rdi") word, inlateout("rsi") sp,
            lateout("rax") _, lateout("rcx") _, lateout("rdx") _,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
            clobber_abi("sysv64"),
        );
    }
    (word, sp)
}

/// The word last stored by `set_current` on this thread; 0 at first.
#[inline(always)]
pub(crate) fn get_current() -> usize {
    let word: usize;
    // SAFETY: reads the thread's own slot, by its initial-exec offset.
    unsafe {
        asm!("mov {0}, qword ptr [rip + ramie_current@gottpoff]", "mov {0}, qword ptr fs:[{0}]",
            out(reg) word, options(nostack, preserves_flags, readonly));
    }
    word
}

/// Stores this thread's word.
#[inline(always)]
pub(crate) fn set_current(word: usize) {
    // SAFETY: writes the thread's own slot, by its initial-exec offset.
    unsafe {
        asm!("mov {0}, qword ptr [rip + ramie_current@gottpoff]", "mov qword ptr fs:[{0}], {1}",
            out(reg) _, in(reg) word, options(nostack, preserves_flags));
    }
}
