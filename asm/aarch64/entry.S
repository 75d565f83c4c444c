// Where a fiber begins: the first switch to it continues here. AArch64, AAPCS64, ELF.
//
// Signature: not callable; a switch jumps here. It goes on, as if it called it, in
//   noreturn start(uintptr_t word, void *peer, struct start *start);
//
// Registers
//   in         x0 = word, x1 = peer (as switch.s leaves them), sp = initial frame, x29 = 0
//   out        x0 = word, x1 = peer, x2 = address of the block above the frame
//   clobbered  x16, x29, x30
//
// The initial frame, written by Context::init
//   +32  struct start (opaque here) up to the top of the stack; sp at the call, a multiple of 16
//   +24  unused
//   +16  address of start
//   + 8  address of ramie_v0_1_fiber_entry
//   + 0  0, for x29
//
// Unwinding: the return address is undefined, which ends every backtrace here; x29 = 0 ends the
// chain for those who walk frame pointers. A panic must not come this far: `start` is nounwind.
//
// It jumps, with the return address that a call would leave: a real call would leave one more
// address on the processor's stack of return addresses, for a return that never comes, and have the
// next returns on this thread mispredicted.
//
// FP: no control word is touched. BTI: hint 36 is `bti j`, as we are jumped to, not called; a jump
// through x16 may land where a call may.

.pushsection .text.ramie,"ax",@progbits
.globl  ramie_v0_1_fiber_entry
.hidden ramie_v0_1_fiber_entry
.type   ramie_v0_1_fiber_entry, @function
.p2align 4
ramie_v0_1_fiber_entry:
    .cfi_startproc
    .cfi_undefined x30
    .cfi_undefined x29
    // x0 = word, x1 = peer, sp = frame
    hint    #36
    ldr     x16, [sp, #16]
    add     sp, sp, #32
    mov     x2, sp
    mov     x29, xzr
    adr     x30, 2f
    // x16 = start, x0 = word, x1 = peer, x2 = sp = its third argument
    br      x16
2:  brk     #1
    .cfi_endproc
.size   ramie_v0_1_fiber_entry, . - ramie_v0_1_fiber_entry
.popsection
