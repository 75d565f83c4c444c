# Leave this stack for another one, handing over one word. x86-64, System V, ELF.
#
# Signature, as a C function would have it (it is none: the text is inlined into its caller)
#   struct word_and_peer switch(uintptr_t word, void *to);
#
# Registers
#   in         rdi = word for the other side    rsi = `to`, the frame at which the other side waits
#   out        rdi = word from the other side   rsi = the frame at which the other side now waits
#   preserved  rsp, rbx, rbp: LLVM keeps rbx and rbp for itself, so inline assembly cannot list
#              them as clobbered and this text saves them
#   clobbered  every other general register, all of x87, SSE, AVX, AVX-512 (k0-k7 too), AMX, flags;
#              the caller lists them, so the compiler spills only those that are in use
#
# The frame of a waiting side; `to` and `peer` point at its lowest word
#   +16  rbp
#   + 8  rbx
#   + 0  address to continue at: label 2 below, or the fiber entry (entry.S) before the first run
#
# Unwinding: nothing here can throw or be called through. In these few instructions the CFI of the
# surrounding function is off by the frame; of a waiting side it is exact with pc = [+0],
# rbx = [+8], rbp = [+16], rsp = frame + 24.
#
# FP: MXCSR and the x87 control word are neither saved nor changed. CET: an untracked jump, so that
# nobody needs a landing pad; a shadow stack is not switched (asm/README.md). `jmp`, never `ret`: a
# return would be mispredicted.

    lea     rax, [rip + 2f]
    push    rbp
    push    rbx
    push    rax
    # rsp = our frame, complete; rsi = the other side's frame
    mov     rax, rsp
    mov     rsp, rsi
    mov     rsi, rax
    # now on the other stack: rsp = its frame; rdi = word; rsi = the frame of the side that left
    pop     rax
    notrack jmp rax
2:  # back on our own stack: rsp = our frame + 8; rdi = word; rsi = the frame of the side that left
    pop     rbx
    pop     rbp
