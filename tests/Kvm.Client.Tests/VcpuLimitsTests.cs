namespace Kvm.Client.Tests;

/// <summary>What the API document says about kernels that do not answer.</summary>
public class VcpuLimitsTests
{
    [Theory]
    [InlineData(0, 0, 0, 4, 4, 4)]
    [InlineData(2, 0, 0, 2, 2, 2)]
    [InlineData(2, 1024, 0, 2, 1024, 1024)]
    [InlineData(2, 1024, 4096, 2, 1024, 4096)]
    [InlineData(0, 16, 0, 4, 16, 16)]
    [Trait("Seed", "S4-10")]
    [Trait("Seed", "S4-11")]
    public void Absent_capabilities_have_defaults(int nr, int max, int id, int recommended, int maximum, int ids) =>
        VcpuLimits.From(nr, max, id).Should().Be(new VcpuLimits(recommended, maximum, ids));

    /// <summary>6.1: as many as the host has CPUs on line, at most 1024; 1024; ids below 4096.</summary>
    [Theory]
    [InlineData("intel", 2)]
    [InlineData("amd", 3)]
    [Trait("Seed", "S4-8")]
    public void The_recommended_number_is_the_hosts_processors(string vendor, int processors)
    {
        using KvmSystem kvm = KvmSystem.Open(KvmBackend.Model(m =>
        {
            m.Vendor = vendor == "intel" ? Kvm.Emulator.CpuVendor.Intel : Kvm.Emulator.CpuVendor.Amd;
            m.Processors = processors;
        }));
        kvm.VcpuLimits.Should().Be(new VcpuLimits(processors, 1024, 4096));
    }
}
