#!/usr/bin/env bash
# The long differential run: every user-mode instruction form against the host's processor.
# usage: tests/nightly.sh [cases] [seed]        default: 20,000,000 cases; the test command runs 200,000
set -euo pipefail
cd "$(dirname "$0")/.."
export KVM_TEST_CASES=${1:-20000000} KVM_TEST_SEED=${2:-$RANDOM}
echo "cases $KVM_TEST_CASES, seed $KVM_TEST_SEED"
dotnet test tests/Kvm.Emulator.Tests -c Release --filter "FullyQualifiedName~InstructionDifferential.Every_form" --logger "console;verbosity=detailed" | grep -E "cases of|seed|Passed|Failed|differ"
