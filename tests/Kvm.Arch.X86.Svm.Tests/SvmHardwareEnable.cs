using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;

namespace Kvm.Arch.X86.Svm.Tests;

/// <summary>Each CPU's own switch into SVM, made by the first VM.</summary>
public class SvmHardwareEnable
{
    private const uint MsrHsavePa = 0xc0010117, MsrTscRatio = 0xc0000104, MsrEfer = 0xc0000080;
    private const ulong EferSvme = 0x1000;

    [Fact]
    [Trait("Seed", "S2-20")]
    public void Is_reached_from_KVM_CREATE_VM_through_hardware_enable_nolock()
    {
        using var host = new AmdHost();
        host.Load().Raw.Should().Be(0);
        int kvm = host.OpenKvm();
        string text;
        using (FunctionTraceSession trace = FunctionTrace.Start(host.Host))
        {
            host.CreateVm(kvm).IsError.Should().BeFalse();
            text = trace.Format();
        }

        string[] chain = ["kvm_dev_ioctl", "on_each_cpu_cond_mask", "hardware_enable_nolock", "kvm_arch_hardware_enable", "svm_hardware_enable"];
        chain.Select(name => text.IndexOf(name, StringComparison.Ordinal)).Should().OnlyContain(i => i >= 0).And.BeInAscendingOrder();
    }

    [Fact]
    [Trait("Seed", "S2-21")]
    public void Returns_EBUSY_when_somebody_else_uses_SVM()
    {
        using var host = new AmdHost();
        host.Load().Raw.Should().Be(0);
        host.OnCpu(1, c => c.Wrmsr(MsrEfer, c.Rdmsr(MsrEfer) | EferSvme));
        host.CreateVm(host.OpenKvm()).Raw.Should().Be(-(long)Errno.EBUSY);
        host.Dmesg.Should().Contain("kvm: enabling virtualization on CPU1 failed");
        host.OnCpu(0, c => (c.Rdmsr(MsrEfer) & EferSvme).Should().Be(0, "the CPU that had enabled it is disabled again"));
    }

    [Fact]
    [Trait("Seed", "S2-22")]
    [Trait("Seed", "S2-24")]
    [Trait("Seed", "S2-25")]
    public void Writes_EFER_SVME_then_the_host_save_area_then_the_ratio()
    {
        using var host = new AmdHost();
        host.Load().Raw.Should().Be(0);
        host.Msrs.Clear();
        host.CreateVm(host.OpenKvm()).IsError.Should().BeFalse();
        for (int cpu = 0; cpu < 2; cpu++)
        {
            var writes = host.Msrs.Where(m => m.Cpu == cpu && m.Write).ToList();
            int svme = writes.FindIndex(m => m.Index == MsrEfer && (m.Value & 0x1000) != 0), hsave = writes.FindIndex(m => m.Index == MsrHsavePa);
            svme.Should().BeGreaterThanOrEqualTo(0);
            hsave.Should().BeGreaterThan(svme);
            writes[hsave].Value.Should().NotBe(0).And.Match(v => v % 4096 == 0);
            writes.Where(m => m.Index == MsrTscRatio).Should().OnlyContain(m => m.Value == 0x100000000);
            host.OnCpu(cpu, c => c.RdmsrSafe(MsrTscRatio, out ulong ratio).Should().Be(ratio == 0x100000000));
        }

        host.Msrs.Where(m => m.Write && m.Index == MsrHsavePa).Select(m => m.Value).Should().OnlyHaveUniqueItems("each CPU has its own save area");
    }

    /// <summary>Each CPU asks for itself; the ASIDs start a new generation, so that a vCPU that ran here before takes a new one.</summary>
    [Fact]
    [Trait("Seed", "S2-23")]
    public void Starts_a_new_ASID_generation_with_CPUID_8000000a_EBX_ASIDs()
    {
        using var host = new AmdHost();
        host.Load().Raw.Should().Be(0);
        int kvm = host.OpenKvm();
        int vm = host.CreateVm(kvm).Value;
        SvmCpuData first = host.Module.CpuData(0);
        first.MaxAsid.Should().Be(CpuModel.AmdZen.Leaf(0x8000000a).Ebx - 1);
        first.NextAsid.Should().Be(first.MaxAsid + 1);
        first.MinAsid.Should().Be(1);
        host.Host.Process.Close(vm);
        host.CreateVm(kvm).IsError.Should().BeFalse();
        host.Module.CpuData(0).AsidGeneration.Should().Be(first.AsidGeneration + 1);
    }
}
