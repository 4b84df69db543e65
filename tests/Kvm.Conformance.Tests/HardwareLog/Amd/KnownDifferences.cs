namespace Kvm.Conformance.Tests.HardwareLog.Amd;

/// <summary>What differs from the recording, each for a reason in docs/DIVERGENCES.md. An unexpected match fails as a difference does.</summary>
internal static class KnownDifferences
{
    /// <summary>
    /// In the session with nested=0 the recorded thread was preempted within KVM_RUN: the vCPU was put and loaded again, which saves the host state a second time.
    /// </summary>
    private static readonly string[] preempted = ["35-KVM_RUN-IO-out-port80-size1-count1: missing cpu1 VMSAVE 0 = 2efeb000 (svm_prepare_switch_to_guest)"];

    public static IEnumerable<string> Of(string parameters) => parameters == "nested=0" ? preempted : [];
}
