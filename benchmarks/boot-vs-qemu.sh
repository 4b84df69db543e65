#!/bin/sh
# Debian's cloud kernel to a shell's prompt: kvm run against QEMU's TCG (Debian package "qemu-system-x86"), same kernel, initial file system and memory, in turns.
# usage: benchmarks/boot-vs-qemu.sh [rounds [further options of kvm run ...]]
set -e
command -v qemu-system-x86_64 > /dev/null || { echo "qemu is not installed (apt-get install qemu-system-x86)" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
initrd=$("$here/../samples/linux/build-initramfs.sh")
dotnet build "$here/../src/Kvm.Tool" -c Release -v q --nologo > /dev/null
dotnet build "$here/Kvm.Benchmarks" -c Release -v q --nologo > /dev/null
rounds=${1:-5}
[ $# -eq 0 ] || shift
exec dotnet "$here/Kvm.Benchmarks/bin/Release/net10.0/Kvm.Benchmarks.dll" boot-vs-qemu "$rounds" "$(dirname "$initrd")/vmlinuz" "$initrd" \
    "$here/../src/Kvm.Tool/bin/Release/net10.0/kvm.dll" "$@"
