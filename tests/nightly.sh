#!/usr/bin/env bash
# The long runs, which the test command makes in small:
#   every user-mode instruction form against the host's processor, host functions and C# each (20,000,000 cases; the test command: 200,000),
#   programs of up to twelve of them, made and shrunk by FsCheck (one for twenty cases),
#   programs of SSE and AVX instructions in blocks against the same one at a time (as many instructions),
#   guests of random bytes in every mode (10,000,000; the test command: 21,000),
#   random programs on the native engine and the interpreter in lock-step (one for twenty cases),
#   64 vCPUs that interrupt each other and sleep, ten minutes for each vendor and way of delivery (the test command: two seconds); with fast, half a minute.
# usage: tests/nightly.sh [fast | cases] [guests] [seed]
#   fast: 500,000 cases and 200,000 guests, in a few minutes, for a look before a commit. The whole takes about forty times as long: most of an hour
#   on an idle machine, hours on a busy one. A seed makes a run repeatable; without one it is random, and printed.
set -euo pipefail
cd "$(dirname "$0")/.."
cases=20000000 guests=10000000 soak=600
case ${1:-} in
    "") ;;
    fast) cases=500000 guests=200000 soak=30 ;;
    *[!0-9]*) sed -n '2,12s/^# \?//p' "$0" >&2; exit 2 ;;
    *) cases=$1 ;;
esac
export KVM_TEST_CASES=$cases KVM_TEST_GUESTS=${2:-$guests} KVM_TEST_SEED=${3:-$RANDOM} KVM_TEST_PROGRAMS=$((cases / 20))
echo "cases $KVM_TEST_CASES, guests $KVM_TEST_GUESTS, seed $KVM_TEST_SEED"
time dotnet test tests/Kvm.Emulator.Tests -c Release \
    --filter "FullyQualifiedName~InstructionDifferential.Every_form|FullyQualifiedName~ProgramDifferential|FullyQualifiedName~VectorBlocks.Give_what|FullyQualifiedName~RandomGuests|FullyQualifiedName~NativeEngineLockstep" \
    --logger "console;verbosity=detailed" | grep -E "cases of|programs of|guests in|seed|Passed|Failed|differ|Skipped|[Ee]rror|program [0-9]"
time KVM_TEST_SOAK_SECONDS=$soak dotnet test tests/Kvm.Client.Tests -c Release --filter "FullyQualifiedName~SmpSoak" \
    --logger "console;verbosity=detailed" | grep -E "lost|progress|round|Passed|Failed|instead|[Ee]rror"
