using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Hyperv;

/// <summary>Who may read and write the Hyper-V MSRs (hyperv.c:kvm_hv_set_msr_common, kvm_hv_get_msr_common).</summary>
public unsafe class HypervMsrs
{
    private const uint GuestOsId = 0x40000000, Hypercall = 0x40000001, VpIndex = 0x40000002, Reset = 0x40000003, VpRuntime = 0x40000010, TimeRefCount = 0x40000020,
        ReferenceTsc = 0x40000021, TscFrequency = 0x40000022, ApicFrequency = 0x40000023, Eoi = 0x40000070, Tpr = 0x40000072, VpAssistPage = 0x40000073, Scontrol = 0x40000080,
        Sversion = 0x40000081, Simp = 0x40000083, Eom = 0x40000084, Sint0 = 0x40000090, Sint15 = 0x4000009f, Stimer0Config = 0x400000b0, Stimer0Count = 0x400000b1,
        SyndbgControl = 0x400000f1, SyndbgOptions = 0x400000ff, CrashP0 = 0x40000100, CrashP4 = 0x40000104, CrashCtl = 0x40000105, Reenlightenment = 0x40000106,
        TscEmulationControl = 0x40000107, TscEmulationStatus = 0x40000108;

    public static TheoryData<string> Vendors => ["amd", "intel"];

    /// <summary>An MSR and the bit of HYPERV_CPUID_FEATURES that announces it: EAX, or EDX from 32 up.</summary>
    public static TheoryData<uint, int> Announced => new()
    {
        { GuestOsId, 5 }, { Hypercall, 5 }, { VpRuntime, 0 }, { TimeRefCount, 1 }, { VpIndex, 6 }, { Reset, 7 }, { ReferenceTsc, 9 }, { Scontrol, 2 }, { Simp, 2 }, { Sint0, 2 }, { Sint15, 2 },
        { Stimer0Config, 3 }, { 0x400000b7, 3 }, { Tpr, 4 }, { VpAssistPage, 4 }, { TscFrequency, 11 }, { ApicFrequency, 11 }, { Reenlightenment, 13 }, { TscEmulationControl, 13 },
        { TscEmulationStatus, 13 }, { CrashP0, 32 + 10 }, { CrashP4, 32 + 10 }, { CrashCtl, 32 + 10 }, { SyndbgControl, 32 + 11 }, { SyndbgOptions, 32 + 11 },
    };

    private static kvm_cpuid_entry2 Only(kvm_cpuid_entry2 e, ulong bits)
    {
        if (e.function == 0x40000003)
            (e.eax, e.edx) = ((uint)bits, (uint)(bits >> 32));
        return e;
    }

    [Theory, MemberData(nameof(Announced))]
    public void With_enforced_cpuid_an_msr_needs_its_feature(uint msr, int bit)
    {
        using (var with = new HypervGuest("amd", leaves: e => Only(e, 1ul << bit)))
        {
            with.EnableCap(KVM_CAP_HYPERV_ENFORCE_CPUID, argument: 1).Raw.Should().Be(0);
            with.GuestGetMsr(msr).Should().BeTrue();
        }

        using var without = new HypervGuest("amd", leaves: e => Only(e, ~(1ul << bit)));
        without.GuestGetMsr(msr).Should().BeTrue("nothing is enforced yet");
        without.EnableCap(KVM_CAP_HYPERV_ENFORCE_CPUID, argument: 1).Raw.Should().Be(0);
        without.GuestGetMsr(msr).Should().BeFalse();
        without.GuestSetMsr(msr, 0).Should().BeFalse();
        without.GetMsr(msr).Should().NotBeNull("userspace may always");
        without.EnableCap(KVM_CAP_HYPERV_ENFORCE_CPUID).Raw.Should().Be(0);
        without.GuestGetMsr(msr).Should().BeTrue();
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Without_the_interface_in_cpuid_the_guest_faults_and_userspace_does_not(string vendor)
    {
        using var g = new Guest(vendor, irqchip: true);
        g.OnVcpu(v => v.GetMsr(GuestOsId, out ulong _)).Should().NotBe(0);
        g.OnVcpu(v => v.SetMsr(GuestOsId, 1)).Should().NotBe(0);
        ulong* m = stackalloc ulong[3];
        (m[0], m[1], m[2]) = (1, GuestOsId, 7);
        Guest.Ok(g.VcpuIoctl(KVM_SET_MSRS, m)).Should().Be(1);
        Guest.Ok(g.VcpuIoctl(KVM_GET_MSRS, m)).Should().Be(1);
        m[2].Should().Be(7);
    }

    [Fact]
    public void Numbers_between_the_msrs_are_unknown()
    {
        using var g = new HypervGuest("amd");
        foreach (uint msr in new uint[] { 0x40000004, 0x40000024, 0x40000074, 0x40000085, 0x400000a0, 0x400000b8, 0x400000f0, 0x400000f6, 0x40000109, 0x40000118 })
        {
            g.GetMsr(msr).Should().BeNull($"{msr:x}");
            g.SetMsr(msr, 0).Should().BeFalse($"{msr:x}");
        }
    }

    [Fact]
    public void Read_only_ones_fault_in_the_guest_and_ignore_userspace()
    {
        using var g = new HypervGuest("amd");
        foreach (uint msr in new[] { TimeRefCount, TscFrequency, ApicFrequency })
        {
            g.GuestSetMsr(msr, 1).Should().BeFalse();
            g.SetMsr(msr, 1).Should().BeTrue();
        }

        g.GetMsr(TscFrequency).Should().Be(g.Vcpu().VirtualTscKhz * 1000ul);
        g.GetMsr(ApicFrequency).Should().Be(1_000_000_000);
        g.GuestSetMsr(Sversion, 1).Should().BeFalse();
        g.SetMsr(Sversion, 2).Should().BeTrue();
        g.GetMsr(Sversion).Should().Be(2);
        g.GuestSetMsr(VpRuntime, 0).Should().BeFalse();
        g.SetMsr(VpRuntime, 1ul << 40).Should().BeTrue();
        g.GetMsr(VpRuntime).Should().BeInRange(1ul << 40, (1ul << 40) + 600_000_000);
        g.GuestSetMsr(TscEmulationStatus, 1).Should().BeFalse();
        g.GuestSetMsr(TscEmulationStatus, 0).Should().BeTrue();
        g.SetMsr(TscEmulationStatus, 1).Should().BeTrue();
        g.GetMsr(TscEmulationStatus).Should().Be(1);
    }

    [Fact]
    public void Vp_index_is_set_by_userspace_and_below_the_number_of_vcpus()
    {
        using var g = new HypervGuest("amd", vcpus: 2);
        g.GetMsr(VpIndex).Should().Be(0);
        g.GetMsr(VpIndex, 1).Should().Be(1);
        g.GuestSetMsr(VpIndex, 3).Should().BeFalse();
        g.SetMsr(VpIndex, 1024).Should().BeFalse();
        g.SetMsr(VpIndex, 1023).Should().BeTrue();
        g.GetMsr(VpIndex).Should().Be(1023);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Without_the_synic_its_msrs_take_only_zeros_of_userspace(string vendor)
    {
        using var g = new HypervGuest(vendor, synic: false);
        foreach (uint msr in new[] { Scontrol, Simp, Eom, Sint0, Stimer0Config, Stimer0Count })
        {
            g.GuestSetMsr(msr, 0).Should().BeFalse();
            g.SetMsr(msr, 1).Should().BeFalse();
            g.SetMsr(msr, 0).Should().BeTrue();
            g.GetMsr(msr).Should().NotBeNull();
        }

        g.GuestGetMsr(Scontrol).Should().BeFalse();
        g.GuestGetMsr(Stimer0Config).Should().BeTrue();
        g.GetMsr(Scontrol).Should().Be(0);
        g.EnableCap(KVM_CAP_HYPERV_SYNIC).Raw.Should().Be(0);
        g.GetMsr(Scontrol).Should().Be(1);
        g.GetMsr(Sint15).Should().Be(0x10000, "masked");
        g.GuestGetMsr(Scontrol).Should().BeTrue();
        g.GuestSetMsr(Eom, 0).Should().BeTrue();
    }

    [Fact]
    public void A_sint_has_a_vector_from_16_up_unless_it_is_masked_or_userspace_writes()
    {
        using var g = new HypervGuest("amd");
        g.GuestSetMsr(Sint0, 15).Should().BeFalse();
        g.GuestSetMsr(Sint0, 16).Should().BeTrue();
        g.GuestSetMsr(Sint15, 0x10000).Should().BeTrue();
        g.SetMsr(Sint15, 0).Should().BeTrue();
        g.GetMsr(Sint15).Should().Be(0);
    }

    [Fact]
    public void Synic2_takes_no_argument_and_both_need_interrupt_controllers()
    {
        using (var g = new HypervGuest("amd", synic: false))
        {
            g.EnableCap(KVM_CAP_HYPERV_SYNIC2, argument: 1).Raw.Should().Be(-(long)Errno.EINVAL);
            g.EnableCap(KVM_CAP_HYPERV_SYNIC, argument: 1).Raw.Should().Be(0);
        }

        using var without = new HypervGuest("amd", irqchip: false);
        without.EnableCap(KVM_CAP_HYPERV_SYNIC).Raw.Should().Be(-(long)Errno.EINVAL);
        without.GuestGetMsr(Eoi).Should().BeFalse("there is no APIC in the kernel");
        without.GuestSetMsr(Tpr, 0x20).Should().BeFalse();
    }

    /// <summary>KVM_CAP_HYPERV_SYNIC zeroes a page that the guest places, SYNIC2 and userspace's write do not.</summary>
    [Theory, InlineData(KVM_CAP_HYPERV_SYNIC, true), InlineData(KVM_CAP_HYPERV_SYNIC2, false)]
    public void The_pages_of_the_synic(int cap, bool zeroed)
    {
        using var g = new HypervGuest("amd", synic: false);
        g.EnableCap(cap).Raw.Should().Be(0);
        ulong* word = (ulong*)(g.Memory + HypervGuest.MessagePage + 0xff8);
        *word = 5;
        g.SetMsr(Simp, HypervGuest.MessagePage | 1).Should().BeTrue();
        (*word).Should().Be(5);
        g.GuestSetMsr(Simp, HypervGuest.MessagePage | 1).Should().BeTrue();
        (*word).Should().Be(zeroed ? 0 : 5ul);
        g.GuestSetMsr(Simp, (1ul << 40) | 1).Should().Be(!zeroed, "no memory there");
    }

    [Fact]
    public void Tpr_and_icr_are_the_apics()
    {
        using var g = new HypervGuest("amd");
        g.GuestSetMsr(Tpr, 0x40).Should().BeTrue();
        g.GetMsr(Tpr).Should().Be(0x40);
        g.GuestSetMsr(Tpr, 1ul << 32).Should().BeFalse();
        g.GuestSetMsr(0x40000071, 0x40055).Should().BeTrue();
        g.GetMsr(0x40000071).Should().Be(0x40055);
        g.IsRequested(0, 0x55).Should().BeTrue("an IPI to itself");
        g.GuestGetMsr(Eoi).Should().BeFalse("EOI can't be read");
    }

    [Theory, MemberData(nameof(Vendors))]
    public void Supported_cpuid_of_a_vcpu_knows_its_apic(string vendor)
    {
        using var without = new Guest(vendor);
        using var with = new Guest(vendor, irqchip: true);
        foreach ((Guest g, int fd, bool apic) in new[] { (without, without.VcpuFd, false), (with, with.VcpuFd, true), (without, without.KvmFd, true) })
        {
            kvm_cpuid_entry2[] e = HypervGuest.SupportedHv(g, fd);
            (e[3].edx >> 19 & 1).Should().Be(apic ? 1u : 0, "direct mode of timers");
            (e[4].eax >> 10 & 1).Should().Be(apic ? 1u : 0, "cluster IPIs");
            e[5].eax.Should().Be(1024);
        }
    }

    /// <summary>Controls that the enlightened VMCS has no field for; PERF_GLOBAL_CTRL needs a CPUID bit of its own.</summary>
    [Theory, InlineData(true), InlineData(false)]
    public void With_the_enlightened_vmcs_the_guest_sees_fewer_vmx_controls(bool perfGlobalCtrl)
    {
        using var g = new HypervGuest("intel", parameters: "nested=1", leaves: e => e.function == 0x4000000a && !perfGlobalCtrl ? e with { ebx = 0 } : e);
        (uint Msr, ulong Gone)[] msrs =
        [
            (0x481, 1ul << 38 | 1ul << 39), (0x48d, 1ul << 38 | 1ul << 39), (0x483, 1ul << 54 | (perfGlobalCtrl ? 0 : 1ul << 44)), (0x48f, 1ul << 54 | (perfGlobalCtrl ? 0 : 1ul << 44)),
            (0x484, perfGlobalCtrl ? 0 : 1ul << 45), (0x490, perfGlobalCtrl ? 0 : 1ul << 45),
            (0x48b, 1ul << 32 | 1ul << 40 | 1ul << 41 | 1ul << 42 | 1ul << 45 | 1ul << 46 | 1ul << 49 | 1ul << 57), (0x491, 1),
        ];
        ulong Guest(uint msr)
        {
            ulong value = 0;
            g.Host.OnVcpu(v => v.GetMsr(msr, out value)).Should().Be(0);
            return value;
        }

        foreach ((uint msr, ulong _) in msrs)
            Guest(msr).Should().Be(g.GetMsr(msr)!.Value);
        ushort version = 0;
        g.EnableCap(KVM_CAP_HYPERV_ENLIGHTENED_VMCS, argument: (ulong)&version).Raw.Should().Be(0);
        foreach ((uint msr, ulong gone) in msrs)
            Guest(msr).Should().Be(g.GetMsr(msr)!.Value & ~gone, $"{msr:x}");
        (Guest(0x48f) >> 54 & 1).Should().Be(0);
        (g.GetMsr(0x48f)!.Value >> 54 & 1).Should().Be(1);
    }

    [Fact]
    public void The_enlightened_vmcs_is_announced_once_it_is_enabled()
    {
        using var g = new HypervGuest("intel", parameters: "nested=1");
        HypervGuest.SupportedHv(g.Host, g.Host.KvmFd)[9].eax.Should().Be(0x80101);
        HypervGuest.SupportedHv(g.Host, g.Host.VcpuFd)[9].eax.Should().Be(0x80000);
        ushort version = 0;
        g.EnableCap(KVM_CAP_HYPERV_ENLIGHTENED_VMCS, argument: (ulong)&version).Raw.Should().Be(0);
        version.Should().Be(0x101);
        HypervGuest.SupportedHv(g.Host, g.Host.VcpuFd)[9].eax.Should().Be(0x80101);
        (HypervGuest.SupportedHv(g.Host, g.Host.VcpuFd)[4].eax >> 14 & 1).Should().Be(1);

        using var plain = new HypervGuest("intel", parameters: "nested=0");
        HypervGuest.SupportedHv(plain.Host, plain.Host.KvmFd)[9].eax.Should().Be(0x80000);
        using var amd = new HypervGuest("amd");
        amd.EnableCap(KVM_CAP_HYPERV_ENLIGHTENED_VMCS).Raw.Should().Be(-(long)Errno.ENOTTY);
    }
}
