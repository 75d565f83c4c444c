#!/usr/bin/env bash
# std beside ramie: rustdoc describes both as JSON, and ci/std_items.py compares what is public and
# stable: items, signatures, and which traits are implemented. What is known to differ, and why, is in
# ci/std-items.list. Takes ten seconds. Prints "N passed, N failed" at the end.
#
# It needs a nightly toolchain with std's source, for JSON's sake. What became stable in std after the
# Rust version that Cargo.toml names does not count.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh

if ! sysroot=$(rustc +nightly --print sysroot 2>/dev/null); then
    skip "no nightly: rustup toolchain install nightly"
fi
library=$sysroot/lib/rustlib/src/rust/library
if [[ ! -e $library/std/src/lib.rs ]]; then
    skip "no source of std: rustup component add --toolchain nightly rust-src"
fi
(need python3 python3) && python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    skip "no Python 3.10"
minor=$(sed -nE 's/^rust-version = "1\.([0-9]+)"$/\1/p' Cargo.toml)
target=${CARGO_TARGET_DIR:-target}/json
mkdir -p "$target/empty"

# std's own description: of its source, with the other crates of the toolchain as they are. The empty
# root keeps rustdoc from finding the std that is there already.
describe_std() {
    local host parts=() crate part
    host=$(rustc +nightly --version --verbose | sed -n 's/^host: //p')
    for crate in core alloc hashbrown libc cfg_if rustc_demangle std_detect unwind panic_unwind \
        panic_abort miniz_oxide addr2line object; do
        part=$(compgen -G "$sysroot/lib/rustlib/$host/lib/lib$crate-*.rmeta" | head -n 1)
        [[ -z $part ]] || parts+=(--extern "$crate=$part")
    done
    STD_ENV_ARCH=$(uname -m) rustdoc +nightly --crate-name std --edition 2024 \
        --cfg 'feature="panic-unwind"' --cfg backtrace_in_libstd --cap-lints allow \
        --sysroot "$target/empty" -L "dependency=$sysroot/lib/rustlib/$host/lib" "${parts[@]}" \
        -Zforce-unstable-if-unmarked -Zunstable-options --output-format json \
        -o "$target/std" "$library/std/src/lib.rs"
}

if ! describe_std >"$log" 2>&1; then
    tail -n 20 "$log"
    skip "this nightly's rustdoc does not take std's source as it is written in this script"
fi
describe_ramie() {
    cargo +nightly rustdoc --lib --target-dir "$target" -- -Zunstable-options --output-format json
}

# That ramie can be described at all is for the docs lane to say; here it is this nightly that cannot.
if ! describe_ramie 2>&1 | tee "$log"; then
    skip "this nightly does not build ramie, which may need a later Rust"
fi

# compare <ramie's JSON> <list>: status 77 if this nightly describes things in another way.
compare() {
    python3 ci/std_items.py "$target/std/std.json" "$1" "$2" "$minor"
}

# finds <text of the finding> <ramie's JSON> <list>: a canary.
finds() {
    compare "$2" "$3" >"$log" 2>&1 || true
    if grep -qF "$1" "$log"; then
        echo "ok: canary: $1"
        passed=$((passed + 1))
    else
        fail "canary: not found: $1"
    fi
}

ramie=$target/doc/ramie.json
list=ci/std-items.list
status=0
compare "$ramie" "$list" | tee "$log" || status=$?
if [[ $status -eq 77 ]]; then
    skip "this nightly's JSON is of another format: ci/std_items.py has to learn it"
fi
read -r passed failed < <(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$log") ||
    fail "no count"

sed 's/"name":"set_nodelay"/"name":"set_delay"/' "$ramie" >"$target/changed.json"
finds 'missing net::TcpStream::set_nodelay' "$target/changed.json" "$list"
sed 's/"primitive":"u64"/"primitive":"u32"/g' "$ramie" >"$target/changed.json"
finds 'differs fs::File::set_len' "$target/changed.json" "$list"
sed 's/"path":"FileExt"/"path":"FileXxx"/g; s/"fs","FileExt"\]/"fs","FileXxx"]/g' "$ramie" \
    >"$target/changed.json"
finds 'missing impl os::unix::fs::FileExt for fs::File' "$target/changed.json" "$list"
sed '/ONCE_INIT/d' "$list" >"$target/changed.list"
finds 'missing sync::ONCE_INIT' "$ramie" "$target/changed.list"
(cat "$list" && echo 'missing fs::read -- it never was') >"$target/changed.list"
finds 'no longer so: missing fs::read' "$ramie" "$target/changed.list"
finish
