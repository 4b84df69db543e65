#!/bin/sh
# The engine against Bochs 2.7 (Debian package "bochs") on the same kernels, alternating, medians of paired ratios.
# usage: benchmarks/engine-vs-bochs.sh [rounds [kernel ...]]
set -e
command -v bochs >/dev/null || { echo "bochs is not installed (apt-get install bochs)" >&2; exit 1; }
cd "$(dirname "$0")/Kvm.Benchmarks"
dotnet build -c Release -v q --nologo >/dev/null
exec dotnet bin/Release/net10.0/Kvm.Benchmarks.dll engine-vs-bochs "${@:-3}"
