using Iced.Intel;
using Kvm.Emulator.Engine;
using Kvm.Interop;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>Decoded code follows the bytes in memory, whoever changes them (ARCHITECTURE D7).</summary>
public sealed unsafe class ChangedCode
{
    /// <summary>A store to the instruction that follows it in the same block takes effect at once.</summary>
    [Theory]
    [InlineData(32)]
    [InlineData(64)]
    public void Store_to_the_same_block_is_seen_by_the_next_instruction(int bits)
    {
        using var guest = new GuestMachine();
        guest.Start(bits, a =>
        {
            var target = a.CreateLabel();
            if (bits == 64)
                a.lea(rdi, __[target]);
            else
                a.mov(edi, (int)GuestMachine.CodeBase + 9);
            if (bits == 64)
                a.mov(__byte_ptr[rdi + 1], 7);
            else
                a.mov(__byte_ptr[edi + 1], 7);
            a.Label(ref target);
            a.mov(al, 1);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        (guest.State->Gpr[0] & 0xff).Should().Be(7);
    }

    /// <summary>A loop that rewrites the immediate of an instruction in another block, over and over.</summary>
    [Fact]
    public void Store_to_another_block_is_seen_when_it_runs_again()
    {
        using var guest = new GuestMachine();
        guest.Start(64, a =>
        {
            Label loop = a.CreateLabel(), function = a.CreateLabel();
            a.mov(ecx, 50);
            a.xor(edx, edx);
            a.Label(ref loop);
            a.call(function);
            a.add(edx, eax);
            a.lea(rdi, __[function]);
            a.mov(__dword_ptr[rdi + 1], ecx);
            a.dec(ecx);
            a.jnz(loop);
            a.hlt();
            a.Label(ref function);
            a.mov(eax, 1000);
            a.ret();
        });
        guest.Run().Should().Be(StopReason.Halted);
        // 1000 on the first call, then 50, 49, … 2.
        guest.State->Gpr[2].Should().Be(1000 + (50 * 51 / 2) - 1);
    }

    /// <summary>REP STOS over code that has run, and REP MOVS of new code, are stores like any other.</summary>
    [Fact]
    public void String_stores_change_code()
    {
        using var guest = new GuestMachine();
        const ulong other = GuestMachine.CodeBase + 0x800;
        guest.Load(other, [0xb8, 1, 0, 0, 0, 0xc3]);
        guest.Load(GuestMachine.DataBase, [0xb8, 2, 0, 0, 0, 0xc3]);
        guest.Start(64, a =>
        {
            a.mov(rbx, other);
            a.call(rbx);
            a.mov(edx, eax);
            a.mov(rdi, other);
            a.mov(rsi, GuestMachine.DataBase);
            a.mov(ecx, 6);
            a.rep.movsb();
            a.call(rbx);
            a.shl(eax, 8);
            a.or(edx, eax);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[2].Should().Be(0x201);
    }

    /// <summary>An instruction across a page boundary: a store to its second part, and to its first, are both seen.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    public void Store_to_either_part_of_a_crossing_instruction_is_seen(int changed)
    {
        using var guest = new GuestMachine();
        const ulong at = GuestMachine.CodeBase + 0x1ffe;
        byte[] before = [0xb8, 0x11, 0x22, 0x33, 0x44, 0xc3];
        guest.Load(at, before);
        guest.Start(64, a =>
        {
            a.mov(rbx, at);
            a.call(rbx);
            a.mov(rsi, rax);
            // changed == 0 turns mov eax into mov ecx.
            a.mov(__byte_ptr[rbx + changed], changed == 0 ? 0xb9 : 0x55);
            a.call(rbx);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[6].Should().Be(0x44332211);
        if (changed == 0)
            guest.State->Gpr[1].Should().Be(0x44332211);
        else
            guest.State->Gpr[0].Should().Be(0x44552211);
    }

    /// <summary>A crossing instruction follows the mapping of its second page.</summary>
    [Fact]
    public void Crossing_instruction_follows_a_new_mapping_of_its_second_page()
    {
        using var guest = new GuestMachine();
        // 4 KiB pages for the 2 MiB at 0x400000: two code pages, the second of which is exchanged.
        const ulong table = 0x9000, linear = 0x400000, first = 0x200000, secondA = 0x201000, secondB = 0x202000;
        guest.Load(first + 0xffd, [0xb8, 0x11, 0x22]);
        guest.Load(secondA, [0x33, 0x44, 0xc3]);
        guest.Load(secondB, [0x55, 0x66, 0xc3]);
        guest.Start(64, a =>
        {
            a.mov(rbx, linear + 0xffd);
            a.call(rbx);
            a.mov(esi, eax);
            a.mov(__qword_ptr[(int)(table + 8)], (int)(secondB | 3));
            a.invlpg(__byte_ptr[(int)(linear + 0x1000)]);
            a.call(rbx);
            a.hlt();
        });
        *(ulong*)(guest.Ram + GuestMachine.PageTables + 0x2000 + 16) = table | 7;
        *(ulong*)(guest.Ram + table) = first | 3;
        *(ulong*)(guest.Ram + table + 8) = secondA | 3;
        guest.Cpu.Mmu.FlushAll();
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[6].Should().Be(0x44332211);
        guest.State->Gpr[0].Should().Be(0x66552211);
    }

    /// <summary>Memory written behind the processor's back is noticed when the page's execute translation is filled again.</summary>
    [Fact]
    public void Code_written_by_a_device_is_seen_after_the_translation_is_refilled()
    {
        using var guest = new GuestMachine();
        guest.Start(64, a =>
        {
            a.mov(eax, 1);
            a.hlt();
        });
        guest.Run();
        guest.State->Gpr[0].Should().Be(1);
        guest.Ram[GuestMachine.CodeBase + 1] = 9;
        guest.Enter(64);
        guest.Run();
        guest.State->Gpr[0].Should().Be(9);
    }

    [Fact]
    public void Code_written_by_a_device_is_seen_once_the_processor_is_told()
    {
        using var guest = new GuestMachine();
        guest.Start(64, a =>
        {
            a.mov(eax, 1);
            a.hlt();
        });
        guest.Run();
        guest.Ram[GuestMachine.CodeBase + 1] = 9;
        guest.Cpu.CodeMayHaveChanged();
        guest.State->Activity = ActivityState.Active;
        guest.State->Rip = GuestMachine.CodeBase;
        guest.Run();
        guest.State->Gpr[0].Should().Be(9);
    }

    /// <summary>A disk that interrupts when it is done: what it loaded is code to be decoded.</summary>
    [Fact]
    public void Code_written_by_a_device_is_seen_behind_an_interrupt()
    {
        using var guest = new GuestMachine();
        guest.Start(64, a =>
        {
            a.mov(eax, 1);
            a.sti();
            a.hlt();
        });
        guest.Run();
        guest.Ram[GuestMachine.CodeBase + 1] = 9;
        guest.Cpu.RaiseInterrupt(0x1f);
        guest.Run();
        guest.State->Rip.Should().Be(GuestMachine.HandlerBase + 0x1f * 16 + 1);
        guest.State->Activity = ActivityState.Active;
        guest.State->Rip = GuestMachine.CodeBase;
        guest.Run();
        guest.State->Gpr[0].Should().Be(9);
    }

    /// <summary>INT 13h polls the disk, and returns.</summary>
    [Fact]
    public void Code_written_by_a_device_is_seen_behind_IRET_in_real_mode()
    {
        using var guest = new GuestMachine();
        guest.Start(16, a =>
        {
            a.mov(ax, 1); // 3 bytes
            a.hlt(); // 1
            a.pushf(); // at 4
            a.push(cs);
            a.push(bx);
            a.iret();
        });
        guest.Run();
        ulong second = guest.State->Rip;
        guest.State->Gpr[3] = second - 4;
        guest.State->Activity = ActivityState.Active;
        guest.Run();
        guest.State->Gpr[0].Should().Be(1);
        guest.Ram[GuestMachine.CodeBase + 1] = 9;
        guest.State->Activity = ActivityState.Active;
        guest.Run();
        guest.State->Gpr[0].Should().Be(9);
        guest.State->Rip.Should().Be(second);
    }

    /// <summary>Another processor's stores reach code that this one has decoded, also through a write translation it had before.</summary>
    [Fact]
    public void Store_by_another_processor_drops_decoded_code()
    {
        using var guest = new GuestMachine(processors: 2);
        const ulong other = 0x30000;
        Processor second = guest.Machine.Processors[1];
        guest.Start(64, a =>
        {
            a.mov(eax, 1);
            a.hlt();
        });
        // The second processor stores to the page before it holds decoded code, so it has a write translation for it.
        guest.Load(other, GuestMachine.Assemble(64, other, a =>
        {
            a.mov(__dword_ptr[(int)GuestMachine.CodeBase + 0x100], 0);
            a.hlt();
            a.mov(__dword_ptr[(int)GuestMachine.CodeBase + 1], 42);
            a.hlt();
        }));
        second.EnterKernelMode(new KernelContext { Cr3 = GuestMachine.PageTables, StackTop = 0x70000 });
        second.State->Rip = other;
        second.Run(100).Should().Be(StopReason.Halted);
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[0].Should().Be(1);
        second.State->Activity = ActivityState.Active;
        second.Run(100).Should().Be(StopReason.Halted);
        guest.State->Activity = ActivityState.Active;
        guest.State->Rip = GuestMachine.CodeBase;
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[0].Should().Be(42);
    }

    /// <summary>A page that is written over and over stops being a code page, so that stores to it are fast again.</summary>
    [Fact]
    public void Page_that_became_data_is_forgotten()
    {
        using var guest = new GuestMachine();
        const ulong other = GuestMachine.CodeBase + 0x2000;
        guest.Load(other, [0xc3]);
        guest.Start(64, a =>
        {
            var loop = a.CreateLabel();
            a.mov(rbx, other);
            a.call(rbx);
            a.mov(ecx, 5000);
            a.Label(ref loop);
            a.mov(__dword_ptr[rbx + 0x800], ecx);
            a.dec(ecx);
            a.jnz(loop);
            a.hlt();
        });
        guest.Run();
        guest.Cpu.Code.IsCodePage(other).Should().BeFalse();
        guest.Cpu.Code.IsCodePage(GuestMachine.CodeBase).Should().BeTrue();
    }

    /// <summary>The arena is bounded: more code than it holds is decoded again, and runs right.</summary>
    [Fact]
    public void Cache_overflow_starts_over()
    {
        using var guest = new GuestMachine();
        guest.Cpu.UseCodeCache(new CodeCache(guest.Cpu, 64 << 10));
        // 200 functions of ten instructions, each in a block of its own.
        for (uint i = 0; i < 200; i++)
        {
            uint n = i;
            ulong at = 0x40000 + i * 64;
            guest.Load(at, GuestMachine.Assemble(64, at, a =>
            {
                for (int k = 0; k < 10; k++)
                    a.add(eax, (int)n);
                a.ret();
            }));
        }
        guest.Start(64, a =>
        {
            Label pass = a.CreateLabel(), each = a.CreateLabel();
            a.xor(eax, eax);
            a.mov(edx, 3);
            a.Label(ref pass);
            a.xor(ecx, ecx);
            a.Label(ref each);
            a.mov(ebx, ecx);
            a.shl(ebx, 6);
            a.add(ebx, 0x40000);
            a.call(rbx);
            a.inc(ecx);
            a.cmp(ecx, 200);
            a.jb(each);
            a.dec(edx);
            a.jnz(pass);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[0].Should().Be(3 * 10 * (199 * 200 / 2));
        guest.Cpu.Code.BlocksDecoded.Should().BeGreaterThan(600);
    }

    /// <summary>Memory with code is withdrawn and unmapped: what another processor tells of its pages later finds the code forgotten, not a hole.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Withdrawn_memory_is_not_looked_at_again(bool crossing)
    {
        const ulong page = 0x4000_0000;
        using var guest = new GuestMachine();
        byte* host = (byte*)LibC.mmap(null, 0x2000, LibC.PROT_READ | LibC.PROT_WRITE, LibC.MAP_PRIVATE | LibC.MAP_ANONYMOUS, -1, 0);
        guest.Machine.Memory.Map(page, 0x1000, host);
        guest.Machine.Memory.Map(page + 0x1000, 0x1000, host + 0x1000);
        int at = crossing ? 0xffe : 0xff0;
        new byte[] { 0xb8, 1, 2, 3, 4, 0xc3 }.CopyTo(new Span<byte>(host + at, 6)); // mov eax, 0x04030201; ret
        guest.Start(32, a =>
        {
            a.mov(eax, (int)page + at);
            a.call(eax);
            a.hlt();
        });
        guest.Run().Should().Be(StopReason.Halted);
        guest.State->Gpr[0].Should().Be(0x04030201);
        ulong gone = crossing ? page + 0x1000 : page;
        guest.Machine.Memory.Unregister(gone, 0x1000);
        LibC.munmap(host + (gone - page), 0x1000);
        guest.Cpu.Code.VerifyCode(page);
        guest.Cpu.Code.VerifyCode(page + 0x1000);
        guest.Cpu.Code.IsCodePage(gone).Should().BeFalse("nothing decoded is left of it");
        LibC.munmap(host + (gone == page ? 0x1000u : 0), 0x1000);
    }
}
