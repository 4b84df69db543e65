using Kvm.Abi;
using Kvm.Arch.X86;
using Kvm.Arch.X86.Svm;
using Kvm.Arch.X86.Tests;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Parameters;

/// <summary>What the parameters of kvm.ko change.</summary>
public sealed unsafe class KvmEffects
{
    private const uint unknownMsr = 0xdead;

    private static string[] Log(Guest g) => [.. g.Kernel.Host.Log.Lines];

    private static KvmResult Write(Guest g, string name, string text) => g.Kernel.Kvm.Parameters.Write(name, text);

    private static string Text(Guest g, string name) => g.Kernel.Kvm.Parameters.Find(name)!.Text;

    /// <summary>KVM_GET_MSRS of one MSR: how many were read, and the value.</summary>
    private static (int Read, ulong Value) ReadMsr(Guest g, uint index)
    {
        ulong* m = stackalloc ulong[] { 1, index, 0x1234 };
        return (Guest.Ok(g.VcpuIoctl(KVM_GET_MSRS, m)), m[2]);
    }

    [Fact]
    public void ignore_msrs_reads_zero_and_report_ignored_msrs_says_so_ten_times_in_five_seconds()
    {
        using var g = new Guest();
        ReadMsr(g, unknownMsr).Read.Should().Be(0);
        Write(g, "ignore_msrs", "Y").Should().Be((KvmResult)0);
        ReadMsr(g, unknownMsr).Should().Be((1, 0ul));
        Log(g)[^1].Should().EndWith("]: ignored rdmsr: 0xdead data 0x0");
        int lines = Log(g).Length;
        for (int i = 0; i < 30; i++)
            ReadMsr(g, unknownMsr);
        Log(g).Length.Should().BeInRange(lines + 9, lines + 20);
        Write(g, "report_ignored_msrs", "0").Should().Be((KvmResult)0);
        lines = Log(g).Length;
        ReadMsr(g, unknownMsr).Should().Be((1, 0ul));
        Log(g).Length.Should().Be(lines);
    }

    private static void SetApic(Guest g, int vcpu, params (int Register, uint Value)[] registers)
    {
        byte* state = stackalloc byte[1024];
        Guest.Ok(g.Process.Ioctl(vcpu, KVM_GET_LAPIC, (ulong)state));
        foreach ((int register, uint value) in registers)
            *(uint*)(state + register) = value;
        Guest.Ok(g.Process.Ioctl(vcpu, KVM_SET_LAPIC, (ulong)state));
    }

    [Theory]
    [InlineData("", 200_000)]
    [InlineData("min_timer_period_us=500", 500_000)]
    [InlineData("min_timer_period_us=0", 0)]
    public void min_timer_period_us_bounds_the_period_of_the_apic_timer(string parameters, int ns)
    {
        using var g = new Guest(kvmParameters: parameters, irqchip: true);
        g.Vcpu.Apic!.TimerModeMask = 1 << 17; // as KVM_SET_CPUID2 does
        for (int i = 0; i < 20; i++)
            SetApic(g, g.VcpuFd, (0xf0, 0x1ff), (0x320, 0x20000 | 0x10000 | 0x40), (0x3e0, 0xb), (0x380, 100_000));
        string line = $"kvm: vcpu 0: requested 100000 ns lapic timer period limited to {ns} ns";
        Log(g).Count(l => l == line).Should().BeInRange(ns == 0 ? 0 : 10, ns == 0 ? 0 : 20, string.Join('\n', Log(g)));
    }

    [Theory]
    [InlineData("", true)]
    [InlineData("tsc_tolerance_ppm=0", false)]
    public void tsc_tolerance_ppm_lets_close_frequencies_run_unscaled(string parameters, bool unscaled)
    {
        using var g = new Guest(kvmParameters: parameters);
        uint khz = g.Kernel.X86.TscKhz;
        Guest.Ok(g.Process.Ioctl(g.VcpuFd, KVM_SET_TSC_KHZ, khz + (khz / 10_000)));
        (g.Vcpu.TscScalingRatio == g.Kernel.Arch.KvmCaps.DefaultTscScalingRatio).Should().Be(unscaled);
    }

    [Theory]
    [InlineData("", 1000)]
    [InlineData("lapic_timer_advance_ns=2500", 2500)]
    [InlineData("lapic_timer_advance_ns=0", 0)]
    public void lapic_timer_advance_ns_is_where_a_vcpu_begins(string parameters, int ns)
    {
        using var g = new Guest(kvmParameters: parameters, irqchip: true);
        g.Vcpu.Apic!.TimerAdvanceNs.Should().Be((uint)ns);
    }

    [Theory]
    [InlineData("", 2)]
    [InlineData("vector_hashing=0", 1)]
    public void vector_hashing_gives_a_lowest_priority_vector_to_the_same_vcpu(string parameters, int atFirst)
    {
        using var g = new Guest(kvmParameters: parameters, irqchip: true);
        int second = g.CreateVcpu(1, out kvm_run* _);
        SetApic(g, g.VcpuFd, (0xf0, 0x1ff), (0xd0, 1u << 24), (0xe0, uint.MaxValue));
        SetApic(g, second, (0xf0, 0x1ff), (0xd0, 2u << 24), (0xe0, uint.MaxValue));
        foreach (uint vector in (uint[])[0x30, 0x32])
        {
            var msi = new kvm_msi { address_lo = 0xfee0300c, data = 0x100 | vector };
            Guest.Ok(g.Process.Ioctl(g.VmFd, KVM_SIGNAL_MSI, ref msi)).Should().Be(1);
        }

        byte* state = stackalloc byte[1024];
        Guest.Ok(g.VcpuIoctl(KVM_GET_LAPIC, state));
        System.Numerics.BitOperations.PopCount(*(uint*)(state + 0x210)).Should().Be(atFirst);
    }

    [Theory]
    [InlineData("", 0)]
    [InlineData("force_emulation_prefix=1", 1)]
    public void force_emulation_prefix_has_the_next_instruction_emulated(string parameters, int emulated)
    {
        using var g = new Guest(kvmParameters: parameters);
        *(uint*)(g.Memory + (6 * 4)) = 0x1100; // #UD
        g.Memory[0x1100] = 0xf4;
        g.Load([0x0f, 0x0b, (byte)'k', (byte)'v', (byte)'m', 0x0f, 0xa2, 0xf4]); // cpuid; hlt
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Regs.rip.Should().Be(emulated == 1 ? 0x1008ul : 0x1101);
    }

    [Fact]
    public void pi_inject_timer_is_decided_at_load_and_takes_truth_values()
    {
        using var g = new Guest();
        Text(g, "pi_inject_timer").Should().Be("0", "no CPU is kept for housekeeping");
        Write(g, "pi_inject_timer", "maybe").Should().Be((KvmResult)Errno.EINVAL);
        Write(g, "pi_inject_timer", "Y").Should().Be((KvmResult)0);
        Text(g, "pi_inject_timer").Should().Be("1");
    }

    private static long Extension(Guest g, int cap) => g.Process.Ioctl(g.KvmFd, KVM_CHECK_EXTENSION, (ulong)cap).Raw;

    [Theory]
    [InlineData("amd")]
    [InlineData("intel")]
    public void enable_pmu_offers_counters(string vendor)
    {
        using (var g = new Guest(vendor)) Extension(g, KVM_CAP_PMU_CAPABILITY).Should().Be(KVM_PMU_CAP_DISABLE);
        using (var g = new Guest(vendor, kvmParameters: "enable_pmu=0")) Extension(g, KVM_CAP_PMU_CAPABILITY).Should().Be(0);
    }

    [Theory]
    [InlineData("amd", "", false)]
    [InlineData("amd", "mitigate_smt_rsb=1", true)]
    [InlineData("intel", "mitigate_smt_rsb=1", false)]
    public void mitigate_smt_rsb_forbids_halting_in_the_guest_where_processors_need_it(string vendor, string parameters, bool on)
    {
        using var g = new Guest(vendor, kvmParameters: parameters);
        Text(g, "mitigate_smt_rsb").Should().Be(on ? "Y" : "N");
        long exits = Extension(g, KVM_CAP_X86_DISABLE_EXITS);
        (exits & KVM_X86_DISABLE_EXITS_PAUSE).Should().Be(KVM_X86_DISABLE_EXITS_PAUSE);
        ((exits & KVM_X86_DISABLE_EXITS_HLT) == 0).Should().Be(on);
    }

    [Theory]
    [InlineData("amd", "", 0)]
    [InlineData("amd", "eager_page_split=0", 1)]
    [InlineData("intel", "", 0)]
    [InlineData("intel", "eager_page_split=0", 1)]
    public void eager_page_split_takes_large_pages_apart_when_dirty_logging_begins(string vendor, string parameters, int left)
    {
        using var g = new Guest(vendor, kvmParameters: parameters + " nx_huge_pages=off");
        g.Load([0xf4]);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Vm.Stat.Pages2m.Should().Be(1);
        g.AddMemory(0, 0, Guest.MemorySize, (ulong)g.Memory, KVM_MEM_LOG_DIRTY_PAGES).Should().Be((KvmResult)0);
        g.Vm.Stat.Pages2m.Should().Be(left);
    }

    [Theory]
    [InlineData("off", 0)]
    [InlineData("force", 1)]
    public void nx_huge_pages_splits_what_is_executed(string value, int splits)
    {
        using var g = new Guest("intel", kvmParameters: "nx_huge_pages=" + value);
        g.Load([0xf4]);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        g.Vm.Stat.NxLpageSplits.Should().Be(splits);
        g.Vm.Stat.Pages2m.Should().Be(1 - splits);
    }

    [Fact]
    public void nx_huge_pages_never_is_for_hosts_without_VMs_and_for_ever()
    {
        using var g = new Guest(vm: false);
        Write(g, "nx_huge_pages", "sometimes").Should().Be((KvmResult)Errno.EINVAL);
        Write(g, "nx_huge_pages", "force\n").Should().Be((KvmResult)0);
        Text(g, "nx_huge_pages").Should().Be("Y");
        int vm = Guest.Ok(g.Process.Ioctl(g.KvmFd, KVM_CREATE_VM));
        Write(g, "nx_huge_pages", "never").Should().Be((KvmResult)Errno.EBUSY);
        Text(g, "nx_huge_pages").Should().Be("Y");
        g.Process.Close(vm);
        Write(g, "nx_huge_pages", "never").Should().Be((KvmResult)0);
        Text(g, "nx_huge_pages").Should().Be("never");
        Write(g, "nx_huge_pages", "off").Should().Be((KvmResult)Errno.EPERM);
        Write(g, "nx_huge_pages_recovery_ratio", "1").Should().Be((KvmResult)Errno.EPERM);
        Write(g, "nx_huge_pages_recovery_period_ms", "1").Should().Be((KvmResult)Errno.EPERM);
    }

    [Theory]
    [InlineData("intel", "")]
    public void flush_on_reuse_flushes_when_CR3_finds_its_root_again(string vendor, string parameters)
    {
        foreach (bool on in (bool[])[false, true])
        {
            using var g = new Guest(vendor, parameters: parameters, kvmParameters: $"flush_on_reuse={on}");
            g.Load([0xf4]);
            g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
            bool sync = false;
            g.OnVcpu(v =>
            {
                v.CheckRequest(X86Request.KVM_REQ_MMU_SYNC);
                v.MmuNewPgd(0x5000);
                sync = v.CheckRequest(X86Request.KVM_REQ_MMU_SYNC);
                return 1;
            });
            sync.Should().Be(on);
        }
    }

    [Fact]
    public void tdp_mmu_is_for_VMs_that_are_created_later()
    {
        using var g = new Guest();
        ((X86Vm)g.Vm).TdpMmuEnabled.Should().BeTrue();
        Write(g, "tdp_mmu", "N").Should().Be((KvmResult)0);
        ((X86Vm)g.Vm).TdpMmuEnabled.Should().BeTrue();
        Guest.Ok(g.Process.Ioctl(g.KvmFd, KVM_CREATE_VM));
        g.Kernel.Kvm.VmList.Cast<X86Vm>().Select(static v => v.TdpMmuEnabled).Should().BeEquivalentTo([true, false]);
    }

    [Theory]
    [InlineData("", 1)]
    [InlineData("mmio_caching=0", 0)]
    public void mmio_caching_remembers_holes(string parameters, int entries)
    {
        using var g = new Guest("intel", kvmParameters: parameters);
        g.Load([0xa2, 0x10, 0x00, 0xf4]); // mov [10h], al
        kvm_sregs s = g.Sregs;
        s.ds.@base = 0x800000;
        g.Sregs = s;
        g.RunToExit().Should().Be((uint)KVM_EXIT_MMIO);
        g.Vcpu.Stat.PfMmioSpteCreated.Should().Be((ulong)entries);
    }

    [Theory]
    [InlineData("amd", "", false)]
    [InlineData("amd", "enable_vmware_backdoor=1", true)]
    [InlineData("intel", "", false)]
    [InlineData("intel", "enable_vmware_backdoor=1", true)]
    public void enable_vmware_backdoor_intercepts_general_protection(string vendor, string parameters, bool on)
    {
        // kvm_amd intercepts it anyway where VMRUN and its like may need emulation, but only for guests with SVM.
        using var g = new Guest(vendor, parameters: "nested=0", kvmParameters: parameters);
        g.Load([0xf4]);
        g.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        uint bitmap = 0;
        g.OnVcpu(v =>
        {
            bitmap = v is VcpuSvm svm ? svm.Vmcb->Control.InterceptExceptions
                : ((Kvm.Arch.X86.Vmx.VcpuVmx)v).Read32(Kvm.Emulator.Vmx.VmcsField.EXCEPTION_BITMAP);
            return 1;
        });
        ((bitmap >> 13 & 1) != 0).Should().Be(on);
    }

    [Fact]
    public void halt_poll_ns_caps_and_its_three_companions_shape_the_window()
    {
        using var g = new Guest(irqchip: true);
        X86Vcpu v = g.Vcpu;
        v.GrowHaltPollNs();
        v.HaltPollNs.Should().Be(10_000, "halt_poll_ns_grow_start");
        v.GrowHaltPollNs();
        v.HaltPollNs.Should().Be(20_000, "halt_poll_ns_grow");
        Write(g, "halt_poll_ns_grow", "3");
        v.GrowHaltPollNs();
        v.HaltPollNs.Should().Be(60_000);
        Write(g, "halt_poll_ns_grow", "0");
        v.GrowHaltPollNs();
        v.HaltPollNs.Should().Be(60_000, "never grow");
        Write(g, "halt_poll_ns_shrink", "2");
        v.ShrinkHaltPollNs();
        v.HaltPollNs.Should().Be(30_000);
        Write(g, "halt_poll_ns_grow_start", "20000");
        v.ShrinkHaltPollNs();
        v.HaltPollNs.Should().Be(0, "less than halt_poll_ns_grow_start");
        v.HaltPollNs = 60_000;
        Write(g, "halt_poll_ns_shrink", "0");
        v.ShrinkHaltPollNs();
        v.HaltPollNs.Should().Be(0);
    }
}
