using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client.Tests;

/// <summary>Mistakes of a caller: an exception that says what was wrong, and nothing changed. On every kernel there is.</summary>
public class BadInputTests
{
    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(All))]
    public void Structure_smaller_than_the_ioctl_s_is_refused_before_the_kernel_writes_beyond_it(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c => c.hlt());
        int small = 0;
        FluentActions.Invoking(() => guest.Vcpu.Ioctl(KVM_GET_REGS, ref small)).Should().Throw<ArgumentException>().WithMessage("KVM_GET_REGS takes 144 bytes, Int32 has 4*");
        FluentActions.Invoking(() => guest.Vcpu.Fd.Get<ulong>(KVM_GET_SREGS)).Should().Throw<ArgumentException>();
        FluentActions.Invoking(() => guest.Vm.Fd.Set(KVM_SET_USER_MEMORY_REGION, 0L)).Should().Throw<ArgumentException>();
        kvm_regs regs = default;
        guest.Vcpu.Ioctl(KVM_GET_REGS, ref regs);
        regs.rip.Should().Be(RealModeGuest.Base);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Bitmap_smaller_than_the_slot_is_refused_before_the_kernel_writes_beyond_it(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        using Vm vm = kvm.CreateVm();
        using GuestMemory ram = vm.MapMemory(0, 0, 65 * 4096, (uint)KVM_MEM_LOG_DIRTY_PAGES);
        FluentActions.Invoking(() => vm.GetDirtyLog(0, new ulong[1])).Should().Throw<ArgumentException>().WithMessage("a bitmap of 1 words is too small for 65 pages*");
        vm.GetDirtyLog(0, new ulong[2]);
        FluentActions.Invoking(() => vm.ClearDirtyLog(0, 0, 65, new ulong[1])).Should().Throw<ArgumentException>();
        FluentActions.Invoking(() => vm.GetDirtyLog(7, new ulong[1])).Should().Throw<KvmException>().Where(e => e.Errno == Errno.ENOENT);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Freed_memory_can_not_be_reached(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        using Vm vm = kvm.CreateVm();
        GuestMemory ram = vm.MapMemory(0, 0x1000, 0x1000);
        ram.Dispose();
        ram.Dispose();
        FluentActions.Invoking(() => ram.Span.Length).Should().Throw<ObjectDisposedException>();
        FluentActions.Invoking(() => ram.At(0x1000, 1).Length).Should().Throw<ObjectDisposedException>();
        FluentActions.Invoking(() => ram.At<byte>(0x1000)).Should().Throw<ObjectDisposedException>();
        FluentActions.Invoking(() => ram.Protect(0)).Should().Throw<ObjectDisposedException>();
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Addresses_outside_a_slot_are_named(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        using Vm vm = kvm.CreateVm();
        using GuestMemory ram = vm.MapMemory(0, 0x1000, 0x1000);
        foreach ((ulong address, int length) in new (ulong, int)[] { (0xfff, 1), (0x1fff, 2), (0x2000, 1), (ulong.MaxValue, 1), (0x1000, -1), (0x1000, int.MaxValue) })
            FluentActions.Invoking(() => ram.At(address, length).Length).Should().Throw<ArgumentOutOfRangeException>("0x{0:x}+{1}", address, length);
        ram.At(0x1fff, 1).Length.Should().Be(1);
        ram.At(0x2000, 0).Length.Should().Be(0);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Closed_vcpu_can_not_be_used(string kernel)
    {
        var guest = new RealModeGuest(kernel, c => c.hlt());
        guest.Dispose();
        FluentActions.Invoking(() => guest.Vcpu.Regs).Should().Throw<KvmException>().Where(e => e.Errno == Errno.EBADF);
        FluentActions.Invoking(() => { guest.Vcpu.Run(); }).Should().Throw<ObjectDisposedException>();
        FluentActions.Invoking(() => guest.Vcpu.RunPage.exit_reason).Should().Throw<ObjectDisposedException>();
        FluentActions.Invoking(() => { _ = guest.Vcpu.LastExit.Reason; }).Should().Throw<ObjectDisposedException>();
        guest.Vcpu.Kick();
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Memory_that_can_not_be_is_refused_and_leaves_nothing(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        using Vm vm = kvm.CreateVm();
        foreach ((uint slot, ulong address, ulong size) in new (uint, ulong, ulong)[]
        {
            (0, 0, 0), (0, 0, 4095), (0, 1, 4096), (0, ulong.MaxValue - 4095, 8192), (32767, 0, 4096), (0, 0, 1UL << 62), (0x20000, 0, 4096),
        })
            FluentActions.Invoking(() => vm.MapMemory(slot, address, size)).Should().Throw<KvmException>("slot {0}, 0x{1:x}+0x{2:x}", slot, address, size).Where(e => e.Errno == Errno.EINVAL || e.Errno == Errno.ENOMEM);
        FluentActions.Invoking(() => vm.MapMemory(0, 0, 4096, flags: 0x80)).Should().Throw<KvmException>().Where(e => e.Errno == Errno.EINVAL);
        using GuestMemory ram = vm.MapMemory(0, 0, 4096);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Lists_that_are_too_long_are_refused(string kernel)
    {
        using var guest = new RealModeGuest(kernel, c => c.hlt());
        FluentActions.Invoking(() => guest.Vcpu.SetMsrs(new kvm_msr_entry[100_000])).Should().Throw<KvmException>().Where(e => e.Errno == Errno.E2BIG);
        FluentActions.Invoking(() => guest.Vcpu.GetMsrs(new kvm_msr_entry[100_000])).Should().Throw<KvmException>().Where(e => e.Errno == Errno.E2BIG);
        FluentActions.Invoking(() => guest.Vcpu.SetCpuid(new kvm_cpuid_entry2[100_000])).Should().Throw<KvmException>().Where(e => e.Errno == Errno.E2BIG);
        FluentActions.Invoking(() => guest.Vcpu.GetMsr(0xdead)).Should().Throw<KvmException>().WithMessage("KVM_GET_MSRS of 0xdead: EINVAL");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Ids_that_can_not_be_are_refused(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        using Vm vm = kvm.CreateVm();
        FluentActions.Invoking(() => vm.CreateVcpu(uint.MaxValue)).Should().Throw<KvmException>().WithMessage("KVM_CREATE_VCPU: EINVAL");
        FluentActions.Invoking(() => vm.CreateVcpu((uint)kvm.VcpuLimits.Ids)).Should().Throw<KvmException>();
        FluentActions.Invoking(() => vm.CreateDevice(9999)).Should().Throw<KvmException>().Where(e => e.Errno == Errno.ENODEV);
        FluentActions.Invoking(() => vm.EnableCap(99999)).Should().Throw<KvmException>().Where(e => e.Errno == Errno.EINVAL);
        using Vcpu vcpu = vm.CreateVcpu(0);
        FluentActions.Invoking(() => vcpu.Interrupt(256)).Should().Throw<KvmException>().Where(e => e.Errno == Errno.EINVAL);
    }

    /// <summary>A number that nobody opened, and one of another kind.</summary>
    [SkippableTheory, MemberData(nameof(All))]
    public void Wrong_descriptor_is_an_errno(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        using (var nobody = new KvmFd(kvm.Backend, 9999)) nobody.TryIoctl(KVM_RUN, 0).Should().Be(-(long)Errno.EBADF);
        using Vm vm = kvm.CreateVm();
        vm.Fd.TryIoctl(KVM_RUN, 0).Should().Be(-(long)Errno.ENOTTY);
        kvm.Fd.TryIoctl(KVM_RUN, 0).Should().Be(-(long)Errno.EINVAL);
        vm.Fd.TryIoctl(KVM_CREATE_VCPU, 0).Should().BeGreaterThanOrEqualTo(0);
    }

    [Fact]
    public void Nonsense_back_ends_are_refused()
    {
        FluentActions.Invoking(() => KvmSystem.Open(null!)).Should().Throw<ArgumentNullException>();
        FluentActions.Invoking(() => KvmSystem.Open(KvmBackend.Model(), "")).Should().Throw<ArgumentException>();
        FluentActions.Invoking(() => KvmBackend.ByName("cloud")).Should().Throw<ArgumentException>().WithMessage("*cloud*model*native*");
        FluentActions.Invoking(() => KvmBackend.ByName("model", "z80")).Should().Throw<ArgumentException>().WithMessage("*z80*intel*amd*");
        FluentActions.Invoking(() => KvmBackend.ByName("model", "amd", 0)).Should().Throw<ArgumentOutOfRangeException>();
        FluentActions.Invoking(() => KvmBackend.ByName("model", "amd", ModelOptions.MostProcessors + 1)).Should().Throw<ArgumentOutOfRangeException>();
        FluentActions.Invoking(() => KvmBackend.Model(m => m.Time = null!)).Should().Throw<ArgumentNullException>();
        FluentActions.Invoking(() => KvmSystem.Open(KvmBackend.Model(), "/dev/null")).Should().Throw<KvmException>().Where(e => e.Errno == Errno.ENOENT);
    }

    /// <summary>As modprobe says it.</summary>
    [Theory]
    [InlineData("ept", "perhaps", "modprobe kvm_intel: EINVAL")]
    [InlineData("kvm.ignore_msrs", "perhaps", "modprobe kvm: EINVAL")]
    public void Module_parameter_that_is_no_value_keeps_the_module_out(string name, string value, string message)
    {
        IKvmBackend backend = KvmBackend.Model(m => m.ModuleParameters[name] = value);
        FluentActions.Invoking(() => KvmSystem.Open(backend)).Should().Throw<KvmException>().WithMessage(message + "*");
        FluentActions.Invoking(() => KvmSystem.Open(backend)).Should().Throw<KvmException>("nothing is left of the first attempt").WithMessage(message + "*");
    }

    [Fact]
    public void A_thousand_processors_can_be_had()
    {
        using KvmSystem kvm = KvmSystem.Open(KvmBackend.ByName("model", "intel", ModelOptions.MostProcessors));
        using Vm vm = kvm.CreateVm();
        kvm.VcpuLimits.Recommended.Should().Be(ModelOptions.MostProcessors);
    }
}
