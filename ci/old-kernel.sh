#!/usr/bin/env bash
# A real old kernel: Debian 12's (6.1: older than a futex in the ring, guards without mappings and
# truncating through the ring), under qemu by software emulation. The contract tests run there on
# both drivers, in an initramfs that this script makes. Prints "N passed, N failed" at the end.
#
#   ci/old-kernel.sh           every test program in the table below, on each driver
#   ci/old-kernel.sh short     the first rows only
#
# Needs apt-get of Debian 12 on x86-64. Nothing is installed but qemu and cpio: the kernel and
# busybox are only unpacked.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh

SHORT="fs_paths_contract net_contract"
FULL="fs_contract fs_paths_contract net_contract sync_contract cancel runtime time"
# Emulated, a test takes some twenty times as long.
SECONDS_AT_MOST=${RAMIE_OLD_KERNEL_SECONDS:-1500}

if [[ $(uname -m) != x86_64 ]] || ! command -v apt-get >/dev/null; then
    skip "this lane wants Debian's kernel for x86-64"
fi
need qemu-system-x86_64 qemu-system-x86
need cpio cpio

# latest <metapackage>: the package that it stands for
latest() {
    apt-cache depends "$1" | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1
}

work=$PWD/${CARGO_TARGET_DIR:-target}/old-kernel
mkdir -p "$work"
kernel=$(latest linux-image-cloud-amd64)
if [[ -z $kernel ]]; then
    apt-get update >/dev/null || true
    kernel=$(latest linux-image-cloud-amd64)
fi
[[ $kernel == linux-image-6.1.* ]] || skip "no Linux 6.1 among this system's packages: ${kernel:-none}"

# unpack <package>: once, below $work; false if it is not to be had
unpack() {
    [[ -e $work/$1 ]] && return
    rm -rf "$work/download" "$work/$1.new"
    mkdir "$work/download"
    (cd "$work/download" && { apt-get download "$1" || { apt-get update && apt-get download "$1"; }; }) &&
        dpkg-deb -x "$work"/download/*.deb "$work/$1.new" &&
        mv "$work/$1.new" "$work/$1"
}
for package in "$kernel" busybox-static; do
    unpack "$package" || skip "cannot download $package"
done

names=${RAMIE_OLD_KERNEL_TESTS:-$FULL}
[[ ${1:-} != short ]] || names=$SHORT
root=$work/root
rm -rf "$root"
mkdir -p "$root"/{bin,proc,sys,dev,tmp,etc,tests}
cp "$work/busybox-static/bin/busybox" "$root/bin/"
for tool in sh mount ip mkfifo echo cat rm timeout poweroff true sleep uname ln; do
    ln -s busybox "$root/bin/$tool"
done
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
cp Cargo.toml "$root/etc/" # which tests read
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"

# carry <program> <name>: with the libraries that it needs, without its debug information
carry() {
    local library
    strip -S -o "$root/tests/$2" "$1"
    for library in $(ldd "$1" | grep -o '/[^ ]*'); do
        mkdir -p "$root$(dirname "$library")"
        cp -L -n "$library" "$root$library"
    done
}
flags=()
for name in $names; do
    flags+=(--test "$name")
done
cargo test --no-run "${flags[@]}"
cargo build --example doctor
for name in $names; do
    carry "$(binary --test "$name")" "$name"
done
carry "${CARGO_TARGET_DIR:-target}/debug/examples/doctor" doctor
# For names that glibc looks up: not linked, but loaded.
for library in /lib/x86_64-linux-gnu/libnss_files.so.2 /lib/x86_64-linux-gnu/libresolv.so.2; do
    [[ ! -e $library ]] || cp -L "$library" "$root$library"
done

cat >"$root/init" <<INIT
#!/bin/sh
export PATH=/bin RUST_BACKTRACE=0 RAMIE_TEST_PATIENCE=600 TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
ln -s /proc/self/fd /dev/fd
ip link set lo up
ulimit -n 4096
# One test has a buffer larger than the machine, which it does not touch.
echo 1 >/proc/sys/vm/overcommit_memory
cd /etc
echo
echo "== Linux \$(uname -r)"
/tests/doctor
for driver in uring poll; do
    for name in $names; do
        echo "== \$name, RAMIE_DRIVER=\$driver"
        RAMIE_DRIVER=\$driver /tests/\$name --test-threads=2 || echo "status \$?"
    done
done
echo "== the end"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$work/initramfs"

start=$SECONDS
timeout "$SECONDS_AT_MOST" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3G \
    -net none -nographic -no-reboot -kernel "$work/$kernel/boot/vmlinuz-${kernel#linux-image-}" \
    -initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1" </dev/null 2>&1 |
    tr -d '\r' | tee "$log" "$work/console" | grep -aE '^== |^test result|FAILED|panicked|^status|^(driver|io_uring|wake-ups|guards) |^  [-*]' || true
echo "$((SECONDS - start)) s under qemu"

grep -aq '^== the end' "$log" || fail "the machine did not come to the end of its tests"
counts=$(sed -nE 's/.*test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p' "$log" |
    awk '{ p += $1; f += $2; n++ } END { print p + 0, f + 0, n + 0 }')
read -r good bad runs <<<"$counts"
passed=$((passed + good))
failed=$((failed + bad))
expected=$((2 * $(wc -w <<<"$names")))
[[ $runs -eq $expected ]] || fail "$runs of $expected test programs came to their end"
finish
