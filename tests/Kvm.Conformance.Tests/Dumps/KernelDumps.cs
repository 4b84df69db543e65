using Kvm.Conformance.Tests.House;

namespace Kvm.Conformance.Tests.Dumps;

/// <summary>All that real kernels answered without a guest: capabilities, CPUID, MSR lists, initial state of VMs and vCPUs, module parameters.</summary>
public sealed class KernelDumps
{
    public static IEnumerable<object[]> Cases { get; } = [.. DumpReplay.Cases.Select(static c => new object[] { c.Vendor, c.Name })];

    [Theory, MemberData(nameof(Cases))]
    public void Are_the_models_but_for_what_is_explained(string vendor, string name)
    {
        DumpReplay dump = DumpReplay.Of(vendor, name);
        dump.Differences.Where(d => DumpExplanation.IdOf(dump, d) is null).Select(static d => $"{d.Path}: {d.Recorded ?? "-"}, here {d.Model ?? "-"}").Should().BeEmpty();
        dump.Lines.Should().BeGreaterThan(4000);
    }

    [Fact]
    public void Every_explanation_is_needed_and_has_its_entry()
    {
        var used = DumpReplay.Cases.Select(static c => DumpReplay.Of(c.Vendor, c.Name)).SelectMany(static r => r.Differences.Select(d => DumpExplanation.IdOf(r, d))).ToHashSet();
        DumpExplanation.All.Select(static e => e.Id).Should().OnlyContain(id => used.Contains(id) && (id == "time" || id == "processor" || Divergences.Ids.Contains(id)));
    }

    /// <summary>The list of README, "kvm_amd versus kvm_intel": where the recorded kernels differ by vendor, the models differ in the same way.</summary>
    [Theory]
    [InlineData("caps_vm.KVM_CAP_NESTED_STATE", "8320", "4224")]
    [InlineData("caps_vm.KVM_CAP_TSC_CONTROL", "1", "0")]
    [InlineData("caps_vm.KVM_CAP_HYPERV_ENLIGHTENED_VMCS", "1", "0")]
    [InlineData("mce_cap_supported", "0x9000500", "0x1000100")]
    [InlineData("A_noirqchip_vcpu0.sregs.cs.type", "11", "10")]
    [InlineData("A_noirqchip_vcpu0.sregs.ss.type", "3", "2")]
    [InlineData("A_noirqchip_vcpu0.sregs.tr.type", "11", "3")]
    [InlineData("A_noirqchip_vcpu0.nested_state.flags", "0x0", "0x100")]
    [InlineData("A_noirqchip_vcpu0.nested_state.format", "0", "1")]
    [InlineData("A_noirqchip_vcpu0.msrs[0x8b].value", "0x100000000", "0x1000065")]
    [InlineData("kvm/parameters/nx_huge_pages", "Y  mode 644", "N  mode 644")]
    public void Differ_by_vendor(string path, string intel, string amd)
    {
        RecordedDump.All("intel", "default")[path].Should().Be(intel);
        RecordedDump.All("amd", "default")[path].Should().Be(amd);
        DumpReplay.Of("intel", "default").Differences.Should().NotContain(d => d.Path == path);
        DumpReplay.Of("amd", "default").Differences.Should().NotContain(d => d.Path == path);
    }
}
