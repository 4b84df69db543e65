using Xunit.Abstractions;

namespace Kvm.Conformance.Tests.HardwareLog;

/// <summary>
/// The hardware sees the same thing: the model's kvm_intel and kvm_amd, driven through the recorded session on the recorded processor model, execute the recorded
/// instructions, MSR accesses and CR4.VMXE changes: the same ones, on the same processors, in the same order, from the same functions, with the same values.
/// </summary>
public sealed class HardwareLogs(ITestOutputHelper output)
{
    /// <summary>Functions that neither kernel traces (assembly and noinstr), and the traced one that they are part of.</summary>
    private static readonly Dictionary<string, string> partOf = new()
    {
        ["__vmx_vcpu_run"] = "vmx_vcpu_run",
        ["vmx_update_host_rsp"] = "vmx_vcpu_run",
        ["__svm_vcpu_run"] = "svm_vcpu_run",
    };

    public static TheoryData<string, string> Sessions
    {
        get
        {
            var data = new TheoryData<string, string>();
            foreach ((string vendor, string parameters) in HardwareReplay.Sessions)
                data.Add(vendor, parameters);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Sessions))]
    public void Same_instructions_in_the_same_order_with_the_same_values(string vendor, string parameters)
    {
        HardwareReplay replay = HardwareReplay.Of(vendor, parameters);
        foreach (HardwareComparison step in replay.Steps)
        {
            output.WriteLine($"{step.Share,7:P1}  {step.Matched,4} of {step.Recorded,4}  {step.Step}");
            foreach (HardwareDifference d in step.Differences)
                output.WriteLine($"           {d}  {Explanations.Of(replay, step.Step, d) ?? "UNEXPLAINED"}");
        }

        replay.Steps.SelectMany(s => s.Differences.Where(d => Explanations.Of(replay, s.Step, d) is null).Select(d => $"{s.Step}: {d}")).Should().BeEmpty();
    }

    /// <summary>Loading, creating, resetting, reading and writing registers, closing and unloading: without a difference, explained or not.</summary>
    [Theory]
    [MemberData(nameof(Sessions))]
    public void Nothing_differs_but_in_guest_runs(string vendor, string parameters)
    {
        foreach (HardwareComparison step in HardwareReplay.Of(vendor, parameters).Steps.Where(static s => !s.Step.Contains("KVM_RUN-", StringComparison.Ordinal)))
            step.Differences.Select(static d => d.ToString()).Should().BeEmpty(step.Step);
    }

    [Theory]
    [MemberData(nameof(Sessions))]
    public void Each_from_the_same_function(string vendor, string parameters)
    {
        var pairs = HardwareReplay.Of(vendor, parameters).Steps.SelectMany(static s => s.Pairs).Where(static p => p is { Recorded.Functions.Length: > 0, Model: not null }).ToList();
        pairs.Where(static p => !p.Model!.Functions.Contains(partOf.GetValueOrDefault(p.Recorded!.Functions[0], p.Recorded.Functions[0])))
            .Select(static p => $"{p.Recorded}: in the model from {string.Join(" < ", p.Model!.Functions)}").Should().BeEmpty();
        pairs.Should().NotBeEmpty();
    }

    /// <summary>The VMCS field by field, the VMCB word by word, as the processor finds them at the first VMLAUNCH or VMRUN.</summary>
    [Theory]
    [MemberData(nameof(Sessions))]
    public void Same_VMCS_and_VMCB_at_the_first_entry(string vendor, string parameters)
    {
        HardwareReplay replay = HardwareReplay.Of(vendor, parameters);
        replay.FirstEntry.Should().BeEmpty();
        output.WriteLine($"{replay.FirstEntryCompared} compared");
    }
}
