using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;
using static Kvm.Client.Tests.Interrupts.InterruptGuest;

namespace Kvm.Client.Tests.Interrupts;

public class kvm_lapic
{
    private const uint ApicBaseMsr = 0x1b;

    public static TheoryData<string> All => Kernels.All;

    /// <summary>LVT entries (one-shot, periodic, TSC deadline) and how often they tick.</summary>
    public static TheoryData<string, uint, int> Timers
    {
        get
        {
            var data = new TheoryData<string, uint, int>();
            foreach (string kernel in Kernels.Names)
            {
                data.Add(kernel, 0x42, 1);
                data.Add(kernel, 0x20042, 4);
                data.Add(kernel, 0x40042, 1);
            }

            return data;
        }
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Registers_after_reset(string kernel)
    {
        using var g = new InterruptGuest(kernel, vcpus: 2);
        g.Apic(0x20, 1).Should().Be(0x01000000);
        g.Apic(0xf0).Should().Be(0xff);
        g.Apic(0xe0).Should().Be(0xffffffff);
        g.Apic(0x320).Should().Be(0x10000);
        g.Apic(0x350).Should().Be(0x700, "the PICs reach the first processor");
        (g.Apic(0x30) & 0xff).Should().Be(0x14);
        g.Vcpus[0].GetMsr(ApicBaseMsr).Should().Be(ApicBase | 0x900);
        g.Vcpus[1].GetMsr(ApicBaseMsr).Should().Be(ApicBase | 0x800);
        g.Vcpus.Select(static v => v.MpState).Should().Equal((uint)KVM_MP_STATE_RUNNABLE, (uint)KVM_MP_STATE_UNINITIALIZED);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Modes_change_by_way_of_off(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        Vcpu v = g.Vcpu;
        v.SetMsr(ApicBaseMsr, ApicBase | 0xd00);
        v.GetMsr(0x803).Should().Be(g.Apic(0x30));
        v.SetMsr(ApicBaseMsr, ApicBase | 0x100);
        Fails(() => v.SetMsr(ApicBaseMsr, ApicBase | 0x500)).Should().Be(Errno.EINVAL, "x2APIC without the APIC");
        v.SetMsr(ApicBaseMsr, ApicBase | 0x900);
        Fails(() => v.GetMsr(0x803)).Should().Be(Errno.EINVAL, "not in x2APIC mode");
    }

    /// <summary>What the host may do, a guest may not: from x2APIC straight to xAPIC is #GP.</summary>
    [SkippableTheory, MemberData(nameof(All))]
    public void Guests_fault_on_forbidden_transitions(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Handler(13, static c =>
        {
            c.mov(al, 13);
            c.@out(0x80, al);
        });
        foreach ((uint from, uint to, uint answer) in new[] { (0x900u, 0xd00u, 1u), (0xd00u, 0x900u, 13u), (0xd00u, 0x100u, 1u), (0x100u, 0xd00u, 13u), (0x100u, 0x900u, 1u), (0x900u, 0x500u, 13u) })
        {
            g.Vcpu.SetMsr(ApicBaseMsr, ApicBase | 0x100);
            g.Vcpu.SetMsr(ApicBaseMsr, ApicBase | from);
            g.Load(c =>
            {
                c.mov(ecx, ApicBaseMsr);
                c.mov(eax, ApicBase | to);
                c.xor(edx, edx);
                c.wrmsr();
                c.mov(al, 1);
                c.@out(0x80, al);
            });
            g.Run().Should().Be(answer, $"{from:x} to {to:x}");
        }
    }

    [Theory, InlineData("intel"), InlineData("amd")]
    public void Interrupts_wait_for_a_lower_task_priority(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Software(true);
        g.Handler(0x41, static c =>
        {
            c.mov(al, 0x41);
            c.@out(0x80, al);
            c.xor(eax, eax);
            c.mov(__dword_ptr[0xb0], eax);
            c.iret();
        });
        g.Load(static c =>
        {
            c.mov(eax, 0x40u);
            c.mov(__dword_ptr[0x80], eax);
            c.sti();
            c.nop();
            c.mov(al, 1);
            c.@out(0x80, al);
            c.mov(eax, 0x3fu);
            c.mov(__dword_ptr[0x80], eax);
            c.nop();
            c.mov(al, 2);
            c.@out(0x80, al);
        }, ApicBase);
        g.Vm.SignalMsi(ApicBase, 0x41).Should().Be(1);
        g.Run().Should().Be(1, "the class of the task priority is that of the vector");
        g.Apic(0xa0).Should().Be(0x40);
        g.Run().Should().Be(0x41);
        g.Apic(0xa0).Should().Be(0x40, "now by what is in service");
        g.Isr(0x41).Should().BeTrue();
        g.Run().Should().Be(2);
        g.Isr(0x41).Should().BeFalse();
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void A_self_IPI_by_the_shorthand(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Load(static c =>
        {
            c.mov(eax, 0x1ffu);
            c.mov(__dword_ptr[0xf0], eax);
            c.mov(eax, 0x40055u);
            c.mov(__dword_ptr[0x300], eax);
            c.mov(eax, __dword_ptr[0x300]);
            c.@out(0x80, eax);
        }, ApicBase);
        g.Run().Should().Be(0x40055, "never busy");
        g.Irr(0x55).Should().BeTrue();
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void KVM_NMI_wakes_a_halted_guest(string kernel)
    {
        using var g = new InterruptGuest(kernel);
        g.Handler(2, static c =>
        {
            c.mov(al, 2);
            c.@out(0x80, al);
        });
        g.Load(static c => c.hlt());
        g.Vcpu.Nmi();
        g.Run().Should().Be(2);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void An_uninitialized_processor_waits_for_its_SIPI(string kernel)
    {
        using var g = new InterruptGuest(kernel, vcpus: 2);
        g.Vcpus[1].Kick();
        g.Vcpus[1].Run().Interrupted.Should().BeTrue();
        g.Vcpus[1].MpState.Should().Be((uint)KVM_MP_STATE_UNINITIALIZED);
    }

    /// <summary>The counter runs from the count at the divided bus clock of 1 GHz; the timer's interrupt is in IRR when it is over.</summary>
    [SkippableTheory, MemberData(nameof(Timers))]
    public void Timers_wake_a_halted_guest(string kernel, uint lvt, int ticks)
    {
        using var g = new InterruptGuest(kernel);
        g.Handler(0x42, static c =>
        {
            c.inc(bl);
            c.xor(eax, eax);
            c.mov(__dword_ptr[0xb0], eax);
            c.iret();
        });
        g.Load(c =>
        {
            var again = c.CreateLabel();
            c.xor(bx, bx);
            c.mov(eax, 0x1ffu);
            c.mov(__dword_ptr[0xf0], eax);
            c.mov(eax, 0xbu);
            c.mov(__dword_ptr[0x3e0], eax);
            c.mov(eax, lvt);
            c.mov(__dword_ptr[0x320], eax);
            if (lvt == 0x40042)
            {
                c.rdtsc();
                c.add(eax, 2_000_000);
                c.adc(edx, 0);
                c.mov(ecx, 0x6e0u);
                c.wrmsr();
            }
            else
            {
                c.mov(eax, 1_000_000u);
                c.mov(__dword_ptr[0x380], eax);
            }

            c.Label(ref again);
            c.sti();
            c.hlt();
            c.cli();
            c.cmp(bl, (sbyte)ticks);
            c.jb(again);
            c.mov(eax, __dword_ptr[0x380]);
            c.@out(0x80, eax);
        }, ApicBase);
        g.Run().Should().Be(lvt == 0x40042 ? 0 : 1_000_000u);
        (g.Vcpu.Regs.rbx & 0xff).Should().BeGreaterThanOrEqualTo((ulong)ticks);
    }
}
