using Iced.Intel;
using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Tests.Mmu.PagedGuest;

namespace Kvm.Arch.X86.Tests.Mmu;

/// <summary>Two vCPUs on two processors with the same tables.</summary>
public sealed unsafe class ShadowSmp
{
    private const uint rounds = 2000;

    public static TheoryData<string, Paging, bool> Cases
    {
        get
        {
            var data = new TheoryData<string, Paging, bool>();
            foreach (string host in (string[])["intel ept=0", "amd npt=0", "intel", "amd"])
            {
                foreach (Paging mode in (Paging[])[Paging.Bits32, Paging.Pae, Paging.Long])
                {
                    data.Add(host, mode, false);
                    data.Add(host, mode, true);
                }
            }

            return data;
        }
    }

    /// <summary>
    /// One vCPU points an entry at one frame after the other and says so; the other flushes its translation and finds that frame's content, every time. With the upper
    /// table, too.
    /// </summary>
    [Theory]
    [MemberData(nameof(Cases))]
    public void One_changes_a_table_and_the_other_sees_it_after_its_flush(string host, Paging mode, bool upper)
    {
        const uint address = 0x50000000, word = 0x5000, seen = 0x5040, wrong = 0x5080;
        using var guest = new PagedGuest(host, mode, cpus: 2);
        guest.Map(address, Data, P | W | U | A | D);
        ulong[] entries = new ulong[4];
        for (ulong i = 0; i < 4; i++)
        {
            *(uint*)guest.At(Data + (i << 12)) = (uint)i;
            entries[i] = (Data + (i << 12)) | P | W | U | A | D;
            if (!upper)
                continue;
            ulong table = guest.NewTable();
            guest.WriteEntry(table, entries[i]);
            entries[i] = table | P | W | U | A;
        }

        ulong entry = guest.EntryGpa(address, upper ? 2 : 1);
        for (ulong page = 0; page < 0x40; page++)
            guest.Map(Tables + (page << 12), Tables + (page << 12), P | W | U | A | D);

        // esi counts; [word] says how far the writer is, [seen] how far the reader.
        guest.Assemble(a =>
        {
            Label loop = a.CreateLabel();
            a.mov(esi, 1);
            a.Label(ref loop);
            a.nop();
            for (uint i = 0; i < 4; i++)
            {
                Label wait = a.CreateLabel();
                a.mov(__dword_ptr[(uint)entry], (uint)entries[i]);
                a.mov(__dword_ptr[word], esi);
                a.Label(ref wait);
                a.pause();
                a.cmp(__dword_ptr[seen], esi);
                a.jne(wait);
                a.inc(esi);
            }

            a.cmp(esi, rounds);
            a.jb(loop);
            a.hlt();
        });
        const ulong reader = 0x18000;
        guest.Assemble(a =>
        {
            Label loop = a.CreateLabel();
            a.mov(esi, 1);
            a.Label(ref loop);
            a.nop();
            for (uint i = 0; i < 4; i++)
            {
                Label wait = a.CreateLabel(), right = a.CreateLabel();
                a.Label(ref wait);
                a.pause();
                a.cmp(__dword_ptr[word], esi);
                a.jne(wait);
                a.invlpg(__[address]);
                a.cmp(__dword_ptr[address], i);
                a.je(right);
                a.inc(__dword_ptr[wrong]);
                a.Label(ref right);
                a.mov(__dword_ptr[seen], esi);
                a.inc(esi);
            }

            a.cmp(esi, rounds);
            a.jb(loop);
            a.hlt();
        }, reader);

        int second = guest.Host.CreateVcpu(1, out kvm_run* run);
        guest.SetCpuid(second);
        guest.SetUpVcpu(second, reader, StackTop - 0x8000);
        var threads = new Thread[2];
        uint[] reasons = new uint[2];
        foreach (int i in (int[])[0, 1])
        {
            threads[i] = new Thread(() =>
            {
                Guest.Ok(guest.Host.Process.Ioctl(i == 0 ? guest.Host.VcpuFd : second, KVM_RUN));
                reasons[i] = (i == 0 ? guest.Host.Run : run)->exit_reason;
            })
            { IsBackground = true };
            threads[i].Start();
        }

        foreach (Thread thread in threads)
            thread.Join(TimeSpan.FromSeconds(120)).Should().BeTrue("the writer is at {0}, the reader at {1}", *(uint*)guest.At(word), *(uint*)guest.At(seen));
        reasons.Should().OnlyContain(static r => r == KVM_EXIT_HLT);
        (*(uint*)guest.At(wrong)).Should().Be(0);
        (*(uint*)guest.At(seen)).Should().Be(rounds);
    }
}
