#!/usr/bin/env bash
# The long runs, which the test command makes in small:
#   every user-mode instruction form against the host's processor, host functions and C# (20,000,000 cases; the test command: 200,000),
#   guests of random bytes in every mode (10,000,000; the test command: 21,000).
# usage: tests/nightly.sh [cases] [guests] [seed]
set -euo pipefail
cd "$(dirname "$0")/.."
export KVM_TEST_CASES=${1:-20000000} KVM_TEST_GUESTS=${2:-10000000} KVM_TEST_SEED=${3:-$RANDOM}
echo "cases $KVM_TEST_CASES, guests $KVM_TEST_GUESTS, seed $KVM_TEST_SEED"
dotnet test tests/Kvm.Emulator.Tests -c Release --filter "FullyQualifiedName~InstructionDifferential.Every_form|FullyQualifiedName~RandomGuests" \
    --logger "console;verbosity=detailed" | grep -E "cases of|guests in|seed|Passed|Failed|differ|Error"
