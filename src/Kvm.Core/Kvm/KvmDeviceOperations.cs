using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Core;

/// <summary>kvm_chardev_ops: /dev/kvm.</summary>
internal sealed class KvmDeviceOperations(KvmDevice device) : FileOperations
{
    /// <summary>The generic system ioctls.</summary>
    public static readonly IoctlTable<KvmDevice> Table = Build();

    public KvmDevice Device { get; } = device;

    [KernelFunction("kvm_dev_ioctl", File = "virt/kvm/kvm_main.c")]
    public override KvmResult Ioctl(KvmFile file, uint request, ulong arg)
    {
        using var _ = FunctionTrace.Enter("kvm_dev_ioctl");
        return Table.Find(request) is { } row ? row.Invoke(Device, arg) : Device.Module.Arch.DevIoctl(Device, request, arg);
    }

    private static IoctlTable<KvmDevice> Build()
    {
        var t = new IoctlTable<KvmDevice>();
        t.Add(KVM_GET_API_VERSION, nameof(KVM_GET_API_VERSION), static (d, arg) => arg != 0 ? Errno.EINVAL : KVM_API_VERSION);
        t.Add(KVM_CREATE_VM, nameof(KVM_CREATE_VM), static (d, arg) => d.Module.DevIoctlCreateVm(arg));
        t.Add(KVM_CHECK_EXTENSION, nameof(KVM_CHECK_EXTENSION), static (d, arg) => d.Module.CheckExtensionGeneric(null, arg));
        t.Add(KVM_GET_VCPU_MMAP_SIZE, nameof(KVM_GET_VCPU_MMAP_SIZE), static (d, arg) => arg != 0 ? Errno.EINVAL : 3 * PageAllocator.PageSize);
        t.Add(KVM_TRACE_ENABLE, nameof(KVM_TRACE_ENABLE), static (d, arg) => Errno.EOPNOTSUPP);
        t.Add(KVM_TRACE_PAUSE, nameof(KVM_TRACE_PAUSE), static (d, arg) => Errno.EOPNOTSUPP);
        t.Add(KVM_TRACE_DISABLE, nameof(KVM_TRACE_DISABLE), static (d, arg) => Errno.EOPNOTSUPP);
        return t;
    }
}
