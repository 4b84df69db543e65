using Kvm.Conformance.Tests.Sessions;
using Kvm.Core;
using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.HardwareLog.Intel;

/// <summary>
/// The model's kvm_intel, driven through the recorded session on the recorded processor model, executes the recorded VMX instructions, MSR accesses and CR4.VMXE
/// changes: the same ones, on the same processors, in the same order, with the same values where these are not addresses or times.
/// </summary>
public sealed class IntelHardwareLog(ITestOutputHelper output)
{
    public static TheoryData<string> Sessions => ["", "unrestricted_guest=0", "enable_apicv=0", "nested=0", "ept=0"];

    [Theory]
    [MemberData(nameof(Sessions))]
    public void Module_load(string parameters)
    {
        Session(parameters).First(static c => c.Step == "load").Equal.Should().BeTrue();
    }

    /// <summary>The processor that the calling thread was on: where most was done. What is done on each, like switching VMX on, tells nothing.</summary>
    private static int CpuOf(List<HardwareOp> operations) => operations.Count(static o => o.Cpu == 0) > operations.Count(static o => o.Cpu == 1) ? 0 : 1;

    private List<HardwareComparison> Session(string parameters)
    {
        RecordedSession recorded = RecordedSession.All[parameters];
        using var model = new ModelHost("intel");
        model.LoadKvm();
        var recorder = new HardwareRecorder();
        model.Observe(recorder);
        var session = new Real16Session(model.Host) { BetweenSteps = () => recorder.Take() };
        List<HardwareComparison> result = [];

        session.RunOn(CpuOf(recorded.Load));
        // The recorded kernel has nested virtualization on by default, the model off.
        KvmResult r = model.LoadVendor(parameters.Contains("nested", StringComparison.Ordinal) ? parameters : parameters + " nested=1");
        r.Should().Be((KvmResult)0);
        Add("load", recorded.Load);
        foreach ((string name, int i) in session.Steps.Select(static (s, i) => (s, i)))
        {
            session.RunOn(CpuOf(recorded.Real16[i].Operations));
            recorder.Take();
            try
            {
                r = session.Run(i);
            }
            catch (NotImplementedException e)
            {
                output.WriteLine(e.ToString());
            }
            Add(name, recorded.Real16[i].Operations);
        }
        model.UnloadVendor();
        Add("unload", recorded.Unload);
        return result;

        void Add(string step, List<HardwareOp> operations)
        {
            HardwareComparison comparison = HardwareComparison.Compare(step, operations, recorder.Take(), Determinism.IsDeterministic);
            result.Add(comparison);
            output.WriteLine($"{comparison.Share,7:P1}  {comparison.Recorded,4} recorded {comparison.Model,4} model  {step}");
            foreach (string line in comparison.Missing)
                output.WriteLine("           missing " + line);
            foreach (string line in comparison.Extra)
                output.WriteLine("           extra   " + line);
            foreach (string line in comparison.Values)
                output.WriteLine("           value   " + line);
        }
    }
}
