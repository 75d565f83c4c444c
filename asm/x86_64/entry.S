# Where a fiber begins: the first switch to it continues here. x86-64, System V, ELF.
#
# Signature: not callable; a switch jumps here. It goes on, as if it called it, in
#   noreturn start(uintptr_t word, void *peer, struct start *start);
#
# Registers
#   in         rdi = word, rsi = peer (as switch.s leaves them), rsp = initial frame + 8
#   out        rdi = word, rsi = peer, rdx = address of the block above the frame
#   clobbered  rax, rcx, rbp
#
# The initial frame, written by Context::init
#   +16  struct start (opaque here) up to the top of the stack; rsp at the call, a multiple of 16
#   + 8  address of start
#   + 0  address of ramie_v0_1_fiber_entry
#
# Unwinding: the return address is undefined, which ends every backtrace here; rbp = 0 ends the
# chain for those who walk frame pointers. A panic must not come this far: `start` is nounwind.
#
# It jumps, with the return address that a call would push: a real call would leave one more address
# on the processor's stack of return addresses, for a return that never comes, and have the next
# returns on this thread mispredicted.
#
# FP: no control word is touched. CET: the switch's jump is not tracked (switch.s).

.pushsection .text.ramie,"ax",@progbits
.globl  ramie_v0_1_fiber_entry
.hidden ramie_v0_1_fiber_entry
.type   ramie_v0_1_fiber_entry, @function
.p2align 4
ramie_v0_1_fiber_entry:
    .cfi_startproc
    .cfi_undefined rip
    .cfi_undefined rbp
    # rdi = word, rsi = peer, rsp = frame + 8
    pop     rax
    mov     rdx, rsp
    xor     ebp, ebp
    # rax = start, rdi = word, rsi = peer, rdx = rsp = its third argument
    lea     rcx, [rip + 2f]
    push    rcx
    jmp     rax
2:  ud2
    .cfi_endproc
.size   ramie_v0_1_fiber_entry, . - ramie_v0_1_fiber_entry
.popsection
