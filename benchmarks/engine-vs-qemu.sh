#!/bin/sh
# Both engines, interpreter and native, against QEMU's TCG (Debian package "qemu-system-x86") on the same kernels, alternating, medians of paired ratios.
# usage: benchmarks/engine-vs-qemu.sh [rounds [kernel ...]]
set -e
command -v qemu-system-x86_64 >/dev/null || { echo "qemu is not installed (apt-get install qemu-system-x86)" >&2; exit 1; }
cd "$(dirname "$0")/Kvm.Benchmarks"
dotnet build -c Release -v q --nologo >/dev/null
exec dotnet bin/Release/net10.0/Kvm.Benchmarks.dll engine-vs-qemu "${@:-3}"
