using Iced.Intel;
using Kvm.Abi;
using Kvm.Core;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Run;

/// <summary>Dirty rings of several vCPUs that write faster than anyone collects: KVM_EXIT_DIRTY_RING_FULL, and no page is lost.</summary>
public sealed unsafe class DirtyRings
{
    private const int ringBytes = 16384, pages = 1500, firstPage = 512;

    public static TheoryData<string, string> Machines => new() { { "amd", "" }, { "amd", "npt=0" }, { "intel", "" }, { "intel", "pml=0" }, { "intel", "eptad=0" } };

    /// <summary>A vCPU's ring as userspace sees it.</summary>
    private sealed class Ring(kvm_dirty_gfn* entries)
    {
        private int next;

        public List<ulong> Harvested { get; } = [];

        public int Harvest()
        {
            int n = 0;
            for (; (Volatile.Read(ref entries[next % (ringBytes / 16)].flags) & KVM_DIRTY_GFN_F_DIRTY) != 0; n++, next++)
            {
                kvm_dirty_gfn* e = entries + (next % (ringBytes / 16));
                e->slot.Should().Be(1);
                Harvested.Add(e->offset);
                Volatile.Write(ref e->flags, KVM_DIRTY_GFN_F_RESET);
            }

            return n;
        }
    }

    /// <summary>Writes one word to each of the pages, upwards, with the limits of DS and ES out of the way; then port 0x80.</summary>
    private static byte[] Writer(uint first)
    {
        var a = new Assembler(16);
        Label again = a.CreateLabel();
        a.mov(edi, first << 12);
        a.mov(ecx, pages);
        a.Label(ref again);
        a.mov(__dword_ptr[edi], edi);
        a.add(edi, 0x1000);
        a.dec(ecx);
        a.jne(again);
        a.@out(0x80, al);
        using var code = new MemoryStream();
        a.Assemble(new StreamCodeWriter(code), 0);
        return code.ToArray();
    }

    private static void Prepare(Guest g, int fd, ushort at, uint first)
    {
        byte[] code = Writer(first);
        code.CopyTo(new Span<byte>(g.Memory + at, code.Length));
        kvm_sregs s;
        Guest.Ok(g.Process.Ioctl(fd, KVM_GET_SREGS, (ulong)&s));
        s.cs.@base = 0;
        s.cs.selector = 0;
        s.ds.limit = s.es.limit = s.ss.limit = uint.MaxValue;
        s.ds.g = s.es.g = s.ss.g = 1;
        Guest.Ok(g.Process.Ioctl(fd, KVM_SET_SREGS, (ulong)&s));
        var r = new kvm_regs { rip = at, rflags = 2 };
        Guest.Ok(g.Process.Ioctl(fd, KVM_SET_REGS, (ulong)&r));
    }

    [Theory, MemberData(nameof(Machines))]
    public void A_full_ring_ends_the_run_until_it_is_reset(string vendor, string parameters)
    {
        using var g = new Guest(vendor, parameters: parameters, dirtyRing: ringBytes);
        Ring ring = RingOf(g, g.VcpuFd);
        g.AddMemory(1, firstPage << 12, pages << 12, (ulong)g.Memory + (firstPage << 12), KVM_MEM_LOG_DIRTY_PAGES);
        Prepare(g, g.VcpuFd, 0x1000, firstPage);
        int full = 0;
        while (g.RunToExit() == KVM_EXIT_DIRTY_RING_FULL)
        {
            full++;
            g.RunToExit().Should().Be((uint)KVM_EXIT_DIRTY_RING_FULL, "nothing was reset");
            int n = ring.Harvest();
            n.Should().BeInRange(400, 1024, "the soft limit");
            g.RunToExit().Should().Be((uint)KVM_EXIT_DIRTY_RING_FULL, "harvested entries are not free before KVM_RESET_DIRTY_RINGS");
            g.Process.Ioctl(g.VmFd, KVM_RESET_DIRTY_RINGS).Value.Should().Be(n);
            g.Process.Ioctl(g.VmFd, KVM_RESET_DIRTY_RINGS).Value.Should().Be(0);
        }

        g.Run->exit_reason.Should().Be((uint)KVM_EXIT_IO);
        ring.Harvest();
        full.Should().Be(parameters.Length == 0 && vendor == "intel" ? 3 : 1, "room for a full log of the processor is kept free where it has one");
        ring.Harvested.Distinct().Should().HaveCount(pages);
        ring.Harvested.Should().HaveCount(pages + full, "the write that filled the ring is only done after the reset, and dirties its page again");
    }

    /// <summary>Written again after its reset, a page is there again.</summary>
    [Theory, MemberData(nameof(Machines))]
    public void A_page_that_was_reset_is_reported_again(string vendor, string parameters)
    {
        using var g = new Guest(vendor, parameters: parameters, dirtyRing: ringBytes);
        Ring ring = RingOf(g, g.VcpuFd);
        g.AddMemory(1, firstPage << 12, pages << 12, (ulong)g.Memory + (firstPage << 12), KVM_MEM_LOG_DIRTY_PAGES);
        int full = 0;
        for (int turn = 0; turn < 3; turn++)
        {
            Prepare(g, g.VcpuFd, 0x1000, firstPage);
            for (; g.RunToExit() == KVM_EXIT_DIRTY_RING_FULL; full++)
            {
                ring.Harvest();
                Guest.Ok(g.Process.Ioctl(g.VmFd, KVM_RESET_DIRTY_RINGS));
            }

            ring.Harvest();
            Guest.Ok(g.Process.Ioctl(g.VmFd, KVM_RESET_DIRTY_RINGS));
        }

        ring.Harvested.GroupBy(static p => p).Should().OnlyContain(static p => p.Count() >= 3).And.HaveCount(pages);
        // The processor's own log is emptied at any exit: a page that it logged needs no second write.
        ring.Harvested.Count.Should().BeInRange(3 * pages, 3 * pages + full);
    }

    /// <summary>Four vCPUs write while another thread harvests and resets.</summary>
    [Theory, MemberData(nameof(Machines))]
    public void Several_vCPUs_lose_nothing(string vendor, string parameters)
    {
        const int vcpus = 4;
        using var g = new Guest(vendor, cpus: 2, parameters: parameters, dirtyRing: ringBytes);
        g.AddMemory(1, firstPage << 12, pages << 12, (ulong)g.Memory + (firstPage << 12), KVM_MEM_LOG_DIRTY_PAGES);
        int[] fds = [g.VcpuFd, .. Enumerable.Range(1, vcpus - 1).Select(i => g.CreateVcpu((uint)i, out _))];
        Ring[] rings = [.. fds.Select(fd => RingOf(g, fd))];
        for (int i = 0; i < vcpus; i++)
            Prepare(g, fds[i], (ushort)(0x1000 * (i + 1)), firstPage);
        int running = vcpus, full = 0;
        Thread[] threads = [.. fds.Select(fd => new Thread(() =>
        {
            ulong page = (ulong)g.Process.Mmap(0x3000, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, fd).Raw;
            do
            {
                if (g.Process.Ioctl(fd, KVM_RUN).IsError)
                    break;
                if (((kvm_run*)page)->exit_reason == KVM_EXIT_DIRTY_RING_FULL)
                    Interlocked.Increment(ref full);
            }
            while (((kvm_run*)page)->exit_reason == KVM_EXIT_DIRTY_RING_FULL);
            Interlocked.Decrement(ref running);
        }))];
        foreach (Thread thread in threads)
            thread.Start();
        while (Volatile.Read(ref running) > 0)
        {
            int n = rings.Sum(static r => r.Harvest());
            g.Process.Ioctl(g.VmFd, KVM_RESET_DIRTY_RINGS).Value.Should().Be(n);
        }

        foreach (Thread thread in threads)
            thread.Join();
        foreach (Ring ring in rings)
            ring.Harvest();

        // A page that another vCPU made writable needs no fault of its own; every page is in some ring.
        rings.SelectMany(static r => r.Harvested).Distinct().Should().HaveCount(pages);
        for (int i = 0; i < pages; i++)
            (*(uint*)(g.Memory + ((firstPage + i) << 12))).Should().Be((uint)(firstPage + i) << 12);
    }

    private static Ring RingOf(Guest g, int fd)
    {
        KvmResult map = g.Process.Mmap(ringBytes, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, fd, KVM_DIRTY_LOG_PAGE_OFFSET * 4096);
        map.IsError.Should().BeFalse();
        return new Ring((kvm_dirty_gfn*)map.Raw);
    }
}
