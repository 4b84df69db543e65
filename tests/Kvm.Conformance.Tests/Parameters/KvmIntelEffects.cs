using Kvm.Arch.X86.Tests;
using Kvm.Arch.X86.Vmx;
using Kvm.Core;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Conformance.Tests.Parameters;

/// <summary>What the parameters of kvm_intel change.</summary>
public sealed unsafe class KvmIntelEffects
{
    private static VcpuVmx Vmx(Guest g) => (VcpuVmx)g.Vcpu;

    private static string Text(Guest g, string name) => g.Kernel.Host.Modules.Find("kvm_intel")!.Parameters.Find(name)!.Text;

    /// <summary>A control is on where the parameter is, and off without it.</summary>
    [Theory]
    [InlineData("vpid", SECONDARY_EXEC_ENABLE_VPID)]
    [InlineData("ept", SECONDARY_EXEC_ENABLE_EPT)]
    [InlineData("unrestricted_guest", SECONDARY_EXEC_UNRESTRICTED_GUEST)]
    [InlineData("flexpriority", SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES)]
    [InlineData("enable_apicv", SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY)]
    public void Secondary_controls(string parameter, uint control)
    {
        using var on = new Guest("intel", irqchip: true);
        using var off = new Guest("intel", irqchip: true, parameters: parameter + "=0");
        ((Vmx(on).SecondaryExecControlsGet() & control) != 0).Should().Be(Text(on, parameter) == "Y");
        (Vmx(off).SecondaryExecControlsGet() & control).Should().Be(0);
    }

    [Theory]
    [InlineData("vnmi=1", true)]
    [InlineData("vnmi=0", false)]
    public void vnmi(string parameters, bool on)
    {
        using var g = new Guest("intel", parameters: parameters);
        ((Vmx(g).PinControlsGet() >> 5 & 1) != 0).Should().Be(on);
    }

    /// <summary>Linux 6.1 maps the APIC access page only with APICv, whose processor ends interrupts itself: no exit is left that fasteoi could shorten.</summary>
    [Theory]
    [InlineData("fasteoi=1 enable_apicv=0", 1)]
    [InlineData("fasteoi=0 enable_apicv=0", 1)]
    [InlineData("fasteoi=0 enable_apicv=1", 0)]
    public void fasteoi_changes_nothing_since_EOI_is_emulated_or_virtual(string parameters, ulong emulated)
    {
        using var g = new Guest("intel", parameters: parameters, irqchip: true);
        g.Load([0x66, 0xa3, 0xb0, 0x00, 0xe6, 0x80, 0xf4]); // mov [0b0h], eax; out 80h, al
        Abi.kvm_sregs s = g.Sregs;
        s.ds.@base = 0xfee00000;
        g.Sregs = s;
        g.RunToExit().Should().Be((uint)KVM_EXIT_IO);
        g.Vcpu.Stat.InsnEmulation.Should().Be(Text(g, "enable_apicv") == "Y" ? emulated : 1);
    }

    [Theory]
    [InlineData("unrestricted_guest=0", 1)]
    [InlineData("unrestricted_guest=0 emulate_invalid_guest_state=0", 0)]
    public void emulate_invalid_guest_state_is_what_system_management_mode_needs(string parameters, int smm)
    {
        using var g = new Guest("intel", vm: false, parameters: parameters);
        g.Process.Ioctl(g.KvmFd, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM).Should().Be((KvmResult)smm);
    }

    [Theory]
    [InlineData("", 0)]
    [InlineData("allow_smaller_maxphyaddr=1", 1)]
    [InlineData("ept=0", 1)]
    public void allow_smaller_maxphyaddr(string parameters, int answer)
    {
        using var g = new Guest("intel", vm: false, parameters: parameters);
        g.Process.Ioctl(g.KvmFd, KVM_CHECK_EXTENSION, KVM_CAP_SMALLER_MAXPHYADDR).Should().Be((KvmResult)answer);
    }

    [Theory]
    [InlineData("ple_gap=4294967295 ple_window=1 ple_window_grow=2 ple_window_max=31", 31)]
    [InlineData("ple_gap=4294967295 ple_window=1 ple_window_grow=0 ple_window_max=31", 1)]
    [InlineData("ple_gap=0 ple_window=1", 1)]
    public void ple_window_grows_with_PAUSE_exits_up_to_ple_window_max(string parameters, uint window)
    {
        using var g = new Guest("intel", parameters: parameters);
        g.Load([0xb9, 0x00, 0x04, 0xf3, 0x90, 0xe2, 0xfc, 0xf4]); // mov cx, 1024; pause; loop; hlt
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        if (Text(g, "ple_gap") != "0")
            Vmx(g).PleWindow.Should().Be(window);
        else
            (Vmx(g).SecondaryExecControlsGet() & SECONDARY_EXEC_PAUSE_LOOP_EXITING).Should().Be(0);
    }

    [Fact]
    public void ple_window_shrink_divides_or_subtracts_or_resets()
    {
        KvmIntel.ShrinkPleWindow(10000, 4096, 0, 4096).Should().Be(4096);
        KvmIntel.ShrinkPleWindow(10000, 4096, 2, 4096).Should().Be(5000);
        KvmIntel.ShrinkPleWindow(10000, 4096, 4500, 4096).Should().Be(5500);
    }

    [Fact]
    public void vmentry_l1d_flush_takes_its_words_only()
    {
        using var g = new Guest("intel", vm: false);
        ModuleParameters p = g.Kernel.Host.Modules.Find("kvm_intel")!.Parameters;
        p.Write("vmentry_l1d_flush", "often").Should().Be((KvmResult)Abi.Errno.EINVAL);
        p.Write("vmentry_l1d_flush", "always").Should().Be((KvmResult)0);
    }
}
