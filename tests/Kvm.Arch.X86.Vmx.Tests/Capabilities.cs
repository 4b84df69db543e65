using System.Reflection;
using Kvm.Abi;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx.Tests;

/// <summary>What kvm_intel finds out about the processor, and which module parameters follow from it.</summary>
public sealed class Capabilities
{
    [Fact]
    [Trait("Seed", "S1-1")]
    public void VMX_features_are_five_words() => new CpuInfoX86().VmxCapability.Should().HaveCount(5);

    [Fact]
    [Trait("Seed", "S1-2")]
    public void Numbers_of_the_control_MSRs()
    {
        MsrIndex.MSR_IA32_VMX_PINBASED_CTLS.Should().Be(0x481);
        MsrIndex.MSR_IA32_VMX_PROCBASED_CTLS.Should().Be(0x482);
        MsrIndex.MSR_IA32_VMX_PROCBASED_CTLS2.Should().Be(0x48b);
    }

    [Fact]
    [Trait("Seed", "S1-3")]
    public void One_boot_cpu_data_describes_what_all_processors_have()
    {
        using var host = new IntelHost();
        host.HostX86.BootCpuData.Should().BeSameAs(host.HostX86.BootCpuData);
        host.HostX86.BootCpuHas(X86Feature.VMX).Should().BeTrue();
    }

    [Fact]
    [Trait("Seed", "S1-5")]
    public void Feature_words_are_filled_only_when_firmware_allows_VMX()
    {
        using var allowed = new IntelHost();
        allowed.HostX86.BootCpuData.VmxCapability.Should().Contain(static w => w != 0);
        using var locked = new IntelHost(bios: static _ => BiosSettings.VirtualizationDisabled);
        locked.HostX86.BootCpuData.VmxCapability.Should().OnlyContain(static w => w == 0);
    }

    [Fact]
    [Trait("Seed", "S1-7")]
    public void Two_objects_describe_the_capability()
    {
        using IntelHost host = IntelHost.Loaded();
        host.Vmx.VmcsConfig.CpuBasedExecCtrl.Should().NotBe(0);
        host.Vmx.VmxCapability.Ept.Should().NotBe(0);
    }

    [Fact]
    [Trait("Seed", "S1-8")]
    public void Fields_of_vmcs_config_in_order()
    {
        typeof(VmcsConfiguration).GetFields(BindingFlags.Public | BindingFlags.Instance).Select(static f => f.Name).Should().Equal("Size", "BasicCap", "RevisionId",
            "PinBasedExecCtrl", "CpuBasedExecCtrl", "CpuBased2ndExecCtrl", "CpuBased3rdExecCtrl", "VmexitCtrl", "VmentryCtrl", "Misc", "Nested");
    }

    [Fact]
    [Trait("Seed", "S1-9")]
    [Trait("Seed", "S1-10")]
    public void vmx_capability_is_the_two_halves_of_MSR_0x48c()
    {
        using IntelHost host = IntelHost.Loaded();
        ulong msr = CpuModel.Load("bochs-skylake-x").Msrs[0x48c];
        host.Vmx.VmxCapability.Ept.Should().Be((uint)msr);
        host.Vmx.VmxCapability.Vpid.Should().Be((uint)(msr >> 32));
    }

    [Fact]
    [Trait("Seed", "S1-13")]
    [Trait("Seed", "S1-15")]
    public void Setup_reads_the_basic_MSR_after_the_checks_of_the_vendor_module()
    {
        using var host = new IntelHost();
        using Core.Tracing.FunctionTraceSession trace = Core.Tracing.FunctionTrace.Start(host.Host);
        InstructionLog log = InstructionLog.On(host);
        host.Load().Should().Be((KvmResult)0);
        string[] functions = [.. trace.Flatten().Select(static f => f.Name)];
        functions.Should().ContainInOrder("vmx_init", "kvm_x86_vendor_init", "vmx_setup_l1d_flush", "kvm_init", "kvm_arch_hardware_setup", "hardware_setup", "setup_vmcs_config");
        log.Take().Should().Contain(static i => i.Mnemonic == "RDMSR" && i.Operand == 0x480);
        ulong basic = CpuModel.Load("bochs-skylake-x").Msrs[0x480];
        host.Vmx.VmcsConfig.RevisionId.Should().Be((uint)basic);
        host.Vmx.VmcsConfig.Size.Should().Be((int)(basic >> 32 & 0x1fff));
    }

    [Fact]
    [Trait("Seed", "S4-44")]
    public void The_hooks_are_all_there() => typeof(IKvmX86InitOps).IsAssignableFrom(typeof(KvmIntel)).Should().BeTrue();

    [Fact]
    public void Processors_that_differ_are_refused()
    {
        CpuModel other = CpuModel.Load("bochs-skylake-x");
        // One more control is allowed: MONITOR-trap flag off.
        ulong procbased = other.Msrs[0x482] & ~(1ul << (32 + 27));
        other = other.With(msrs: new Dictionary<uint, ulong?> { [0x482] = procbased, [0x48e] = null });
        CpuModel without = CpuModel.Load("bochs-skylake-x").With(msrs: new Dictionary<uint, ulong?> { [0x48b] = CpuModel.Load("bochs-skylake-x").Msrs[0x48b] & ~(1ul << (32 + 3)) });
        using var host = new IntelHost(models: cpu => cpu == 0 ? CpuModel.Load("bochs-skylake-x") : without);
        long pages = host.Host.Pages.InUse;
        host.Load().Should().Be((KvmResult)Errno.EIO);
        host.Dmesg.Should().Contain(static l => l.EndsWith("kvm: CPU 1 feature inconsistency!", StringComparison.Ordinal));
        host.Host.Pages.InUse.Should().Be(pages);
    }

    [Theory]
    [InlineData(0x481u, 0x01ul)] // external-interrupt exiting
    [InlineData(0x482u, 0x80ul)] // HLT exiting
    [InlineData(0x482u, 0x80000000ul)] // secondary controls: optional, but EPT etc. go with it
    [InlineData(0x483u, 0x200ul)] // host address-space size
    public void A_missing_required_control_is_EIO_an_optional_one_is_not(uint msr, ulong allowed1)
    {
        CpuModel model = CpuModel.Load("bochs-skylake-x");
        var msrs = new Dictionary<uint, ulong?> { [msr] = model.Msrs[msr] & ~(allowed1 << 32) };
        if (allowed1 == 0x80000000)
            msrs[0x48c] = null;
        model = model.With(msrs: msrs);
        using var host = new IntelHost(model);
        KvmResult r = host.Load();
        if (allowed1 == 0x80000000)
        {
            r.Should().Be((KvmResult)0);
            host.Vmx.EnableEpt.Should().BeFalse();
            host.Vmx.EnableVpid.Should().BeFalse();
        }
        else
        {
            r.Should().Be((KvmResult)Errno.EIO);
        }
    }

    [Fact]
    public void EPT_capabilities_without_the_control_are_inconsistent()
    {
        CpuModel model = CpuModel.Load("bochs-skylake-x");
        model = model.With(msrs: new Dictionary<uint, ulong?> { [0x482] = model.Msrs[0x482] & ~(0x80000000ul << 32) });
        using var host = new IntelHost(model);
        host.Load().Should().Be((KvmResult)Errno.EIO);
        host.Dmesg.Should().Contain(static l => l.EndsWith("EPT CAP should not exist if not support 1-setting enable EPT VM-execution control", StringComparison.Ordinal));
        host.Load("error_on_inconsistent_vmcs_config=0").Should().Be((KvmResult)0);
        host.Vmx.VmxCapability.Ept.Should().Be(0);
    }

    [Fact]
    [Trait("Seed", "S4-121")]
    public void Without_EPT_what_builds_on_it_is_off()
    {
        using IntelHost host = IntelHost.Loaded("ept=0");
        host.Vmx.EnableEpt.Should().BeFalse();
        host.Vmx.EnableUnrestrictedGuest.Should().BeFalse();
        host.Vmx.EnableEptAdBits.Should().BeFalse();
        host.Vmx.EnablePml.Should().BeFalse();
        Parameter(host, "ept").Should().Be("N");
        Parameter(host, "unrestricted_guest").Should().Be("N");
        Parameter(host, "eptad").Should().Be("N");
        Parameter(host, "pml").Should().Be("N");
    }

    [Theory]
    [Trait("Seed", "S4-122")]
    [InlineData("", true)]
    [InlineData("ept=0", false)]
    [InlineData("eptad=0", false)]
    [InlineData("pml=0", false)]
    public void PML_needs_EPT_with_accessed_and_dirty_bits(string parameters, bool pml)
    {
        using IntelHost host = IntelHost.Loaded(parameters);
        host.Vmx.EnablePml.Should().Be(pml);
    }

    /// <summary>Names, defaults and modes as a real host showed them; its nested virtualization is on by default, and it had no preemption timer.</summary>
    [Fact]
    [Trait("Seed", "S4-120")]
    public void Parameters_are_those_of_the_real_module()
    {
        using IntelHost host = IntelHost.Loaded();
        List<string> expected = [.. RecordedConsole.Lines("parameters")];
        expected[expected.FindIndex(static l => l.StartsWith("nested ", StringComparison.Ordinal))] = "nested = N  mode 444";
        expected[expected.FindIndex(static l => l.StartsWith("preemption_timer ", StringComparison.Ordinal))] = "preemption_timer = Y  mode 444";
        host.Vmx.Parameters.All.OrderBy(static p => p.Name, StringComparer.Ordinal).Select(static p => $"{p.Name} = {p.Text}  mode {Convert.ToString(p.Mode, 8)}")
            .Should().Equal(expected);
    }

    [Fact]
    public void The_controls_of_the_recorded_processor_are_the_recorded_ones()
    {
        using IntelHost host = IntelHost.Loaded("nested=1");
        VmcsConfiguration c = host.Vmx.VmcsConfig;
        c.PinBasedExecCtrl.Should().Be(0xff);
        (c.VmexitCtrl & VM_EXIT_HOST_ADDR_SPACE_SIZE).Should().NotBe(0);
        (c.CpuBased2ndExecCtrl & SECONDARY_EXEC_ENABLE_EPT).Should().NotBe(0);
    }

    [Fact]
    public void Unloading_gives_everything_back()
    {
        using var host = new IntelHost();
        long pages = host.Host.Pages.InUse;
        host.Load("nested=1").Should().Be((KvmResult)0);
        host.Host.Pages.InUse.Should().BeGreaterThan(pages);
        host.Host.Modules.Remove("kvm_intel").Should().Be((KvmResult)0);
        host.Host.Pages.InUse.Should().Be(pages);
    }

    [Theory]
    [InlineData("alloc_page:alloc_vmcs_cpu", 1)]
    [InlineData("alloc_page:alloc_vmcs_cpu", 2)]
    [InlineData("alloc_page:nested_vmx_hardware_setup", 1)]
    [InlineData("alloc_page:nested_vmx_hardware_setup", 2)]
    public void Loading_without_memory_is_ENOMEM_and_leaves_nothing_behind(string point, int nth)
    {
        using var host = new IntelHost();
        long pages = host.Host.Pages.InUse;
        host.Host.Faults.Fail(point, nth);
        host.Load("nested=1").Should().Be((KvmResult)Errno.ENOMEM);
        host.Host.Pages.InUse.Should().Be(pages, string.Join(", ", host.Host.Pages.InUseByTag));
        host.Process.Open("/dev/kvm").Errno.Should().Be(Errno.ENOENT);
        host.Load("nested=1").Should().Be((KvmResult)0, "the next attempt has memory");
    }

    private static string Parameter(IntelHost host, string name) => host.Vmx.Parameters.Find(name)!.Text;
}
