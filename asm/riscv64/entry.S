# Where a fiber begins: the first switch to it continues here. RISC-V, 64 bits, ELF psABI.
#
# Signature: not callable; a switch jumps here. It goes on, as if it called it, in
#   noreturn start(uintptr_t word, void *peer, struct start *start);
#
# Registers
#   in         a0 = word, a1 = peer (as switch.s leaves them), sp = initial frame
#   out        a0 = word, a1 = peer, a2 = address of the block above the frame
#   clobbered  t2, s0, ra
#
# The initial frame, written by Context::init
#   +32  struct start (opaque here) up to the top of the stack; sp at the call, a multiple of 16
#   +16  unused
#   + 8  address of start
#   + 0  address of ramie_v0_1_fiber_entry
#
# Unwinding: the return address is undefined, which ends every backtrace here; s0 = 0 ends the
# chain for those who walk frame pointers. A panic must not come this far: `start` is nounwind.
#
# It jumps, with the return address that a call would leave: a real call would leave one more
# address on the processor's stack of return addresses, for a return that never comes, and have the
# next returns on this thread mispredicted.
#
# FP: no control word is touched. CFI extensions: reached and left through t2, so that Zicfilp asks
# for no landing pad here or in `start`.

.pushsection .text.ramie,"ax",@progbits
.globl  ramie_v0_1_fiber_entry
.hidden ramie_v0_1_fiber_entry
.type   ramie_v0_1_fiber_entry, @function
.p2align 2
ramie_v0_1_fiber_entry:
    .cfi_startproc
    .cfi_undefined ra
    .cfi_undefined s0
    # a0 = word, a1 = peer, sp = frame
    ld      t2, 8(sp)
    addi    sp, sp, 32
    mv      a2, sp
    li      s0, 0
    # t2 = start, a0 = word, a1 = peer, a2 = sp = its third argument
    lla     ra, 2f
    jr      t2
2:  ebreak
    .cfi_endproc
.size   ramie_v0_1_fiber_entry, . - ramie_v0_1_fiber_entry
.popsection
