.pushsection .text.ramie,"ax",@progbits
.globl ramie_fiber_entry
.hidden ramie_fiber_entry
.type ramie_fiber_entry, @function
    nop
ramie_fiber_entry:
.cfi_startproc
.cfi_undefined rip
.cfi_undefined rbp
    endbr64
    xor ebp, ebp
    mov rdx, rsi
    mov rsi, rdi
    pop rdi
    pop rax
    call rax
    ud2
.cfi_endproc
.size ramie_fiber_entry, . - ramie_fiber_entry
.popsection
