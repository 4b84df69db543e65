using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public unsafe class KVM_SET_USER_MEMORY_REGION_
{
    private const uint Log = KVM_MEM_LOG_DIRTY_PAGES;
    private const uint Ro = KVM_MEM_READONLY;

    public static TheoryData<string, uint, uint, ulong, ulong, ulong, Errno> Malformed()
    {
        var d = new TheoryData<string, uint, uint, ulong, ulong, ulong, Errno>();
        const ulong hva = 0x10_0000_0000;
        d.Add("unknown flag", 0, 4, 0, 0x1000, hva, Errno.EINVAL);
        d.Add("unknown flag wins over all", 0xffff, 4, 1, 1, 1, Errno.EINVAL);
        d.Add("first id that is not for user space", 32764, 0, 0, 0x1000, hva, Errno.EINVAL);
        d.Add("address space 2", 2 << 16, 0, 0, 0x1000, hva, Errno.EINVAL);
        d.Add("size not page aligned", 0, 0, 0, 0x1001, hva, Errno.EINVAL);
        d.Add("guest address not page aligned", 0, 0, 0x800, 0x1000, hva, Errno.EINVAL);
        d.Add("process address not page aligned", 0, 0, 0, 0x1000, hva + 8, Errno.EINVAL);
        d.Add("process address beyond user space", 0, 0, 0, 0x1000, 0x7fff_ffff_f000, Errno.EINVAL);
        d.Add("process address not canonical", 0, 0, 0, 0x1000, 1UL << 63, Errno.EINVAL);
        d.Add("guest range wraps", 0, 0, 0xffff_ffff_ffff_f000, 0x2000, hva, Errno.EINVAL);
        d.Add("2^31 pages", 0, 0, 0, 1UL << 43, 0, Errno.EINVAL);
        d.Add("deletes what is not there", 0, 0, 0, 0, hva, Errno.EINVAL);
        return d;
    }

    [Theory]
    [MemberData(nameof(Malformed))]
    public void Refuses(string why, uint slot, uint flags, ulong gpa, ulong size, ulong hva, Errno errno)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.SetRegion(vm, slot, gpa, size, hva, flags).Should().Be((KvmResult)errno, why);
        t.VmOf(vm).Memslots().IsEmpty.Should().BeTrue();
        t.VmOf(vm).Memslots().Generation.Should().Be(0);
        t.AssertClean();
    }

    public static TheoryData<string, uint, uint, ulong, ulong, ulong> Wellformed() => new()
    {
        { "last user id", 32763, 0, 0, 0x1000, 0x10_0000_0000 },
        { "address space 1", 1 << 16, 0, 0, 0x1000, 0x10_0000_0000 },
        { "no memory behind it", 0, 0, 0, 0x1000, 0x1000 },
        { "2^31 - 1 pages", 0, 0, 0, ((1UL << 31) - 1) << 12, 0 },
        { "last page of user space", 0, 0, 0, 0x1000, 0x7fff_ffff_e000 },
        { "last frame", 0, 0, 0xffff_ffff_ffff_e000, 0x1000, 0x1000 },
        { "both flags", 0, Log | Ro, 0, 0x1000, 0x1000 },
    };

    [Theory]
    [MemberData(nameof(Wellformed))]
    public void Accepts(string why, uint slot, uint flags, ulong gpa, ulong size, ulong hva)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.SetRegion(vm, slot, gpa, size, hva, flags).Should().Be(KvmResult.Ok, why);
        KvmMemorySlot s = t.VmOf(vm).Memslots((int)(slot >> 16)).ById((ushort)slot)!;
        s.BaseGfn.Should().Be(gpa >> 12);
        s.Npages.Should().Be(size >> 12);
        s.UserspaceAddr.Should().Be(hva);
        t.AssertClean();
    }

    [Fact]
    public void Size_zero_deletes()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.SetRegion(vm, 3, 0x1000, 0x3000, 0x1000, Log).Should().Be(KvmResult.Ok);
        t.VmOf(vm).NrMemslotPages.Should().Be(3);
        t.Arch.Calls.Clear();
        t.SetRegion(vm, 3, 0, 0, 0).Should().Be(KvmResult.Ok);
        t.Arch.Calls.Should().Equal("memslots_updated 4", "flush_shadow_memslot 3", "prepare Delete", "memslots_updated 6", "commit Delete", "free_memslot 3");
        t.VmOf(vm).NrMemslotPages.Should().Be(0);
        t.VmOf(vm).Memslots().IsEmpty.Should().BeTrue();
        t.Host.Pages.VmallocInUse.Should().Be(0, "the dirty bitmap went with it");
        t.AssertClean();
    }

    [Theory]
    [InlineData(0x1000, 0x2000, 0x1000, 0, Errno.EINVAL)] // other size
    [InlineData(0x1000, 0x1000, 0x2000, 0, Errno.EINVAL)] // other process address
    [InlineData(0x1000, 0x1000, 0x1000, Ro, Errno.EINVAL)] // other access
    public void An_existing_slot_can_not_change_its_memory(ulong gpa, ulong size, ulong hva, uint flags, Errno errno)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.SetRegion(vm, 0, 0x1000, 0x1000, 0x1000).Should().Be(KvmResult.Ok);
        t.SetRegion(vm, 0, gpa, size, hva, flags).Should().Be((KvmResult)errno);
        t.AssertClean();
    }

    [Fact]
    public void The_same_region_again_is_a_no_op()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.SetRegion(vm, 0, 0x1000, 0x1000, 0x1000).Should().Be(KvmResult.Ok);
        ulong generation = t.VmOf(vm).Memslots().Generation;
        t.Arch.Calls.Clear();
        t.SetRegion(vm, 0, 0x1000, 0x1000, 0x1000).Should().Be(KvmResult.Ok);
        t.Arch.Calls.Should().BeEmpty();
        t.VmOf(vm).Memslots().Generation.Should().Be(generation);
    }

    [Theory]
    [InlineData(0x0000, 0x2000, true)] // ends inside
    [InlineData(0x3000, 0x1000, true)] // begins inside
    [InlineData(0x2000, 0x1000, true)] // lies inside
    [InlineData(0x0000, 0x9000, true)] // covers
    [InlineData(0x0000, 0x1000, false)] // ends before
    [InlineData(0x4000, 0x1000, false)] // begins behind
    public void Overlapping_frames_are_EEXIST(ulong gpa, ulong size, bool overlaps)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.SetRegion(vm, 0, 0x1000, 0x3000, 0x1000).Should().Be(KvmResult.Ok);
        t.SetRegion(vm, 1, gpa, size, 0x100000).Should().Be(overlaps ? Errno.EEXIST : KvmResult.Ok);
        t.SetRegion(vm, 1 << 16, gpa, size, 0x100000).Should().Be(KvmResult.Ok, "address spaces do not see each other");
        t.AssertClean();
    }

    [Fact]
    public void A_slot_may_move_over_itself_but_not_over_others()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.SetRegion(vm, 0, 0x1000, 0x3000, 0x1000, Log).Should().Be(KvmResult.Ok);
        t.SetRegion(vm, 1, 0x8000, 0x1000, 0x1000).Should().Be(KvmResult.Ok);
        t.SetRegion(vm, 0, 0x6000, 0x3000, 0x1000, Log).Should().Be((KvmResult)Errno.EEXIST);
        t.Arch.Calls.Clear();
        t.SetRegion(vm, 0, 0x2000, 0x3000, 0x1000, Log).Should().Be(KvmResult.Ok);
        t.Arch.Calls.Should().ContainInOrder("flush_shadow_memslot 0", "prepare Move", "commit Move").And.NotContain("free_memslot 0");
        KvmVm kvm = t.VmOf(vm);
        kvm.GfnToMemslot(1).Should().BeNull();
        kvm.GfnToMemslot(4)!.Id.Should().Be(0);
        kvm.GfnToMemslot(8)!.Id.Should().Be(1);
        t.AssertClean();
    }

    [Fact]
    public void Flags_change_in_place_and_the_bitmap_comes_and_goes()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        t.SetRegion(vm, 0, 0, 0x41000, 0x1000).Should().Be(KvmResult.Ok);
        t.Host.Pages.VmallocInUse.Should().Be(0);
        t.Arch.Calls.Clear();
        t.SetRegion(vm, 0, 0, 0x41000, 0x1000, Log).Should().Be(KvmResult.Ok);
        t.Arch.Calls.Should().Equal("prepare FlagsOnly", "memslots_updated 4", "commit FlagsOnly");
        t.Host.Pages.VmallocInUse.Should().Be(2 * 16, "65 pages need two longs, twice");
        t.SetRegion(vm, 0, 0, 0x41000, 0x1000).Should().Be(KvmResult.Ok);
        t.Host.Pages.VmallocInUse.Should().Be(0);
        kvm.Memslots().ById(0)!.DirtyTrackEnabled.Should().BeFalse();
        t.AssertClean();
    }

    /// <summary>A failure of every step leaves the slots as they were, with a usable set.</summary>
    [Theory]
    [InlineData("kzalloc:kvm_memory_slot", "create", Errno.ENOMEM)]
    [InlineData("arch:prepare Create", "create", Errno.ENOMEM)]
    [InlineData("vmalloc:dirty_bitmap", "create", Errno.ENOMEM)]
    [InlineData("kzalloc:invalid_slot", "delete", Errno.ENOMEM)]
    [InlineData("arch:prepare Delete", "delete", Errno.ENOMEM)]
    [InlineData("kzalloc:kvm_memory_slot", "move", Errno.ENOMEM)]
    [InlineData("kzalloc:invalid_slot", "move", Errno.ENOMEM)]
    [InlineData("arch:prepare Move", "move", Errno.ENOMEM)]
    [InlineData("kzalloc:kvm_memory_slot", "flags", Errno.ENOMEM)]
    [InlineData("arch:prepare FlagsOnly", "flags", Errno.ENOMEM)]
    [InlineData("vmalloc:dirty_bitmap", "flags", Errno.ENOMEM)]
    public void Undoes_everything_when_it_fails(string point, string what, Errno errno)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        t.SetRegion(vm, 0, 0x1000, 0x2000, 0x1000).Should().Be(KvmResult.Ok);
        long pages = t.Host.Pages.InUse, vmalloc = t.Host.Pages.VmallocInUse;
        t.Host.Faults.Fail(point);
        KvmResult Do() => what switch
        {
            "create" => t.SetRegion(vm, 1, 0x8000, 0x1000, 0x1000, Log),
            "delete" => t.SetRegion(vm, 0, 0, 0, 0),
            "move" => t.SetRegion(vm, 0, 0x10000, 0x2000, 0x1000),
            _ => t.SetRegion(vm, 0, 0x1000, 0x2000, 0x1000, Log),
        };
        Do().Should().Be((KvmResult)errno);
        t.Host.Pages.InUse.Should().Be(pages);
        t.Host.Pages.VmallocInUse.Should().Be(vmalloc);
        KvmVm kvm = t.VmOf(vm);
        kvm.Memslots().Count.Should().Be(1);
        KvmMemorySlot s = kvm.GfnToMemslot(1)!;
        s.IsInvalid.Should().BeFalse("an invalidation is reverted");
        s.Flags.Should().Be(0);
        kvm.NrMemslotPages.Should().Be(2);
        kvm.SlotsLock.IsLocked.Should().BeFalse();
        kvm.SlotsArchLock.IsLocked.Should().BeFalse();
        t.Host.Faults.Clear();
        Do().Should().Be(KvmResult.Ok);
        t.AssertClean();
    }

    [Fact]
    public void Generations_differ_between_address_spaces_and_flag_updates()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        kvm.Memslots(0).Generation.Should().Be(0);
        kvm.Memslots(1).Generation.Should().Be(1);
        ulong during = 0;
        t.Arch.OnFlushShadowMemslot = _ => { };
        t.Host.Faults.OnReached("arch", p =>
        {
            if (p == "arch:memslots_updated 2") during = kvm.Memslots(0).Generation;
        });
        t.SetRegion(vm, 0, 0, 0x1000, 0x1000);
        during.Should().Be(KvmLimits.KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS);
        kvm.Memslots(0).Generation.Should().Be(2);
        t.SetRegion(vm, 1 << 16, 0, 0x1000, 0x1000);
        kvm.Memslots(1).Generation.Should().Be(3);
    }

    [Fact]
    public void Readers_never_wait_and_see_the_slot_invalid_while_it_is_deleted()
    {
        using var t = new TestHost(cpus: 4);
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        t.SetRegion(vm, 0, 0, 0x1000, 0x1000);
        KvmMemorySlot? seen = null;
        ulong hva = 0;
        t.Arch.OnFlushShadowMemslot = _ =>
        {
            // The deleter is in the middle; a reader on another thread is not held up.
            var reader = TestHost.Start(() =>
            {
                using var _ = t.Host.EnterKernel();
                int i = kvm.Srcu.ReadLock();
                seen = kvm.GfnToMemslot(0);
                hva = kvm.GfnToHva(0);
                kvm.Srcu.ReadUnlock(i);
            });
            TestHost.Join(reader);
        };
        t.SetRegion(vm, 0, 0, 0, 0).Should().Be(KvmResult.Ok);
        seen!.IsInvalid.Should().BeTrue();
        hva.Should().Be(KvmLimits.KVM_HVA_ERR_BAD);
        t.AssertClean();
    }

    [Fact]
    public void An_update_waits_for_readers_of_the_old_set()
    {
        using var t = new TestHost(cpus: 4);
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        using var inside = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        var reader = TestHost.Start(() =>
        {
            using var _ = t.Host.EnterKernel();
            int i = kvm.Srcu.ReadLock();
            KvmMemslots old = kvm.Memslots();
            inside.Set();
            go.Wait();
            old.IsEmpty.Should().BeTrue("the set that a reader holds does not change under it");
            kvm.Srcu.ReadUnlock(i);
        });
        inside.Wait();
        var writer = TestHost.Start(() => t.SetRegion(vm, 0, 0, 0x1000, 0x1000));
        TestHost.Await(() => !kvm.Memslots().IsEmpty);
        Thread.Sleep(20);
        writer.IsAlive.Should().BeTrue();
        t.Arch.Count("memslots_updated 2").Should().Be(0);
        go.Set();
        TestHost.Join(reader, writer);
        kvm.Memslots().Generation.Should().Be(2);
        t.AssertClean();
    }

    [Fact]
    public void An_update_waits_for_changes_of_process_memory()
    {
        using var t = new TestHost(cpus: 4);
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        IMmuNotifier n = kvm;
        t.InKernel(() => n.InvalidateRangeStart(0x1000, 0x2000));
        var writer = TestHost.Start(() => t.SetRegion(vm, 0, 0, 0x1000, 0x1000));
        Thread.Sleep(30);
        kvm.Memslots().IsEmpty.Should().BeTrue();
        t.InKernel(() => n.InvalidateRangeEnd(0x1000, 0x2000));
        TestHost.Join(writer);
        kvm.Memslots().Count.Should().Be(1);
        kvm.MmuInvalidateInProgress.Should().Be(0);
        t.AssertClean();
    }

    [Fact]
    public void A_bad_pointer_is_EFAULT()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        foreach (ulong bad in new ulong[] { 0, 1, 0xdead_0000_0000, ulong.MaxValue, 0x7fff_ffff_efff })
            t.P.Ioctl(vm, KVM_SET_USER_MEMORY_REGION, bad).Should().Be((KvmResult)Errno.EFAULT);
    }

    [Fact]
    public void Thousands_of_slots_are_found_by_frame_and_id()
    {
        using var t = new TestHost();
        int vm = t.Vm();
        KvmVm kvm = t.VmOf(vm);
        t.InKernel(() =>
        {
            // Ids run against addresses.
            for (uint i = 0; i < 3000; i++)
            {
                var mem = new kvm_userspace_memory_region { slot = 2999 - i, guest_phys_addr = i * 0x2000UL, memory_size = 0x1000, userspace_addr = 0x1000 };
                kvm.SetMemoryRegion(in mem).Should().Be(KvmResult.Ok);
            }

            for (uint i = 0; i < 3000; i++)
            {
                kvm.GfnToMemslot(i * 2)!.Id.Should().Be((short)(2999 - i));
                kvm.GfnToMemslot(i * 2 + 1).Should().BeNull();
                kvm.Memslots().ById((int)i)!.BaseGfn.Should().Be((2999 - i) * 2);
            }

            kvm.Memslots().Search(7, approx: true)!.BaseGfn.Should().Be(6);
        });
        t.AssertClean();
    }
}
