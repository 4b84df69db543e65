using Kvm.Conformance.Tests.HardwareLog.Intel;
using Kvm.Conformance.Tests.Sessions;
using Kvm.Core;
using Xunit.Abstractions;
using static Kvm.Arch.X86.MsrIndex;

namespace Kvm.Conformance.Tests.HardwareLog.Amd;

/// <summary>
/// The model's kvm_amd, driven through the recorded session on the recorded processor model, executes the recorded SVM instructions and MSR accesses: the same
/// ones, on the same processors, in the same order, with the same values where these are not addresses or times; and its VMCB at the first VMRUN is the recorded one.
/// </summary>
public sealed class AmdHardwareLog(ITestOutputHelper output)
{
    /// <summary>I/O and MSR permission maps, nested table root, TSC offset.</summary>
    private static readonly HashSet<int> addressWords = [0x040, 0x044, 0x048, 0x04c, 0x050, 0x054, 0x0b0, 0x0b4];

    /// <summary>A difference that counts: the host save area is an address.</summary>
    private static bool Counts(HardwareDifference difference) => difference is not { Kind: DifferenceKind.Value, Op.Operand: MSR_VM_HSAVE_PA };

    public static TheoryData<string> Sessions => ["", "nested=0"];

    [Theory]
    [MemberData(nameof(Sessions))]
    public void The_whole_session(string parameters)
    {
        (List<HardwareComparison> comparisons, uint[]? vmcb) = Session(parameters);
        IEnumerable<string> differing = comparisons.SelectMany(static c => c.Differences).Where(Counts).Select(static d => $"{d.Step}: {d}");
        differing.Should().Equal(KnownDifferences.Of(parameters));
        vmcb.Should().NotBeNull();
        VmcbDifferences(RecordedSvmSession.All[parameters].Real16Vmcb, vmcb!).Should().BeEmpty();
        comparisons.Sum(static c => c.Recorded).Should().BeGreaterThan(200);
    }

    private List<string> VmcbDifferences(Dictionary<int, uint> recorded, uint[] model)
    {
        List<string> differences = [];
        for (int offset = 0; offset < model.Length * 4; offset += 4)
        {
            uint want = recorded.GetValueOrDefault(offset), have = model[offset / 4];
            if (want != have && !addressWords.Contains(offset))
                differences.Add($"VMCB {offset:x3}: recorded {want:x8}, model {have:x8}");
        }

        foreach (string line in differences)
            output.WriteLine(line);
        return differences;
    }

    /// <summary>The processor that the calling thread was on: where most was done.</summary>
    private static int CpuOf(List<HardwareOp> operations) => operations.Count(static o => o.Cpu == 0) >= operations.Count(static o => o.Cpu == 1) ? 0 : 1;

    private (List<HardwareComparison>, uint[]?) Session(string parameters)
    {
        RecordedSvmSession recorded = RecordedSvmSession.All[parameters];
        using var model = new ModelHost("amd");
        model.LoadKvm();
        var recorder = new SvmHardwareRecorder();
        model.Observe(recorder);
        var session = new Real16Session(model.Host) { BetweenSteps = () => recorder.Take() };
        List<HardwareComparison> result = [];
        session.RunOn(CpuOf(recorded.Load));
        model.LoadVendor(parameters).Should().Be((KvmResult)0, string.Join("\n", model.Host.Log.Lines));
        Add("load", recorded.Load);
        foreach ((string name, int i) in session.Steps.Select(static (s, i) => (s, i)))
        {
            session.RunOn(CpuOf(recorded.Real16[i].Operations));
            recorder.Take();
            session.Run(i);
            Add(name, recorded.Real16[i].Operations);
        }

        model.UnloadVendor();
        Add("unload", recorded.Unload);
        int total = result.Sum(static c => c.Recorded), matched = result.Sum(static c => c.Matched - c.Differences.Count(d => d.Kind == DifferenceKind.Value && Counts(d)));
        output.WriteLine($"{(double)matched / total:P1} of {total} recorded operations");
        return (result, recorder.FirstVmcb);

        void Add(string step, List<HardwareOp> operations)
        {
            HardwareComparison comparison = HardwareComparison.Compare(step, operations, recorder.Take());
            result.Add(comparison);
            output.WriteLine($"{comparison.Share,7:P1}  {comparison.Recorded,4} recorded {comparison.Model,4} model  {step}");
            foreach (HardwareDifference difference in comparison.Differences.Where(Counts))
                output.WriteLine("           " + difference);
        }
    }
}
