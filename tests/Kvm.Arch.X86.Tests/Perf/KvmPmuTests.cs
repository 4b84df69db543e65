using Iced.Intel;
using Kvm.Abi;
using Kvm.Core;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Tests.Perf.PmuGuest;

namespace Kvm.Arch.X86.Tests.Perf;

/// <summary>Performance counters of guests: pmu.c, vmx/pmu_intel.c, svm/pmu.c on the host's perf events.</summary>
/// <remarks>
/// An instruction that KVM emulates is counted by KVM, after what it does: the WRMSR that switches a counter on is counted, the one that switches it off is not.
/// </remarks>
public sealed unsafe class kvm_pmu
{
    /// <summary>Version 2, four general counters of 48 bits, three fixed ones; the events that the processor does not have are not offered.</summary>
    [Fact]
    public void CPUID_offers_architectural_version_2_on_Intel()
    {
        using var g = new PmuGuest("intel");
        kvm_cpuid_entry2 leaf = g.Leaf(0xa);
        (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx).Should().Be((0x07300402u, 0x78u, 0u, 0x8603u));
        (g.Leaf(1).ecx >> 15 & 1).Should().Be(1, "PDCM");
        g.GetMsr(0x345).Should().Be(0x2000, "full-width writes");
        g.Host.Process.Ioctl(g.Host.KvmFd, KVM_CHECK_EXTENSION, KVM_CAP_PMU_CAPABILITY).Value.Should().Be((int)KVM_PMU_CAP_DISABLE);
    }

    [Fact]
    public void CPUID_offers_six_core_counters_on_AMD()
    {
        using var g = new PmuGuest("amd");
        (g.Leaf(0x80000001).ecx >> 23 & 1).Should().Be(1, "PerfCtrExtCore");
        g.GetMsr(CoreSelect0 + 10).Should().Be(0);
        g.GetMsr(CoreSelect0 + 12).Should().BeNull();
    }

    public static TheoryData<string, uint, uint> Counters { get; } = new()
    {
        { "intel", Fixed0, 0 }, { "intel", Fixed0 + 1, 1 }, { "intel", Counter0, Select0 }, { "intel", Counter0 + 3, Select0 + 3 }, { "intel", Wide0 + 2, Select0 + 2 },
        { "amd", CoreCounter0, CoreSelect0 }, { "amd", CoreCounter0 + 10, CoreSelect0 + 10 }, { "amd", K7Counter0, K7Select0 }, { "amd", K7Counter0 + 3, K7Select0 + 3 },
    };

    private static void On(Assembler a, uint counter, uint select, uint flags = Os | Enable)
    {
        if (counter is >= Fixed0 and < Fixed0 + 3)
        {
            uint bits = ((flags & Os) != 0 ? 1u : 0) | ((flags & User) != 0 ? 2u : 0) | ((flags & Interrupt) != 0 ? 8u : 0);
            Wrmsr(a, FixedControl, bits << (int)(4 * (counter - Fixed0)));
            Wrmsr(a, GlobalControl, 1UL << (int)(32 + counter - Fixed0));
            return;
        }

        if (select < 0xc0000000)
            Wrmsr(a, GlobalControl, 0xf);
        Wrmsr(a, select, Instructions | flags);
    }

    private static void Off(Assembler a, uint counter, uint select) => Wrmsr(a, counter is >= Fixed0 and < Fixed0 + 3 ? GlobalControl : select, 0);

    /// <summary>WRMSR itself, the loop, and three instructions before the next WRMSR.</summary>
    [Theory, MemberData(nameof(Counters))]
    public void Counts_every_instruction_of_a_loop(string vendor, uint counter, uint select)
    {
        using var g = new PmuGuest(vendor);
        g.Run(a =>
        {
            On(a, counter, select);
            Loop(a, 1000);
            Off(a, counter, select);
            Rdmsr(a, counter, 0);
        });
        uint emulated = counter == Cycles ? 0u : 1;
        g.At(0).Should().Be(emulated + 2001 + 3);
        g.GetMsr(counter).Should().Be(emulated + 2004);
    }

    /// <summary>The fixed counter of cycles, of which KVM counts none for what it emulates.</summary>
    private const uint Cycles = Fixed0 + 1;

    /// <summary>What KVM emulates is counted once, what userspace completes too: CPUID, OUT, IN, and MMIO through the emulator.</summary>
    [Theory, MemberData(nameof(Counters))]
    public void Counts_what_is_emulated(string vendor, uint counter, uint select)
    {
        using var g = new PmuGuest(vendor);
        g.Run(a =>
        {
            On(a, counter, select);
            a.cpuid();
            a.mov(dx, 0x3f8);
            a.@out(dx, al);
            a.@in(al, dx);
            a.cpuid();
            Off(a, counter, select);
            Rdmsr(a, counter, 0);
        });
        g.At(0).Should().Be(counter == Cycles ? 1u + 3 : 1 + 5 + 3);
    }

    /// <summary>A counter of user mode counts nothing here.</summary>
    [Theory, MemberData(nameof(Counters))]
    public void Counts_the_selected_privilege_only(string vendor, uint counter, uint select)
    {
        using var g = new PmuGuest(vendor);
        g.Run(a =>
        {
            On(a, counter, select, User | Enable);
            Loop(a, 100);
            a.cpuid();
            Off(a, counter, select);
            Rdmsr(a, counter, 0);
        });
        g.At(0).Should().Be(0);
    }

    [Theory, InlineData("intel", 0x40000000u, Fixed0), InlineData("intel", 0u, Counter0), InlineData("amd", 0u, CoreCounter0), InlineData("amd", 5u, CoreCounter0 + 10)]
    public void RDPMC_reads_a_counter_while_it_counts(string vendor, uint index, uint counter)
    {
        using var g = new PmuGuest(vendor);
        uint select = counter >= CoreCounter0 ? counter - 1 : Select0;
        g.Run(a =>
        {
            On(a, counter, select);
            a.mov(ecx, index);
            a.rdpmc();
            a.mov(esi, eax);
            Loop(a, 50);
            a.rdpmc();
            a.mov(__dword_ptr[Data], esi);
            a.mov(__dword_ptr[Data + 4], eax);
        });
        g.Int(0).Should().Be(2, "WRMSR and MOV");
        g.Int(4).Should().Be(2 + 2 + 101, "RDPMC, MOV, the loop");
    }

    [Theory, InlineData("intel"), InlineData("amd")]
    public void RDPMC_of_a_counter_that_is_not_there_faults(string vendor)
    {
        using var g = new PmuGuest(vendor);
        *(uint*)(g.Host.Memory + 13 * 4) = 0x4000;
        new byte[] { 0xb0, 0x0d, 0xe6, 0x80 }.CopyTo(new Span<byte>(g.Host.Memory + 0x4000, 4));
        g.Run(b =>
        {
            b.mov(ecx, 8);
            b.rdpmc();
            b.mov(al, 1);
        });
        g.Host.IoData[0].Should().Be(13);
    }

    /// <summary>
    /// With its interrupt on, a counter of -n ends the guest's run after n instructions: the interrupt is the next thing that happens. Intel then masks the entry, and says in the
    /// status register which counter it was.
    /// </summary>
    [Theory, MemberData(nameof(Counters))]
    public void Overflow_interrupts_at_the_very_instruction(string vendor, uint counter, uint select)
    {
        const int n = 500;
        using var g = new PmuGuest(vendor);
        g.Handler(a =>
        {
            a.mov(__word_ptr[Data], bx);
            a.inc(__word_ptr[Data + 2]);
        });
        bool wide = counter >= Wide0 && counter < Wide0 + 8;
        g.Run(a =>
        {
            a.mov(__dword_ptr[Data], 0);
            EnableInterrupts(a);
            Wrmsr(a, counter, unchecked((ulong)-n) & (wide || counter >= Fixed0 ? (1UL << 48) - 1 : ulong.MaxValue));
            On(a, counter, select, Os | Enable | Interrupt);
            // WRMSR was the first of them, this is the second.
            a.mov(bx, 0);
            for (int i = 0; i < 700; i++)
                a.inc(bx);
            Off(a, counter, select);
            Rdmsr(a, counter, 8);
            if (g.Intel)
            {
                Rdmsr(a, GlobalStatus, 16);
                Rdmsr(a, 0x834, 24);
            }
        });
        g.Word(2).Should().Be(1, "one interrupt");
        int emulated = counter == Cycles ? 0 : 1, at = n - 1 - emulated;
        g.Word(0).Should().Be((ushort)at);
        // The rest of the INCs, the handler with its WRMSR (which APICv lets run), and the way to the last WRMSR.
        g.At(8).Should().Be((ulong)(700 - at + 2 + 4 + 1 + 3));
        if (!g.Intel)
            return;
        ulong bit = counter is >= Fixed0 and < Fixed0 + 3 ? 1UL << (int)(32 + counter - Fixed0) : 1UL << (int)(select - Select0);
        g.At(16).Should().Be(bit);
        g.At(24).Should().Be(0x10040, "masked");
        g.Run(a =>
        {
            Wrmsr(a, GlobalOverflow, bit);
            Rdmsr(a, GlobalStatus, 0);
        });
        g.At(0).Should().Be(0);
    }

    /// <summary>The instruction over which the counter turns is one that KVM emulates.</summary>
    [Theory, InlineData("intel", Fixed0, 0u), InlineData("amd", CoreCounter0, CoreSelect0)]
    public void Overflow_by_an_emulated_instruction_interrupts_too(string vendor, uint counter, uint select)
    {
        using var g = new PmuGuest(vendor);
        g.Handler(a => a.inc(__word_ptr[Data]));
        g.Run(a =>
        {
            a.mov(__dword_ptr[Data], 0);
            EnableInterrupts(a);
            Wrmsr(a, counter, (1UL << 48) - 3);
            On(a, counter, select, Os | Enable | Interrupt);
            a.nop();
            a.cpuid();
            a.nop();
            Off(a, counter, select);
        });
        g.At(0).Should().Be(1);
    }

    /// <summary>Fixed counter 2 counts at the TSC's rate while the guest runs.</summary>
    [Fact]
    public void Reference_cycles_are_time_in_the_guest()
    {
        using var g = new PmuGuest("intel");
        g.Run(a =>
        {
            Wrmsr(a, FixedControl, 1 << 8);
            Wrmsr(a, GlobalControl, 1UL << 34);
            a.rdtsc();
            a.mov(esi, eax);
            for (int i = 0; i < 20; i++)
                Loop(a, 60000);
            a.rdtsc();
            a.sub(eax, esi);
            a.mov(edi, eax);
            Wrmsr(a, GlobalControl, 0);
            a.mov(__dword_ptr[Data + 8], edi);
            Rdmsr(a, Fixed0 + 2, 0);
        });
        g.At(0).Should().BeGreaterThan(0);
        ((double)g.At(0)).Should().BeLessThan(1.5 * g.Int(8) + 1_000_000);
        ((double)g.At(0)).Should().BeGreaterThan(0.3 * g.Int(8));
    }

    [Theory, InlineData("intel", Counter0, Select0), InlineData("amd", CoreCounter0, CoreSelect0)]
    public void An_event_filter_decides_what_counts(string vendor, uint counter, uint select)
    {
        using var g = new PmuGuest(vendor);
        Count((uint)KVM_PMU_EVENT_DENY, 0, Instructions).Should().Be(0);
        Count((uint)KVM_PMU_EVENT_DENY, 0, 0x3c).Should().Be(2005);
        Count((uint)KVM_PMU_EVENT_ALLOW, 0, 0x76, Instructions, 0x3c).Should().Be(2005);
        // kvm_pmu_trigger_event does not ask the filter: WRMSR itself is counted when the counter counted before.
        Count((uint)KVM_PMU_EVENT_ALLOW, 0, 0x3c).Should().Be(1);
        Count((uint)KVM_PMU_EVENT_DENY, 0).Should().Be(2005);

        ulong Count(uint action, uint fixedBitmap, params ulong[] events)
        {
            g.SetFilter(action, fixedBitmap, events).Should().Be(KvmResult.Ok);
            g.Run(a =>
            {
                Wrmsr(a, counter, 0);
                On(a, counter, select);
                Loop(a, 1000);
                Off(a, counter, select);
                Rdmsr(a, counter, 0);
            });
            return g.At(0);
        }
    }

    [Theory, InlineData(KVM_PMU_EVENT_DENY, 1u, false), InlineData(KVM_PMU_EVENT_DENY, 2u, true), InlineData(KVM_PMU_EVENT_ALLOW, 1u, true), InlineData(KVM_PMU_EVENT_ALLOW, 2u, false)]
    public void A_filter_has_bits_for_fixed_counters(int action, uint bitmap, bool counts)
    {
        using var g = new PmuGuest("intel");
        g.SetFilter((uint)action, bitmap, Instructions).Should().Be(KvmResult.Ok);
        g.Run(a =>
        {
            On(a, Fixed0, 0);
            Loop(a, 1000);
            Off(a, Fixed0, 0);
            Rdmsr(a, Fixed0, 0);
        });
        g.At(0).Should().Be(counts ? 2005u : 0u);
    }

    /// <summary>Counts go with the vCPU from CPU to CPU, exit by exit.</summary>
    [Theory, InlineData("intel", Fixed0, 0u), InlineData("intel", Counter0 + 1, Select0 + 1), InlineData("amd", CoreCounter0 + 2, CoreSelect0 + 2)]
    public void Counts_go_on_on_another_CPU(string vendor, uint counter, uint select)
    {
        using var g = new PmuGuest(vendor, cpus: 2);
        int turn = 0;
        g.Run(a =>
        {
            On(a, counter, select);
            for (int i = 0; i < 20; i++)
            {
                Loop(a, 10);
                a.@out(0x81, al);
            }

            Off(a, counter, select);
            Rdmsr(a, counter, 0);
        }, () => g.Host.Process.Task.SetAffinity(turn++ & 1));
        g.At(0).Should().Be(1 + 20 * 22 + 3);
    }

    /// <summary>What a debugger or a migration writes is what counts on.</summary>
    [Theory, InlineData("intel", Counter0, Select0), InlineData("amd", CoreCounter0, CoreSelect0)]
    public void Userspace_sets_counters(string vendor, uint counter, uint select)
    {
        using var g = new PmuGuest(vendor);
        g.SetMsr(counter, 1_000_000).Should().BeTrue();
        if (g.Intel)
            g.SetMsr(GlobalControl, 1).Should().BeTrue();
        g.SetMsr(select, Instructions | Os | Enable).Should().BeTrue();
        g.Run(a => Loop(a, 10));
        g.GetMsr(counter).Should().Be(1_000_000 + 21, "the write to the port is completed by the next KVM_RUN");
        g.SetMsr(counter, 5).Should().BeTrue();
        g.GetMsr(counter).Should().Be(5);
    }

    /// <summary>kvm enable_pmu=0, and KVM_CAP_PMU_CAPABILITY for one VM: no counters.</summary>
    [Theory, InlineData("intel", true), InlineData("intel", false), InlineData("amd", true), InlineData("amd", false)]
    public void Can_be_switched_off(string vendor, bool module)
    {
        using var g = module ? new PmuGuest(vendor, kvmParameters: "enable_pmu=0") : new PmuGuest(vendor, disabled: true);
        if (module)
        {
            g.Host.Process.Ioctl(g.Host.KvmFd, KVM_CHECK_EXTENSION, KVM_CAP_PMU_CAPABILITY).Value.Should().Be(0);
            if (g.Intel)
                g.Leaf(0xa).eax.Should().Be(0);
            else
                (g.Leaf(0x80000001).ecx >> 23 & 1).Should().Be(0);
        }

        if (g.Intel)
        {
            g.GetMsr(GlobalControl).Should().Be(0, "userspace may read what is in the list");
            g.SetMsr(GlobalControl, 1).Should().BeFalse();
        }

        // Selectors of old processors can be written, to no effect.
        g.SetMsr(g.Intel ? Select0 : CoreSelect0, Instructions | Os | Enable).Should().Be(g.Intel);
        g.Run(a => Loop(a, 100));
        g.GetMsr(g.Intel ? Counter0 : K7Counter0).GetValueOrDefault().Should().Be(0);
    }

    /// <summary>A filter that is too long, of an unknown kind or with flags is refused, and the old one stays.</summary>
    [Fact]
    public void A_bad_filter_is_refused()
    {
        using var g = new PmuGuest("intel");
        g.SetFilter(2, 0).Should().Be((KvmResult)Errno.EINVAL);
        g.SetFilter((uint)KVM_PMU_EVENT_DENY, 0, new ulong[301]).Should().Be((KvmResult)Errno.E2BIG);
        g.SetFilter((uint)KVM_PMU_EVENT_DENY, 0, new ulong[300]).Should().Be(KvmResult.Ok);
    }
}
