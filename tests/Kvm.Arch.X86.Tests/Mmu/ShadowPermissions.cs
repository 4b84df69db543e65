using System.Globalization;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Arch.X86.Tests.Mmu.PagedGuest;

namespace Kvm.Arch.X86.Tests.Mmu;

/// <summary>
/// Every combination of rights in two levels of tables, mode bits and kind of access: with shadow paging the guest gets the fault, the error code and the accessed and
/// dirty bits that the processor gives it with nested paging.
/// </summary>
public sealed unsafe class ShadowPermissions
{
    private const ulong userCode = 0x60000, setter = 0x11000, reader = 0x12000, writer = 0x13000, address = 0x10003000;

    public static TheoryData<string, string, Paging> Pairs
    {
        get
        {
            var data = new TheoryData<string, string, Paging>();
            foreach (Paging mode in (Paging[])[Paging.Bits32, Paging.Pae, Paging.Long])
            {
                data.Add("intel", "intel ept=0", mode);
                data.Add("amd", "amd npt=0", mode);
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Pairs))]
    public void Faults_and_accessed_and_dirty_bits_are_those_of_the_processor(string nested, string shadow, Paging mode)
    {
        List<string> expected = Outcomes(nested, mode);
        List<string> found = Outcomes(shadow, mode);
        found.Should().HaveCountGreaterThan(mode == Paging.Bits32 ? 300 : 1000);
        found.Except(expected).Take(10).Should().BeEmpty();
        found.Should().Equal(expected);
    }

    private static List<string> Outcomes(string host, Paging mode)
    {
        using var guest = new PagedGuest(host, mode);
        guest.Map(userCode, userCode, P | W | U | A | D);
        guest.Map(userCode + 0x1000, userCode + 0x1000, P | W | U | A | D);
        ulong pde = guest.EntryGpa(address, 2), pte = guest.EntryGpa(address);
        for (ulong table = Tables; table < Tables + 0x20000; table += 0x1000)
            guest.Map(table, table, P | W | A | D);
        *guest.At(Data) = 0xf4;
        *guest.At(Data + 0x3000) = 0xf4;

        // The guest writes its tables itself: the entry of the table in ebx (high half in ecx), of the page in edx (ebp).
        guest.Assemble(a =>
        {
            a.mov(__dword_ptr[(uint)pde], ebx);
            if (guest.Wide)
                a.mov(__dword_ptr[(uint)pde + 4], ecx);
            a.mov(__dword_ptr[(uint)pte], edx);
            if (guest.Wide)
                a.mov(__dword_ptr[(uint)pte + 4], ebp);
            if (mode == Paging.Long)
            {
                a.mov(rax, cr3);
                a.mov(cr3, rax);
            }
            else
            {
                a.mov(eax, cr3);
                a.mov(cr3, eax);
            }

            a.hlt();
        }, setter);
        foreach (ulong at in (ulong[])[reader, userCode])
        {
            guest.Assemble(a =>
            {
                a.mov(eax, __dword_ptr[(uint)address]);
                a.hlt();
            }, at);
        }

        foreach (ulong at in (ulong[])[writer, userCode + 0x800])
        {
            guest.Assemble(a =>
            {
                a.mov(__dword_ptr[(uint)address + 8], esi);
                a.hlt();
            }, at);
        }

        List<string> outcomes = [];
        ulong table1 = guest.ReadEntry(pde) & 0x000ffffffffff000;
        foreach (ulong pdeFlags in Flags(guest.Wide))
        {
            foreach (ulong pteFlags in Flags(guest.Wide).Append(W | U).Append(P | W | U | (guest.Wide ? 1ul << 51 : 0)).Append(P | W | A | D))
            {
                SetEntries(guest, table1 | pdeFlags | P, Data + 0x3000 | pteFlags);
                foreach (int access in (int[])[0, 1, 2, 3, 4, 5])
                {
                    // WP, SMEP, SMAP, NXE and AC: all of them in some, one after the other in the course of the others.
                    int modes = (outcomes.Count * 7) & 31;
                    outcomes.Add(One(guest, mode, pde, pte, access, modes, pdeFlags, pteFlags));
                    SetEntries(guest, table1 | pdeFlags | P, Data + 0x3000 | pteFlags);
                    outcomes.Add(One(guest, mode, pde, pte, access, outcomes.Count / 2 % 32, pdeFlags, pteFlags));
                }
            }
        }

        return outcomes;
    }

    private static IEnumerable<ulong> Flags(bool wide)
    {
        for (int i = 0; i < (wide ? 8 : 4); i++)
            yield return P | ((i & 1) != 0 ? W : 0) | ((i & 2) != 0 ? U : 0) | ((i & 4) != 0 ? Nx : 0);
    }

    private static void SetEntries(PagedGuest guest, ulong pde, ulong pte)
    {
        guest.ChangeSregs((ref Abi.kvm_sregs s) =>
        {
            s.cr0 |= 0x10000;
            s.cr4 &= ~0x300000ul;
            s.efer |= guest.Wide ? 0x800u : 0;
            guest.SetSegments(ref s, false);
        });
        guest.Host.Regs = guest.Host.Regs with { rip = setter, rsp = StackTop - 0x4000, rflags = 2, rbx = (uint)pde, rcx = pde >> 32, rdx = (uint)pte, rbp = pte >> 32 };
        guest.Run().Should().Be(-1);
    }

    private static string One(PagedGuest guest, Paging mode, ulong pde, ulong pte, int access, int modes, ulong pdeFlags, ulong pteFlags)
    {
        bool user = access >= 3;
        guest.ChangeSregs((ref Abi.kvm_sregs s) =>
        {
            s.cr0 = (modes & 1) != 0 ? s.cr0 | 0x10000 : s.cr0 & ~0x10000ul;
            s.cr4 = (s.cr4 & ~0x300000ul) | ((modes & 2) != 0 ? 0x100000u : 0) | ((modes & 4) != 0 ? 0x200000u : 0);
            s.cr2 = 0;
            if (guest.Wide)
                s.efer = (modes & 8) != 0 ? s.efer | 0x800 : s.efer & ~0x800ul;
            guest.SetSegments(ref s, user);
        });
        ulong rip = (access % 3) switch { 0 => user ? userCode : reader, 1 => user ? userCode + 0x800 : writer, _ => address };
        guest.SetRip(rip, (modes & 16) != 0 ? 0x40002u : 2);
        int vector = guest.Run();
        string result = string.Create(CultureInfo.InvariantCulture,
            $"{mode} pde {pdeFlags:x} pte {pteFlags:x} access {access} modes {modes:x}: {vector}");
        if (vector == 14)
            result += string.Create(CultureInfo.InvariantCulture, $" error {guest.ErrorCode:x} cr2 {guest.Host.Sregs.cr2:x}");
        return result + string.Create(CultureInfo.InvariantCulture, $" AD {guest.ReadEntry(pde) & 0x60:x} {guest.ReadEntry(pte) & 0x60:x}");
    }
}
