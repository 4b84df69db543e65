using System.Globalization;
using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;

namespace Kvm.Arch.X86.Svm.Tests;

/// <summary>insmod kvm_amd: the checks in their order, what it prints, what it refuses, and that it gives everything back.</summary>
public sealed class ModuleLoad
{
    private const ulong svmDisable = 1 << 4;
    private static readonly CpuModel withoutSvm = AmdHost.Recorded.WithCpuid(0x80000001, 0, default, new CpuidLeaf(0, 0, 1 << 2, 0));

    [Fact]
    [Trait("Seed", "S2-1")]
    public void Support_is_checked_at_load_and_enabled_by_the_first_VM()
    {
        using AmdHost host = AmdHost.Loaded();
        host.Log.Take().Should().NotContain(static i => i.Mnemonic == "WRMSR" && i.Operand == MsrIndex.MSR_EFER);
        host.CreateVm();
        host.Log.Take().Where(static i => i.Mnemonic == "WRMSR" && i.Operand == MsrIndex.MSR_EFER).Select(static i => i.Cpu).Should().BeEquivalentTo([0, 1]);
    }

    [Fact]
    [Trait("Seed", "S2-2")]
    public void Checks_in_order()
    {
        using var host = new AmdHost();
        using FunctionTraceSession trace = FunctionTrace.Start(host.Host);
        host.Load().Should().Be((KvmResult)0);
        string[] functions = [.. trace.Flatten().Select(static f => f.Name)];
        functions.Should().ContainInOrder("svm_init", "kvm_x86_vendor_init", "has_svm", "is_disabled", "kvm_init", "kvm_arch_hardware_setup", "svm_hardware_setup");
    }

    [Fact]
    [Trait("Seed", "S2-8")]
    [Trait("Seed", "S2-10")]
    public void A_processor_with_SVM_passes()
    {
        using var host = new AmdHost();
        host.HostX86.BootCpuHas(X86Feature.SVM).Should().BeTrue();
        host.HostX86.BootCpuData.Has(X86Feature.SVM).Should().BeTrue();
        host.Load().Should().Be((KvmResult)0);
        host.Amd.CpuHasKvmSupport().Should().BeTrue();
        host.Dmesg.Should().NotContain(static l => l.StartsWith("has_svm", StringComparison.Ordinal));
    }

    [Fact]
    [Trait("Seed", "S2-3")]
    [Trait("Seed", "S2-4")]
    public void Another_vendor_is_not_amd_or_hygon()
    {
        using var host = new AmdHost(CpuModel.Load("bochs-skylake-x"));
        Refused(host, "has_svm: not amd or hygon", "kvm: no hardware support for 'kvm_amd'");
    }

    [Fact]
    [Trait("Seed", "S2-7")]
    [Trait("Seed", "S2-12")]
    public void No_SVM_in_CPUID()
    {
        using var host = new AmdHost(withoutSvm);
        Refused(host, "has_svm: svm not available", "kvm: no hardware support for 'kvm_amd'");
    }

    [Theory]
    [Trait("Seed", "S2-5")]
    [InlineData(KernelProfile.Legacy, "has_svm: can't execute cpuid_8000000a")]
    [InlineData(KernelProfile.Linux61, "has_svm: svm not available")]
    public void The_extended_level_is_looked_at_by_old_kernels_only(KernelProfile profile, string reason)
    {
        CpuModel model = withoutSvm.With(cpuid: static (leaf, _, d) => leaf == 0x80000000 ? d with { Eax = 0x80000008 } : d);
        using var host = new AmdHost(model, profile: profile);
        Refused(host, reason);
    }

    [Fact]
    [Trait("Seed", "S2-6")]
    public void The_leaf_of_SVM() => SvmConst.SVM_CPUID_FUNC.Should().Be(0x8000000a);

    [Fact]
    [Trait("Seed", "S2-9")]
    [Trait("Seed", "S2-16")]
    public void Feature_bits()
    {
        ((int)X86Feature.SVM).Should().Be((6 * 32) + 2);
        ((int)X86Feature.SVML).Should().Be((15 * 32) + 2);
    }

    [Fact]
    [Trait("Seed", "S2-13")]
    public void VM_CR()
    {
        MsrIndex.MSR_VM_CR.Should().Be(0xc0010114);
        SvmConst.SVM_VM_CR_SVM_DISABLE.Should().Be(4);
    }

    [Fact]
    [Trait("Seed", "S2-14")]
    public void Firmware_disabled_it()
    {
        using var host = new AmdHost(bios: static _ => new BiosSettings { VmCr = svmDisable });
        Refused(host, "kvm: support for 'kvm_amd' disabled by bios");
        host.Log.Take().Should().Contain(static i => i.Mnemonic == "RDMSR" && i.Operand == MsrIndex.MSR_VM_CR && i.Value == svmDisable);
    }

    [Fact]
    [Trait("Seed", "S2-15")]
    public void The_bit_is_zero_when_SVM_is_not_disabled()
    {
        using AmdHost host = AmdHost.Loaded();
        (host.ReadMsr(0, MsrIndex.MSR_VM_CR) & svmDisable).Should().Be(0);
    }

    /// <summary>With the lock feature (SVML) a key could unlock it, without it nothing could: KVM does not look, and refuses both.</summary>
    [Theory]
    [Trait("Seed", "S2-17")]
    [Trait("Seed", "S2-18")]
    [Trait("Seed", "S2-19")]
    [InlineData(false)]
    [InlineData(true)]
    public void Whether_it_could_be_unlocked_does_not_matter(bool svml)
    {
        CpuidLeaf bit = new(0, 0, 0, 1 << 2);
        CpuModel model = svml ? AmdHost.Recorded.WithCpuid(0x8000000a, 0, bit) : AmdHost.Recorded;
        using var host = new AmdHost(model, bios: static _ => BiosSettings.VirtualizationDisabled);
        host.HostX86.BootCpuHas(X86Feature.SVML).Should().Be(svml);
        Refused(host, "kvm: support for 'kvm_amd' disabled by bios");
        host.Log.Take().Should().NotContain(static i => i.Mnemonic == "WRMSR" && (i.Operand == MsrIndex.MSR_VM_CR || i.Operand == 0xc0010118));
    }

    [Fact]
    public void NX_is_needed()
    {
        using var host = new AmdHost(AmdHost.Recorded.WithCpuid(0x80000001, 0, default, new CpuidLeaf(0, 0, 0, 1 << 20)));
        host.Load().Should().Be((KvmResult)Errno.EOPNOTSUPP);
        host.Dmesg.Should().Contain("SVM: NX (Execute Disable) not supported");
    }

    /// <summary>Every load of the recorded host: result, messages, and the parameters that followed from what its processor can do.</summary>
    [Fact]
    public void Loads_as_recorded()
    {
        string[] lines = File.ReadAllLines(Path.Combine(AppContext.BaseDirectory, "Data", "amd-host.txt"));
        int compared = 0;
        for (int i = 0; i < lines.Length; i++)
        {
            const string insmod = "$ insmod /lib/kvm/kvm-amd.ko";
            if (!lines[i].StartsWith(insmod, StringComparison.Ordinal) || !lines[i + 1].Equals("  -> rc 0", StringComparison.Ordinal))
                continue;
            string[] dmesg = [.. lines.Skip(i + 2).TakeWhile(static l => l.StartsWith("    dmesg: ", StringComparison.Ordinal)).Select(static l => l[11..])];
            using AmdHost host = new();
            int before = host.Dmesg.Count();
            string parameters = lines[i][insmod.Length..].Trim();
            host.Load(parameters).Should().Be((KvmResult)0, lines[i]);
            host.Dmesg.Skip(before).Should().Equal(dmesg, lines[i]);
            string after = lines[i + 2 + dmesg.Length];
            if (after.StartsWith(" avic=", StringComparison.Ordinal))
            {
                string.Concat(host.Amd.Parameters.All.OrderBy(static p => p.Name, StringComparer.Ordinal).Where(p => after.Contains($" {p.Name}=", StringComparison.Ordinal))
                    .Select(static p => $" {p.Name}={p.Text}")).Should().Be(after, lines[i]);
                compared++;
            }
        }

        compared.Should().Be(10);
    }

    [Fact]
    public void A_processor_with_more_features_reports_them()
    {
        using AmdHost host = AmdHost.Loaded(model: CpuModel.AmdZen);
        uint features = CpuModel.AmdZen.SvmFeatures;
        Says("SVM: LBR virtualization supported", features, 1);
        Says("SVM: Virtual VMLOAD VMSAVE supported", features, 15);
        Says("SVM: Virtual GIF supported", features, 16);
        Says("SVM: TSC scaling supported", features, 4);
        void Says(string message, uint of, int bit) => host.Dmesg.Contains(message).Should().Be((of >> bit & 1) != 0, message);
    }

    [Fact]
    public void Unloading_gives_everything_back()
    {
        using var host = new AmdHost();
        long pages = host.Host.Pages.InUse;
        host.Load().Should().Be((KvmResult)0);
        host.Host.Pages.InUse.Should().BeGreaterThan(pages);
        host.Host.Modules.Remove("kvm_amd").Should().Be((KvmResult)0);
        host.Host.Pages.InUse.Should().Be(pages);
    }

    [Theory]
    [InlineData("alloc_page:svm_hardware_setup", 1)]
    [InlineData("alloc_page:svm_cpu_init", 1)]
    [InlineData("alloc_page:svm_cpu_init", 2)]
    public void Loading_without_memory_is_ENOMEM_and_leaves_nothing_behind(string point, int nth)
    {
        using var host = new AmdHost();
        long pages = host.Host.Pages.InUse;
        host.Host.Faults.Fail(point, nth);
        host.Load().Should().Be((KvmResult)Errno.ENOMEM);
        host.Host.Pages.InUse.Should().Be(pages, string.Join(", ", host.Host.Pages.InUseByTag));
        host.Process.Open("/dev/kvm").Errno.Should().Be(Errno.ENOENT);
        host.Load().Should().Be((KvmResult)0, "the next attempt has memory");
    }

    private static void Refused(AmdHost host, params string[] messages)
    {
        long pages = host.Host.Pages.InUse;
        host.Load().Should().Be((KvmResult)Errno.EOPNOTSUPP, string.Create(CultureInfo.InvariantCulture, $"{messages[0]}"));
        foreach (string message in messages)
            host.Dmesg.Should().Contain(message);
        host.Process.Open("/dev/kvm").Errno.Should().Be(Errno.ENOENT);
        host.Host.Pages.InUse.Should().Be(pages);
    }
}
