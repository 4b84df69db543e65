using System.Runtime.InteropServices;
using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public unsafe class copy_from_user_
{
    public static TheoryData<ulong> Wild => [0, 1, 0xfff, 0x1000, 0x7fff_ffff_ffff, 0x8000_0000_0000, 0xffff_8880_0000_0000, ulong.MaxValue, ulong.MaxValue - 7];

    [Theory]
    [MemberData(nameof(Wild))]
    public void A_wild_pointer_fails_and_does_not_crash(ulong address)
    {
        using var t = new TestHost();
        t.InKernel(() =>
        {
            new UserPtr<ulong>(address).Read(out ulong value).Should().BeFalse();
            value.Should().Be(0);
            new UserPtr<ulong>(address).Write(5).Should().BeFalse();
            UserMemory.ClearUser(address, 16).Should().BeFalse();
        });
    }

    [Fact]
    public void Any_memory_of_the_program_is_user_memory()
    {
        using var t = new TestHost();
        t.InKernel(() =>
        {
            ulong local = 0x1122;
            new UserPtr<ulong>((ulong)&local).Read(out ulong v).Should().BeTrue();
            v.Should().Be(0x1122);
            new UserPtr<ulong>((ulong)&local).Write(7).Should().BeTrue();
            local.Should().Be(7);
            ulong map = t.P.MapAnonymous(8192);
            new UserPtr<ulong>(map + 8184).Write(9).Should().BeTrue();
            new UserPtr<uint>(map + 8188).At(-1).Read(out uint w).Should().BeTrue();
            w.Should().Be(9);
        });
    }

    [Fact]
    public void The_end_of_a_mapping_is_a_fault()
    {
        using var t = new TestHost();
        ulong map = t.P.MapAnonymous(8192);
        t.P.Munmap(map + 4096, 4096).Should().Be(KvmResult.Ok);
        t.InKernel(() =>
        {
            new UserPtr<ulong>(map + 4088).Write(1).Should().BeTrue();
            new UserPtr<ulong>(map + 4090).Write(1).Should().BeFalse();
            new UserPtr<ulong>(map + 4090).Read(out _).Should().BeFalse();
        });
    }

    [Fact]
    public void Protection_is_obeyed()
    {
        using var t = new TestHost();
        ulong map = t.P.MapAnonymous(4096);
        t.P.Mprotect(map, 4096, Fcntl.PROT_READ).Should().Be(KvmResult.Ok);
        t.InKernel(() =>
        {
            new UserPtr<int>(map).Read(out _).Should().BeTrue();
            new UserPtr<int>(map).Write(1).Should().BeFalse();
        });
        t.P.Mprotect(map, 4096, 0);
        t.InKernel(() => new UserPtr<int>(map).Read(out _).Should().BeFalse());
        t.P.Mprotect(map, 8192, 0).Should().Be((KvmResult)Errno.ENOMEM);
    }

    [Fact]
    public void The_pipe_path_answers_the_same()
    {
        // Where process_vm_readv is forbidden.
        ulong a = 0x1234, b = 0;
        UserMemory.ThroughPipe((ulong)&b, (ulong)&a, 8).Should().BeTrue();
        b.Should().Be(0x1234);
        UserMemory.ThroughPipe((ulong)&b, 0x1000, 8).Should().BeFalse();
        UserMemory.ThroughPipe(0x1000, (ulong)&a, 8).Should().BeFalse();
        a = 0x5678;
        UserMemory.ThroughPipe((ulong)&b, (ulong)&a, 8).Should().BeTrue();
        b.Should().Be(0x5678, "nothing of the failed copy is left in the pipe");
        byte[] big = new byte[20000], back = new byte[20000];
        new Random(1).NextBytes(big);
        fixed (byte* p = big)
        fixed (byte* q = back) UserMemory.ThroughPipe((ulong)q, (ulong)p, 20000).Should().BeTrue();
        back.Should().Equal(big);
    }

    [Fact]
    public void An_unmap_during_copies_never_crashes()
    {
        using var t = new TestHost(cpus: 2);
        ulong map = t.P.MapAnonymous(1 << 16);
        bool stop = false;
        var reader = TestHost.Start(() =>
        {
            byte* buffer = stackalloc byte[4096];
            using var _ = t.Host.Enter(t.P.Task);
            while (!Volatile.Read(ref stop))
                for (ulong i = 0; i < 16; i++) UserMemory.CopyFromUser(buffer, map + i * 4096, 4096);
        });
        for (ulong i = 0; i < 16; i++)
        {
            t.P.Munmap(map + i * 4096, 4096).Should().Be(KvmResult.Ok);
            Thread.Sleep(1);
        }

        Volatile.Write(ref stop, true);
        TestHost.Join(reader);
        t.AssertClean();
    }
}

public unsafe class get_user_page_
{
    [Fact]
    public void Physical_is_process_address()
    {
        using var t = new TestHost();
        ulong map = t.P.MapAnonymous(8192);
        map.Should().BeGreaterThanOrEqualTo(64UL << 30).And.BeLessThan(1UL << 39);
        t.P.Mm.GetUserPage(map + 4096, write: true).Should().Be(map + 4096);
        t.P.Munmap(map + 4096, 4096);
        t.P.Mm.GetUserPage(map + 4096, write: false).Should().Be(0);
        t.P.Mprotect(map, 4096, 1).Should().Be(KvmResult.Ok);
        t.P.Mm.GetUserPage(map, write: true).Should().Be(0);
        t.P.Mm.GetUserPage(map, write: false).Should().Be(map);
        t.P.Mm.GetUserPage(0, write: false).Should().Be(0);
        t.P.Mm.GetUserPage(ulong.MaxValue, write: false).Should().Be(0);
    }

    [Fact]
    public void Foreign_memory_is_accepted_and_announced()
    {
        using var t = new TestHost();
        var ram = new Ram();
        t.Host.AttachRam(ram);
        void* p = NativeMemory.AlignedAlloc(4096 * 3, 4096);
        ((byte*)p)[0] = 1;
        t.P.Mm.GetUserPage((ulong)p, write: true).Should().Be((ulong)p);
        ram.Contains((ulong)p).Should().BeTrue();
        int adds = ram.Log.Count;
        t.P.Mm.GetUserPage((ulong)p, write: true).Should().Be((ulong)p);
        ram.Log.Count.Should().Be(adds, "once");
        NativeMemory.AlignedFree(p);
    }

    [Fact]
    public void The_machine_learns_of_all_memory_also_when_it_comes_late()
    {
        using var t = new TestHost();
        t.Vm();
        ulong map = t.P.MapAnonymous(1 << 20);
        var ram = new Ram();
        t.Host.AttachRam(ram);
        ram.Contains(map).Should().BeTrue();
        ulong page = t.Host.Pages.AllocPage("x");
        ram.Contains(page).Should().BeTrue();
        t.Host.Pages.FreePage(page);
        ulong late = t.P.MapAnonymous(4096);
        ram.Contains(late).Should().BeTrue();
        t.P.Munmap(map, 1 << 20);
        ram.Contains(map).Should().BeFalse();
    }

    private sealed class Ram : IHostRam
    {
        private readonly SortedDictionary<ulong, ulong> _ranges = [];
        public List<string> Log { get; } = [];

        public void Add(ulong address, ulong length)
        {
            Log.Add($"+{address:x}");
            _ranges[address] = length;
        }

        public void Remove(ulong address, ulong length)
        {
            Log.Add($"-{address:x}");
            _ranges.Remove(address);
        }

        public bool Contains(ulong address) => _ranges.Any(r => address >= r.Key && address < r.Key + r.Value);
    }
}

public class mmu_notifier_
{
    [Fact]
    public void Munmap_reaches_the_slots_frames()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.Vcpu(vm);
        ulong map = t.P.MapAnonymous(16 * 4096);
        t.SetRegion(vm, 0, 0x10000, 8 * 4096, map);
        t.SetRegion(vm, 1, 0x40000, 8 * 4096, map + 8 * 4096);
        t.SetRegion(vm, 2 | (1 << 16), 0x90000, 8 * 4096, map); // the same memory in the other address space
        t.Arch.Calls.Clear();
        ulong seq = t.VmOf(vm).MmuInvalidateSeq;
        t.P.Munmap(map + 6 * 4096, 4 * 4096).Should().Be(KvmResult.Ok);
        t.Arch.Calls.Should().Equal("unmap 0 16-18", "unmap 1 40-42", "unmap 2 96-98");
        t.VmOf(vm).MmuInvalidateSeq.Should().Be(seq + 1);
        t.VmOf(vm).MmuInvalidateInProgress.Should().Be(0);
        t.VmOf(vm).MnActiveInvalidateCount.Should().Be(0);
        t.Arch.Calls.Clear();
        t.P.Munmap(t.P.MapAnonymous(4096), 4096);
        t.Arch.Calls.Should().BeEmpty("no slot is hit");
        t.VmOf(vm).MmuInvalidateSeq.Should().Be(seq + 1);
        t.AssertClean();
    }

    [Fact]
    public void A_flush_is_sent_when_something_was_mapped()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        FakeVcpu v = t.VcpuOf(t.Vcpu(vm));
        ulong map = t.P.MapAnonymous(4096);
        t.SetRegion(vm, 0, 0, 4096, map);
        t.Arch.UnmapWantsFlush = true;
        t.P.Munmap(map, 4096);
        v.CheckRequest(KvmRequest.KVM_REQ_TLB_FLUSH).Should().BeTrue();
        t.AssertClean();
    }

    [Fact]
    public void A_fault_that_raced_must_retry()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        ulong map = t.P.MapAnonymous(2 * 4096);
        t.SetRegion(vm, 0, 0, 2 * 4096, map);
        t.InKernel(() =>
        {
            ulong seq = kvm.MmuInvalidateSeq;
            IMmuNotifier n = kvm;
            n.InvalidateRangeStart(map, map + 4096);
            kvm.MmuInvalidateRetryHva(seq, map).Should().BeTrue();
            kvm.MmuInvalidateRetryHva(seq, map + 4096).Should().BeFalse("another address is not hit yet");
            n.InvalidateRangeEnd(map, map + 4096);
            kvm.MmuInvalidateRetryHva(seq, map + 4096).Should().BeTrue("the sequence moved");
            kvm.MmuInvalidateRetryHva(kvm.MmuInvalidateSeq, map).Should().BeFalse();
            kvm.MmuInvalidateRetry(seq).Should().BeTrue();
        });
        t.AssertClean();
    }
}

public unsafe class kvm_read_guest_
{
    private static void With(Action<TestHost, KvmVm, ulong> body)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        ulong map = t.P.MapAnonymous(8 * 4096);
        // Two slots, adjacent for the guest, swapped in the process.
        t.SetRegion(vm, 0, 0x1000, 2 * 4096, map + 4 * 4096).Should().Be(KvmResult.Ok);
        t.SetRegion(vm, 1, 0x3000, 2 * 4096, map).Should().Be(KvmResult.Ok);
        t.SetRegion(vm, 2, 0x8000, 4096, map + 7 * 4096, KVM_MEM_READONLY).Should().Be(KvmResult.Ok);
        t.InKernel(() => body(t, t.VmOf(vm), map));
        t.AssertClean();
    }

    [Fact]
    public void Reads_and_writes_cross_pages_and_slots() => With((t, kvm, map) =>
    {
        ulong v = 0x1122334455667788, w = 0;
        kvm.WriteGuest(0x2ffc, &v, 8).Should().Be(KvmResult.Ok);
        kvm.ReadGuest(0x2ffc, &w, 8).Should().Be(KvmResult.Ok);
        w.Should().Be(v);
        (*(uint*)(map + 5 * 4096 + 0xffc)).Should().Be(0x55667788);
        (*(uint*)map).Should().Be(0x11223344);
        kvm.ClearGuest(0x2ffc, 8).Should().Be(KvmResult.Ok);
        (*(uint*)map).Should().Be(0);
        kvm.ReadGuest(0x5000, &w, 1).Should().Be((KvmResult)Errno.EFAULT);
        kvm.ReadGuest(0x4ffc, &w, 8).Should().Be((KvmResult)Errno.EFAULT, "it runs into a hole");
        kvm.ReadGuest(ulong.MaxValue, &w, 1).Should().Be((KvmResult)Errno.EFAULT);
    });

    [Fact]
    public void A_read_only_slot_is_read_but_not_written() => With((t, kvm, map) =>
    {
        uint v = 5;
        kvm.ReadGuest(0x8000, &v, 4).Should().Be(KvmResult.Ok);
        kvm.WriteGuest(0x8000, &v, 4).Should().Be((KvmResult)Errno.EFAULT);
        kvm.GfnToHva(8).Should().Be(KvmLimits.KVM_HVA_ERR_RO_BAD);
        KvmVm.GfnToHvaProt(kvm.GfnToMemslot(8), 8, out bool writable).Should().Be(map + 7 * 4096);
        writable.Should().BeFalse();
        kvm.GfnToPfn(kvm.GfnToMemslot(8), 8, writeFault: true, out _, out _).Should().Be(KvmPfn.ErrRoFault);
        kvm.GfnToPfn(kvm.GfnToMemslot(8), 8, writeFault: false, out writable, out _).Should().Be((map + 7 * 4096) >> 12);
        writable.Should().BeFalse();
    });

    [Fact]
    public void Frames_become_page_frames_or_errors() => With((t, kvm, map) =>
    {
        kvm.GfnToPfn(kvm.GfnToMemslot(1), 1, false, out bool writable, out ulong hva).Should().Be((map + 4 * 4096) >> 12);
        writable.Should().BeTrue("a read fault maps writable when it can");
        hva.Should().Be(map + 4 * 4096);
        ulong noslot = kvm.GfnToPfn(kvm.GfnToMemslot(99), 99, false, out _, out _);
        KvmPfn.IsNoslot(noslot).Should().BeTrue();
        KvmPfn.IsError(noslot).Should().BeFalse();
        KvmPfn.IsErrorOrNoslot(noslot).Should().BeTrue();
        t.P.Munmap(map, 4096);
        ulong fault = kvm.GfnToPfn(kvm.GfnToMemslot(3), 3, false, out _, out _);
        fault.Should().Be(KvmPfn.ErrFault);
        KvmPfn.IsError(fault).Should().BeTrue();
        kvm.GfnToPfn(kvm.GfnToMemslot(3), 3, true, out _, out _).Should().Be(KvmPfn.ErrFault);
        ulong w = 0;
        kvm.ReadGuest(0x3000, &w, 8).Should().Be((KvmResult)Errno.EFAULT, "memory that went away is an error, not a crash");
    });

    [Fact]
    public void Caches_follow_the_slots() => With((t, kvm, map) =>
    {
        var cache = new GfnToHvaCache();
        kvm.GfnToHvaCacheInit(cache, 0x1010, 16).Should().Be(KvmResult.Ok);
        cache.Hva.Should().Be(map + 4 * 4096 + 0x10);
        ulong v = 77;
        kvm.WriteGuestCached(cache, &v, 8, 8).Should().Be(KvmResult.Ok);
        (*(ulong*)(map + 4 * 4096 + 0x18)).Should().Be(77);
        kvm.WriteGuestCached(cache, &v, 9, 8).Should().Be((KvmResult)Errno.EINVAL, "beyond its end");
        var cross = new GfnToHvaCache();
        kvm.GfnToHvaCacheInit(cross, 0x2ff8, 16).Should().Be(KvmResult.Ok);
        cross.Memslot.Should().BeNull("more than one page: the slow path");
        kvm.ReadGuestCached(cross, &v, 8, 8).Should().Be(KvmResult.Ok);
        kvm.GfnToHvaCacheInit(new GfnToHvaCache(), 0x4ff8, 16).Should().Be((KvmResult)Errno.EFAULT);
        kvm.GfnToHvaCacheInit(new GfnToHvaCache(), 0x8000, 4).Should().Be((KvmResult)Errno.EFAULT, "read-only");
        kvm.GfnToHvaCacheInit(new GfnToHvaCache(), ulong.MaxValue - 2, 8).Should().Be((KvmResult)Errno.EINVAL, "it wraps");
        var del = new kvm_userspace_memory_region { slot = 0 };
        kvm.SetMemoryRegion(in del).Should().Be(KvmResult.Ok);
        kvm.ReadGuestCached(cache, &v, 0, 8).Should().Be((KvmResult)Errno.EFAULT, "the slot is gone");
    });

    [Fact]
    public void A_vCPU_has_its_own_cache_of_slots() => With((t, kvm, map) =>
    {
        int fd = t.Vcpu(t.P.Files.Open.First(f => f > t.Dev));
        FakeVcpu v = t.VcpuOf(fd);
        v.GfnToMemslot(1)!.Id.Should().Be(0);
        v.LastUsedSlot!.Id.Should().Be(0);
        v.GfnToHva(3).Should().Be(map);
        v.LastUsedSlot!.Id.Should().Be(1);
        v.IsVisibleGfn(2).Should().BeTrue();
        v.IsVisibleGfn(7).Should().BeFalse();
        var del = new kvm_userspace_memory_region { slot = 1 };
        kvm.SetMemoryRegion(in del);
        v.GfnToMemslot(3).Should().BeNull("the generation changed");
        uint x = 0;
        v.ReadGuest(0x1ffe, &x, 4).Should().Be(KvmResult.Ok);
        v.ReadGuestAtomic(0x1ffe, &x, 4).Should().Be((KvmResult)Errno.EFAULT, "over a page");
        v.ReadGuestAtomic(0x1ffc, &x, 4).Should().Be(KvmResult.Ok);
    });
}

public class page_allocator_
{
    [Fact]
    public void Pages_are_low_aligned_zeroed_and_counted_per_tag()
    {
        using var h = new Host();
        ulong a = h.Pages.AllocPage("a"), b = h.Pages.AllocPage("b"), c = h.Pages.AllocPages("b", 2);
        foreach (ulong p in new[] { a, b, c })
        {
            (p % 4096).Should().Be(0);
            p.Should().BeInRange(64UL << 30, 1UL << 39);
        }

        (c % 16384).Should().Be(0, "aligned to its size");
        unsafe { new ReadOnlySpan<byte>((void*)c, 16384).IndexOfAnyExcept((byte)0).Should().Be(-1); }
        h.Pages.InUse.Should().Be(6);
        h.Pages.InUseByTag.Should().BeEquivalentTo(new Dictionary<string, long> { ["a"] = 1, ["b"] = 5 });
        unsafe { *(byte*)a = 1; }
        h.Pages.FreePage(a);
        ulong again = h.Pages.AllocPage("c");
        again.Should().Be(a, "the last page that was freed comes first");
        unsafe { (*(byte*)again).Should().Be(0); }
        h.Pages.FreePage(again);
        h.Pages.FreePage(b);
        h.Pages.FreePage(c);
        h.Pages.FreePage(0);
        h.Pages.InUse.Should().Be(0);
    }

    [Fact]
    public void Double_and_wild_frees_are_our_own_bug()
    {
        using var h = new Host();
        ulong a = h.Pages.AllocPage("a");
        h.Pages.FreePage(a);
        Action twice = () => h.Pages.FreePage(a);
        Action wild = () => h.Pages.FreePage(0x1234000);
        Action vfree = () => h.Pages.Vfree(0x1234000);
        twice.Should().Throw<InvalidOperationException>();
        wild.Should().Throw<InvalidOperationException>();
        vfree.Should().Throw<InvalidOperationException>();
    }

    [Fact]
    public void Fails_on_demand_and_when_memory_is_short()
    {
        using var h = new Host(new HostOptions { MaxPages = 3 });
        h.Faults.Fail("alloc_page:x", nth: 2);
        h.Faults.Fail("vmalloc");
        h.Pages.AllocPage("x").Should().NotBe(0);
        h.Pages.AllocPage("y").Should().NotBe(0);
        h.Pages.AllocPage("x").Should().Be(0);
        h.Pages.AllocPage("x").Should().NotBe(0);
        h.Pages.AllocPage("x").Should().Be(0, "no page is left");
        h.Pages.Vmalloc("v", 100).Should().Be(0);
        ulong v = h.Pages.Vmalloc("v", 100);
        v.Should().NotBe(0);
        h.Pages.VmallocInUse.Should().Be(100);
        h.Pages.Vfree(v);
        h.Pages.VmallocInUse.Should().Be(0);
    }

    [Fact]
    public void Many_pages_from_many_threads_are_distinct()
    {
        using var h = new Host();
        var all = new System.Collections.Concurrent.ConcurrentBag<ulong>();
        TestHost.Join([.. Enumerable.Range(0, 4).Select(i => TestHost.Start(() =>
        {
            for (int n = 0; n < 1500; n++) all.Add(h.Pages.AllocPages("t" + i, n % 3));
        }))]);
        var pages = new HashSet<ulong>();
        int k = 0;
        foreach (ulong p in all) pages.Add(p).Should().BeTrue();
        foreach (ulong p in all) { h.Pages.FreePage(p); k++; }
        h.Pages.InUse.Should().Be(0);
        k.Should().Be(6000);
    }
}

public class kvm_mmu_memory_cache_
{
    [Fact]
    public void Topup_fills_and_is_content_with_the_minimum()
    {
        using var h = new Host();
        var cache = new KvmMmuMemoryCache(h, "spt", capacity: 8);
        cache.Topup(4).Should().Be(KvmResult.Ok);
        cache.Count.Should().Be(8);
        for (int i = 0; i < 5; i++) h.Pages.FreePage(cache.Alloc());
        cache.Count.Should().Be(3);
        h.Faults.Fail("alloc_page:spt", nth: 2);
        cache.Topup(4).Should().Be(KvmResult.Ok, "four are enough");
        cache.Count.Should().Be(4);
        h.Pages.FreePage(cache.Alloc());
        h.Faults.Fail("alloc_page:spt");
        cache.Topup(4).Should().Be((KvmResult)Errno.ENOMEM);
        cache.Topup(3).Should().Be(KvmResult.Ok, "nothing is allocated when the minimum is there");
        cache.Free();
        h.Pages.InUse.Should().Be(0);
    }
}

public unsafe class alloc_page_GFP_DMA32
{
    [Fact]
    public void Pages_lie_below_4_GiB_zeroed_and_come_back()
    {
        using var t = new TestHost();
        PageAllocator pages = t.Host.Pages;
        long before = pages.InUse;
        ulong[] got = [.. Enumerable.Range(0, 1100).Select(_ => pages.AllocPage32("low"))];
        got.Should().OnlyHaveUniqueItems().And.OnlyContain(static a => a != 0 && a >> 32 == 0 && (a & 0xfff) == 0);
        (*(ulong*)got[7]).Should().Be(0);
        *(ulong*)got[7] = 1;
        pages.InUseByTag["low"].Should().Be(1100);
        pages.AllocPage("high").Should().BeGreaterThan(1ul << 32, "other pages are taken from elsewhere");
        foreach (ulong page in got)
            pages.FreePage(page);
        pages.InUse.Should().Be(before + 1);
        Enumerable.Range(0, 1100).Select(_ => pages.AllocPage32("low")).Should().BeEquivalentTo(got);
        (*(ulong*)got[7]).Should().Be(0, "a page is zeroed again");
    }

    [Fact]
    public void It_fails_on_demand()
    {
        using var t = new TestHost();
        t.Host.Faults.Fail("alloc_page:low");
        t.Host.Pages.AllocPage32("low").Should().Be(0);
        t.Host.Pages.AllocPage32("low").Should().NotBe(0);
    }
}
