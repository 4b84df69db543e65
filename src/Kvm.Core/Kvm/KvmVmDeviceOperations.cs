using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Core;

/// <summary>kvm_device_fops: files of devices that KVM_CREATE_DEVICE made.</summary>
internal sealed class KvmVmDeviceOperations : FileOperations
{
    private delegate KvmResult Accessor(in kvm_device_attr attr);

    [KernelFunction("kvm_device_ioctl", File = "virt/kvm/kvm_main.c")]
    public override KvmResult Ioctl(KvmFile file, uint request, ulong arg)
    {
        using var _ = FunctionTrace.Enter("kvm_device_ioctl");
        var device = (KvmVmDevice)file.PrivateData!;
        if (device.Vm.Mm != HostTask.Current.Mm || device.Vm.VmDead) return Errno.EIO;
        return request switch
        {
            KVM_SET_DEVICE_ATTR => Attr(device.CanSetAttr, device.SetAttr, arg),
            KVM_GET_DEVICE_ATTR => Attr(device.CanGetAttr, device.GetAttr, arg),
            KVM_HAS_DEVICE_ATTR => Attr(device.CanHasAttr, device.HasAttr, arg),
            _ => device.Ioctl(request, arg),
        };
    }

    [KernelFunction("kvm_device_release", File = "virt/kvm/kvm_main.c")]
    public override void Release(KvmFile file)
    {
        using var _ = FunctionTrace.Enter("kvm_device_release");
        var device = (KvmVmDevice)file.PrivateData!;
        if (device.DiesWithItsFile)
        {
            using var __ = device.Vm.Lock.Enter();
            device.Vm.Devices.Remove(device);
            device.Release();
        }

        device.Vm.Put();
    }

    /// <summary>kvm_device_ioctl_attr: an accessor that is missing is -EPERM before anything is copied.</summary>
    private static KvmResult Attr(bool exists, Accessor accessor, ulong arg)
    {
        if (!exists) return Errno.EPERM;
        return new UserPtr<kvm_device_attr>(arg).Read(out kvm_device_attr attr) ? accessor(in attr) : Errno.EFAULT;
    }
}
