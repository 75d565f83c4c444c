// For tests only: fill every callee-saved register, call, and look at them again. AArch64, AAPCS64.
//
// Signatures
//   uintptr_t check_registers(uintptr_t (*f)(uintptr_t, uintptr_t), uintptr_t a, uintptr_t b,
//                             const uint64_t fill[19], uint64_t seen[19]);
//   uintptr_t check_forgets(uintptr_t a, uintptr_t b);  loses one callee-saved register on purpose
//   uintptr_t check_sp(uintptr_t a, uintptr_t b);       returns the stack pointer at its entry
//
// Registers: fill and seen list x19 to x29 and d8 to d15, in that order. All but
// check_forgets keep the calling convention.
//
// Frame of check_registers, 176 bytes: +0 x29, +8 x30, +16 x19 to x28, +96 d8 to d15, +160 seen.
//
// Unwinding: CFI tracks the frame but not the registers that are filled; nothing unwinds through.
// FP: no control word is touched. BTI: hint 34 is `bti c`.

.pushsection .text.ramie,"ax",@progbits
.globl  ramie_v0_1_check_registers
.hidden ramie_v0_1_check_registers
.type   ramie_v0_1_check_registers, @function
.p2align 2
ramie_v0_1_check_registers:
    .cfi_startproc
    hint    #34
    stp     x29, x30, [sp, #-176]!
    .cfi_def_cfa_offset 176
    .cfi_offset x30, -168
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    stp     d8, d9, [sp, #96]
    stp     d10, d11, [sp, #112]
    stp     d12, d13, [sp, #128]
    stp     d14, d15, [sp, #144]
    str     x4, [sp, #160]
    // x0 = f, x1 = a, x2 = b, x3 = fill, x4 = seen
    mov     x5, x0
    mov     x0, x1
    mov     x1, x2
    ldp     x19, x20, [x3, #0]
    ldp     x21, x22, [x3, #16]
    ldp     x23, x24, [x3, #32]
    ldp     x25, x26, [x3, #48]
    ldp     x27, x28, [x3, #64]
    ldr     x29, [x3, #80]
    ldp     d8, d9, [x3, #88]
    ldp     d10, d11, [x3, #104]
    ldp     d12, d13, [x3, #120]
    ldp     d14, d15, [x3, #136]
    blr     x5
    // x0 = the result; what is in the registers goes to seen
    ldr     x4, [sp, #160]
    stp     x19, x20, [x4, #0]
    stp     x21, x22, [x4, #16]
    stp     x23, x24, [x4, #32]
    stp     x25, x26, [x4, #48]
    stp     x27, x28, [x4, #64]
    str     x29, [x4, #80]
    stp     d8, d9, [x4, #88]
    stp     d10, d11, [x4, #104]
    stp     d12, d13, [x4, #120]
    stp     d14, d15, [x4, #136]
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     d8, d9, [sp, #96]
    ldp     d10, d11, [sp, #112]
    ldp     d12, d13, [sp, #128]
    ldp     d14, d15, [sp, #144]
    ldp     x29, x30, [sp], #176
    .cfi_def_cfa_offset 0
    .cfi_restore x30
    ret
    .cfi_endproc
.size   ramie_v0_1_check_registers, . - ramie_v0_1_check_registers

.globl  ramie_v0_1_check_forgets
.hidden ramie_v0_1_check_forgets
.type   ramie_v0_1_check_forgets, @function
.p2align 2
ramie_v0_1_check_forgets:
    .cfi_startproc
    hint    #34
    fneg    d12, d12
    add     x0, x0, x1
    ret
    .cfi_endproc
.size   ramie_v0_1_check_forgets, . - ramie_v0_1_check_forgets

.globl  ramie_v0_1_check_sp
.hidden ramie_v0_1_check_sp
.type   ramie_v0_1_check_sp, @function
.p2align 2
ramie_v0_1_check_sp:
    .cfi_startproc
    hint    #34
    mov     x0, sp
    ret
    .cfi_endproc
.size   ramie_v0_1_check_sp, . - ramie_v0_1_check_sp
.popsection
