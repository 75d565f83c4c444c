// Leave this stack for another one, handing over one word. AArch64, AAPCS64, ELF.
//
// Signature, as a C function would have it (it is none: the text is inlined into its caller)
//   struct word_and_peer switch(uintptr_t word, void *to);
//
// Registers
//   in         x0 = word for the other side    x1 = `to`, the frame at which the other side waits
//   out        x0 = word from the other side   x1 = the frame at which the other side now waits
//   preserved  sp, x19, x29: LLVM keeps x19 and x29 for itself, so inline assembly cannot list
//              them as clobbered and this text saves them; x18, where the platform reserves
//              it, is not touched
//   clobbered  every other general register, x30 too; v0-v31 whole (so d8-d15 are lost here), the
//              SVE registers, flags; the caller lists them, so the compiler spills what is in use
//
// The frame of a waiting side, 32 bytes as sp must stay a multiple of 16; `to` and `peer` point at
// its lowest word
//   +24  unused
//   +16  x19
//   + 8  address to continue at: label 2 below, or the fiber entry (entry.S) before the first run
//   + 0  x29
//
// Unwinding: nothing here can throw or be called through. In these few instructions the CFI of the
// surrounding function is off by the frame; of a waiting side it is exact with x29 = [+0],
// pc = [+8], x19 = [+16], sp = frame + 32.
//
// FP: FPCR is neither saved nor changed; no SME state may be live. BTI: hint 36 is `bti j`. A
// guarded control stack is not switched (asm/README.md). `br`, never `ret`: a return would be
// mispredicted.

    adr     x2, 2f
    stp     x29, x2, [sp, #-32]!
    str     x19, [sp, #16]
    // sp = our frame, complete; x1 = the other side's frame
    mov     x2, sp
    ldp     x29, x3, [x1]
    mov     sp, x1
    mov     x1, x2
    // now on the other stack: sp = its frame; x29 = its own; x3 = where to continue;
    // x0 = word; x1 = the frame of the side that left
    br      x3
2:  // back on our own stack: sp = our frame; x29 = ours; x0 = word; x1 = the frame of who left
    hint    #36
    ldr     x19, [sp, #16]
    add     sp, sp, #32
