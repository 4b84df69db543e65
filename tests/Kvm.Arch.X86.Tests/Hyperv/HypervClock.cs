using Iced.Intel;
using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Hyperv;

/// <summary>The time reference counter and the reference TSC page.</summary>
public unsafe class HypervClock
{
    private const uint TimeRefCount = 0x40000020, ReferenceTsc = 0x40000021, TscEmulationControl = 0x40000107;

    public static TheoryData<string> Vendors => ["amd", "intel"];

    private static uint Sequence(HypervGuest g) => *(uint*)(g.Memory + HypervGuest.TscPage);

    private static HvTscPageStatus Status(HypervGuest g) => g.Vcpu().Vm.Hyperv.TscPageStatus;

    /// <summary>Time by the page, as a guest computes it, between two reads of the MSR.</summary>
    private static void ReadThreeClocks(Assembler a)
    {
        HypervGuest.Rdmsr(a, TimeRefCount);
        a.mov(__qword_ptr[HypervGuest.Data], rax);
        a.rdtsc();
        a.shl(rdx, 32);
        a.or(rax, rdx);
        a.mul(__qword_ptr[HypervGuest.TscPage + 8]);
        a.add(rdx, __qword_ptr[HypervGuest.TscPage + 16]);
        a.mov(__qword_ptr[HypervGuest.Data + 8], rdx);
        HypervGuest.Rdmsr(a, TimeRefCount);
        a.mov(__qword_ptr[HypervGuest.Data + 16], rax);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void A_guest_reads_the_same_time_from_the_page_as_from_the_msr(string vendor)
    {
        using var g = new HypervGuest(vendor);
        g.Run(a =>
        {
            HypervGuest.Wrmsr(a, ReferenceTsc, HypervGuest.TscPage | 1);
            ReadThreeClocks(a);
        });
        Sequence(g).Should().Be(1);
        Status(g).Should().Be(HvTscPageStatus.HV_TSC_PAGE_SET);
        ulong before = g.At(HypervGuest.Data), page = g.At(HypervGuest.Data + 8), after = g.At(HypervGuest.Data + 16);
        page.Should().BeInRange(before, after);
        (after - before).Should().BeLessThan(10_000_000, "a second");

        // The counter counts from the VM's boot, as kvmclock does.
        kvm_clock_data clock;
        Guest.Ok(g.Host.Process.Ioctl(g.Host.VmFd, KVM_GET_CLOCK, (ulong)&clock));
        ((long)(clock.clock / 100) - (long)g.GetMsr(TimeRefCount)!.Value).Should().BeInRange(-10_000_000, 10_000);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void A_change_of_the_clock_writes_the_page_anew(string vendor)
    {
        using var g = new HypervGuest(vendor);
        g.Run(a => HypervGuest.Wrmsr(a, ReferenceTsc, HypervGuest.TscPage | 1));
        ulong offset = g.At(HypervGuest.TscPage + 16), scale = g.At(HypervGuest.TscPage + 8);

        var clock = new kvm_clock_data { clock = 3_600_000_000_000 };
        Guest.Ok(g.Host.Process.Ioctl(g.Host.VmFd, KVM_SET_CLOCK, (ulong)&clock));
        Status(g).Should().Be(HvTscPageStatus.HV_TSC_PAGE_HOST_CHANGED);
        g.GetMsr(TimeRefCount).Should().BeInRange(36_000_000_000, 36_600_000_000);
        g.Run(ReadThreeClocks);
        Sequence(g).Should().Be(2);
        g.At(HypervGuest.TscPage + 8).Should().Be(scale);
        (g.At(HypervGuest.TscPage + 16) - offset).Should().BeInRange(35_000_000_000, 36_000_000_000);
        g.At(HypervGuest.Data + 8).Should().BeInRange(g.At(HypervGuest.Data), g.At(HypervGuest.Data + 16));
    }

    [Fact]
    public void The_sequence_leaves_out_0_and_all_ones()
    {
        using var g = new HypervGuest("amd");
        *(uint*)(g.Memory + HypervGuest.TscPage) = uint.MaxValue - 1;
        g.Run(a => HypervGuest.Wrmsr(a, ReferenceTsc, HypervGuest.TscPage | 1));
        Sequence(g).Should().Be(1);
    }

    [Fact]
    public void Without_memory_the_page_is_broken_and_the_msr_counts_on()
    {
        using var g = new HypervGuest("amd");
        g.Run(a =>
        {
            HypervGuest.Wrmsr(a, ReferenceTsc, (1ul << 40) | 1);
            HypervGuest.Rdmsr(a, ReferenceTsc);
        });
        g.Rax.Should().Be((1ul << 40) | 1);
        Status(g).Should().Be(HvTscPageStatus.HV_TSC_PAGE_BROKEN);
        g.GetMsr(TimeRefCount).Should().BeGreaterThan(0);
        g.Run(a => HypervGuest.Wrmsr(a, ReferenceTsc, 0));
        Status(g).Should().Be(HvTscPageStatus.HV_TSC_PAGE_UNSET);
    }

    /// <summary>The values of a migrated page stay while the guest has TSC emulation on.</summary>
    [Fact]
    public void A_migrated_page_stays_until_the_guest_ends_the_emulation()
    {
        using var g = new HypervGuest("amd");
        *(uint*)(g.Memory + HypervGuest.TscPage) = 7;
        *(ulong*)(g.Memory + HypervGuest.TscPage + 8) = 1ul << 60;
        *(ulong*)(g.Memory + HypervGuest.TscPage + 16) = 1234;
        g.SetMsr(TscEmulationControl, 1).Should().BeTrue();
        g.SetMsr(ReferenceTsc, HypervGuest.TscPage | 1).Should().BeTrue();
        Status(g).Should().Be(HvTscPageStatus.HV_TSC_PAGE_HOST_CHANGED);
        g.Run(a => a.nop());
        Sequence(g).Should().Be(7);
        g.At(HypervGuest.TscPage + 16).Should().Be(1234);
        Status(g).Should().Be(HvTscPageStatus.HV_TSC_PAGE_SET);

        // The guest's own write of the MSR begins anew.
        g.Run(a => HypervGuest.Wrmsr(a, ReferenceTsc, HypervGuest.TscPage | 1));
        Sequence(g).Should().Be(8);
        g.At(HypervGuest.TscPage + 16).Should().NotBe(1234);
    }
}
