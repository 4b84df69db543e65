using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>What generated code must not outlive or pass over: mappings, code bytes, requests, the pages of its operands.</summary>
public sealed unsafe class NativeEngineRules
{
    private static GuestMachine Create(int processors = 1, int threshold = 0)
    {
        var guest = new GuestMachine(processors: processors, engine: new EngineOptions { Engine = ExecutionEngine.Native, Threshold = threshold });
        if (guest.Cpu.NativeEngine is null)
        {
            guest.Dispose();
            Skip.If(true, "no native engine on this host");
        }
        return guest;
    }

    private static ulong Left(GuestMachine guest) => (ulong)guest.Cpu.NativeEngine!.Statistics.Exits.Sum(static n => (long)n);

    /// <summary>A loop of millions of turns leaves generated code a few times, not once per turn.</summary>
    [SkippableFact]
    public void Loops_stay_in_generated_code()
    {
        using GuestMachine guest = Create(threshold: 32);
        guest.Start(64, a =>
        {
            Label loop = a.CreateLabel(), function = a.CreateLabel();
            a.mov(ecx, 1_000_000);
            a.xor(eax, eax);
            a.Label(ref loop);
            a.call(function);
            a.add(rax, __qword_ptr[rsp - 8]);
            a.dec(ecx);
            a.jnz(loop);
            a.hlt();
            a.nop(0x1000);
            a.Label(ref function);
            a.push(rcx);
            a.pop(rdx);
            a.ret();
        });
        guest.Run(100_000_000).Should().Be(StopReason.Halted);
        guest.State->InstructionsRetired.Should().Be(2 + (1_000_000 * 7) + 1);
        Left(guest).Should().BeLessThan(100);
    }

    /// <summary>A request of another thread ends a loop that does nothing but jump.</summary>
    [SkippableFact]
    public void A_stop_request_is_seen_in_an_endless_loop()
    {
        using GuestMachine guest = Create();
        guest.Start(64, [0xeb, 0xfe]);
        var stop = new Thread(() =>
        {
            Thread.Sleep(30);
            guest.Cpu.RequestStop();
        });
        stop.Start();
        guest.Run(ulong.MaxValue).Should().Be(StopReason.StopRequested);
        stop.Join();
        guest.State->Rip.Should().Be(GuestMachine.CodeBase);
        guest.State->InstructionsRetired.Should().BeGreaterThan(1000);
    }

    /// <summary>A page that holds a called function is mapped elsewhere: after INVLPG calls find the other function, direct and indirect ones.</summary>
    [SkippableTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_page_that_is_mapped_elsewhere_has_other_code(bool indirect)
    {
        using GuestMachine guest = Create();
        // A page table for the second 2 MiB; the function's page is the first there, at physical 0x30000, then 0x31000.
        const ulong table = 0x9000, function = 0x20_0000;
        ulong* entries = (ulong*)(guest.Ram + table);
        entries[0] = 0x30000 | 7;
        guest.Load(0x30000, [0xb8, 1, 0, 0, 0, 0xc3]);
        guest.Load(0x31000, [0xb8, 2, 0, 0, 0, 0xc3]);
        guest.Start(64, a =>
        {
            Label loop = a.CreateLabel(), again = a.CreateLabel();
            a.xor(edx, edx);
            a.mov(ebx, (int)function);
            a.Label(ref again);
            a.mov(ecx, 10);
            a.Label(ref loop);
            if (indirect)
                a.call(rbx);
            else
                a.call(function);
            a.add(edx, eax);
            a.dec(ecx);
            a.jnz(loop);
            a.cmp(edx, 10);
            Label done = a.CreateLabel();
            a.jne(done);
            a.mov(__dword_ptr[(long)table], 0x31000 | 7);
            a.invlpg(__[rbx]);
            a.jmp(again);
            a.Label(ref done);
            a.hlt();
        });
        ((ulong*)(guest.Ram + GuestMachine.PageTables + 0x2000))[1] = table | 7;
        guest.Cpu.Mmu.FlushAll();
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[2].Should().Be(10 + 20);
    }

    /// <summary>Bytes that a device has changed are found changed when the embedder says that this may be.</summary>
    [SkippableFact]
    public void Code_that_changed_behind_the_processors_back_is_compared()
    {
        using GuestMachine guest = Create();
        guest.Start(64, [0xb8, 1, 0, 0, 0, 0xf4]);
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[0].Should().Be(1);
        guest.Ram[GuestMachine.CodeBase + 1] = 2;
        guest.Cpu.CodeMayHaveChanged();
        guest.Enter(64);
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[0].Should().Be(2);
    }

    /// <summary>Operands on both sides of a page's end share a base: they are right, and after a while have a check each, so that the loop stays in generated code.</summary>
    [SkippableFact]
    public void Operands_around_the_end_of_a_page_are_separated()
    {
        using GuestMachine guest = Create();
        guest.Start(64, a =>
        {
            Label loop = a.CreateLabel();
            a.mov(ebx, (int)GuestMachine.DataBase + 0x1000);
            a.mov(ecx, 100_000);
            a.Label(ref loop);
            a.inc(__qword_ptr[rbx - 8]);
            a.inc(__qword_ptr[rbx]);
            a.dec(ecx);
            a.jnz(loop);
            a.hlt();
        });
        guest.Run(10_000_000).Should().Be(StopReason.Halted);
        guest.Quad(GuestMachine.DataBase + 0xff8).Should().Be(100_000);
        guest.Quad(GuestMachine.DataBase + 0x1000).Should().Be(100_000);
        Left(guest).Should().BeLessThan(200);
    }

    /// <summary>A division whose quotient does not fit is the guest's #DE, not the host's.</summary>
    [SkippableTheory]
    [InlineData(0, 5, 0)]
    [InlineData(5, 5, 1)]
    [InlineData(-1, long.MinValue, -1)]
    public void Quotients_that_do_not_fit_fault(long rdx, long rax, long divisor)
    {
        foreach (bool signed in new[] { true, false })
        {
            if (signed && divisor == 1)
                continue;
            using GuestMachine guest = Create();
            guest.Start(64, a =>
            {
                a.mov(rdx_, rdx);
                a.mov(Iced.Intel.AssemblerRegisters.rax, rax);
                a.mov(rbx, divisor);
                if (signed)
                    a.idiv(rbx);
                else
                    a.div(rbx);
                a.hlt();
            });
            guest.Run().Should().Be(StopReason.Halted);
            bool faults = signed || (ulong)rdx >= (ulong)divisor;
            guest.Fault.Should().Be(faults ? 0 : -1);
        }
    }

    private static readonly AssemblerRegister64 rdx_ = Iced.Intel.AssemblerRegisters.rdx;

    /// <summary>Increments with LOCK by two processors are all counted, whichever engine executes them.</summary>
    [SkippableFact]
    public void Locked_increments_of_two_processors_are_all_counted()
    {
        using GuestMachine guest = Create(processors: 2, threshold: 32);
        const int turns = 200_000;
        const long counter = (long)GuestMachine.DataBase;
        guest.Start(64, a =>
        {
            Label loop = a.CreateLabel();
            a.mov(ecx, turns);
            a.Label(ref loop);
            a.@lock.inc(__qword_ptr[counter]);
            a.mov(eax, 1);
            a.@lock.xadd(__dword_ptr[counter + 16], eax);
            a.dec(ecx);
            a.jnz(loop);
            a.hlt();
        });
        Processor second = guest.Machine.Processors[1];
        CpuState* s = guest.State, t = second.State;
        t->Activity = ActivityState.Active;
        (t->Cr0, t->Cr3, t->Cr4, t->Efer, t->Rip, t->Cpl) = (s->Cr0, s->Cr3, s->Cr4, s->Efer, s->Rip, 0);
        t->Segs = s->Segs;
        t->Gpr[4] = GuestMachine.StackTop - 0x4000;
        second.Rflags = 2;
        second.Mmu.FlushAll();
        second.UpdateMode();
        var other = new Thread(() => second.Run(100_000_000));
        other.Start();
        guest.Run(100_000_000).Should().Be(StopReason.Halted);
        other.Join();
        guest.Quad(GuestMachine.DataBase).Should().Be(2 * turns);
        guest.Quad(GuestMachine.DataBase + 16).Should().Be(2 * turns);
    }
}
