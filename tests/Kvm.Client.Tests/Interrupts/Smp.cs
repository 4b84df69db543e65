using Iced.Intel;
using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Client.Tests.Interrupts.InterruptGuest;

namespace Kvm.Client.Tests.Interrupts;

/// <summary>Guests that start their processors themselves, interrupt each other and take timer interrupts.</summary>
public class Smp
{
    private const ushort Started = 0x7000, Received = 0x7004, Ticks = 0x7008;
    private const int Rounds = 50;

    public static TheoryData<string, int> Guests
    {
        get
        {
            var data = new TheoryData<string, int>();
            foreach (string kernel in Kernels.Names.Concat(Kernels.Moved))
            {
                data.Add(kernel, 2);
                data.Add(kernel, 4);
            }

            return data;
        }
    }

    /// <summary>All in x2APIC mode: the registers are MSRs, and DS stays the memory's.</summary>
    private static void Wrmsr(Assembler c, uint msr, uint low, uint high = 0)
    {
        c.mov(ecx, msr);
        c.mov(eax, low);
        c.mov(edx, high);
        c.wrmsr();
    }

    private static void EnableApic(Assembler c)
    {
        c.mov(ecx, 0x1bu);
        c.rdmsr();
        c.or(eax, 0xc00);
        c.wrmsr();
        Wrmsr(c, 0x80f, 0x1ff);
    }

    /// <summary>Counts in memory, ends the interrupt.</summary>
    private static void Count(Assembler c, ushort counter)
    {
        c.push(eax);
        c.push(ecx);
        c.push(edx);
        c.@lock.inc(__dword_ptr[counter]);
        Wrmsr(c, 0x80b, 0);
        c.pop(edx);
        c.pop(ecx);
        c.pop(eax);
        c.iret();
    }

    /// <summary>Goes on when the counter has come to EBX.</summary>
    private static void WaitFor(Assembler c, ushort counter)
    {
        var again = c.CreateLabel();
        c.Label(ref again);
        c.pause();
        c.cmp(__dword_ptr[counter], ebx);
        c.jb(again);
    }

    [SkippableTheory, MemberData(nameof(Guests))]
    public void Processors_start_get_IPIs_and_tick(string kernel, int vcpus)
    {
        using var g = new InterruptGuest(kernel, vcpus);
        g.Handler(0x41, static c => Count(c, Received));
        g.Handler(0x42, static c => Count(c, Ticks));
        g.Put(ApCode, static c =>
        {
            var sleep = c.CreateLabel();
            c.xor(ax, ax);
            c.mov(ds, ax);
            c.mov(ss, ax);
            EnableApic(c);
            // A stack of its own: the number of this one.
            c.mov(ecx, 0x802u);
            c.rdmsr();
            c.shl(ax, 8);
            c.add(ax, (short)0x5000);
            c.mov(sp, ax);
            // Every processor ticks 10 times a second at least while the others work.
            Wrmsr(c, 0x83e, 0xb);
            Wrmsr(c, 0x832, 0x20042);
            Wrmsr(c, 0x838, 10_000_000);
            c.@lock.inc(__dword_ptr[Started]);
            c.Label(ref sleep);
            c.sti();
            c.hlt();
            c.jmp(sleep);
        });
        int others = vcpus - 1;
        g.Load(c =>
        {
            EnableApic(c);
            Wrmsr(c, 0x830, 0xc4500);
            Wrmsr(c, 0x830, 0xc4600 | ApCode >> 12);
            c.mov(ebx, others);
            WaitFor(c, Started);
            // Fixed IPIs to all others: each is received before the next one goes.
            c.xor(ebx, ebx);
            c.mov(esi, Rounds);
            var next = c.CreateLabel();
            c.Label(ref next);
            Wrmsr(c, 0x830, 0xc0041);
            c.add(ebx, others);
            WaitFor(c, Received);
            c.dec(esi);
            c.jnz(next);
            // And to the last processor alone, by its logical destination.
            Wrmsr(c, 0x830, 0x841, 1u << others);
            c.inc(ebx);
            WaitFor(c, Received);
            c.mov(ebx, 3 * others);
            WaitFor(c, Ticks);
            c.mov(eax, __dword_ptr[Received]);
            c.@out(0x80, eax);
        });

        bool over = false;
        var threads = g.Vcpus[1..].Select(v => new Thread(() =>
        {
            while (!Volatile.Read(ref over)) v.Run();
        })).ToList();
        threads.ForEach(static t => t.Start());
        try
        {
            g.Run().Should().Be((uint)(Rounds * others + 1));
        }
        finally
        {
            Volatile.Write(ref over, true);
            foreach (Vcpu v in g.Vcpus[1..]) v.Kick();
            threads.ForEach(static t => t.Join());
        }

        g.Ram.At<uint>(Started).Should().Be((uint)others);
        g.Vcpus[1..].Should().OnlyContain(static v => v.MpState == (uint)Uapi.KVM_MP_STATE_RUNNABLE || v.MpState == (uint)Uapi.KVM_MP_STATE_HALTED);
    }
}
