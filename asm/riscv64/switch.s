# Leave this stack for another one, handing over one word. RISC-V, 64 bits, ELF psABI.
#
# Signature, as a C function would have it (it is none: the text is inlined into its caller)
#   struct word_and_peer switch(uintptr_t word, void *to);
#
# Registers
#   in         a0 = word for the other side    a1 = `to`, the frame at which the other side waits
#   out        a0 = word from the other side   a1 = the frame at which the other side now waits
#   preserved  sp, gp, tp, s0, s1: LLVM keeps s0 (the frame pointer) and s1 for itself, so inline
#              assembly cannot list them as clobbered and this text saves them
#   clobbered  every other general register, ra too; f0-f31 (so fs0-fs11 are lost here), v0-v31,
#              vl and vtype; the caller lists them, so the compiler spills what is in use
#
# The frame of a waiting side, 32 bytes as sp must stay a multiple of 16; `to` and `peer` point at
# its lowest word
#   +24  unused
#   +16  s1
#   + 8  s0
#   + 0  address to continue at: label 2 below, or the fiber entry (entry.S) before the first run
#
# Unwinding: nothing here can throw or be called through. In these few instructions the CFI of the
# surrounding function is off by the frame; of a waiting side it is exact with pc = [+0],
# s0 = [+8], s1 = [+16], sp = frame + 32.
#
# FP: frm and the rest of fcsr are neither saved nor changed. CFI extensions: the jump goes through
# t2, which Zicfilp takes for a guarded branch that needs no landing pad; a Zicfiss shadow stack is
# not switched (asm/README.md). The jump is no return: t2 is no link register for the predictor.

    lla     t2, 2f
    addi    sp, sp, -32
    sd      t2, 0(sp)
    sd      s0, 8(sp)
    sd      s1, 16(sp)
    # sp = our frame, complete; a1 = the other side's frame
    mv      t0, sp
    ld      t2, 0(a1)
    mv      sp, a1
    mv      a1, t0
    # now on the other stack: sp = its frame; t2 = where to continue; a0 = word; a1 = the frame of
    # the side that left
    jr      t2
2:  # back on our own stack: sp = our frame; a0 = word; a1 = the frame of the side that left
    ld      s0, 8(sp)
    ld      s1, 16(sp)
    addi    sp, sp, 32
