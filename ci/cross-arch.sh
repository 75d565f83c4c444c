#!/usr/bin/env bash
# The crate's unit tests of the switch on the other architectures, by qemu-user: what rustc makes of
# the inlined assembly and its clobbers, on both switches. (The assembly alone: ci/asm-qemu.sh.)
# Prints "N passed, 0 failed" at the end.
#
#   ci/cross-arch.sh [cargo test arguments, such as --release]
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(qemu-user gcc-aarch64-linux-gnu gcc-riscv64-linux-gnu libc6-dev-arm64-cross
    libc6-dev-riscv64-cross)
for tool in qemu-aarch64 qemu-riscv64 aarch64-linux-gnu-gcc riscv64-linux-gnu-gcc; do
    if ! command -v "$tool" >/dev/null; then
        apt-get update
        apt-get install -y --no-install-recommends "${packages[@]}"
        break
    fi
done

passed=0
failed=0
for arch in aarch64 riscv64; do
    target=$arch-unknown-linux-gnu
    if [[ $arch == riscv64 ]]; then
        target=riscv64gc-unknown-linux-gnu
    fi
    if ! rustup target list --installed | grep -qx "$target"; then
        rustup target add "$target" || {
            echo "skipped: the standard library of $target cannot be had here"
            exit 77
        }
    fi
    variable=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")
    echo "== $target"
    out=$(env "${variable}_LINKER=$arch-linux-gnu-gcc" \
        "${variable}_RUNNER=qemu-$arch -L /usr/$arch-linux-gnu" \
        cargo test --lib --target "$target" "$@" -- arch:: 2>&1) || true
    echo "$out" | grep -E '^(test |error)' || echo "$out"
    passed=$((passed + $(grep -c '^test .* \.\.\. ok$' <<<"$out" || true)))
    failed=$((failed + $(grep -c '^test .* \.\.\. FAILED$' <<<"$out" || true)))
    # A crash leaves no result line.
    if ! grep -q '^test result: ok' <<<"$out"; then
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
