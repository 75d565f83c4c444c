#!/bin/sh
# The slow lane of the sums example: a 10 GiB sparse file, in bounded memory, among small files.
# Checked against sha256sum. Needs no disk space to speak of; takes about a minute.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --example sums
sums=$PWD/target/release/examples/sums
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
truncate -s 10G "$tree/big"
for i in $(seq 100); do echo "$i" > "$tree/$i"; done

"$sums" --stats "$tree" > "$tree.ours" &
pid=$!
peak=0
while kill -0 $pid 2>/dev/null; do
    now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status 2>/dev/null || true)
    [ "${now:-0}" -gt $peak ] && peak=$now
    sleep 0.1
done
wait $pid
find "$tree" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum > "$tree.theirs"
cmp "$tree.ours" "$tree.theirs"
rm -f "$tree.ours" "$tree.theirs"
echo "peak memory: $peak KiB"
[ "$peak" -gt 0 ] && [ "$peak" -lt 131072 ]
echo "sums-slow: ok"
