using Kvm.Conformance.Tests.Sessions;
using Kvm.Core;
using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.HardwareLog.Intel;

/// <summary>
/// The model's kvm_intel, driven through the recorded session on the recorded processor model, executes the recorded VMX instructions, MSR accesses and CR4.VMXE
/// changes: the same ones, on the same processors, in the same order, with the same values where these are not addresses or times.
/// </summary>
/// <remarks>The recorded sessions with an in-kernel interrupt controller ("long64") are not replayed: the model has no local APIC yet.</remarks>
public sealed class IntelHardwareLog(ITestOutputHelper output)
{
    /// <summary>Module load to close, without any difference that has no reason.</summary>
    [Theory]
    [InlineData("")]
    [InlineData("nested=0")]
    [InlineData("enable_apicv=0")]
    [InlineData("unrestricted_guest=0")]
    public void Same_instructions(string parameters)
    {
        List<HardwareComparison> steps = Replay(parameters, runGuest: true);
        Unexplained(steps).Should().BeEmpty();
        steps.Should().OnlyContain(static s => s.Share > 0.85);
        foreach (string exact in (string[])["load", "05-KVM_CREATE_VM", "13-KVM_SET_CPUID2", "14-KVM_GET_SREGS", "19-KVM_SET_MSRS-SYSENTER_CS", "45-close-vm", "unload"])
            steps.Single(s => s.Step == exact).Differences.Should().BeEmpty(exact);
    }

    /// <summary>Without EPT the guest needs shadow paging, which is not modelled (D-VMX-7): the session without the guest's runs.</summary>
    [Fact]
    public void Same_instructions_without_EPT() => Unexplained(Replay("ept=0", runGuest: false)).Should().BeEmpty();

    private static IEnumerable<string> Unexplained(List<HardwareComparison> steps) =>
        steps.SelectMany(static s => s.Differences).Where(static d => Explanations.Of(d) is null).Select(static d => $"{d.Step}: {d}");

    /// <summary>The processor that the calling thread was on: where most was done. What is done on each, like switching VMX on, tells nothing.</summary>
    private static int CpuOf(List<HardwareOp> operations) => operations.Count(static o => o.Cpu == 0) > operations.Count(static o => o.Cpu == 1) ? 0 : 1;

    private List<HardwareComparison> Replay(string parameters, bool runGuest)
    {
        RecordedSession recorded = RecordedSession.All[parameters];
        using var model = new ModelHost("intel");
        model.LoadKvm().Should().Be((KvmResult)0);
        var recorder = new HardwareRecorder();
        model.Observe(recorder);
        var session = new Real16Session(model.Host) { BetweenSteps = () => recorder.Take() };
        List<HardwareComparison> result = [];

        session.RunOn(CpuOf(recorded.Load));
        // The recorded kernel has nested virtualization on by default, the model off (D-VMX-1).
        model.LoadVendor(parameters.Contains("nested", StringComparison.Ordinal) ? parameters : parameters + " nested=1").Should().Be((KvmResult)0);
        Add("load", recorded.Load);
        foreach ((string name, int i) in session.Steps.Select(static (s, i) => (s, i)))
        {
            if (!runGuest && name.Contains("KVM_RUN-", StringComparison.Ordinal) && !name.EndsWith("immediate_exit", StringComparison.Ordinal))
                continue;
            RecordedStep step = recorded.Real16[i];
            step.Name.Should().Be(name[3..]);
            session.RunOn(CpuOf(step.Operations));
            recorder.Take();
            KvmResult r = session.Run(i);
            if (step.Result is { } expected)
                ((int)r.Errno).Should().Be(expected.Errno, name);
            Add(name, step.Operations);
        }
        if (runGuest)
            session.Exits.Should().Equal(session.Steps.Where(static s => s.Contains("KVM_RUN-", StringComparison.Ordinal)).Select(static s => s[11..]).Skip(1));
        model.UnloadVendor().Should().Be((KvmResult)0);
        Add("unload", recorded.Unload);
        return result;

        void Add(string step, List<HardwareOp> operations)
        {
            HardwareComparison comparison = HardwareComparison.Compare(step, operations, recorder.Take());
            result.Add(comparison);
            output.WriteLine($"{comparison.Share,7:P1}  {comparison.Recorded,4} recorded {comparison.Model,4} model  {step}");
            foreach (HardwareDifference difference in comparison.Differences)
                output.WriteLine($"           {difference}  {Explanations.Of(difference) ?? "UNEXPLAINED"}");
        }
    }
}
