using Kvm.Abi;
using Kvm.Arch.X86.Svm;
using Kvm.Arch.X86.Tests;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Parameters;

/// <summary>What the parameters of kvm_amd change.</summary>
public sealed unsafe class KvmAmdEffects
{
    private static VmcbControlArea* Control(Guest g) => &((VcpuSvm)g.Vcpu).Vmcb->Control;

    private static bool Intercepts(Guest g, int bit) => (Control(g)->Intercepts[bit >> 5] >> (bit & 31) & 1) != 0;

    private static string Text(Guest g, string name) => g.Kernel.Host.Modules.Find("kvm_amd")!.Parameters.Find(name)!.Text;

    [Theory]
    [InlineData("pause_filter_count=5 pause_filter_thresh=65535 pause_filter_count_max=15", 15)]
    [InlineData("pause_filter_count=5 pause_filter_thresh=65535 pause_filter_count_max=15 pause_filter_count_grow=0", 5)]
    public void pause_filter_count_grows_with_PAUSE_exits(string parameters, int count)
    {
        using var g = new Guest(parameters: parameters);
        Control(g)->PauseFilterCount.Should().Be(5);
        Control(g)->PauseFilterThreshold.Should().Be(65535);
        g.Load([0xb9, 0x80, 0x00, 0xf3, 0x90, 0xe2, 0xfc, 0xf4]); // mov cx, 128; pause; loop; hlt
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        Control(g)->PauseFilterCount.Should().Be((ushort)count);
    }

    [Fact]
    public void pause_filter_count_shrink_divides_or_subtracts_or_resets()
    {
        KvmAmd.ShrinkPleWindow(4000, 3000, 0, 3000).Should().Be(3000);
        KvmAmd.ShrinkPleWindow(8000, 3000, 2, 3000).Should().Be(4000);
        KvmAmd.ShrinkPleWindow(8000, 3000, 3500, 3000).Should().Be(4500);
        KvmAmd.ShrinkPleWindow(4000, 3000, 2, 3000).Should().Be(3000);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(0)]
    public void intercept_smi(int on)
    {
        using var g = new Guest(parameters: $"intercept_smi={on}");
        Intercepts(g, 98).Should().Be(on == 1);
    }

    /// <summary>SVM features that are off are not offered to guest hypervisors.</summary>
    [Theory]
    [InlineData("lbrv", 1)]
    [InlineData("nrips", 3)]
    [InlineData("tsc_scaling", 4)]
    [InlineData("vls", 15)]
    [InlineData("vgif", 16)]
    [InlineData("npt", 0)]
    [InlineData("nested", 2)]
    public void Features(string parameter, int bit)
    {
        using var on = new Guest(vm: false);
        using var off = new Guest(vm: false, parameters: parameter + "=0");
        Text(off, parameter).Should().BeOneOf("0", "N");
        if (parameter == "nested")
        {
            (Leaf(on, 0x80000001).ecx >> bit & 1).Should().Be(1, "SVM");
            (Leaf(off, 0x80000001).ecx >> bit & 1).Should().Be(0);
            return;
        }

        (Leaf(off, 0x8000000a).edx >> bit & 1).Should().Be(0);
        (Leaf(on, 0x8000000a).edx >> bit & 1).Should().Be(Text(on, parameter) is "0" or "N" ? 0u : 1u);
    }

    private static kvm_cpuid_entry2 Leaf(Guest g, uint function)
    {
        var cpuid = (kvm_cpuid2*)g.Process.MapAnonymous(0x4000);
        cpuid->nent = 256;
        Guest.Ok(g.Process.Ioctl(g.KvmFd, KVM_GET_SUPPORTED_CPUID, (ulong)cpuid));
        var entries = (kvm_cpuid_entry2*)(cpuid + 1);
        for (uint i = 0; i < cpuid->nent; i++)
        {
            if (entries[i].function == function)
                return entries[i];
        }

        return default;
    }

    [Fact]
    public void force_avic_taints_the_kernel()
    {
        using var g = new Guest(vm: false, parameters: "force_avic=1");
        g.Kernel.Host.Log.Lines.Should().Contain("Setting dangerous option force_avic - tainting kernel");
        Text(g, "avic").Should().Be("N");
    }
}
