using Kvm.Abi;

namespace Kvm.Core;

/// <summary>struct kvm_device with its kvm_device_ops: a device that KVM_CREATE_DEVICE makes and attributes configure.</summary>
public abstract class KvmVmDevice
{
    protected KvmVmDevice(KvmVm vm) => Vm = vm;

    public KvmVm Vm { get; }

    /// <summary>The name of its file: "kvm-vfio".</summary>
    public abstract string Name { get; }

    /// <summary>ops->release exists: the device dies with its file; otherwise with the VM.</summary>
    public virtual bool DiesWithItsFile => true;

    public virtual bool CanSetAttr => false;
    public virtual bool CanGetAttr => false;
    public virtual bool CanHasAttr => false;

    /// <summary>ops->create; <see cref="KvmVm.Lock"/> is held.</summary>
    public abstract KvmResult Create();

    /// <summary>ops->init; no lock is held.</summary>
    public virtual void Init()
    {
    }

    /// <summary>ops->release (with <see cref="KvmVm.Lock"/>) or ops->destroy.</summary>
    public virtual void Release()
    {
    }

    public virtual KvmResult SetAttr(in kvm_device_attr attr) => Errno.ENXIO;
    public virtual KvmResult GetAttr(in kvm_device_attr attr) => Errno.ENXIO;
    public virtual KvmResult HasAttr(in kvm_device_attr attr) => Errno.ENXIO;

    /// <summary>ops->ioctl.</summary>
    public virtual KvmResult Ioctl(uint request, ulong arg) => Errno.ENOTTY;
}
