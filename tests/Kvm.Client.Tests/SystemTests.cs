using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client.Tests;

public class SystemTests
{
    public static TheoryData<string> All => Kernels.All;

    [SkippableTheory, MemberData(nameof(All))]
    public void Api_version_is_12(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        kvm.ApiVersion.Should().Be(KVM_API_VERSION);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Mmap_size_has_room_for_run_pio_and_coalesced_pages(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        kvm.VcpuMmapSize.Should().Be(3 * 4096);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Extensions_are_answered_and_unknown_ones_are_0(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        kvm.CheckExtension(KVM_CAP_USER_MEMORY).Should().Be(1);
        kvm.CheckExtension(KVM_CAP_IMMEDIATE_EXIT).Should().Be(1);
        kvm.CheckExtension(99999).Should().Be(0);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Supported_cpuid_has_the_basic_leaves(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        kvm_cpuid_entry2[] entries = kvm.GetSupportedCpuid();
        entries.Select(e => e.function).Should().Contain([0u, 1u, 0x80000000u, (uint)KVM_CPUID_SIGNATURE]);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Msr_lists_are_not_empty(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        kvm.GetMsrIndexList().Should().Contain(0x10u, "IA32_TIME_STAMP_COUNTER is saved on every host");
        kvm.GetMsrFeatureIndexList().Should().NotBeEmpty();
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Errno_becomes_an_exception_that_names_the_call(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        FluentActions.Invoking(() => kvm.CreateVm(type: 99)).Should().Throw<KvmException>()
            .Where(e => e.Errno == Errno.EINVAL && e.Operation == "KVM_CREATE_VM");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Unknown_ioctl_is_EINVAL_on_the_device_and_ENOTTY_on_a_vm(string kernel)
    {
        using var kvm = Kernels.Open(kernel);
        using Vm vm = kvm.CreateVm();
        kvm.Fd.TryIoctl(_IO((uint)KVMIO, 0xff), 0).Should().Be(-(long)Errno.EINVAL);
        vm.Fd.TryIoctl(_IO((uint)KVMIO, 0xff), 0).Should().Be(-(long)Errno.ENOTTY);
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Use_after_dispose_is_EBADF(string kernel)
    {
        var kvm = Kernels.Open(kernel);
        kvm.Dispose();
        kvm.Fd.TryIoctl(KVM_GET_API_VERSION, 0).Should().Be(-(long)Errno.EBADF);
    }

    [Fact]
    public void Missing_device_is_explained() =>
        FluentActions.Invoking(() => KvmSystem.Open(KvmBackend.Native, "/dev/no-such-kvm")).Should().Throw<KvmException>()
            .Where(e => e.Errno == Errno.ENOENT && e.Message.Contains("/dev/no-such-kvm"));
}
