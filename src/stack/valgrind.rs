//! Telling valgrind where stacks are, so that it does not take a switch for a huge push or pop.
//!
//! A request is a sequence of instructions that does nothing on a processor and that valgrind
//! recognises while it translates: four rotations of rdi that add up to two full turns, then
//! `xchg rbx, rbx`. It costs about a nanosecond, once for each slot, so it is always compiled in.

use super::Top;
use super::slab::Shape;

/// Registers the usable part of a slot as a stack, for ever: slots are never unmapped.
#[cfg(valgrind = "x86_64")]
pub(super) fn register(shape: Shape, top: Top) {
    const STACK_REGISTER: usize = 0x1501;
    let range = shape.usable(top);
    let lowest = range.base().addr();
    let request = [STACK_REGISTER, lowest, lowest + range.len() - 1, 0, 0, 0];
    // SAFETY: changes nothing but rdx and the flags (rdi ends as it began); valgrind reads
    // `request`.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") request.as_ptr(),
            inout("rdx") 0usize => _,
            options(nostack),
        );
    }
}

/// No known request sequence for this architecture.
#[cfg(not(valgrind = "x86_64"))]
#[inline(always)]
pub(super) fn register(_shape: Shape, _top: Top) {}
