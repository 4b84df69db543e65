using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;

namespace Kvm.Arch.X86.Svm.Tests;

/// <summary>How kvm_amd decides whether this machine has SVM and may use it: at load, before anything is enabled.</summary>
public class SvmDetection
{
    private const uint MsrVmCr = 0xc0010114, MsrEfer = 0xc0000080;
    private const ulong EferSvme = 0x1000;
    private const ulong SvmDisable = 1 << 4;

    private static CpuModel WithoutSvm => CpuModel.AmdZen.WithCpuid(0x80000001, 0, default, new CpuidLeaf(0, 0, 1 << 2, 0));

    [Fact]
    [Trait("Seed", "S2-1")]
    [Trait("Seed", "S2-8")]
    public void SVM_is_checked_at_load_and_not_enabled()
    {
        using var host = new AmdHost();
        host.Load().Raw.Should().Be(0);
        host.Dmesg.Should().NotContain(l => l.Contains("has_svm", StringComparison.Ordinal), "with every check passed there is no reason to print");
        for (int cpu = 0; cpu < 2; cpu++)
            host.OnCpu(cpu, c => (c.Rdmsr(MsrEfer) & EferSvme).Should().Be(0));
    }

    /// <summary>has_svm comes before is_disabled; both before hardware setup.</summary>
    [Fact]
    [Trait("Seed", "S2-2")]
    public void Support_is_asked_before_the_BIOS_lock_and_before_setup()
    {
        using var host = new AmdHost();
        host.LoadKvm().Raw.Should().Be(0);
        string text;
        using (FunctionTraceSession trace = FunctionTrace.Start(host.Host))
        {
            host.Load().Raw.Should().Be(0);
            text = trace.Format();
        }

        int support = text.IndexOf("has_svm", StringComparison.Ordinal), disabled = text.IndexOf("is_disabled", StringComparison.Ordinal), setup = text.IndexOf("svm_hardware_setup", StringComparison.Ordinal);
        support.Should().BePositive().And.BeLessThan(disabled);
        disabled.Should().BeLessThan(setup);
    }

    [Fact]
    [Trait("Seed", "S2-3")]
    [Trait("Seed", "S2-7")]
    [Trait("Seed", "S2-12")]
    public void A_processor_without_SVM_is_refused_with_the_reason()
    {
        using var host = new AmdHost(WithoutSvm);
        host.Load().Raw.Should().Be(-(long)Errno.EOPNOTSUPP);
        host.Dmesg.Should().Contain("has_svm: svm not available").And.Contain("kvm: no hardware support for 'kvm_amd'");
        host.Host.Process.Open("/dev/kvm").Raw.Should().Be(-(long)Errno.ENOENT);
    }

    [Fact]
    [Trait("Seed", "S2-4")]
    public void Another_vendors_processor_is_refused_with_the_reason()
    {
        using var host = new AmdHost(CpuModel.IntelSkylake);
        host.Load().Raw.Should().Be(-(long)Errno.EOPNOTSUPP);
        host.Dmesg.Should().Contain("has_svm: not amd or hygon");
    }

    /// <summary>Old kernels looked at the highest extended leaf first; 6.1 no longer does.</summary>
    [Theory]
    [InlineData(KernelProfile.Legacy, "has_svm: can't execute cpuid_8000000a")]
    [InlineData(KernelProfile.Linux61, null)]
    [Trait("Seed", "S2-5")]
    public void The_extended_level_counts_in_the_legacy_profile_only(KernelProfile profile, string? message)
    {
        CpuModel model = CpuModel.AmdZen.With(cpuid: (leaf, subleaf, data) => leaf == 0x80000000 ? data with { Eax = 0x80000008 } : data);
        using var host = new AmdHost(model, profile: profile);
        long result = host.Load().Raw;
        if (message is null)
        {
            host.Dmesg.Should().NotContain(l => l.StartsWith("has_svm", StringComparison.Ordinal));
            return;
        }

        result.Should().Be(-(long)Errno.EOPNOTSUPP);
        host.Dmesg.Should().Contain(message);
    }

    [Fact]
    [Trait("Seed", "S2-6")]
    [Trait("Seed", "S2-9")]
    [Trait("Seed", "S2-10")]
    [Trait("Seed", "S2-16")]
    public void Features_are_bits_of_these_leaves()
    {
        SvmConst.SVM_CPUID_FUNC.Should().Be(0x8000000a);
        ((int)X86Feature.SVM).Should().Be(6 * 32 + 2);
        ((int)X86Feature.SVML).Should().Be(15 * 32 + 2);
        using var with = new AmdHost(CpuModel.AmdZen.WithCpuid(0x8000000a, 0, new CpuidLeaf(0, 0, 0, 1 << 2)));
        with.X86.BootCpuHas(X86Feature.SVM).Should().BeTrue();
        with.X86.BootCpuHas(X86Feature.SVML).Should().BeTrue();
        with.X86.BootCpuData.Has(X86Feature.SVM).Should().Be(with.X86.BootCpuHas(X86Feature.SVM));
        using var without = new AmdHost(WithoutSvm.WithCpuid(0x8000000a, 0, default, new CpuidLeaf(0, 0, 0, 1 << 2)));
        without.X86.BootCpuHas(X86Feature.SVM).Should().BeFalse();
        without.X86.BootCpuHas(X86Feature.SVML).Should().BeFalse();
    }

    /// <summary>KVM looks at SVMDIS alone: neither the lock (a BIOS that did not open it) nor the key (SVML) changes its answer.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    [Trait("Seed", "S2-13")]
    [Trait("Seed", "S2-14")]
    [Trait("Seed", "S2-15")]
    [Trait("Seed", "S2-17")]
    [Trait("Seed", "S2-18")]
    [Trait("Seed", "S2-19")]
    public void A_BIOS_that_disabled_SVM_is_obeyed(bool keyLock)
    {
        CpuModel model = CpuModel.AmdZen.WithCpuid(0x8000000a, 0, new CpuidLeaf(0, 0, 0, keyLock ? 1u << 2 : 0), new CpuidLeaf(0, 0, 0, keyLock ? 0 : 1u << 2));
        using var host = new AmdHost(model, bios: BiosSettings.VirtualizationDisabled);
        host.OnCpu(0, c => (c.Rdmsr(MsrVmCr) & SvmDisable).Should().Be(SvmDisable));
        host.Load().Raw.Should().Be(-(long)Errno.EOPNOTSUPP);
        host.Dmesg.Should().Contain("kvm: support for 'kvm_amd' disabled by bios");
        host.Msrs.Should().NotContain(m => m.Write && m.Index == MsrVmCr, "KVM never tries to undo it");

        using var open = new AmdHost();
        open.OnCpu(0, c => (c.Rdmsr(MsrVmCr) & SvmDisable).Should().Be(0));
        open.Load().Raw.Should().Be(0);
    }
}
