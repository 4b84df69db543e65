using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <summary>KVM_DEV_TYPE_VFIO: the VFIO pseudo device. This host has no VFIO files, so no file can be added to it.</summary>
internal sealed class KvmVfioDevice(KvmVm vm) : KvmVmDevice(vm)
{
    public override string Name => "kvm-vfio";
    public override bool CanSetAttr => true;
    public override bool CanHasAttr => true;

    [KernelFunction("kvm_vfio_create", File = "virt/kvm/vfio.c")]
    public override KvmResult Create()
    {
        if (Vm.Devices.Any(d => d is KvmVfioDevice)) return Errno.EBUSY;
        return Vm.Host.Faults.ShouldFail("kzalloc", "kvm_vfio") ? Errno.ENOMEM : 0;
    }

    [KernelFunction("kvm_vfio_set_attr", File = "virt/kvm/vfio.c")]
    public override KvmResult SetAttr(in kvm_device_attr attr)
    {
        if (HasAttr(in attr).IsError) return Errno.ENXIO;
        if (!new UserPtr<int>(attr.addr).Read(out int fd)) return Errno.EFAULT;
        KvmFile? file = HostTask.Current.Process.Files.Get(fd);
        if (file is null) return Errno.EBADF;
        file.Put();
        return attr.attr == Uapi.KVM_DEV_VFIO_GROUP_ADD ? Errno.EINVAL : Errno.ENOENT;
    }

    [KernelFunction("kvm_vfio_has_attr", File = "virt/kvm/vfio.c")]
    public override KvmResult HasAttr(in kvm_device_attr attr) =>
        attr.group == Uapi.KVM_DEV_VFIO_GROUP && attr.attr is Uapi.KVM_DEV_VFIO_GROUP_ADD or Uapi.KVM_DEV_VFIO_GROUP_DEL ? 0 : Errno.ENXIO;
}
