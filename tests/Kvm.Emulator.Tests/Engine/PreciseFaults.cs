using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>An instruction that faults has changed nothing; the saved RIP is its own.</summary>
public sealed unsafe class PreciseFaults
{
    /// <summary>Not mapped: behind the RAM, made not-present by <see cref="Run"/>.</summary>
    private const ulong Hole = 0x600000;

    private static void Run(Action<Assembler> setUp, Action<Assembler> faulting, int vector, Action<GuestMachine>? check = null, CpuModel? model = null)
    {
        using var guest = new GuestMachine(model);
        byte[] prologue = GuestMachine.Assemble(64, GuestMachine.CodeBase, a => { setUp(a); a.nop(); });
        ulong at = GuestMachine.CodeBase + (ulong)prologue.Length;
        byte[] code = GuestMachine.Assemble(64, at, a => { faulting(a); a.hlt(); });
        guest.Start(64, [.. prologue, .. code]);
        *(ulong*)(guest.Ram + GuestMachine.PageTables + 0x2000 + 8 * (Hole >> 21)) = 0;
        guest.Cpu.Mmu.FlushAll();
        for (int i = 0; i < 1000 && guest.State->Rip != at; i++)
            guest.Run(1);
        ulong* before = stackalloc ulong[17];
        for (int i = 0; i < 16; i++)
            before[i] = guest.State->Gpr[i];
        before[16] = guest.Cpu.Rflags;
        guest.Run(100).Should().Be(StopReason.Halted);
        guest.Fault.Should().Be(vector);
        guest.FaultRip(vector, longMode: true).Should().Be(at);
        for (int i = 0; i < 16; i++)
            if (i != 4)
                guest.State->Gpr[i].Should().Be(before[i], "register {0}", i);
        ulong frame = guest.State->Gpr[4] + (vector is 8 or (>= 10 and <= 14) or 17 ? 8UL : 0);
        // RF is set in the image of a fault.
        (guest.Quad(frame + 16) & 0xcd5).Should().Be(before[16] & 0xcd5);
        guest.Quad(frame + 24).Should().Be(before[4]);
        check?.Invoke(guest);
    }

    [Fact] public void Load() => Run(a => { a.mov(rbx, Hole); a.cmp(eax, 1); }, a => a.add(rax, __qword_ptr[rbx]), 14, g => g.State->Cr2.Should().Be(Hole));
    [Fact] public void Store() => Run(a => { a.mov(rbx, Hole + 8); a.stc(); }, a => a.mov(__dword_ptr[rbx], eax), 14, g => g.State->Cr2.Should().Be(Hole + 8));
    [Fact] public void Read_modify_write() => Run(a => { a.mov(rbx, Hole); a.stc(); }, a => a.adc(__qword_ptr[rbx], rax), 14);
    [Fact] public void Locked_exchange_add() => Run(a => { a.mov(rbx, Hole); a.mov(ecx, 5); }, a => a.@lock.xadd(__dword_ptr[rbx], ecx), 14);
    [Fact] public void Push() => Run(a => { a.mov(rbx, Hole); }, a => a.push(__qword_ptr[rbx]), 14);
    [Fact] public void Pop_to_memory() => Run(a => { a.push(rax); a.mov(rbx, Hole); }, a => a.pop(__qword_ptr[rbx]), 14);
    [Fact] public void Split_store_writes_neither_half() => Run(a => { a.mov(rbx, Hole - 4); a.mov(rax, -1); a.mov(rcx, 0x1111); }, a => a.mov(__qword_ptr[rbx], rax), 14);
    [Fact] public void Compare_exchange_16() => Run(a => { a.mov(rbx, Hole); }, a => a.cmpxchg16b(__xmmword_ptr[rbx]), 14);
    [Fact] public void Misaligned_compare_exchange_16() => Run(a => { a.mov(rbx, GuestMachine.DataBase + 8); }, a => a.cmpxchg16b(__xmmword_ptr[rbx]), 13);
    [Fact] public void Divide_by_zero() => Run(a => { a.xor(ecx, ecx); a.mov(edx, 3); }, a => a.div(rcx), 0);
    [Fact] public void Divide_overflow() => Run(a => { a.mov(ecx, 3); a.mov(edx, 3); }, a => a.div(ecx), 0);
    [Fact] public void Signed_divide_of_the_most_negative_number() => Run(a => { a.mov(rax, 0x8000000000000000UL); a.cqo(); a.mov(rcx, -1); }, a => a.idiv(rcx), 0);
    [Fact] public void Undefined() => Run(a => { a.stc(); }, a => a.ud2(), 6);
    [Fact] public void Lock_where_it_is_not_allowed() => Run(a => { a.stc(); }, a => a.db(0xf0, 0x01, 0xc0), 6);
    [Fact] public void Lock_on_a_load() => Run(a => { a.mov(rbx, GuestMachine.DataBase); }, a => a.db(0xf0, 0x03, 0x03), 6);
    [Fact] public void Sixteen_bytes() => Run(a => { a.stc(); }, a => a.db(0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90), 13);
    [Fact] public void Twelve_prefixes_and_an_immediate() => Run(a => { a.stc(); }, a => a.db([.. Enumerable.Repeat((byte)0x2e, 12), 0x81, 0xc0, 1, 2, 3, 4]), 13);
    [Fact] public void Jump_to_a_non_canonical_address() => Run(a => { a.mov(rax, 0x0000_8000_0000_0000UL); }, a => a.jmp(rax), 13);
    [Fact] public void Return_to_a_non_canonical_address() => Run(a => { a.mov(rax, 0x8000_0000_0000_0000UL); a.push(rax); }, a => a.ret(), 13);
    [Fact] public void Load_from_a_non_canonical_address() => Run(a => { a.mov(rbx, 0x0000_8000_0000_0000UL); }, a => a.mov(rax, __[rbx]), 13);
    [Fact] public void Stack_at_a_non_canonical_address_is_a_stack_fault() => Run(a => { a.mov(rbp, 0x0000_8000_0000_0000UL); }, a => a.mov(rax, __[rbp + 8]), 12);
    [Fact] public void Instruction_of_an_absent_feature() => Run(a => { a.mov(eax, 5); }, a => a.popcnt(ecx, eax), 6, model: CpuModel.Load("minimal-x86-64"));
    [Fact] public void Sse_before_it_is_switched_on() => Run(a => { a.mov(rax, cr4); a.btr(rax, 9); a.mov(cr4, rax); }, a => a.addps(xmm0, xmm1), 6);
    [Fact] public void X87_while_emulated() => Run(a => { a.mov(rax, cr0); a.or(rax, 4); a.mov(cr0, rax); }, a => a.fld1(), 7);

    /// <summary>Fetching the second half of an instruction faults with the address of the page it needs.</summary>
    [Fact]
    public void Fetch_of_the_second_page()
    {
        using var guest = new GuestMachine();
        guest.Load(GuestMachine.Size - 2, [0xb8, 1]);
        guest.Start(64, a => { a.mov(rbx, GuestMachine.Size - 2); a.jmp(rbx); });
        *(ulong*)(guest.Ram + GuestMachine.PageTables + 0x2000 + 8 * (GuestMachine.Size >> 21)) = 0;
        guest.Cpu.Mmu.FlushAll();
        guest.Run(100).Should().Be(StopReason.Halted);
        guest.Fault.Should().Be(14);
        guest.State->Cr2.Should().Be(GuestMachine.Size);
        guest.FaultRip(14, longMode: true).Should().Be(GuestMachine.Size - 2);
    }

    /// <summary>A short program in 16-bit code that runs past the limit of CS faults there.</summary>
    [Fact]
    public void Code_segment_limit_in_real_mode()
    {
        using var guest = new GuestMachine();
        guest.Load(GuestMachine.CodeBase + 0xfffd, [0x90, 0x90, 0x90]);
        guest.Start(16, a => { a.mov(ax, 7); a.jmp(0xfffd); });
        guest.Run(100).Should().Be(StopReason.Halted);
        guest.Fault.Should().Be(13);
        // The frame holds the low half of EIP 10000.
        (guest.Quad(guest.State->Gpr[4] & 0xffff) & 0xffff).Should().Be(0);
    }
}
