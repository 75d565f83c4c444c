// see asm/README.md: rdi = message out / in, rsi = stack pointer to switch to / of the peer
    lea rax, [rip + 2f]
    push rbp
    push rbx
    push rax
    mov rax, rsp
    mov rsp, rsi
    mov rsi, rax
    pop rax
    jmp rax
2:
    pop rbx
    pop rbp
