using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>Stack frames, loops, branches and bounds in the modes where they differ.</summary>
public sealed unsafe class StackAndBranches
{
    [Fact]
    public void Pushad_and_popad_skip_esp()
    {
        using var guest = new GuestMachine();
        guest.Start(32, a =>
        {
            for (int i = 0; i < 8; i++)
                if (i != 4)
                    a.mov(new AssemblerRegister32(Register.EAX + i), 100 + i);
            a.pushad();
            a.mov(edi, __dword_ptr[esp + 12]);
            a.mov(__dword_ptr[(int)GuestMachine.DataBase], edi);
            a.mov(__dword_ptr[esp + 12], 0);
            a.xor(eax, eax);
            a.popad();
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[0].Should().Be(100);
        guest.State->Gpr[7].Should().Be(107);
        guest.State->Gpr[4].Should().Be(GuestMachine.StackTop);
        // The image of ESP is the value before the first push.
        guest.Quad(GuestMachine.DataBase).Should().Be(GuestMachine.StackTop);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(3)]
    public void Enter_and_leave(int level)
    {
        using var guest = new GuestMachine();
        guest.Start(64, a =>
        {
            a.mov(rbp, rsp);
            a.push(0x11);
            a.push(0x22);
            a.push(0x33);
            a.mov(rbx, rsp);
            a.enter(0x40, (sbyte)level);
            a.mov(rcx, rsp);
            a.mov(rdx, rbp);
            a.leave();
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        ulong frame = guest.State->Gpr[3] - 8;
        guest.State->Gpr[2].Should().Be(frame);
        guest.State->Gpr[1].Should().Be(frame - (ulong)(8 * level) - 0x40);
        guest.State->Gpr[5].Should().Be(GuestMachine.StackTop);
        guest.State->Gpr[4].Should().Be(guest.State->Gpr[3]);
        if (level == 0)
            return;
        // The copies of the outer frame pointers are what lay below the old RBP; the new frame pointer comes last.
        if (level > 1)
            guest.Quad(frame - 8).Should().Be(0x11);
        if (level > 2)
            guest.Quad(frame - 16).Should().Be(0x22);
        guest.Quad(frame - (ulong)(8 * level)).Should().Be(frame);
    }

    [Fact]
    public void Pop_into_memory_addresses_with_the_new_stack_pointer()
    {
        using var guest = new GuestMachine();
        guest.Start(64, a =>
        {
            a.push(0x55);
            a.pop(__qword_ptr[rsp]);
            a.mov(rax, __qword_ptr[rsp]);
            a.push(rsp);
            a.pop(rbx);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[0].Should().Be(0x55);
        guest.State->Gpr[3].Should().Be(GuestMachine.StackTop);
    }

    [Fact]
    public void Sixteen_bit_stack_wraps()
    {
        using var guest = new GuestMachine();
        guest.Start(16, a =>
        {
            a.mov(ax, 0x4000);
            a.mov(ss, ax);
            a.xor(sp, sp);
            a.mov(cx, 0x1234);
            a.push(cx);
            a.pop(dx);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        (guest.State->Gpr[2] & 0xffff).Should().Be(0x1234);
        (guest.State->Gpr[4] & 0xffff).Should().Be(0);
        guest.Ram[0x4fffe].Should().Be(0x34);
    }

    [Theory]
    [InlineData(16, false)]
    [InlineData(16, true)]
    [InlineData(32, false)]
    [InlineData(64, true)]
    public void Loop_counts_in_the_address_size(int bits, bool other)
    {
        using var guest = new GuestMachine();
        // Counter with garbage above the part that counts.
        guest.Start(bits, other ? [0x40 ^ 0x40 | 0x90, 0x67, 0xe2, 0xfc, 0xf4] : [0x90, 0xe2, 0xfd, 0xf4]);
        bool counts16 = bits == 16 && !other, counts32 = (bits == 16 && other) || (bits == 32 && !other) || (bits == 64 && other);
        ulong before = counts16 ? 0x7_0003UL : counts32 ? 0x7_0000_0003UL : 3;
        guest.State->Gpr[1] = before;
        guest.Run(1000).Should().Be(StopReason.Halted);
        guest.State->Gpr[1].Should().Be(counts16 ? 0x7_0000UL : 0);
        guest.State->InstructionsRetired.Should().Be(7);
    }

    [Fact]
    public void Jcxz_looks_at_the_address_size_only()
    {
        using var guest = new GuestMachine();
        guest.Start(64, a =>
        {
            Label no = a.CreateLabel();
            a.mov(rcx, 0x1_0000_0000UL);
            // jecxz over the ud2
            a.db(0x67, 0xe3, 0x02);
            a.ud2();
            a.jrcxz(no);
            a.mov(eax, 1);
            a.Label(ref no);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[0].Should().Be(1);
    }

    [Fact]
    public void Loopne_stops_on_zero()
    {
        using var guest = new GuestMachine();
        guest.Start(32, a =>
        {
            var loop = a.CreateLabel();
            a.mov(ecx, 100);
            a.mov(eax, 5);
            a.Label(ref loop);
            a.dec(eax);
            a.loopne(loop);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[1].Should().Be(95);
    }

    [Theory]
    [InlineData(-5, false)]
    [InlineData(-6, true)]
    [InlineData(9, false)]
    [InlineData(10, true)]
    public void Bound_is_inclusive(int index, bool faults)
    {
        using var guest = new GuestMachine();
        *(int*)(guest.Ram + GuestMachine.DataBase) = -5;
        *(int*)(guest.Ram + GuestMachine.DataBase + 4) = 9;
        guest.Start(32, a =>
        {
            a.mov(eax, index);
            a.bound(eax, __qword_ptr[(int)GuestMachine.DataBase]);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.Fault.Should().Be(faults ? 5 : -1);
    }

    [Fact]
    public void Xlat_uses_the_overridden_segment()
    {
        using var guest = new GuestMachine();
        guest.Load(0x50010, [9, 8, 7]);
        guest.Start(16, a =>
        {
            a.mov(ax, 0x5000);
            a.mov(es, ax);
            a.mov(bx, 0x10);
            a.mov(al, 2);
            a.db(0x26, 0xd7);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        (guest.State->Gpr[0] & 0xff).Should().Be(7);
    }

    /// <summary>A near jump with a 16-bit operand in 32-bit code clears the upper half of EIP.</summary>
    [Fact]
    public void Sixteen_bit_jump_truncates_eip()
    {
        using var guest = new GuestMachine();
        guest.Load(0x0500, [0xb8, 7, 0, 0, 0, 0xf4]);
        // jmp rel16 from 0x10000 + 4 to 0x0500.
        guest.Start(32, [0x66, 0xe9, 0xfc, 0x04]);
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[0].Should().Be(7);
    }

    /// <summary>The FS base is added in 64-bit code; the DS base is not.</summary>
    [Fact]
    public void Segment_bases_in_long_mode()
    {
        using var guest = new GuestMachine();
        *(uint*)(guest.Ram + GuestMachine.DataBase + 0x123) = 77;
        guest.Start(64, a =>
        {
            a.mov(eax, __dword_ptr.fs[0x23]);
            a.mov(ebx, __dword_ptr.ds[(int)GuestMachine.DataBase + 0x123]);
            a.add(__dword_ptr.fs[rcx + 0x23], 1);
            a.hlt();
        });
        guest.Segment(Seg.FS).Base = GuestMachine.DataBase + 0x100;
        guest.Segment(Seg.DS).Base = 0x5000;
        guest.State->Gpr[1] = 0;
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[0].Should().Be(77);
        guest.State->Gpr[3].Should().Be(77);
        guest.Quad(GuestMachine.DataBase + 0x123).Should().Be(78);
    }

    /// <summary>The budget ends a run after exactly that many instructions, wherever in a block that is.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(5)]
    [InlineData(17)]
    public void Budget_is_exact(int budget)
    {
        using var guest = new GuestMachine();
        guest.Start(64, a =>
        {
            var loop = a.CreateLabel();
            a.xor(eax, eax);
            a.Label(ref loop);
            a.inc(rax);
            a.inc(rax);
            a.inc(rax);
            a.jmp(loop);
        });
        guest.Run((ulong)budget).Should().Be(StopReason.Budget);
        guest.State->InstructionsRetired.Should().Be((ulong)budget);
        int rest = budget - 1;
        guest.State->Gpr[0].Should().Be((ulong)(rest / 4 * 3 + Math.Min(rest % 4, 3)));
    }

    /// <summary>A request from another thread ends a guest that loops for ever.</summary>
    [Fact]
    public void Stop_request_ends_an_endless_loop()
    {
        using var guest = new GuestMachine();
        guest.Start(64, [0xeb, 0xfe]);
        using var timer = new Periodic(guest.Cpu.RequestStop, 20, once: true);
        guest.Run(ulong.MaxValue).Should().Be(StopReason.StopRequested);
    }

    /// <summary>In steady state nothing is allocated on the managed heap.</summary>
    [Fact]
    public void Execution_allocates_nothing()
    {
        using var guest = new GuestMachine();
        guest.Start(64, a =>
        {
            var loop = a.CreateLabel();
            a.mov(ecx, 1000);
            a.Label(ref loop);
            a.push(rcx);
            a.pop(rdx);
            a.mov(rdi, GuestMachine.DataBase);
            a.stosb();
            a.@lock.xadd(__dword_ptr[rdi], ecx);
            a.mov(ecx, edx);
            a.dec(ecx);
            a.jnz(loop);
            a.hlt();
        });
        guest.Run(1_000_000);
        guest.State->Rip = GuestMachine.CodeBase;
        guest.State->Activity = ActivityState.Active;
        long before = GC.GetAllocatedBytesForCurrentThread();
        StopReason reason = guest.Run(1_000_000);
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        reason.Should().Be(StopReason.Halted);
        allocated.Should().Be(0);
    }
}
