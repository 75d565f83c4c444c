#!/usr/bin/env bash
# The assembly of every architecture, without Rust: asm/harness/harness.c around the texts that the
# crate includes, run natively or by qemu-user. Then the same with a switch that forgets a register,
# which must be found. Prints "N passed, 0 failed" at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
ulimit -c 0 # the broken ones may crash

packages=(gcc qemu-user gcc-aarch64-linux-gnu gcc-riscv64-linux-gnu libc6-dev-arm64-cross
    libc6-dev-riscv64-cross)
tools=(gcc qemu-x86_64 qemu-aarch64 qemu-riscv64 aarch64-linux-gnu-gcc riscv64-linux-gnu-gcc)
for tool in "${tools[@]}"; do
    if ! command -v "$tool" >/dev/null; then
        apt-get update
        apt-get install -y --no-install-recommends "${packages[@]}"
        break
    fi
done

prefix=$(sed -n 's/^\.globl *\(ramie_v[0-9_]*_\)current$/\1/p' asm/current.S)
: "${prefix:?asm/current.S names no symbol}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0
declare -A cpu=([x86_64]=max [aarch64]=max [riscv64]=rv64)

# compile <arch> <-O level> <directory of switch.s> <output> [more flags...]
compile() {
    local gcc=$1-linux-gnu-gcc
    if [[ $1 == "$(uname -m)" ]]; then
        gcc=gcc
    fi
    # With a frame pointer, a function restores the register itself and hides that it was lost.
    local flags=(-fomit-frame-pointer)
    if [[ $1 == x86_64 ]]; then
        # rustc keeps nothing below the stack pointer around inline assembly; gcc must be told.
        flags+=(-mno-red-zone)
    fi
    "$gcc" -std=gnu11 -Wall -Wextra -Werror "$2" -g -static -fasynchronous-unwind-tables \
        "${flags[@]}" "${@:5}" "-DPREFIX=$prefix" "-Wa,-I$3,-Iasm/$1" asm/harness/harness.c -o "$4"
}

# run <arch> <program>
run() {
    if [[ $1 == "$(uname -m)" ]]; then
        timeout 120 "$2"
    else
        timeout 300 "qemu-$1" -cpu "${cpu[$1]}" "$2"
    fi
}

# sound <arch> <-O level> [more flags...]: every test passes
sound() {
    echo "== $*"
    compile "$1" "$2" "asm/$1" "$work/sound" "${@:3}"
    local out
    out=$(run "$1" "$work/sound") || true
    echo "$out"
    passed=$((passed + $(grep -c '^ok: ' <<<"$out" || true)))
    failed=$((failed + $(grep -c '^FAILED: ' <<<"$out" || true)))
    # A crash leaves no closing line.
    if ! grep -q ' passed, 0 failed$' <<<"$out"; then
        echo "FAILED: $* did not end well"
        failed=$((failed + 1))
    fi
}

# broken <arch> <register> <from> <to>: with one line of switch.s changed, the register is reported
broken() {
    sed "s/^    $3\$/    $4/" "asm/$1/switch.s" >"$work/switch.s"
    if cmp -s "asm/$1/switch.s" "$work/switch.s"; then
        echo "FAILED: $1: no line '$3' to break"
        failed=$((failed + 1))
        return
    fi
    compile "$1" -O2 "$work" "$work/broken"
    local out
    # What runs after the first test may well crash.
    out=$(run "$1" "$work/broken" 2>&1) || true
    if grep -q "^FAILED: .* lost: $2\$" <<<"$out"; then
        echo "ok: $1: canary: a switch that forgets $2 is found"
        passed=$((passed + 1))
    else
        echo "$out"
        echo "FAILED: $1: canary: a switch that forgets $2 is not found"
        failed=$((failed + 1))
    fi
}

# unguarded <file>: without the landing pad of that file, a machine with BTI stops at it
unguarded() {
    mkdir -p "$work/unguarded"
    cp asm/aarch64/* "$work/unguarded"
    sed 's/^    hint    #36$/    nop/' "asm/aarch64/$1" >"$work/unguarded/$1"
    compile aarch64 -O0 "$work/unguarded" "$work/broken" "${bti[@]}"
    local status=0
    run aarch64 "$work/broken" >"$work/out" 2>&1 || status=$?
    # 132 is SIGILL, as a shell reports it.
    if [[ $status -eq 132 ]] && ! cmp -s "asm/aarch64/$1" "$work/unguarded/$1"; then
        echo "ok: aarch64: canary: a missing landing pad in $1 is found"
        passed=$((passed + 1))
    else
        cat "$work/out"
        echo "FAILED: aarch64: canary: a missing landing pad in $1 is not found"
        failed=$((failed + 1))
    fi
}

for arch in x86_64 aarch64 riscv64; do
    for level in -O0 -O2; do
        sound "$arch" "$level"
    done
done
bti=(-mbranch-protection=bti -fno-toplevel-reorder)
sound aarch64 -O0 "${bti[@]}"
unguarded switch.s
unguarded entry.S

broken x86_64 rbx 'pop     rbx' 'add     rsp, 8'
broken x86_64 rbp 'pop     rbp' 'add     rsp, 8'
broken aarch64 x19 'ldr     x19, \[sp, #16\]' 'nop'
broken aarch64 x29 'ldp     x29, x3, \[x1\]' 'ldr x3, [x1, #8]'
broken riscv64 s0 'ld      s0, 8(sp)' 'nop'
broken riscv64 s1 'ld      s1, 16(sp)' 'nop'

echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
