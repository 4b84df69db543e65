using Iced.Intel;
using Kvm.Abi;
using Kvm.Core;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Hyperv;

/// <summary>The synthetic interrupt controller and the synthetic timers, with guests that take their interrupts.</summary>
public unsafe class HypervSynic
{
    private const uint TimeRefCount = 0x40000020, Eoi = 0x40000070, VpAssistPage = 0x40000073, Scontrol = 0x40000080, Siefp = 0x40000082, Simp = 0x40000083, Eom = 0x40000084, Sint2 = 0x40000092,
        Sint3 = 0x40000093, Stimer0Config = 0x400000b0, Stimer0Count = 0x400000b1, Stimer1Config = 0x400000b2, Stimer1Count = 0x400000b3;
    private const int Vector = 0x51;
    private const ulong Enable = 1, Periodic = 2, AutoEnable = 8, Direct = 1 << 12, ToSint2 = 2 << 16;
    private const ulong Slot2 = HypervGuest.MessagePage + (2 * 256);
    private const uint TimerExpired = 0x80000010;

    public static TheoryData<string> Vendors => ["amd", "intel"];

    /// <summary>Writes time + <paramref name="units"/> of 100 ns to an MSR.</summary>
    private static void WriteDeadline(Assembler a, uint msr, int units)
    {
        HypervGuest.Rdmsr(a, TimeRefCount);
        a.add(rax, units);
        a.mov(rdx, rax);
        a.shr(rdx, 32);
        a.mov(ecx, msr);
        a.wrmsr();
    }

    private static void PlaceMessages(Assembler a)
    {
        HypervGuest.Wrmsr(a, Simp, HypervGuest.MessagePage | 1);
        HypervGuest.Wrmsr(a, Sint2, Vector);
    }

    /// <summary>The rest of the program: waits with HLT for interrupts.</summary>
    private static void Wait(Assembler a)
    {
        Label again = a.CreateLabel();
        a.Label(ref again);
        a.sti();
        a.hlt();
        a.jmp(again);
    }

    /// <summary>A handler that counts in memory at <see cref="HypervGuest.Data"/>, does something more, ends the interrupt, and ends the program after a number of them.</summary>
    private static void WriteHandler(HypervGuest g, int until, Action<Assembler>? more = null, bool eoi = true)
    {
        g.Assemble(
            a =>
            {
                Label go = a.CreateLabel();
                more?.Invoke(a);
                a.inc(__dword_ptr[HypervGuest.Data]);
                if (eoi)
                    HypervGuest.Wrmsr(a, Eoi, 0);
                a.cmp(__dword_ptr[HypervGuest.Data], until);
                a.jb(go);
                HypervGuest.Done(a);
                a.Label(ref go);
                a.iretq();
            },
            HypervGuest.Handler);
        g.SetGate(Vector, HypervGuest.Handler);
    }

    private static void FreeSlot(Assembler a)
    {
        a.mov(__dword_ptr[Slot2], 0);
        HypervGuest.Wrmsr(a, Eom, 0);
    }

    private static void Start(HypervGuest g, Action<Assembler> program)
    {
        g.Assemble(a =>
        {
            program(a);
            Wait(a);
        });
        g.SetRip(HypervGuest.Code);
        g.RunToDone();
    }

    // ---- timers ----

    [Theory, MemberData(nameof(Vendors))]
    public void A_one_shot_timer_sends_its_message_once(string vendor)
    {
        using var g = new HypervGuest(vendor);
        WriteHandler(g, 1);
        Start(g, static a =>
        {
            PlaceMessages(a);
            HypervGuest.Wrmsr(a, Stimer1Config, Enable | ToSint2);
            WriteDeadline(a, Stimer1Count, 20_000);
        });
        (*(uint*)(g.Memory + Slot2)).Should().Be(TimerExpired);
        g.Memory[Slot2 + 4].Should().Be(24, "bytes of payload");
        g.Memory[Slot2 + 5].Should().Be(0, "no other message waits");
        g.At(Slot2 + 8).Should().Be(0);
        g.At(Slot2 + 16).Should().Be(1, "the timer's number");
        ulong due = g.At(Slot2 + 24), delivered = g.At(Slot2 + 32);
        due.Should().Be(g.GetMsr(Stimer1Count)!.Value);
        delivered.Should().BeGreaterThanOrEqualTo(due);
        g.GetMsr(Stimer1Config).Should().Be(ToSint2, "it is off again");
    }

    /// <summary>Userspace has the devices: it sees where the guest puts the pages.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void Placing_the_pages_exits_to_userspace(string vendor)
    {
        using var g = new HypervGuest(vendor);
        g.Run(static a =>
        {
            HypervGuest.Wrmsr(a, Simp, HypervGuest.MessagePage | 1);
            HypervGuest.Wrmsr(a, Siefp, HypervGuest.AssistPage | 1);
            HypervGuest.Wrmsr(a, Scontrol, 0);
            HypervGuest.Wrmsr(a, Sint2, Vector);
        });
        g.SynicExits.Should().Equal(
            (Simp, 1, 0, HypervGuest.MessagePage | 1),
            (Siefp, 1, HypervGuest.AssistPage | 1, HypervGuest.MessagePage | 1),
            (Scontrol, 0, HypervGuest.AssistPage | 1, HypervGuest.MessagePage | 1));
    }

    [Theory, MemberData(nameof(Vendors))]
    public void A_periodic_timer_keeps_its_rhythm(string vendor)
    {
        using var g = new HypervGuest(vendor);
        WriteHandler(g, 4, static a =>
        {
            a.mov(eax, __dword_ptr[HypervGuest.Data]);
            a.mov(rdx, __qword_ptr[Slot2 + 24]);
            a.mov(__qword_ptr[(rax * 8) + (long)(HypervGuest.Data + 0x100)], rdx);
            FreeSlot(a);
        });
        Start(g, static a =>
        {
            PlaceMessages(a);
            HypervGuest.Wrmsr(a, Stimer0Count, 30_000);
            HypervGuest.Wrmsr(a, Stimer0Config, Enable | Periodic | ToSint2);
        });
        ulong first = g.At(HypervGuest.Data + 0x100);
        for (ulong i = 1; i < 4; i++)
        {
            ulong later = g.At(HypervGuest.Data + 0x100 + (i * 8)) - first;
            (later % 30_000).Should().Be(0);
            later.Should().BeGreaterThanOrEqualTo(i * 30_000);
        }

        (g.GetMsr(Stimer0Config) & Enable).Should().Be(1);
    }

    [Theory, MemberData(nameof(Vendors))]
    public void In_direct_mode_it_is_an_interrupt_without_a_message(string vendor)
    {
        using var g = new HypervGuest(vendor);
        WriteHandler(g, 1);
        Start(g, static a =>
        {
            PlaceMessages(a);
            HypervGuest.Wrmsr(a, Stimer0Config, Direct | AutoEnable | (Vector << 4));
            WriteDeadline(a, Stimer0Count, 20_000);
        });
        (*(uint*)(g.Memory + Slot2)).Should().Be(0);
        g.GetMsr(Stimer0Config).Should().Be(Direct | AutoEnable | (Vector << 4), "the count turned it on, expiry off");
    }

    [Theory, MemberData(nameof(Vendors))]
    public void A_time_in_the_past_is_due_at_once(string vendor)
    {
        using var g = new HypervGuest(vendor);
        WriteHandler(g, 1);
        Start(g, static a =>
        {
            PlaceMessages(a);
            HypervGuest.Wrmsr(a, Stimer0Config, Enable | ToSint2);
            HypervGuest.Wrmsr(a, Stimer0Count, 1);
        });
        g.At(Slot2 + 24).Should().Be(1);
    }

    /// <summary>The slot is full: the message is announced there and comes after EOM.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void A_message_waits_for_its_slot(string vendor)
    {
        using var g = new HypervGuest(vendor);
        *(uint*)(g.Memory + Slot2) = 7;
        WriteHandler(g, 1);
        g.Run(static a =>
        {
            PlaceMessages(a);
            HypervGuest.Wrmsr(a, Stimer0Config, Enable | ToSint2);
            HypervGuest.Wrmsr(a, Stimer0Count, 1);
        });
        g.Memory[Slot2 + 5].Should().Be(1);
        (g.GetMsr(Stimer0Config) & Enable).Should().Be(1);
        g.IsRequested(0, Vector).Should().BeFalse();
        Start(g, static a => FreeSlot(a));
        (*(uint*)(g.Memory + Slot2)).Should().Be(TimerExpired);
        g.GetMsr(Stimer0Config).Should().Be(ToSint2);
    }

    [Fact]
    public void Configuration_of_a_running_timer()
    {
        using var g = new HypervGuest("amd");
        g.GuestSetMsr(Stimer0Count, ulong.MaxValue / 2).Should().BeTrue();
        g.GuestSetMsr(Stimer0Config, Enable | ToSint2).Should().BeTrue();
        g.GuestSetMsr(Stimer0Config, Enable).Should().BeTrue();
        g.GetMsr(Stimer0Config).Should().Be(0, "SINT 0 turns a running timer off");
        g.GuestSetMsr(Stimer0Config, Enable).Should().BeTrue();
        g.GetMsr(Stimer0Config).Should().Be(Enable, "it was off");
        g.GuestSetMsr(Stimer0Config, Enable | Direct).Should().BeTrue();
        g.GetMsr(Stimer0Config).Should().Be(Enable | Direct);
        g.GuestSetMsr(Stimer0Count, 0).Should().BeTrue();
        g.GetMsr(Stimer0Config).Should().Be(Direct, "a count of 0 turns it off");
        g.SetMsr(Stimer0Config, AutoEnable | ToSint2).Should().BeTrue();
        g.SetMsr(Stimer0Count, 100).Should().BeTrue();
        g.GetMsr(Stimer0Config).Should().Be(AutoEnable | ToSint2, "userspace's count turns nothing on");
        g.GuestSetMsr(Stimer0Count, 100).Should().BeTrue();
        g.GetMsr(Stimer0Config).Should().Be(AutoEnable | ToSint2 | Enable);
    }

    [Fact]
    public void With_enforced_cpuid_direct_mode_needs_its_feature()
    {
        using var g = new HypervGuest("amd", leaves: static e => e.function == 0x40000003 ? e with { edx = e.edx & ~(1u << 19) } : e);
        g.EnableCap(KVM_CAP_HYPERV_ENFORCE_CPUID, argument: 1).Raw.Should().Be(0);
        g.GuestSetMsr(Stimer0Config, Direct).Should().BeFalse();
        g.GuestSetMsr(Stimer0Config, ToSint2).Should().BeTrue();
        g.SetMsr(Stimer0Config, Direct).Should().BeTrue();
    }

    // ---- interrupts ----

    /// <summary>KVM_IRQ_ROUTING_HV_SINT, raised by userspace and by an irqfd, whose resample eventfd hears of the ends.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void A_gsi_can_be_routed_to_a_sint(string vendor)
    {
        using var g = new HypervGuest(vendor);
        byte* table = stackalloc byte[8 + (2 * sizeof(kvm_irq_routing_entry))];
        new Span<byte>(table, 8 + (2 * sizeof(kvm_irq_routing_entry))).Clear();
        *(uint*)table = 2;
        var entries = (kvm_irq_routing_entry*)(table + 8);
        (entries[0].gsi, entries[0].type, entries[0].u.hv_sint.sint) = (40, KVM_IRQ_ROUTING_HV_SINT, 2);
        (entries[1].gsi, entries[1].type, entries[1].u.hv_sint.sint) = (41, KVM_IRQ_ROUTING_HV_SINT, 16);
        Guest.Ok(g.Host.Process.Ioctl(g.Host.VmFd, KVM_SET_GSI_ROUTING, (ulong)table));
        Raise(g, 40).Should().Be(-1, "it is masked");
        Raise(g, 41).Should().Be(-1, "there is no such source");
        g.SetMsr(Sint2, Vector).Should().BeTrue();
        Raise(g, 40).Should().Be(1);
        g.IsRequested(0, Vector).Should().BeTrue();

        WriteHandler(g, 2);
        g.Assemble(Wait);
        g.SetRip(HypervGuest.Code);
        int fd = Guest.Ok(g.Host.Process.Eventfd()), resample = Guest.Ok(g.Host.Process.Eventfd());
        var irqfd = new kvm_irqfd { fd = (uint)fd, gsi = 40, flags = (uint)KVM_IRQFD_FLAG_RESAMPLE, resamplefd = (uint)resample };
        Guest.Ok(g.Host.Process.Ioctl(g.Host.VmFd, KVM_IRQFD, (ulong)&irqfd));
        EventfdContext? eventfd, ends;
        using (g.Host.Kernel.Host.Enter(g.Host.Process.Task))
        {
            EventfdContext.FromFd(fd, out eventfd);
            EventfdContext.FromFd(resample, out ends);
        }

        var writer = new Thread(() =>
        {
            while (ends!.Count == 0)
                Thread.Sleep(1);
            eventfd!.Signal();
        });
        writer.Start();
        g.RunToDone();
        writer.Join();
        ends!.Count.Should().Be(2);
    }

    private static int Raise(HypervGuest g, uint gsi)
    {
        var level = new kvm_irq_level { irq = gsi, level = 1 };
        Guest.Ok(g.Host.Process.Ioctl(g.Host.VmFd, KVM_IRQ_LINE_STATUS, (ulong)&level));
        return level.status;
    }

    /// <summary>The handler writes no EOI; on Intel the processor's own interrupt delivery has to be off for that.</summary>
    [Theory, MemberData(nameof(Vendors))]
    public void An_auto_eoi_interrupt_is_over_when_it_is_delivered(string vendor)
    {
        using var g = new HypervGuest(vendor);
        WriteHandler(g, 3, FreeSlot, eoi: false);
        Start(g, static a =>
        {
            HypervGuest.Wrmsr(a, Simp, HypervGuest.MessagePage | 1);
            HypervGuest.Wrmsr(a, Sint2, Vector | (1ul << 17));
            HypervGuest.Wrmsr(a, Stimer0Count, 10_000);
            HypervGuest.Wrmsr(a, Stimer0Config, Enable | Periodic | ToSint2);
        });
        kvm_lapic_state apic = g.Apic(0);
        new ReadOnlySpan<byte>((byte*)&apic + 0x100, 0x80).ToArray().Should().OnlyContain(static b => b == 0, "nothing is in service");
        const ulong reason = 1ul << (int)ApicvInhibit.APICV_INHIBIT_REASON_HYPERV;
        if (vendor == "intel")
        {
            (g.Vcpu().Vm.ApicvInhibitReasons & reason).Should().NotBe(0);
            g.Vcpu().ApicvActive.Should().BeFalse();
        }

        // Another source keeps the vector until it is gone as well.
        g.SetMsr(Sint3, Vector | (1ul << 17)).Should().BeTrue();
        g.SetMsr(Sint2, 0x10000).Should().BeTrue();
        g.Vcpu().Hv!.Synic.HasAutoEoiVector(Vector).Should().BeTrue();
        g.SetMsr(Sint3, Vector).Should().BeTrue();
        g.Vcpu().Hv!.Synic.HasAutoEoiVector(Vector).Should().BeFalse();
        g.Vcpu().Hv!.Synic.HasVector(Vector).Should().BeTrue();
        (g.Vcpu().Vm.ApicvInhibitReasons & reason).Should().Be(0);
    }

    /// <summary>The first word of the assist page says whether an EOI is needed: bit 0 set means that clearing it is enough.</summary>
    [Fact]
    public void The_assist_page_saves_the_eoi()
    {
        using var g = new HypervGuest("amd");
        *(ulong*)(g.Memory + HypervGuest.AssistPage) = ulong.MaxValue;
        WriteHandler(
            g,
            3,
            static a =>
            {
                Label saved = a.CreateLabel();
                Label end = a.CreateLabel();
                a.btr(__dword_ptr[HypervGuest.AssistPage], 0);
                a.jc(saved);
                HypervGuest.Wrmsr(a, Eoi, 0);
                a.jmp(end);
                a.Label(ref saved);
                a.inc(__dword_ptr[HypervGuest.Data + 8]);
                a.Label(ref end);
                FreeSlot(a);
            },
            eoi: false);
        Start(g, static a =>
        {
            HypervGuest.Wrmsr(a, VpAssistPage, HypervGuest.AssistPage | 1);
            a.mov(rax, __qword_ptr[HypervGuest.AssistPage]);
            a.mov(__qword_ptr[HypervGuest.Data + 16], rax);
            PlaceMessages(a);
            HypervGuest.Wrmsr(a, Stimer0Count, 10_000);
            HypervGuest.Wrmsr(a, Stimer0Config, Enable | Periodic | ToSint2);
        });
        g.At(HypervGuest.Data + 8).Should().Be(3, "every EOI was saved");
        g.At(HypervGuest.Data + 16).Should().Be(0xffff_ffff_0000_0000, "only the word is cleared");
        g.GetMsr(VpAssistPage).Should().Be(HypervGuest.AssistPage | 1);
        g.Vcpu().Hv!.AssistPageEnabled.Should().BeTrue();
        g.GuestSetMsr(VpAssistPage, (1ul << 40) | 1).Should().BeFalse("no memory there");
        g.GuestSetMsr(VpAssistPage, 0).Should().BeTrue();
        g.Vcpu().Hv!.AssistPageEnabled.Should().BeFalse();
    }

    [Fact]
    public void Tracepoints_have_the_kernels_text()
    {
        using var g = new HypervGuest("amd");
        WriteHandler(g, 1, FreeSlot);
        List<string> events = g.EventsOf(() => Start(g, static a =>
        {
            PlaceMessages(a);
            HypervGuest.Wrmsr(a, Stimer0Config, Enable | ToSint2);
            HypervGuest.Wrmsr(a, Stimer0Count, 5);
        }));
        events.Take(8).Should().Equal(
            $"kvm_hv_synic_set_msr: vcpu_id 0 msr 0x40000083 data 0x{HypervGuest.MessagePage | 1:x} host 0",
            "kvm_hv_synic_set_msr: vcpu_id 0 msr 0x40000092 data 0x51 host 0",
            "kvm_hv_stimer_set_config: vcpu_id 0 timer 0 config 0x20001 host 0",
            "kvm_hv_stimer_cleanup: vcpu_id 0 timer 0",
            "kvm_hv_stimer_cleanup: vcpu_id 0 timer 0",
            "kvm_hv_stimer_set_count: vcpu_id 0 timer 0 count 5 host 0",
            "kvm_hv_stimer_cleanup: vcpu_id 0 timer 0",
            "kvm_hv_synic_set_irq: vcpu_id 0 sint 2 vector 81 ret 1");
        events.Should().Contain("kvm_hv_stimer_expiration: vcpu_id 0 timer 0 direct 0 send result 0");
        events.Should().Contain("kvm_hv_synic_send_eoi: vcpu_id 0 vector 81");
        events.Should().Contain("kvm_hv_notify_acked_sint: vcpu_id 0 sint 2");
    }
}
