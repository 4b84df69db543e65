using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Client.Tests;

public class VmTests
{
    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(All))]
    public void Vcpu_id_can_be_used_once(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        using Vm vm = kvm.CreateVm();
        using Vcpu vcpu = vm.CreateVcpu(0);
        FluentActions.Invoking(() => vm.CreateVcpu(0)).Should().Throw<KvmException>().Where(e => e.Errno == Errno.EEXIST);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Memory_must_be_page_aligned_and_must_not_overlap(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        using Vm vm = kvm.CreateVm();
        using GuestMemory ram = vm.MapMemory(0, 0x1000, 0x1000);
        FluentActions.Invoking(() => vm.MapMemory(1, 0x2800, 0x1000)).Should().Throw<KvmException>().Where(e => e.Errno == Errno.EINVAL);
        FluentActions.Invoking(() => vm.MapMemory(1, 0x1000, 0x1000)).Should().Throw<KvmException>().Where(e => e.Errno == Errno.EEXIST);
        using GuestMemory next = vm.MapMemory(1, 0x2000, 0x1000);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Disposed_memory_frees_its_slot(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        using Vm vm = kvm.CreateVm();
        vm.MapMemory(0, 0x1000, 0x1000).Dispose();
        using GuestMemory again = vm.MapMemory(3, 0x1000, 0x1000);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Dirty_log_shows_the_page_that_the_guest_wrote(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c =>
        {
            c.mov(__byte_ptr[0x5010], 1); // the second page of the data slot
            c.hlt();
        });
        // Not the slot of the code: a page that is only read may be mapped writable, and then counts as dirty.
        using GuestMemory data = guest.Vm.MapMemory(slot: 1, guestAddress: 0x4000, size: 0x3000, (uint)KVM_MEM_LOG_DIRTY_PAGES);
        guest.Vcpu.Run().Reason.Should().Be(KVM_EXIT_HLT);
        data.GetDirtyLog().Should().Equal([0b10ul]);
        data.GetDirtyLog().Should().Equal([0ul], "reading the log clears it");
        data.Span[0x1010].Should().Be(1);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Tsc_frequency_can_be_read(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        using Vm vm = kvm.CreateVm();
        using Vcpu vcpu = vm.CreateVcpu(0);
        vcpu.TscKhz.Should().BeGreaterThan(0);
    }
}
