using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Arch.X86.Tests.Mmu.PagedGuest;

namespace Kvm.Arch.X86.Tests.Mmu;

/// <summary>Guests whose tables KVM shadows: they see what their own tables say, as on a processor of their own.</summary>
public sealed unsafe class ShadowPaging
{
    public static string[] Hosts { get; } = ["intel", "intel ept=0", "intel unrestricted_guest=0", "amd", "amd npt=0"];

    public static TheoryData<string, Paging> All
    {
        get
        {
            var data = new TheoryData<string, Paging>();
            foreach (string host in Hosts)
            {
                foreach (Paging mode in Enum.GetValues<Paging>())
                    data.Add(host, mode);
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(All))]
    public void A_program_reads_and_writes_its_memory(string host, Paging mode)
    {
        using var guest = new PagedGuest(host, mode);
        for (ulong i = 0; i < 16; i++)
            guest.Map(Data + (i << 12), Data + (i << 12), P | W);
        guest.Assemble(a =>
        {
            Label loop = a.CreateLabel();
            a.mov(edi, (uint)Data);
            a.mov(ecx, 16);
            a.Label(ref loop);
            a.mov(__dword_ptr[edi], ecx);
            a.add(__dword_ptr[edi], 100);
            a.add(edi, 0x1000);
            a.dec(ecx);
            a.jne(loop);
            a.mov(eax, __dword_ptr[(uint)Data + 0x5000]);
            a.hlt();
        });
        guest.Run().Should().Be(-1);
        guest.Host.Regs.rax.Should().Be(111);
        for (ulong i = 0; i < 16; i++)
        {
            (*(uint*)guest.At(Data + (i << 12))).Should().Be(116 - (uint)i);
            if (mode != Paging.None)
                (guest.ReadEntry(guest.EntryGpa(Data + (i << 12))) & 0x67).Should().Be(P | W | A | D);
        }
    }
}
