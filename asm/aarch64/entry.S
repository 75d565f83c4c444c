// Where a fiber begins: the first switch to it continues here. AArch64, AAPCS64, ELF.
//
// Signature: not callable; a switch jumps here. It calls, and never returns from,
//   noreturn start(uintptr_t word, void *peer, struct start *start);
//
// Registers
//   in         x0 = word, x1 = peer (as switch.s leaves them), sp = initial frame, x29 = 0
//   out        x0 = word, x1 = peer, x2 = address of the block above the frame
//   clobbered  x3, x29, x30
//
// The initial frame, written by Context::init
//   +64  top of the stack, a multiple of 16
//   +56  unused
//   +32  struct start (three words, opaque here); sp at the call, a multiple of 16
//   +24  unused
//   +16  address of start
//   + 8  address of ramie_v0_1_fiber_entry
//   + 0  0, for x29
//
// Unwinding: the return address is undefined, which ends every backtrace here; x29 = 0 ends the
// chain for those who walk frame pointers. A panic must not come this far: `start` is nounwind.
//
// FP: no control word is touched. BTI: hint 36 is `bti j`, as we are jumped to, not called.

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
    ldr     x3, [sp, #16]
    add     sp, sp, #32
    mov     x2, sp
    mov     x29, xzr
    mov     x30, xzr
    // x3 = start, x0 = word, x1 = peer, x2 = sp = its third argument
    blr     x3
    brk     #1
    .cfi_endproc
.size   ramie_v0_1_fiber_entry, . - ramie_v0_1_fiber_entry
.popsection
