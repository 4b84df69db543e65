namespace Kvm.Conformance.Tests.HardwareLog.Amd;

/// <summary>What differs from the recording, each for a reason in docs/DIVERGENCES.md. An unexpected match fails as a difference does.</summary>
internal static class KnownDifferences
{
    public static IEnumerable<string> Of(string parameters) => parameters.Length < 0 ? [""] : [];
}
