using System.Globalization;
using System.Security.Cryptography;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Arch.X86.Tests.Mmu.PagedGuest;

namespace Kvm.Arch.X86.Tests.Mmu;

/// <summary>
/// The same random guest with nested and with shadow paging ends in the same state: memory with all its tables, and every page fault on the way. The guest changes its
/// tables by every kind of instruction, maps them as data, switches between address spaces, and flushes what it changed.
/// </summary>
public sealed unsafe class RandomGuests
{
    private const ulong log = 0x300000, entries = 0x10000000;
    private const int pageCount = 24;

    public static TheoryData<string, string, Paging, int> Pairs
    {
        get
        {
            var data = new TheoryData<string, string, Paging, int>();
            foreach (Paging mode in (Paging[])[Paging.Bits32, Paging.Pae, Paging.Long])
            {
                for (int seed = 0; seed < 20; seed++)
                {
                    data.Add("intel", "intel ept=0", mode, seed);
                    data.Add("amd", "amd npt=0", mode, seed);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Pairs))]
    public void End_in_the_same_state(string nested, string shadow, Paging mode, int seed)
    {
        (string[] expected, byte[] memory) = Run(nested, mode, seed);
        (string[] found, byte[] shadowMemory) = Run(shadow, mode, seed);
        found.Should().Equal(expected);
        int at = memory.AsSpan().CommonPrefixLength(shadowMemory);
        at.Should().Be(memory.Length, $"memory differs at {at:x}: {Word(memory, at):x} with nested paging, {Word(shadowMemory, at):x} with shadow paging");
    }

    private static ulong Word(byte[] memory, int at) => at >= memory.Length ? 0 : BitConverter.ToUInt64(memory, at & ~7);

    private static (string[] Faults, byte[] Memory) Run(string host, Paging mode, int seed)
    {
        using var guest = new PagedGuest(host, mode);
        var random = new Random(seed);
        bool writeProtect = seed % 2 == 0;
        ulong second = guest.NewTable();

        // Tables and log are mapped; the tables also a second time, behind the data.
        for (ulong page = 0; page < 0x20; page++)
        {
            guest.Map(Tables + (page << 12), Tables + (page << 12), P | W | A | D);
            guest.Map(log + (page << 12), log + (page << 12), P | W | A | D);
        }

        for (int i = 0; i < pageCount; i++)
            guest.Map(Address(i), Data + ((ulong)i << 12), P | W | A | D);

        // The other address space has the same tables below its root.
        int bytes = mode == Paging.Pae ? 32 : 0x1000;
        Buffer.MemoryCopy(guest.At(guest.Root), guest.At(second), bytes, bytes);

        SetHandler(guest);
        guest.Assemble(a => Emit(a, guest, random, second, writeProtect), 0x14000).Should().BeLessThan(0x14000 * 2);
        guest.Host.Regs = guest.Host.Regs with { r14 = log };
        *(ulong*)guest.At(0x5000) = log;
        guest.SetRip(0x14000);
        guest.Run().Should().Be(-1, guest.Describe());
        ulong end = *(ulong*)guest.At(0x5000);
        List<string> faults = [];
        for (ulong at = log; at < end; at += 16)
            faults.Add(string.Create(CultureInfo.InvariantCulture, $"cr2 {*(ulong*)guest.At(at):x} error {*(ulong*)guest.At(at + 8):x}"));
        faults.Add(Convert.ToHexString(SHA256.HashData(new ReadOnlySpan<byte>(guest.At(Data), pageCount << 12))));
        faults.Add($"rax {guest.Host.Regs.rax:x} rdi {guest.Host.Regs.rdi:x}");
        return ([.. faults], new ReadOnlySpan<byte>(guest.At(0), (int)Guest.MemorySize).ToArray());
    }

    private static ulong Address(int i) => entries + ((ulong)i << 12) + ((ulong)(i / 8) << 22);

    /// <summary>The page-fault handler: writes address and error code to the log and goes on behind the access, whose end is in memory at 5008.</summary>
    private static void SetHandler(PagedGuest guest)
    {
        guest.Assemble(a =>
        {
            if (guest.Mode == Paging.Long)
            {
                a.push(rax);
                a.push(rbx);
                a.mov(rbx, __qword_ptr[0x5000]);
                a.mov(rax, cr2);
                a.mov(__qword_ptr[rbx], rax);
                a.mov(rax, __qword_ptr[rsp + 16]);
                a.mov(__qword_ptr[rbx + 8], rax);
                a.add(__qword_ptr[0x5000], 16);
                a.mov(rax, __qword_ptr[0x5008]);
                a.mov(__qword_ptr[rsp + 24], rax);
                a.pop(rbx);
                a.pop(rax);
                a.add(rsp, 8);
                a.iretq();
            }
            else
            {
                a.push(eax);
                a.push(ebx);
                a.mov(ebx, __dword_ptr[0x5000]);
                a.mov(eax, cr2);
                a.mov(__dword_ptr[ebx], eax);
                a.mov(eax, __dword_ptr[esp + 8]);
                a.mov(__dword_ptr[ebx + 8], eax);
                a.add(__dword_ptr[0x5000], 16);
                a.mov(eax, __dword_ptr[0x5008]);
                a.mov(__dword_ptr[esp + 12], eax);
                a.pop(ebx);
                a.pop(eax);
                a.add(esp, 4);
                a.iretd();
            }
        }, 0x6000);
        const ulong idt = 0x2000;
        ulong gate = 0x6000 | (8ul << 16) | (0x8eul << 40);
        *(ulong*)guest.At(idt + (14 * (guest.Mode == Paging.Long ? 16u : 8))) = gate;
    }

    private static void Emit(Assembler a, PagedGuest guest, Random random, ulong second, bool writeProtect)
    {
        bool inSecond = false;
        for (int step = 0; step < 400; step++)
        {
            int i = random.Next(pageCount);
            switch (random.Next(12))
            {
                case 0 or 1 or 2 or 3:
                    Access(a, guest, random, (uint)(Address(i) + (ulong)(random.Next(1000) & ~7)));
                    break;
                case 4 or 5 or 6:
                    WriteLeaf(a, guest, random, i, writeProtect);
                    break;
                case 7:
                    WriteUpper(a, guest, random, i);
                    break;
                case 8:
                    a.mov(eax, (uint)((inSecond = !inSecond) ? second : guest.Root));
                    LoadCr3(a, guest);
                    break;
                case 9:
                    a.mov(eax, (uint)(inSecond ? second : guest.Root));
                    LoadCr3(a, guest);
                    break;
                case 10:
                    Cr4(a, guest, 0x80);
                    Cr4(a, guest, 0x80);
                    break;
                default:
                    // Without write protection the tables would be written where they are mapped as data.
                    if (!writeProtect)
                        Cr0(a, guest, 0x10000);
                    break;
            }
        }

        a.hlt();
    }

    private static void LoadCr3(Assembler a, PagedGuest guest)
    {
        if (guest.Mode == Paging.Long)
            a.mov(cr3, rax);
        else
            a.mov(cr3, eax);
    }

    private static void Cr4(Assembler a, PagedGuest guest, int bit)
    {
        if (guest.Mode == Paging.Long)
        {
            a.mov(rax, cr4);
            a.xor(rax, bit);
            a.mov(cr4, rax);
        }
        else
        {
            a.mov(eax, cr4);
            a.xor(eax, bit);
            a.mov(cr4, eax);
        }
    }

    private static void Cr0(Assembler a, PagedGuest guest, int bit)
    {
        if (guest.Mode == Paging.Long)
        {
            a.mov(rax, cr0);
            a.xor(rax, bit);
            a.mov(cr0, rax);
        }
        else
        {
            a.mov(eax, cr0);
            a.xor(eax, bit);
            a.mov(cr0, eax);
        }
    }

    private static void Access(Assembler a, PagedGuest guest, Random random, uint at)
    {
        Label end = a.CreateLabel();
        if (guest.Mode == Paging.Long)
        {
            a.lea(rbx, __[end]);
            a.mov(__qword_ptr[0x5008], rbx);
        }
        else
        {
            // call over: the address of the end is on the stack
            Label here = a.CreateLabel();
            a.call(here);
            a.Label(ref here);
            a.pop(ebx);
            a.add(ebx, 40); // patched below by padding to a fixed length
            a.mov(__dword_ptr[0x5008], ebx);
        }

        // Within 40 bytes of "pop" in 32-bit code: add (3), mov (6), access (at most 10), then padding.
        switch (random.Next(6))
        {
            case 0: a.mov(eax, __dword_ptr[at]); break;
            case 1: a.mov(__dword_ptr[at], random.Next()); break;
            case 2: a.add(__dword_ptr[at], 3); break;
            case 3: a.xor(eax, __dword_ptr[at]); break;
            case 4: a.mov(__byte_ptr[at], 0x77); break;
            default: a.@lock.inc(__dword_ptr[at]); break;
        }

        if (guest.Mode != Paging.Long)
        {
            for (int n = 0; n < 48; n++)
                a.nop();
        }

        a.Label(ref end);
        a.nop();
    }

    /// <summary>A random entry for a data page: any rights, accessed or not, dirty or not, another page or one of the tables.</summary>
    private static ulong RandomEntry(Random random, bool tables)
    {
        ulong target = tables && random.Next(8) == 0 ? Tables + ((ulong)random.Next(12) << 12) : Data + ((ulong)random.Next(pageCount) << 12);
        ulong flags = random.Next(6) == 0 ? 0 : P;
        flags |= (ulong)random.Next(2) * W | (ulong)random.Next(2) * U | (ulong)random.Next(2) * A | (ulong)random.Next(2) * D;
        if (random.Next(4) == 0)
            flags |= G;
        if ((target & ~0xffful) >= Tables)
            flags &= ~W; // written through the mapping of their own only: else everything falls apart
        return target | flags;
    }

    private static void WriteLeaf(Assembler a, PagedGuest guest, Random random, int i, bool tables)
    {
        uint at = (uint)guest.EntryGpa(Address(i));
        StoreEntry(a, guest, random, at, RandomEntry(random, tables));
        Flush(a, guest, (uint)Address(i));
    }

    private static void WriteUpper(Assembler a, PagedGuest guest, Random random, int i)
    {
        ulong pde = guest.EntryGpa(Address(i), 2);
        ulong entry = (guest.ReadEntry(pde) & ~0xffful) | (random.Next(5) == 0 ? 0 : P) | (ulong)random.Next(2) * W | (ulong)random.Next(2) * U;

        // Now and then a large page in the table's place, with the same data.
        if (guest.Wide && random.Next(3) == 0)
            entry = Data | P | PS | (ulong)random.Next(2) * W | (ulong)random.Next(2) * U | (ulong)random.Next(2) * A | (ulong)random.Next(2) * D | (ulong)random.Next(2) * G;
        StoreEntry(a, guest, random, (uint)pde, entry);
        a.mov(eax, (uint)guest.Root);
        if (guest.Mode == Paging.Long)
        {
            a.mov(rax, cr3);
            a.mov(cr3, rax);
        }
        else
        {
            a.mov(eax, cr3);
            a.mov(cr3, eax);
        }

        // Global translations, too.
        Cr4(a, guest, 0x80);
        Cr4(a, guest, 0x80);
    }

    private static void StoreEntry(Assembler a, PagedGuest guest, Random random, uint at, ulong entry)
    {
        if (guest.Mode == Paging.Long && random.Next(2) == 0)
        {
            a.mov(rax, entry);
            switch (random.Next(3))
            {
                case 0: a.mov(__qword_ptr[at], rax); break;
                case 1: a.xchg(__qword_ptr[at], rax); break;
                default:
                    a.mov(rcx, rax);
                    a.mov(rax, __qword_ptr[at]);
                    a.@lock.cmpxchg(__qword_ptr[at], rcx);
                    break;
            }

            return;
        }

        a.mov(eax, (uint)entry);
        switch (random.Next(4))
        {
            case 0: a.mov(__dword_ptr[at], eax); break;
            case 1: a.xchg(__dword_ptr[at], eax); break;
            case 2:
                a.mov(edi, at);
                a.stosd();
                break;
            default:
                a.mov(ecx, eax);
                a.mov(eax, __dword_ptr[at]);
                a.@lock.cmpxchg(__dword_ptr[at], ecx);
                break;
        }

        if (guest.Wide)
            a.mov(__dword_ptr[at + 4], (uint)(entry >> 32));
    }

    private static void Flush(Assembler a, PagedGuest guest, uint at)
    {
        if (guest.Mode == Paging.Long)
        {
            a.mov(rax, at);
            a.invlpg(__[rax]);
        }
        else
        {
            a.mov(eax, at);
            a.invlpg(__[eax]);
        }
    }
}
