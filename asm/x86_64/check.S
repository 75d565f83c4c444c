# For tests only: fill every callee-saved register, call, and look at them again. x86-64, System V.
#
# Signatures
#   uintptr_t check_registers(uintptr_t (*f)(uintptr_t, uintptr_t), uintptr_t a, uintptr_t b,
#                             const uint64_t fill[6], uint64_t seen[6]);
#   uintptr_t check_forgets(uintptr_t a, uintptr_t b);  loses one callee-saved register on purpose
#   uintptr_t check_sp(uintptr_t a, uintptr_t b);       returns the stack pointer at its entry
#
# Registers: fill and seen list rbx, rbp, r12, r13, r14, r15, in that order. All but check_forgets
# keep the calling convention.
#
# Frame of check_registers: 56 bytes, six saved registers and `seen` (the lowest word).
#
# Unwinding: CFI tracks the frame but not the registers that are filled; nothing unwinds through.
# FP: no control word is touched. CET: endbr64 at the entries.

.pushsection .text.ramie,"ax",@progbits
.globl  ramie_v0_1_check_registers
.hidden ramie_v0_1_check_registers
.type   ramie_v0_1_check_registers, @function
ramie_v0_1_check_registers:
    .cfi_startproc
    endbr64
    push    rbx
    push    rbp
    push    r12
    push    r13
    push    r14
    push    r15
    push    r8
    .cfi_def_cfa_offset 64
    # rdi = f, rsi = a, rdx = b, rcx = fill, r8 = seen; rsp is a multiple of 16
    mov     rax, rdi
    mov     rdi, rsi
    mov     rsi, rdx
    mov     rbx, [rcx]
    mov     rbp, [rcx + 8]
    mov     r12, [rcx + 16]
    mov     r13, [rcx + 24]
    mov     r14, [rcx + 32]
    mov     r15, [rcx + 40]
    call    rax
    # rax = the result; what is in the six registers goes to seen
    pop     r8
    .cfi_def_cfa_offset 56
    mov     [r8], rbx
    mov     [r8 + 8], rbp
    mov     [r8 + 16], r12
    mov     [r8 + 24], r13
    mov     [r8 + 32], r14
    mov     [r8 + 40], r15
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     rbp
    pop     rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
.size   ramie_v0_1_check_registers, . - ramie_v0_1_check_registers

.globl  ramie_v0_1_check_forgets
.hidden ramie_v0_1_check_forgets
.type   ramie_v0_1_check_forgets, @function
ramie_v0_1_check_forgets:
    .cfi_startproc
    endbr64
    not     r14
    lea     rax, [rdi + rsi]
    ret
    .cfi_endproc
.size   ramie_v0_1_check_forgets, . - ramie_v0_1_check_forgets

.globl  ramie_v0_1_check_sp
.hidden ramie_v0_1_check_sp
.type   ramie_v0_1_check_sp, @function
ramie_v0_1_check_sp:
    .cfi_startproc
    endbr64
    mov     rax, rsp
    ret
    .cfi_endproc
.size   ramie_v0_1_check_sp, . - ramie_v0_1_check_sp
.popsection
