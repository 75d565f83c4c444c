# For tests only: fill every callee-saved register, call, and look at them again. RISC-V, lp64d.
#
# Signatures
#   uintptr_t check_registers(uintptr_t (*f)(uintptr_t, uintptr_t), uintptr_t a, uintptr_t b,
#                             const uint64_t fill[24], uint64_t seen[24]);
#   uintptr_t check_forgets(uintptr_t a, uintptr_t b);  loses one callee-saved register on purpose
#   uintptr_t check_sp(uintptr_t a, uintptr_t b);       returns the stack pointer at its entry
#
# Registers: fill and seen list s0 to s11 and fs0 to fs11, in that order. All but
# check_forgets keep the calling convention.
#
# Frame of check_registers, 208 bytes: +0 s0 to s11, +96 fs0 to fs11, +192 seen, +200 ra.
#
# Unwinding: CFI tracks the frame but not the registers that are filled; nothing unwinds through.
# FP: no control word is touched.

# LLVM forgets that the target has doubles when it optimises a module with such text.
.option push
.option arch, +d
.pushsection .text.ramie,"ax",@progbits
.globl  ramie_v0_1_check_registers
.hidden ramie_v0_1_check_registers
.type   ramie_v0_1_check_registers, @function
.p2align 2
ramie_v0_1_check_registers:
    .cfi_startproc
    addi    sp, sp, -208
    .cfi_def_cfa_offset 208
    sd      ra, 200(sp)
    .cfi_offset ra, -8
    sd      s0, 0(sp)
    sd      s1, 8(sp)
    sd      s2, 16(sp)
    sd      s3, 24(sp)
    sd      s4, 32(sp)
    sd      s5, 40(sp)
    sd      s6, 48(sp)
    sd      s7, 56(sp)
    sd      s8, 64(sp)
    sd      s9, 72(sp)
    sd      s10, 80(sp)
    sd      s11, 88(sp)
    fsd     fs0, 96(sp)
    fsd     fs1, 104(sp)
    fsd     fs2, 112(sp)
    fsd     fs3, 120(sp)
    fsd     fs4, 128(sp)
    fsd     fs5, 136(sp)
    fsd     fs6, 144(sp)
    fsd     fs7, 152(sp)
    fsd     fs8, 160(sp)
    fsd     fs9, 168(sp)
    fsd     fs10, 176(sp)
    fsd     fs11, 184(sp)
    sd      a4, 192(sp)
    # a0 = f, a1 = a, a2 = b, a3 = fill, a4 = seen
    mv      t2, a0
    mv      a0, a1
    mv      a1, a2
    ld      s0, 0(a3)
    ld      s1, 8(a3)
    ld      s2, 16(a3)
    ld      s3, 24(a3)
    ld      s4, 32(a3)
    ld      s5, 40(a3)
    ld      s6, 48(a3)
    ld      s7, 56(a3)
    ld      s8, 64(a3)
    ld      s9, 72(a3)
    ld      s10, 80(a3)
    ld      s11, 88(a3)
    fld     fs0, 96(a3)
    fld     fs1, 104(a3)
    fld     fs2, 112(a3)
    fld     fs3, 120(a3)
    fld     fs4, 128(a3)
    fld     fs5, 136(a3)
    fld     fs6, 144(a3)
    fld     fs7, 152(a3)
    fld     fs8, 160(a3)
    fld     fs9, 168(a3)
    fld     fs10, 176(a3)
    fld     fs11, 184(a3)
    jalr    t2
    # a0 = the result; what is in the registers goes to seen
    ld      a4, 192(sp)
    sd      s0, 0(a4)
    sd      s1, 8(a4)
    sd      s2, 16(a4)
    sd      s3, 24(a4)
    sd      s4, 32(a4)
    sd      s5, 40(a4)
    sd      s6, 48(a4)
    sd      s7, 56(a4)
    sd      s8, 64(a4)
    sd      s9, 72(a4)
    sd      s10, 80(a4)
    sd      s11, 88(a4)
    fsd     fs0, 96(a4)
    fsd     fs1, 104(a4)
    fsd     fs2, 112(a4)
    fsd     fs3, 120(a4)
    fsd     fs4, 128(a4)
    fsd     fs5, 136(a4)
    fsd     fs6, 144(a4)
    fsd     fs7, 152(a4)
    fsd     fs8, 160(a4)
    fsd     fs9, 168(a4)
    fsd     fs10, 176(a4)
    fsd     fs11, 184(a4)
    ld      s0, 0(sp)
    ld      s1, 8(sp)
    ld      s2, 16(sp)
    ld      s3, 24(sp)
    ld      s4, 32(sp)
    ld      s5, 40(sp)
    ld      s6, 48(sp)
    ld      s7, 56(sp)
    ld      s8, 64(sp)
    ld      s9, 72(sp)
    ld      s10, 80(sp)
    ld      s11, 88(sp)
    fld     fs0, 96(sp)
    fld     fs1, 104(sp)
    fld     fs2, 112(sp)
    fld     fs3, 120(sp)
    fld     fs4, 128(sp)
    fld     fs5, 136(sp)
    fld     fs6, 144(sp)
    fld     fs7, 152(sp)
    fld     fs8, 160(sp)
    fld     fs9, 168(sp)
    fld     fs10, 176(sp)
    fld     fs11, 184(sp)
    ld      ra, 200(sp)
    .cfi_restore ra
    addi    sp, sp, 208
    .cfi_def_cfa_offset 0
    ret
    .cfi_endproc
.size   ramie_v0_1_check_registers, . - ramie_v0_1_check_registers

.globl  ramie_v0_1_check_forgets
.hidden ramie_v0_1_check_forgets
.type   ramie_v0_1_check_forgets, @function
.p2align 2
ramie_v0_1_check_forgets:
    .cfi_startproc
    fneg.d  fs7, fs7
    add     a0, a0, a1
    ret
    .cfi_endproc
.size   ramie_v0_1_check_forgets, . - ramie_v0_1_check_forgets

.globl  ramie_v0_1_check_sp
.hidden ramie_v0_1_check_sp
.type   ramie_v0_1_check_sp, @function
.p2align 2
ramie_v0_1_check_sp:
    .cfi_startproc
    mv      a0, sp
    ret
    .cfi_endproc
.size   ramie_v0_1_check_sp, . - ramie_v0_1_check_sp
.popsection
.option pop
