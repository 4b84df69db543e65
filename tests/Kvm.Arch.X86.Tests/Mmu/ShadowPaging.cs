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

    /// <summary>kvm.tdp_mmu=N: nested paging by the MMU that also shadows, with direct pages.</summary>
    [Theory]
    [InlineData("intel")]
    [InlineData("intel eptad=0")]
    [InlineData("intel unrestricted_guest=0")]
    [InlineData("amd")]
    public void Nested_paging_without_the_MMU_made_for_it(string host)
    {
        using PagedGuest guest = Long(host, kvmParameters: "tdp_mmu=0");
        guest.Vm.TdpMmuEnabled.Should().BeFalse();
        guest.Assemble(a =>
        {
            Label loop = a.CreateLabel();
            a.Label(ref loop);
            a.inc(__dword_ptr[(uint)Data]);
            a.mov(eax, __dword_ptr[(uint)Data + 0x3000]);
            a.hlt();
            a.jmp(loop);
        });
        guest.Run().Should().Be(-1);
        guest.Vm.Shadow.PageCount.Should().BePositive();
        guest.Vm.Shadow.IndirectShadowPages.Should().Be(0);
        guest.Host.AddMemory(0, 0, Guest.MemorySize, (ulong)guest.Host.Memory, (uint)Kvm.Abi.Uapi.KVM_MEM_LOG_DIRTY_PAGES).Raw.Should().Be(0);

        // What is mapped for the first time is mapped writable and counts as written.
        guest.Run().Should().Be(-1);
        Dirty(guest).Should().Contain([Data >> 12, (Data >> 12) + 3]);
        guest.Run().Should().Be(-1);
        Dirty(guest).Should().Contain(Data >> 12).And.NotContain((Data >> 12) + 3);

        guest.Host.AddMemory(0, 0, Guest.MemorySize, (ulong)guest.Host.Memory).Raw.Should().Be(0);
        guest.Run().Should().Be(-1);
        (*(uint*)guest.At(Data)).Should().Be(4);
    }

    public static TheoryData<string> Shadows => ["intel ept=0", "amd npt=0"];

    private static void SetEntry(Assembler a, ulong at, ulong entry)
    {
        a.mov(rax, entry);
        a.mov(__qword_ptr[(uint)at], rax);
    }

    private static PagedGuest Long(string host, int cpus = 1, string kvmParameters = "")
    {
        var guest = new PagedGuest(host, Paging.Long, cpus, kvmParameters);
        for (ulong page = 0; page < 0x40; page++)
            guest.Map(Tables + (page << 12), Tables + (page << 12), P | W | A | D);
        for (ulong page = 0; page < 0x40; page++)
            guest.Map(Data + (page << 12), Data + (page << 12), P | W | A | D);
        return guest;
    }

    /// <summary>A last-level table becomes writable for the guest at its first write and is out of sync from then on, until the guest loads CR3: no exit at the second write.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void A_last_level_table_is_out_of_sync_while_the_guest_writes_it(string host)
    {
        using PagedGuest guest = Long(host);
        ulong pte = guest.EntryGpa(Data), next = guest.EntryGpa(Data + 0x1000);
        *(uint*)guest.At(Data) = 1;
        *(uint*)guest.At(Data + 0x5000) = 6;
        guest.Assemble(a =>
        {
            a.mov(ebx, __dword_ptr[(uint)Data]);
            SetEntry(a, pte, (Data + 0x5000) | P | W | A | D);
            a.hlt();
            SetEntry(a, next, (Data + 0x5000) | P | W | A | D);
            a.hlt();
            a.mov(rax, cr3);
            a.mov(cr3, rax);
            a.mov(ecx, __dword_ptr[(uint)Data]);
            a.mov(edx, __dword_ptr[(uint)Data + 0x1000]);
            a.hlt();
        });
        guest.Run().Should().Be(-1);
        guest.Vm.Stat.MmuUnsync.Should().Be(1);
        ulong faults = guest.Host.Vcpu.Stat.PfTaken;
        guest.Run().Should().Be(-1);
        guest.Host.Vcpu.Stat.PfTaken.Should().Be(faults, "the table can be written now");
        guest.Run().Should().Be(-1);
        (guest.Host.Regs.rbx, guest.Host.Regs.rcx, guest.Host.Regs.rdx).Should().Be((1, 6, 6));
        guest.Vm.Stat.MmuUnsync.Should().Be(0);
    }

    /// <summary>Upper tables stay write-protected: the write is emulated, and what was below the entry is not used any more.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void A_write_to_an_upper_table_is_emulated(string host)
    {
        using PagedGuest guest = Long(host);
        const ulong address = 0x10000000;
        guest.Map(address, Data, P | W | A | D);
        ulong other = guest.NewTable(), pde = guest.EntryGpa(address, 2);
        *(ulong*)guest.At(other) = (Data + 0x1000) | P | W | A | D;
        *(uint*)guest.At(Data) = 1;
        *(uint*)guest.At(Data + 0x1000) = 2;
        guest.Assemble(a =>
        {
            a.mov(ebx, __dword_ptr[(uint)address]);
            SetEntry(a, pde, other | P | W);
            a.invlpg(__[(uint)address]);
            a.mov(ecx, __dword_ptr[(uint)address]);
            a.hlt();
        });
        guest.Run().Should().Be(-1);
        (guest.Host.Regs.rbx, guest.Host.Regs.rcx).Should().Be((1, 2));
        guest.Vm.Stat.MmuPteWrite.Should().BePositive();
        guest.Vm.Stat.MmuPdeZapped.Should().Be(1);
        (guest.ReadEntry(pde) & A).Should().Be(A, "the walk through it sets it");
    }

    /// <summary>Three writes to an upper table without a walk through it in between: it is given up as a table.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void An_upper_table_that_is_written_again_and_again_is_let_go(string host)
    {
        using PagedGuest guest = Long(host);
        const ulong address = 0x50000000; // not below the tables that the writes themselves go through
        guest.Map(address, Data, P | W | A | D);
        ulong pde = guest.EntryGpa(address, 2);
        guest.Assemble(a =>
        {
            a.mov(ebx, __dword_ptr[(uint)address]);
            for (uint i = 1; i <= 2; i++)
                SetEntry(a, pde + (i * 8), 0);
            a.hlt();
            SetEntry(a, pde + 24, 0);
            a.mov(ecx, __dword_ptr[(uint)address]);
            a.hlt();
        });
        guest.Run().Should().Be(-1);
        guest.Vm.Stat.MmuFlooded.Should().Be(0);
        guest.Run().Should().Be(-1);
        guest.Vm.Stat.MmuFlooded.Should().Be(1);
        guest.Host.Regs.rcx.Should().Be(guest.Host.Regs.rbx);
    }

    /// <summary>An address space that was left a moment ago is taken up again without a walk through the hash; the one before the last four is not remembered.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void The_last_three_roots_are_remembered(string host)
    {
        using PagedGuest guest = Long(host);
        ulong[] roots = [guest.Root, guest.NewTable(), guest.NewTable(), guest.NewTable(), guest.NewTable()];
        foreach (ulong root in roots[1..])
            Buffer.MemoryCopy(guest.At(guest.Root), guest.At(root), 4096, 4096);
        guest.Assemble(a =>
        {
            foreach (ulong root in roots)
            {
                a.mov(eax, (uint)root);
                a.mov(cr3, rax);
                a.mov(ebx, __dword_ptr[(uint)Data]);
                a.hlt();
            }

            a.hlt();
            a.mov(eax, (uint)roots[1]);
            a.mov(cr3, rax);
            a.hlt();
        });
        KvmMmu mmu = guest.Host.Vcpu.Mmu;
        List<ulong> hpas = [];
        for (int i = 0; i < roots.Length; i++)
        {
            guest.Run().Should().Be(-1);
            hpas.Add(mmu.RootHpa);
        }

        hpas.Should().OnlyHaveUniqueItems();
        guest.Run().Should().Be(-1);
        guest.Run().Should().Be(-1);
        mmu.RootHpa.Should().Be(hpas[1]);
        mmu.PreviousRootHpas.Should().Equal(hpas[4], hpas[3], hpas[2]);
    }

    /// <summary>KVM_SET_NR_MMU_PAGES: with the smallest budget old tables make room, and the guest does not notice.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void The_budget_of_pages_is_kept(string host)
    {
        using PagedGuest guest = Long(host);
        Guest.Ok(guest.Host.Process.Ioctl(guest.Host.VmFd, Kvm.Abi.Uapi.KVM_SET_NR_MMU_PAGES, 64));
        for (ulong i = 0; i < 200; i++)
        {
            *(ulong*)guest.At(Data + (i % 16 << 12)) = i % 16;
            guest.Map(0x10000000 + (i << 21), Data + (i % 16 << 12), P | W | A | D);
        }

        guest.Assemble(a =>
        {
            Label loop = a.CreateLabel();
            a.mov(edi, 0x10000000);
            a.mov(ecx, 200);
            a.xor(eax, eax);
            a.Label(ref loop);
            a.add(rax, __qword_ptr[rdi]);
            a.add(rdi, 1 << 21);
            a.dec(ecx);
            a.jne(loop);
            a.hlt();
        });
        guest.Run().Should().Be(-1);
        guest.Host.Regs.rax.Should().Be((ulong)Enumerable.Range(0, 200).Sum(static i => i % 16));
        guest.Vm.Stat.MmuRecycled.Should().BePositive();
        guest.Vm.Shadow.PageCount.Should().BeLessThanOrEqualTo(68);
        guest.Vm.NUsedMmuPages.Should().Be((ulong)guest.Vm.Shadow.PageCount);
    }

    /// <summary>What the host's memory shortage takes is made anew.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void The_shrinker_takes_pages_of_a_running_guest(string host)
    {
        using PagedGuest guest = Long(host);
        guest.Assemble(a =>
        {
            a.mov(ebx, __dword_ptr[(uint)Data]);
            a.hlt();
            a.mov(ecx, __dword_ptr[(uint)Data]);
            a.hlt();
        });
        *(uint*)guest.At(Data) = 77;
        guest.Run().Should().Be(-1);
        X86Arch arch = guest.Host.Kernel.Arch;
        ulong before = arch.MmuShrinkCount();
        before.Should().BePositive();
        using (guest.Host.Kernel.Host.Enter(guest.Host.Process.Task))
            arch.MmuShrinkScan(100).Should().Be(before - 1, "all but the root");
        arch.MmuShrinkCount().Should().Be(1);
        guest.Run().Should().Be(-1);
        guest.Host.Regs.rcx.Should().Be(77);
    }

    /// <summary>A slot that goes takes the shadow tables of all with it; its addresses are a device's then, until memory is there again.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void A_slot_that_goes_and_comes_again(string host)
    {
        using PagedGuest guest = Long(host);
        byte* more = (byte*)guest.Host.Process.MapAnonymous(0x10000);
        *(uint*)more = 5;
        guest.Host.AddMemory(1, 0x1000000, 0x10000, (ulong)more).Raw.Should().Be(0);
        const ulong address = 0x10000000;
        guest.Map(address, 0x1000000, P | W | A | D);
        guest.Assemble(a =>
        {
            Label loop = a.CreateLabel();
            a.Label(ref loop);
            a.mov(ebx, __dword_ptr[(uint)address]);
            a.hlt();
            a.jmp(loop);
        });
        guest.Run().Should().Be(-1);
        guest.Host.Regs.rbx.Should().Be(5);
        guest.Host.AddMemory(1, 0x1000000, 0, 0).Raw.Should().Be(0);
        guest.Vm.Stat.Pages4k.Should().Be(0);
        for (int i = 0; i < 2; i++)
        {
            guest.Host.RunToExit().Should().Be((uint)Kvm.Abi.Uapi.KVM_EXIT_MMIO);
            guest.Host.Run->mmio.phys_addr.Should().Be(0x1000000);
            *(uint*)&guest.Host.Run->mmio.data = 9;
            guest.Run().Should().Be(-1);
            guest.Host.Regs.rbx.Should().Be(9);
        }

        guest.Host.AddMemory(1, 0x1000000, 0x10000, (ulong)more).Raw.Should().Be(0);
        guest.Run().Should().Be(-1);
        guest.Host.Regs.rbx.Should().Be(5, "the entry that was made to fault has an old generation");
    }

    /// <summary>Process memory that goes away is not reachable through shadow tables.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void Memory_that_the_process_unmaps_is_gone(string host)
    {
        using PagedGuest guest = Long(host);
        byte* more = (byte*)guest.Host.Process.MapAnonymous(0x10000);
        guest.Host.AddMemory(1, 0x1000000, 0x10000, (ulong)more).Raw.Should().Be(0);
        const ulong address = 0x10000000;
        guest.Map(address, 0x1000000, P | W | A | D);
        guest.Assemble(a =>
        {
            a.mov(__dword_ptr[(uint)address], 1);
            a.hlt();
            a.mov(__dword_ptr[(uint)address], 1);
            a.hlt();
        });
        guest.Run().Should().Be(-1);
        long pages = guest.Vm.Stat.Pages4k;
        guest.Host.Process.Munmap((ulong)more, 0x10000);
        guest.Vm.Stat.Pages4k.Should().BeLessThan(pages);
        guest.Host.RunOnce().Errno.Should().Be(Kvm.Abi.Errno.EFAULT);
    }

    /// <summary>Dirty logging protects the entries; each round finds what was written in it, the tables with their accessed and dirty bits included.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void The_dirty_log_has_what_was_written(string host)
    {
        using PagedGuest guest = Long(host);
        guest.Assemble(a =>
        {
            Label loop = a.CreateLabel();
            a.Label(ref loop);
            a.inc(__dword_ptr[(uint)Data]);
            a.inc(__dword_ptr[(uint)Data + 0x7000]);
            a.mov(eax, __dword_ptr[(uint)Data + 0x3000]);
            a.hlt();
            a.jmp(loop);
        });
        guest.Run().Should().Be(-1);
        guest.Host.AddMemory(0, 0, Guest.MemorySize, (ulong)guest.Host.Memory, (uint)Kvm.Abi.Uapi.KVM_MEM_LOG_DIRTY_PAGES).Raw.Should().Be(0);
        for (int round = 0; round < 3; round++)
        {
            guest.Run().Should().Be(-1);
            Dirty(guest).Should().Equal(Data >> 12, (Data >> 12) + 7);
        }

        Dirty(guest).Should().BeEmpty();
        guest.Host.AddMemory(0, 0, Guest.MemorySize, (ulong)guest.Host.Memory).Raw.Should().Be(0);
        guest.Run().Should().Be(-1);
        (*(uint*)guest.At(Data)).Should().Be(5);
    }

    private static List<ulong> Dirty(PagedGuest guest)
    {
        ulong* bitmap = stackalloc ulong[(int)(Guest.MemorySize >> 18)];
        var log = new Kvm.Abi.kvm_dirty_log { dirty_bitmap = (ulong)bitmap };
        Guest.Ok(guest.Host.Process.Ioctl(guest.Host.VmFd, Kvm.Abi.Uapi.KVM_GET_DIRTY_LOG, (ulong)&log));
        List<ulong> dirty = [];
        for (ulong gfn = 0; gfn < Guest.MemorySize >> 12; gfn++)
        {
            if ((bitmap[gfn / 64] >> (int)(gfn & 63) & 1) != 0)
                dirty.Add(gfn);
        }

        return dirty;
    }

    /// <summary>The list of entries that map one frame grows and shrinks: all of them are protected for the dirty log, and all go with the frame.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void A_frame_at_many_addresses(string host)
    {
        const uint count = 61;
        using PagedGuest guest = Long(host);
        for (ulong i = 0; i < count; i++)
            guest.Map(0x10000000 + (i << 12), Data, P | W | A | D);
        guest.Assemble(a =>
        {
            Label again = a.CreateLabel(), loop = a.CreateLabel();
            a.Label(ref again);
            a.mov(edi, 0x10000000);
            a.mov(ecx, count);
            a.Label(ref loop);
            a.inc(__dword_ptr[rdi]);
            a.add(rdi, 0x1000);
            a.dec(ecx);
            a.jne(loop);
            a.hlt();
            a.jmp(again);
        });
        guest.Run().Should().Be(-1);
        (*(uint*)guest.At(Data)).Should().Be(count);
        int descriptors = guest.Vm.Shadow.ListDescriptors;
        descriptors.Should().BeGreaterThanOrEqualTo(5, "14 to a descriptor");
        guest.Vm.Stat.MaxMmuRmapSize.Should().BeGreaterThanOrEqualTo(count - 1);
        guest.Host.AddMemory(0, 0, Guest.MemorySize, (ulong)guest.Host.Memory, (uint)Kvm.Abi.Uapi.KVM_MEM_LOG_DIRTY_PAGES).Raw.Should().Be(0);
        Dirty(guest);
        ulong faults = guest.Host.Vcpu.Stat.PfTaken;
        guest.Run().Should().Be(-1);
        guest.Host.Vcpu.Stat.PfTaken.Should().BeGreaterThanOrEqualTo(faults + count, "each entry was protected");
        Dirty(guest).Should().Contain(Data >> 12);

        // The frame's memory changes: no entry is left.
        guest.Host.Process.Munmap((ulong)guest.At(Data), 0x1000);
        guest.Vm.Shadow.ListDescriptors.Should().BeLessThan(descriptors - 3);
        guest.Host.RunOnce().Errno.Should().Be(Kvm.Abi.Errno.EFAULT);
    }

    /// <summary>A large page of the guest is one here where nothing speaks against it, and many small ones where it holds one of the guest's tables.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void A_large_page_stays_large_but_around_tables(string host)
    {
        using PagedGuest guest = Long(host, kvmParameters: "nx_huge_pages=off");
        ulong pd = guest.EntryGpa(0x10000000, 2);
        guest.WriteEntry(pd, Data | P | W | PS | A | D);
        guest.WriteEntry(guest.EntryGpa(0x10200000, 2), Tables | P | W | PS | A | D);
        guest.Assemble(a =>
        {
            a.mov(__dword_ptr[0x10000000], 1);
            a.hlt();
            a.mov(eax, __dword_ptr[0x10200000]);
            a.hlt();
        });
        guest.Run().Should().Be(-1);
        guest.Vm.Stat.Pages2m.Should().Be(1);
        guest.Run().Should().Be(-1);
        guest.Vm.Stat.Pages2m.Should().Be(1);
    }

    /// <summary>nx_huge_pages: a large page is not executable; the first execution splits it.</summary>
    [Fact]
    public void An_executed_large_page_is_split_where_the_processor_has_the_erratum()
    {
        using PagedGuest guest = Long("intel ept=0", kvmParameters: "nx_huge_pages=force");
        guest.WriteEntry(guest.EntryGpa(0x10000000, 2), Data | P | W | PS | A | D);
        *guest.At(Data + 0x100) = 0xc3;
        guest.Assemble(a =>
        {
            a.mov(eax, __dword_ptr[0x10000000]);
            a.hlt();
            a.mov(eax, 0x10000100);
            a.call(rax);
            a.hlt();
        });
        guest.Run().Should().Be(-1);
        (guest.Vm.Stat.Pages2m, guest.Vm.Stat.NxLpageSplits).Should().Be((1, 0));
        guest.Run().Should().Be(-1);
        (guest.Vm.Stat.Pages2m, guest.Vm.Stat.NxLpageSplits).Should().Be((0, 1));
    }

    /// <summary>PCIDs: a context that is left with bit 63 set keeps its translations, INVPCID takes single ones, contexts or all.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void PCIDs_and_INVPCID(string host)
    {
        using PagedGuest guest = Long(host);
        if ((guest.Host.Kernel.X86.BootCpuHas(X86Feature.PCID) && guest.Host.Kernel.X86.BootCpuHas(X86Feature.INVPCID)) is false)
            return;
        guest.ChangeSregs(static (ref Kvm.Abi.kvm_sregs s) => s.cr4 |= 0x20000);
        ulong second = guest.NewTable(), pte = guest.EntryGpa(Data);
        Buffer.MemoryCopy(guest.At(guest.Root), guest.At(second), 4096, 4096);
        *(uint*)guest.At(Data) = 1;
        *(uint*)guest.At(Data + 0x1000) = 2;
        *(uint*)guest.At(Data + 0x2000) = 3;
        *(ulong*)guest.At(Data + 0x8000) = 5;
        *(ulong*)guest.At(Data + 0x8008) = Data;
        guest.Assemble(a =>
        {
            a.mov(eax, (uint)second | 5);
            a.mov(cr3, rax);
            a.mov(ebx, __dword_ptr[(uint)Data]);
            a.mov(rax, (1ul << 63) | guest.Root);
            a.mov(cr3, rax);
            a.mov(ecx, __dword_ptr[(uint)Data]);
            SetEntry(a, pte, (Data + 0x1000) | P | W | A | D);

            // One address of context 5, and of this one by INVLPG.
            a.xor(eax, eax);
            a.invpcid(rax, __[(uint)Data + 0x8000]);
            a.invlpg(__[(uint)Data]);
            a.mov(edx, __dword_ptr[(uint)Data]);
            a.mov(rax, (1ul << 63) | second | 5);
            a.mov(cr3, rax);
            a.mov(esi, __dword_ptr[(uint)Data]);
            SetEntry(a, pte, (Data + 0x2000) | P | W | A | D);
            a.mov(eax, 2);
            a.invpcid(rax, __[(uint)Data + 0x8000]);
            a.mov(edi, __dword_ptr[(uint)Data]);
            a.hlt();
        });
        guest.Run().Should().Be(-1);
        Kvm.Abi.kvm_regs r = guest.Host.Regs;
        (r.rbx, r.rcx, r.rdx, r.rsi, r.rdi).Should().Be((1, 1, 2, 2, 3));
    }

    /// <summary>Every page comes back when the VM goes, whatever it shadowed.</summary>
    [Theory]
    [MemberData(nameof(Shadows))]
    public void All_memory_comes_back(string host)
    {
        PagedGuest guest = Long(host);
        guest.Assemble(a =>
        {
            a.mov(ebx, __dword_ptr[(uint)Data]);
            SetEntry(a, guest.EntryGpa(Data), Data | P | W);
            a.hlt();
        });
        guest.Run().Should().Be(-1);
        X86Vm vm = guest.Vm;
        vm.Shadow.PageCount.Should().BePositive();
        Kvm.Core.HostProcess process = guest.Host.Process;
        process.Close(guest.Host.VcpuFd);
        process.Munmap((ulong)guest.Host.Run, (ulong)process.Ioctl(guest.Host.KvmFd, Kvm.Abi.Uapi.KVM_GET_VCPU_MMAP_SIZE).Raw);
        process.Close(guest.Host.VmFd);
        (vm.Shadow.PageCount, vm.Shadow.ListDescriptors, vm.NUsedMmuPages).Should().Be((0, 0, 0));
        guest.Host.Kernel.Host.Pages.InUseByTag.Keys.Should().NotContain(static t => t.Contains("mmu", StringComparison.Ordinal) || t.Contains("rmap", StringComparison.Ordinal) || t.Contains("pae_root", StringComparison.Ordinal) || t.Contains("gfn_track", StringComparison.Ordinal));
        guest.Dispose();
    }
}
