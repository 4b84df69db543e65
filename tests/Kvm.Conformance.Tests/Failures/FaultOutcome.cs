using Kvm.Abi;

namespace Kvm.Conformance.Tests.Failures;

/// <summary>What one failure of one point led to.</summary>
/// <param name="Point">"kind:tag" of the fault point.</param>
/// <param name="Use">Which use of it failed; 1 is the first since insmod.</param>
/// <param name="Step">The step that returned an error; null: the kernel goes on without.</param>
/// <param name="Errno">Its errno.</param>
internal sealed record FaultOutcome(string Point, long Use, string? Step, Errno Errno);
