using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Core.Tests;

public unsafe class KVM_GET_DIRTY_LOG_
{
    private static KvmResult Get(TestHost t, int vm, uint slot, ulong buffer)
    {
        var log = new kvm_dirty_log { slot = slot, dirty_bitmap = buffer };
        return t.P.Ioctl(vm, KVM_GET_DIRTY_LOG, (ulong)&log);
    }

    private static KvmResult Clear(TestHost t, int vm, uint slot, ulong first, uint pages, ulong buffer)
    {
        var log = new kvm_clear_dirty_log { slot = slot, first_page = first, num_pages = pages, dirty_bitmap = buffer };
        return t.P.Ioctl(vm, KVM_CLEAR_DIRTY_LOG, (ulong)&log);
    }

    private static KvmResult Manual(TestHost t, int vm, ulong arg, uint flags = 0)
    {
        var cap = new kvm_enable_cap { cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, flags = flags };
        cap.args[0] = arg;
        return t.P.Ioctl(vm, KVM_ENABLE_CAP, (ulong)&cap);
    }

    /// <summary>Marks frames dirty as the vCPU that runs.</summary>
    private static void Touch(TestHost t, int vcpu, params ulong[] gfns)
    {
        t.Arch.Run = v =>
        {
            v.Load();
            v.SrcuReadLock();
            foreach (ulong g in gfns) v.MarkPageDirty(g);
            v.SrcuReadUnlock();
            v.Put();
            return 0;
        };
        t.P.Ioctl(vcpu, KVM_RUN).Should().Be(KvmResult.Ok);
    }

    private static (TestHost T, int Vm, int Vcpu, ulong Ram) Setup(uint flags = KVM_MEM_LOG_DIRTY_PAGES, ulong manual = 0)
    {
        var t = new TestHost();
        int vm = t.Vm();
        if (manual != 0) Manual(t, vm, manual).Should().Be(KvmResult.Ok);
        ulong ram = t.P.MapAnonymous(130 * 4096);
        t.SetRegion(vm, 1, 0x10000, 130 * 4096, ram, flags).Should().Be(KvmResult.Ok);
        int vcpu = t.Vcpu(vm);
        return (t, vm, vcpu, ram);
    }

    [Fact]
    public void Copies_out_and_clears_and_protects()
    {
        var (t, vm, vcpu, _) = Setup();
        Touch(t, vcpu, 0x10, 0x11, 0x10 + 64, 0x10 + 129);
        ulong* bits = stackalloc ulong[3];
        Get(t, vm, 1, (ulong)bits).Should().Be(KvmResult.Ok);
        new ReadOnlySpan<ulong>(bits, 3).ToArray().Should().Equal(3, 1, 2);
        t.Arch.Calls.Should().ContainInOrder("protect 0 3", "protect 40 1", "protect 80 2", "flush_memslot");
        t.Arch.Calls.Clear();
        Get(t, vm, 1, (ulong)bits).Should().Be(KvmResult.Ok);
        new ReadOnlySpan<ulong>(bits, 3).ToArray().Should().Equal(0, 0, 0);
        t.Arch.Calls.Should().BeEmpty("nothing was dirty: no flush");
        t.AssertClean();
    }

    [Fact]
    public void Write_guest_marks_only_when_a_vCPU_runs()
    {
        var (t, vm, vcpu, _) = Setup();
        KvmVm kvm = t.VmOf(vm);
        ulong v = 1;
        t.InKernel(() => { ulong x = 1; kvm.WriteGuest(0x10008, &x, 8).Should().Be(KvmResult.Ok); });
        ulong* bits = stackalloc ulong[3];
        Get(t, vm, 1, (ulong)bits).Should().Be(KvmResult.Ok);
        bits[0].Should().Be(0, "mark_page_dirty_in_slot needs a running vCPU");
        t.Arch.Run = vc =>
        {
            vc.Load();
            ulong x = v;
            vc.WriteGuest(0x10fff, &x, 2).Should().Be(KvmResult.Ok);
            vc.Put();
            return 0;
        };
        t.P.Ioctl(vcpu, KVM_RUN).Should().Be(KvmResult.Ok);
        Get(t, vm, 1, (ulong)bits).Should().Be(KvmResult.Ok);
        bits[0].Should().Be(3, "the write crossed a page");
        t.AssertClean();
    }

    [Fact]
    public void Errors_come_in_the_kernels_order()
    {
        var (t, vm, _, ram) = Setup();
        Get(t, vm, 2 << 16, 0).Should().Be((KvmResult)Errno.EINVAL);
        Get(t, vm, 32764, 0).Should().Be((KvmResult)Errno.EINVAL);
        Get(t, vm, 0, 0).Should().Be((KvmResult)Errno.ENOENT);
        Get(t, vm, 1, 0x1000).Should().Be((KvmResult)Errno.EFAULT);
        t.SetRegion(vm, 1, 0x10000, 130 * 4096, ram).Should().Be(KvmResult.Ok);
        Get(t, vm, 1, 0x1000).Should().Be((KvmResult)Errno.ENOENT, "the slot does not log");
        t.AssertClean();
    }

    [Fact]
    public void Manual_protection_only_copies_and_CLEAR_clears_what_it_is_given()
    {
        var (t, vm, vcpu, _) = Setup(manual: 1);
        Touch(t, vcpu, 0x10, 0x12, 0x10 + 128);
        t.Arch.Calls.Clear();
        ulong* bits = stackalloc ulong[3];
        Get(t, vm, 1, (ulong)bits).Should().Be(KvmResult.Ok);
        bits[0].Should().Be(5);
        t.Arch.Calls.Should().BeEmpty();
        bits[0] = 0xf; // asks for more than is dirty
        Clear(t, vm, 1, 0, 64, (ulong)bits).Should().Be(KvmResult.Ok);
        t.Arch.Calls.Should().Equal("protect 0 5", "flush_memslot");
        Get(t, vm, 1, (ulong)bits).Should().Be(KvmResult.Ok);
        new ReadOnlySpan<ulong>(bits, 3).ToArray().Should().Equal(0, 0, 1);
        t.AssertClean();
    }

    [Fact]
    public void Initially_set_means_all_pages_and_no_bit_beyond_the_slot()
    {
        var (t, vm, _, _) = Setup(manual: 3);
        ulong* bits = stackalloc ulong[3];
        Get(t, vm, 1, (ulong)bits).Should().Be(KvmResult.Ok);
        new ReadOnlySpan<ulong>(bits, 3).ToArray().Should().Equal(ulong.MaxValue, ulong.MaxValue, 3);
        t.AssertClean();
    }

    [Theory]
    [InlineData(1, 0, 130, 0)]
    [InlineData(1, 64, 64, 0)]
    [InlineData(1, 64, 66, 0)] // to the end, not a multiple of 64
    [InlineData(1, 128, 2, 0)]
    [InlineData(1, 130, 0, 22)] // first page not a multiple of 64
    [InlineData(1, 1, 64, 22)]
    [InlineData(1, 0, 63, 22)] // not to the end and not a multiple
    [InlineData(1, 0, 131, 22)] // beyond the end
    [InlineData(1, 192, 0, 22)]
    [InlineData(0, 0, 64, 2)]
    [InlineData(0, 1, 64, 22)] // alignment is checked before the slot is looked up
    [InlineData(32764, 0, 64, 22)]
    public void CLEAR_checks_its_range(uint slot, ulong first, uint pages, int errno)
    {
        var (t, vm, _, _) = Setup(manual: 1);
        ulong* bits = stackalloc ulong[3];
        Clear(t, vm, slot, first, pages, (ulong)bits).Should().Be((KvmResult)(-errno));
        t.AssertClean();
    }

    [Fact]
    public void CLEAR_with_a_bad_pointer_is_EFAULT_after_the_range_checks()
    {
        var (t, vm, _, _) = Setup(manual: 1);
        Clear(t, vm, 1, 0, 64, 0x1000).Should().Be((KvmResult)Errno.EFAULT);
        Clear(t, vm, 1, 0, 63, 0x1000).Should().Be((KvmResult)Errno.EINVAL);
    }

    [Theory]
    [InlineData(0, 0, 0)]
    [InlineData(1, 0, 0)]
    [InlineData(3, 0, 0)]
    [InlineData(2, 0, 22)] // initially-set alone
    [InlineData(4, 0, 22)]
    [InlineData(1, 1, 22)] // flags
    public void ENABLE_CAP_checks_its_options(ulong arg, uint flags, int errno)
    {
        using var t = new TestHost();
        int vm = t.Vm();
        Manual(t, vm, arg, flags).Should().Be((KvmResult)(-errno));
        t.VmOf(vm).ManualDirtyLogProtect.Should().Be(errno == 0 ? arg : 0);
    }
}
